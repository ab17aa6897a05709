"""Tells clients of what a rollout did, where the team has said that it may: all that it is complete, one that they went
back. Any number of processes may: each client is told once, ever."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta

import psycopg

from relevo.clock import Clock
from relevo.comms import clients
from relevo.comms.notices import notice_of
from relevo.db.pool import Connection, Database, every, first
from relevo.db.statements import statement
from relevo.errors import RelevoError

ACTOR = "relevo"
LATELY = timedelta(days=3)
"""What is older is no news; a server that was away so long tells nobody of it."""
EVERY_S = 30.0


class Following:
    """Follows rollouts; remembers what it has told, so that it need not look at every client each time."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._told: set[tuple[str, int]] = set()

    async def look(self) -> int:
        """Write the messages that are due; how many."""
        now = self._clock()
        since = {"since": now - LATELY}
        async with self._database.transaction(read_only=True) as connection:
            complete = await first(connection, statement("comms", "completed"), since)
            returned = await every(connection, statement("comms", "singled_out"), since)
        written = 0
        if complete is not None:
            written += await self._tell("client_complete", complete["id"], None, complete["finished_at"], now)
        for row in returned:
            written += await self._tell("client_returned", row["id"], [row["tenant_id"]], row["at"], now)
        return written

    async def keep_following(self, *, every_s: float = EVERY_S) -> None:
        """Look for as long as this task is not cancelled; a database that is away is asked again."""
        while True:
            with contextlib.suppress(RelevoError, psycopg.Error):
                await self.look()
            await asyncio.sleep(every_s)

    async def _tell(self, name: str, about: int, tenants: list[str] | None, at: datetime, now: datetime) -> int:
        if (name, about) in self._told:
            return 0
        async with self._database.transaction() as connection:
            written = await _write(connection, name, tenants, at, now)
        self._told.add((name, about))
        return written


async def _write(connection: Connection, name: str, tenants: list[str] | None, at: datetime, now: datetime) -> int:
    planned = await clients.plan(connection, notice_of(name), tenants)
    return len(await clients.send(connection, planned, at, now, actor=ACTOR, reason="the rollout"))
