"""Moving tenants between the versions, from the overview: what a step would change, and doing it.

The one seam to whoever is at the wheel: with no rollout running the flag's row is written here, by the specification's
own means; a rollout's controller turns a written percentage into a resize of its cohort.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from psycopg import sql

from relevo.dashboard.house import House
from relevo.db.pool import Connection, every, first
from relevo.db.statements import statement
from relevo.errors import Refused
from relevo.flags.evaluate import VOICE_AGENT_V2, Flag, evaluate
from relevo.flags.writing import flag_of

STEPS = (10, 25)  # percentage points that one press adds
_NAMED = 20  # tenants shown by name on a confirmation
_FLAG = {"name": VOICE_AGENT_V2}

Kind = Literal["extend", "roll_back"]


@dataclass(frozen=True, slots=True)
class Step:
    """What somebody wants to do to everybody."""

    kind: Kind
    points: int = 0  # with extend


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


async def outlook(house: House, step: Step) -> Outlook:
    """What the step would change as things are now; nothing is written."""
    async with house.database.transaction(read_only=True, snapshot=True) as connection:
        before = flag_of(await first(connection, statement("flags", "flag"), _FLAG))
        tenants = [row["id"] for row in await every(connection, statement("dashboard", "active_tenants"))]
        was = {tenant for tenant in tenants if evaluate(before, tenant).value}
        after = _after(before, step, len(was), len(tenants))
        chosen = {tenant for tenant in tenants if evaluate(after, tenant).value}
        refused = []
        if step.kind == "extend":
            wanted = {"tenants": sorted(chosen - after.enabled_tenants)}
            rows = await every(connection, statement("flags", "unverified"), wanted)
            refused = [(row["tenant_id"], row["why"]) for row in rows]
        will = chosen - {tenant for tenant, _why in refused}
        fill = {"tenants": house.mapping.fill()["tenants"]}
        gaining = await _named(connection, sorted(will - was), fill)
        losing = await _named(connection, sorted(was - will), fill)
    gain, loss = len(will - was), len(was - will)
    return Outlook(before, after, len(tenants), len(was), len(will), gaining, losing, gain, loss, refused)


async def take(house: House, step: Step, *, seen: int, actor: str, reason: str | None) -> Flag:
    """Do it, as it was shown: on the version of the flag that was seen. Returns the flag afterwards.

    Raises Refused where somebody changed the flag meanwhile.
    """
    async with house.database.transaction() as connection:
        act: dict[str, Any] = {"actor": actor, "reason": reason, "forced": False}
        await connection.execute(statement("flags", "act"), act)
        before = flag_of(await first(connection, statement("flags", "locked_flag"), _FLAG))
        if step.kind == "roll_back":  # whatever happened meanwhile, this is what is wanted
            await connection.execute(statement("dashboard", "roll_back"), _FLAG)
        else:
            if before.version != seen:
                raise Refused(
                    f"the flag was changed meanwhile: it is at version {before.version}, and you saw {seen}",
                    fix="nothing was changed; look again and decide anew",
                )
            placed = await first(connection, statement("dashboard", "standing"), _FLAG) or {"on_v2": 0, "total": 0}
            percentage = _after(before, step, placed["on_v2"], placed["total"]).percentage
            await connection.execute(statement("dashboard", "extend"), {**_FLAG, "percentage": percentage})
        return flag_of(await first(connection, statement("flags", "flag"), _FLAG))


def _after(flag: Flag, step: Step, on_v2: int, total: int) -> Flag:
    """The row that the step asks for; its trigger will still put unverified tenants aside."""
    if step.kind == "roll_back":
        return replace(flag, enabled=False, percentage=0, enabled_tenants=frozenset())
    reached = 100 * on_v2 // total if total else 0
    written = flag.percentage if flag.enabled else 0
    return replace(flag, enabled=True, percentage=min(100, max(reached, written) + step.points))


async def _named(
    connection: Connection, tenants: list[str], fill: dict[str, sql.Composable]
) -> list[tuple[str, str | None]]:
    rows = await every(connection, statement("dashboard", "names", **fill), {"ids": tenants[:_NAMED]})
    names = {row["id"]: row["name"] for row in rows}
    return [(tenant, names.get(tenant)) for tenant in tenants[:_NAMED]]
