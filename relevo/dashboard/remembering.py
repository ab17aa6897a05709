"""What is dear to count on a large platform, remembered and counted again behind it; of a small one nothing is."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from relevo.clock import Clock

SMALL = 5_000
"""Of up to so many things nothing is remembered."""
FRESH_FOR = timedelta(seconds=30)
"""So old, and it is counted again, while whoever asks gets what there is."""
GOOD_FOR = timedelta(minutes=10)
"""So old, and whoever asks waits."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """Something that was counted."""

    what: T
    key: Hashable  # under another key it is something else
    size: int  # of how many things
    at: datetime


Count = Callable[[], Awaitable[tuple[T, int]]]
"""Counts anew; returns what came out, and how many things were looked at."""


class Remembered:
    """Known things by name, each counted by one at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, Known[Any]] = {}
        self._counting: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._behind: dict[str, asyncio.Task[None]] = {}

    async def get(self, name: str, key: Hashable, count: Count[T]) -> Known[T]:
        """What is known, at most GOOD_FOR old; raises what counting raises."""
        known = self._known.get(name)
        age = timedelta.max if known is None else self._clock() - known.at
        if known is None or known.size <= SMALL or known.key != key or age > GOOD_FOR:
            return await self._count(name, key, count)
        if age > FRESH_FOR and name not in self._behind:
            self._behind[name] = asyncio.create_task(self._again(name, key, count))
        return known

    async def _count(self, name: str, key: Hashable, count: Count[T]) -> Known[T]:
        asked_at, before = self._clock(), self._known.get(name)
        async with self._counting[name]:
            known = self._known.get(name)
            if known is not None and known is not before and known.key == key and known.at >= asked_at:
                return known  # begun while we waited
            at = self._clock()
            what, size = await count()
            known = self._known[name] = Known(what, key, size, at)
            return known

    async def _again(self, name: str, key: Hashable, count: Count[T]) -> None:
        with contextlib.suppress(Exception):  # what is known stays, older; who finds it too old waits, and is told
            await self._count(name, key, count)
        del self._behind[name]
