"""Trying again where PostgreSQL says that somebody else was faster: locks, deadlocks, serialization."""

from __future__ import annotations

from collections.abc import AsyncIterator

import stamina
from psycopg import errors

from relevo import events

# We tell each wait ourselves, as an event; stamina would log it, and structlog's default is standard output.
stamina.instrumentation.set_on_retry_hooks(())

_PASSING = (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure)


async def patiently(emit: events.Sink, why: str) -> AsyncIterator[stamina.Attempt]:
    """Attempts at a transaction, further apart each time, for about a minute; each wait is told.

    Use as ``async for attempt in patiently(…): with attempt: …``. The last error is raised.
    """
    async for attempt in stamina.retry_context(
        on=_PASSING, attempts=20, timeout=60.0, wait_initial=0.1, wait_max=5.0, wait_jitter=0.2
    ):
        if attempt.num > 1:
            emit(events.Note(f"{why}: trying again", warning=True))
        yield attempt
