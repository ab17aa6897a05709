"""Carries a rollout along one arrow: the flag, the rollout's row, the transition and the audit log, in one transaction.

Who moves says which revision was seen; where somebody was faster, nothing is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from relevo.db.pool import Connection, every, first, one
from relevo.db.statements import statement
from relevo.errors import SomebodyWasFaster
from relevo.flags.evaluate import Flag
from relevo.flags.writing import Author, flag_of
from relevo.rollout import plan as plans
from relevo.rollout.evidence import whole_minute
from relevo.rollout.plan import Phase, Plan
from relevo.rollout.state import Cause, Event, Standing, shifted

CONTROLLER = "rollout controller"


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout as its row has it."""

    id: int
    plan: Plan
    standing: Standing
    judged_from: datetime
    gathered_from: datetime
    started_at: datetime
    finished_at: datetime | None
    actor: str
    reason: str | None
    revision: int

    @property
    def phase(self) -> Phase:
        """The one asked for."""
        return self.plan.phases[self.standing.phase]


async def open_rollout(connection: Connection) -> Rollout | None:
    """The one that runs; None when none does."""
    row = await first(connection, statement("rollout", "open_rollout"))
    return None if row is None else rollout_of(row)


async def last_rollout(connection: Connection) -> Rollout | None:
    """The newest, running or not; None when there never was one."""
    row = await first(connection, statement("rollout", "last_rollout"))
    return None if row is None else rollout_of(row)


def rollout_of(row: Mapping[str, Any]) -> Rollout:
    """The rollout that a row holds."""
    plan = plans.parse(row["plan"])
    standing = Standing(
        row["state"],
        row["phase"],
        row["phases"],
        row["flag_version"],
        row["hold_until"],
        row["expires_at"],
        row["due_at"],
        row["paused_at"],
        row["cause"],
        plan.promotion == "automatic",
        plan.rollback == "automatic",
    )
    names = ("judged_from", "gathered_from", "started_at", "finished_at", "actor", "reason", "revision")
    return Rollout(row["id"], plan, standing, *(row[name] for name in names))


async def frozen_for(connection: Connection, rollout: Rollout, now: datetime, ahead: int = 1) -> datetime | None:
    """When those who would join with the next phases may not yet; None when they may now."""
    if not rollout.plan.freezes:
        return None
    phase = rollout.standing.phase
    wanted = {"id": rollout.id, "phase": phase, "until": phase + ahead}
    zones = [row["time_zone"] for row in await every(connection, statement("rollout", "zones_joining"), wanted)]
    return plans.frozen_until(rollout.plan, now, zones)


async def phase_with_fewer(connection: Connection, rollout: Rollout) -> int | None:
    """The last phase before this one with fewer tenants than are on v2 now, and any; None where there is none."""
    wanted = {"id": rollout.id, "phase": rollout.standing.phase}
    row = await first(connection, statement("rollout", "phase_with_fewer"), wanted)
    return None if row is None else int(row["phase"])


async def act(connection: Connection, author: Author) -> Flag:
    """Hold the flag's row, and say that it is the rollout that writes it. The flag always comes before the rollout's
    own row: that is the order in which a human's write locks them."""
    await connection.execute(statement("rollout", "act"), {"actor": author.actor, "reason": author.reason})
    return flag_of(await first(connection, statement("rollout", "locked_flag")))


async def move(
    connection: Connection,
    seen: Rollout,
    event: Event,
    now: datetime,
    author: Author,
    *,
    phase: int | None = None,
    tenant: str | None = None,
) -> Rollout:
    """Go along the arrow ``event``. ``phase``: to which one, where the arrow leads to another.

    Raises SomebodyWasFaster where the row is not as it was seen, or has no such arrow, and where nobody would leave by
    going back.
    """
    flag = await act(connection, author)
    joined = (await one(connection, statement("rollout", "flag")))["enabled_tenants"]
    change = _CHANGES.get(event, _Change())
    to_phase = seen.standing.phase if phase is None else phase
    if (
        await first(connection, statement("rollout", "locked_rollout"), {"id": seen.id, "revision": seen.revision})
        is None
    ):
        raise _late()
    version = flag.version
    if change.write is not None:
        version = await _write_flag(connection, change.write, seen, to_phase, tenant)
    elif event == "reach":
        version = seen.standing.flag_version
    after = _after(seen, change, event, to_phase, now)
    said: dict[str, Any] = {
        "event": event,
        "now": now,
        "actor": author.actor,
        "why": author.reason,
        "cause": change.cause,
    }
    details: dict[str, Any] = {"tenant": tenant} if tenant else {}
    if change.goes_back:  # what relevo rollback --undo needs
        details["before"] = {"enabled": flag.enabled, "percentage": flag.percentage, "enabled_tenants": joined}
    said |= {"phase": to_phase, "flag_version": version, "details": Jsonb(details)}
    moved = await first(connection, statement("rollout", "move"), columns(after) | said)
    if moved is None:
        raise _late()
    await _mark_phases(connection, seen, event, to_phase, now)
    if event == "single_out":
        await connection.execute(statement("rollout", "single_out"), {"id": seen.id, "tenant": tenant, "now": now})
    return rollout_of(moved)


