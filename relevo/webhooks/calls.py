"""The pins and the record of calls, as the router writes them: grouped, durable before Vapi is answered.

The row is the record; the signed pin stands in for it while the database is away; what this process saw is remembered.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from dataclasses import fields
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import psycopg

from relevo.clock import Clock
from relevo.db.pool import Database
from relevo.errors import RelevoError
from relevo.metrics import record
from relevo.metrics.record import Message, Pin
from relevo.webhooks import route
from relevo.webhooks.grouping import Grouped
from relevo.webhooks.identify import Found, identify
from relevo.webhooks.known import Known
from relevo.webhooks.message import Event

PIN_WITHIN_S = 1.0  # of the 7.5 s that Vapi waits
RECORD_WITHIN_S = 8.0  # of the 20 s
_PINS_TOGETHER = 32  # more, and those who are answered meanwhile are too few to keep us at work while the database is
_REMEMBERED = 50_000
_OLDEST = timedelta(days=7)

UNAVAILABLE = (RelevoError, psycopg.Error, TimeoutError, OSError)
"""What it looks like when something cannot be stored."""

_PIN_FIELDS = tuple(field.name for field in fields(Pin))


class Calls:
    """See the module."""

    def __init__(self, database: Database, known: Known, clock: Clock) -> None:
        self._known, self._clock = known, clock
        pin, write = partial(record.pin, database), partial(record.record_alone, database)
        self._pinning = Grouped(pin, most=_PINS_TOGETHER, at_once=1, within_s=PIN_WITHIN_S)
        self._recording = Grouped(write, most=record.BATCH, at_once=2, within_s=RECORD_WITHIN_S)
        self._pins: OrderedDict[str, Pin] = OrderedDict()

    async def pin(self, pin: Pin, event: Event, **more: Any) -> Pin:
        """The pin that stands for a call: this one, unless there was another.

        ``more``: fallback, unanswered, synthetic. Where it cannot be stored in time, this one: the answer carries it
        signed, and the next message stores it.
        """
        message = Message(**_plain(pin), at=event.at, direction=event.direction, **more)
        try:
            return self._remember(await self._pinning.put(message) or pin)
        except UNAVAILABLE:
            return self._remember(pin)

    def remembered(self, call_id: str) -> Pin | None:
        """The pin of a call, as this process last saw it."""
        found = self._pins.get(call_id)
        if found is not None:
            self._pins.move_to_end(call_id)
        return found

    async def pin_of(self, event: Event, presented: Pin | None) -> Pin | None:
        """Whose call a message belongs to, deciding it where this is the first that is heard of it. None: no call."""
        if event.call_id is None:
            return None
        if presented is not None and presented.asked:
            return presented
        found = self.remembered(event.call_id)
        return found or await self.pin(self.assumed(event.call_id, event), event)

    async def record(self, event: Event, presented: Pin | None, **more: Any) -> Pin | None:
        """Store what a message says of its call; returns the pin that stands. None for a message of no call.

        Raises one of UNAVAILABLE when it is not stored, and should come again.
        """
        if event.call_id is None:
            return None
        pin = presented or self.remembered(event.call_id) or self.assumed(event.call_id, event)
        message = message_of(event, pin, **more)
        return self._remember(await self._recording.put(message) or pin)

    def assumed(self, call_id: str, event: Event) -> Pin:
        """The pin of a call that never asked us."""
        found = identify(self._known.directory, event)
        return route.pinned(call_id, found, route.when_unasked(found), self._since(event), asked=False)

    def found(self, event: Event) -> Found:
        """Whom a message's call is for."""
        return identify(self._known.directory, event)

    async def finish(self) -> None:
        """Wait for what is being written."""
        await self._pinning.finish()
        await self._recording.finish()

    def _since(self, event: Event) -> datetime:
        """When a call that we were not asked about began, as far as this message tells; the same however often it is
        told."""
        now = self._clock()
        told = event.started_at or event.at
        return told if told is not None and now - _OLDEST <= told <= now else now

    def _remember(self, pin: Pin) -> Pin:
        self._pins[pin.call_id] = pin
        self._pins.move_to_end(pin.call_id)
        while len(self._pins) > _REMEMBERED:
            self._pins.popitem(last=False)
        return pin

    def forget(self, call_id: str) -> None:
        """A call that is over is not asked about often."""
        with contextlib.suppress(KeyError):
            del self._pins[call_id]


def message_of(event: Event, pin: Pin, **more: Any) -> Message:
    """What a message says of its call, as relevo.calls keeps it."""
    report = event.type == "end-of-call-report"
    said: dict[str, Any] = {
        "at": event.at,
        "direction": event.direction,
        "stage": event.status,
        "source": "report" if report else None,
        "ended_reason": event.ended_reason if report or event.status == "ended" else None,
        "started_at": event.started_at,
        "ended_at": event.ended_at,
        "duration_ms": event.duration_ms,
        "latency_ms": event.latency_ms,
        "outcome": event.outcome,
        "success": event.success,
        "cost_usd": event.cost_usd,
        "transferred": event.transferred,
    }
    return Message(**_plain(pin), **{**said, **more})


def _plain(pin: Pin) -> dict[str, Any]:
    return {name: getattr(pin, name) for name in _PIN_FIELDS}
