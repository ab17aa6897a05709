"""The webhook, every call id new: assistant-request with a durable pin beside a bare Starlette route that parses the
same message and answers the same JSON; and recorded end-of-call-reports beside pgbench with the same statement."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.figures import Figure
from bench.place import Place
from relevo.clock import system_clock
from relevo.db.pool import Database
from relevo.migration import source
from relevo.migration.mapping import DEFAULT
from tests.calling import SECRET, WEBHOOK, Line, asked, report
from tests.servers import free_port
from tests.serving import serving

CONNECTIONS = 64
REQUESTS = 20_000
PACES = (100, 400)  # calls that begin in a second, at which a caller's wait is measured; full load measures the queue
LOAD = 0.4  # and this share of what a worker can take
ADDED_MS = 5.0  # that a caller may wait longer for us than for the bare route, 99 times in a hundred
PACED_S = 5.0
TRIES = 2  # times as many paced runs as are looked at: those in which others left us the machine
CONFIGURATIONS = 1_000
_ANSWER = "RELEVO_BENCH_ANSWER"  # a file that holds what the bare route answers
_ID = "call-" + "0" * 15
_runs = itertools.count()


@dataclass(frozen=True, slots=True, order=True)
class Paced:
    """What callers waited who came at a pace."""

    stolen: float  # the share of the machine's time that its host gave to others meanwhile, 0..1
    p99_ms: float
    median_ms: float


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement of one server."""

    per_second: float
    p99_ms: float
    cpu_us: float  # of the server's process, per request


def _bare_app() -> Starlette:
    answer = Path(os.environ[_ANSWER]).read_bytes()

    async def answering(request: Request) -> Response:
        from_json(await request.body())
        return Response(answer, media_type="application/json")

    return Starlette(routes=[Route(WEBHOOK, answering, methods=["POST"])])


async def compare(place: Place, rounds: int) -> list[Figure]:
    """Requests a second of one process each, asked by the same client in turn; what their 99th percentiles are."""
    async with place.v1(CONFIGURATIONS) as v1:
        with place.clone(v1) as name:
            url = place.url(name)
            async with Database(url) as database, database.transaction() as connection:
                await source.install(connection, DEFAULT, system_clock())
            with psycopg.connect(url, autocommit=True) as connection:
                rows = connection.execute("SELECT business_id, id, phone_number_id FROM voice_agent_config").fetchall()
                found = [Line(str(tenant), str(config), number, "", "", "") for tenant, config, number in rows]
            with serving(url, env={"RELEVO_VAPI_SECRET": SECRET}) as served:
                answer = served.ask("POST", WEBHOOK, asked(found[0], "first"), headers={"x-vapi-secret": SECRET})
                assert "assistant" in answer.json, answer.body
                asking, reporting = ([_template(said(line, _ID)) for line in found] for said in (asked, report))
                with _bare(answer.body) as bare:
                    worker = (served.port, served.process.pid)
                    runs = [
                        [await _asked(*bare, asking), await _asked(*worker, asking), await _asked(*worker, reporting)]
                        for _ in range(rounds)
                    ]
                    paces = [*PACES, LOAD * max(run.per_second for _, run, _ in runs)]
                    paced = {pace: await _paced((bare[0], served.port), asking, pace, rounds) for pace in paces}
                    with (
                        _bare(answer.body) as another_bare,
                        serving(url, env={"RELEVO_VAPI_SECRET": SECRET}) as another,
                    ):
                        pairs = [[bare, another_bare], [worker, (another.port, another.process.pid)]]
                        two_us = [
                            min([await _beside_each_other(pair, asking) for _ in range(rounds)]) for pair in pairs
                        ]
            pgbench = max(_pgbench(place, name, found) for _ in range(rounds))
    return [*_figures(runs, two_us, pgbench), *(each for pace in paces for each in _paced_figures(paced[pace], pace))]


def _paced_figures(paced: list[Paced], pace: float) -> list[Figure]:
    bare, ours = paced
    what = f"at {pace:,.0f} req/s, each on time"
    route = f"a bare Starlette route (its host took {bare.stolen:.1%})"
    return [
        Figure(f"{what} (the host took {ours.stolen:.1%}): median", ours.median_ms, route, bare.median_ms, "ms"),
        Figure(f"{what}: 99th percentile", ours.p99_ms, route, bare.p99_ms, "ms"),
        Figure(f"{what}: 99th percentile added", ours.p99_ms - bare.p99_ms, "asked", ADDED_MS, "ms", most=1),
    ]


