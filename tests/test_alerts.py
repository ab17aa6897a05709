"""Alerts: thresholds at each boundary, one incident per cause, and messages that arrive once, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from relevo.alerts import incidents, messages
from relevo.alerts.incidents import QUIET_FOR, settle
from relevo.alerts.thresholds import CALLS_FROM, THRESHOLDS, Condition, conditions, severity
from relevo.comms import outbox
from relevo.comms.outbox import LONGEST_WAIT, TRIES, Route, deliver, wait_for
from relevo.db.pool import Database
from relevo.errors import UnknownName
from relevo.metrics.health import Health
from relevo.rollout import controller
from tests.commands import relevo
from tests.conftest import rows, value
from tests.rollouts import scene

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BAD = Condition("error_rate", "warning", "High", "3 %")
WORSE = Condition("error_rate", "critical", "Critical", "6 %", "act")


@pytest.mark.parametrize(
    ("cause", "figure", "expected"),
    [
        ("error_rate", 0.0199, None),
        ("error_rate", 0.02, None),
        ("error_rate", 0.0201, "warning"),
        ("error_rate", 0.05, "warning"),
        ("error_rate", 0.0501, "critical"),
        ("p95_latency", 800, None),
        ("p95_latency", 801, "warning"),
        ("p95_latency", 1200, "warning"),
        ("p95_latency", 1201, "critical"),
        ("breaker_opens", 0, None),
        ("breaker_opens", 1, "warning"),
        ("breaker_opens", 2, "warning"),
        ("breaker_opens", 3, "critical"),
        ("breaker_opens", 4, "critical"),
        ("error_rate", None, None),
    ],
)
def test_a_threshold_speaks_from_its_boundary_on(cause: str, figure: float | None, expected: str | None) -> None:
    (threshold,) = (each for each in THRESHOLDS if each.cause == cause)
    assert severity(threshold, figure) == expected


def test_a_rate_of_a_few_calls_says_nothing() -> None:
    assert conditions(Health("v2", total_calls=CALLS_FROM - 1, errors=CALLS_FROM - 1)) == []
    (found,) = conditions(Health("v2", total_calls=CALLS_FROM, errors=2))
    assert (found.severity, found.message) == ("critical", "Error rate is 10.00% (threshold: 5%)")


async def look(database: Database, now: datetime, *found: Condition) -> list[str]:
    """What is told."""
    async with database.transaction() as connection:
        return [event for event, _ in await settle(connection, found, now)]


async def test_an_incident_is_told_when_it_opens_when_it_gets_worse_and_when_it_is_over(ready: Database) -> None:
    told = []
    for minute, found in enumerate([(), (BAD,), (BAD,), (WORSE,), (BAD,), (WORSE,), (), (BAD,), (), ()]):
        told.append(await look(ready, NOW + minute * MINUTE, *found))
    assert told == [[], ["open"], [], ["escalate"], [], [], [], [], [], []]
    over = NOW + 7 * MINUTE + QUIET_FOR
    assert await look(ready, over - MINUTE) == []
    assert await look(ready, over) == ["resolve"]
    assert await look(ready, over + MINUTE) == []
    assert await look(ready, over + 2 * MINUTE, BAD) == ["open"]


async def test_what_was_told_is_in_the_platforms_table_the_audit_log_and_the_outbox(ready: Database) -> None:
    await look(ready, NOW, BAD)
    await look(ready, NOW + MINUTE, WORSE)
    await look(ready, NOW + MINUTE + QUIET_FOR)
    alerts = await rows(ready, "SELECT type, title, action FROM public.rollout_alerts ORDER BY id")
    assert [tuple(each.values()) for each in alerts] == [("warning", "High", None), ("critical", "Critical", "act")]
    audited = await rows(ready, "SELECT action FROM relevo.audit_log WHERE action LIKE 'alert.%%' ORDER BY id", ())
    assert [each["action"] for each in audited] == ["alert.open", "alert.escalate"]
    waiting = await rows(ready, "SELECT channel, kind FROM relevo.outbox ORDER BY id")
    assert [tuple(each.values()) for each in waiting] == [
        ("slack", "incident.open"), ("slack", "incident.escalate"), ("pagerduty", "incident.escalate"),
        ("slack", "incident.resolve"), ("pagerduty", "incident.resolve"),
    ]  # fmt: skip


async def test_two_who_look_at_once_tell_once(ready: Database) -> None:
    await asyncio.gather(*(look(ready, NOW, WORSE) for _ in range(5)))
    assert await value(ready, "SELECT count(*) FROM relevo.incidents") == 1
    assert await value(ready, "SELECT count(*) FROM relevo.outbox") == 2


async def test_somebody_takes_an_incident_once(ready: Database) -> None:
    await look(ready, NOW, BAD)
    async with ready.transaction() as connection:
        assert (await incidents.ack(connection, 1, "ana", None, NOW)).acked_by == "ana"
        with pytest.raises(UnknownName, match="no incident 1 that waits"):
            await incidents.ack(connection, 1, "eva", None, NOW)


# Messages -------------------------------------------------------------------------------------------------------------

FACTS = {"event": "open", "incident": 7, "cause": "error_rate", "severity": "critical", "title": "T" * 300,
         "message": "<!channel> " + "m" * 5000, "action": "act", "at": "2026-11-23T12:00:00+00:00"}  # fmt: skip


def test_slack_gets_blocks_within_their_lengths_and_nobodys_mentions() -> None:
    body = messages.slack("incident.open", FACTS)
    header, section = body["blocks"]
    assert len(header["text"]["text"]) == messages.HEADER
    assert len(section["text"]["text"]) == messages.TEXT
    assert "<!channel>" not in section["text"]["text"]


def test_a_rollback_reads_as_the_specification_has_it() -> None:
    facts = {"event": "roll_back", "at": "2024-01-20T14:35:00", "target": "RolledBack", "actor": "controller",
             "why": "Error rate exceeded 5%", "tenant": None, "phase": "expansion", "tenants_on_v2": 0}  # fmt: skip
    body = messages.slack("rollout.roll_back", facts)
    text = body["blocks"][1]["text"]["text"]
    assert "URGENT: Voice Agent V2 Rollback Initiated" in body["text"]
    for line in ("Trigger:* Error rate exceeded 5%", "Action:* Rolled back to 0%", "Time:* 2024-01-20 14:35 UTC"):
        assert line in text


def test_pagerduty_is_triggered_and_resolved_by_one_key() -> None:
    event = messages.pagerduty("secret")
    opened, over = event("incident.open", FACTS), event("incident.resolve", FACTS)
    assert opened["dedup_key"] == over["dedup_key"] == "relevo-incident-7"
    assert (opened["event_action"], over["event_action"]) == ("trigger", "resolve")
    assert len(opened["payload"]["summary"]) == messages.SUMMARY
    assert "payload" not in over


def test_waits_grow_to_an_hour_and_are_spread() -> None:
    waits = [wait_for(5, tries) for tries in range(TRIES)]
    assert timedelta(seconds=2.5) <= waits[0] <= timedelta(seconds=5)
    assert LONGEST_WAIT / 2 <= waits[-1] <= LONGEST_WAIT
    assert len({wait_for(number, 12) for number in range(50)}) > 40


@dataclass
class Channel:
    """A stand-in that answers as it is told, and keeps what it took."""

    answers: list[int] = field(default_factory=list)  # statuses to come; 0 hangs; then 200
    taken: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        """One POST."""
        status = self.answers.pop(0) if self.answers else 200
        if status == 0:
            await asyncio.Event().wait()
        if status == 200:
            self.taken.append(await request.json())
        return web.Response(status=status, headers={"Retry-After": "30"} if status == 429 else {})


@asynccontextmanager
async def channel(*answers: int) -> AsyncIterator[Channel]:
    """A stand-in on a port of its own."""
    stand_in = Channel(list(answers))
    app = web.Application()
    app.router.add_post("/secret-path", stand_in.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stand_in.url = f"http://127.0.0.1:{runner.addresses[0][1]}/secret-path"
    try:
        yield stand_in
    finally:
        await runner.cleanup()


async def send_all(database: Database, stand_in: Channel, now: datetime, *, rounds: int = 30) -> datetime:
    """Deliver until nothing waits, an hour between looks."""
    routes = {"slack": Route(stand_in.url, messages.slack)}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.3)) as http:
        for _ in range(rounds):
            while await deliver(database, routes, http, now):
                pass
            now += timedelta(hours=1)
    return now


@pytest.mark.parametrize("answers", [(), (500, 503), (429, 429), (0, 0), (500, 0, 429)])
async def test_a_message_arrives_once_whatever_the_channel_does(ready: Database, answers: tuple[int, ...]) -> None:
    await look(ready, NOW, BAD)
    async with channel(*answers) as stand_in:
        await send_all(ready, stand_in, NOW, rounds=8)
        assert len(stand_in.taken) == 1
    (message,) = await rows(ready, "SELECT state, tries FROM relevo.outbox")
    assert tuple(message.values()) == ("sent", len(answers) + 1)


async def test_what_cannot_be_sent_is_listed_with_the_reason_and_without_the_address(ready: Database) -> None:
    await look(ready, NOW, BAD)
    async with channel(400) as stand_in:
        await send_all(ready, stand_in, NOW, rounds=1)
    await look(ready, NOW, Condition("other", "warning", "a", "b"))
    stand_in.url = "http://127.0.0.1:1/secret-path"
    later = await send_all(ready, stand_in, NOW, rounds=TRIES + 2)
    async with ready.transaction(read_only=True) as connection:
        found = await outbox.unsent(connection, later, 10)
    assert [(each["state"], each["tries"]) for each in found] == [("dead", TRIES), ("dead", 1)]
    assert found[1]["fault"] == "answered 400"
    assert "secret" not in str(found)


async def test_a_channel_that_asks_to_wait_is_left_alone_so_long(ready: Database) -> None:
    await look(ready, NOW, BAD)
    async with channel(429) as stand_in:
        await send_all(ready, stand_in, NOW, rounds=1)
    due = await value(ready, "SELECT due_at FROM relevo.outbox")
    assert due >= NOW + timedelta(seconds=30)


async def test_several_who_deliver_send_each_message_once(ready: Database) -> None:
    for number in range(12):
        await look(ready, NOW, *(Condition(f"cause {each}", "warning", "a", "b") for each in range(number + 1)))
    async with channel() as stand_in:
        await asyncio.gather(*(send_all(ready, stand_in, NOW, rounds=2) for _ in range(4)))
        assert len(stand_in.taken) == 12


# The rollout ----------------------------------------------------------------------------------------------------------


async def test_the_rollout_tells_of_itself_in_its_own_transaction(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.tick(seconds=5)
    here.now += 2 * MINUTE
    await here.calls("v2", 40, errors=16)
    await here.calls("v1", 120, errors=2)
    await here.tick(seconds=1)
    await controller.watch(ready, here.now)
    told = await rows(ready, "SELECT kind, data FROM relevo.outbox WHERE channel = 'slack' ORDER BY id")
    assert [each["kind"] for each in told] == ["rollout.start", "rollout.roll_back", "incident.open"]
    assert (told[1]["data"]["target"], told[1]["data"]["tenants_on_v2"]) == ("RolledBack", 0)
    assert messages.slack("rollout.roll_back", told[1]["data"])


async def test_when_both_versions_suffer_somebody_is_paged(ready: Database) -> None:
    here = await scene(ready)
    await here.start()
    await here.tick(seconds=5)
    here.now += 2 * MINUTE
    await here.calls("v2", 40, errors=12)
    await here.calls("v1", 120, errors=36)
    await here.tick(seconds=1)
    await controller.watch(ready, here.now)
    pages = await rows(ready, "SELECT data FROM relevo.outbox WHERE channel = 'pagerduty' ORDER BY id")
    assert {each["data"]["cause"] for each in pages} == {"error_rate", "rollout_degraded"}


async def test_the_commands(ready: Database) -> None:
    await look(ready, NOW, WORSE)
    listed = await asyncio.to_thread(relevo, "alerts", "list", url=ready.url)
    assert (listed.status, [each["cause"] for each in listed.data["incidents"]]) == (1, ["error_rate"])
    acked = await asyncio.to_thread(relevo, "alerts", "ack", "1", "--actor", "ana", url=ready.url)
    assert (acked.status, acked.data["acked_by"]) == (0, "ana")
    assert (await asyncio.to_thread(relevo, "alerts", "ack", "9", url=ready.url)).status == 2
