"""Moving tenants between the versions, from the overview: what a step would change and for whom, and doing it.

Without a rollout the flag's row is written, by the specification's own means. While one runs, a percentage resizes its
cohort and pauses it; promoting, pausing and the rest go along its own arrows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from psycopg import sql

from relevo.dashboard import wheel
from relevo.dashboard.house import House
from relevo.dashboard.wheel import Action
from relevo.db.pool import Connection, every, first, one
from relevo.db.statements import statement
from relevo.errors import Refused
from relevo.flags.evaluate import VOICE_AGENT_V2, Flag, evaluate
from relevo.flags.writing import Author, flag_of
from relevo.rollback import levels
from relevo.rollout import operating
from relevo.rollout.moving import Rollout, last_rollout, open_rollout

STEPS = (10, 25)  # percentage points that one press adds
_NAMED = 20  # tenants shown by name on a confirmation
_FLAG = {"name": VOICE_AGENT_V2}

Kind = Literal["extend", "roll_back", "promote", "skip", "pause", "resume", "abort"]
_AHEAD = {"promote": 1, "skip": 2}
_AT_ONCE: tuple[Kind, ...] = ("roll_back", "pause", "abort")
"""What stops or goes back is what somebody wants whatever happened meanwhile."""


@dataclass(frozen=True, slots=True)
class Step:
    """What somebody wants to do to everybody."""

    kind: Kind
    points: int = 0  # with extend
    forced: bool = False  # promote and skip: over the gate, a hold or a freeze

    @property
    def action(self) -> Action | None:
        """The action on a rollout; None for what writes the flag."""
        return next((each for each in get_args(Action) if each == self.kind), None)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a step would change."""

    before: Flag
    after: Flag
    total: int  # tenants with an active configuration
    on_v2_before: int
    on_v2_after: int
    gaining: list[tuple[str, str | None]]  # id and name of those that would go to v2, the first of them
    losing: list[tuple[str, str | None]]  # the same of those that would go back to v1
    gain: int
    loss: int
    unverified: list[tuple[str, str]]  # id and why, of those that the share would choose and may not have
    rollout: Rollout | None  # that runs
    phase: int | None  # promote and skip: the phase that would begin, from 0
    seen: str  # what the decision rests on: a step that is no way back is refused on anything else


async def outlook(house: House, step: Step) -> Outlook:
    """What the step would change as things are now; nothing is written."""
    async with house.database.transaction(read_only=True, snapshot=True) as connection:
        before = flag_of(await first(connection, statement("flags", "flag"), _FLAG))
        rollout = await open_rollout(connection)
        tenants = [row["id"] for row in await every(connection, statement("dashboard", "active_tenants"))]
        was = {tenant for tenant in tenants if evaluate(before, tenant).value}
        phase = _phase(rollout, step)
        after = await _after(connection, rollout, before, step, phase, (len(was), len(tenants)))
        chosen = {tenant for tenant in tenants if evaluate(after, tenant).value}
        refused = []
        if after.percentage:  # a list holds nobody who is not verified
            wanted = {"tenants": sorted(chosen - after.enabled_tenants)}
            rows = await every(connection, statement("flags", "unverified"), wanted)
            refused = [(row["tenant_id"], row["why"]) for row in rows]
        will = chosen - {tenant for tenant, _why in refused}
        fill = {"tenants": house.mapping.fill()["tenants"]}
        gaining = await _named(connection, sorted(will - was), fill)
        losing = await _named(connection, sorted(was - will), fill)
    return Outlook(
        before=before,
        after=after,
        total=len(tenants),
        on_v2_before=len(was),
        on_v2_after=len(will),
        gaining=gaining,
        losing=losing,
        gain=len(will - was),
        loss=len(was - will),
        unverified=refused,
        rollout=rollout,
        phase=phase,
        seen=_seen(before, rollout),
    )


async def take(house: House, step: Step, *, seen: str, actor: str, reason: str | None) -> int | None:
    """Do it, as it was shown; returns the number of its entry in the audit log where relevo rollback can undo it.

    Raises Refused where somebody changed the flag or the rollout meanwhile; what goes back or stops is done all the
    same.
    """
    author = Author(actor, reason)
    if step.kind == "roll_back":
        return (await levels.all_back(house.database, author, house.clock)).audit_id
    if step.kind not in _AT_ONCE:
        await _refuse_changed(house, seen)
    match step.kind:
        case "extend":
            await _extend(house, step, seen, author)
        case "pause" | "resume" | "abort":
            await operating.change(house.database, step.kind, author, house.clock())
        case "promote" | "skip":
            ahead = _AHEAD[step.kind]
            await operating.promote(house.database, author, house.clock(), force=step.forced, ahead=ahead)
    return None


