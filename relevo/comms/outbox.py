"""The outbox: messages written in the transaction of what they tell of, and taken from it one by one.

Who takes a message holds its row until the transaction ends. So nobody else takes it meanwhile, and a process that
dies lets it go at once; only what the other side had taken in that very moment goes twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from relevo.comms.message import ChannelName, Message, Said
from relevo.db.pool import Connection, every, first, one
from relevo.db.statements import statement


async def tell(connection: Connection, said: Said, now: datetime) -> bool:
    """Write a message in the transaction on this connection; False when its key was used before, and nothing is
    written."""
    row = await one(
        connection,
        statement("comms", "tell"),
        {
            "dedup_key": said.dedup_key,
            "channel": said.channel,
            "notice": said.notice,
            "variables": Jsonb(dict(said.variables)),
            "now": now,
            "thread": said.thread,
            "tenant_id": said.tenant_id,
            "recipient": said.recipient,
        },
    )
    return bool(row["said"])


async def take(connection: Connection, channel: str, now: datetime) -> Message | None:
    """The next message of a channel, held by this transaction; None when none is due."""
    row = await first(connection, statement("comms", "take"), {"channel": channel, "now": now})
    return None if row is None else Message(**row)


async def due(connection: Connection, channel: str, now: datetime) -> int:
    """How many messages of a channel may be tried now."""
    row = await one(connection, statement("comms", "due"), {"channel": channel, "now": now})
    return int(row["due"])


async def became(connection: Connection, notice: str, tenants: Sequence[str]) -> dict[str, int]:
    """How many of a notice to these tenants are ``sent``, ``waiting`` and ``dead``."""
    return await one(connection, statement("comms", "became"), {"notice": notice, "tenants": list(tenants)})


async def sent(connection: Connection, message: Message, now: datetime) -> None:
    """It arrived."""
    await connection.execute(statement("comms", "sent"), {"id": message.id, "now": now})


async def put_off(connection: Connection, message: Message, due_at: datetime, why: str) -> None:
    """It is tried again, not before ``due_at``."""
    await connection.execute(statement("comms", "put_off"), {"id": message.id, "due_at": due_at, "why": why})


async def give_up(connection: Connection, message: Message, now: datetime, why: str, *, tried: bool = True) -> None:
    """It is dead: visible, with its reason, until somebody retries it. ``tried`` False: no attempt was made."""
    values = {"id": message.id, "now": now, "why": why, "tried": int(tried)}
    await connection.execute(statement("comms", "give_up"), values)


async def expire(connection: Connection, channel: ChannelName, now: datetime, after: timedelta) -> int:
    """Give up what has waited for too long; how many."""
    values = {"channel": channel, "now": now, "before": now - after}
    return (await connection.execute(statement("comms", "expire"), values)).rowcount


async def counts(connection: Connection) -> list[dict[str, Any]]:
    """How many messages there are by channel, notice and state, since when, and when the last was settled."""
    return await every(connection, statement("comms", "counts"))


async def troubled(connection: Connection, most: int) -> list[dict[str, Any]]:
    """Messages that are dead, or failed and wait to be tried again; newest first."""
    return await every(connection, statement("comms", "troubled"), {"most": most})


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of dead messages that were to be tried again."""

    again: list[int]  # they wait
    over: list[int]  # still dead: PagerDuty was told since that their incident has ended


async def retry(
    connection: Connection, ids: Sequence[int] | None, now: datetime, *, actor: str, reason: str | None
) -> Retried:
    """Try dead messages once more; None: all of them."""
    values = {"ids": None if ids is None else list(ids), "now": now, "actor": actor, "reason": reason}
    found = await every(connection, statement("comms", "retry"), values)
    return Retried([row["id"] for row in found if not row["over"]], [row["id"] for row in found if row["over"]])
