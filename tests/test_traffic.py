"""Simulated traffic: whole calls over real HTTP, told apart by who answered, and nothing of them lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from relevo.clock import CompressedClock, system_clock
from relevo.db.pool import Database
from relevo.metrics.record import Pin, Version
from relevo.simulator.lines import Line, named
from relevo.simulator.script import FAULT, Manner, draw, understood
from relevo.simulator.tally import percentile
from relevo.simulator.traffic import Credentials, Flow, Traffic
from relevo.webhooks import pin as pins
from tests.calling import SECRET
from tests.commands import relevo
from tests.conftest import copied, rows
from tests.servers import Server
from tests.serving import serving
from tests.standins import Reply, Request, StandIn, stand_in
from tests.test_webhook import Exchange, prepared

on_pg18 = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

LINE = Line(None, "number-1", None)
FLOW = Flow(rate=1_000, calls=1, call_s=0.1)
NOW = datetime(2026, 11, 22, 18, tzinfo=UTC)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def exchange(server: Server, template: str) -> AsyncIterator[Exchange]:
    with copied(server, template) as url:
        async with Database(url) as database:
            on_v2, on_v1, *others = await prepared(database)
            with serving(url, env={"RELEVO_VAPI_HMAC_SECRET": SECRET}) as served:
                yield Exchange(served, database, on_v1, on_v2, others)


def traffic(exchange: Exchange, *words: str, secret: str = SECRET) -> Any:
    """The command, against the running server."""
    where = ("--url", exchange.served.address, "--hmac-secret", secret, "--call-seconds", "0.2", "--rate", "200")
    return relevo("simulate", "traffic", *where, *words, url=exchange.database.url)


def assistant(exchange_url: str, **more: Any) -> dict[str, Any]:
    """An answer as ours are, sent on to a stand-in."""
    server = {"url": f"{exchange_url}/hook", "backoffPlan": {"maxRetries": 3, "baseDelaySeconds": 0.01}}
    return {"assistant": {"server": server, "metadata": {"agent_version": "v2"}, **more}}


async def playing(url: str, flow: Flow = FLOW, manner: Manner | None = None, **shown: Any) -> Traffic:
    """Traffic to a stand-in, over."""
    said = manner or Manner(error_rate=0)
    async with Traffic(url, Credentials(**shown), lambda _line, _version: said, Random(1), system_clock) as played:
        await played.flow([LINE], flow)
    return played


@on_pg18
async def test_nobody_who_may_not_speak_is_answered(exchange: Exchange) -> None:
    done = traffic(exchange, "--calls", "5", secret="wrong")
    assert (done.status, done.data["unanswered"], done.data["answered"]) == (1, 5, 0)
    assert done.data["refused"]["401"] >= 5


@on_pg18
async def test_an_unknown_number_hears_an_apology_and_that_is_no_success(exchange: Exchange) -> None:
    done = traffic(exchange, "--calls", "3", "--numbers", "nobodys-number")
    assert (done.status, done.data["apologies"], done.data["unserved"]) == (1, 3, {"nobodys-number": 3})


@on_pg18
async def test_a_tenant_that_does_not_exist_is_no_silent_no_op(exchange: Exchange) -> None:
    done = traffic(exchange, "--tenant-ids", "00000000-0000-0000-0000-000000000000")
    assert (done.status, done.data["error"]["code"]) == (2, "UnknownName")


@pytest.mark.parametrize("words", [("--rate", "0"), ("--calls", "0"), ("--error-rate", "8"), ("--latency", "-1")])
@on_pg18
async def test_numbers_that_make_no_sense_are_refused(exchange: Exchange, words: tuple[str, str]) -> None:
    assert traffic(exchange, *words).status == 2


@on_pg18
async def test_what_was_sent_is_what_the_database_has(exchange: Exchange) -> None:
    pair = f"{exchange.on_v1.tenant_id},{exchange.on_v2.tenant_id}"
    before = await _recorded(exchange.database)
    words = ("--calls", "60", "--tenant-ids", pair, "--v2-error-rate", "1", "--v1-error-rate", "0", "--latency", "500")
    done = traffic(exchange, *words)
    assert done.status == 0, done.data
    after = await _recorded(exchange.database)
    told = {
        (version, FAULT if fault else None): many
        for version, each in done.data["versions"].items()
        for fault, many in ((True, each["errors"]), (False, each["calls"] - each["errors"]))
        if many
    }
    assert {key: after[key] - before.get(key, 0) for key in told} == told
    assert sum(told.values()) == 60
    assert {version for version, _ in told} == {"v1", "v2"}
    assert done.data["versions"]["v2"]["errors"] == done.data["versions"]["v2"]["calls"]
    assert done.data["versions"]["v1"]["reported_p50_ms"] == pytest.approx(500, rel=0.4)


async def _recorded(database: Database) -> dict[tuple[str, str | None], int]:
    """Finished calls by who served them, and whether they ended by our fault."""
    found = await rows(
        database,
        """SELECT served_version, CASE WHEN our_fault THEN 'assistant-not-valid' END AS fault, count(*) AS many
           FROM relevo.calls WHERE stage = 6 AND asked AND tenant_id IS NOT NULL GROUP BY 1, 2""",
    )
    return {(row["served_version"], row["fault"]): row["many"] for row in found}


async def test_what_is_not_taken_comes_again_by_the_answers_own_plan() -> None:
    refusals = itertools.count()

    def answering(request: Request) -> Reply:
        if request.json["message"]["type"] == "assistant-request":
            return Reply(body=assistant(here.url))
        report = request.json["message"]["type"] == "end-of-call-report"
        return Reply(503 if report and next(refusals) < 2 else 200)

    with stand_in(answering) as here:
        played = await playing(here.url)
    assert (played.tally.resent, played.tally.lost, played.tally.refused) == (2, 0, {"503": 2})
    assert len(here.of_type("end-of-call-report")) == 3


async def test_what_is_never_taken_is_told() -> None:
    def answering(request: Request) -> Reply:
        asked = request.json["message"]["type"] == "assistant-request"
        return Reply(body=assistant(here.url)) if asked else Reply(503)

    with stand_in(answering) as here:
        played = await playing(here.url)
    assert played.tally.lost == 3
    assert not played.tally.all_answered


async def test_only_what_the_assistant_subscribes_to_is_sent() -> None:
    wanted = ["end-of-call-report"]
    with stand_in() as here:
        here.answering = lambda _request: Reply(body=assistant(here.url, serverMessages=wanted))
        await playing(here.url)
        assert kinds(here) == ["assistant-request", "end-of-call-report"]


async def test_the_secret_is_shown_to_nobody_but_whom_we_asked() -> None:
    with stand_in() as elsewhere, stand_in() as here:
        told = assistant(elsewhere.url)
        told["assistant"]["server"]["credentialId"] = "ours"
        here.answering = lambda _request: Reply(body=told)
        await playing(here.url, secret="hush")
        assert [each.headers.get("x-vapi-secret") for each in here.received] == ["hush"]
        assert kinds(elsewhere) == ["status-update", "status-update", "end-of-call-report"]
        assert not any("x-vapi-secret" in each.headers for each in elsewhere.received)


async def test_no_answer_is_reported_as_vapi_does() -> None:
    with stand_in(lambda _request: Reply(500)) as here:
        played = await playing(here.url)
        assert (played.tally.unanswered, played.tally.all_answered) == (1, False)
        assert here.received[-1].json["message"]["endedReason"] == "assistant-request-failed"


def kinds(stand_in: StandIn) -> list[str]:
    """The types of what was received, in order."""
    return [each.json["message"]["type"] for each in stand_in.received]


@pytest.mark.parametrize("answer", [None, {}, [], {"error": "Disculpe"}, {"destination": {"type": "number"}}])
def test_what_is_no_assistant_is_not_heard_as_one(answer: Any) -> None:
    assert understood(answer) is None


@pytest.mark.parametrize(("decided", "served"), [("v1", "v1"), ("v2", "v2"), ("v2", "v1")])
def test_the_pin_tells_who_answers(decided: Version, served: Version) -> None:
    pin = Pin(
        call_id="call",
        tenant_id="tenant",
        version=decided,
        served_version=served,
        decided_at=NOW,
        decided_by="flag",
        asked=True,
        flag_version=3,
    )
    token = pins.signed(pin, pins.Keys({1: b"key"}))
    heard = understood({"assistantId": "a", "assistantOverrides": {"server": {"url": f"https://r.test/w?pin={token}"}}})
    assert heard is not None
    assert (heard.decided, heard.version) == (decided, served)


def test_the_same_dice_draw_the_same_call_but_never_the_id_of_an_earlier_one() -> None:
    first, again = draw(Random(3), LINE, NOW, 3.0), draw(Random(3), LINE, NOW + timedelta(seconds=1), 3.0)
    assert (first.luck, first.lasts_s) == (again.luck, again.lasts_s)
    assert first.call_id != again.call_id


def test_a_number_and_its_id_are_told_apart() -> None:
    assert [(each.number_id, each.number) for each in named(["+525512345678", "f3b-id"])] == [
        (None, "+525512345678"),
        ("f3b-id", None),
    ]


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentile([float(n) for n in range(1, 21)], 0.95) == 19
    assert percentile([], 0.5) is None


async def test_a_compressed_clock_runs_so_many_times_as_fast() -> None:
    clock, began = CompressedClock(NOW, 3_600), asyncio.get_running_loop().time()
    await asyncio.sleep(0.05)
    first = clock()
    passed_s = asyncio.get_running_loop().time() - began
    assert 0.05 * 3_600 <= (first - NOW).total_seconds() <= passed_s * 3_600 + 3_600
    assert clock.real_s(7_200) == 2
    clock.run(1)
    assert (clock() - first).total_seconds() < 3_600
    assert clock() >= first
