"""Alerts: the specification's thresholds, one incident per cause, told once when it opens, worsens and is over."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from math import comb, exp
from types import MappingProxyType
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.alerts import incidents, watching
from relevo.alerts.incident import QUIET_FOR, SILENT_FOR, Open, step
from relevo.alerts.thresholds import ENOUGH_CALLS, RULES, WINDOWS, Finding, Judgement, chance_of, grade, judge
from relevo.comms import outbox
from relevo.comms.delivery import Delivery
from relevo.comms.outcome import Channel
from relevo.comms.pagerduty import PagerDuty
from relevo.comms.slack import Slack
from relevo.comms.texts import shipped
from relevo.db.lease import Lease
from relevo.db.pool import Database
from relevo.errors import LeaseLost, Refused, UnknownName
from relevo.metrics.health import Health
from relevo.metrics.latency import Histogram
from tests.commands import relevo, succeeds
from tests.conftest import NOW, change, rows, value
from tests.flags import row, settle, write
from tests.recorded import reported, say
from tests.wires import hook

ERRORS, LATENCY, BREAKERS = RULES
HOUR = WINDOWS[0]
LOOK = timedelta(minutes=1)
JUDGEMENTS: Sequence[Judgement] = ("healthy", "unknown", "warning", "critical")


def counted(calls: int, errors: int = 0, *, breaker_opens: int = 0) -> Health:
    return Health("v2", total_calls=calls, errors=errors, breaker_opens=breaker_opens)


# Thresholds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "calls", "judgement"),
    [
        (0, 100, "healthy"),
        (199, 10_000, "healthy"),
        (2, 100, "healthy"),
        (201, 10_000, "warning"),
        (5, 100, "warning"),
        (501, 10_000, "critical"),
        (1, 50, "healthy"),
        (1, 20, "warning"),
        (2, 20, "critical"),
        (19, 19, "unknown"),
        (0, 0, "unknown"),
    ],
)
def test_error_rates_at_and_around_their_thresholds(errors: int, calls: int, judgement: Judgement) -> None:
    assert judge(ERRORS, {HOUR: counted(calls, errors)}).judgement == judgement


@pytest.mark.parametrize(
    ("value", "judgement"),
    [
        (799.9, "healthy"),
        (800.0, "healthy"),
        (801.0, "warning"),
        (1200.0, "warning"),
        (1201.0, "critical"),
        (None, "unknown"),
    ],
)
def test_latencies_at_and_around_their_thresholds(value: float | None, judgement: Judgement) -> None:
    assert grade(LATENCY, value) == judgement


@pytest.mark.parametrize(
    ("opens", "judgement"), [(0, "healthy"), (1, "warning"), (2, "warning"), (3, "critical"), (4, "critical")]
)
def test_openings_at_and_around_their_thresholds(opens: int, judgement: Judgement) -> None:
    """The seed defines a warning at one, and never uses it; its critical begins above three, here from three."""
    assert judge(BREAKERS, {HOUR: counted(0, breaker_opens=opens)}).judgement == judgement


def test_an_alert_reads_as_the_specification_has_it() -> None:
    found = judge(ERRORS, {HOUR: counted(1000, 62)})
    assert (found.title, found.action) == ("Voice Agent V2: Critical Error Rate", "Consider immediate rollback")
    assert found.message == "Error rate is 6.20% (threshold: 5%), 1,000 calls in the last hour"
    slow = Histogram(MappingProxyType({400: 100}))
    late = judge(LATENCY, {HOUR: Health("v2", total_calls=100, measured_calls=100, latencies=slow)})
    assert late.title == "Voice Agent V2: Critical Latency"
    assert late.message.endswith("ms (threshold: 1200ms), 100 calls in the last hour")
    opened = judge(BREAKERS, {HOUR: counted(0, breaker_opens=4)})
    assert opened.message == "4 circuit breakers opened in last hour"
    assert opened.action == "Immediate investigation required"


def test_a_quiet_platform_is_judged_on_a_longer_window() -> None:
    """A canary sees a dozen calls in eight hours; half of them failing should wake somebody the same day."""
    windows = {WINDOWS[0]: counted(3, 3), WINDOWS[1]: counted(12, 6), WINDOWS[2]: counted(40, 20)}
    found = judge(ERRORS, windows)
    assert (found.judgement, found.details["window_minutes"]) == ("critical", 24 * 60)
    assert judge(ERRORS, {WINDOWS[0]: counted(3, 3)}).judgement == "unknown"


@given(st.integers(0, 500), st.integers(0, 500))
def test_one_error_more_is_never_better(errors: int, more: int) -> None:
    calls = 1000
    fewer, worse = (JUDGEMENTS.index(grade(ERRORS, each / calls)) for each in (errors, errors + more))
    assert fewer <= worse


# Beyond chance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "calls", "shown"),
    [
        (1, 20, "healthy"),  # one of three such hours, were it 2 %
        (2, 20, "healthy"),
        (3, 20, "warning"),
        (4, 20, "critical"),
        (5, 60, "warning"),
        (8, 99, "warning"),
        (6, 100, "critical"),  # of so many, what is critical by the figure alone
        (4, 100, "healthy"),
        (11, 499, "healthy"),
        (11, 500, "warning"),  # of so many, a warning too
        (26, 500, "critical"),
    ],
)
def test_what_chance_does_is_not_shown(errors: int, calls: int, shown: Judgement) -> None:
    assert judge(ERRORS, {HOUR: counted(calls, errors)}).shown == shown


def test_what_the_hour_hints_at_the_day_may_know() -> None:
    windows = {WINDOWS[0]: counted(20, 1), WINDOWS[1]: counted(120, 6), WINDOWS[2]: counted(480, 19)}
    found = judge(ERRORS, windows)
    assert (found.judgement, found.shown, found.details["calls"]) == ("warning", "warning", 20)
    assert judge(ERRORS, windows | {WINDOWS[0]: counted(20, 0)}).judgement == "healthy"  # it is over


def test_an_alert_is_told_by_what_is_shown() -> None:
    found = judge(ERRORS, {HOUR: counted(60, 5)})
    assert (found.judgement, found.shown) == ("critical", "warning")
    assert found.title == "Voice Agent V2: High Error Rate"
    assert found.message == "Error rate is 8.33% (threshold: 2%), 60 calls in the last hour"


@given(st.integers(1, 60), st.data(), st.sampled_from([Fraction(1, 50), Fraction(1, 20)]))
def test_chances_are_exact(calls: int, data: st.DataObject, share: Fraction) -> None:
    bad = data.draw(st.integers(0, calls))
    exact = sum(comb(calls, n) * share**n * (1 - share) ** (calls - n) for n in range(bad, calls + 1))
    assert chance_of(bad, calls, float(share)) == pytest.approx(float(exact), rel=1e-9)


def opened(per_hour: int, days: int, bad: Callable[[int], float], seed: int) -> list[tuple[int, str]]:
    """The minutes at which incidents open or worsen, and how grave, looked at every five; of calls that come by chance
    and are bad by a chance that may change."""
    dice = random.Random(seed)
    sums = [(0, 0)]
    for minute in range(days * 1440):
        came = sum(dice.random() < per_hour / 600 for _ in range(10))
        sums.append((sums[-1][0] + came, sums[-1][1] + sum(dice.random() < bad(minute) for _ in range(came))))
    known: Open | None = None
    told: list[tuple[int, str]] = []
    for minute in range(0, len(sums), 5):
        windows = {}
        for length in WINDOWS:
            begins = sums[max(0, minute - length // LOOK)]
            windows[length] = counted(sums[minute][0] - begins[0], sums[minute][1] - begins[1])
        found, now = judge(ERRORS, windows), NOW + minute * LOOK
        done = step(known, found.judgement, now, found.shown)
        if done in ("open", "worsen"):
            known = Open("critical" if found.shown == "critical" else "warning", None)
            told.append((minute, known.severity))
        elif known is not None and done in ("go_on", "calm"):
            known = Open(known.severity, None if done == "go_on" else now)
        elif done == "resolve":
            known = None
    return told


@pytest.mark.parametrize("per_hour", [3, 20, 60, 200])
def test_a_healthy_v2_pages_nobody_in_a_week_and_rings_at_most_once(per_hour: int) -> None:
    """At half of the warning's threshold. By the figure alone it would open some forty times a week."""
    told = [opened(per_hour, 7, lambda _minute: 0.01, seed) for seed in range(3)]
    assert [severity for each in told for _, severity in each if severity == "critical"] == []
    assert sum(map(len, told)) <= 3


