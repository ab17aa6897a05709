"""Whole calls of every shape, in any order, with messages twice or never: one row, one version, figures that are a
recount."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relevo.db.pool import Database
from relevo.metrics import checking
from relevo.metrics.window import Window
from tests.calling import BEGAN, Line, asked, call, message, report, status, tool_calls
from tests.conftest import copied, rows
from tests.inprocess import NOW, Asked, asking
from tests.servers import Server
from tests.test_webhook import prepared

Messages = list[dict[str, Any]]
Shape = Callable[[Line, str], Messages]

ORDER = {"name": "Ana", "items": ["dos tacos"]}
KEPT = (
    "tenant_id", "version", "served_version", "asked", "stage", "status", "outcome", "our_fault", "duration_ms",
    "latency_ms", "ended_at", "answered_at", "hung_up_at", "last_message_at", "tool_outcome", "transferred",
    "fallback", "unanswered", "crossed", "direction",
)  # fmt: skip


def inbound(line: Line, call_id: str) -> Messages:
    function = {"name": "create_order", "arguments": ORDER}
    return [
        asked(line, call_id),
        status(line, call_id, "in-progress", 2),
        tool_calls(line, call_id, {"id": "t", "type": "function", "function": function}),
        message("conversation-update", call(line, call_id), 31, messages=[]),
        status(line, call_id, "ended", 62, endedReason="customer-ended-call"),
        report(line, call_id),
    ]


def with_arguments_as_text(line: Line, call_id: str) -> Messages:
    function = {"name": "create_order", "arguments": '{"name": "Ana", "items": ["dos tacos"]}'}
    said = tool_calls(line, call_id, {"id": "t", "type": "function", "function": function})
    return [asked(line, call_id), said, report(line, call_id, "assistant-ended-call")]


def legacy(line: Line, call_id: str) -> Messages:
    function = {"name": "create_order", "parameters": ORDER}
    return [
        asked(line, call_id),
        message("function-call", call(line, call_id), 20, functionCall=function),
        report(line, call_id, "pipeline-error-openai-llm-failed"),
    ]


def bound(line: Line, call_id: str) -> Messages:
    """A number with an assistant stored at Vapi: it never asks."""
    on = call(line, call_id, assistantId=line.assistant_id)
    said = report(None, call_id)["message"] | {"call": on}
    updates = [message("status-update", on, at, status=word) for at, word in ((1, "ringing"), (2, "in-progress"))]
    return [*updates, {"message": said}]


def web(line: Line, call_id: str) -> Messages:
    """From a browser: no number, and overrides that say whatever they like."""
    foreign = {"metadata": {"business_id": "0f8b2a9e-6c1d-4e57-9a35-3d2f1c7b8e90"}}
    on = call(None, call_id, type="webCall", assistantId=line.assistant_id, assistantOverrides=foreign)
    said = report(None, call_id)["message"] | {"call": on}
    return [message("status-update", on, 1, status="in-progress"), {"message": said}]


def inline(line: Line, call_id: str) -> Messages:
    """After an inline assistant the messages name no assistant, and maybe no number."""
    return [asked(line, call_id), status(None, call_id, "in-progress", 3), report(None, call_id, "silence-timed-out")]


def squad(line: Line, call_id: str) -> Messages:
    on = call(line, call_id, squadId="squad")
    said = report(None, call_id, "assistant-forwarded-call")["message"] | {"call": on}
    return [asked(line, call_id), message("status-update", on, 4, status="forwarding"), {"message": said}]


def in_iso_time(line: Line, call_id: str) -> Messages:
    told = [asked(line, call_id), status(line, call_id, "in-progress", 2), report(line, call_id, "voicemail")]
    for each in told:
        seconds = each["message"]["timestamp"] / 1000 - BEGAN.timestamp()
        each["message"]["timestamp"] = (BEGAN + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    return told


def without_a_duration(line: Line, call_id: str) -> Messages:
    return [asked(line, call_id), report(line, call_id, durationSeconds=None, cost=None, analysis=None, artifact={})]


SHAPES: dict[str, tuple[Shape, str, str]] = {  # whole: how it ends
    "inbound": (inbound, "completed", "order_created"),
    "arguments as text": (with_arguments_as_text, "completed", "order_created"),
    "legacy function-call": (legacy, "failed", "order_created"),
    "bound number": (bound, "completed", "customer_hangup"),
    "web": (web, "completed", "customer_hangup"),
    "inline assistant": (inline, "completed", "timeout"),
    "squad": (squad, "completed", "transferred_to_human"),
    "ISO timestamps": (in_iso_time, "completed", "voicemail"),
    "without a duration": (without_a_duration, "completed", "customer_hangup"),
}

_ids = itertools.count()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(server: Server, template: str) -> AsyncIterator[tuple[Database, Asked, list[Line]]]:
    with copied(server, template) as url:
        async with Database(url) as database:
            found = await prepared(database)
            async with asking(database) as application:
                yield database, application, found


async def told(application: Asked, messages: Messages) -> None:
    for each in messages:
        answer = await application.tell(each)
        assert answer.status == 200, answer.body


async def row_of(database: Database, call_id: str) -> dict[str, Any] | None:
    found = await rows(database, "SELECT * FROM relevo.calls WHERE call_id = %s", [call_id])
    return {name: found[0][name] for name in KEPT} if found else None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_whole_call_ends_as_it_should(
    world: tuple[Database, Asked, list[Line]], shape: str, version: str
) -> None:
    database, application, (on_v2, on_v1, *_) = world
    write, ends, outcome = SHAPES[shape]
    line, call_id = on_v2 if version == "v2" else on_v1, f"whole-{next(_ids)}"
    messages = write(line, call_id)
    await told(application, messages)
    row = await row_of(database, call_id)
    assert row is not None
    expected = version if messages[0]["message"]["type"] == "assistant-request" else "v1"
    assert (row["tenant_id"], row["version"], row["served_version"]) == (line.tenant_id, expected, expected)
    assert (row["status"], row["outcome"], row["duration_ms"], row["crossed"]) == (ends, outcome, 60_000, False)


ANYBODY = Line("tenant", "config", "number-id", "+525511111111", "assistant", "prompt")


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[str, int, list[int], list[int]]:
    """A shape, a line, which of the call's messages are not lost, and how those come: in any order, some twice."""
    shape = draw(st.sampled_from(sorted(SHAPES)))
    many = len(SHAPES[shape][0](ANYBODY, "call"))
    kept = sorted(draw(st.lists(st.integers(0, many - 1), min_size=1, unique=True)))
    twice = draw(st.lists(st.sampled_from(kept), max_size=4))
    return shape, draw(st.integers(0, 1)), kept, draw(st.permutations([*kept, *twice]))


