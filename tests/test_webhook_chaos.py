"""Calls while everything around them fails: processes killed, the database gone, an upstream that hangs, a flag that
flips. What a caller hears is of one version, and what was confirmed is kept."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from relevo.db import migrations
from relevo.db.pool import Database
from relevo.flags import writing
from relevo.flags.writing import Author
from tests.calling import SECRET, WEBHOOK, Line, asked, report, status
from tests.conftest import OWNER, durable_server, load_sample, rows
from tests.servers import Server, free_port
from tests.serving import Served, serving
from tests.standins import Reply, StandIn, stand_in
from tests.test_kills import start_again
from tests.test_webhook import prepared

CALLERS = 12
EACH_EVENT = 3
HELD_S = 3.0
V2S = {"assistant": {"name": "v2", "model": {"provider": "openai", "model": "x"}}}
AUTHOR = Author("chaos", None)


@dataclass(slots=True)
class Process:
    """One ``relevo serve`` at an address that it keeps when it is started again."""

    url: str
    env: dict[str, str]
    port: int = field(default_factory=free_port)
    _running: ExitStack = field(default_factory=ExitStack)
    served: Served | None = None

    def start(self) -> None:
        self.served = self._running.enter_context(serving(self.url, port=self.port, env=self.env))

    def kill(self) -> None:
        assert self.served is not None
        self.served.process.kill()
        self._running.close()

    def end(self) -> None:
        self._running.close()


@dataclass(slots=True)
class Vapi:
    """Whoever calls: it tries the next process where one is gone, and sends again what was not stored."""

    addresses: list[str]
    session: aiohttp.ClientSession
    dice: random.Random
    answers: dict[str, str] = field(default_factory=dict)
    confirmed: set[str] = field(default_factory=set)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def deliver(self, path: str, said: dict[str, Any]) -> dict[str, Any]:
        """The answer, from whoever gives one."""
        for address in itertools.cycle(self.dice.sample(self.addresses, len(self.addresses))):
            try:
                async with self.session.post(f"{address}{path}", json=said, headers={"x-vapi-secret": SECRET}) as told:
                    if told.status == 200:
                        return dict(await told.json())
                    # A call that begins is answered by every process that lives, whatever is away.
                    assert told.status == 503, (told.status, await told.text())
                    assert said["message"]["type"] != "assistant-request", await told.text()
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                pass
            await asyncio.sleep(0.02)  # as a backoffPlan has it
        raise AssertionError("unreachable")

    async def call(self, line: Line) -> None:
        """One call, from its first message to its last."""
        call_id = f"chaos-{next(self.numbers)}"
        answer = await self.deliver(WEBHOOK, asked(line, call_id))
        self.answers[call_id] = spoken(answer)
        place = urlsplit(answer.get("assistant", {}).get("server", {}).get("url", ""))
        path = f"{place.path}?{place.query}" if place.query else WEBHOOK
        await self.deliver(path, status(line, call_id, "in-progress", 2))
        await self.deliver(path, report(line, call_id))
        self.confirmed.add(call_id)
        self.ended.set()

    async def some_calls(self, many: int) -> None:
        """Until so many more have ended, or most are held by a v2 that answers nobody."""
        until = len(self.confirmed) + many
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HELD_S):
                while len(self.confirmed) < until:
                    self.ended.clear()
                    await self.ended.wait()


def spoken(answer: dict[str, Any]) -> str:
    """Who speaks in an answer to assistant-request: a version, or an apology."""
    if "assistant" in answer:
        return str(answer["assistant"].get("metadata", {}).get("agent_version", "v2"))
    assert "error" in answer or "destination" in answer, answer
    return "apology"


async def _verified(database: Database, found: list[Line]) -> list[Line]:
    """Those that may be switched to v2."""
    query = "SELECT tenant_id FROM relevo.unverified_tenants(%s)"
    others = {row["tenant_id"] for row in await rows(database, query, ([line.tenant_id for line in found],))}
    return [line for line in found if line.tenant_id not in others]


async def flip(url: str, dice: random.Random, found: list[Line]) -> None:
    """Any writer of the flag."""
    async with Database(url) as database:
        chosen = [line.tenant_id for line in dice.sample(found, 3)]
        await dice.choice((writing.enable, writing.disable))(database, chosen, AUTHOR)


def hang(v2: StandIn) -> None:
    """v2 answers nobody, or again."""
    (v2.go_on if v2.hanging.is_set() else v2.hang)()


async def wreak(server: Server, processes: list[Process], v2: StandIn, vapi: Vapi, found: list[Line]) -> None:
    """Each event some times, in any order, while calls go on."""
    url, dice = processes[0].url, vapi.dice
    events = ["flip", "hang", "kill", "database"] * EACH_EVENT
    dice.shuffle(events)
    for event in events:
        await vapi.some_calls(dice.randint(1, CALLERS))
        match event:
            case "flip":
                await flip(url, dice, found)
            case "hang":
                hang(v2)
            case "kill":
                process = dice.choice(processes)
                await asyncio.to_thread(process.kill)
                await asyncio.to_thread(process.start)
            case "database":
                server.pull_the_plug()
                await asyncio.to_thread(start_again, server)
    v2.go_on()


@pytest.mark.parametrize("seed", [1, 2])
async def test_calls_go_on_through_anything(seed: int) -> None:
    dice = random.Random(seed)
    with durable_server("chaos") as server, stand_in(lambda _request: Reply(body=V2S)) as v2, ExitStack() as stack:
        url = server.url("chaos", OWNER)
        async with Database(url) as database:
            await migrations.up(database)
            await load_sample(database, tenants=20, calls=50)
            found = await _verified(database, await prepared(database))
            await writing.enable(database, [line.tenant_id for line in found[::2]], AUTHOR)
        processes = [Process(url, {"RELEVO_VAPI_SECRET": SECRET, "RELEVO_V2_UPSTREAM": v2.url}) for _ in range(2)]
        for process in processes:
            process.start()
            stack.callback(process.end)
        limits = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(force_close=True)) as session:
            vapi = Vapi([f"http://127.0.0.1:{each.port}" for each in processes], session, dice)
            over = asyncio.Event()

            async def caller() -> None:
                while not over.is_set():
                    await vapi.call(dice.choice(found))

            callers = [asyncio.create_task(caller()) for _ in range(CALLERS)]
            try:
                await wreak(server, processes, v2, vapi, found)
            finally:
                over.set()
                await asyncio.gather(*callers)
        async with Database(url) as database:
            kept = {row["call_id"]: row for row in await rows(database, "SELECT * FROM relevo.calls")}
    assert_one_version_each(vapi, kept)


def assert_one_version_each(vapi: Vapi, kept: dict[str, dict[str, Any]]) -> None:
    """Whatever came between."""
    assert len(vapi.confirmed) == len(vapi.answers) > 50
    assert vapi.confirmed <= kept.keys()
    assert {kept[each]["status"] for each in vapi.confirmed} == {"completed"}
    heard = {call: answer for call, answer in vapi.answers.items() if answer != "apology"}
    assert {call: answer for call, answer in heard.items() if answer != kept[call]["served_version"]} == {}
    assert {"v1", "v2"} <= set(heard.values())
    assert not any(kept[call]["crossed"] for call in vapi.confirmed)