@pytest.mark.parametrize(
    ("per_hour", "share", "within"), [(3, 1.0, 180), (20, 0.3, 120), (60, 0.3, 40), (200, 0.1, 60)]
)
def test_no_fire_is_missed(per_hour: int, share: float, within: int) -> None:
    """After a good day; minutes until it is critical."""
    for seed in range(3):
        told = opened(per_hour, 2, lambda minute: share if minute >= 1440 else 0.005, seed)
        pages = [minute - 1440 for minute, severity in told if severity == "critical"]
        assert pages
        assert 0 <= pages[0] <= within


def test_a_swinging_latency_of_a_healthy_v2_opens_nothing() -> None:
    """Calls at a true p95 of 735 ms, sixty an hour: the hour's own is often above 800, and never shown."""
    dice = random.Random(7)
    calls = [735 * exp(0.3 * (dice.gauss(0, 1) - 1.645)) for _ in range(60 * 24 * 3)]
    above, shown = 0, set()
    for hour in range(24, 72):
        windows = {
            length: Health("v2", total_calls=len(took), measured_calls=len(took), latencies=Histogram.of(took))
            for length in WINDOWS
            for took in [calls[60 * (hour - length // HOUR) : 60 * hour]]
        }
        found = judge(LATENCY, windows)
        above += found.judgement == "warning"
        shown |= {found.shown} if found.judgement == "warning" else set()
    assert above >= 2
    assert shown == {"healthy"}


# Incidents, pure ----------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(JUDGEMENTS), min_size=1, max_size=200))
def test_an_incident_opens_once_worsens_at_most_once_and_ends_only_after_quiet(looks: list[Judgement]) -> None:
    known: Open | None = None
    opened = worsened = 0
    wrong_at = NOW
    for number, judgement in enumerate(looks):
        now = NOW + number * LOOK
        done = step(known, judgement, now)
        if judgement in ("warning", "critical"):
            wrong_at = now
        match done:
            case "open":
                assert known is None
                known, opened, worsened = (
                    Open("critical" if judgement == "critical" else "warning", None),
                    opened + 1,
                    0,
                )
            case "worsen":
                known, worsened = Open("critical", None), worsened + 1
                assert worsened == 1
            case "go_on":
                assert known is not None
                known = Open(known.severity, None)
            case "calm":
                assert known is not None
                known = Open(known.severity, now)
            case "resolve":
                assert now - wrong_at >= QUIET_FOR + LOOK
                known = None
        assert (known is None) or judgement in ("healthy", "unknown") or known.quiet_since is None


def test_what_swings_about_a_threshold_opens_once() -> None:
    """Ten hours, above and below in turns of nine minutes."""
    known: Open | None = None
    opened = 0
    for minute in range(600):
        judgement: Judgement = "warning" if minute // 9 % 2 == 0 else "healthy"
        now = NOW + minute * LOOK
        match step(known, judgement, now):
            case "open":
                known, opened = Open("warning", None), opened + 1
            case "go_on":
                known = Open("warning", None)
            case "calm":
                known = Open("warning", now)
            case "resolve":
                known = None
    assert opened == 1


def test_only_what_is_beyond_chance_opens_and_worsens_and_it_lasts_as_long_as_the_figure_is_bad() -> None:
    assert step(None, "critical", NOW, "healthy") == "nothing"
    assert step(None, "critical", NOW, "warning") == "open"
    assert step(Open("warning", None), "critical", NOW, "warning") == "go_on"
    assert step(Open("warning", None), "critical", NOW, "critical") == "worsen"
    assert step(Open("warning", None), "warning", NOW, "healthy") == "go_on"


def test_no_data_heals_nothing_until_it_lasts() -> None:
    known = Open("critical", NOW)
    assert step(known, "unknown", NOW + QUIET_FOR) == "nothing"
    assert step(known, "unknown", NOW + SILENT_FOR) == "resolve"
    assert step(None, "unknown", NOW) == "nothing"


# Incidents in the database ------------------------------------------------------------------------------------------


def finding(judgement: Judgement, title: str = "Voice Agent V2: High Error Rate") -> Finding:
    return Finding("v2.error_rate", judgement, title, f"Error rate is {judgement}", None, {"value": 0.03})


async def note(database: Database, judgement: Judgement, minutes: int) -> str:
    async with database.transaction() as connection:
        return await incidents.note(connection, finding(judgement), NOW + timedelta(minutes=minutes))


async def messages(database: Database) -> list[tuple[str, str]]:
    found = await rows(
        database,
        """SELECT channel, coalesce(variables->>'event_action', variables->>'happened') AS what
           FROM relevo.outbox ORDER BY id""",
    )
    return [(row["channel"], row["what"]) for row in found]


async def test_a_warning_that_becomes_critical_and_heals_is_told_thrice(ready: Database) -> None:
    looks: list[Judgement] = ["warning", "warning", "warning", "critical", "critical", "critical"]
    done = [await note(ready, each, minute) for minute, each in enumerate(looks)]
    assert done == ["open", "go_on", "go_on", "worsen", "go_on", "go_on"]
    assert await note(ready, "warning", 6) == "go_on"  # severity does not fall while it lasts
    healthy = [await note(ready, "healthy", minute) for minute in range(7, 19)]
    assert healthy == ["calm", *["nothing"] * 9, "resolve", "nothing"]
    assert await messages(ready) == [
        ("slack", "opened"),
        ("slack", "worsened"),
        ("pagerduty", "trigger"),
        ("slack", "resolved"),
        ("pagerduty", "resolve"),
    ]
    types = await rows(ready, "SELECT type FROM public.rollout_alerts ORDER BY id")
    assert [row["type"] for row in types] == ["warning", "critical"]
    audited = await rows(ready, "SELECT action FROM relevo.audit_log WHERE action LIKE 'incident%%' ORDER BY id", ())
    assert [row["action"] for row in audited] == ["incident.open", "incident.worsen", "incident.resolve"]


async def test_a_warning_pages_nobody(ready: Database) -> None:
    await note(ready, "warning", 0)
    for minute in (1, 12):
        await note(ready, "healthy", minute)
    assert await messages(ready) == [("slack", "opened"), ("slack", "resolved")]


async def test_two_that_look_at_once_open_one_incident_and_tell_once(ready: Database) -> None:
    done = await asyncio.gather(*(note(ready, "critical", 0) for _ in range(6)))
    assert set(done) <= {"open", "go_on"}
    assert await value(ready, "SELECT count(*) FROM relevo.incidents") == 1
    assert await messages(ready) == [("slack", "opened"), ("pagerduty", "trigger")]
    assert await value(ready, "SELECT count(*) FROM public.rollout_alerts") == 1


async def test_what_comes_again_is_another_incident(ready: Database) -> None:
    for minute, judgement in ((0, "critical"), (1, "healthy"), (11, "healthy"), (30, "critical")):
        await note(ready, judgement, minute)  # type: ignore[arg-type]
    keys = await rows(
        ready, "SELECT DISTINCT variables->>'incident' AS key FROM relevo.outbox WHERE channel = 'pagerduty'"
    )
    assert len(keys) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE relevo.incidents SET severity = 'warning'",
        "UPDATE relevo.incidents SET acked_by = 'ana'",
        "UPDATE relevo.incidents SET resolved_at = now()",
        "UPDATE relevo.incidents SET seen_at = opened_at - interval '1 s'",
        """INSERT INTO relevo.incidents (cause, severity, title, message, opened_at, seen_at)
           VALUES ('v2.error_rate', 'warning', 'a', 'b', now(), now())""",
        "UPDATE relevo.incidents SET severity = 'mild'",
    ],
)
async def test_incidents_keep_their_own_order(ready: Database, statement: str) -> None:
    await note(ready, "critical", 0)
    with pytest.raises(psycopg.IntegrityError):
        await change(ready, statement)


async def test_what_is_over_stays_over(ready: Database) -> None:
    for minute, judgement in ((0, "warning"), (1, "healthy"), (11, "healthy")):
        await note(ready, judgement, minute)  # type: ignore[arg-type]
    with pytest.raises(psycopg.IntegrityError, match="begins again"):
        await change(ready, "UPDATE relevo.incidents SET resolved_at = NULL, resolved_why = NULL")


# Looking -----------------------------------------------------------------------------------------------------------


async def calls(database: Database, at: datetime, *, good: int, bad: int, latency_ms: float = 500.0) -> None:
    """Finished v2 calls, some of them our fault."""
    made: list[Any] = []
    for number in range(good + bad):
        reason = "assistant-request-failed" if number < bad else "customer-ended-call"
        said = {"decided_at": at, "at": at, "started_at": at, "ended_at": at, "latency_ms": latency_ms}
        made.append(reported(f"{at.isoformat()}-{number}", reason, **said))
    await say(database, *made)


async def test_bad_calls_open_an_incident_and_good_ones_end_it(ready: Database) -> None:
    await calls(ready, NOW - timedelta(minutes=5), good=90, bad=10)
    assert await watching.look(ready, NOW) == {
        "v2.error_rate": "open",
        "v2.p95_latency": "nothing",
        "v2.breaker_opens": "nothing",
        "v2.drift": "nothing",
    }
    assert (await watching.look(ready, NOW + LOOK))["v2.error_rate"] == "go_on"
    (listed,) = succeeds("alerts", "list", url=ready.url)
    assert (listed["severity"], listed["message"]) == (
        "critical",
        "Error rate is 10.00% (threshold: 5%), 100 calls in the last hour",
    )
    later = NOW + timedelta(hours=2)
    await calls(ready, later - timedelta(minutes=5), good=100, bad=0)
    assert (await watching.look(ready, later))["v2.error_rate"] == "calm"
    assert (await watching.look(ready, later + QUIET_FOR))["v2.error_rate"] == "resolve"
    assert succeeds("alerts", "list", url=ready.url) == []
    assert len(succeeds("alerts", "list", "--all", url=ready.url)) == 1


async def test_one_failed_first_call_wakes_nobody(ready: Database) -> None:
    await calls(ready, NOW, good=0, bad=1)
    assert set((await watching.look(ready, NOW)).values()) == {"nothing"}


async def test_slow_calls_open_an_incident(ready: Database) -> None:
    await calls(ready, NOW, good=ENOUGH_CALLS, bad=0, latency_ms=3000)
    assert (await watching.look(ready, NOW))["v2.p95_latency"] == "open"


async def test_data_that_drifts_while_live_is_an_alert_and_moves_nobody(ready: Database) -> None:
    found = await settle(ready, verified=3, unverified=0)
    await write(ready, "enabled = true, enabled_tenants = %s", found.verified[:2])
    drift = "UPDATE relevo.verifications SET state = %s WHERE business_id::text = %s"
    await change(ready, drift, ("drifted", found.verified[2]))
    assert (await watching.look(ready, NOW))["v2.drift"] == "nothing"  # v1 answers for it
    await change(ready, drift, ("drifted", found.verified[0]))
    assert (await watching.look(ready, NOW))["v2.drift"] == "open"
    (incident,) = await rows(ready, "SELECT severity, message FROM relevo.incidents")
    assert incident["severity"] == "warning"
    assert incident["message"].startswith("1 tenant on v2 whose data is not what v1 says, " + found.verified[0])
    assert (await row(ready))["enabled_tenants"] == found.verified[:2]
    await change(ready, drift, ("matched", found.verified[0]))
    await watching.look(ready, NOW + LOOK)
    assert (await watching.look(ready, NOW + LOOK + QUIET_FOR))["v2.drift"] == "resolve"


async def test_a_write_that_waits_long_for_a_live_tenant_is_drift_too(ready: Database) -> None:
    found = await settle(ready, verified=2, unverified=0)
    await write(ready, "enabled = true, enabled_tenants = %s", found.verified)
    queue = """INSERT INTO relevo.mirror_queue (config_id, written_on, operation, reason, writer, queued_at)
               SELECT id, 'v1', 'update', 'a lock', 'somebody', %s FROM public.voice_assistant_configs LIMIT 1"""
    await change(ready, queue, (NOW - timedelta(minutes=1),))
    assert (await watching.look(ready, NOW))["v2.drift"] == "nothing"
    assert (await watching.look(ready, NOW + timedelta(minutes=15)))["v2.drift"] == "open"


async def test_who_lost_the_lease_writes_nothing(ready: Database) -> None:
    await calls(ready, NOW, good=0, bad=30)
    with pytest.raises(LeaseLost):
        await watching.look(ready, NOW, Lease("alerts", 99))
    assert await value(ready, "SELECT count(*) FROM relevo.incidents") == 0


async def test_an_incident_can_be_taken_by_the_first(ready: Database) -> None:
    await note(ready, "critical", 0)
    (known,) = succeeds("alerts", "list", url=ready.url)
    number = str(known["id"])
    assert succeeds("alerts", "ack", number, "--actor", "ana", url=ready.url)["acked_by"] == "ana"
    assert succeeds("alerts", "ack", number, "--actor", "luis", url=ready.url)["acked_by"] == "ana"
    assert (await messages(ready))[-1] == ("pagerduty", "acknowledge")
    assert relevo("alerts", "ack", "99", url=ready.url).status == 2
    for minute in (1, 11):
        await note(ready, "healthy", minute)
    async with ready.transaction() as connection:
        with pytest.raises(Refused, match="is over"):
            await incidents.acknowledge(connection, known["id"], NOW, actor="ana", reason=None)
        with pytest.raises(UnknownName):
            await incidents.acknowledge(connection, 99, NOW, actor="ana", reason=None)


async def test_pagerduty_and_slack_hear_of_it_in_order_through_an_outage(ready: Database) -> None:
    """Down from before it opens until after it is over: then both come, in order, under one key."""
    clock = iter(NOW + timedelta(minutes=minute) for minute in range(1, 10_000))
    async with hook(answer=503) as pager, hook() as slack:
        channels: list[Channel] = [
            PagerDuty("key", pager.url, lambda: NOW),
            Slack(slack.url, "#c", shipped(), lambda: NOW),
        ]
        each = [Delivery(ready, channel, lambda: next(clock), lambda: 0.5) for channel in channels]
        for minute, judgement in ((0, "critical"), (1, "healthy"), (11, "healthy")):
            await note(ready, judgement, minute)  # type: ignore[arg-type]
            for delivery in each:
                await delivery.deliver_next()
        pager.answer = 202
        for _ in range(30):
            for delivery in each:
                await delivery.deliver_next()
        for channel in channels:
            await channel.close()
    assert [event["event_action"] for event in pager.taken] == ["trigger", "resolve"]
    assert len({event["dedup_key"] for event in pager.taken}) == 1
    titles = [message["blocks"][0]["text"]["text"] for message in slack.taken]
    assert [title.split()[1] for title in titles] == ["Voice", "Resolved:"]
    async with ready.transaction() as connection:
        assert await outbox.troubled(connection, 10) == []
