"""Calls of which no report came: 2 to 5 of a hundred. With an API key they are looked up at Vapi; those that nobody can
tell anything of end by their longest duration. And the numbers at Vapi, which people bind and unbind there, are read
again. One process at a time does it."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import psycopg
import structlog

from relevo.clock import Clock
from relevo.db.lease import lease
from relevo.db.pool import Database, every
from relevo.db.statements import statement
from relevo.errors import LeaseHeld, RelevoError, VapiRefused, VapiUnreachable
from relevo.metrics import record
from relevo.metrics.record import Message
from relevo.webhooks import numbers
from relevo.webhooks.calls import message_of
from relevo.webhooks.message import of
from relevo.webhooks.vapi import Vapi

LEASE = "reconcile calls"
EVERY_S = 30.0
NUMBERS_EVERY = timedelta(minutes=10)
REPORTED_BY = timedelta(minutes=10)  # a report comes some 5 s after the end
LONGEST_CALL = timedelta(hours=1)  # Vapi's own limit is 10 minutes, unless an assistant says otherwise
LOOKED_FOR = timedelta(days=1)

_log = structlog.get_logger()


async def keep_reconciling(database: Database, vapi: Vapi | None, clock: Clock) -> None:
    """Reconcile now and then, while the work is ours. Never returns."""
    while True:
        with contextlib.suppress(LeaseHeld, RelevoError, psycopg.Error):
            async with lease(database, LEASE) as held:
                numbers_at = None
                while True:
                    async with database.transaction() as connection:
                        await held.hold(connection)
                    await reconcile(database, vapi, clock)
                    if vapi is not None and (numbers_at is None or clock() - numbers_at >= NUMBERS_EVERY):
                        numbers_at = clock()
                        await look_at_numbers(database, vapi, clock)
                    await asyncio.sleep(EVERY_S)
        await asyncio.sleep(EVERY_S)


async def reconcile(database: Database, vapi: Vapi | None, clock: Clock) -> int:
    """Once; returns how many calls were closed. Raises what the database raises."""
    closed = await _look_up(database, vapi, clock) if vapi is not None else 0
    while (more := await record.close_overdue(database, clock(), LONGEST_CALL)) > 0:
        closed += more
        if more < record.BATCH:
            break
    while await record.repair_voice_calls(database, clock()) == record.BATCH:
        pass
    return closed


async def look_at_numbers(database: Database, vapi: Vapi, clock: Clock) -> None:
    """Once; where Vapi does not answer, what was seen last stays. Raises what the database raises."""
    try:
        await numbers.read(database, vapi, clock)
    except (VapiUnreachable, VapiRefused) as error:
        _log.warning("numbers not read", why=str(error))


async def _look_up(database: Database, vapi: Vapi, clock: Clock) -> int:
    now = clock()
    before = now - REPORTED_BY
    async with database.transaction(read_only=True) as connection:
        wanted = {"before": before, "at_most": record.BATCH}
        ids = [row["call_id"] for row in await every(connection, statement("router", "open_calls"), wanted)]
        ids += await record.unreported(connection, now - LOOKED_FOR, before)
        pins = await record.pins_of(connection, ids)
    learnt: list[Message] = []
    for call_id in dict.fromkeys(ids):
        try:
            call = await vapi.call(call_id)
        except RelevoError as error:
            _log.warning("calls not looked up", why=str(error))
            break
        if call is not None and call.get("status") == "ended":
            learnt.append(looked_up(call, pins[call_id]))
    for start in range(0, len(learnt), record.BATCH):
        async with database.transaction() as connection:
            await record.record(connection, learnt[start : start + record.BATCH])
    return len(learnt)


def looked_up(call: dict[str, Any], pin: record.Standing) -> Message:
    """What GET /call says of a call that is over: the same as its report would have."""
    said = {name: call.get(name) for name in ("endedReason", "startedAt", "endedAt", "cost", "analysis", "artifact")}
    event = of({**said, "call": call, "timestamp": call.get("updatedAt")}, "end-of-call-report")
    return message_of(event, pin, source="lookup")
