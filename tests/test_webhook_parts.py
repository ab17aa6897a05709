"""The pure parts of the webhook, one at a time: parsing, authentication, pins, whose call it is, breakers, words."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.db.pool import Database
from relevo.errors import NoMessage
from relevo.metrics.breakers import Breaker
from relevo.metrics.record import Message, Pin, Standing
from relevo.webhooks import message
from relevo.webhooks.answers import House, Said, assistant, one_line, template, told_at_call
from relevo.webhooks.authentication import Authentication, Signing, sign
from relevo.webhooks.breaker import RULES, passage, trips
from relevo.webhooks.grouping import Grouped
from relevo.webhooks.identify import Entry, directory, identify
from relevo.webhooks.message import Event
from relevo.webhooks.pin import GOOD_FOR, Keys, in_query, signed, verified
from relevo.webhooks.tools import tools_of
from tests.conftest import value
from tests.recorded import asked

NOW = datetime(2026, 11, 22, 18, 5, tzinfo=UTC)
KEYS = Keys({1: b"1" * 32, 2: b"2" * 32})
PIN = Pin(
    call_id="c", tenant_id="t", version="v2", served_version="v1", decided_at=NOW, decided_by="flag", asked=True,
    flag_version=7,
)  # fmt: skip


@given(st.binary())
def test_no_bytes_make_more_than_no_message(body: bytes) -> None:
    with contextlib.suppress(NoMessage):
        message.parse(body)


FIELDS = (
    "call", "phoneNumber", "assistant", "artifact", "analysis", "timestamp", "status", "endedReason", "startedAt",
    "endedAt", "durationSeconds", "cost", "toolCallList", "toolCalls", "functionCall", "id", "function", "arguments",
    "name", "parameters", "performanceMetrics", "turnLatencies", "structuredOutputs", "transfers",
)  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["end-of-call-report", "status-update", "tool-calls", "x"]), st.data())
def test_any_value_anywhere_is_read_or_is_not_there(kind: str, data: st.DataObject) -> None:
    said = {"message": {**data.draw(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5)), "type": kind}}
    event = message.parse(json.dumps(said).encode())
    assert event.type == kind
    assert event.duration_ms is None or event.duration_ms >= 0


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-11-22T18:05:00.000Z", NOW),
        ("2026-11-22T12:05:00-06:00", NOW),
        (int(NOW.timestamp() * 1000), NOW),
        (str(int(NOW.timestamp())), NOW),
        (True, None),
        (1e300, None),
        (-5, None),
        ("yesterday", None),
        ("0001-01-01T00:00:00+14:00", None),
        ({}, None),
    ],
)
def test_times_are_read_in_every_form(written: Any, read: datetime | None) -> None:
    assert message.moment(written) == read


@pytest.mark.parametrize(
    "call",
    [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}},
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "1", "name": "f", "parameters": {"a": 1}},
        {"id": "1", "name": "f", "arguments": {"a": 1}},
    ],
)
@pytest.mark.parametrize("under", [("toolCallList",), ("toolCalls",), ("toolCallList", "toolCalls")])
def test_tool_calls_are_read_in_every_shape_once(call: dict[str, Any], under: tuple[str, ...]) -> None:
    event = message.of({name: [call] for name in under}, "tool-calls")
    assert [(each.id, each.name, each.arguments) for each in event.tool_calls] == [("1", "f", {"a": 1})]


def test_the_snapshot_in_call_is_not_read() -> None:
    call = {"id": "c", "status": "ringing", "endedReason": "customer-busy"}
    event = message.of({"call": call, "endedReason": "voicemail"}, "end-of-call-report")
    assert (event.status, event.ended_reason) == (None, "voicemail")


def test_half_an_emoji_does_not_lose_a_message() -> None:
    before = b'{"message": {"type": "tool-calls", "x": "\\\\\\ud83d", "call": {"id": "c"}, "toolCalls": '
    event = message.parse(before + b'[{"id": "t", "name": "f", "arguments": "{\\"a\\": \\"\\ud83d\\"}"}]}}')
    assert (event.call_id, event.tool_calls[0].arguments) == ("c", {"a": "?"})
    legacy = {"functionCall": {"name": "f", "parameters": '{"a": "\ud83d"}'}}
    assert message.of(legacy, "function-call").tool_calls[0].arguments == {"a": "?"}


@pytest.mark.parametrize("arguments", ["[" * 300 + "]" * 300, '{"a":' * 300 + "1" + "}" * 300])
def test_no_message_is_deeper_than_can_be_written_down(arguments: str) -> None:
    said = '{"message": {"type": "x", "x": "\\ud83d", "toolCalls": [{"id": "t", "name": "n", "arguments": '
    with pytest.raises(NoMessage):
        message.parse(f"{said}{arguments}}}]}}}}".encode())


@given(
    st.binary(max_size=200), st.sampled_from(["sha256", "sha512", "sha1"]), st.booleans(), st.booleans(), st.booleans()
)
def test_signatures_are_read_in_every_form(body: bytes, algorithm: Any, timed: bool, in_hex: bool, named: bool) -> None:
    signing = Signing(secrets=("old", "new"), algorithm=algorithm, signs_time=timed)
    stamp = str(int(NOW.timestamp() * 1000))
    digest = hmac.digest(b"new", stamp.encode() + b"." + body if timed else body, algorithm)
    shown = digest.hex() if in_hex else base64.b64encode(digest).decode()
    headers = {"x-signature": (f"{algorithm}=" if named else "") + shown, "x-timestamp": stamp}
    accepts = Authentication(signing=signing)
    assert accepts.by_signature(headers, body, NOW)
    assert not accepts.by_signature(headers, body + b"x", NOW)
    assert not replace(accepts, signing=replace(signing, secrets=("old",))).by_signature(headers, body, NOW)
    assert accepts.by_signature(headers, body, NOW + timedelta(minutes=6)) is not timed  # a replay


def test_nobody_is_let_in_by_what_is_not_configured() -> None:
    assert not Authentication().configured
    assert not Authentication().by_headers({"x-vapi-secret": "", "authorization": "Bearer "})
    assert not Authentication().by_signature({"x-signature": sign("", b"."), "x-timestamp": "1"}, b"", NOW)
    assert Authentication(none=True).by_headers({})
    assert Authentication(bearers=("b",)).by_headers({"authorization": "bearer b"})


def test_a_pin_is_read_again_by_whoever_has_a_key() -> None:
    text = signed(PIN, KEYS)
    assert text is not None
    assert verified(text, KEYS, NOW) == PIN
    assert verified(text, Keys({1: KEYS.secrets[1]}), NOW) is None
    assert verified(text, KEYS, NOW + GOOD_FOR + timedelta(seconds=1)) is None
    assert signed(PIN, Keys({})) is None


@given(st.data())
def test_a_pin_with_any_bit_changed_is_none(data: st.DataObject) -> None:
    raw = bytearray(base64.urlsafe_b64decode((signed(PIN, KEYS) or "") + "=="))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert verified(base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), KEYS, NOW) is None


def test_a_query_of_many_fields_holds_no_pin() -> None:
    assert in_query(b"a=1&pin=x") == "x"
    assert in_query(b"pin=x" + b"&a=1" * 30) is None


@given(st.text())
def test_no_text_is_a_pin(text: str) -> None:
    assert verified(text, KEYS, NOW) is None


def entry(tenant: str, **more: Any) -> Entry:
    return Entry(f"config of {tenant}", tenant, more.pop("active", True), True, True, **more)


def test_the_number_tells_before_the_assistant() -> None:
    known = directory([entry("a", number_ids=("n",)), entry("b", v1_assistant="x")])
    found = identify(known, Event(type="x", number_id="n", call_assistant_id="x")).entry
    assert found is not None
    assert found.tenant_id == "a"


def test_a_number_of_two_tenants_tells_nothing_by_itself() -> None:
    known = directory([entry("a", number_ids=("n",)), entry("b", number_ids=("n",), v1_assistant="x")])
    assert identify(known, Event(type="x", number_id="n")).entry is None
    found = identify(known, Event(type="x", number_id="n", call_assistant_id="x")).entry
    assert found is not None
    assert found.tenant_id == "b"


def test_an_assistant_of_a_third_tenant_does_not_decide_between_two() -> None:
    two = [entry("a", number_ids=("n",)), entry("b", number_ids=("n",))]
    known = directory([*two, entry("c", v1_assistant="x")])
    assert identify(known, Event(type="x", number_id="n", call_assistant_id="x")).entry is None


@given(st.permutations([entry("a", active=False, since=1.0), *(entry("a", since=each) for each in (None, 2.0, 3.0))]))
def test_of_a_tenant_s_configurations_the_active_and_oldest_answers_first(given_so: list[Entry]) -> None:
    found = directory(given_so).by_tenant["a"]
    assert [(each.active, each.since) for each in found] == [(True, 2.0), (True, 3.0), (True, None), (False, 1.0)]


def test_a_web_call_is_not_believed_about_its_assistant() -> None:
    known = directory([entry("a", v1_assistant="x")])
    assert identify(known, Event(type="x", assistant_id="x", direction="web")).entry is None
    assert identify(known, Event(type="x", assistant_id="x", direction="inbound")).entry is not None


def test_only_what_v2_alone_has_is_v2s() -> None:
    known = directory([entry("a", v2_assistant="new", v1_assistant="old")])
    assert identify(known, Event(type="x", call_assistant_id="new")).only_v2_has_it
    assert not identify(known, Event(type="x", call_assistant_id="old")).only_v2_has_it


def breaker(state: Any, **more: Any) -> Breaker:
    zero = {"forced": False, "window_at": NOW, "calls": 0, "failures": 0, "slow": 0, "opened_at": None}
    rest = {"probe_at": None, "probe_by": None, "changed_by": "x", "changed_why": None, "changed_at": NOW}
    return Breaker(version="v2", upstream="", state=state, **{**zero, **rest, **more})


@pytest.mark.parametrize(
    ("seen", "how"),
    [
        (None, "go"),
        (breaker("closed", calls=100, failures=100), "go"),
        (breaker("open", probe_at=NOW + timedelta(seconds=1)), "stop"),
        (breaker("open", probe_at=NOW), "probe"),
        (breaker("open", forced=True, probe_at=NOW), "stop"),
        (breaker("half_open", probe_at=NOW + timedelta(seconds=1)), "stop"),
        (breaker("half_open", probe_at=NOW), "probe"),
    ],
)
def test_who_may_go_through_a_breaker(seen: Breaker | None, how: str) -> None:
    assert passage(seen, NOW) == how


@pytest.mark.parametrize(
    ("seen", "opens"),
    [
        (breaker("closed", calls=RULES.at_least - 1, failures=RULES.at_least - 1), False),
        (breaker("closed", calls=10, failures=5), True),
        (breaker("closed", calls=10, failures=4), False),
        (breaker("closed", calls=10, slow=8), True),
        (breaker("closed", calls=10, failures=10, forced=True), False),
        (breaker("open", calls=10, failures=10), False),
    ],
)
def test_when_a_breaker_opens(seen: Breaker, opens: bool) -> None:
    assert (trips(seen) is not None) is opens


@given(st.text(), st.text())
def test_no_prompt_can_hold_the_gap_of_the_pin(prompt: str, token: str) -> None:
    house = House("https://x/webhooks/vapi", None, {"model": {}, "voice": {}})
    said = Said("x", "@pin@" + prompt.encode(errors="replace").decode(), "?pin=@pin@", "v")
    made = template(assistant(said, entry("a"), "v1", house, NOW), house)
    filled = json.loads(made.filled("TOKEN"))["assistant"]
    assert filled["model"]["messages"][0]["content"] == said.system_prompt
    assert filled["server"]["url"] == "https://x/webhooks/vapi?pin=TOKEN"
    assert "url" in json.loads(made.filled(None))["assistant"]["server"]
    assert "\n" not in one_line(token)


def test_a_capability_is_a_tool_and_a_line_is_a_transfer() -> None:
    named = [tool["function"]["name"] for tool in tools_of(["reservations", "faq", "orders"], None)]
    assert named == ["create_reservation", "create_order"]
    (transfer,) = tools_of(["human_transfer"], "+525512345678")
    assert transfer["destinations"] == [{"type": "number", "number": "+525512345678"}]


@pytest.mark.parametrize("zone", ["America/Mexico_City", "America/Tijuana", "Asia/Kathmandu", "no/where", "", None])
async def test_the_day_is_told_as_the_database_tells_it(ready: Database, zone: str | None) -> None:
    for hours in range(0, 24 * 9, 7):
        now = NOW + timedelta(hours=hours, minutes=hours)
        minutes = await value(ready, "SELECT relevo.minutes_from_utc(%s, %s)", [now, zone])
        assert told_at_call(now, minutes) == await value(ready, "SELECT relevo.told_at_call(%s, %s)", [now, zone])


def standing(said: Message) -> Standing:
    return Standing(**{name: getattr(said, name) for name in PIN.__slots__}, status="asked")


async def test_who_comes_as_a_group_is_done_goes_with_the_next() -> None:
    async def write(messages: Sequence[Message]) -> dict[str, Standing]:
        return {
            each.call_id: Standing(**{n: getattr(each, n) for n in PIN.__slots__}, status="asked") for each in messages
        }

    grouped = Grouped(write, most=2, at_once=1, within_s=1)
    for number in range(20):
        async with asyncio.timeout(5):
            stands = await grouped.put(asked(str(number)))
            assert stands is not None
            assert stands.call_id == str(number)


async def test_the_next_group_is_under_way_before_the_one_that_is_done_is_answered() -> None:
    happened: list[str] = []

    async def write(messages: Sequence[Message]) -> dict[str, Standing]:
        happened.append("write " + " ".join(each.call_id for each in messages))
        await asyncio.sleep(0)
        return {each.call_id: standing(each) for each in messages}

    async def ask(call_id: str) -> None:
        await grouped.put(asked(call_id))
        happened.append(f"answer {call_id}")

    grouped = Grouped(write, most=2, at_once=1, within_s=1)
    await asyncio.gather(*(ask(each) for each in "abcd"))
    assert happened == ["write a b", "write c d", "answer a", "answer b", "answer c", "answer d"]


async def test_nobody_waits_longer_because_others_were_there_before() -> None:
    written: list[str] = []

    async def write(messages: Sequence[Message]) -> dict[str, Standing]:
        written.extend(each.call_id for each in messages)
        await asyncio.sleep(0.04)  # a slow database, each of whose answers is in time
        return {each.call_id: standing(each) for each in messages}

    grouped = Grouped(write, most=1, at_once=1, within_s=0.1)
    done = await asyncio.gather(*(grouped.put(asked(each)) for each in "abcdef"), return_exceptions=True)
    assert isinstance(done[-1], TimeoutError)
    await grouped.finish()
    assert "f" not in written  # for nobody waits for it any more


async def test_one_message_that_cannot_be_stored_takes_no_other_with_it() -> None:
    async def write(messages: Sequence[Message]) -> dict[str, Standing]:
        if any(each.call_id == "bad" for each in messages):
            raise OSError
        return {
            each.call_id: Standing(**{n: getattr(each, n) for n in PIN.__slots__}, status="asked") for each in messages
        }

    grouped = Grouped(write, most=10, at_once=1, within_s=1)
    waiting = [grouped.put(asked(name)) for name in ("a", "bad", "b")]
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(each, OSError) for each in done] == [False, True, False]


async def test_no_call_waits_for_a_write_that_cannot_be_called_off() -> None:
    let_go = asyncio.Event()

    async def write(messages: Sequence[Message]) -> dict[str, Standing]:
        if messages[0].call_id == "hangs":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await let_go.wait()  # as a driver does that asks a silent server to cancel
        return {each.call_id: standing(each) for each in messages}

    grouped = Grouped(write, most=10, at_once=1, within_s=0.05)
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            await grouped.put(asked("hangs"))
        stored = await grouped.put(asked("the next"))
        assert stored is not None
        assert stored.call_id == "the next"
        let_go.set()
        await grouped.finish()
