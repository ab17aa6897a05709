"""The breakers in a process: who may be asked, what came of it, and the state that all processes share.

What was seen is counted here and added to the shared window once a second, or at once when something failed. Without
the database a process decides for itself: it leaves a handler alone, and lets a probe of its own through.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

import psycopg

from relevo.clock import Clock
from relevo.db.deadlines import Deadlines
from relevo.db.pool import Connection, Database
from relevo.errors import RelevoError
from relevo.metrics import breakers as shared
from relevo.metrics.breakers import Breaker
from relevo.webhooks.breaker import RULES, Passage, Rules, after_probe, passage, trips

REFRESH_EVERY_S = 1.0
_WITHIN_S = 0.5
_AWAY = (RelevoError, psycopg.Error, TimeoutError)
_PROBED = {True: "the probe succeeded", False: "the probe failed", None: "the probe told nothing"}

Key = tuple[str, str]  # version, and upstream without its secrets
_T = TypeVar("_T")


@dataclass(slots=True)
class _Tally:
    calls: int = 0
    failures: int = 0
    slow: int = 0


class Breakers:
    """See the module. ``keep_fresh`` must be running."""

    def __init__(self, database: Database, clock: Clock, holder: str, rules: Rules = RULES) -> None:
        self._database, self._clock, self._holder, self._rules = database, clock, holder, rules
        self._seen: dict[Key, Breaker] = {}
        self._tallies: dict[Key, _Tally] = {}
        self._rests_until: dict[Key, datetime] = {}  # decided here alone
        self._failed = asyncio.Event()
        self._taking: set[Key] = set()  # whose probe is being asked for
        self._deadlines = Deadlines()

    async def admit(self, key: Key) -> Passage:
        """Whether a handler may be asked now: freely, as the one probe of all processes, or not."""
        now = self._clock()
        if self._rests_until.get(key, now) > now:
            return "stop"
        seen = self._seen.get(key)
        how = passage(seen, now)
        if how != "probe" or seen is None:
            return how
        if key in self._taking:
            return "stop"  # one of us is enough to ask for it
        self._taking.add(key)
        try:
            return await self._take(key, seen, now)
        finally:
            self._taking.discard(key)

    async def _take(self, key: Key, seen: Breaker, now: datetime) -> Passage:
        async def take(connection: Connection) -> Breaker | None:
            overdue_at = now + self._rules.probe_takes
            return await shared.probe(connection, seen, now, holder=self._holder, overdue_at=overdue_at)

        try:
            taken = await self._in_time(take, _WITHIN_S)
        except _AWAY:
            self._rests_until[key] = now + self._rules.rests_for  # the next one of our own, unless this one is answered
            return "probe"
        if taken is None:
            return "stop"
        self._seen[key] = taken
        return "probe"

    def closed(self, key: Key) -> bool:
        """Whether a handler is asked freely now."""
        now = self._clock()
        return self._rests_until.get(key, now) <= now and passage(self._seen.get(key), now) == "go"

    async def told(self, key: Key, how: Passage, seconds: float, *, failed: bool | None) -> None:
        """What came of asking; ``failed`` None: nothing that tells of the handler. A probe's answer changes the state
        at once."""
        if how == "probe":
            await self._probed(key, None if failed is None else not failed and seconds < self._rules.slow_s)
            return
        if failed is None:
            return
        tally = self._tallies.setdefault(key, _Tally())
        tally.calls += 1
        tally.failures += failed
        tally.slow += seconds >= self._rules.slow_s
        if failed:
            self._failed.set()

    async def keep_fresh(self) -> None:
        """Add what was seen, and see what others did. Never returns."""
        while True:
            await self.refresh()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_EVERY_S):
                    await self._failed.wait()
            self._failed.clear()
            await asyncio.sleep(0.02)  # those that fail together are told together

    async def refresh(self) -> None:
        """Once. Failing is no fault: what was seen is kept for the next time, and judged here."""
        told, self._tallies = self._tallies, {}

        async def share(connection: Connection) -> list[Breaker]:
            now = self._clock()
            for key in sorted(told):
                seen = await self._observe(connection, key, told[key], now)
                why = trips(seen, self._rules)
                if why is not None:
                    rested = now + self._rules.rests_for
                    await shared.change(connection, seen, "open", now, holder=self._holder, why=why, probe_at=rested)
            return await shared.breakers(connection)

        try:
            found = await self._in_time(share, 5 * _WITHIN_S)
        except _AWAY:
            self._keep(told)
        else:
            self._seen = {(each.version, each.upstream): each for each in found}

    async def finish(self) -> None:
        """Wait for what is under way."""
        await self._deadlines.finish()

    async def _in_time(self, doing: Callable[[Connection], Awaitable[_T]], within_s: float) -> _T:
        """What is done in a transaction of its own. Raises TimeoutError on time, and while the database is still at
        something that came too late."""
        if self._deadlines.missed:
            raise TimeoutError
        return await self._deadlines.wait(self._transacted(doing), within_s)

    async def _transacted(self, doing: Callable[[Connection], Awaitable[_T]]) -> _T:
        async with self._database.transaction() as connection:
            return await doing(connection)

    async def _observe(self, connection: Connection, key: Key, tally: _Tally, now: datetime) -> Breaker:
        version, upstream = key
        return await shared.observe(
            connection,
            version,
            upstream,
            now,
            window=self._rules.window,
            calls=tally.calls,
            failures=tally.failures,
            slow=tally.slow,
        )

    def _keep(self, told: dict[Key, _Tally]) -> None:
        now = self._clock()
        for key, tally in told.items():
            if tally.calls >= self._rules.at_least and tally.failures >= self._rules.failure_rate * tally.calls:
                self._rests_until[key] = now + self._rules.rests_for
                continue
            later = self._tallies.setdefault(key, _Tally())
            later.calls += tally.calls
            later.failures += tally.failures
            later.slow += tally.slow

    async def _probed(self, key: Key, succeeded: bool | None) -> None:
        now, seen = self._clock(), self._seen[key]
        state, probe_at = after_probe(succeeded, now, self._rules)

        async def change(connection: Connection) -> Breaker | None:
            why = _PROBED[succeeded]
            return await shared.change(connection, seen, state, now, holder=self._holder, why=why, probe_at=probe_at)

        try:
            changed = await self._in_time(change, _WITHIN_S)
        except _AWAY:
            changed = replace(seen, state=state, probe_at=probe_at, probe_by=None)  # here, until others can be told
        self._rests_until.pop(key, None)
        if changed is not None:
            self._seen[key] = changed
