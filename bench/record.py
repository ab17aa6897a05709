"""The record of calls beside a plain upsert, folding beside one GROUP BY, and how long a day's figures take to read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import psycopg

from bench.figures import Figure, in_turn
from bench.place import Place
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.metrics import folding, reading
from relevo.metrics.window import Window

NOW = datetime(2026, 11, 22, 12, 29, tzinfo=UTC)
TOGETHER = 32
_TENANTS = [str(UUID(int=number)) for number in range(90)]

_PLAIN = """
    CREATE TABLE plain_calls (call_id text PRIMARY KEY, tenant_id text, version text, decided_at timestamptz,
                              status text, ended_reason text, duration_ms bigint, latency_ms float8, outcome text);
    CREATE INDEX ON plain_calls (decided_at);
"""
_UPSERT = """
    INSERT INTO plain_calls SELECT * FROM jsonb_to_recordset(%s::jsonb)
        AS m (call_id text, tenant_id text, version text, decided_at timestamptz, status text, ended_reason text,
              duration_ms bigint, latency_ms float8, outcome text)
    ON CONFLICT (call_id) DO UPDATE
    SET status = excluded.status, ended_reason = excluded.ended_reason, duration_ms = excluded.duration_ms,
        latency_ms = excluded.latency_ms, outcome = excluded.outcome
"""
_PIN = "SELECT * FROM relevo.pin_calls(%s::jsonb)"
_RECORD = "SELECT * FROM relevo.record_messages(%s::jsonb)"
# A day of calls of two versions as it is once folded, with as many different latencies as real ones have.
FOLDED_DAY = """
    WITH minute AS (
        SELECT %(now)s::timestamptz - m * interval '1 minute' AS at, v, %(middle)s + o AS b,
               greatest(1, round(%(calls)s / 1440.0 / 2 * exp(-((o / 28.0) ^ 2)) / 49.6))::bigint AS calls
        FROM generate_series(0, 1500) AS m, unnest(ARRAY['v1', 'v2']) AS v, generate_series(-60, 75) AS o
    ), whole AS (
        SELECT g.grain, date_bin(g.width, at, 'epoch') AS at, v, b, sum(calls) AS calls
        FROM minute JOIN relevo.grains g ON g.grain <> 'tenant' GROUP BY 1, 2, 3, 4
    ), spread AS (
        SELECT grain, at, v, '' AS tenant, b, calls FROM whole
        UNION ALL SELECT 'tenant', at, v, t, b, greatest(1, calls / 90)
        FROM whole, unnest(%(tenants)s::text[]) AS t WHERE grain = 'hour'
    ), counted AS (
        INSERT INTO relevo.call_stats (grain, source, starts_at, version, tenant_id, calls, finished, failed, errors,
                                       unanswered, fallbacks, crossed, measured, latency_us)
        SELECT grain, 'calls', at, v, tenant, sum(calls), sum(calls), 0, 0, 0, 0, 0, sum(calls), 0 FROM spread
        GROUP BY 1, 2, 3, 4, 5
    )
    INSERT INTO relevo.call_latencies (grain, source, starts_at, version, tenant_id, bucket, calls)
    SELECT grain, 'calls', at, v, tenant, b, calls FROM spread
"""
_UNKEYED = "DROP INDEX relevo.calls_of_tenant, relevo.calls_of_version, relevo.call_stats_of_tenant"
_GROUP_BY = """
    CREATE TABLE plain_sums AS
    SELECT minute, version, tenant_id, bucket, sum(calls) AS calls, sum(finished) AS finished, sum(measured) AS measured
    FROM relevo.call_deltas GROUP BY 1, 2, 3, 4
