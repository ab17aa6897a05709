"""Sums up the differences that calls leave behind. One process does it at a time; two at once do no harm."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta

import psycopg

from relevo.clock import Clock
from relevo.db.lease import lease
from relevo.db.pool import Database, one
from relevo.db.statements import statement
from relevo.errors import LeaseHeld, RelevoError
from relevo.metrics.window import HOUR, MINUTES_KEPT

AT_MOST = 50_000  # differences in one transaction
LEASE = "statistics"
_FORGET_EVERY = timedelta(minutes=10)


async def fold(database: Database, *, at_most: int = AT_MOST) -> int:
    """Fold what there is, in transactions of ``at_most`` differences; returns how many differences."""
    folded = 0
    while True:
        async with database.transaction() as connection:
            done = int((await one(connection, statement("metrics", "fold"), {"at_most": at_most}))["folded"])
        folded += done
        if done < at_most:
            return folded


async def forget_minutes(database: Database, now: datetime) -> None:
    """Delete the minutes that no window asks for any more; their hours stay."""
    async with database.transaction() as connection:
        before = now - MINUTES_KEPT - HOUR
        await connection.execute(statement("metrics", "forget_minutes"), {"before": before})


async def keep_folding(database: Database, clock: Clock, *, every_s: float = 1.0) -> None:
    """Fold every ``every_s`` seconds for as long as this task is not cancelled, and the work is ours: another process
    that does it is waited for, and a database that is away is asked again."""
    while True:
        with contextlib.suppress(LeaseHeld, RelevoError, psycopg.Error):
            async with lease(database, LEASE) as held:
                forgotten = clock() - _FORGET_EVERY
                while True:
                    async with database.transaction() as connection:
                        await held.hold(connection)
                    await fold(database)
                    if clock() - forgotten >= _FORGET_EVERY:
                        forgotten = clock()
                        await forget_minutes(database, forgotten)
                    await asyncio.sleep(every_s)
        await asyncio.sleep(every_s * 5)
