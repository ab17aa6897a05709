"""Giving way: a migration is never in a hurry, the phones are.

Between two batches the database is asked, about once a second, whether somebody waits for a lock of ours and how far
its replicas are behind. While either is so, no batch begins, and the reason is shown.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from relevo import events
from relevo.db.pool import Database, one
from relevo.db.statements import statement

_LOOK_EVERY_S = 1.0
_PAUSE_S = 0.5
_LONGEST_S = 60.0  # a waiter that never gets through is not ours to save
_TOLERATED_LAG_S = 10.0


@dataclass(frozen=True, slots=True)
class Load:
    """What the database has to bear beside us."""

    waiting: int  # sessions of others that wait for a lock
    lag_s: float  # how far the slowest visible replica is behind


def reason_to_wait(load: Load) -> str | None:
    """Why no batch should begin now, in words; None when nothing speaks against it."""
    if load.waiting:
        return f"{load.waiting} sessions wait for locks"
    if load.lag_s > _TOLERATED_LAG_S:
        return f"a replica is {load.lag_s:.0f} s behind"
    return None


class Throttle:
    """Shared by the workers of one migrator."""

    def __init__(self, database: Database, emit: events.Sink) -> None:
        self._database = database
        self._emit = emit
        self._looked_s = 0.0
        self._looking = asyncio.Lock()

    async def yield_to_others(self) -> None:
        """Return when a batch may begin."""
        async with self._looking:
            if time.monotonic() - self._looked_s < _LOOK_EVERY_S:
                return
            told: str | None = None
            since_s = time.monotonic()
            while (reason := reason_to_wait(await self._look())) and time.monotonic() - since_s < _LONGEST_S:
                if reason != told:
                    self._emit(events.Note(f"giving way: {reason}", warning=True))
                told = reason
                await asyncio.sleep(_PAUSE_S)
            self._looked_s = time.monotonic()

    async def _look(self) -> Load:
        async with self._database.transaction(read_only=True) as connection:
            row = await one(connection, statement("migration", "load"))
        return Load(row["waiting"], float(row["lag_s"]))
