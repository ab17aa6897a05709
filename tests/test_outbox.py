"""Messages: written with what they tell of, delivered once, in order, through failing, limiting and hanging sides."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from relevo.comms import delivery as delivery_module
from relevo.comms import outbox, wire
from relevo.comms.delivery import Delivery
from relevo.comms.email import CONNECTIONS, Email, recipient_of, sender_of, server_of
from relevo.comms.message import Message, Said
from relevo.comms.outcome import Channel, Delivered, NotNow, Outcome
from relevo.comms.pagerduty import PagerDuty, dedup_key, event
from relevo.comms.patience import LONGEST_S, pause_s
from relevo.comms.slack import Slack
from relevo.comms.texts import shipped
from relevo.db.pool import Database
from relevo.db.statements import statement
from relevo.errors import ConfigurationError
from tests.commands import succeeds
from tests.conftest import NOW, change, rows, value
from tests.wires import Postbox, hook, postbox

ALERT = {
    "happened": "opened",
    "severity": "critical",
    "title": "Voice Agent V2: Critical Error Rate",
    "message": "Error rate is 6.20% (threshold: 5%)",
    "action": "Consider immediate rollback",
    "incident": 7,
    "opened_at": "2026-12-01T16:00:00+00:00",
    "at": "2026-12-01T16:00:00+00:00",
}
TRIGGER = {
    "event_action": "trigger",
    "incident": "relevo:incident:7",
    "summary": "Error rate",
    "severity": "critical",
    "at": "2026-12-01T16:00:00+00:00",
}
CLIENT = {"client_name": "La Ñ", "vertical": "dental", "time_zone": "America/Tijuana", "at": None}


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def on(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock() -> Hands:
    return Hands()


async def say(database: Database, key: str, channel: Any = "slack", **more: Any) -> bool:
    notice, variables = {
        "slack": ("alert", ALERT),
        "pagerduty": ("alert", TRIGGER),
        "email": ("client_before", CLIENT),
    }[channel]
    said = Said(key, channel, more.pop("notice", notice), more.pop("variables", variables), **more)
    async with database.transaction() as connection:
        return await outbox.tell(connection, said, NOW)


_opened: list[Channel] = []


@pytest_asyncio.fixture(autouse=True)
async def closed_at_the_end() -> AsyncIterator[None]:
    yield
    while _opened:
        await _opened.pop().close()


def deliver(database: Database, channel: Channel, clock: Hands) -> Delivery:
    _opened.append(channel)
    return Delivery(database, channel, clock, lambda: 0.5)


async def all_due(delivery: Delivery) -> int:
    """Deliver until there is nothing due; how many attempts."""
    attempts = 0
    while tried := await delivery.deliver_due():
        attempts += tried
    return attempts


async def states(database: Database) -> dict[str, tuple[str, int]]:
    found = await rows(database, "SELECT dedup_key, state, attempts FROM relevo.outbox ORDER BY id")
    return {row["dedup_key"]: (row["state"], row["attempts"]) for row in found}


# Writing -----------------------------------------------------------------------------------------------------------


async def test_what_was_said_is_not_said_again(ready: Database) -> None:
    assert await say(ready, "a") is True
    assert await say(ready, "a") is False
    assert await value(ready, "SELECT count(*) FROM relevo.outbox") == 1


async def test_a_message_of_a_change_that_was_undone_was_never_there(ready: Database) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with ready.transaction() as connection:
            await outbox.tell(connection, Said("a", "slack", "alert", ALERT), NOW)
            raise ZeroDivisionError
    assert await states(ready) == {}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE relevo.outbox SET state = 'sent'",
        "UPDATE relevo.outbox SET state = 'dead', settled_at = now()",
        "UPDATE relevo.outbox SET settled_at = now()",
        "UPDATE relevo.outbox SET channel = 'email'",
        "UPDATE relevo.outbox SET channel = 'pigeon'",
        "UPDATE relevo.outbox SET recipient = 'a@b.mx'",
        "UPDATE relevo.outbox SET dedup_key = ''",
        "UPDATE relevo.outbox SET variables = '[]'",
        """INSERT INTO relevo.outbox (dedup_key, channel, notice, created_at, due_at)
           VALUES ('a', 'slack', 'x', now(), now())""",
    ],
)
async def test_the_outbox_keeps_its_own_order(ready: Database, statement: str) -> None:
    await say(ready, "a")
    with pytest.raises(psycopg.IntegrityError):
        await change(ready, statement)


# Delivering --------------------------------------------------------------------------------------------------------


async def test_a_message_arrives_once(ready: Database, clock: Hands) -> None:
    await say(ready, "a")
    async with hook() as slack:
        delivery = deliver(ready, Slack(slack.url, "#c", shipped(), clock), clock)
        assert await all_due(delivery) == 1
        clock.on(days=1)
        assert await all_due(delivery) == 0
    assert await states(ready) == {"a": ("sent", 1)}
    (taken,) = slack.taken
    assert taken["channel"] == "#c"
    assert taken["blocks"][0]["text"]["text"] == ":rotating_light: Voice Agent V2: Critical Error Rate"


async def test_a_side_that_fails_is_asked_again_later_and_later(ready: Database, clock: Hands) -> None:
    await say(ready, "a")
    async with hook(answer=503) as slack:
        delivery = deliver(ready, Slack(slack.url, "#c", shipped(), clock), clock)
        for _ in range(40):
            assert await all_due(delivery) <= 1
            clock.on(seconds=60)
        assert 5 < slack.asked < 20  # in 40 minutes
        slack.answer = 200
        clock.on(minutes=11)
        assert await all_due(delivery) == 1
    assert len(slack.taken) == 1
    (state,) = (await states(ready)).values()
    assert state[0] == "sent"


async def test_a_side_that_limits_is_left_alone_for_as_long_as_it_says(ready: Database, clock: Hands) -> None:
    for key in "abc":
        await say(ready, key)
    async with hook(script=[(429, {"Retry-After": "30"})]) as slack:
        delivery = deliver(ready, Slack(slack.url, "#c", shipped(), clock), clock)
        assert await all_due(delivery) == 1  # the others do not try either
        clock.on(seconds=29)
        assert await all_due(delivery) == 0
        clock.on(seconds=1)
        assert await all_due(delivery) == 3
    assert len(slack.taken) == 3
    assert set((await states(ready)).values()) == {("sent", 1), ("sent", 2)}


async def test_a_side_that_hangs_is_given_up_on_and_asked_again(
    ready: Database, clock: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "ANSWERS_WITHIN_S", 0.2)
    await say(ready, "a")
    async with hook(script=[None]) as slack:
        delivery = deliver(ready, Slack(slack.url, "#c", shipped(), clock), clock)
        assert await all_due(delivery) == 1
        clock.on(minutes=1)
        assert await all_due(delivery) == 1
    assert await states(ready) == {"a": ("sent", 2)}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_through_any_mischief_each_message_arrives_once_or_is_dead_with_its_reason(
    ready: Database, clock: Hands, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Both sides fail, limit, hang and refuse at random, while two processes deliver to each."""
    monkeypatch.setattr(wire, "ANSWERS_WITHIN_S", 0.2)
    dice = random.Random(seed)
    said = [f"{channel} {number}" for number in range(20) for channel in ("slack", "pagerduty")]
    for key in said:
        channel = key.split()[0]
        event = {"variables": {**TRIGGER, "incident": key}} if channel == "pagerduty" else {}
        await say(ready, key, channel, thread=f"{channel} {dice.randrange(8)}", **event)

    def mischief(fine: int) -> list[tuple[int, dict[str, str]] | None]:
        limited = (429, {"Retry-After": str(dice.randrange(1, 90))})
        return [dice.choice([None, (500, {}), (503, {}), limited, (400, {}), (fine, {})]) for _ in range(30)]

    async with hook(script=mischief(200)) as slack, hook(answer=202, script=mischief(202)) as pager:
        each = [deliver(ready, Slack(slack.url, "#c", shipped(), clock), clock) for _ in range(2)]
        each += [deliver(ready, PagerDuty("key", pager.url, clock), clock) for _ in range(2)]
        for _ in range(200):
            await asyncio.gather(*(all_due(one) for one in each))
            if {state for state, _ in (await states(ready)).values()} <= {"sent", "dead"}:
                break
            clock.on(minutes=2)
    found = await rows(ready, "SELECT dedup_key, state, channel, last_error FROM relevo.outbox")
    sent = {channel: [row for row in found if (row["channel"], row["state"]) == (channel, "sent")] for channel in
            ("slack", "pagerduty")}  # fmt: skip
    assert (len(slack.taken), len(pager.taken)) == (len(sent["slack"]), len(sent["pagerduty"]))
    keys = [event["dedup_key"] for event in pager.taken]
    assert len(set(keys)) == len(keys) == len(sent["pagerduty"])
    dead = [row for row in found if row["state"] == "dead"]
    assert len(found) == len(said) == len(dead) + sum(map(len, sent.values()))
    assert dead
    assert all("answered 400" in row["last_error"] for row in dead)


