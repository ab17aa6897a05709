"""Calls of which nobody could tell whom they were for: never silently dropped, counted, kept for the operator."""

from __future__ import annotations

import asyncio

import structlog

from relevo.clock import Clock
from relevo.db.pool import Database
from relevo.db.statements import statement
from relevo.webhooks.calls import UNAVAILABLE
from relevo.webhooks.message import Event

_WITHIN_S = 5.0
_MOST_AT_ONCE = 100

_log = structlog.get_logger()


class Unplaced:
    """Notes them beside the answer, so that an apology does not wait for a table."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._noting: set[asyncio.Task[None]] = set()
        self.count = 0
        """How many messages this process could not place."""

    def note(self, event: Event, why: str) -> None:
        """One more."""
        self.count += 1
        _log.warning("call not placed", call_id=event.call_id, why=why)
        if event.call_id is not None and len(self._noting) < _MOST_AT_ONCE:
            task = asyncio.create_task(self._note(event, why))
            self._noting.add(task)
            task.add_done_callback(self._noting.discard)

    async def finish(self) -> None:
        """Wait for what is being noted."""
        while self._noting:
            await asyncio.wait(self._noting)

    async def _note(self, event: Event, why: str) -> None:
        kept = {
            "call_id": event.call_id,
            "type": event.type,
            "number_id": event.number_id,
            "number": event.number,
            "assistant_id": event.call_assistant_id or event.assistant_id,
            "why": why,
            "now": self._clock(),
        }
        try:
            async with asyncio.timeout(_WITHIN_S), self._database.transaction() as connection:
                await connection.execute(statement("router", "unplaced"), kept)
        except UNAVAILABLE as error:
            _log.error("unplaced call not kept", call_id=event.call_id, error=type(error).__name__)