@given(delivery=deliveries())
@example(delivery=("inbound", 0, [0, 3], [3, 0]))
@example(delivery=("inbound", 0, [3, 4], [4, 3]))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_any_order_with_any_message_twice_or_lost_makes_the_same_row(
    world: tuple[Database, Asked, list[Line]], delivery: tuple[str, int, list[int], list[int]]
) -> None:
    database, application, found = world
    shape, which, kept, order = delivery
    (write, _, _), line, number = SHAPES[shape], found[which], next(_ids)
    plain, shuffled = f"plain-{number}", f"shuffled-{number}"
    whole = write(line, plain)
    await told(application, [whole[place] for place in kept])
    again = write(line, shuffled)
    await told(application, [again[place] for place in order])
    assert await row_of(database, shuffled) == await row_of(database, plain)


async def test_afterwards_the_figures_are_a_recount(world: tuple[Database, Asked, list[Line]]) -> None:
    database, _, _ = world
    async with database.transaction() as connection:
        window = Window.between(NOW - timedelta(hours=2), NOW + timedelta(hours=1), NOW)
        checked = await checking.check(connection, window, NOW)
    assert checked.equal, checked
    assert await rows(database, "SELECT call_id FROM relevo.calls WHERE crossed") == []
    assert await rows(database, "SELECT * FROM relevo.call_faults") == []
