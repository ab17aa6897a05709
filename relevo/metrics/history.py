"""v1's own calls as statistics: counted from the platform's table, some days at a time, as often as one likes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

from psycopg import sql

from relevo import events
from relevo.clock import Clock
from relevo.db.lease import lease
from relevo.db.pool import Database, every, one
from relevo.db.statements import statement
from relevo.metrics.window import HOUR, MINUTES_KEPT

LEASE = "history"
DAYS_AT_ONCE = 7
"""The platform's table may have no index on time: then each set reads all of it."""


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What was counted."""

    days: int
    calls: int


async def backfill(
    database: Database,
    calls: sql.Composable,
    *,
    days: int,
    clock: Clock,
    again: bool = False,
    emit: Callable[[events.Event], None] = events.silent,
) -> Backfilled:
    """Count the last ``days`` days, today included; those counted before only if ``again``, and today always.

    ``calls``: v1's calls as a subselect, as the source mapping gives it. Each set of days is one transaction that
    replaces what was counted of them. Raises LeaseHeld while another process does the same.
    """
    today = clock().astimezone(UTC).date()
    first = today - timedelta(days=days - 1)
    async with lease(database, LEASE) as held:
        async with database.transaction(read_only=True) as connection:
            wanted = {"first": first, "last": today}
            due = [row["day"] for row in await every(connection, statement("metrics", "history_days"), wanted)]
        if again:
            due = [first + timedelta(days=number) for number in range(days)]
        counted = 0
        for number, (since, until) in enumerate(sets := list(_sets(due)), start=1):
            async with database.transaction() as connection:
                await held.hold(connection)
                now = clock()
                period = {"since": since, "until": until, "now": now, "minutes_since": now - MINUTES_KEPT - HOUR}
                await connection.execute(statement("metrics", "forget_history"), period)
                row = await one(connection, statement("metrics", "count_history", calls=calls), period)
            counted += int(row["calls"])
            emit(events.Progress(number, len(sets), "sets of days"))
    return Backfilled(len(due), counted)


def _sets(days: Sequence[date]) -> Iterator[tuple[datetime, datetime]]:
    """Stretches of days that follow each other, of at most ``DAYS_AT_ONCE``, from midnight to midnight."""
    begin = 0
    gaps = [index for index, (day, after) in enumerate(pairwise(days), start=1) if after - day > timedelta(days=1)]
    for end in [*gaps, len(days)]:
        for start in range(begin, end, DAYS_AT_ONCE):
            part = days[start : min(start + DAYS_AT_ONCE, end)]
            yield _midnight(part[0]), _midnight(part[-1]) + timedelta(days=1)
        begin = end


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
