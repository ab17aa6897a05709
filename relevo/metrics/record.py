"""The record of calls: what the router says of them, and the pins that stand.

Messages may be said once or often, in any order; the row of a call is the same in the end. Each function is one
statement: one round trip, for one message or for many.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal

from psycopg.rows import DictRow
from pydantic_core import from_json, to_json

from relevo.db.pool import Connection, Database, every, one
from relevo.db.statements import statement, statements

Version = Literal["v1", "v2"]
BATCH = 60
"""At most so many messages in one transaction: each finished call takes a subtransaction, and more than 64 of them slow
every reader of the database down."""
OVERDUE = "relevo-overdue"


# Nobody changes one of these; that they are not frozen makes them in a third of the time, and every message makes some.
@dataclass(slots=True, kw_only=True)
class Pin:
    """Who answers a call; decided once."""

    call_id: str
    tenant_id: str | None  # None: could not be told
    version: Version  # decided
    served_version: Version  # who answers in fact
    decided_at: datetime
    decided_by: str  # in a word or two: flag, unasked, binding, signed
    asked: bool  # decided at an assistant-request; else assumed, and gives way to one that was
    flag_version: int | None = None


@dataclass(slots=True, kw_only=True)
class Standing(Pin):
    """The pin that stands, and how far the call is."""

    status: str  # asked … forwarding; completed, no_answer, canceled, failed


@dataclass(slots=True, kw_only=True)
class Message(Pin):
    """One message of Vapi, parsed, together with the pin that its call has or would have. None: not said."""

    at: datetime | None = None  # message.timestamp
    direction: Literal["inbound", "outbound", "web"] | None = None
    stage: str | None = None  # message.status of a status-update, in Vapi's words
    source: Literal["report", "lookup", "overdue"] | None = None  # end-of-call-report, GET /call, we gave up waiting
    ended_reason: str | None = None  # message.endedReason
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration_ms: int | None = None
    latency_ms: float | None = None  # turnLatencyAverage, or the average of the turns; zero or less is no measurement
    outcome: str | None = None  # by structured data
    success: str | None = None  # analysis.successEvaluation
    cost_usd: float | None = None
    tool_outcome: Literal["reservation_created", "appointment_created", "order_created"] | None = None
    transferred: bool = False  # evidence of a transfer
    fallback: str | None = None  # why another than the decided version answered, or an apology
    unanswered: bool = False  # Vapi asked, and got no assistant
    synthetic: bool = False  # a call of ours, which counts nowhere


async def pin(database: Database, pins: Iterable[Message]) -> dict[str, Standing]:
    """Pin calls at their assistant-request, together, in a transaction of its own; returns by call id the pins that
    stand where they may be others: somebody was faster, or one call was given twice.

    Nothing is read or encoded but the pin, direction, fallback, unanswered, synthetic and ``at``: the time that is
    spent here, all calls wait.
    """
    told = to_json([{name: getattr(each, name) for name in _PINNED} for each in pins]).decode()
    rows = await database.brief(statements("metrics")["pin_calls"], told)
    standing = [from_json(pin) for (pin,) in rows if pin is not None]
    return _by_call({**pin, "decided_at": datetime.fromisoformat(pin["decided_at"])} for pin in standing)


async def record(connection: Connection, messages: Iterable[Message]) -> dict[str, Standing]:
    """Add at most ``BATCH`` messages to what is known of their calls, and write the finished ones into the platform's
    table; returns by call id the pins that stand. Only the database's own failure raises."""
    return await _standing(connection, "record_messages", {"messages": _encoded(messages)})


async def record_alone(database: Database, messages: Iterable[Message]) -> dict[str, Standing]:
    """The same, in a transaction of its own."""
    return _by_call(await database.alone(statement("metrics", "record_messages"), {"messages": _encoded(messages)}))


async def pins_of(connection: Connection, call_ids: Iterable[str]) -> dict[str, Standing]:
    """The pins of these calls, by call id; calls nobody has heard of are absent."""
    return await _standing(connection, "pins_of", {"call_ids": list(call_ids)})


async def record_shadow(connection: Connection, call_id: str, shadow: dict[str, Any]) -> None:
    """Store what v2 would have done of a v1 call; nothing for a call nobody has heard of."""
    said = {"call_id": call_id, "shadow": json.dumps(shadow, default=str)}
    await connection.execute(statement("metrics", "record_shadow"), said)


async def close_overdue(database: Database, now: datetime, longest: timedelta) -> int:
    """End the calls whose end nobody ever told, ``longest`` after they were decided: each counts as an error, until a
    late report says otherwise. Returns how many; call it again while that is ``BATCH``."""
    async with database.transaction() as connection:
        rows = await every(connection, statement("metrics", "overdue"), {"before": now - longest, "at_most": BATCH})
        pins = await pins_of(connection, [row["call_id"] for row in rows])
        await record(connection, [_overdue(pin) for pin in pins.values()])
    return len(pins)


async def unreported(connection: Connection, since: datetime, before: datetime, *, at_most: int = BATCH) -> list[str]:
    """Calls decided in that time that ended without a report: what may be looked up at Vapi."""
    wanted = {"since": since, "before": before, "at_most": at_most}
    return [row["call_id"] for row in await every(connection, statement("metrics", "unreported"), wanted)]


async def repair_voice_calls(database: Database, now: datetime, *, at_most: int = BATCH) -> int:
    """Try again to write calls that the platform's table did not take; returns how many it took."""
    async with database.transaction() as connection:
        row = await one(connection, statement("metrics", "repair_voice_calls"), {"now": now, "at_most": at_most})
    return int(row["done"])


async def faults(connection: Connection) -> dict[str, Any]:
    """Calls that wait to be written into the platform's table: ``many``, the ``oldest``'s time, ``last_fault``."""
    return await one(connection, statement("metrics", "call_faults"))


def _overdue(pin: Standing) -> Message:
    known = {field.name: getattr(pin, field.name) for field in fields(Pin)}
    return Message(**known, source="overdue", ended_reason=OVERDUE)


async def _standing(connection: Connection, name: str, params: dict[str, Any]) -> dict[str, Standing]:
    return _by_call(await every(connection, statement("metrics", name), params))


def _by_call(rows: Iterable[DictRow]) -> dict[str, Standing]:
    return {row["call_id"]: Standing(**row) for row in rows}


def _encoded(messages: Iterable[Message]) -> str:
    return json.dumps([{name: _plain(getattr(each, name)) for name in _NAMES} for each in messages])


_NAMES = tuple(field.name for field in fields(Message))
_PINNED = (*(field.name for field in fields(Pin)), "at", "direction", "fallback", "unanswered", "synthetic")


def _plain(value: Any) -> Any:
    """What JSON and PostgreSQL both take: no NUL, no lone surrogate, no infinity."""
    match value:
        case str():
            return value.replace("\0", "").encode(errors="replace").decode()
        case datetime():
            return value.isoformat()
        case float() if not math.isfinite(value):
            return None
        case int() if not -(2**63) <= value < 2**63:
            return None
    return value
