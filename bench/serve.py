"""Single evaluations over HTTP, beside a Starlette route that does nothing but read the body and answer."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.figures import Figure, in_turn
from bench.place import Place
from relevo.access.roles import Role
from relevo.db import migrations
from relevo.db.pool import Database
from tests.servers import free_port
from tests.serving import SINGLE, secrets_of_each_role, serving

CONNECTIONS = 16
REQUESTS = 20_000
TENANTS = 90


async def _bare(request: Request) -> Response:
    await request.body()
    return Response(b'{"key":"voice_agent_v2","value":true}', media_type="application/json")


bare = Starlette(routes=[Route("/bare", _bare, methods=["POST"])])


async def compare(place: Place, rounds: int) -> list[Figure]:
    """Requests a second of one process each, asked by the same client in turn."""
    with place.empty() as name:
        url = place.url(name)
        async with Database(url) as database:
            await migrations.up(database)
            token = (await secrets_of_each_role(database))[Role.VIEWER]
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE public.feature_flags SET enabled = true, percentage = 50")
        with serving(url) as served, _bare_server() as port:
            served.until("/readyz", 200)
            best = await in_turn(
                rounds,
                {
                    "relevo": lambda: _asked(served.port, SINGLE, token),
                    "bare": lambda: _asked(port, "/bare", token),
                },
            )
    per_second = {name: REQUESTS / seconds for name, seconds in best.items()}
    what = "single evaluations over HTTP, one process"
    return [Figure(what, per_second["relevo"], "a bare Starlette route", per_second["bare"], "req/s", least=0.25)]


@contextmanager
def _bare_server() -> Iterator[int]:
    port = free_port()
    options = ["--port", str(port), "--http", "httptools", "--loop", "asyncio", "--no-access-log"]
    process = subprocess.Popen([sys.executable, "-m", "uvicorn", "bench.serve:bare", *options, "--log-level", "error"])
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


async def _asked(port: int, path: str, token: str) -> float:
    """The seconds that all requests took, each connection asking again as soon as it was answered."""
    loop = asyncio.get_running_loop()
    load = _Load([_request(path, token, tenant) for tenant in range(TENANTS)], loop.create_future())
    while True:  # a server that has just been started may not listen yet
        try:
            connections = [await loop.create_connection(lambda: _Client(load), "127.0.0.1", port)]
            break
        except OSError:
            await asyncio.sleep(0.05)
    for _ in range(CONNECTIONS - 1):
        connections.append(await loop.create_connection(lambda: _Client(load), "127.0.0.1", port))
    began = time.perf_counter()
    for _transport, client in connections:
        client.ask()
    await load.done
    seconds = time.perf_counter() - began
    for transport, _client in connections:
        transport.close()
    return seconds


def _request(path: str, token: str, tenant: int) -> bytes:
    body = json.dumps({"context": {"targetingKey": f"0f8b2a9e-6c1d-4e57-9a35-{tenant:012}"}}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass(slots=True)
class _Load:
    requests: list[bytes]
    done: asyncio.Future[None]
    answered: int = field(default=0)


class _Client(asyncio.Protocol):
    """One connection. Answers are counted, not parsed: the client must not be what is measured."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._next = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self) -> None:
        assert self._transport is not None
        self._next = (self._next + 1) % len(self._load.requests)
        self._transport.write(self._load.requests[self._next])

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200"):
            self._load.done.set_exception(RuntimeError(data[:200].decode()))
            return
        if not data.endswith(b"}"):  # the head may come before the body
            return
        self._load.answered += 1
        if self._load.answered < REQUESTS:
            self.ask()
        elif not self._load.done.done():
            self._load.done.set_result(None)
