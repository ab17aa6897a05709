"""Delivers what is in the outbox: one loop per channel, so that none waits for another.

Any number of processes may deliver. Each message is a transaction of its own, so that who dies leaves in doubt only
what was on its way; a channel that is slow to answer has a few on their way at a time. A failing channel rests as a
whole: 10,000 mails need not each find out that the server is away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta

import psycopg
import structlog

from relevo.clock import Clock
from relevo.comms import outbox
from relevo.comms.message import Message
from relevo.comms.outcome import Channel, Delivered, Never, NotNow, Outcome
from relevo.comms.patience import CHANNEL_LONGEST_S, GIVES_UP_AFTER, OBEYED_S, pause_s
from relevo.db.pool import Connection, Database
from relevo.errors import RelevoError

LOOKS_EVERY_S = 1.0
SENDS_WITHIN_S = 20.0
_EXPIRES_EVERY = timedelta(minutes=1)
_FINISHES_WITHIN_S = 2.0

_log = structlog.get_logger()


class Delivery:
    """Delivers the messages of one channel. ``chance``: a number of 0..1, another each time."""

    def __init__(self, database: Database, channel: Channel, clock: Clock, chance: Callable[[], float]) -> None:
        self._database = database
        self._channel = channel
        self._clock = clock
        self._chance = chance
        self._failures = 0  # how often in a row the channel was found away
        self._on_their_way = 0
        self._stopping = False
        self._rests_until: datetime | None = None
        self._expired_at: datetime | None = None

    async def deliver_next(self) -> bool:
        """Try the next message that is due; False when there is none, or the channel rests."""
        now = self._clock()
        resting = self._rests_until is not None and now < self._rests_until
        if resting or (self._failures and self._on_their_way):  # whether it is back, one message finds out alone
            return False
        self._on_their_way += 1
        try:
            async with self._database.transaction() as connection:
                message = await outbox.take(connection, self._channel.name, now)
                if message is None:
                    return False
                await self._settle(connection, message, await self._try(message))
        finally:
            self._on_their_way -= 1
        return True

    async def deliver_due(self, tried: Callable[[], None] = lambda: None) -> int:
        """Try all that are due, as many at a time as the channel takes; how many were tried. ``tried`` is called after
        each. What came in between is delivered too; a channel that begins to rest ends it."""
        if not await self.deliver_next():
            return 0
        tried()
        each = await asyncio.gather(
            *(self._deliver_on(tried) for _ in range(self._channel.at_once)), return_exceptions=True
        )
        for ended in each:
            if isinstance(ended, BaseException):
                raise ended
        return 1 + sum(ended for ended in each if isinstance(ended, int))

    async def keep_delivering(self, *, every_s: float = LOOKS_EVERY_S) -> None:
        """Deliver for as long as this task is not cancelled. What is on its way then is finished first."""
        try:
            while True:
                under_way = asyncio.ensure_future(self._look())
                try:
                    found = await asyncio.shield(under_way)
                except asyncio.CancelledError:
                    self._stopping = True
                    await asyncio.wait({under_way}, timeout=_FINISHES_WITHIN_S)
                    under_way.cancel()
                    raise
                if not found:
                    await asyncio.sleep(every_s)
        finally:
            await self._channel.close()

    async def _deliver_on(self, tried: Callable[[], None]) -> int:
        count = 0
        while not self._stopping and await self.deliver_next():
            count += 1
            tried()
        return count

    async def _look(self) -> bool:
        """Whether anything was due; a database that is away is asked again."""
        with contextlib.suppress(RelevoError, psycopg.Error):
            await self.expire()
            return await self.deliver_due() > 0
        return False

    async def expire(self) -> None:
        """Give up what has waited for too long, on any channel: perhaps no process has it. Once a minute."""
        now = self._clock()
        if self._expired_at is not None and now - self._expired_at < _EXPIRES_EVERY:
            return
        self._expired_at = now
        async with self._database.transaction() as connection:
            for channel, after in GIVES_UP_AFTER.items():
                await outbox.expire(connection, channel, now, after)

    async def _try(self, message: Message) -> Outcome:
        try:
            async with asyncio.timeout(SENDS_WITHIN_S):
                return await self._channel.send(message)
        except TimeoutError:
            return NotNow(f"no answer within {SENDS_WITHIN_S:g} s")
        except Exception as error:  # a fault of ours with one message must not keep the others waiting
            return NotNow(f"{type(error).__name__} while sending", everybody=False)

    async def _settle(self, connection: Connection, message: Message, outcome: Outcome) -> None:
        now = self._clock()
        match outcome:
            case Delivered():
                self._failures, self._rests_until = 0, None
                await outbox.sent(connection, message, now)
            case Never(why):
                self._failures, self._rests_until = 0, None
                await outbox.give_up(connection, message, now, why)
                # A client's address that is refused is no fault of the system; a page that is lost is.
                log = _log.warning if self._channel.name == "email" else _log.error
                log("message dead", channel=self._channel.name, id=message.id, notice=message.notice, why=why)
            case NotNow(why, after_s, everybody):
                await self._put_off(connection, message, now, why, after_s, everybody)

    async def _put_off(
        self, connection: Connection, message: Message, now: datetime, why: str, after_s: float | None, everybody: bool
    ) -> None:
        asked_s = min(after_s or 0.0, OBEYED_S)
        if everybody and (self._rests_until is None or now >= self._rests_until):
            self._failures += 1  # once, of however many that were on their way together
            rest_s = max(asked_s, pause_s(self._failures, self._chance(), CHANNEL_LONGEST_S))
            self._rests_until = now + timedelta(seconds=rest_s)
        wait_s = max(asked_s, pause_s(message.attempts + 1, self._chance()))
        due_at = now + timedelta(seconds=wait_s)
        await outbox.put_off(connection, message, due_at, why)
        _log.warning("message put off", channel=self._channel.name, id=message.id, notice=message.notice, why=why)
