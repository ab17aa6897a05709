"""What keeps the data in order while Relevo serves: what waits is repaired, and everything is verified now and then.

Any number of processes may do it: repair takes each row for itself; whoever holds its lease verifies.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import psycopg

from relevo.clock import Clock
from relevo.db.lease import lease
from relevo.db.pool import Database
from relevo.errors import LeaseHeld, RelevoError
from relevo.migration import mirror
from relevo.migration.mapping import SourceMapping
from relevo.migration.runs import Who
from relevo.migration.steps import verify

LEASE = "verification"
BY_ITSELF = Who("relevo serve", "by itself")
_TRY_AGAIN_AFTER = timedelta(minutes=1)  # what the other side refused once, it will mostly refuse again
_PASSING = (RelevoError, psycopg.Error)  # the database is away, or has no schema yet: it is asked again


async def keep_repaired(database: Database, clock: Clock, *, every_s: float = 5.0) -> None:
    """Bring what dual write could not do to the other side, for as long as this task is not cancelled."""
    while True:
        with contextlib.suppress(*_PASSING):
            await mirror.repair(database, BY_ITSELF, clock, tried_before=clock() - _TRY_AGAIN_AFTER)
        await asyncio.sleep(every_s)


async def keep_verified(database: Database, mapping: SourceMapping, clock: Clock, *, every_s: float = 3_600.0) -> None:
    """Verify all configurations, so that what changed behind dual write's back is known: the tenant's state says so."""
    while True:
        await asyncio.sleep(every_s)
        with contextlib.suppress(LeaseHeld, *_PASSING):
            async with lease(database, LEASE):
                await verify.run(database, mapping, tenant_ids=None, clock=clock)
