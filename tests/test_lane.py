"""A lane answers as the application does, whatever comes; what it saves is seen by nobody but the clock."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relevo.errors import Unauthorized, UsageError
from relevo.serving import envelope, lane, server
from relevo.serving.app import create_app
from relevo.serving.envelope import LONGEST_MESSAGE
from relevo.serving.measures import Measures
from relevo.serving.readiness import Readiness
from relevo.webhooks.handlers.upstream import Reply

PRIVATE = "señora Pérez"
PATH = "/spoken/to"


@dataclass(slots=True, eq=False)
class Endpoint:
    """Answers what it is asked to; counts how it was asked."""

    whole: int = 0
    by_asgi: int = 0
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def admit(self, named: Mapping[str, str], _query: bytes) -> None:
        if named.get("x-secret") != "secret":
            raise Unauthorized("who are you?", fix="say it")

    async def answer(self, scheme: str, _headers: Any, _named: Mapping[str, str], query: bytes, body: bytes) -> Reply:
        self.whole += 1
        match body:
            case b"waits":
                self.asked.set()
                await self.goes_on.wait()
            case b"refuses":
                raise UsageError("not like this", fix="like that")
            case b"breaks":
                raise KeyError(PRIVATE)
        return Reply(200, "application/json", b"[%b %b %d]" % (scheme.encode(), query, len(body)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.admit(request.headers, b"")
        self.by_asgi += 1
        reply = await self.answer(scope["scheme"], (), request.headers, scope["query_string"], await request.body())
        await Response(reply.body, reply.status, media_type=reply.content_type)(scope, receive, send)


@dataclass(slots=True)
class Served:
    """A server with a lane, and its clients."""

    port: int
    endpoint: Endpoint
    measures: Measures

    async def raw(self, *parts: bytes, until: bytes = b"]") -> bytes:
        """What comes back until an answer's end, or the connection's."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            received = b""
            while until not in received and (more := await reader.read(65536)):
                received += more
            return received
        finally:
            writer.close()

    async def hung_up(self) -> None:
        """Wait until somebody who hung up was counted."""
        while not self.told(499):  # noqa: ASYNC110 - a counter is no event
            await asyncio.sleep(0.01)

    def told(self, status: int) -> bool:
        """Whether a request was counted with this status."""
        return f'status="{status}"'.encode() in self.measures.exposition()


@asynccontextmanager
async def serving(trusted: list[str] | None = None) -> AsyncIterator[Served]:
    endpoint, measures = Endpoint(), Measures("test")
    app = create_app("test", measures, direct={PATH: endpoint})
    readiness = Readiness(cast(Any, None), cast(Any, SimpleNamespace()), lambda: datetime.now(UTC))
    listening = server.listen("127.0.0.1", 0)
    async with server.beside(app, listening, readiness, trusted_proxies=trusted or []) as address:
        yield Served(int(address.rpartition(":")[2]), endpoint, measures)


def request(
    body: bytes = b"hello", *headers: str, query: str = "?a=b", version: str = "1.1", method: str = "POST"
) -> bytes:
    secret = [] if any(each.startswith("X-Secret") for each in headers) else ["X-Secret: secret"]
    lines = [f"{method} {PATH}{query} HTTP/{version}", "Host: x", *secret, *headers]
    if not any(each.lower().startswith("transfer-encoding") for each in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def alike(received: bytes) -> tuple[bytes, set[bytes], bytes]:
    """Status, headers but those of one request alone, and body."""
    head, _, body = received.partition(b"\r\n\r\n")
    first, *headers = re.sub(rb"(x-request-id: )[0-9a-f]{16}", rb"\1", head).split(b"\r\n")
    return first, {each for each in headers if not each.startswith(b"date:")}, body


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize("body", [b"hello", b"refuses", b"breaks", "señora".encode()])
@pytest.mark.parametrize("more", [[], ["Connection: close"], ["X-Secret: wrong"]])
async def test_both_ways_answer_the_same(body: bytes, more: list[str]) -> None:
    async with serving() as served:
        end = b"}" if body in (b"refuses", b"breaks") or "X-Secret: wrong" in more else b"]"
        direct = await served.raw(request(body, *more), until=end)
        around = await served.raw(request(chunked(body), "Transfer-Encoding: chunked", *more), until=end)
        assert alike(direct) == alike(around)
        assert PRIVATE.encode() not in direct
        let_in = "X-Secret: wrong" not in more
        assert (served.endpoint.whole, served.endpoint.by_asgi) == ((2, 1) if let_in else (0, 0))


@pytest.mark.parametrize(
    "bent",
    [
        request(b"hello", version="1.0"),
        request(b"hello", "Expect: 100-continue"),
        request(b"hello", "Connection: upgrade", "Upgrade: websocket"),
        request(chunked(b"hello"), "Transfer-Encoding: chunked"),
    ],
)
async def test_what_is_out_of_the_ordinary_goes_through_the_application(bent: bytes) -> None:
    async with serving() as served:
        assert b"[http a=b " in await served.raw(bent)
        assert served.endpoint.by_asgi == 1


async def test_another_method_and_too_long_a_body_are_refused_as_everywhere() -> None:
    async with serving() as served:
        assert b" 405 " in await served.raw(request(b"", method="PUT"), until=b"}")
        head = request(b"").replace(b"Content-Length: 0", b"Content-Length: %d" % (LONGEST_MESSAGE + 1))
        assert b" 413 " in await served.raw(head, until=b"}")
        assert served.endpoint.whole == 0


async def test_a_body_may_come_in_pieces_and_be_as_long_as_is_allowed() -> None:
    async with serving() as served:
        whole = request(b"x" * LONGEST_MESSAGE)
        received = await served.raw(whole[:30], whole[30:70], whole[70:99], whole[99:])
        assert b"[http a=b %d]" % LONGEST_MESSAGE in received
        assert served.endpoint.by_asgi == 0


async def test_requests_sent_at_once_are_answered_in_their_order() -> None:
    async with serving() as served:
        served.endpoint.goes_on.set()
        sent = [request(b"waits"), request(b"12"), request(b"123"), request(b"1234")]
        received = await served.raw(b"".join(sent), until=b"[http a=b 4]")
        assert re.findall(rb"\[http a=b (\d)\]", received) == [b"5", b"2", b"3", b"4"]


async def test_who_hangs_up_in_the_middle_is_counted_and_not_answered() -> None:
    async with serving() as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request(b"hello")[:-1])
        await writer.drain()
        writer.close()
        async with asyncio.timeout(30):
            await served.hung_up()
        assert served.endpoint.whole == 0