def _figures(runs: list[list[Run]], two_us: list[float], pgbench: float) -> list[Figure]:
    floor, best, told = (max(each, key=lambda run: run.per_second) for each in zip(*runs, strict=True))
    what = f"assistant-request, durable pin, {CONNECTIONS} connections"
    route = "a bare Starlette route"
    return [
        Figure(what, best.per_second, route, floor.per_second, "req/s", least=0.4),
        Figure(f"{what}: 99th percentile", best.p99_ms, route, floor.p99_ms, "ms"),
        Figure(f"{what}: processor time", best.cpu_us, route, floor.cpu_us, "µs/req"),
        Figure("processor time, two workers at once", two_us[1], "one worker", best.cpu_us, "µs/req", most=1.2),
        Figure("the same of two bare routes", two_us[0], "one bare route", floor.cpu_us, "µs/req"),
        Figure(
            "end-of-call-report recorded",
            told.per_second,
            "pgbench, one report a transaction",
            pgbench,
            "/s",
            least=0.6,
        ),
    ]


async def _paced(ports: tuple[int, int], asking: list[bytes], pace: float, rounds: int) -> list[Paced]:
    """Of each server the best of those runs, in turn, from which the machine's host took least. What it takes, nobody
    here can help, and whoever uses more of the machine loses more: so a run is chosen by that before its result."""
    seen: dict[int, list[Paced]] = {port: [] for port in ports}
    for _ in range(TRIES * rounds):
        for port in ports:
            seen[port].append(await _at_pace(port, asking, pace))
    return [min(sorted(each)[:rounds], key=lambda run: run.p99_ms) for each in seen.values()]


async def _beside_each_other(workers: list[tuple[int, int]], asking: list[bytes]) -> float:
    """Processor time of a request, in µs, of workers that are asked at once, each as much as one alone."""
    runs = await asyncio.gather(*(_asked(*each, asking) for each in workers))
    return sum(run.cpu_us for run in runs) / len(runs)


