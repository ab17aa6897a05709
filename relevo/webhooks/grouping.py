"""Writes that belong together, put into one statement: what arrives while one is under way goes with the next.

One INSERT costs a tenth of a millisecond of Python; 32 in one cost a hundredth each. Nobody waits for others to come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import psycopg
import structlog

from relevo.db.deadlines import Deadlines
from relevo.errors import DatabaseUnreachable, RelevoError
from relevo.metrics.record import Message, Standing

_MOST_WAITING = 20_000
_LOOKS_EVERY_S = 0.02  # for whoever has waited long enough: a timer for each message would cost more than it

_log = structlog.get_logger()

Write = Callable[[Sequence[Message]], Coroutine[Any, Any, dict[str, Standing]]]
_Group = list[tuple[Message, asyncio.Future[Standing | None]]]
_Writing = asyncio.Task[dict[str, Standing]]


class Grouped:
    """Messages of calls, written in groups of at most ``most``, ``at_once`` groups at a time. None waits longer than
    ``within_s``: not for a write, nor for those before it."""

    def __init__(self, write: Write, *, most: int, at_once: int, within_s: float) -> None:
        self._write, self._most, self._at_once, self._within_s = write, most, at_once, within_s
        self._waiting: deque[tuple[Message, asyncio.Future[Standing | None]]] = deque()
        self._due: deque[tuple[float, asyncio.Future[Standing | None]]] = deque()  # by when each is told, come what may
        self._looking: asyncio.TimerHandle | None = None
        self._draining = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self._deadlines = Deadlines()

    def put(self, message: Message) -> asyncio.Future[Standing | None]:
        """The pin that stands, once the message is stored; None: the one given.

        Raises TimeoutError when that takes too long: then it may be stored yet. Or what the database raised: then
        nothing was stored.
        """
        if len(self._waiting) >= _MOST_WAITING:
            raise DatabaseUnreachable("too many calls wait to be written", fix="check the database")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Standing | None] = loop.create_future()
        due = loop.time() + self._within_s
        self._waiting.append((message, done))
        self._due.append((due, done))
        if self._looking is None:
            self._looking = loop.call_at(due, self._look)
        if self._draining < self._at_once:
            self._draining += 1
            task = asyncio.create_task(self._drain())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return done

    async def finish(self) -> None:
        """Wait for what is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        await self._deadlines.finish()

    async def _drain(self) -> None:
        try:
            begun = self._begin()
            while begun is not None:
                group, writing = begun
                standing = await self._stored(group, writing)
                begun = self._begin()  # first: the database is at the next ones while these are answered
                _tell(group, standing)
        finally:
            self._draining -= 1  # at once: a task that is as good as over takes nothing more

    def _begin(self) -> tuple[_Group, _Writing] | None:
        group: _Group = []
        while self._waiting and len(group) < self._most:
            each = self._waiting.popleft()
            if not _was_late(each[1]):
                group.append(each)
        return (group, self._writing(group)) if group else None

    def _look(self) -> None:
        """Tell those who have waited long enough."""
        loop = asyncio.get_running_loop()
        late = 0
        while self._due and self._due[0][0] <= loop.time():
            _, done = self._due.popleft()
            late += not done.done()
            _fail(done, TimeoutError())
        if late:
            _log.error("calls not stored in time", calls=late)
        again = max(self._due[0][0], loop.time() + _LOOKS_EVERY_S) if self._due else None
        self._looking = loop.call_at(again, self._look) if again is not None else None

    def _writing(self, group: _Group) -> _Writing:
        return asyncio.create_task(self._write([message for message, _ in group]))

    async def _stored(self, group: _Group, writing: _Writing) -> dict[str, Standing]:
        """The pins that stand; none where all have been told already."""
        try:
            return await self._deadlines.wait(writing, self._within_s)
        except TimeoutError as error:
            _fail_all(group, error)
        except (RelevoError, psycopg.Error, OSError) as error:
            if len(group) > 1 and not isinstance(error, RelevoError):  # one of them, not the database, may be to blame
                for each in group:
                    if not _was_late(each[1]):
                        _tell([each], await self._stored([each], self._writing([each])))
                return {}
            _log.error("calls not stored", calls=len(group), error=type(error).__name__)
            _fail_all(group, error)
        except BaseException as error:
            _fail_all(group, DatabaseUnreachable("stopped before it was stored", fix="send it again"))
            if not isinstance(error, Exception):
                raise
            _log.exception("calls not stored")
        return {}


def _tell(group: _Group, standing: dict[str, Standing]) -> None:
    for message, done in group:
        if not done.done():
            done.set_result(standing.get(message.call_id))


def _fail_all(group: _Group, error: Exception) -> None:
    for _, done in group:
        _fail(done, error)


def _fail(done: asyncio.Future[Standing | None], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
        done.exception()  # whoever waited may be gone


def _was_late(done: asyncio.Future[Standing | None]) -> bool:
    """Whether whoever asked for it has been told that it takes too long; who hung up has not been told."""
    return done.done() and not done.cancelled()
