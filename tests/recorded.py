"""Messages of calls, as the tests of the record and of its statistics need them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from relevo.db.pool import Database
from relevo.metrics import record
from relevo.metrics.record import Message, Standing

TENANT = "0f8b2a9e-6c1d-4e57-9a35-3d2f1c7b8e90"
ASKED_AT = datetime(2026, 11, 22, 10, 30, 5, tzinfo=UTC)


def asked(call_id: str = "call", **said: Any) -> Message:
    """A message of a call that was decided for v2 when Vapi asked."""
    pin: dict[str, Any] = {
        "tenant_id": TENANT,
        "version": "v2",
        "served_version": said.get("version", "v2"),
        "decided_at": ASKED_AT,
        "decided_by": "flag",
        "asked": True,
        "flag_version": 3,
    }
    return Message(call_id=call_id, **(pin | said))


def reported(call_id: str = "call", reason: str | None = "customer-ended-call", **said: Any) -> Message:
    """The report of such a call."""
    end: dict[str, Any] = {
        "at": ASKED_AT + timedelta(seconds=70),
        "source": "report",
        "ended_reason": reason,
        "started_at": ASKED_AT + timedelta(seconds=2),
        "ended_at": ASKED_AT + timedelta(seconds=65),
        "duration_ms": 63_000,
        "latency_ms": 812.5,
    }
    return asked(call_id, **(end | said))


def staged(stage: str, seconds: int, call_id: str = "call", **said: Any) -> Message:
    """A status-update, so many seconds after Vapi asked."""
    return asked(call_id, at=ASKED_AT + timedelta(seconds=seconds), stage=stage, **said)


async def say(database: Database, *messages: Message, each: bool = False) -> dict[str, Standing]:
    """Record messages, in one transaction or in one for each; returns the pins that stand."""
    standing: dict[str, Standing] = {}
    for together in _split(messages, each):
        async with database.transaction() as connection:
            standing |= await record.record(connection, together)
    return standing


async def pin(database: Database, *messages: Message) -> dict[str, Standing]:
    """Pin calls; returns the pins that stand."""
    others = await record.pin(database, messages)
    async with database.transaction() as connection:
        standing = await record.pins_of(connection, [message.call_id for message in messages])
    assert others.items() <= standing.items()
    return standing


def _split(messages: Iterable[Message], each: bool) -> list[list[Message]]:
    return [[message] for message in messages] if each else [list(messages)]
