"""Keeps the flag's row fresh in a process: told by NOTIFY, with a poll behind it that also finds a silent server.

One connection of its own, because a pool hands connections on and LISTEN belongs to one. After every (re)connect the
row is read whole: what was notified meanwhile is lost. Behind a transaction pooler LISTEN cannot work; there the poll
is all, and the state says so.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg import errors
from psycopg.rows import DictRow, dict_row

from relevo.clock import Clock
from relevo.db.pool import Connection, Database, first, limits
from relevo.db.statements import statement
from relevo.errors import RelevoError
from relevo.flags.evaluate import VOICE_AGENT_V2, Flag, unseen
from relevo.flags.writing import flag_of

Mode = Literal["listen", "poll"]

POLL_EVERY_S = 0.75  # so that the slowest, asking included, answers within the second that is promised
LOOK_EVERY_S = 5.0  # while listening: finds a connection that only seems to live
ANSWERS_WITHIN_S = 3.0
HEARTBEAT_EVERY_S = 15.0
AGAIN_AFTER_S = 0.5  # from one failed attempt to the next
FOUND_WITHIN_S = 3.0  # the way to follow the flag; else it is looked for further beside polling
LOOKED_AT_WITHIN_S = 20.0  # a connection, to find out where it leads; else it counts as failed
DIRECT_AGAIN_AFTER_S = 60.0  # from polling, because the direct connection failed, to trying that again

NO_LISTEN = "a transaction pooler has no LISTEN; set RELEVO_DIRECT_URL to a direct or session-mode connection"

_log = logging.getLogger("relevo.flags")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class State:
    """How well a process knows the flag."""

    ready: bool = False  # the row has been seen; until then everybody is on v1
    version: int = 0  # of the row in force; 0: none was ever seen, or it is gone
    mode: Mode | None = None  # how changes arrive; None: not known yet
    stale_since: datetime | None = None  # when the row was last confirmed, if that does not go on; None: it does
    why: str | None = None  # of polling, or of being stale or not ready: one line for people


@dataclass(frozen=True, slots=True)
class _Way:
    """How to follow the flag, found out by looking at the connections there are."""

    url: str
    mode: Mode
    why: str | None = None
    good_for_s: float | None = None  # None: as long as the connection lives


class Reader:
    """Follows the row until cancelled. ``flag`` is the newest row seen, ``state`` how good that is."""

    def __init__(self, url: str, direct_url: str | None, clock: Clock, tell: Callable[[State], None]) -> None:
        self.flag: Flag = unseen()
        self.state = State()
        self.attempted = asyncio.Event()  # the first attempt is over, whatever came of it
        self.name = f"{socket.gethostname()}:{os.getpid()}:{next(_numbers)}"
        self._url, self._direct_url = url, direct_url
        self._clock, self._tell = clock, tell
        self._confirmed_at: datetime | None = None
        self._stamp: str | None = None  # of the row seen
        self._reported: tuple[int, Mode, float] | None = None  # version, mode, and when by the loop's time
        self._reports = True
        self._finding: asyncio.Task[_Way] | None = None

    async def follow(self) -> None:
        """Never returns. No fault of the database ends it: the last known row is served until it is back."""
        way: _Way | None = None
        try:
            while True:
                try:
                    way = way or await self._first_way()
                    way = await self._follow(way)
                    continue
                except (psycopg.Error, OSError, TimeoutError, RelevoError) as fault:
                    self._lost(str(fault).strip().partition("\n")[0] or type(fault).__name__)
                self.attempted.set()
                if way is not None and way.good_for_s is not None:
                    self._find()  # what kept us from the direct connection may be over, too
                await asyncio.sleep(AGAIN_AFTER_S)
        finally:
            if self._finding is not None:
                self._finding.cancel()

    async def _first_way(self) -> _Way:
        """How to begin: by the best way, or, while the direct connection is silent, by polling."""
        finding = self._find()
        await asyncio.wait({finding}, timeout=FOUND_WITHIN_S)
        if self._direct_url is None or finding.done():
            self._finding = None
            return await finding
        return _Way(self._url, "poll", "the direct connection does not answer", DIRECT_AGAIN_AFTER_S)

    def _find(self) -> asyncio.Task[_Way]:
        """Look for the best way, beside whatever is going on; once at a time."""
        if self._finding is None:
            self._finding = asyncio.create_task(self._find_way(), name="relevo flags way")
            self._finding.add_done_callback(_ignored)
        return self._finding

    def _found(self) -> _Way | None:
        """What was found meanwhile; None: nothing yet, or our own connection failed in that moment."""
        finding = self._finding
        if finding is None or not finding.done():
            return None
        self._finding = None
        if finding.exception() is not None:
            self._find()
            return None
        return finding.result()

    async def _find_way(self) -> _Way:
        """Listen where the connection is, or is as good as, a session of its own; else poll, and say why."""
        if self._direct_url is None:
            async with asyncio.timeout(LOOKED_AT_WITHIN_S):
                if await Database(self._url).pooling() != "transaction":
                    return _Way(self._url, "listen")
            return _Way(self._url, "poll", NO_LISTEN)
        async with asyncio.timeout(LOOKED_AT_WITHIN_S):  # where this fails, the database is away, not the way to it
            ours = await Database(self._url).identity()
        try:
            async with asyncio.timeout(LOOKED_AT_WITHIN_S):
                if await Database(self._direct_url).identity() != ours:
                    return _Way(self._url, "poll", "RELEVO_DIRECT_URL leads to another database")
                if await Database(self._direct_url).pooling() != "transaction":
                    return _Way(self._direct_url, "listen")
        except (psycopg.Error, OSError) as fault:  # and TimeoutError, which is one
            what = str(fault).strip().partition("\n")[0] or f"no answer within {LOOKED_AT_WITHIN_S:g} s"
            why = f"the direct connection fails: {what}"
            return _Way(self._url, "poll", why, DIRECT_AGAIN_AFTER_S)
        return _Way(self._url, "poll", NO_LISTEN)

    async def _connect(self, url: str) -> Connection:
        connection: psycopg.AsyncConnection[DictRow] = await psycopg.AsyncConnection.connect(
            url,
            autocommit=True,
            row_factory=dict_row,
            prepare_threshold=None,
            connect_timeout=5,
            application_name="relevo flags",
            **limits(url),
        )
        return connection

    async def _follow(self, way: _Way) -> _Way:
        """Follow the row on one connection, until it breaks or another way is found, which may be as good: that.

        A busy transaction pooler can pass for a session; it gives itself away when another process answers.
        """
        connection = await self._connect(way.url)
        now_s = asyncio.get_running_loop().time
        ends_s = None if way.good_for_s is None else now_s() + way.good_for_s
        backends: set[int] = set()
        try:
            if way.mode == "listen":
                await self._answered(connection.execute(statement("flags", "listen")))
            while (found := self._found()) is None:
                if ends_s is not None and now_s() >= ends_s:
                    self._find()
                backends |= await self._look(connection, way)
                if way.mode == "listen" and len(backends) > 1:
                    return _Way(self._url, "poll", NO_LISTEN)
                await self._wait(connection, way.mode)
            return found
        finally:
            await connection.close()

    async def _wait(self, connection: Connection, mode: Mode) -> None:
        """Until it is time to look: told so, or after a while."""
        if mode == "poll":
            await asyncio.sleep(POLL_EVERY_S)
            return
        async for _notice in connection.notifies(timeout=LOOK_EVERY_S, stop_after=1):
            pass

    async def _look(self, connection: Connection, way: _Way) -> set[int]:
        """Read the row, apply it, and record that this process answers by it; returns which process was asked."""
        asked = {"name": VOICE_AGENT_V2, "stamp": self._stamp}
        row = await self._answered(first(connection, statement("flags", "fresh_flag"), asked))
        self._confirmed_at = self._clock()
        anew = row is None or row["written"]
        if anew:
            self.flag = unseen() if row is None else flag_of(row)
            self._stamp = None if row is None else row["stamp"]
        why = way.why if row is not None else f"there is no row {VOICE_AGENT_V2}, or row-level security hides it"
        self._now(State(ready=row is not None, version=self.flag.version, mode=way.mode, why=why), anew=anew)
        self.attempted.set()
        await self._report(connection, way.mode)
        return {row["backend"]} if row is not None else set()

    async def _answered(self, asking: Any) -> Any:
        """The answer of a server that may be stopped in its tracks: then the state says so at once, not only when
        the connection has been given up, which takes a while."""
        silent = asyncio.get_running_loop().call_later(
            ANSWERS_WITHIN_S, self._lost, f"no answer within {ANSWERS_WITHIN_S:g} s"
        )
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                return await asking
        finally:
            silent.cancel()

    async def _report(self, connection: Connection, mode: Mode) -> None:
        """Record the version in force, when it is new or it is time for a sign of life.

        An application may read the flag by a role that may not enter our schema, or from a standby: then it is not
        among the readers that a roll-back waits for.
        """
        now_s = asyncio.get_running_loop().time()
        if not self._reports or (
            self._reported is not None
            and self._reported[:2] == (self.flag.version, mode)
            and now_s - self._reported[2] < HEARTBEAT_EVERY_S
        ):
            return
        mine = {"reader": self.name, "flag": VOICE_AGENT_V2, "version": self.flag.version, "mode": mode}
        try:
            await self._answered(connection.execute(statement("flags", "report_reader"), mine))
        except (errors.InsufficientPrivilege, errors.UndefinedTable, errors.ReadOnlySqlTransaction) as fault:
            self._reports = False
            _log.info("this process is not recorded among the flag's readers: %s", fault.diag.message_primary)
        self._reported = (self.flag.version, mode, now_s)

    async def forget(self) -> None:
        """Take this process off the list of readers, if the database answers; else it drops out by its silence."""
        if self._reported is None or not self._reports:
            return
        mine = {"reader": self.name, "flag": VOICE_AGENT_V2}
        async with asyncio.timeout(1), await self._connect(self._url) as connection:
            await connection.execute(statement("flags", "forget_reader"), mine)

    def _lost(self, why: str) -> None:
        since = self.state.stale_since or self._confirmed_at
        self._now(replace(self.state, stale_since=since, why=why))

    def _now(self, state: State, *, anew: bool = False) -> None:
        """Tell a new state or row, and log what a person should know."""
        before, self.state = self.state, state
        if state == before and not anew:
            return
        if state.why != before.why and state.why is not None:
            _log.warning("flag %s: %s", VOICE_AGENT_V2, state.why)
        elif before.stale_since is not None and state.stale_since is None:
            _log.info("flag %s: fresh again, version %d", VOICE_AGENT_V2, state.version)
        self._tell(state)


def _ignored(finding: asyncio.Task[_Way]) -> None:
    if not finding.cancelled():
        finding.exception()
