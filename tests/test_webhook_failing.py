"""The webhook when others fail: upstreams that break, hang and redirect, a database that is away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
import pytest
import pytest_asyncio

from relevo.db import migrations
from relevo.db.pool import Database
from relevo.flags import writing
from relevo.flags.writing import Author
from relevo.webhooks.answers import TOOL_FAILED
from relevo.webhooks.known import Known
from tests.calling import SECRET, WEBHOOK, Line, asked, report, status, tool_calls
from tests.commands import relevo, succeeds
from tests.conftest import NOW, change, copied, load_sample, rows, value
from tests.servers import Server, programs_of, running
from tests.serving import serving
from tests.silence import relay
from tests.standins import Reply, StandIn, stand_in
from tests.test_webhook import Exchange, new_call, prepared, prompt_of

pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

V2S = {"assistant": {"name": "v2 of the platform", "model": {"provider": "openai", "model": "x"}}}
KEPT = "SELECT call_id, version, status, decided_by FROM relevo.calls ORDER BY call_id"


@dataclass(frozen=True, slots=True)
class Platform(Exchange):
    """The same, where the platform answers for v2 itself."""

    v2: StandIn


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def moved(server: Server, template: str) -> AsyncIterator[tuple[str, Database, list[Line]]]:
    with copied(server, template) as url:
        async with Database(url) as database:
            await _with_an_index(database)
            yield url, database, await prepared(database)


async def _with_an_index(database: Database) -> None:
    """By which rows that an upstream wrote are found."""
    async with database.transaction() as connection:
        await connection.execute(b"CREATE INDEX ON public.voice_calls (vapi_call_id)")


@contextmanager
def platform(moved: tuple[str, Database, list[Line]], **env: str) -> Iterator[Platform]:
    url, database, (on_v2, on_v1, *others) = moved
    with stand_in(lambda _request: Reply(body=V2S)) as v2:
        settings = {"RELEVO_VAPI_SECRET": SECRET, "RELEVO_V2_UPSTREAM": f"{v2.url}/hook?key=secret", **env}
        with serving(url, env=settings) as served:
            yield Platform(served, database, on_v1, on_v2, others, v2)


@pytest.fixture
def upstream(moved: tuple[str, Database, list[Line]]) -> Iterator[Platform]:
    with platform(moved) as running_platform:
        yield running_platform


async def test_an_upstream_gets_every_byte_and_every_header(upstream: Platform) -> None:
    call_id = new_call()
    body = b'{ "message" : ' + json.dumps(asked(upstream.on_v2, call_id)["message"]).encode() + b" }  \n"
    answer = upstream.tell(body, **{"x-vapi-secret": SECRET, "x-signature": "abc", "x-timestamp": "17"})
    (received,) = upstream.v2.of_type("assistant-request")
    assert received.body == body
    assert received.path == "/hook?key=secret"
    assert [received.headers[name] for name in ("x-signature", "x-timestamp", "x-vapi-secret")] == ["abc", "17", SECRET]
    told = answer.json
    server = told["assistant"].pop("server")
    assert told == V2S
    assert "?pin=" in server["url"]
    assert (await upstream.row(call_id))["served_version"] == "v2"


async def test_tools_are_the_upstreams_and_their_success_is_the_outcome(upstream: Platform) -> None:
    call_id = new_call()
    upstream.tell(asked(upstream.on_v2, call_id))
    upstream.v2.answering = lambda _request: Reply(body=b' {"results": [{"toolCallId":"t","result":"listo"}]} ')
    said = tool_calls(upstream.on_v2, call_id, {"id": "t", "name": "create_order", "parameters": {}})
    assert upstream.tell(said).body == b' {"results": [{"toolCallId":"t","result":"listo"}]} '
    upstream.v2.answering = lambda _request: Reply()
    assert upstream.tell(report(upstream.on_v2, call_id)).json == {}
    assert len(upstream.v2.of_type("end-of-call-report")) == 1
    row = await upstream.row(call_id)
    assert (row["tool_outcome"], row["outcome"]) == ("order_created", "order_created")
    assert await value(upstream.database, "SELECT count(*) FROM relevo.tool_calls WHERE call_id = %s", [call_id]) == 0


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(500), "it answers 500"),
        (Reply(302, headers={"location": "http://127.0.0.1:1/"}), "it redirects (302)"),
        (Reply(200, b"<html>"), "its answer is no JSON"),
        (Reply(200, {"ok": True}), "its answer holds no assistant"),
        (Reply(200, b"x" * 1_100_000), "its answer is too long"),
    ],
    ids=["error", "redirect", "no-json", "no-assistant", "too-long"],
)
async def test_v1_stands_in_for_a_v2_that_fails_and_v2_is_blamed(upstream: Platform, reply: Reply, why: str) -> None:
    call_id = new_call()
    upstream.v2.answering = lambda _request: reply
    assert prompt_of(upstream.tell(asked(upstream.on_v2, call_id))) == upstream.on_v2.v1_prompt
    row = await upstream.row(call_id)
    assert (row["version"], row["served_version"], row["our_fault"]) == ("v2", "v1", True)
    assert row["fallback"] == f"v2: {why}"
    upstream.v2.answering = lambda _request: Reply(body=V2S)  # it is well again, but the call is v1's
    again = upstream.tell(asked(upstream.on_v2, call_id))
    assert prompt_of(again) == upstream.on_v2.v1_prompt
    said = tool_calls(upstream.on_v2, call_id, {"id": "t", "name": "unknown_tool", "parameters": {}})
    assert "error" in upstream.tell(said).json["results"][0]
    assert upstream.v2.of_type("tool-calls") == []


async def test_a_v2_that_hangs_costs_no_caller_the_answer(upstream: Platform) -> None:
    call_id = new_call()
    upstream.v2.hang()
    began = time.monotonic()
    assert prompt_of(upstream.tell(asked(upstream.on_v2, call_id))) == upstream.on_v2.v1_prompt
    assert time.monotonic() - began < 7.5  # Vapi's own limit, which is a fact of the wire
    assert (await upstream.row(call_id))["fallback"] == "v2: no answer within 2.5 s"


async def test_a_tool_that_fails_is_answered_with_words(upstream: Platform) -> None:
    call_id = new_call()
    upstream.tell(asked(upstream.on_v2, call_id))
    upstream.v2.answering = lambda _request: Reply(503)
    answer = upstream.tell(tool_calls(upstream.on_v2, call_id, {"id": "t", "name": "create_order", "parameters": {}}))
    assert (answer.status, answer.json["results"]) == (
        200,
        [{"toolCallId": "t", "name": "create_order", "error": TOOL_FAILED}],
    )


async def test_a_breaker_opens_once_for_all_and_a_probe_closes_it(upstream: Platform) -> None:
    upstream.v2.answering = lambda _request: Reply(500)
    blamed = ""
    while "breaker" not in blamed:
        call_id = new_call()
        upstream.tell(asked(upstream.on_v2, call_id))
        blamed = (await upstream.row(call_id))["fallback"]
    before = len(upstream.v2.received)
    opened = "SELECT count(*) FROM relevo.breaker_changes WHERE opening AND version = 'v2'"
    assert await value(upstream.database, opened) == 1
    upstream.tell(asked(upstream.on_v2, new_call()))
    assert len(upstream.v2.received) == before
    assert await value(upstream.database, "SELECT count(*) FROM relevo.breakers WHERE upstream LIKE '%%secret%%'") == 0
    upstream.v2.answering = lambda _request: Reply(body=V2S)
    async with upstream.database.transaction() as connection:  # as if its rest were over
        await connection.execute(b"UPDATE relevo.breakers SET probe_at = now() - interval '1 s' WHERE version = 'v2'")
    while True:
        answer = upstream.tell(asked(upstream.on_v2, new_call()))
        if answer.json["assistant"].get("name") == V2S["assistant"]["name"]:
            break
    async with asyncio.timeout(30):  # it is told after the answer, for callers do not wait for it
        closed = "SELECT bool_and(state = 'closed') FROM relevo.breakers WHERE version = 'v2'"
        while not await value(upstream.database, closed):
            pass


async def test_without_its_database_calls_are_answered_and_nothing_is_lost(server: Server) -> None:
    del server  # this one must be stoppable
    programs = programs_of(18)
    assert programs is not None
    with running(18, programs) as own:
        url = own.url("postgres")
        async with Database(url) as database:
            await migrations.up(database)
            await load_sample(database, tenants=20, calls=50)
            line, other, *_ = await prepared(database)
        with serving(url, env={"RELEVO_VAPI_SECRET": SECRET}) as served:
            secret = {"x-vapi-secret": SECRET}
            call_id = new_call()
            assert served.ask("POST", WEBHOOK, asked(line, call_id), headers=secret).status == 200
            own.control("-m", "immediate", "stop")
            meanwhile, before = new_call(), new_call()
            answer = served.ask("POST", WEBHOOK, asked(line, meanwhile), headers=secret)
            assert answer.json["assistant"]["metadata"]["agent_version"] == "v2"
            assert prompt_of(served.ask("POST", WEBHOOK, asked(other, before), headers=secret)) == other.v1_prompt
            place = urlsplit(answer.json["assistant"]["server"]["url"])
            path = f"{place.path}?{place.query}"
            words = served.ask("POST", path, tool_calls(line, meanwhile, {"id": "t", "name": "create_order"}))
            assert (words.status, words.json["results"][0]["error"]) == (200, TOOL_FAILED)
            assert served.ask("POST", path, status(line, meanwhile, "in-progress", 2)).status == 503
            assert served.ask("POST", path, report(line, meanwhile)).status == 503
            own.control("-l", str(own.data / "server.log"), "restart")
            while (again := served.ask("POST", path, report(line, meanwhile))).status == 503:
                pass  # as Vapi does, by the backoffPlan of our assistants
            assert again.status == 200
            assert served.ask("POST", WEBHOOK, report(line, call_id), headers=secret).status == 200
            async with Database(url) as database:
                kept = await rows(database, KEPT)
    assert kept == [
        {"call_id": each, "version": "v2", "status": "completed", "decided_by": "flag"}
        for each in sorted((call_id, meanwhile))
    ]


async def test_a_process_that_is_killed_loses_no_call(moved: tuple[str, Database, list[Line]]) -> None:
    url, database, (line, *_) = moved
    secret, call_id = {"x-vapi-secret": SECRET}, new_call()
    with serving(url, env={"RELEVO_VAPI_SECRET": SECRET}) as first:
        answer = first.ask("POST", WEBHOOK, asked(line, call_id), headers=secret)
        first.process.kill()
    await writing.disable(database, [line.tenant_id], Author("tests", None))
    try:
        with serving(url, env={"RELEVO_VAPI_SECRET": SECRET}) as second:
            place = urlsplit(answer.json["assistant"]["server"]["url"])
            assert second.ask("POST", f"{place.path}?{place.query}", report(line, call_id)).status == 200
            again = second.ask("POST", WEBHOOK, asked(line, call_id), headers=secret)
            assert again.json["assistant"]["metadata"]["agent_version"] == "v2"
            new = second.ask("POST", WEBHOOK, asked(line, new_call()), headers=secret)
            assert new.json["assistant"]["metadata"]["agent_version"] == "v1"
    finally:
        await writing.enable(database, [line.tenant_id], Author("tests", None))
    (row,) = await rows(database, "SELECT version, status, crossed FROM relevo.calls WHERE call_id = %s", [call_id])
    assert row == {"version": "v2", "status": "completed", "crossed": False}


async def test_the_shadow_asks_v2_after_v1_has_answered(moved: tuple[str, Database, list[Line]]) -> None:
    with platform(moved, RELEVO_WEBHOOK_SHADOW_SHARE="1") as shadowed:
        call_id = new_call()
        assert prompt_of(shadowed.tell(asked(shadowed.on_v1, call_id))) == shadowed.on_v1.v1_prompt
        while (seen := (await shadowed.row(call_id))["shadow"]) is None:
            pass
        assert seen["answered"] is True
        assert "assistant.model.messages" in seen["differs"]
        assert [each.json["message"]["call"]["id"] for each in shadowed.v2.received] == [call_id]
        assert (await shadowed.row(call_id))["version"] == "v1"


def test_an_operator_keeps_a_breaker_open_and_lets_it_go(ready: Database) -> None:
    url = ready.url
    assert succeeds("breakers", "list", url=url) == []
    forced = succeeds("breakers", "force", "v2", "open", "--reason", "v2 misbehaves", url=url)
    assert (forced["version"], forced["state"], forced["forced"]) == ("v2", "open", True)
    assert [each["state"] for each in succeeds("breakers", "list", url=url)] == ["open"]
    assert not succeeds("breakers", "release", "v2", url=url)["forced"]
    refused = relevo("breakers", "release", "v2", url=url)
    assert (refused.status, "no breaker of v2 is forced" in refused.told) == (3, True)


async def test_whoever_was_not_heard_at_first_is_heard_when_called(moved: tuple[str, Database, list[Line]]) -> None:
    _, database, (line, *_) = moved
    known = Known(database, lambda: NOW)
    assert await known.refresh(hear_at_most=1)
    entries = [entry for each in known.directory.by_tenant.values() for entry in each]
    assert sum(known.has_heard(entry) for entry in entries) == 1
    entry = known.of_tenant(line.tenant_id)
    assert entry is not None
    said = await known.said(entry, "v1")
    assert said is not None
    assert said.system_prompt == line.v1_prompt
    await known.refresh()
    assert all(known.has_heard(entry) for entry in entries)


async def test_what_changed_is_read_anew_as_if_all_were(moved: tuple[str, Database, list[Line]]) -> None:
    _, database, (first, second, third, *_) = moved
    known = Known(database, lambda: NOW)
    await known.refresh()
    before = known.directory
    await known.refresh()
    assert known.directory is before  # nothing differs, so nothing is read
    async with database.transaction() as connection:
        await connection.execute(
            "UPDATE public.voice_agent_config SET phone_number_id = %s WHERE id = %s",
            [second.number_id, first.config_id],
        )
        await connection.execute(
            "UPDATE public.voice_agent_config SET phone_number_id = NULL WHERE id = %s", [second.config_id]
        )
        for table in ("voice_assistant_configs", "voice_agent_config"):
            await connection.execute(f"DELETE FROM public.{table} WHERE id = %s".encode(), [third.config_id])
    await known.refresh()
    afresh = Known(database, lambda: NOW)
    await afresh.refresh()
    assert known.directory == afresh.directory != before
    gone = before.by_number_id[third.number_id][0]
    assert third.number_id not in known.directory.by_number_id
    assert not known.has_heard(gone)


async def test_a_new_number_is_looked_for_even_when_its_first_caller_cannot_wait(
    moved: tuple[str, Database, list[Line]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relevo.webhooks.known._AGAIN_AFTER_S", 0.0)
    url, database, (line, *_) = moved
    known = Known(database, lambda: NOW)
    await known.refresh()
    await change(
        database, "UPDATE public.voice_agent_config SET phone_number_id = 'new' WHERE id = %s", [line.config_id]
    )
    async with await psycopg.AsyncConnection.connect(url) as holder:
        await holder.execute("LOCK TABLE public.voice_agent_config IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await known.look_again()
        assert "new" not in known.directory.by_number_id
    async with asyncio.timeout(30):
        while "new" not in known.directory.by_number_id:
            await value(database, "SELECT 1")
    assert known.directory.by_number_id["new"][0].tenant_id == line.tenant_id


async def test_a_silent_database_is_given_up_and_asked_again(
    moved: tuple[str, Database, list[Line]], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relevo.webhooks.known._READ_WITHIN_S", 0.2)
    url, _, (line, *_) = moved
    async with (
        relay(server.port) as wire,
        Database(url.replace(f":{server.port}/", f":{wire.port}/")) as database,
    ):
        known = Known(database, lambda: NOW)
        await value(database, "SELECT 1")  # by the connection that then falls silent
        wire.silent = True
        async with asyncio.timeout(4):  # the driver takes five seconds to give up
            assert not await known.refresh()
        wire.silent = False
        wire.cut()
        await known.finish()
        monkeypatch.setattr("relevo.webhooks.known._READ_WITHIN_S", 60.0)
        assert await known.refresh()
        assert known.of_tenant(line.tenant_id) is not None
