"""Looks at v2's figures, and at the data it speaks by, every minute. One process does it at a time, by a lease."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import psycopg

from relevo.alerts import incidents
from relevo.alerts.incident import Step
from relevo.alerts.thresholds import ENOUGH_ALONE, RULES, WINDOWS, Finding, judge
from relevo.clock import Clock
from relevo.db.lease import Lease, lease
from relevo.db.pool import Connection, Database, one
from relevo.db.statements import statement
from relevo.errors import LeaseHeld, RelevoError
from relevo.metrics.health import Health
from relevo.metrics.reading import health
from relevo.metrics.window import Window

LEASE = "alerts"
EVERY_S = 60.0
DRIFT = "v2.drift"
REPAIRED_WITHIN = timedelta(minutes=10)  # what dual write could not do is done again every few seconds
_AGAIN_AFTER_S = 5.0


async def look(database: Database, now: datetime, held: Lease | None = None) -> dict[str, Step]:
    """Look once; by cause, what was done. ``held``: it counts only while this lease is ours. Raises LeaseLost."""
    async with database.transaction(read_only=True, snapshot=True) as connection:
        found = findings(await _windows(connection, now))
        found.append(
            drift(await one(connection, statement("alerts", "drift_on_v2"), {"before": now - REPAIRED_WITHIN}))
        )
    async with database.transaction() as connection:
        if held is not None:
            await held.hold(connection)
        return {finding.cause: await incidents.note(connection, finding, now) for finding in found}


def findings(windows: dict[timedelta, Health]) -> list[Finding]:
    """Every rule, on v2's figures by the length of their window."""
    return [judge(rule, windows) for rule in RULES]


def drift(found: Mapping[str, Any]) -> Finding:
    """Tenants that v2 answers for although their data is not what v1 says: told, and nobody is moved for it."""
    if not found["tenants"]:
        return Finding(DRIFT, "healthy")
    many = f"{found['tenants']:,} tenants" if found["tenants"] > 1 else "1 tenant"
    message = f"{many} on v2 whose data is not what v1 says, {found['first']} for one"
    action = f"See: relevo why {found['first']}; mend: relevo mirror repair --drifted"
    return Finding(DRIFT, "warning", "Voice Agent V2: Data Drifted While Live", message, action, dict(found))


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
    """v2's figures of the last hour, and of longer ones only as long as there are too few calls to be sure."""
    read: dict[timedelta, Health] = {}
    for length in WINDOWS:
        read[length] = (await health(connection, Window.last(length, now)))["v2"]
        if min(read[length].total_calls, read[length].measured_calls) >= ENOUGH_ALONE["warning"]:
            break
    return read
