"""The outbox: messages wait in the database until their channel has taken them, or are given up with the reason."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import aiohttp
import psycopg
from psycopg.types.json import Jsonb

from relevo.clock import Clock
from relevo.db.pool import Connection, Database, every, first
from relevo.db.statements import statement
from relevo.errors import RelevoError

Channel = Literal["slack", "pagerduty"]

TRIES = 15
LONGEST_WAIT = timedelta(hours=1)
ANSWERS_WITHIN_S = 10.0
LOOK_EVERY_S = 1.0
LATE_AFTER = timedelta(minutes=5)
_FIRST_WAIT = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Route:
    """How a channel is spoken to."""

    url: str  # a secret where it is a webhook: never logged, never stored
    body: Callable[[str, Mapping[str, Any]], dict[str, Any]]
    """Of a message's kind and data, what is posted."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How a try went."""

    sent: bool
    again: bool = False  # whether trying again may help
    fault: str | None = None
    after: timedelta | None = None  # the channel asked to wait so long


async def put(
    connection: Connection, channel: Channel, kind: str, key: str, data: Mapping[str, Any], now: datetime
) -> None:
    """Write a message, in the transaction of what it tells of. ``key``: of one key there is one message."""
    said = {"channel": channel, "kind": kind, "dedup_key": key, "data": Jsonb(dict(data)), "now": now}
    await connection.execute(statement("outbox", "put"), said)


async def deliver(database: Database, routes: Mapping[str, Route], http: aiohttp.ClientSession, now: datetime) -> bool:
    """Try one message whose time has come, of the channels that are configured here; False when there is none. Any
    number of processes may."""
    async with database.transaction() as connection:
        message = await first(connection, statement("outbox", "take"), {"now": now, "channels": list(routes)})
        if message is None:
            return False
        await _note(connection, message, await _post(http, routes[message["channel"]], message), now)
    return True


async def keep_delivering(database: Database, routes: Mapping[str, Route], clock: Clock) -> None:
    """Deliver for as long as this task is not cancelled; a database that is away is asked again."""
    timeout = aiohttp.ClientTimeout(total=ANSWERS_WITHIN_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        while True:
            with contextlib.suppress(RelevoError, psycopg.Error):
                while await deliver(database, routes, http, clock()):
                    pass
            await asyncio.sleep(LOOK_EVERY_S)


async def unsent(connection: Connection, now: datetime, most: int) -> list[dict[str, Any]]:
    """Messages that were given up, or have waited for minutes, newest first; ``fault`` None: nobody tried, because no
    process serves that channel."""
    wanted = {"before": now - LATE_AFTER, "most": most}
    return await every(connection, statement("outbox", "unsent"), wanted)


def wait_for(message_id: int, tries: int) -> timedelta:
    """How long until the next try: doubling, capped, and spread so that many do not come at once."""
    wait = min(LONGEST_WAIT, _FIRST_WAIT * float(2 ** min(tries, 20)))
    spread = (message_id * 2_654_435_761 + tries * 40_503) % 1000 / 1000
    return wait * (0.5 + spread / 2)


async def _post(http: aiohttp.ClientSession, route: Route, message: Mapping[str, Any]) -> Answered:
    body = route.body(message["kind"], message["data"])
    try:
        async with http.post(route.url, json=body) as response:
            return _judged(response.status, response.headers.get("Retry-After"))
    except TimeoutError:
        return Answered(False, True, f"no answer within {ANSWERS_WITHIN_S:g} s")
    except aiohttp.ClientError as error:
        return Answered(False, True, type(error).__name__)  # its words may hold the address


def _judged(status: int, retry_after: str | None) -> Answered:
    if 200 <= status < 300:
        return Answered(True)
    if status == 429 or status >= 500:
        after = timedelta(seconds=int(retry_after)) if retry_after and retry_after.isdigit() else None
        return Answered(False, True, f"answered {status}", after)
    return Answered(False, fault=f"answered {status}")


async def _note(connection: Connection, message: Mapping[str, Any], answered: Answered, now: datetime) -> None:
    said: dict[str, Any] = {"id": message["id"], "fault": answered.fault, "now": now}
    if answered.sent:
        await connection.execute(statement("outbox", "ended"), said | {"state": "sent"})
    elif not answered.again or message["tries"] + 1 >= TRIES:
        await connection.execute(statement("outbox", "ended"), said | {"state": "dead"})
    else:
        wait = max(answered.after or timedelta(0), wait_for(message["id"], message["tries"]))
        await connection.execute(statement("outbox", "again"), said | {"due_at": now + wait})
