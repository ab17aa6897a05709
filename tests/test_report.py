"""The report: v1 against v2, each figure as plain SQL has it, and what cannot be concluded said plainly."""

from __future__ import annotations

import base64
import html
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.db.pool import Database
from relevo.metrics import folding, history
from relevo.metrics.health import Health
from relevo.metrics.latency import Histogram
from relevo.migration.mapping import DEFAULT
from relevo.report import reading, telling
from relevo.report.comparison import METRICS, Figure, Period, compare, rate
from relevo.report.reading import V1, Report
from tests.browser import CHROMIUM, browsing
from tests.commands import relevo, succeeds
from tests.conftest import NOW, change, rows
from tests.recorded import reported, say

DAY = timedelta(days=1)
CALLS = V1(
    DEFAULT.calls.schema,
    DEFAULT.calls.table,
    DEFAULT.calls.rows(also=("outcome",)),
    DEFAULT.tenants.rows(),
)


def period(version: str, health: Health, *, days: int = 7, known: bool = True, **outcomes: int) -> Period:
    return Period(version, NOW - days * DAY, NOW, health, outcomes, known)


def healthy(version: str, calls: int, errors: int, latencies: list[float]) -> Health:
    histogram = Histogram.of(latencies)
    return Health(version, total_calls=calls, errors=errors, measured_calls=histogram.total, latencies=histogram)


# Comparing -----------------------------------------------------------------------------------------------------------


def test_the_specifications_example_is_told_as_it_has_it() -> None:
    before = period("v1", healthy("v1", 10_000, 300, [700.0] * 9000 + [1200.0] * 1000), reservation_created=700)
    after = period("v2", healthy("v2", 10_000, 100, [480.0] * 9000 + [760.0] * 1000), reservation_created=1400)
    found = {each.metric.name: each for each in compare(before, after)}
    assert {name: (each.conclusion, each.met) for name, each in found.items()} == {
        "p50_latency_ms": ("better", "yes"),
        "p95_latency_ms": ("better", "yes"),
        "error_rate": ("better", "yes"),
        "reservations_per_day": ("better", None),
        "appointments_per_day": ("no difference shown", None),
        "orders_per_day": ("no difference shown", None),
    }
    assert found["error_rate"].improvement == pytest.approx(2 / 3)
    assert found["p95_latency_ms"].improvement == pytest.approx(0.367, abs=0.01)
    assert found["reservations_per_day"].improvement == pytest.approx(1.0)


def test_few_calls_conclude_nothing() -> None:
    before = period("v1", healthy("v1", 1000, 30, [1200.0] * 1000))
    after = period("v2", healthy("v2", 20, 0, [400.0] * 20))
    found = {each.metric.name: each for each in compare(before, after)}
    assert (found["error_rate"].conclusion, found["error_rate"].met) == ("no difference shown", "not shown")


def test_nothing_counted_is_no_success() -> None:
    found = compare(period("v1", Health("v1"), known=False), period("v2", Health("v2")))
    assert {each.conclusion for each in found if each.metric.unit != "per_day"} == {"not comparable"}
    assert {each.met for each in found if each.metric.target} == {"not measured"}
    assert all(each.improvement is None for each in found)


def test_a_target_that_is_missed_is_told() -> None:
    after = period("v2", healthy("v2", 1000, 20, [800.0] * 1000))
    met = {each.metric.name: each.met for each in compare(period("v1", Health("v1")), after)}
    assert (met["error_rate"], met["p50_latency_ms"]) == ("no", "no")


@given(st.integers(1, 10_000), st.data())
def test_an_interval_holds_its_rate(calls: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, calls))
    found = rate(bad, calls)
    assert found.interval is not None
    assert 0 <= found.interval.low <= bad / calls + 1e-9
    assert bad / calls - 1e-9 <= found.interval.high <= 1


@given(st.lists(st.floats(1, 1e5), min_size=1, max_size=200))
def test_an_interval_holds_its_percentile(latencies: list[float]) -> None:
    both = compare(period("v1", Health("v1")), period("v2", healthy("v2", len(latencies), 0, latencies)))
    for each in both[:2]:
        assert each.after.interval is not None
        assert each.after.interval.low <= (each.after.value or 0) <= each.after.interval.high


def test_the_interval_is_wilsons() -> None:
    found = rate(3, 100)  # as published tables have it
    assert found.interval == pytest.approx((0.01025, 0.08452), abs=1e-4)
    assert rate(0, 0) == Figure(None)


# Reading -------------------------------------------------------------------------------------------------------------


async def made(database: Database, now: datetime = NOW) -> Report:
    async with database.transaction(read_only=True, snapshot=True) as connection:
        return await reading.read(connection, CALLS, now, before=30 * DAY, after=30 * DAY)


async def v2_calls(database: Database, tenants: list[str], count: int) -> None:
    """Calls of the last two days, on v2."""
    calls: list[Any] = []
    for number in range(count):
        at = NOW - timedelta(minutes=7 * number + 1)
        said = {"decided_at": at, "at": at, "started_at": at, "ended_at": at + timedelta(minutes=1)}
        outcome = "reservation_created" if number % 3 == 0 else "information_given"
        reason = "assistant-request-failed" if number % 50 == 0 else "customer-ended-call"
        tenant = tenants[number % len(tenants)]
        calls.append(reported(f"c{number}", reason, tenant_id=tenant, latency_ms=300 + number, outcome=outcome, **said))
    await say(database, *calls)


