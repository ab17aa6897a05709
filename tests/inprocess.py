"""The server's application in the test's own process, for thousands of messages: asked without a socket, or by one,
which is the way that a lane is taken."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import structlog
from starlette.types import ASGIApp

from relevo import settings
from relevo.cli import recording
from relevo.db.pool import Database
from relevo.flags.store import Flags
from relevo.migration.mapping import DEFAULT
from relevo.serving import server
from relevo.serving.app import create_app
from relevo.serving.measures import Measures
from relevo.serving.readiness import Readiness
from relevo.webhooks.service import Webhook, webhook
from tests.calling import BEGAN, SECRET, WEBHOOK
from tests.serving import Answer

NOW = BEGAN + timedelta(minutes=5)


class Wire:
    """A kept connection to a server, which takes headers as they are; a new one whenever that was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """One request and its answer."""
        reader, writer = self._streams or await asyncio.open_connection("127.0.0.1", self._port)
        named = {"host": "relevo.test", "content-length": str(len(body)), **headers}
        head = f"POST {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in named.items())
        writer.write(head.encode("latin-1") + b"\r\n" + body)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        told = dict(line.lower().split(": ", 1) for line in lines if line)
        answer = Answer(int(first.split(" ")[1]), told, await reader.readexactly(int(told["content-length"])))
        self._streams = None if told.get("connection") == "close" else (reader, writer)
        if self._streams is None:
            writer.close()
        return answer

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()


@dataclass(slots=True, repr=False)  # it would hide the example that fails beside it
class Asked:
    """The application, and the moment it believes it is."""

    app: ASGIApp
    webhook: Webhook
    now: datetime
    wire: Wire | None = None  # None: without a socket

    async def tell(
        self, said: Any, *, path: str = WEBHOOK, query: str = "", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One message; a body that is no bytes is sent as JSON. With the secret, unless other headers are given."""
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        named = {"x-vapi-secret": SECRET} if headers is None else headers
        if self.wire is not None:
            return await self.wire.ask(f"{path}?{query}" if query else path, named, body)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"host", b"relevo.test"), (b"content-length", str(len(body)).encode()), *raw],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        sent: list[dict[str, Any]] = []
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            part = next(parts, None)
            return part if part is not None else await asyncio.Future()

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], told, b"".join(part.get("body", b"") for part in sent[1:]))


@asynccontextmanager
async def asking(database: Database, *, by_wire: bool = False, **chosen: Any) -> AsyncIterator[Asked]:
    """The application on a database, with the tests' secret; without its background work."""
    in_force = settings.Settings(**{"vapi_secret": SECRET, "public_url": "https://relevo.test", **chosen})
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    await recording.install(database, DEFAULT, in_force)
    asked: Asked | None = None

    def clock() -> datetime:
        return NOW if asked is None else asked.now

    async with Flags(database) as flags, webhook(database, flags, in_force, clock) as router:
        application = create_app("tests", Measures("tests"), direct=router.endpoints)
        asked = Asked(application.asgi, router, NOW)
        if not by_wire:
            yield asked
        else:
            readiness = Readiness(cast(Any, None), flags, clock)  # nobody asks it
            async with server.beside(application, server.listen("127.0.0.1", 0), readiness) as address:
                asked.wire = Wire(int(address.rpartition(":")[2]))
                yield asked
                asked.wire.close()
    structlog.reset_defaults()