async def test_what_is_refused_for_good_is_dead_and_says_why(ready: Database, clock: Hands) -> None:
    await say(ready, "a", "pagerduty")
    await say(ready, "b", "pagerduty", thread="b")
    async with hook(answer=202, script=[(400, {})]) as pager:
        delivery = deliver(ready, PagerDuty("secret-key", pager.url, clock), clock)
        assert await all_due(delivery) == 2
    assert await states(ready) == {"a": ("dead", 1), "b": ("sent", 1)}
    why = await value(ready, "SELECT last_error FROM relevo.outbox WHERE dedup_key = 'a'")
    assert why == "127.0.0.1 answered 400: no_can_do /v2/enqueue"
    async with ready.transaction() as connection:
        found = await outbox.retry(connection, None, clock(), actor="ana", reason="mended")
        assert (len(found.again), found.over) == (1, [])
    assert (await states(ready))["a"] == ("waiting", 0)
    assert await value(ready, "SELECT actor FROM relevo.audit_log WHERE action = 'notice.retry'") == "ana"


async def test_what_has_ended_meanwhile_is_not_opened_again(ready: Database, clock: Hands) -> None:
    """Else the page would stay open for ever: its end was told before it."""
    resolve = {"event_action": "resolve", "incident": TRIGGER["incident"]}
    await say(ready, "trigger", "pagerduty", thread="7")
    async with hook(script=[(400, {})], answer=202) as pager:
        delivery = deliver(ready, PagerDuty("key", pager.url, clock), clock)
        await all_due(delivery)
        await say(ready, "resolve", "pagerduty", thread="7", variables=resolve)
        await say(ready, "other", "pagerduty", variables={**TRIGGER, "incident": "relevo:incident:8"})
        await change(
            ready,
            "UPDATE relevo.outbox SET state = 'dead', last_error = 'x', settled_at = now() WHERE dedup_key = 'other'",
        )
        await all_due(delivery)
        ids = {row["dedup_key"]: row["id"] for row in await rows(ready, "SELECT id, dedup_key FROM relevo.outbox")}
        answered = succeeds("notify", "retry", "--all", url=ready.url)
        assert answered == {"retried": [ids["other"]], "over": [ids["trigger"]]}
        clock.now = await value(ready, "SELECT max(due_at) FROM relevo.outbox")
        await all_due(delivery)
    assert {key: state for key, (state, _tries) in (await states(ready)).items()} == {
        "trigger": "dead", "resolve": "sent", "other": "sent"
    }  # fmt: skip


