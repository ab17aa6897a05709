"""A notice to ten thousand clients, through a real mail server: each mail a transaction of its own, beside the same
mails handed in without a database. What arrived is counted where it arrived.

``python -m bench.notices`` is that mail server, in a process of its own: it tells its port, and at the end of its input
who got how many.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from random import Random

import psycopg

from bench.figures import Figure, in_turn
from bench.place import Place
from relevo.clock import system_clock
from relevo.comms.delivery import Delivery
from relevo.comms.email import Email
from relevo.comms.message import Message
from relevo.comms.outcome import Delivered
from relevo.comms.texts import shipped
from relevo.db import migrations
from relevo.db.pool import Database
from tests.wires import postbox

CLIENTS = 10_000
_VARIABLES = {"client_name": "Negocio", "vertical": "dental", "time_zone": None, "at": None}
_FILL = """
    INSERT INTO relevo.outbox (dedup_key, channel, notice, tenant_id, recipient, variables, created_at, due_at)
    SELECT 'client_before:' || n, 'email', 'client_before', n::text, 'c' || n || '@example.mx', %s::jsonb, now(), now()
    FROM generate_series(1, %s) AS n
"""


async def compare(place: Place) -> list[Figure]:
    """Mails a second, in one round, for it is long. Raises AssertionError where a client got none, or two."""
    with place.empty() as template:
        async with Database(place.url(template)) as database:
            await migrations.up(database)
        with psycopg.connect(place.url(template), autocommit=True) as connection:
            connection.execute(_FILL, [json.dumps(_VARIABLES), CLIENTS])
        least = await in_turn(1, {"delivered": partial(_delivered, place, template), "handed in": _handed_in})
    what = f"a notice to {CLIENTS:,} clients, each once"
    return [Figure(what, CLIENTS / least["delivered"], "without a database", CLIENTS / least["handed in"], "mails/s")]


async def _delivered(place: Place, template: str) -> float:
    with place.clone(template) as name:
        async with Database(place.url(name)) as database, _mailing() as email:
            delivery = Delivery(database, email, system_clock, Random(7).random)
            began_s = time.perf_counter()
            tried = await delivery.deliver_due()
            took_s = time.perf_counter() - began_s
    assert tried == CLIENTS
    return took_s


async def _handed_in() -> float:
    async with _mailing() as email:
        began_s = time.perf_counter()
        mails: Iterator[int] = iter(range(1, CLIENTS + 1))
        await asyncio.gather(*(_hand_in(email, mails) for _ in range(email.at_once)))
        return time.perf_counter() - began_s


async def _hand_in(email: Email, mails: Iterator[int]) -> None:
    for number in mails:
        key, recipient = f"client_before:{number}", f"c{number}@example.mx"
        message = Message(number, key, "client_before", None, None, recipient, _VARIABLES, system_clock(), 0)
        assert isinstance(await email.send(message), Delivered)


@asynccontextmanager
async def _mailing() -> AsyncIterator[Email]:
    """A mail server, and the connections to it. Everybody must have got one mail."""
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.notices", stdin=pipe, stdout=pipe)
    assert server.stdin is not None
    assert server.stdout is not None
    port = int(await server.stdout.readline())
    email = Email(f"smtp://127.0.0.1:{port}", "Relevo <relevo@example.mx>", "help@example.mx", shipped())
    try:
        yield email
    finally:
        await email.close()
        server.stdin.close()
        told = json.loads(await server.stdout.read())
        await server.wait()
    assert told == {"clients": CLIENTS, "most": 1}, told


async def _serve() -> None:
    async with postbox() as box:
        print(box.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        got = Counter(str(mail["To"]) for mail in box.got)
        print(json.dumps({"clients": len(got), "most": max(got.values(), default=0)}))


if __name__ == "__main__":
    asyncio.run(_serve())