async def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "ANSWERED_WITHIN_S", 0)
    monkeypatch.setattr(lane, "LOOKS_EVERY_S", 0.01)
    async with serving() as served:
        received = await served.raw(request(b"hello")[:-1], until=b"never")
        assert b" 408 " in received
        assert b"connection: close" in received
        assert served.told(408)


async def test_an_answer_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "ANSWERED_WITHIN_S", 0)
    monkeypatch.setattr(lane, "LOOKS_EVERY_S", 0.01)
    async with serving() as served:
        received = await served.raw(request(b"waits"), until=b"}")
        assert b" 503 " in received
        assert served.told(503)


async def test_a_connection_that_nobody_uses_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "LOOKS_EVERY_S", 0.01)
    monkeypatch.setattr(server, "KEPT_ALIVE_S", 0)
    async with serving() as served:
        assert b"[http a=b 5]" in await served.raw(request(b"hello"), until=b"never")


@pytest.mark.parametrize("said", [b"", b"POST /spoken/to HTTP/1.1\r\nHost", request(b"hello") + b"GET / HT"])
async def test_a_connection_whose_request_does_not_come_is_closed(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "LOOKS_EVERY_S", 0.01)
    monkeypatch.setattr(envelope, "HEAD_WITHIN_S", 0)
    async with serving() as served, asyncio.timeout(30):
        received = await served.raw(said, until=b"never")
        assert received.count(b"HTTP/1.1 200") == (1 if b"hello" in said else 0)


async def test_headers_without_end_are_refused_before_anybody_says_who_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as served, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        answered = asyncio.create_task(reader.read(200))
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\n".encode())
        while not answered.done():
            writer.write(b"x: " + b"a" * 4000 + b"\r\n")
            await asyncio.sleep(0)
        with suppress(ConnectionResetError):  # we went on writing after they had closed
            assert (await answered).startswith(b"HTTP/1.1 431 ")
        assert "A request's head is too long." in caplog.messages
        writer.close()
        assert b"[http a=b 5]" in await served.raw(request(b"hello", "X-Long: " + "a" * 60_000))


async def test_a_server_that_ends_answers_first() -> None:
    async with serving() as served:
        asking = asyncio.create_task(served.raw(request(b"waits"), until=b"never"))
        await served.endpoint.asked.wait()
        asyncio.get_running_loop().call_later(0.05, served.endpoint.goes_on.set)
    received = await asking
    assert b"[http a=b 5]" in received


@pytest.mark.parametrize(("trusted", "scheme"), [([], b"http"), (["127.0.0.1"], b"https")])
async def test_only_a_trusted_proxy_says_that_it_was_https(trusted: list[str], scheme: bytes) -> None:
    async with serving(trusted) as served:
        received = await served.raw(request(b"hello", "X-Forwarded-Proto: https"))
        assert b"[%b a=b 5]" % scheme in received
        assert (b"strict-transport-security" in received) == (scheme == b"https")
        assert served.endpoint.by_asgi == 0