async def test_no_secret_is_in_what_is_kept_of_a_failure(ready: Database, clock: Hands) -> None:
    await say(ready, "a")
    await say(ready, "b")
    async with hook(script=[(500, {}), (302, {"Location": "http://127.0.0.1:1/x"})]) as slack:
        delivery = deliver(ready, Slack(f"{slack.url}/services/T0/B0/sesame", "#c", shipped(), clock), clock)
        await all_due(delivery)
        clock.on(minutes=2)
    await all_due(delivery)  # nobody there
    told = await rows(ready, "SELECT last_error FROM relevo.outbox")
    assert all(row["last_error"] for row in told)
    assert "sesame" not in str(told)


async def test_of_one_thread_nothing_overtakes(ready: Database, clock: Hands) -> None:
    await say(ready, "trigger", "pagerduty", thread="7")
    await say(ready, "other", "pagerduty", thread="8")
    resolve = {"event_action": "resolve", "incident": "relevo:incident:7"}
    await say(ready, "resolve", "pagerduty", thread="7", variables=resolve)
    async with hook(answer=202) as pager:
        channel = PagerDuty("key", pager.url, clock)
        async with ready.transaction() as connection:  # another process is at it
            first = await outbox.take(connection, "pagerduty", clock())
            assert first is not None
            assert first.dedup_key == "trigger"
            assert await all_due(deliver(ready, channel, clock)) == 1
            await outbox.put_off(connection, first, clock() + timedelta(minutes=5), "busy")
        assert await all_due(deliver(ready, channel, clock)) == 0
        clock.on(minutes=5)
        assert await all_due(deliver(ready, channel, clock)) == 2
    assert [each["event_action"] for each in pager.taken] == ["trigger", "trigger", "resolve"]


