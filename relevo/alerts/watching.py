"""Looks at v2's figures every minute. One process does it at a time, by a lease."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta

import psycopg

from relevo.alerts import incidents
from relevo.alerts.incident import Step
from relevo.alerts.thresholds import ENOUGH_CALLS, RULES, WINDOWS, Finding, judge
from relevo.clock import Clock
from relevo.db.lease import Lease, lease
from relevo.db.pool import Connection, Database
from relevo.errors import LeaseHeld, RelevoError
from relevo.metrics.health import Health
from relevo.metrics.reading import health
from relevo.metrics.window import Window

LEASE = "alerts"
EVERY_S = 60.0
_AGAIN_AFTER_S = 5.0


async def look(database: Database, now: datetime, held: Lease | None = None) -> dict[str, Step]:
    """Look once; by cause, what was done. ``held``: it counts only while this lease is ours. Raises LeaseLost."""
    async with database.transaction(read_only=True, snapshot=True) as connection:
        found = findings(await _windows(connection, now))
    async with database.transaction() as connection:
        if held is not None:
            await held.hold(connection)
        return {finding.cause: await incidents.note(connection, finding, now) for finding in found}


def findings(windows: dict[timedelta, Health]) -> list[Finding]:
    """Every rule, on v2's figures by the length of their window."""
    return [judge(rule, windows) for rule in RULES]


async def keep_watching(database: Database, clock: Clock, *, every_s: float = EVERY_S) -> None:
    """Look for as long as this task is not cancelled, and the work is ours; another process that does it is waited
    for, and a database that is away is asked again."""
    while True:
        with contextlib.suppress(LeaseHeld, RelevoError, psycopg.Error):
            async with lease(database, LEASE) as held:
                while True:
                    await look(database, clock(), held)
                    await asyncio.sleep(every_s)
        await asyncio.sleep(min(_AGAIN_AFTER_S, every_s))


async def _windows(connection: Connection, now: datetime) -> dict[timedelta, Health]:
    """v2's figures of the last hour, and of longer ones only as long as there are too few calls to tell."""
    read: dict[timedelta, Health] = {}
    for length in WINDOWS:
        read[length] = (await health(connection, Window.last(length, now)))["v2"]
        if min(read[length].total_calls, read[length].measured_calls) >= ENOUGH_CALLS:
            break
    return read
