"""Tells clients of what a rollout did, where the team has said that it may: all that it is complete, one that they went
back. Any number of processes may: each client is told once, ever."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta

import psycopg
import structlog

from relevo.clock import Clock
from relevo.comms import clients
from relevo.comms.notices import notice_of
from relevo.db.pool import Connection, Database, every, first
from relevo.db.statements import statement
from relevo.errors import DatabaseUnreachable, RelevoError, UnknownName

ACTOR = "relevo"
LATELY = timedelta(days=3)
"""What is older is no news; a server that was away so long tells nobody of it."""
EVERY_S = 30.0

_log = structlog.get_logger()


class Following:
    """Follows rollouts; remembers what it has told, so that it need not look at every client each time."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._told: set[tuple[str, int]] = set()
        self._failed: set[tuple[str, int]] = set()  # and was logged

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
        """How many messages were written. What keeps this one from being told keeps no other."""
        if (name, about) in self._told:
            return 0
        try:
            async with self._database.transaction() as connection:
                written = await _write(connection, name, tenants, at, now)
        except (DatabaseUnreachable, psycopg.OperationalError):
            raise  # it would be the same for each
        except (RelevoError, psycopg.Error) as error:
            if (name, about) not in self._failed:
                _log.warning("clients not told", notice=name, tenants=tenants, why=str(error))
            (self._told if isinstance(error, UnknownName) else self._failed).add((name, about))  # gone, or tried again
            return 0
        self._told.add((name, about))
        return written


async def _write(connection: Connection, name: str, tenants: list[str] | None, at: datetime, now: datetime) -> int:
    planned = await clients.plan(connection, notice_of(name), tenants)
    return len(await clients.send(connection, planned, at, now, actor=ACTOR, reason="the rollout"))
