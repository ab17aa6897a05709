"""Writes that belong together, put into one statement: what arrives while one is under way goes with the next.

One INSERT costs a tenth of a millisecond of Python; 32 in one cost a hundredth each. Nobody waits for others to come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import psycopg
import structlog

from relevo.db.deadlines import Deadlines
from relevo.errors import DatabaseUnreachable, RelevoError
from relevo.metrics.record import Message, Standing

_MOST_WAITING = 20_000
_LOOKS_EVERY_S = 0.02  # for whoever has waited long enough: a timer for each message would cost more than it

_FORESEEN = (RelevoError, psycopg.Error, OSError)
_log = structlog.get_logger()

Write = Callable[[Sequence[Message]], Coroutine[Any, Any, dict[str, Standing]]]
_Put = tuple[Message, asyncio.Future[Standing | None]]
_Writing = asyncio.Task[None]


class Grouped:
    """Messages of calls, written in groups of at most ``most``, ``at_once`` groups at a time. None waits longer than
    ``within_s``: not for a write, nor for those before it."""

    def __init__(self, write: Write, *, most: int, at_once: int, within_s: float) -> None:
        self._write, self._most, self._at_once, self._within_s = write, most, at_once, within_s
        self._waiting: deque[_Put] = deque()
        self._alone: deque[_Put] = deque()  # were in a group of which one, nobody knows which, could not be written
        self._due: deque[tuple[float, asyncio.Future[Standing | None]]] = deque()  # by when each is told, come what may
        self._looking: asyncio.TimerHandle | None = None
        self._under_way: set[_Writing] = set()
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
        self._begin()
        return done

    async def finish(self) -> None:
        """Wait for what is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        await self._deadlines.finish()

    def _begin(self) -> None:
        """Have those written who wait, if there is room. By callbacks: a task that waits for another costs as much as
        the statement."""
        if not (self._alone or self._waiting) or len(self._under_way) >= self._at_once:
            return
        group: list[_Put] = []
        writing = asyncio.create_task(self._written(group))
        self._under_way.add(writing)
        late = asyncio.get_running_loop().call_later(self._within_s, self._give_up, group, writing)
        writing.add_done_callback(partial(self._end, group, late))

    async def _written(self, group: list[_Put]) -> None:
        """Write those who wait by now, without those who have been told that it takes too long, and tell them. Who they
        are, ``group`` is told."""
        source, most = (self._alone, 1) if self._alone else (self._waiting, self._most)
        while source and len(group) < most:
            each = source.popleft()
            if not _was_late(each[1]):
                group.append(each)
        standing = await self._write([message for message, _ in group]) if group else {}
        writing = asyncio.current_task()
        if writing in self._under_way:
            self._under_way.discard(writing)
            self._begin()  # first: the database is at the next ones while these are answered
            _tell(group, standing)

    def _end(self, group: list[_Put], late: asyncio.TimerHandle, writing: _Writing) -> None:
        late.cancel()
        if writing not in self._under_way:  # all is told, or it was given up
            return
        self._under_way.discard(writing)
        error = _error_of(writing)
        late_itself = isinstance(error, TimeoutError)  # which is an OSError, and nobody's own
        if len(group) > 1 and isinstance(error, psycopg.Error | OSError) and not late_itself:  # one may be to blame
            self._alone.extend(group)
            self._begin()
        else:
            surprise = None if isinstance(error, _FORESEEN) else error
            _log.error("calls not stored", calls=len(group), error=type(error).__name__, exc_info=surprise)
            _fail_all(group, error)
            if not writing.cancelled():  # as when all is
                self._begin()

    def _give_up(self, group: list[_Put], writing: _Writing) -> None:
        self._under_way.discard(writing)
        self._deadlines.give_up(writing)
        _fail_all(group, TimeoutError())
        self._begin()

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


def _error_of(writing: _Writing) -> Exception:
    if not writing.cancelled() and isinstance(error := writing.exception(), Exception):
        return error
    return DatabaseUnreachable("stopped before it was stored", fix="send it again")


def _tell(group: list[_Put], standing: dict[str, Standing]) -> None:
    for message, done in group:
        if not done.done():
            done.set_result(standing.get(message.call_id))


def _fail_all(group: list[_Put], error: Exception) -> None:
    for _, done in group:
        _fail(done, error)


def _fail(done: asyncio.Future[Standing | None], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
        done.exception()  # whoever waited may be gone


def _was_late(done: asyncio.Future[Standing | None]) -> bool:
    """Whether whoever asked for it has been told that it takes too long; who hung up has not been told."""
    return done.done() and not done.cancelled()