def _template(said: object) -> bytes:
    """A request with a call id of fixed length, which is new each time."""
    body = json.dumps(said).encode()
    head = (
        f"POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nX-Vapi-Secret: {SECRET}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def _bare(answer: bytes) -> Iterator[tuple[int, int]]:
    port = free_port()
    options = ["--factory", "--port", str(port), "--http", "httptools", "--loop", "asyncio", "--no-access-log"]
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(answer)
        command = [sys.executable, "-m", "uvicorn", "bench.router:_bare_app", *options, "--log-level", "error"]
        process = subprocess.Popen(command, env={**os.environ, _ANSWER: file.name})
        try:
            yield port, process.pid
        finally:
            process.terminate()
            process.wait()


async def _asked(port: int, pid: int, templates: list[bytes]) -> Run:
    """Each connection asks again as soon as it was answered."""
    loop = asyncio.get_running_loop()
    load = _Load(templates, loop.create_future(), next(_runs))
    while True:  # a server that has just been started may not listen yet
        try:
            connections = [await loop.create_connection(lambda: _Client(load), "127.0.0.1", port)]
            break
        except OSError:
            await asyncio.sleep(0.05)
    for _ in range(CONNECTIONS - 1):
        connections.append(await loop.create_connection(lambda: _Client(load), "127.0.0.1", port))
    used_s, began = _cpu_s(pid), time.perf_counter()
    for _transport, client in connections:
        client.ask()
    await load.done
    seconds, used_s = time.perf_counter() - began, _cpu_s(pid) - used_s
    for transport, _client in connections:
        transport.close()
    return Run(REQUESTS / seconds, statistics.quantiles(load.took_s, n=100)[98] * 1000, used_s / REQUESTS * 1e6)


async def _at_pace(port: int, templates: list[bytes], per_second: float) -> Paced:
    """How long callers wait who come at this pace, whether those before them were answered or not."""
    loop = asyncio.get_running_loop()
    load = _Load(templates, loop.create_future(), next(_runs), paced=True)
    connections = [await loop.create_connection(lambda: _Client(load), "127.0.0.1", port) for _ in range(CONNECTIONS)]
    load.idle += [client for _, client in connections]
    many = round(per_second * PACED_S)
    load.most, began, before = many, time.perf_counter(), _machine()
    for number in range(many):
        due = began + number / per_second
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        load.come(due)
    await load.done
    for transport, _client in connections:
        transport.close()
    stolen, whole = (now - then for now, then in zip(_machine(), before, strict=True))
    hundredths = statistics.quantiles(load.took_s, n=100)
    return Paced(stolen / whole, hundredths[98] * 1000, hundredths[49] * 1000)


def _machine() -> tuple[int, int]:
    """What the machine's host has given to others, and all of its processors' time, in ticks."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[7], sum(ticks)


def _cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pgbench(place: Place, name: str, found: list[Line]) -> float:
    """Reports a second that PostgreSQL takes with nobody between, by as many connections as a worker has for it."""
    said = {
        "tenant_id": found[0].tenant_id, "version": "v1", "served_version": "v1", "decided_by": "unasked",
        "decided_at": "2026-11-22T18:00:02Z", "asked": False, "at": "2026-11-22T18:01:07Z", "source": "report",
        "ended_reason": "customer-ended-call", "started_at": "2026-11-22T18:00:02Z", "ended_at": "2026-11-22T18:01:02Z",
        "duration_ms": 60000, "latency_ms": 900.5, "direction": "inbound",
    }  # fmt: skip
    literal = json.dumps([{"call_id": "pgbench-:run-:client_id-:number", **said}]).replace("'", "''")
    script = (
        "\\set number random(1, 1000000000000)\n"
        f"SELECT * FROM relevo.record_messages(replace('{literal.replace(':run', str(next(_runs)))}', "
        "'X', 'X')::jsonb);\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        Path(file.name).write_text(script)
        command = [str(place.server.programs / "pgbench"), "-n", "-c", "2", "-T", "5", "-f", file.name, place.url(name)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(next(line.split()[2] for line in told.splitlines() if line.startswith("tps")))


@dataclass(slots=True)
class _Load:
    templates: list[bytes]
    done: asyncio.Future[None]
    run: int
    asked: int = field(default=0)
    answered: int = field(default=0)
    took_s: list[float] = field(default_factory=list)
    most: int = REQUESTS
    paced: bool = False  # they come when they come; else each connection asks again as soon as it was answered
    idle: deque[_Client] = field(default_factory=deque)
    waiting: deque[float] = field(default_factory=deque)  # since when, where no connection is free

    def come(self, since: float) -> None:
        """One more, who has been there since then."""
        if self.idle:
            self.idle.popleft().ask(since)  # the one unused for longest: a server hangs up on whoever is silent
        else:
            self.waiting.append(since)

    def freed(self, client: _Client) -> None:
        """A connection has been answered."""
        if self.paced and not self.waiting:
            self.idle.append(client)
        elif self.paced:
            client.ask(self.waiting.popleft())
        elif self.asked < self.most:
            client.ask()
        if self.answered == self.most and not self.done.done():
            self.done.set_result(None)

    def next(self) -> bytes:
        self.asked += 1
        number = f"call-{self.run:05}{self.asked:010}".encode()
        return self.templates[self.asked % len(self.templates)].replace(_ID.encode(), number)


class _Client(asyncio.Protocol):
    """One connection. Answers are counted, not parsed: the client must not be what is measured."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._asked_at = 0.0
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, since: float | None = None) -> None:
        assert self._transport is not None
        self._missing, self._asked_at = 0, since or time.perf_counter()
        self._transport.write(self._load.next())

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._load.done.done():
            self._load.done.set_exception(RuntimeError("the server hung up in the middle of a run"))

    def data_received(self, data: bytes) -> None:
        if self._missing == 0:
            head, _, body = data.partition(b"\r\n\r\n")
            if not data.startswith(b"HTTP/1.1 200"):
                self._load.done.set_exception(RuntimeError(data[:500].decode()))
                return
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self._missing = length - len(body)
        else:
            self._missing -= len(data)
        if self._missing > 0:
            return
        self._load.took_s.append(time.perf_counter() - self._asked_at)
        self._load.answered += 1
        self._load.freed(self)
