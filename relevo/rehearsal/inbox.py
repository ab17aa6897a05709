"""Stand-ins for Slack, PagerDuty and a mail server: they take what is sent, on the loopback, and show it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email import message_from_bytes, policy
from typing import Any, Literal

from aiohttp import web

Channel = Literal["slack", "pagerduty", "email"]
SLACK, PAGERDUTY = "/slack/services/demo", "/pagerduty/v2/enqueue"
_LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Post:
    """One message as it arrived."""

    channel: Channel
    headline: str  # one line
    text: str


class Inbox:
    """What arrived, in order. ``away``: channels that answer 503 for now."""

    def __init__(self, told: Callable[[Post], None]) -> None:
        self.posts: list[Post] = []
        self.away: set[Channel] = set()
        self.refused = 0
        self.http = ""
        """Where Slack and PagerDuty are; a browser sees there what arrived."""
        self.smtp = ""
        self._told = told
        self._pages: dict[str, str] = {}  # what each incident was, by its key

    def of(self, channel: Channel) -> list[Post]:
        """What arrived on one channel."""
        return [post for post in self.posts if post.channel == channel]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Inbox]:
        """Take messages for the length of the block."""
        app = web.Application(client_max_size=_LONGEST)
        app.add_routes([web.post(SLACK, self._slack), web.post(PAGERDUTY, self._pagerduty), web.get("/", self._shown)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        mail = await asyncio.start_server(self._mail, "127.0.0.1", 0)
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.http = "http://{}:{}".format(*runner.addresses[0][:2])
            self.smtp = "smtp://{}:{}".format(*mail.sockets[0].getsockname()[:2])
            yield self
        finally:
            mail.close()
            await runner.cleanup()

    def _take(self, channel: Channel, headline: str, text: str) -> bool:
        if channel in self.away:
            self.refused += 1
            return False
        post = Post(channel, " ".join(headline.split()), text)
        self.posts.append(post)
        self._told(post)
        return True

    async def _slack(self, request: web.Request) -> web.Response:
        said = await request.json()
        taken = self._take("slack", _unmarked(said.get("text", "")), "\n".join(_texts(said.get("blocks", []))))
        return web.Response(text="ok") if taken else web.Response(status=503, text="away")

    async def _pagerduty(self, request: web.Request) -> web.Response:
        said = await request.json()
        key = said["dedup_key"]
        headline = f"{said['event_action']} {said.get('payload', {}).get('summary') or self._pages.get(key, key)}"
        self._pages.setdefault(key, headline.partition(" ")[2])
        taken = self._take("pagerduty", headline, json.dumps(said, indent=1, ensure_ascii=False))
        return web.json_response({"status": "success"}, status=202) if taken else web.Response(status=503)

    async def _shown(self, _request: web.Request) -> web.Response:
        shown = "\n\n".join(f"── {post.channel}: {post.headline}\n{post.text}" for post in reversed(self.posts))
        return web.Response(text=shown or "nothing has arrived yet", charset="utf-8")

    async def _mail(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As much of SMTP as a client needs who hands in mail."""
        to = ""

        def answer(line: str) -> None:
            writer.write(line.encode() + b"\r\n")

        answer("220 demo")
        while line := (await reader.readline()).decode(errors="replace").strip():
            match line.split(":")[0].upper().split()[0]:
                case "RCPT":
                    to = line.partition(":")[2].strip(" <>")
                    answer("250 ok")
                case "DATA":
                    answer("354 go on")
                    answer("250 taken" if self._letter(to, await reader.readuntil(b"\r\n.\r\n")) else "451 away")
                case "QUIT":
                    answer("221 bye")
                    break
                case "EHLO" | "HELO" | "MAIL" | "RSET" | "NOOP":
                    answer("250 ok")
                case _:
                    answer("502 unknown")
        writer.close()

    def _letter(self, to: str, raw: bytes) -> bool:
        letter = message_from_bytes(raw, policy=policy.default)
        body = letter.get_body(("plain",))
        return self._take("email", f"{to}: {letter['subject']}", body.get_content() if body else "")


def _unmarked(text: str) -> str:
    """What Slack would draw, without its marks: neither ``:icon:`` nor ``*bold*``."""
    return re.sub(r":[a-z_]+: ?|\*", "", text)


def _texts(blocks: Any) -> list[str]:
    """The words of Slack's blocks."""
    if isinstance(blocks, list):
        return [text for each in blocks for text in _texts(each)]
    if isinstance(blocks, dict):
        if isinstance(blocks.get("text"), str):
            return [blocks["text"]]
        return [text for each in blocks.values() for text in _texts(each)]
    return []