async def settled(database: Database) -> Report:
    """A v1 of a month, then v2 for two days."""
    await change(database, "ALTER TABLE public.voice_calls ADD outcome text, ADD agent_version text")
    await change(
        database,
        """UPDATE public.voice_calls SET outcome = CASE WHEN hashtext(id::text) % 2 = 0 THEN 'appointment_created'
                                                        ELSE 'customer_hangup' END WHERE status = 'completed'""",
    )
    await history.backfill(database, DEFAULT.calls.rows(), days=40, clock=lambda: NOW)
    tenants = [row["id"] for row in await rows(database, "SELECT id::text FROM public.businesses ORDER BY 1 LIMIT 4")]
    await v2_calls(database, tenants, 400)
    await folding.fold(database)
    return await made(database)


async def test_every_figure_is_what_plain_sql_counts(sampled: Database) -> None:
    report = await settled(sampled)
    figures = {each.metric.name: each for each in report.overall}
    counted = """SELECT count(*) AS calls, count(*) FILTER (WHERE our_fault) AS errors,
                        percentile_disc(0.95) WITHIN GROUP (ORDER BY latency_ms) AS p95,
                        count(*) FILTER (WHERE outcome = 'reservation_created') AS reservations
                 FROM relevo.calls WHERE version = 'v2' AND decided_at >= %s AND decided_at < %s"""
    (v2,) = await rows(sampled, counted, (report.after.since, report.after.until))
    assert report.after.health.total_calls == v2["calls"] == 400
    assert figures["error_rate"].after.value == v2["errors"] / v2["calls"]
    assert figures["p95_latency_ms"].after.value == pytest.approx(v2["p95"], rel=0.01)
    assert figures["reservations_per_day"].after.value == pytest.approx(v2["reservations"] / report.after.days)
    of_v1 = """SELECT count(*) AS calls, count(*) FILTER (WHERE status = 'failed') AS failed,
                        percentile_disc(0.5) WITHIN GROUP (ORDER BY avg_latency_ms)
                            FILTER (WHERE avg_latency_ms > 0) AS p50,
                        count(*) FILTER (WHERE outcome = 'appointment_created') AS appointments
                 FROM public.voice_calls WHERE started_at >= %s AND started_at < %s AND business_id IS NOT NULL
                   AND NOT EXISTS (SELECT FROM relevo.calls c WHERE c.call_id = vapi_call_id)"""
    (v1,) = await rows(sampled, of_v1, (report.before.since, report.before.until))
    assert report.before.health.total_calls == v1["calls"] > 1000
    assert figures["error_rate"].before.value == v1["failed"] / v1["calls"]
    assert figures["p50_latency_ms"].before.value == pytest.approx(v1["p50"], rel=0.01)
    assert figures["appointments_per_day"].before.value == pytest.approx(v1["appointments"] / report.before.days)
    assert report.before.until <= report.after.since


async def test_trades_add_up_to_the_whole(sampled: Database) -> None:
    report = await settled(sampled)
    for number, metric in enumerate(METRICS):
        if metric.unit == "per_day":
            parts = sum(each[number].after.of for each in report.by_vertical.values())
            assert parts == report.overall[number].after.of
    calls = [sum(each[2].before.of for each in report.by_vertical.values())]
    assert calls == [report.before.health.total_calls]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
async def test_the_page_fits_a_phone_and_paper_without_a_script(sampled: Database, tmp_path: Path) -> None:
    """Nothing is wider than the screen; a printed trade stays on one sheet, with its heading."""
    page = tmp_path / "report.html"
    page.write_text(telling.page(await settled(sampled), 250.0), encoding="utf-8")
    assert "<script" not in page.read_text(encoding="utf-8")
    async with browsing() as tab:
        for width in (360, 768, 1200):
            await tab.size(width, 900)
            await tab.open(page.as_uri())
            assert await tab.run("document.documentElement.scrollWidth") <= width
        await tab.send("Emulation.setEmulatedMedia", media="print")
        assert await tab.run("getComputedStyle(document.querySelector('section')).breakInside") == "avoid"
        printed = await tab.send("Page.printToPDF")
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")


async def test_the_page_needs_nothing_else_and_hides_nothing(sampled: Database) -> None:
    await change(
        sampled,
        """INSERT INTO relevo.audit_log (at, actor, action, subject, reason)
           VALUES (%s, '<b>ana</b>', 'flag.change', 'x', '<i>')""",
        (NOW - timedelta(hours=1),),
    )
    report = await settled(sampled)
    text = telling.page(report, 250.0)
    assert not re.search(r"(src|href)=|https?://|<script", text)
    assert text.count("<svg") == len(METRICS)
    assert "&lt;b&gt;ana&lt;/b&gt;" in text
    assert "<b>ana" not in text
    for doubt in telling.doubts(report):
        assert html.escape(doubt) in text.replace("&#39;", "&#x27;")


async def test_without_figures_it_says_so_and_still_is_written(sampled: Database, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    told = succeeds("report", "--html", str(page), "--value-per-booking", "250", url=sampled.url)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [each["target_met"] for each in told["metrics"]][:3] == ["not measured"] * 3
    assert any("relevo metrics backfill" in doubt for doubt in told["not_concluded"])
    assert any("no outcome yet" in doubt for doubt in told["not_concluded"])
    assert (told["nps"], told["return"]) == (None, None)


async def test_a_window_that_is_none_is_refused(ready: Database) -> None:
    assert relevo("report", "--after-days", "0", url=ready.url).status == 2
