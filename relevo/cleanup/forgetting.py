"""What Relevo itself writes down about people is kept for as long as the settings say, and then deleted.

Mails to clients are not among it: that a client was told is what keeps them from being told again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import datetime, timedelta

import psycopg

from relevo.clock import Clock
from relevo.db.lease import lease
from relevo.db.pool import Database, one
from relevo.db.statements import statement
from relevo.errors import LeaseHeld, RelevoError

LEASE = "retention"
EVERY_S = 3600.0
AT_MOST = 1_000  # rows in one transaction
KINDS = ("tool_calls", "messages", "complaints")


async def forget(database: Database, keep: Mapping[str, timedelta], now: datetime) -> dict[str, int]:
    """Delete what is older than it is to be kept, a few rows at a time, each time audited; how many of each kind.
    ``keep``: how long, by kind; a kind that is not there is kept for good."""
    forgotten = dict.fromkeys(keep, 0)
    for kind, kept in keep.items():
        values = {"before": now - kept, "at_most": AT_MOST}
        while True:
            async with database.transaction() as connection:
                done = int((await one(connection, statement("cleanup", f"forget_{kind}"), values))["forgotten"])
            forgotten[kind] += done
            if done < AT_MOST:
                break
    return forgotten


async def keep_forgetting(
    database: Database, keep: Mapping[str, timedelta], clock: Clock, *, every_s: float = EVERY_S
) -> None:
    """Forget every hour for as long as this task is not cancelled; of several processes one does it."""
    while True:
        with contextlib.suppress(LeaseHeld, RelevoError, psycopg.Error):
            async with lease(database, LEASE):
                await forget(database, keep, clock())
        await asyncio.sleep(every_s)