async def test_two_that_deliver_take_different_messages(ready: Database, clock: Hands) -> None:
    for number in range(30):
        await say(ready, str(number))
    async with hook() as slack:
        each = [deliver(ready, Slack(slack.url, "#c", shipped(), clock), clock) for _ in range(4)]
        assert sum(await asyncio.gather(*(all_due(one) for one in each))) == 30
    assert len(slack.taken) == 30


async def test_who_dies_with_a_message_in_hand_lets_it_go(ready: Database, clock: Hands) -> None:
    await say(ready, "a")
    with contextlib.suppress(ZeroDivisionError):
        async with ready.transaction() as connection:
            assert await outbox.take(connection, "slack", clock()) is not None
            raise ZeroDivisionError  # as a killed process: its connection ends
    async with hook() as slack:
        assert await all_due(deliver(ready, Slack(slack.url, "#c", shipped(), clock), clock)) == 1
    assert await states(ready) == {"a": ("sent", 1)}


async def test_who_stops_finishes_what_is_under_way(ready: Database, clock: Hands) -> None:
    await say(ready, "a")
    begun, may_end = asyncio.Event(), asyncio.Event()

    class Slow:
        name = "slack"
        at_once = 1
        closed = False

        async def send(self, _message: Message) -> Outcome:
            begun.set()
            await may_end.wait()
            return Delivered()

        async def close(self) -> None:
            self.closed = True

    channel = Slow()
    task = asyncio.create_task(deliver(ready, channel, clock).keep_delivering())
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert channel.closed
    assert await states(ready) == {"a": ("sent", 1)}


async def test_one_message_that_we_cannot_make_keeps_no_other_waiting(ready: Database, clock: Hands) -> None:
    await say(ready, "a", notice="no_such_notice")
    await say(ready, "b", variables={})
    await say(ready, "c")
    async with hook() as slack:
        assert await all_due(deliver(ready, Slack(slack.url, "#c", shipped(), clock), clock)) == 3
    assert await states(ready) == {"a": ("dead", 1), "b": ("dead", 1), "c": ("sent", 1)}


