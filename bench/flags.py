"""The flag: an answer beside other libraries' by the same rule; how soon eight processes answer by a change; what a
change of a long list takes."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from statistics import median
from uuid import UUID, uuid5

import psycopg

from bench.figures import Figure, in_turn
from bench.peers import Ask, Rule, peers
from bench.place import Place
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.flags.evaluate import Flag, evaluate
from tests.poolers import PGBOUNCER, pooling

TENANTS, ENABLED, DISABLED, PERCENTAGE = 1_000, 45, 5, 37
LISTED = 20_000
PROCESSES = 8
LISTENED, POLLED = 200, 25  # changes to follow
CHANGES = 20  # of the long list
FAMILY = UUID("9c5b94b1-35ad-49bb-b118-8e8fc24abf80")

SEEN, FIRST, LONG = "seen", "first", "long list"


async def compare(place: Place, rounds: int) -> list[Figure]:
    """All figures of the flag."""
    figures = await _answers(rounds)
    with _database(place) as name:
        async with Database(place.url(name)) as database:
            await migrations.up(database)
        figures += await _propagation(place, name)
        figures.append(await _long_list(place.url(name)))
    return figures


async def _answers(rounds: int) -> list[Figure]:
    tenants = _tenants(TENANTS)
    rule = Rule(PERCENTAGE, tenants[:ENABLED], tenants[ENABLED : ENABLED + DISABLED])
    flag = _flag(rule, version=1)
    long = _flag(Rule(PERCENTAGE, _tenants(LISTED), rule.disabled), version=1)
    with peers(rule, tenants) as others:
        contestants = {SEEN: _repeated(flag, tenants), LONG: _repeated(long, tenants), FIRST: _anew(rule, tenants)}
        asked = {name: _timed(ask, len(tenants)) for name, ask in (contestants | others).items()}
        best = await in_turn(rounds * 3, asked)
    figures = [
        Figure("an answer for a tenant seen before", best[SEEN], "asked", 0.5, "µs", most=1),
        Figure("an answer for a tenant never seen", best[FIRST], "asked", 6, "µs", most=1),
        Figure("an answer by a list of 20,000", best[LONG], "by a list of 45", best[SEEN], "µs", most=1.5),
    ]
    return figures + [
        Figure("answers a second, seen before", 1e6 / best[SEEN], name, 1e6 / best[name], "/s", least=30)
        for name in sorted(others, key=lambda name: best[name])
    ]


def _tenants(number: int) -> list[str]:
    return [str(uuid5(FAMILY, str(each))) for each in range(number)]


def _flag(rule: Rule, version: int) -> Flag:
    return Flag("voice_agent_v2", True, rule.percentage, frozenset(rule.enabled), frozenset(rule.disabled), version)


def _repeated(flag: Flag, tenants: Sequence[str]) -> Ask:
    """As an application asks; the first time is not measured."""

    def ask() -> int:
        return sum(evaluate(flag, tenant).value for tenant in tenants)

    ask()
    return ask


def _anew(rule: Rule, tenants: Sequence[str]) -> Ask:
    """The same by a version of the flag that has not answered anybody yet."""
    versions = count(1)

    def ask() -> int:
        flag = _flag(rule, next(versions))
        return sum(evaluate(flag, tenant).value for tenant in tenants)

    return ask


def _timed(ask: Ask, number: int) -> Callable[[], Awaitable[float]]:
    """Microseconds an answer."""

    async def measure() -> float:
        began_s = time.perf_counter()
        found = ask()
        took_s = time.perf_counter() - began_s
        if not 0.3 < found / number < 1.01:
            raise AssertionError(f"{found} of {number} on v2 is not the rule that was asked for")
        return took_s / number * 1e6

    return measure


@contextmanager
def _database(place: Place) -> Iterator[str]:
    with psycopg.connect(place.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE flags")
        yield "flags"
        connection.execute("DROP DATABASE flags WITH (FORCE)")


async def _propagation(place: Place, name: str) -> list[Figure]:
    url = place.url(name)
    told_ms = await _spread(url, url, LISTENED)
    figures = [
        Figure(f"a change until {PROCESSES} processes answer by it, p99, LISTEN", told_ms, "asked", 1_000, "ms", most=1)
    ]
    if PGBOUNCER.exists():
        with pooling(place.server, "postgres") as port:
            polled_ms = await _spread(url, f"postgresql://postgres@127.0.0.1:{port}/{name}", POLLED)
        figures.append(Figure("the same by polling, behind PgBouncer", polled_ms, "LISTEN", told_ms, "ms"))
    return figures


async def _spread(writer: str, reader: str, changes: int) -> float:
    """Milliseconds from the call that changes the flag until a process answers by it: the 99th percentile over all
    changes and processes."""
    took_ms: list[float] = []
    async with await psycopg.AsyncConnection.connect(writer, autocommit=True) as connection, _readers(reader) as lines:
        for each in range(changes):
            began_ns = time.monotonic_ns()
            row = await (
                await connection.execute(
                    "UPDATE feature_flags SET percentage = (percentage + 1) % 100 RETURNING version"
                )
            ).fetchone()
            assert row is not None
            applied = await asyncio.gather(*(_applied(line, row[0]) for line in lines))
            took_ms += [(at_ns - began_ns) / 1e6 for at_ns in applied]
            await asyncio.sleep(0.003 * (each % 17))  # not in step with anybody's poll
    return sorted(took_ms)[-(-len(took_ms) * 99 // 100) - 1]


@asynccontextmanager
async def _readers(url: str) -> AsyncIterator[list[asyncio.StreamReader]]:
    command = [sys.executable, "-m", "bench.flag_reader", url]
    started = [await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE) for _ in range(PROCESSES)]
    try:
        lines = [process.stdout for process in started if process.stdout is not None]
        await asyncio.gather(*(_applied(line, 1) for line in lines))
        yield lines
    finally:
        for process in started:
            process.kill()
            await process.wait()


async def _applied(lines: asyncio.StreamReader, version: int) -> int:
    """When a process answered by this version, or a newer one."""
    while words := (await lines.readline()).split():
        if int(words[0]) >= version:
            return int(words[1])
    raise AssertionError("a reader ended")


async def _long_list(url: str) -> Figure:
    """Changes to a row with 20,000 listed tenants: one more, one less, a percentage."""
    tenants = _tenants(LISTED)
    took_ms: list[float] = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("UPDATE feature_flags SET enabled_tenants = %s", (tenants,))
        for each in range(CHANGES):
            for change, tenant in (
                ("disabled_tenants = disabled_tenants || %s::text", tenants[each * 900]),
                ("enabled_tenants = enabled_tenants || %s::text", f"new-{each}"),
                ("percentage = length(%s::text)", "x" * (each % 50)),
            ):
                began_s = time.perf_counter()
                await connection.execute(f"UPDATE feature_flags SET {change}".encode(), (tenant,))
                took_ms.append((time.perf_counter() - began_s) * 1e3)
    return Figure("a change of a row with 20,000 tenants, median", median(took_ms), "asked", 50, "ms", most=1)