def columns(rollout: Rollout) -> dict[str, Any]:
    """The columns of a rollout that change with time."""
    standing = rollout.standing
    return {
        "id": rollout.id,
        "revision": rollout.revision,
        "judged_from": rollout.judged_from,
        "gathered_from": rollout.gathered_from,
        "hold_until": standing.hold_until,
        "expires_at": standing.expires_at,
        "due_at": standing.due_at,
    }


@dataclass(frozen=True, slots=True)
class _Change:
    """What an arrow changes besides the state."""

    write: str | None = None  # the statement that writes the flag
    cause: Cause | None = None  # of a pause
    new_phase: bool = False  # its timers begin anew
    new_evidence: bool = False  # the tenants on v2 are others
    goes_back: bool = False


_CHANGES: Mapping[Event, _Change] = {
    "promote": _Change("write_more", new_phase=True, new_evidence=True),
    "force": _Change("write_more", new_phase=True, new_evidence=True),
    "finish": _Change("write_everybody"),
    "single_out": _Change("write_without", new_evidence=True),
    "shrink": _Change("write_fewer", "rollback", new_phase=True, new_evidence=True, goes_back=True),
    "roll_back": _Change("write_nobody", goes_back=True),
    "abort": _Change("write_nobody", goes_back=True),
    "pause": _Change(cause="operator"),
    "expire": _Change(cause="max_hold"),
    "undo": _Change(cause="undo", new_evidence=True),
}


def _after(seen: Rollout, change: _Change, event: Event, phase: int, now: datetime) -> Rollout:
    """Its times afterwards."""
    standing, asked = seen.standing, seen.plan.phases[phase]
    if event == "resume":
        had_its_time = standing.cause == "max_hold"
        standing = shifted(standing, now)
        if had_its_time:  # who resumes then gives it as long again; else it would be over at the next tick
            standing = replace(standing, expires_at=now + asked.max_hold)
    if change.new_phase:
        standing = replace(standing, hold_until=None, expires_at=None, due_at=None)
    elif event == "reach" and standing.hold_until is None:
        standing = replace(standing, hold_until=now + asked.min_hold, expires_at=now + asked.max_hold, due_at=now)
    if change.new_evidence:
        judged_from = whole_minute(now)
        gathered_from = judged_from if event == "single_out" else seen.gathered_from
        return replace(seen, standing=standing, judged_from=judged_from, gathered_from=gathered_from)
    return replace(seen, standing=standing)


async def _write_flag(connection: Connection, name: str, seen: Rollout, phase: int, tenant: str | None) -> int:
    values = {"id": seen.id, "phase": phase, "tenant": tenant}
    written = await first(connection, statement("rollout", name), values)
    if written is None:
        raise _late()
    return int(written["version"])


async def _mark_phases(connection: Connection, seen: Rollout, event: Event, phase: int, now: datetime) -> None:
    """When each phase was asked for, reached and left."""
    old, new = ({"id": seen.id, "phase": number, "now": now} for number in (seen.standing.phase, phase))
    match event:
        case "reach":
            await connection.execute(statement("rollout", "phase_reached"), new)
        case "promote" | "force" | "shrink":
            await connection.execute(statement("rollout", "phase_ended"), old)
            await connection.execute(statement("rollout", "phase_asked"), new)
        case "finish" | "roll_back" | "abort":
            await connection.execute(statement("rollout", "phase_ended"), old)


def _late() -> SomebodyWasFaster:
    return SomebodyWasFaster(
        "the rollout is not any more as it was when this was decided", fix="see: relevo rollout status"
    )
