"""Outcomes and metrics of many calls, beside one statement that does the same in one go."""

from __future__ import annotations

import time
from functools import partial

import psycopg

from bench.figures import Figure, in_turn
from bench.place import BUSINESSES, Place
from bench.steps import Stopwatch, measured
from relevo.migration.run import Options

STEP = "Calls and metrics"

_COLUMNS = "ALTER TABLE voice_calls ADD outcome text, ADD agent_version text DEFAULT 'v1'"
_ONE_UPDATE = """
    UPDATE voice_calls SET outcome = CASE WHEN status = 'completed' THEN 'unknown' ELSE status END
    WHERE outcome IS NULL
"""
_PLAIN = "CREATE TABLE plain_metrics (LIKE voice_assistant_metrics INCLUDING ALL)"
_ONE_GROUP_BY = """
    INSERT INTO plain_metrics (business_id, period_start, period_end, total_calls, successful_calls, failed_calls,
                               avg_duration_seconds, avg_latency_ms, p50_latency_ms, p95_latency_ms,
                               reservations_created, appointments_created, orders_created, human_transfers)
    SELECT business_id, now() - interval '30 days', now(), count(*), count(*) FILTER (WHERE status = 'completed'),
           count(*) FILTER (WHERE status = 'failed'), avg(duration_seconds), avg(avg_latency_ms),
           percentile_disc(0.5) WITHIN GROUP (ORDER BY avg_latency_ms),
           percentile_disc(0.95) WITHIN GROUP (ORDER BY avg_latency_ms),
           count(*) FILTER (WHERE outcome = 'reservation_created'),
           count(*) FILTER (WHERE outcome = 'appointment_created'),
           count(*) FILTER (WHERE outcome = 'order_created'),
           count(*) FILTER (WHERE outcome = 'transferred_to_human')
    FROM voice_calls WHERE started_at >= now() - interval '30 days' GROUP BY business_id
"""


async def compare(place: Place, calls: int, rounds: int) -> list[Figure]:
    """Seconds that the two halves of the step take, and the two statements."""
    halves: dict[str, float] = {}

    async def ours(v1: str) -> float:
        with place.clone(v1) as database:
            watch = await measured(place.url(database), Options(skip_backup=True), until=STEP)
        _keep_least(halves, "outcomes", _outcomes_s(watch))
        _keep_least(halves, "metrics", watch.took_s[STEP] - _outcomes_s(watch))
        return watch.took_s[STEP]

    async def theirs(v1: str) -> float:
        with place.clone(v1) as database, psycopg.connect(place.local(database), autocommit=True) as connection:
            connection.execute(_COLUMNS)
            connection.execute(_PLAIN)
            took_s = 0.0
            for name, query in (("one update", _ONE_UPDATE), ("one group by", _ONE_GROUP_BY)):
                began_s = time.perf_counter()
                connection.execute(query.encode())
                took_s += _keep_least(halves, name, time.perf_counter() - began_s)
        return took_s

    async with place.v1(BUSINESSES, calls) as v1:
        await in_turn(rounds, {"ours": partial(ours, v1), "theirs": partial(theirs, v1)})
    return [
        Figure(f"outcomes of {calls:,} calls", halves["outcomes"], "one UPDATE", halves["one update"], "s", most=2),
        Figure(
            f"metrics of {BUSINESSES:,} businesses, {calls:,} calls",
            halves["metrics"],
            "one GROUP BY",
            halves["one group by"],
            "s",
            most=2,
        ),
    ]


def _outcomes_s(watch: Stopwatch) -> float:
    """The step up to its last report. What follows, the count of calls still without outcome included, is metrics."""
    return watch.progressed_s[STEP]


def _keep_least(least: dict[str, float], name: str, seconds: float) -> float:
    least[name] = min(least.get(name, seconds), seconds)
    return seconds
