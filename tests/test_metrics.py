"""The figures of both versions: exact counts, percentiles within 1 %, the same as a recount at every moment."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.db.pool import Database
from relevo.errors import LeaseHeld, UnknownName
from relevo.metrics import breakers, checking, complaints, folding, history, reading
from relevo.metrics.breakers import Breaker
from relevo.metrics.health import Health
from relevo.metrics.latency import ACCURACY, Histogram, bucket_of, middle_of
from relevo.metrics.window import HOUR, MINUTE, MINUTES_KEPT, Window
from relevo.migration.mapping import DEFAULT
from tests.commands import relevo, succeeds
from tests.conftest import NOW, change, rows, value
from tests.recorded import ASKED_AT, TENANT, asked, pin, reported, say

OTHER = "5f0a3d52-47b1-4c0a-9f55-0a3a4f3b1c11"
LATENCIES = st.floats(0.001, 999_999_999)


async def health(database: Database, window: Window | None = None) -> dict[str, Health]:
    """The figures of a window, by default of everything."""
    async with database.transaction(read_only=True) as connection:
        return await reading.health(connection, window or Window(ASKED_AT - timedelta(days=40), None))


async def recount(database: Database) -> checking.Checked:
    async with database.transaction(read_only=True) as connection:
        return await checking.check(connection, Window.last(timedelta(hours=20), NOW), NOW)


# Histograms.


@given(st.lists(LATENCIES, min_size=1), st.sampled_from([0.0, 0.05, 0.5, 0.95, 0.99, 1.0]))
def test_every_percentile_is_within_one_percent_of_the_exact_one(latencies: list[float], share: float) -> None:
    rank = max(1, -(-int(share * 100) * len(latencies) // 100))
    exact = sorted(latencies)[rank - 1]
    assert Histogram.of(latencies).percentile(share) == pytest.approx(exact, rel=ACCURACY + 1e-9)


@given(st.lists(LATENCIES), st.lists(LATENCIES))
def test_two_histograms_added_are_that_of_both(some: list[float], others: list[float]) -> None:
    assert Histogram.of(some) + Histogram.of(others) == Histogram.of(some + others)


@pytest.mark.parametrize("latency_ms", [0.0, -0.0, -1.0, -5e9])
def test_zero_or_less_is_no_measurement(latency_ms: float) -> None:
    assert bucket_of(latency_ms) is None
    assert Histogram.of([latency_ms]).percentile(0.5) is None


def test_slower_than_a_limit_is_told_by_buckets() -> None:
    histogram = Histogram.of([100.0] * 90 + [2_000.0] * 10)
    assert [histogram.slower_than(limit) for limit in (50, 1_000, 3_000)] == [100, 10, 0]


async def test_the_database_puts_a_latency_into_the_same_bucket(ready: Database) -> None:
    values = [10 ** (power / 7) for power in range(-20, 62)] + [412.0, 812.5, 2950.5]
    found = await rows(ready, "SELECT relevo.latency_bucket(v) AS bucket FROM unnest(%s::float8[]) AS v", (values,))
    assert [row["bucket"] for row in found] == [bucket_of(each) for each in values]
    nothing = await rows(ready, "SELECT relevo.latency_bucket(v) AS b FROM unnest('{0,-1,NULL}'::float8[]) AS v")
    assert [row["b"] for row in nothing] == [None, None, None]
    assert all(abs(middle_of(k + 1) / middle_of(k) - 1.01 / 0.99) < 1e-9 for k in range(-50, 900))


# Windows.

WIDTHS = {"minute": MINUTE, "ten": 10 * MINUTE, "hour": HOUR, "day": timedelta(days=1)}
MOMENTS = st.integers(0, 60 * 24 * 4).map(lambda minutes: NOW - timedelta(minutes=minutes))


@given(MOMENTS, MOMENTS, st.booleans())
def test_the_spans_of_a_window_cover_each_of_its_minutes_once(one: datetime, other: datetime, open_end: bool) -> None:
    since, until = sorted((one, other))
    window = Window.last(NOW - since, NOW) if open_end else Window.between(since, until, NOW)
    assert window.since <= since
    end = window.until or NOW + timedelta(days=2)
    covered: dict[datetime, int] = {}
    for span in window.spans:
        width = WIDTHS[span.grain]
        assert (span.since - datetime.min.replace(tzinfo=UTC)) % width == timedelta(0)
        assert span.until is None or (span.until - span.since) % width == timedelta(0)
        assert width >= HOUR or span.since >= NOW - MINUTES_KEPT
        minute = span.since
        while minute < (span.until or end):
            covered[minute] = covered.get(minute, 0) + 1
            minute += MINUTE
    assert set(covered.values()) <= {1}
    assert len(covered) == (end - window.since) // MINUTE


# Counting.


async def test_errors_are_by_calls_decided_and_failures_by_calls_finished(ready: Database) -> None:
    await say(ready, *(asked(f"open {number}") for number in range(2)))
    await say(ready, *(reported(f"good {number}") for number in range(5)))
    await say(ready, reported("died", "pipeline-error-x"), reported("refused", "assistant-not-valid"))
    await pin(ready, asked("fell", served_version="v1", fallback="timeout"), asked("mute", unanswered=True))
    v2 = (await health(ready))["v2"]
    assert (v2.total_calls, v2.finished_calls, v2.failed_calls, v2.errors) == (11, 7, 2, 3)
    assert (v2.fallbacks, v2.unanswered, v2.measured_calls) == (1, 1, 7)
    assert (v2.error_rate, v2.failed_call_rate, v2.avg_latency_ms) == (3 / 11, 2 / 7, 812.5)
    assert v2.p95_latency_ms == pytest.approx(812.5, rel=ACCURACY)


async def test_no_data_is_no_figure(ready: Database) -> None:
    for each in (await health(ready)).values():
        assert (each.total_calls, each.error_rate, each.failed_call_rate, each.p95_latency_ms) == (0, None, None, None)


async def test_synthetic_calls_and_those_of_no_known_tenant_count_nowhere(ready: Database) -> None:
    await say(ready, reported("a", synthetic=True), reported("b", tenant_id=None, asked=False), reported("c"))
    assert (await health(ready))["v2"].total_calls == 1
    await say(ready, asked("c", synthetic=True), asked("b", asked=False))
    await folding.fold(ready)
    v2 = (await health(ready))["v2"]
    assert (v2.total_calls, v2.finished_calls, v2.latencies.total) == (1, 1, 1)
    assert (await recount(ready)).equal


async def test_a_corrected_report_corrects_the_figures(ready: Database) -> None:
    await say(ready, reported(latency_ms=3_000.0))
    await folding.fold(ready)
    await say(ready, reported(at=ASKED_AT + timedelta(minutes=9), latency_ms=400.0, reason="pipeline-error-x"))
    for _folded_or_not in range(2):
        v2 = (await health(ready))["v2"]
        assert (v2.failed_calls, v2.avg_latency_ms, v2.latencies) == (1, 400.0, Histogram.of([400.0]))
        await folding.fold(ready)
    await change(ready, "DELETE FROM relevo.calls")
    assert (await health(ready))["v2"] == Health("v2")
    assert (await recount(ready)).equal


async def test_a_call_counts_in_the_minute_it_was_decided_in(ready: Database) -> None:
    await say(ready, reported())
    minute = ASKED_AT.replace(second=0)
    for window, calls in (((minute, minute + MINUTE), 1), ((minute - MINUTE, minute), 0), ((minute + MINUTE, NOW), 0)):
        assert (await health(ready, Window.between(*window, NOW)))["v2"].total_calls == calls
    await folding.fold(ready)
    assert (await health(ready, Window.between(minute, minute + MINUTE, NOW)))["v2"].total_calls == 1


async def test_each_tenant_is_told_apart(ready: Database) -> None:
    await say(ready, reported("a"), reported("b", tenant_id=OTHER, latency_ms=99.0), reported("c", version="v1"))
    for _folded_or_not in range(2):
        async with ready.transaction() as connection:
            found = await reading.health_by_tenant(connection, Window.last(timedelta(hours=2), NOW))
            only = await reading.health_by_tenant(connection, Window.last(timedelta(hours=2), NOW), tenant_id=OTHER)
        assert [(each.tenant_id, each.version, each.total_calls) for each in found] == [
            (TENANT, "v1", 1),
            (TENANT, "v2", 1),
            (OTHER, "v2", 1),
        ]
        assert only == [found[2]]
        assert only[0].avg_latency_ms == 99.0
        await folding.fold(ready)


async def test_the_figures_equal_a_recount_and_a_tampered_one_is_named(ready: Database) -> None:
    await say(ready, *(reported(f"a{number}", latency_ms=100.0 + number) for number in range(30)))
    assert (await recount(ready)).equal
    await folding.fold(ready, at_most=7)
    await say(ready, asked("open"), reported("new reason", "a-new-reason"))
    found = await recount(ready)
    assert (found.equal, found.calls, found.unknown_reasons) == (True, 32, [{"reason": "a-new-reason", "calls": 1}])
    await change(ready, "UPDATE relevo.call_stats SET errors = errors + 1 WHERE grain = 'tenant'")
    await change(ready, "UPDATE relevo.call_latencies SET calls = 0 WHERE grain = 'hour'")
    await change(ready, "UPDATE relevo.call_stats SET finished = finished - 1 WHERE grain = 'ten'")
    await change(ready, "UPDATE relevo.call_stats SET measured = measured + 1 WHERE grain = 'day'")
    found = await recount(ready)
    assert {(row["grain"], row["figure"].split()[0]) for row in found.differences} == {
        ("tenant", "errors"),
        ("hour", "latency"),
        ("day", "latency"),  # which is told by its hours
        ("ten", "finished"),
        ("day", "measured"),
    }


async def test_any_window_says_what_a_recount_of_its_calls_says(ready: Database) -> None:
    chance = Random(7)
    edges = [NOW.replace(hour=hour, minute=minute) for hour in (0, 9, 10, 12) for minute in (0, 9, 10, 29)]
    moments = [NOW - timedelta(minutes=chance.randrange(60 * 24 * 9)) for _ in range(150)] + edges
    await say(ready, *(reported(f"c{number}", decided_at=at) for number, at in enumerate(moments)))
    await folding.fold(ready)
    await say(ready, *(asked(f"d{number}", decided_at=at + MINUTE / 2) for number, at in enumerate(moments[:40])))
    windows = [Window.last(at, NOW) for at in (HOUR, timedelta(hours=24), timedelta(days=7))]
    for _ in range(60):
        since, until = sorted(chance.choices(moments, k=2))
        windows.append(chance.choice([Window.last(NOW - since, NOW), Window.between(since, until, NOW)]))
    for window in windows:
        found = (await health(ready, window))["v2"]
        counted = f"""SELECT count(*) FROM relevo.calls WHERE decided_at >= '{window.since.isoformat()}'
                      AND decided_at < '{(window.until or NOW + HOUR).isoformat()}'"""
        measured = counted + " AND latency_ms IS NOT NULL"
        assert (found.total_calls, found.latencies.total, found.measured_calls) == (
            await value(ready, counted),
            await value(ready, measured),
            await value(ready, measured),
        ), window.spans


# Folding.


async def test_many_folders_at_once_fold_each_difference_once(ready: Database) -> None:
    for part in range(4):
        await say(ready, *(reported(f"{part} {number}", latency_ms=300.0 + number) for number in range(50)))

    async def call_more(number: int) -> int:
        await say(ready, reported(f"while folding {number}"))
        return 0

    folders = (folding.fold(ready, at_most=20) for _ in range(4))
    await asyncio.gather(*folders, *(call_more(number) for number in range(6)))
    await folding.fold(ready)
    assert await value(ready, "SELECT count(*) FROM relevo.call_deltas") == 0
    assert (await health(ready))["v2"].total_calls == 206
    assert (await recount(ready)).equal


FOLDER = """
import asyncio, sys
from relevo.db.pool import Database
from relevo.metrics.folding import fold

