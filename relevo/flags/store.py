"""The flag in a process: always fresh, answered without I/O, and changed by single atomic statements.

::

    async with Flags(url) as flags:
        if flags.should_use_v2(tenant_id):
            ...
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import psycopg

from relevo import settings
from relevo.clock import Clock, system_clock
from relevo.db.pool import Database
from relevo.errors import ConfigurationError, DatabaseUnreachable
from relevo.flags import writing
from relevo.flags.evaluate import Evaluation, Flag, evaluate, unseen
from relevo.flags.reader import Mode, Reader, State
from relevo.flags.writing import Author, Change, Unverified

__all__ = ["Change", "Flags", "Mode", "State", "Unverified"]

FIRST_LOOK_WITHIN_S = 10.0

_log = logging.getLogger("relevo.flags")


class Flags:
    """The flag ``voice_agent_v2``, read and written. Reading needs ``async with``; writing alone does not.

    ``database``: where the flag is: a connection string, an open Database (used, not closed), or None for the
    settings. ``direct_url``: a direct or session-mode connection for LISTEN, where the first goes through a
    transaction pooler; None for the settings' when ``database`` is None too.
    """

    def __init__(
        self,
        database: Database | str | None = None,
        *,
        direct_url: str | None = None,
        clock: Clock = system_clock,
    ) -> None:
        if database is None:
            in_force = settings.load()
            database, direct_url = in_force.database_url, direct_url or in_force.direct_url
        if database is None:
            raise ConfigurationError("no database is named", fix="set RELEVO_DATABASE_URL, or hand a URL to Flags")
        self._database = database
        self._direct_url = direct_url
        self._clock = clock
        self._reader: Reader | None = None
        self._following: asyncio.Task[None] | None = None
        self._flag = unseen()
        self._listeners: dict[object, Callable[[State], None]] = {}

    async def __aenter__(self) -> Self:
        """Returns when the row was seen, or when the database does not answer (not ready: v1 for everybody).

        Raises what will not heal by itself: ConfigurationError, DatabaseRefused, MissingPrivilege, SchemaMissing,
        or UnknownName for a role that sees no row.
        """
        with contextlib.suppress(DatabaseUnreachable, TimeoutError):
            await asyncio.wait_for(self.get(), FIRST_LOOK_WITHIN_S)  # what waiting does not mend is raised, not logged
        reader = Reader(self._url, self._direct_url, self._clock, self._told)
        self._reader = reader
        self._following = asyncio.create_task(reader.follow(), name="relevo flags")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.attempted.wait(), FIRST_LOOK_WITHIN_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the following; the last known row goes on answering."""
        if self._following is not None and self._reader is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
            with contextlib.suppress(psycopg.Error, OSError, TimeoutError):
                await self._reader.forget()

    @property
    def flag(self) -> Flag:
        """The row in force: the newest seen. Its version is 0 before any was seen."""
        return self._flag

    @property
    def state(self) -> State:
        """How well this process knows the flag."""
        return self._reader.state if self._reader is not None else State()

    def should_use_v2(self, tenant_id: str) -> bool:
        """Whether a tenant is on v2. No I/O; from any thread."""
        return evaluate(self._flag, tenant_id).value

    def evaluate(self, tenant_id: str) -> Evaluation:
        """v1 or v2 for a tenant, and why. No I/O; from any thread."""
        return evaluate(self._flag, tenant_id)

    def subscribe(self, told: Callable[[State], None]) -> Callable[[], None]:
        """Call ``told`` after each change of version or of state, in the event loop; returns how to end that."""
        key = object()
        self._listeners[key] = told
        return lambda: self._listeners.pop(key, None) and None

    async def changes(self) -> AsyncIterator[State]:
        """The state now, and after each change; a slow reader misses what was in between, never the newest."""
        news = asyncio.Event()
        end = self.subscribe(lambda _state: news.set())
        try:
            while True:
                news.clear()
                yield self.state
                await news.wait()
        finally:
            end()

    async def get(self) -> Flag:
        """The row as the database has it now. Raises UnknownName where there is none."""
        async with self._opened() as database:
            return await writing.get(database)

    async def set_percentage(self, percentage: int, *, actor: str, reason: str | None = None) -> Change:
        """Share of tenants on v2, 0..100; hash-selected unverified tenants go to the disabled list, and are named.

        Raises UsageError for anything but a whole number of 0 to 100.
        """
        async with self._opened() as database:
            return await writing.set_percentage(database, percentage, Author(actor, reason))

    async def enable(
        self, tenants: Iterable[str], *, actor: str, reason: str | None = None, force: bool = False
    ) -> Change:
        """Put tenants on v2. Raises UnverifiedTenants, unless forced, and UnknownName for one that does not exist."""
        async with self._opened() as database:
            return await writing.enable(database, tenants, Author(actor, reason), force=force)

    async def disable(self, tenants: Iterable[str], *, actor: str, reason: str | None = None) -> Change:
        """Put tenants back on v1. Raises UnknownName for one that exists nowhere."""
        async with self._opened() as database:
            return await writing.disable(database, tenants, Author(actor, reason))

    async def on(self, *, actor: str, reason: str | None = None) -> Change:
        """Let lists and percentage count."""
        async with self._opened() as database:
            return await writing.switch(database, True, Author(actor, reason))

    async def off(self, *, actor: str, reason: str | None = None) -> Change:
        """Everybody on v1; lists and percentage are kept."""
        async with self._opened() as database:
            return await writing.switch(database, False, Author(actor, reason))

    @property
    def _url(self) -> str:
        return self._database.url if isinstance(self._database, Database) else self._database

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Database]:
        """The database for a write; writes are rare, so a pool of our own lives as long as one."""
        if isinstance(self._database, Database):
            yield self._database
        else:
            async with Database(self._database, size=1) as database:
                yield database

    def _told(self, state: State) -> None:
        if self._reader is not None:
            self._flag = self._reader.flag
        for told in [*self._listeners.values()]:
            try:
                told(state)
            except Exception:
                _log.exception("a listener of the flag failed")