async def test_what_nobody_could_deliver_in_time_is_dead(ready: Database, clock: Hands) -> None:
    await say(ready, "a")
    await say(ready, "m", "email", recipient="ana@example.mx")
    clock.on(hours=25)
    async with hook() as pager:
        await deliver(ready, PagerDuty("key", pager.url, clock), clock).expire()
    assert await states(ready) == {"a": ("dead", 0), "m": ("waiting", 0)}
    why = await value(ready, "SELECT last_error FROM relevo.outbox WHERE dedup_key = 'a'")
    assert why == "not delivered in time; no process had this channel configured"


# E-mail ------------------------------------------------------------------------------------------------------------


def mailer(url: str) -> Email:
    return Email(url, "TIS TIS <soporte@tistis.com>", "soporte@tistis.com", shipped())


async def test_a_client_gets_text_and_html_in_spanish(ready: Database, clock: Hands) -> None:
    await say(ready, "client_before:1", "email", recipient="ana@example.mx")
    async with postbox() as box:
        channel = mailer(box.url)
        assert await all_due(deliver(ready, channel, clock)) == 1
    (mail,) = box.got
    assert mail["Subject"] == "Mejoras en Voice Agent - Actualización programada"
    assert (mail["To"], mail["From"]) == ("ana@example.mx", "TIS TIS <soporte@tistis.com>")
    text, html = (part.get_content() for part in mail.iter_parts())
    for part in (text, html):
        assert "La Ñ" in part
        assert "Mejor manejo de citas" in part
        assert "durante los próximos días" in part
        assert "No se requiere ninguna acción de su parte" in part


async def test_an_address_that_is_refused_is_dead_and_one_that_is_busy_is_not(ready: Database, clock: Hands) -> None:
    for name in ("gone", "busy", "fine"):
        await say(ready, name, "email", recipient=f"{name}@example.mx")
    box = Postbox(refuses={"gone@example.mx": "550 5.1.1 unknown", "busy@example.mx": "450 4.2.1 later"})
    async with postbox(box):
        channel = mailer(box.url)
        delivery = deliver(ready, channel, clock)
        assert await all_due(delivery) == 3
        assert await states(ready) == {"gone": ("dead", 1), "busy": ("waiting", 1), "fine": ("sent", 1)}
        box.refuses.clear()
        clock.on(minutes=1)
        assert await all_due(delivery) == 1
        await channel.close()
    assert [mail["To"] for mail in box.got] == ["fine@example.mx", "busy@example.mx"]
    assert "550" in await value(ready, "SELECT last_error FROM relevo.outbox WHERE dedup_key = 'gone'")


async def say_to_many(database: Database, count: int) -> None:
    await change(
        database,
        """INSERT INTO relevo.outbox (dedup_key, channel, notice, tenant_id, recipient, variables, created_at, due_at)
           SELECT n::text, 'email', 'client_before', n::text, 'c' || n || '@example.mx',
                  '{"client_name": "Negocio", "vertical": "dental", "time_zone": null, "at": null}', %s, %s
           FROM generate_series(1, %s) AS n""",
        (NOW, NOW, count),
    )


async def test_mail_survives_an_hour_without_its_server(ready: Database, clock: Hands) -> None:
    """When it is back all is sent, but for addresses that it does not take; they keep nobody waiting."""
    await say_to_many(ready, 100)
    await change(ready, "UPDATE relevo.outbox SET recipient = 'ñ@example.mx' WHERE dedup_key = '7'")
    await change(ready, "UPDATE relevo.outbox SET recipient = 'ana@ñandú.mx' WHERE dedup_key = '8'")
    async with postbox(Postbox(refuses={"c1@example.mx": "550 5.1.1 unknown"})) as box:
        port = box.port
    channel = mailer(box.url)
    delivery, attempts = deliver(ready, channel, clock), 0
    for _ in range(60):
        attempts += await all_due(delivery)
        clock.on(minutes=1)
    assert attempts <= 70  # not each mail on its own
    async with postbox(box, port=port):
        for _ in range(12):
            await all_due(delivery)
            clock.on(minutes=1)
        await channel.close()
    assert len(box.got) == len({mail["To"] for mail in box.got}) == 98
    assert box.sessions <= CONNECTIONS + 1  # they are kept
    assert {key for key, (state, _) in (await states(ready)).items() if state != "sent"} == {"1", "7"}
    dead = await rows(ready, "SELECT last_error FROM relevo.outbox WHERE state = 'dead' ORDER BY id")
    assert ["550" in row["last_error"] for row in dead] == [True, False]
    assert "is no e-mail address" in dead[1]["last_error"]
    assert "ana@xn--and-6ma2c.mx" in {mail["To"] for mail in box.got}