"""


async def compare(place: Place, calls: int, rounds: int) -> list[Figure]:
    """Seconds that ``calls`` messages take, each way; and milliseconds of a read."""
    with place.clone("template0") as template:
        async with Database(place.url(template)) as database:
            await migrations.up(database)
        with psycopg.connect(place.local(template), autocommit=True) as connection:
            connection.execute(_PLAIN.encode())
        recorded = [await _recorded(place, template, calls, rounds, size) for size in (1, TOGETHER)]
        priced = await _keyed(place, template, calls, rounds)
        return [each for pair in recorded for each in pair] + [
            *priced,
            await _folded(place, template, calls, rounds),
            *[await _read(place, template, many, rounds) for many in (1_000_000, 10_000_000)],
        ]


async def _recorded(place: Place, template: str, calls: int, rounds: int, size: int) -> list[Figure]:
    parts = {"pinned": (_PIN, _pin), "reported": (_RECORD, _report), "upserted": (_UPSERT, _plain)}

    async def took(*names: str) -> float:
        with place.clone(template) as name, psycopg.connect(place.local(name), autocommit=True) as connection:
            for before in names[:-1]:
                _send(connection, *parts[before], calls, TOGETHER)
            place.settle(name)
            return _send(connection, *parts[names[-1]], calls, size)

    ways = {"pinned": ("pinned",), "reported": ("pinned", "reported"), "upserted": ("upserted", "upserted"),
            "inserted": ("upserted",)}  # fmt: skip
    least = await in_turn(rounds, {name: partial(took, *way) for name, way in ways.items()})
    how = f"{size} a transaction"
    return [
        Figure(f"calls pinned, {how}", calls / least["pinned"], "plain insert", calls / least["inserted"], "/s"),
        Figure(f"reports recorded, {how}", calls / least["reported"], "plain upsert", calls / least["upserted"], "/s"),
    ]


async def _keyed(place: Place, template: str, calls: int, rounds: int) -> list[Figure]:
    """What the keys cost by which pages find calls and the hours of a tenant."""

    async def took(what: str, keyed: bool) -> float:
        with place.clone(template) as name, psycopg.connect(place.local(name), autocommit=True) as connection:
            if not keyed:
                connection.execute(_UNKEYED)
            pinned_s = _send(connection, _PIN, _pin, calls, TOGETHER)
            if what == "recorded":
                return pinned_s + _send(connection, _RECORD, _report, calls, TOGETHER)
            _send(connection, _RECORD, _report, calls, TOGETHER)
            async with Database(place.url(name)) as database:
                place.settle(name)
                began_s = time.perf_counter()
                await folding.fold(database)
                return time.perf_counter() - began_s

    ways = {(what, keyed): partial(took, what, keyed) for what in ("recorded", "folded") for keyed in (True, False)}
    least = await in_turn(rounds, ways)
    return [
        Figure(
            f"{what} with the dashboard's keys", calls / least[what, True], "without", calls / least[what, False], "/s"
        )
        for what in ("recorded", "folded")
    ]


async def _folded(place: Place, template: str, calls: int, rounds: int) -> Figure:
    async def took(fold: bool) -> float:
        with place.clone(template) as name, psycopg.connect(place.local(name), autocommit=True) as connection:
            for query, make in ((_PIN, _pin), (_RECORD, _report)):
                _send(connection, query, make, calls, TOGETHER)
            async with Database(place.url(name)) as database:
                place.settle(name)
                began_s = time.perf_counter()
                if fold:
                    await folding.fold(database)
                else:
                    connection.execute(_GROUP_BY.encode())
                return time.perf_counter() - began_s

    least = await in_turn(rounds, {fold: partial(took, fold) for fold in (True, False)})
    return Figure("differences folded", 2 * calls / least[True], "one GROUP BY", 2 * calls / least[False], "/s")


async def _read(place: Place, template: str, calls: int, rounds: int) -> Figure:
    """The least of some reads of the last 24 hours, of which half an hour is in minutes."""
    with place.clone(template) as name:
        with psycopg.connect(place.local(name), autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
            connection.execute(FOLDED_DAY, {"now": NOW, "calls": calls, "tenants": _TENANTS, "middle": 345})
            connection.execute("VACUUM (ANALYZE)")
        async with Database(place.url(name)) as database:
            took_ms = []
            for _each in range(10 * rounds):
                async with database.transaction(read_only=True) as connected:
                    began_s = time.perf_counter()
                    await reading.health(connected, Window.last(timedelta(hours=24), NOW))
                    took_ms.append((time.perf_counter() - began_s) * 1000)
    return Figure(f"24 hours of {calls:,} calls, read", min(took_ms), "the limit", 10, "ms", most=1)


def _send(
    connection: psycopg.Connection, query: str, make: Callable[[int], dict[str, object]], calls: int, size: int
) -> float:
    """Seconds for as many messages, ``size`` of them at a time, each time one round trip and one commit."""
    bodies = [json.dumps([make(n) for n in range(at, min(at + size, calls))]) for at in range(0, calls, size)]
    began_s = time.perf_counter()
    for body in bodies:
        connection.execute(query.encode(), (body,), prepare=False)
    return time.perf_counter() - began_s


def _pin(number: int) -> dict[str, object]:
    return {
        "call_id": f"{number * 7919 % 1_000_003:08x}-call",
        "tenant_id": _TENANTS[number % 90],
        "version": "v2" if number % 3 else "v1",
        "decided_at": (NOW - timedelta(milliseconds=20 * number)).isoformat(),
        "decided_by": "flag",
        "asked": True,
    }


def _report(number: int) -> dict[str, object]:
    end = {"source": "report", "ended_reason": "customer-ended-call", "duration_ms": 61_000}
    return _pin(number) | end | {"at": NOW.isoformat(), "latency_ms": 400.0 + number * 7919 % 1_500}


def _plain(number: int) -> dict[str, object]:
    pinned = {key: value for key, value in _pin(number).items() if key not in ("decided_by", "asked")}
    end = {"status": "completed", "ended_reason": "customer-ended-call", "duration_ms": 61_000, "outcome": "unknown"}
    return pinned | end | {"latency_ms": 400.0 + number * 7919 % 1_500}