async def main():
    async with Database(sys.argv[1]) as database:
        print("ready", flush=True)
        while True:
            await fold(database, at_most=3)

asyncio.run(main())
"""


async def test_a_folder_that_is_killed_loses_and_doubles_nothing(ready: Database) -> None:
    for attempt in range(5):
        folder = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FOLDER, ready.url, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent
        )
        assert folder.stdout is not None
        await folder.stdout.readline()
        await say(ready, *(reported(f"{attempt} {number}") for number in range(20)))
        folder.kill()
        await folder.wait()
    assert (await health(ready))["v2"].total_calls == 100
    await folding.fold(ready)
    assert (await health(ready))["v2"].total_calls == 100
    assert (await recount(ready)).equal


async def test_one_process_folds_and_another_takes_over(ready: Database) -> None:
    first = asyncio.create_task(folding.keep_folding(ready, lambda: NOW, every_s=0.01))
    await say(ready, reported())
    while await value(ready, "SELECT count(*) FROM relevo.call_deltas"):
        pass
    second = asyncio.create_task(folding.keep_folding(ready, lambda: NOW, every_s=0.01))
    first.cancel()
    await asyncio.wait([first])
    await say(ready, reported("more"))
    while await value(ready, "SELECT count(*) FROM relevo.call_deltas"):
        pass
    second.cancel()
    await asyncio.wait([second])
    assert (await health(ready))["v2"].total_calls == 2


async def test_minutes_go_and_hours_stay(ready: Database) -> None:
    await say(ready, reported("old", decided_at=NOW - timedelta(days=3)), reported("new"))
    await folding.fold(ready)
    await folding.forget_minutes(ready, NOW)
    kept = await rows(ready, "SELECT grain, count(*) FROM relevo.call_stats GROUP BY grain ORDER BY grain")
    assert {row["grain"]: row["count"] for row in kept} == {"minute": 1, "ten": 1, "hour": 2, "day": 2, "tenant": 2}
    assert (await health(ready, Window.last(timedelta(days=4), NOW)))["v2"].latencies.total == 2


# History.


async def filled(database: Database, **options: Any) -> history.Backfilled:
    return await history.backfill(database, DEFAULT.calls.rows(), days=70, clock=lambda: NOW, **options)


async def test_history_is_counted_once_however_often_it_is_asked_for(sampled: Database) -> None:
    first = await filled(sampled)
    expected = (
        await rows(
            sampled,
            """SELECT count(*) AS calls, count(*) FILTER (WHERE status = 'failed') AS failed,
                      count(*) FILTER (WHERE avg_latency_ms > 0) AS measured,
                      percentile_disc(0.95) WITHIN GROUP (ORDER BY avg_latency_ms)
                          FILTER (WHERE avg_latency_ms > 0) AS p95
               FROM public.voice_calls WHERE business_id IS NOT NULL""",
        )
    )[0]
    assert first == history.Backfilled(70, expected["calls"])
    everything = Window(NOW - timedelta(days=70), None)
    v1 = (await health(sampled, everything))["v1"]
    assert (v1.total_calls, v1.failed_calls, v1.errors) == (expected["calls"], expected["failed"], expected["failed"])
    assert v1.measured_calls == v1.latencies.total == expected["measured"]
    assert v1.p95_latency_ms == pytest.approx(expected["p95"], rel=ACCURACY)
    assert (await filled(sampled)).days == 1  # today is not over
    assert (await filled(sampled, again=True)) == first
    assert (await health(sampled, everything))["v1"] == v1
    assert (await recount(sampled)).equal


async def test_history_leaves_out_what_the_router_counts_itself(sampled: Database) -> None:
    known = await value(sampled, "SELECT min(vapi_call_id) FROM public.voice_calls WHERE business_id IS NOT NULL")
    before = await filled(sampled)
    await say(sampled, asked(known, version="v1"))
    again = await filled(sampled, again=True)
    doubles = await value(
        sampled,
        "SELECT count(*) FROM public.voice_calls WHERE vapi_call_id = %s AND business_id IS NOT NULL",
        (known,),
    )
    assert before.calls - again.calls == doubles > 0


async def test_an_interrupted_count_of_history_goes_on(sampled: Database) -> None:
    def interrupt(_event: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await filled(sampled, emit=interrupt)
    assert (await filled(sampled)).days == 70 - history.DAYS_AT_ONCE


async def test_two_do_not_count_history_at_once(sampled: Database) -> None:
    both = await asyncio.gather(filled(sampled, again=True), filled(sampled, again=True), return_exceptions=True)
    assert sum(isinstance(each, LeaseHeld) for each in both) <= 1
    everything = Window(NOW - timedelta(days=70), None)
    calls = await value(sampled, "SELECT count(*) FROM public.voice_calls WHERE business_id IS NOT NULL")
    assert (await health(sampled, everything))["v1"].total_calls == calls


# Complaints and breakers.


async def test_a_complaint_counts_once_for_its_version_unless_it_is_dismissed(ready: Database) -> None:
    await say(ready, asked(decided_at=NOW - MINUTE))
    async with ready.transaction() as connection:
        said: dict[str, Any] = {"actor": "ana", "reason": None}
        mine = await complaints.add(connection, TENANT, "no me entiende", NOW, version=None, **said)
        other = await complaints.add(connection, OTHER, "se corta", NOW, version=None, **said)
        assert (mine.version, other.version) == ("v2", "v1")
    assert {version: each.complaints for version, each in (await health(ready)).items()} == {"v1": 1, "v2": 1}
    async with ready.transaction() as connection:
        await complaints.dismiss(connection, mine.id, NOW, **said)
        with pytest.raises(UnknownName):
            await complaints.dismiss(connection, mine.id, NOW, **said)
        assert [each.id for each in await complaints.complaints(connection)] == [other.id]
        assert len(await complaints.complaints(connection, dismissed=True)) == 2
    assert (await health(ready))["v2"].complaints == 0
    actions = await rows(ready, "SELECT action FROM relevo.audit_log WHERE action LIKE 'complaint%' ORDER BY id")
    assert [row["action"] for row in actions] == ["complaint.add", "complaint.add", "complaint.dismiss"]


async def observed(database: Database, at: datetime = ASKED_AT, **seen: int) -> Breaker:
    counts = {"calls": 1, "failures": 1, "slow": 0} | seen
    async with database.transaction() as connection:
        return await breakers.observe(connection, "v2", "", at, window=timedelta(seconds=30), **counts)


async def changed(database: Database, seen: Breaker, to: Any, **how: Any) -> Breaker | None:
    usual: dict[str, Any] = {"holder": "a", "why": "too many failures", "probe_at": ASKED_AT + timedelta(seconds=10)}
    async with database.transaction() as connection:
        return await breakers.change(connection, seen, to, ASKED_AT, **(usual | how))


async def probed(database: Database, seen: Breaker, holder: str, after_s: int) -> Breaker | None:
    at = ASKED_AT + timedelta(seconds=after_s)
    async with database.transaction() as connection:
        return await breakers.probe(connection, seen, at, holder=holder, overdue_at=at + timedelta(seconds=5))


async def test_what_processes_see_adds_up_until_the_window_is_over(ready: Database) -> None:
    await asyncio.gather(*(observed(ready, calls=3, failures=1, slow=1) for _ in range(5)))
    seen = await observed(ready)
    assert (seen.state, seen.calls, seen.failures, seen.slow) == ("closed", 16, 6, 5)
    seen = await observed(ready, ASKED_AT + timedelta(seconds=31))
    assert (seen.calls, seen.failures, seen.slow) == (1, 1, 0)


async def test_of_many_who_open_a_breaker_one_does_and_it_counts_once(ready: Database) -> None:
    seen = await observed(ready)
    opened = await asyncio.gather(*(changed(ready, seen, "open", holder=str(number)) for number in range(6)))
    assert sum(each is not None for each in opened) == 1
    assert (await health(ready))["v2"].breaker_opens == 1
    assert (await health(ready))["v1"].breaker_opens == 0


async def test_one_probe_at_a_time_and_only_its_holder_says_how_it_went(ready: Database) -> None:
    opened = await changed(ready, await observed(ready), "open")
    assert opened is not None
    assert await probed(ready, opened, "a", 9) is None
    probes = await asyncio.gather(*(probed(ready, opened, holder, 10) for holder in "abcdef"))
    (mine,) = [each for each in probes if each]
    assert mine.state == "half_open"
    assert await changed(ready, mine, "closed", holder="somebody else") is None
    failed = await changed(ready, mine, "open", holder=mine.probe_by, why="probe failed")
    assert failed is not None
    assert failed.opened_at == opened.opened_at
    lost = await probed(ready, failed, "dies", 11)
    assert lost is not None
    assert await probed(ready, lost, "heir", 12) is None
    heir = await probed(ready, lost, "heir", 17)
    assert heir is not None
    closed = await changed(ready, heir, "closed", holder="heir")
    assert closed is not None
    assert (closed.state, closed.opened_at, closed.failures) == ("closed", None, 0)
    recorded = await rows(ready, "SELECT from_state, to_state FROM relevo.breaker_changes ORDER BY id")
    assert [tuple(row.values()) for row in recorded] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]
    assert (await health(ready))["v2"].breaker_opens == 1


async def test_a_forced_breaker_stays_until_it_is_released_and_says_nothing_of_health(ready: Database) -> None:
    seen = await observed(ready)
    async with ready.transaction() as connection:
        said = {"actor": "ana", "reason": "upstream is being moved"}
        forced = await breakers.force(connection, "v2", "", "open", ASKED_AT, **said)
        assert (await breakers.breakers(connection)) == [forced]
    assert await changed(ready, seen, "open") is None
    assert await changed(ready, forced, "closed") is None
    assert await probed(ready, forced, "a", 99) is None
    async with ready.transaction() as connection:
        released = await breakers.release(connection, "v2", "", ASKED_AT, **said)
        assert await breakers.release(connection, "v2", "", ASKED_AT, **said) is None
    assert released is not None
    assert (released.state, released.forced) == ("open", False)
    assert await probed(ready, released, "a", 0) is not None
    assert (await health(ready))["v2"].breaker_opens == 0
    actions = await rows(ready, "SELECT action, reason FROM relevo.audit_log ORDER BY id DESC LIMIT 2")
    assert [row["action"] for row in actions] == ["breaker.release", "breaker.force"]


# The commands.


async def test_the_commands_tell_the_same(sampled: Database) -> None:
    def run() -> None:
        url = sampled.url
        filled = succeeds("metrics", "backfill", "--days", "3650", url=url)
        assert filled["calls"] > 2_000
        shown = succeeds("metrics", "show", "--window", "3650d", "--tenants", url=url)
        assert shown["metrics"]["v1"]["total_calls"] == filled["calls"]
        assert {"error_rate", "failed_call_rate", "avg_latency_ms", "p50_latency_ms", "p95_latency_ms",
                "breaker_opens", "complaints"} < shown["metrics"]["v2"].keys()  # fmt: skip
        assert sum(each["total_calls"] for each in shown["tenants"]) == filled["calls"]
        assert succeeds("metrics", "check", url=url)["success"]
        tenant = shown["tenants"][0]["tenant_id"]
        made = succeeds("complaints", "add", tenant, "no contesta", url=url)
        assert (made["tenant_id"], made["version"]) == (tenant, "v1")
        assert [each["id"] for each in succeeds("complaints", "list", url=url)] == [made["id"]]
        assert succeeds("complaints", "dismiss", str(made["id"]), url=url)["dismissed_by"]
        assert succeeds("complaints", "list", url=url) == []

    await asyncio.to_thread(run)
    await change(
        sampled,
        """INSERT INTO relevo.calls (call_id, tenant_id, version, served_version, decided_at, decided_by, asked)
           VALUES ('x', 'x', 'v2', 'v2', now(), 'flag', true); DELETE FROM relevo.call_deltas""",
    )
    checked = await asyncio.to_thread(relevo, "metrics", "check", url=sampled.url)
    assert (checked.status, checked.data["success"], len(checked.data["differences"])) == (1, False, 3)


MISTAKES = [
    ("metrics", "show", "--window", "soon"),
    ("metrics", "show", "--window", "0h"),
    ("metrics", "backfill", "--days", "0"),
    ("complaints", "add", "nobody", "text"),
    ("complaints", "add", "nobody", " "),
    ("complaints", "dismiss", "99"),
]


async def test_what_makes_no_sense_is_refused_with_its_reason(sampled: Database) -> None:
    for words in MISTAKES:
        answered = await asyncio.to_thread(relevo, *words, url=sampled.url)
        assert answered.status == 2, words
        assert answered.data["error"]["fix"]
