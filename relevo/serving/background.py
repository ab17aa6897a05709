"""Work that goes on beside the requests, for as long as the server lives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from relevo.serving import logs

Job = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How many real seconds lie between two looks of what goes on by itself; None: as usual."""

    rollout_s: float | None = None
    alerts_s: float | None = None
    deliveries_s: float | None = None
    clients_s: float | None = None


_AGAIN_AFTER_S = 1.0
_STOPS_WITHIN_S = 3.0

_log = structlog.get_logger()


@asynccontextmanager
async def running(jobs: Iterable[Job]) -> AsyncIterator[None]:
    """Run jobs for the length of the block. One that fails is started again; one that returns is done."""
    tasks = [asyncio.create_task(_kept(job)) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOPS_WITHIN_S)


async def _kept(job: Job) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            try:
                await job()
            except Exception as error:  # whatever it is: the others go on, and so should this
                _log.error(
                    "job failed",
                    job=getattr(job, "__qualname__", "?"),
                    error=type(error).__name__,
                    at=logs.where(error),
                )
                await asyncio.sleep(_AGAIN_AFTER_S)
            else:
                return
