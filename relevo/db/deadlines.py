"""How long is waited for a database that may be silent."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlines:
    """Waits for work so long and no longer, whatever it is at then: to cancel what a silent server hangs on takes the
    driver seconds more, which a caller does not have, and asyncio.timeout waits for that."""

    def __init__(self) -> None:
        self._left: set[asyncio.Task[Any]] = set()

    @property
    def missed(self) -> bool:
        """Whether something came too late, and the driver has not given it up yet."""
        return bool(self._left)

    async def wait(self, work: Coroutine[Any, Any, T] | asyncio.Task[T], within_s: float) -> T:
        """What comes of it, or what it raises. Raises TimeoutError on time; the work is cancelled then."""
        task = work if isinstance(work, asyncio.Task) else asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=within_s)
        finally:
            if not task.done():
                self.give_up(task)
        if not done:
            raise TimeoutError
        return task.result()

    def give_up(self, task: asyncio.Task[Any]) -> None:
        """Wait for it no more, whatever it is at."""
        task.cancel()
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        task.add_done_callback(_ignored)

    async def finish(self) -> None:
        """Wait until the driver has given up what came too late."""
        while self._left:
            await asyncio.wait(self._left)


def _ignored(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