class Counted:
    """A channel that holds what it is given until it may end, and counts how many that are."""

    name = "email"
    at_once = 3

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.held = self.most = self.asked = 0
        self.full, self.begun = asyncio.Event(), asyncio.Event()

    async def send(self, message: Message) -> Outcome:
        self.asked += 1
        if message.dedup_key == "1":  # by which it finds out that the channel is there
            return Delivered()
        self.held += 1
        self.begun.set()
        self.most = max(self.most, self.held)
        if self.held == self.at_once:
            self.full.set()
        await self.full.wait()
        self.held -= 1
        return self.outcome

    async def close(self) -> None:
        """Nothing is open."""


async def test_some_are_on_their_way_at_a_time(ready: Database, clock: Hands) -> None:
    await say_to_many(ready, 20)
    channel = Counted(Delivered())
    assert await deliver(ready, channel, clock).deliver_due() == 20
    assert (channel.asked, channel.most) == (20, 3)


async def test_those_that_fail_together_are_one_failure_and_one_finds_out_whether_it_is_over(
    ready: Database, clock: Hands
) -> None:
    await say_to_many(ready, 20)
    channel = Counted(NotNow("away"))
    delivery = deliver(ready, channel, clock)
    assert await delivery.deliver_due() == 4  # the first, and three together
    clock.on(seconds=2)  # the pause after one failure; after three it would be four times as long
    channel.outcome, channel.full, channel.begun = NotNow("still away"), asyncio.Event(), asyncio.Event()
    alone, begun = asyncio.create_task(delivery.deliver_due()), asyncio.create_task(channel.begun.wait())
    await asyncio.wait({alone, begun}, return_when=asyncio.FIRST_COMPLETED)
    assert channel.held == 1
    assert [await delivery.deliver_next() for _ in range(3)] == [False] * 3
    channel.full.set()
    assert await alone == 1


