"""``rollback --cut``: what callers in the middle of a call with v2 hear, and what Vapi is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from relevo.clock import system_clock
from relevo.db.pool import Database
from relevo.rollback import cutting, levels
from relevo.rollback.cutting import Cut
from relevo.webhooks.answers import APOLOGY, APOLOGY_BEFORE_TRANSFER
from relevo.webhooks.handlers import upstream
from relevo.webhooks.vapi import Vapi
from tests.commands import relevo
from tests.conftest import change, rows
from tests.flags import write
from tests.rollouts import ANA, Scene, scene
from tests.standins import Reply, Request, StandIn, stand_in

KEY = "a-private-key"
HUMAN = "+525511112222"


class Account:
    """Vapi: the calls it knows, and what it was told to do with them."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: dict[str, dict[str, Any]] = {}
        self.done: dict[str, dict[str, Any]] = {}
        self.refuses: set[str] = set()
        self.hides: dict[str, int] = {}  # by call, what it answers instead of telling of it

    def going_on(self, call_id: str, **more: Any) -> None:
        """A call that can be controlled."""
        control = {"controlUrl": f"{self.url}/{call_id}/control"}
        self.calls[call_id] = {"id": call_id, "status": "in-progress", "monitor": control, **more}

    def __call__(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return Reply(401)
        first, _, second = request.path.strip("/").partition("/")
        if first == "call" and second in self.hides:
            return Reply(self.hides[second])
        if first == "call":
            return Reply(body=self.calls[second]) if second in self.calls else Reply(404)
        assert second == "control"
        if first in self.refuses:
            return Reply(400)
        self.done[first] = request.json
        return Reply()


@pytest.fixture
def vapi() -> Iterator[tuple[StandIn, Account]]:
    account = Account()
    with stand_in(account) as running:
        account.url = running.url
        yield running, account


async def talking(database: Database, *, many: int = 3) -> Scene:
    """So many tenants on v2, each with a call going on; the first has a line to a person."""
    here = await scene(database, verified=6)
    await write(database, "enabled = true, enabled_tenants = %s", here.tenants[:many])
    await change(
        database,
        """INSERT INTO relevo.calls (call_id, tenant_id, version, served_version, decided_at, decided_by, asked)
           SELECT 'call-' || n, t, 'v2', 'v2', now(), 'flag', true
           FROM unnest(%s::text[]) WITH ORDINALITY AS u (t, n)""",
        (here.tenants[:many],),
    )
    await change(
        database,
        "UPDATE public.voice_assistant_configs SET phone_number_id = 'number-1' WHERE business_id::text = %s",
        (here.tenants[0],),
    )
    await change(
        database,
        """INSERT INTO relevo.vapi_numbers (id, fallback, seen_at)
           VALUES ('number-1', jsonb_build_object('type', 'number', 'number', %s::text), now())""",
        (HUMAN,),
    )
    return here


async def cut(database: Database, url: str | None, tenants: list[str] | None = None) -> dict[str, Cut]:
    """By call, what became of it."""
    async with upstream.session() as session:
        at = None if url is None else Vapi(session, url, KEY)
        found = await cutting.cut(database, at, tenants, ANA, system_clock)
    return {each.call_id: each for each in found}


async def test_callers_hear_an_apology_and_are_put_through_where_a_line_is_known(
    ready: Database, vapi: tuple[StandIn, Account]
) -> None:
    running, account = vapi
    await talking(ready)
    account.going_on("call-1", phoneNumberId="number-1")
    account.going_on("call-2")
    account.calls["call-3"] = {"id": "call-3", "status": "ended"}
    await levels.all_back(ready, ANA, system_clock)
    found = await cut(ready, running.url)
    assert {call: each.how for call, each in found.items()} == {
        "call-1": "transferred", "call-2": "ended", "call-3": "over"
    }  # fmt: skip
    assert account.done == {
        "call-1": {
            "type": "transfer",
            "destination": {"type": "number", "number": HUMAN},
            "content": APOLOGY_BEFORE_TRANSFER,
        },
        "call-2": {"type": "say", "content": APOLOGY, "endCallAfterSpoken": True},
    }
    told = await rows(ready, "SELECT * FROM relevo.audit_log WHERE action = 'call.cut' ORDER BY subject")
    assert [(each["subject"], each["actor"], each["details"]["how"]) for each in told] == [
        ("call call-1", "ana", "transferred"),
        ("call call-2", "ana", "ended"),
    ]


async def test_only_calls_of_those_who_go_back_are_cut(ready: Database, vapi: tuple[StandIn, Account]) -> None:
    running, account = vapi
    here = await talking(ready)
    for call in ("call-1", "call-2", "call-3"):
        account.going_on(call)
    await levels.tenants_back(ready, here.tenants[1:2], ANA, system_clock)
    assert (await cut(ready, running.url, here.tenants[1:2])).keys() == {"call-2"}
    await levels.partly_back(ready, 10, ANA, system_clock)  # the first stays
    assert (await cut(ready, running.url)).keys() == {"call-2", "call-3"}
    assert "call-1" not in account.done


async def test_a_call_that_v1_answers_for_v2_is_left_alone(ready: Database) -> None:
    await talking(ready)
    await change(
        ready,
        """INSERT INTO relevo.calls (call_id, tenant_id, version, served_version, decided_at, decided_by, asked)
           SELECT 'other', tenant_id, 'v2', 'v1', now(), 'flag', true FROM relevo.calls WHERE call_id = 'call-2'""",
    )
    await levels.all_back(ready, ANA, system_clock)
    assert (await cut(ready, None)).keys() == {"call-1", "call-2", "call-3"}


async def test_what_vapi_does_not_do_is_left_and_said(ready: Database, vapi: tuple[StandIn, Account]) -> None:
    running, account = vapi
    await talking(ready)
    account.going_on("call-1")
    account.refuses.add("call-1")
    account.calls["call-2"] = {"id": "call-2", "status": "in-progress"}
    await levels.all_back(ready, ANA, system_clock)
    found = await cut(ready, running.url)
    assert {each.how for each in found.values()} == {"left"}
    assert "answers 400 to transfer" in (found["call-1"].why or "")
    assert "no control" in (found["call-2"].why or "")
    assert "does not know" in (found["call-3"].why or "")
    assert await rows(ready, "SELECT FROM relevo.audit_log WHERE action = 'call.cut'") == []


@pytest.mark.parametrize("status", [400, 403, 429, 500])
async def test_what_vapi_refuses_of_one_call_leaves_no_other(
    ready: Database, vapi: tuple[StandIn, Account], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "AT_ONCE", 1)  # the others come after it
    running, account = vapi
    await talking(ready)
    for call in ("call-1", "call-2", "call-3"):
        account.going_on(call)
        account.hides[call] = status
    await levels.all_back(ready, ANA, system_clock)
    assert {each.how for each in (await cut(ready, running.url)).values()} == {"left"}
    for call in ("call-2", "call-3"):
        del account.hides[call]
    found = await cut(ready, running.url)
    assert {call: each.how for call, each in found.items()} == {
        "call-1": "left", "call-2": "ended", "call-3": "ended"
    }  # fmt: skip
    assert f"answers {status} to GET" in (found["call-1"].why or "")


async def test_a_key_that_vapi_refuses_is_not_shown_to_it_for_every_call(
    ready: Database, vapi: tuple[StandIn, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "AT_ONCE", 1)  # the others come after it
    running, _account = vapi
    running.answering = lambda _request: Reply(401)  # as to a key of yesterday
    await talking(ready)
    await levels.all_back(ready, ANA, system_clock)
    found = await cut(ready, running.url)
    assert {each.why for each in found.values()} == {"Vapi refuses the API key"}
    assert (len(found), len(running.received)) == (3, 1)


async def test_without_vapi_every_call_is_left_after_one_attempt(ready: Database) -> None:
    await talking(ready)
    await levels.all_back(ready, ANA, system_clock)
    away = await cut(ready, "http://127.0.0.1:9")
    assert all("does not answer" in (each.why or "") for each in away.values())
    keyless = await cut(ready, None)
    assert all("RELEVO_VAPI_API_KEY" in (each.why or "") for each in keyless.values())


async def test_the_key_goes_to_servers_of_vapi_alone(ready: Database, vapi: tuple[StandIn, Account]) -> None:
    running, account = vapi
    await talking(ready, many=1)
    with stand_in() as stranger:
        elsewhere = stranger.url.replace("127.0.0.1", "localhost")
        account.calls["call-1"] = {"id": "call-1", "monitor": {"controlUrl": f"{elsewhere}/control"}}
        await levels.all_back(ready, ANA, system_clock)
        assert (await cut(ready, running.url))["call-1"].how == "transferred"
        assert [each.headers.get("authorization") for each in stranger.received] == [None]


async def test_by_command(ready: Database, vapi: tuple[StandIn, Account], monkeypatch: pytest.MonkeyPatch) -> None:
    running, account = vapi
    await talking(ready)
    monkeypatch.delenv("RELEVO_VAPI_API_KEY", raising=False)
    keyless = await asyncio.to_thread(relevo, "rollback", "--cut", url=ready.url)
    assert (keyless.status, keyless.data["after"]["enabled"]) == (1, False)
    assert [each["how"] for each in keyless.data["cut_calls"]] == ["left"] * 3
    monkeypatch.setenv("RELEVO_VAPI_API_KEY", KEY)
    monkeypatch.setenv("RELEVO_VAPI_API_URL", running.url)
    for call in ("call-1", "call-2", "call-3"):
        account.going_on(call)
    again = await asyncio.to_thread(relevo, "rollback", "--cut", url=ready.url)
    assert (again.status, again.data["changed"]) == (0, False)
    assert [each["how"] for each in again.data["cut_calls"]] == ["transferred", "ended", "ended"]
    for words in (("--undo", "1"), ("--level", "data")):
        assert (await asyncio.to_thread(relevo, "rollback", "--cut", *words, url=ready.url)).status == 2
