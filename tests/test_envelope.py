"""Whatever goes wrong inside, an answer leaves, and it tells nothing that was private."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from relevo.serving import background, envelope
from relevo.serving.envelope import LONGEST_BODY, Envelope
from relevo.serving.measures import Measures
from relevo.serving.told import Told

PRIVATE = "señora Pérez"
Inside = Callable[[Scope, Receive, Send], Awaitable[None]]


class Exchange:
    """One request to an application inside an envelope, without a network."""

    def __init__(self, inside: Inside, *parts: bytes, whole: bool = True, path: str = "/x") -> None:
        self.measures = Measures("test")
        self._app = Envelope(inside, told=Told(self.measures), templates={})
        self._messages: list[Message] = [
            {"type": "http.request", "body": part, "more_body": not whole or place < len(parts) - 1}
            for place, part in enumerate(parts)
        ]
        self.sent: list[Message] = []
        self._scope: Scope = {"type": "http", "method": "POST", "scheme": "http", "path": path, "headers": []}

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        await asyncio.Event().wait()  # the rest never comes
        raise AssertionError

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self) -> int:
        """The status that was answered."""
        await self._app(self._scope, self.receive, self.send)
        return int(self.sent[0]["status"])

    @property
    def problem(self) -> Any:
        """The body that was answered."""
        return json.loads(self.sent[1]["body"])


async def reads(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await Response(body)(scope, receive, send)


async def test_a_crash_is_a_500_that_says_nothing_of_its_cause(capfd: pytest.CaptureFixture[str]) -> None:
    async def crashes(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise KeyError(PRIVATE)

    exchange = Exchange(crashes, b"")
    assert await exchange.run() == 500
    assert exchange.problem["fix"] == "see the server's log under this request id"
    assert (b"cache-control", b"no-store") in exchange.sent[0]["headers"]
    told = capfd.readouterr()
    assert PRIVATE not in told.out + told.err + json.dumps(exchange.problem, ensure_ascii=False)
    assert "KeyError" in told.out + told.err
    assert b'status="500"' in generate_latest(exchange.measures.registry)


async def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "ANSWERED_WITHIN_S", 0)
    exchange = Exchange(reads, b"begun", whole=False)
    assert await exchange.run() == 408
    assert (b"connection", b"close") in exchange.sent[0]["headers"]


async def test_an_answer_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dawdles(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await asyncio.Event().wait()

    monkeypatch.setattr(envelope, "ANSWERED_WITHIN_S", 0)
    assert await Exchange(dawdles, b"").run() == 503


async def test_a_stream_may_take_as_long_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    later = asyncio.Event()

    async def streams(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        asyncio.get_running_loop().call_later(0.05, later.set)
        await later.wait()
        await send({"type": "http.response.body", "body": b"at last"})

    monkeypatch.setattr(envelope, "ANSWERED_WITHIN_S", 0.01)
    exchange = Exchange(streams, b"")
    assert await exchange.run() == 200
    assert exchange.sent[-1]["body"] == b"at last"


async def test_a_body_of_just_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    half = b"x" * (LONGEST_BODY // 2)
    assert await Exchange(reads, half, half).run() == 200
    assert await Exchange(reads, half, half, b"x").run() == 413


async def test_a_fault_after_the_answer_began_breaks_it_off() -> None:
    async def breaks(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError(PRIVATE)

    with pytest.raises(ConnectionAbortedError, match="the answer broke off"):
        await Exchange(breaks, b"").run()


async def test_who_hangs_up_is_counted_and_not_answered() -> None:
    exchange = Exchange(reads)
    exchange._messages = [{"type": "http.disconnect"}]
    with pytest.raises(IndexError):
        await exchange.run()
    assert b'status="499"' in generate_latest(exchange.measures.registry)


async def test_an_answer_may_say_itself_how_long_it_is_kept() -> None:
    async def kept(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(headers={"cache-control": "max-age=60"})(scope, receive, send)

    exchange = Exchange(kept, b"")
    await exchange.run()
    assert [value for name, value in exchange.sent[0]["headers"] if name == b"cache-control"] == [b"max-age=60"]


async def test_errors_of_the_protocol_always_carry_details() -> None:
    async def refuses(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise HTTPException(413, "too much")

    exchange = Exchange(refuses, b"", path="/ofrep/v1/evaluate/flags/x")
    assert await exchange.run() == 413
    assert exchange.problem["errorDetails"] == "too much — send less"


async def test_a_job_that_fails_is_started_again_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_AGAIN_AFTER_S", 0)
    tries, done, other = 0, asyncio.Event(), asyncio.Event()

    async def fails_twice() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise RuntimeError(PRIVATE)
        done.set()

    async def goes_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            other.set()

    async with background.running([fails_twice, goes_on]):
        await done.wait()
        assert not other.is_set()
    assert other.is_set()
    assert tries == 3


_FULL_AT_FIRST = """
import asyncio, io, sys
import structlog
from relevo.serving import logs

class Disk(io.BytesIO):
    full = True
    def write(self, lines):
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(lines)

async def main():
    disk = Disk()
    errors = logs.configure(disk)
    log = structlog.get_logger()
    log.info("nobody reads this")
    for _ in range(100):
        await asyncio.sleep(0)
    disk.full = False
    log.info("but this")
    for _ in range(100):
        await asyncio.sleep(0)
    sys.stdout.buffer.write(disk.getvalue())
    print(errors.fetch())

asyncio.run(main())
"""


def test_a_log_that_cannot_be_written_costs_its_lines_and_nothing_more() -> None:
    ran = subprocess.run([sys.executable, "-c", _FULL_AT_FIRST], capture_output=True, text=True, check=True)
    *lines, errors = ran.stdout.splitlines()
    assert [(said["event"], said.get("lines")) for said in map(json.loads, lines)] == [
        ("but this", None),
        ("lines of the log were lost", 1),
    ]
    assert errors == "{'lines of the log were lost': 1}"
    assert ran.stderr == ""
