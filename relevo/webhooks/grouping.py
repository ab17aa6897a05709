"""Writes that belong together, put into one statement: what arrives while one is under way goes with the next.

One INSERT costs a tenth of a millisecond of Python; 32 in one cost a hundredth each. Nobody waits for others to come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import psycopg
import structlog

from relevo.errors import DatabaseUnreachable, RelevoError
from relevo.metrics.record import Message, Standing

_MOST_WAITING = 20_000

_log = structlog.get_logger()

Write = Callable[[Sequence[Message]], Awaitable[dict[str, Standing]]]


class Grouped:
    """Messages of calls, written in groups of at most ``most``, ``at_once`` groups at a time."""

    def __init__(self, write: Write, *, most: int, at_once: int) -> None:
        self._write, self._most, self._at_once = write, most, at_once
        self._waiting: deque[tuple[Message, asyncio.Future[Standing]]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()

    async def put(self, message: Message, within_s: float) -> Standing:
        """Returns the pin that stands once the message is stored, which it may be later than ``within_s``.

        Raises TimeoutError, or what the database raised: then nothing was stored.
        """
        if len(self._waiting) >= _MOST_WAITING:
            raise DatabaseUnreachable("too many calls wait to be written", fix="check the database")
        done: asyncio.Future[Standing] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, done))
        if len(self._under_way) < self._at_once:
            task = asyncio.create_task(self._drain())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        async with asyncio.timeout(within_s):
            return await asyncio.shield(done)

    async def finish(self) -> None:
        """Wait for what is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _drain(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            await self._store(group)

    async def _store(self, group: list[tuple[Message, asyncio.Future[Standing]]]) -> None:
        try:
            standing = await self._write([message for message, _ in group])
        except (RelevoError, psycopg.Error, OSError) as error:
            if len(group) > 1 and not isinstance(error, RelevoError):  # one of them, not the database, may be to blame
                for each in group:
                    await self._store([each])
                return
            _log.error("calls not stored", calls=len(group), error=type(error).__name__)
            for _, done in group:
                _fail(done, error)
        except BaseException as error:
            for _, done in group:
                _fail(done, DatabaseUnreachable("stopped before it was stored", fix="send it again"))
            if not isinstance(error, Exception):
                raise
            _log.exception("calls not stored")
        else:
            for message, done in group:
                if not done.done():
                    done.set_result(standing[message.call_id])


def _fail(done: asyncio.Future[Standing], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
        done.exception()  # whoever waited may be gone
