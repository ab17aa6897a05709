"""The server's application in the test's own process, asked without a socket: for thousands of messages."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from starlette.types import ASGIApp

from relevo import settings
from relevo.cli import recording
from relevo.db.pool import Database
from relevo.flags.store import Flags
from relevo.migration.mapping import DEFAULT
from relevo.serving.app import create_app
from relevo.serving.measures import Measures
from relevo.webhooks.service import Webhook, webhook
from tests.calling import BEGAN, SECRET, WEBHOOK
from tests.serving import Answer

NOW = BEGAN + timedelta(minutes=5)


@dataclass(slots=True)
class Asked:
    """The application, and the moment it believes it is."""

    app: ASGIApp
    webhook: Webhook
    now: datetime

    async def tell(
        self, said: Any, *, path: str = WEBHOOK, query: str = "", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One message; a body that is no bytes is sent as JSON. With the secret, unless other headers are given."""
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        named = {"x-vapi-secret": SECRET} if headers is None else headers
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
async def asking(database: Database, **chosen: Any) -> AsyncIterator[Asked]:
    """The application on a database, with the tests' secret; without its background work."""
    in_force = settings.Settings(**{"vapi_secret": SECRET, "public_url": "https://relevo.test", **chosen})
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    await recording.install(database, DEFAULT, in_force)
    asked: Asked | None = None

    def clock() -> datetime:
        return NOW if asked is None else asked.now

    async with Flags(database) as flags, webhook(database, flags, in_force, clock) as router:
        asked = Asked(create_app("tests", Measures("tests"), direct=router.endpoints).asgi, router, NOW)
        yield asked
    structlog.reset_defaults()
