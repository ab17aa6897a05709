"""Test calls through the real webhook: one for each vertical and kind of booking. What was booked is removed again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relevo.clock import Clock
from relevo.db.pool import Connection, Database, every, first
from relevo.db.statements import statement
from relevo.errors import Refused
from relevo.migration.run import audit
from relevo.simulator.synthetic import Line, Played, Player


@dataclass(frozen=True, slots=True)
class Tried:
    """What one call came to, in the end."""

    call_id: str
    tenant_id: str
    vertical: str
    version: str | None  # who answered; None: nobody
    answered: bool
    outcome: str | None  # the booking that was to be made; None: none
    booked: bool
    removed: bool
    transfer: str | None
    faults: list[str]


async def try_all(
    database: Database,
    player: Player,
    clock: Clock,
    call_id: Callable[[], str],
    *,
    built_in: bool,
    actor: str,
    reason: str | None,
) -> list[Tried]:
    """Call one tenant on v2 of each vertical and kind of booking, one after the other, and keep what came of it.

    ``built_in``: v2's tools are Relevo's own, so that it is Relevo's own note of a booking that is removed. Raises
    Refused where nobody on v2 can be called.
    """
    async with database.transaction(read_only=True) as connection:
        lines = await every(connection, statement("checklist", "lines"))
    if not lines:
        raise Refused("no tenant on v2 has a line that could be called", fix="see: relevo status")
    tried = []
    for row in lines:
        line = Line(row["tenant_id"], row["vertical"], row["number_id"], row["number"], row["outcome"])
        played = await player.play(line, call_id(), clock())
        async with database.transaction() as connection:
            found = await _looked_up(connection, played, built_in)
            values = {name: getattr(found, name) for name in found.__dataclass_fields__}
            await connection.execute(statement("checklist", "keep_call"), {**values, "now": clock()})
            await audit(
                connection, actor=actor, action="checklist.call", subject=found.vertical, reason=reason,
                details={"call_id": found.call_id, "faults": found.faults},
            )  # fmt: skip
        tried.append(found)
    return tried


async def _looked_up(connection: Connection, played: Played, built_in: bool) -> Tried:
    """What was said over HTTP, held against what the router recorded; and the booking is gone."""
    line, faults = played.line, list(played.faults)
    row = await first(connection, statement("checklist", "played_call"), {"call_id": played.call_id})
    if row is None:
        faults.append("the call was not recorded")
    elif row["tenant_id"] != line.tenant_id:
        faults.append("another tenant answered")
    elif not row["synthetic"]:
        faults.append("the call was not marked, and counts in the figures")
    elif row["stage"] != 6:
        faults.append("the end of the call was not recorded")
    booked, removed = played.booked is not None, played.cancelled
    if row is not None and booked and row["outcome"] != line.outcome:
        faults.append(f"the booking was not recorded: the call ended as {row['outcome']}")
        booked = False
    if built_in and booked:
        gone = await every(connection, statement("checklist", "take_back"), {"call_id": played.call_id})
        removed = [each["outcome"] for each in gone] == [line.outcome]
    version = row["served_version"] if row is not None and played.answered else None
    return Tried(
        played.call_id, line.tenant_id, line.vertical, version, played.answered, line.outcome, booked,
        booked and removed, played.transfer, faults,
    )  # fmt: skip
