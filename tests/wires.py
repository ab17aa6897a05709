"""The other sides of messages: a real SMTP server, and an HTTP server that answers as it is told, or hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

from aiohttp import web
from aiosmtpd.controller import UnthreadedController
from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass(slots=True)
class Hook:
    """A stand-in for Slack or PagerDuty. It answers by ``script`` first: (status, headers), or None to hang."""

    url: str = ""
    answer: int = 200
    script: list[tuple[int, dict[str, str]] | None] = field(default_factory=list)
    asked: int = 0
    taken: list[dict[str, Any]] = field(default_factory=list)  # what it answered with success
    seen: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        """One request."""
        self.asked += 1
        body = await request.json()
        scripted = self.script.pop(0) if self.script else (self.answer, {})
        self.seen.set()
        if scripted is None:
            await asyncio.sleep(3600)
            raise AssertionError("nobody waits for so long")
        status, headers = scripted
        if 200 <= status < 300:
            self.taken.append(body)
        return web.Response(status=status, headers=headers, text="ok" if status < 300 else f"no_can_do {request.path}")


@asynccontextmanager
async def hook(**how: Any) -> AsyncIterator[Hook]:
    """A listening stand-in."""
    made = Hook(**how)
    app = web.Application()
    app.router.add_post("/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    made.url = f"http://127.0.0.1:{port}"
    try:
        yield made
    finally:
        await runner.cleanup()


@dataclass(slots=True)
class Postbox:
    """A mail server's inbox. ``refuses``: address to the answer at RCPT TO; ``busy``: answers at DATA, one a mail;
    ``stuck``: at the next mail it waits for that event, once."""

    port: int = 0
    refuses: dict[str, str] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)
    stuck: asyncio.Event | None = None
    got: list[EmailMessage] = field(default_factory=list)
    sessions: int = 0
    _more: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reached(self, count: int) -> None:
        """Wait until so many mails have come."""
        async with self._more:
            await self._more.wait_for(lambda: len(self.got) >= count)

    async def handle_EHLO(
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Count connections; letters beyond ASCII are not taken, as by many servers."""
        self.sessions += 1
        session.host_name = hostname
        return [each for each in responses if "SMTPUTF8" not in each]

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Take or refuse an address."""
        if address in self.refuses:
            return self.refuses[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Take a mail."""
        if self.stuck is not None:
            stuck, self.stuck = self.stuck, None
            await stuck.wait()
            return "250 OK, at last"
        if self.busy:
            return self.busy.pop(0)
        raw = cast(bytes, envelope.content)
        async with self._more:
            self.got.append(message_from_bytes(raw, policy=policy.default))
            self._more.notify_all()
        return "250 OK"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"smtp://127.0.0.1:{self.port}"


@asynccontextmanager
async def postbox(box: Postbox | None = None, *, port: int = 0) -> AsyncIterator[Postbox]:
    """A listening mail server; on a given port to come back at the same place."""
    inbox = box or Postbox()
    controller = UnthreadedController(inbox, hostname="127.0.0.1", port=port, loop=asyncio.get_running_loop())
    controller.server = await asyncio.get_running_loop().create_server(controller.factory, host="127.0.0.1", port=port)
    inbox.port = controller.server.sockets[0].getsockname()[1]
    try:
        yield inbox
    finally:
        controller.server.close()