async def test_a_late_answer_is_not_taken_for_anothers(
    ready: Database, clock: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first mail's answer comes when its time is over; by then another mail would be on that connection."""
    monkeypatch.setattr(delivery_module, "SENDS_WITHIN_S", 0.3)
    await say_to_many(ready, 2)
    async with postbox(Postbox(stuck=asyncio.Event(), refuses={"c2@example.mx": "550 unknown"})) as box:
        delivery, stuck = deliver(ready, mailer(box.url), clock), box.stuck
        assert stuck is not None
        assert await delivery.deliver_next()
        asyncio.get_running_loop().call_later(0.1, stuck.set)  # when the next mail has begun
        clock.on(seconds=2)
        assert await all_due(delivery) == 2
    assert await states(ready) == {"1": ("sent", 2), "2": ("dead", 1)}
    assert [mail["To"] for mail in box.got] == ["c1@example.mx"]


async def test_finding_the_next_of_ten_thousand_costs_no_more_than_of_ten(ready: Database, clock: Hands) -> None:
    async def pages() -> int:
        explained = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement("comms", "take").as_string()
        values = {"channel": "email", "now": clock()}
        async with ready.transaction() as connection:
            (found,) = (await (await connection.execute(explained.encode(), values)).fetchall())[0].values()
        return int(found[0]["Plan"]["Shared Hit Blocks"] + found[0]["Plan"]["Shared Read Blocks"])

    await say_to_many(ready, 10)
    few = await pages()
    await change(ready, "DELETE FROM relevo.outbox")
    await say_to_many(ready, 10_000)
    assert await pages() <= few + 10
    await change(ready, "UPDATE relevo.outbox SET state = 'sent', settled_at = now() WHERE id % 10000 < 5000")
    await pages()  # who comes by first clears away what is gone
    assert await pages() <= few + 30


async def test_a_mail_that_is_sent_again_is_known_as_the_same(ready: Database, clock: Hands) -> None:
    """The server takes it and dies before it says so: it must be sent again, and mailboxes can tell."""
    await say(ready, "client_before:1", "email", recipient="ana@example.mx")
    async with postbox() as box:
        for _ in range(2):
            async with ready.transaction() as connection:
                message = await outbox.take(connection, "email", clock())
                assert message is not None
                channel = mailer(box.url)
                assert await channel.send(message) == Delivered()
                await channel.close()
    assert len({mail["Message-ID"] for mail in box.got}) == 1


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ana",
        "ana@",
        "@example.mx",
        "ana@local",
        "a b@example.mx",
        "ana@example.mx\r\nBcc: all@example.mx",
        "a@b.c, d@e.f",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no e-mail address"):
        recipient_of(address)


async def test_a_name_cannot_add_a_header_or_a_script(ready: Database, clock: Hands) -> None:
    name = "Evil\r\nBcc: all@example.mx <script>alert(1)</script> & <mj-include path='/etc/passwd'/>"
    await say(ready, "x", "email", recipient="ana@example.mx", variables={**CLIENT, "client_name": name})
    async with postbox() as box:
        channel = mailer(box.url)
        await all_due(deliver(ready, channel, clock))
    (mail,) = box.got
    assert mail["Bcc"] is None
    _text, html = (part.get_content() for part in mail.iter_parts())
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "root:" not in html


# The wire's own rules -------------------------------------------------------------------------------------------------


def test_an_event_is_within_pagerdutys_limits() -> None:
    long = event({**TRIGGER, "summary": "x" * 5000, "incident": "i" * 5000}, "key")
    assert len(long["dedup_key"]) <= 255
    assert len(long["payload"]["summary"]) == 1024
    assert dedup_key("i" * 5000) != dedup_key("i" * 5001)
    assert event({"event_action": "resolve", "incident": "i"}, "key") == {
        "routing_key": "key",
        "event_action": "resolve",
        "dedup_key": "i",
    }


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_grow_to_a_limit(failures: int, chance: float) -> None:
    assert 1.0 <= pause_s(failures, chance) <= LONGEST_S
    assert pause_s(failures + 1, chance) >= pause_s(failures, chance)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30", 30.0), ("1.5", 1.5), ("Sun, 22 Nov 2026 12:00:20 GMT", 20.0), ("soon", None), (None, None), ("-1", None)],
)
def test_retry_after_is_seconds_or_a_date(written: str | None, seconds: float | None) -> None:
    assert wire.seconds_of(written, NOW) == seconds


@pytest.mark.parametrize("url", ["", "hooks.slack.com/secret", "ftp://x/secret", "https://:80/secret"])
def test_a_url_that_is_none_is_told_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        wire.checked_url("slack_webhook_url", url)
    assert "secret" not in str(error.value) + error.value.fix


@pytest.mark.parametrize("url", ["", "host:25", "http://host", "smtp://", "smtp://u:secret@host:99999"])
def test_a_mail_server_that_is_none_is_told_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        server_of(url)
    assert "secret" not in str(error.value)


def test_a_password_wants_an_encrypted_connection() -> None:
    assert server_of("smtp://u:p%40@mail.example.mx:587").start_tls is True
    assert server_of("smtp://u:p%40@mail.example.mx:587").password == "p@"
    assert server_of("smtp://u:p@127.0.0.1:25").start_tls is None
    assert server_of("smtps://u:p@mail.example.mx").tls


def test_a_sender_that_is_none_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match="mail_from"):
        sender_of("nobody")