async def _extend(house: House, step: Step, seen: str, author: Author) -> None:
    async with house.database.transaction() as connection:
        act: dict[str, Any] = {"actor": author.actor, "reason": author.reason, "forced": False}
        await connection.execute(statement("flags", "act"), act)
        before = flag_of(await first(connection, statement("flags", "locked_flag"), _FLAG))
        _refuse_other(seen, _seen(before, await open_rollout(connection)))
        placed = await one(connection, statement("dashboard", "standing"), _FLAG)
        percentage = _extended(before, step, placed["on_v2"], placed["total"]).percentage
        await connection.execute(statement("dashboard", "extend"), {**_FLAG, "percentage": percentage})


async def _refuse_changed(house: House, seen: str) -> None:
    async with house.database.transaction(read_only=True, snapshot=True) as connection:
        flag = flag_of(await first(connection, statement("flags", "flag"), _FLAG))
        _refuse_other(seen, _seen(flag, await open_rollout(connection)))


def _refuse_other(seen: str, present: str) -> None:
    if seen != present:
        raise Refused(
            f"the flag or the rollout was changed meanwhile: it is at {present}, and you saw {seen[:60] or 'nothing'}",
            fix="nothing was changed; look again and decide anew",
        )


def _seen(flag: Flag, rollout: Rollout | None) -> str:
    """What somebody decides on: the flag's version, and the rollout's phase."""
    return f"v{flag.version}" if rollout is None else f"v{flag.version} r{rollout.id}.{rollout.standing.phase + 1}"


def _phase(rollout: Rollout | None, step: Step) -> int | None:
    if rollout is None or step.kind not in _AHEAD:
        return None
    return min(rollout.standing.phase + _AHEAD[step.kind], rollout.standing.phases - 1)


async def _after(
    connection: Connection,
    rollout: Rollout | None,
    before: Flag,
    step: Step,
    phase: int | None,
    counts: tuple[int, int],
) -> Flag:
    """The row that the step asks for; where it has a percentage, unverified tenants will still be put aside."""
    if step.kind in ("pause", "resume"):
        return before
    if step.kind in ("roll_back", "abort"):
        return replace(before, enabled=False, percentage=0, enabled_tenants=frozenset())
    if step.kind == "extend":
        asked = _extended(before, step, *counts)
        if rollout is None:
            return asked
        size = await one(connection, statement("dashboard", "size_at"), {"percentage": asked.percentage})
        found = await one(connection, statement("dashboard", "resized"), {"id": rollout.id, **size})
        return replace(asked, percentage=0, enabled_tenants=frozenset(found["tenants"]))
    if rollout is None or phase is None:
        raise Refused("no rollout runs", fix="start one: relevo rollout start --canary a,b")
    if wheel.event("promote", rollout, forced=True) == "finish":
        return replace(before, enabled=True, percentage=100, enabled_tenants=frozenset())
    found = await one(connection, statement("dashboard", "promoted"), {"id": rollout.id, "phase": phase})
    listed = frozenset(found["tenants"])
    return replace(before, enabled=True, percentage=found["percentage"], enabled_tenants=listed)


def _extended(flag: Flag, step: Step, on_v2: int, total: int) -> Flag:
    """So many points more than are on v2, or than the row says."""
    reached = 100 * on_v2 // total if total else 0
    written = flag.percentage if flag.enabled else 0
    return replace(flag, enabled=True, percentage=min(100, max(reached, written) + step.points))


async def newest(house: House) -> Rollout | None:
    """The newest rollout; None where there never was one."""
    async with house.database.transaction(read_only=True) as connection:
        return await last_rollout(connection)


async def _named(
    connection: Connection, tenants: Sequence[str], fill: Mapping[str, sql.Composable]
) -> list[tuple[str, str | None]]:
    rows = await every(connection, statement("dashboard", "names", **fill), {"ids": tenants[:_NAMED]})
    names = {row["id"]: row["name"] for row in rows}
    return [(tenant, names.get(tenant)) for tenant in tenants[:_NAMED]]
