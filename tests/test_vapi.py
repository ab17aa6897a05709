"""The numbers at Vapi: read, unbound and bound again; and calls that nobody reported, looked up there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from relevo.cli.frame import Common
from relevo.cli.move import preflight
from relevo.db.pool import Database
from relevo.errors import UnknownName, VapiRefused
from relevo.migration import runner, source
from relevo.migration.mapping import DEFAULT, Field
from relevo.migration.run import Options
from relevo.webhooks import numbers as bindings
from relevo.webhooks import reconciling
from relevo.webhooks.handlers import upstream
from relevo.webhooks.known import Known
from relevo.webhooks.numbers import Changed
from relevo.webhooks.vapi import Vapi
from tests.calling import Line, lines
from tests.conftest import NOW, rows
from tests.recorded import asked, say, staged
from tests.standins import Reply, Request, StandIn, stand_in

HUMAN = "+525511112222"
KEY = "a-private-key"


class Account:
    """An account at Vapi: numbers that can be read and changed, calls that can be looked up."""

    def __init__(self, found: list[Line]) -> None:
        self.numbers: dict[str, dict[str, Any]] = {
            line.number_id: {
                "id": line.number_id,
                "number": line.number,
                "assistantId": line.assistant_id,
                "server": None,
            }
            for line in found
        }
        self.calls: dict[str, dict[str, Any]] = {}
        self.fails_for: set[str] = set()
        self.newest_first = True

    def page(self, asked: dict[str, str]) -> list[dict[str, Any]]:
        """A thousand numbers at most, as Vapi's own API gives them."""
        found = sorted(self.numbers.values(), key=lambda each: each.get("createdAt", ""), reverse=self.newest_first)
        if "createdAtLe" in asked:
            found = [each for each in found if each["createdAt"] <= asked["createdAtLe"]]
        if "createdAtGe" in asked:
            found = [each for each in found if each["createdAt"] >= asked["createdAtGe"]]
        return found[: min(1_000, int(asked.get("limit", 100)))]

    def __call__(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return Reply(401)
        path = request.path.partition("?")[0]
        if request.method == "GET" and path == "/phone-number":
            return Reply(body=self.page(dict(parse_qsl(urlsplit(request.path).query))))
        kind, _, known = path.strip("/").partition("/")
        if known in self.fails_for or (kind == "call" and known not in self.calls):
            return Reply(404 if kind == "call" else 400)
        if kind == "call":
            return Reply(body=self.calls[known])
        self.numbers[known] |= request.json
        return Reply(body=self.numbers[known])


@pytest.fixture
async def account(sampled: Database) -> Account:
    async with sampled.transaction() as connection:
        await source.install(connection, DEFAULT, NOW)
    return Account((await lines(sampled))[:3])


@pytest.fixture
def at_vapi(account: Account) -> Iterator[StandIn]:
    with stand_in(account) as running:
        yield running


async def adopted(
    database: Database, at: StandIn, tenants: list[str] | None = None, transfer_to: str | None = HUMAN
) -> list[Changed]:
    async with upstream.session() as session:
        return await bindings.adopt(
            database,
            Vapi(session, at.url, KEY),
            lambda: NOW,
            tenants=tenants,
            webhook="https://relevo.test/webhooks/vapi",
            transfer_to=transfer_to,
            actor="tests",
            reason="going live",
        )


async def released(database: Database, at: StandIn) -> list[Changed]:
    async with upstream.session() as session:
        vapi = Vapi(session, at.url, KEY)
        return await bindings.release(database, vapi, lambda: NOW, tenants=None, actor="tests", reason=None)


async def test_adopting_unbinds_and_releasing_puts_everything_back(
    sampled: Database, account: Account, at_vapi: StandIn
) -> None:
    before = {known: dict(number) for known, number in account.numbers.items()}
    assert [each.failure for each in await adopted(sampled, at_vapi)] == [None] * 3
    for number in account.numbers.values():
        assert number["assistantId"] is None
        assert number["fallbackDestination"] == {"type": "number", "number": HUMAN}
        assert number["server"]["url"] == "https://relevo.test/webhooks/vapi"
    assert [each.bound for each in await bindings.remembered(sampled)] == [False] * 3
    assert await adopted(sampled, at_vapi) == []
    assert [each.failure for each in await released(sampled, at_vapi)] == [None] * 3
    nothing = {"squadId": None, "workflowId": None, "fallbackDestination": None, "server": None}
    assert account.numbers == {known: number | nothing for known, number in before.items()}
    audit = "SELECT action, count(*) FROM relevo.audit_log WHERE action LIKE 'number.%%' GROUP BY 1 ORDER BY 1"
    assert [(*row.values(),) for row in await rows(sampled, audit)] == [("number.adopt", 3), ("number.release", 3)]


async def test_only_the_named_tenants_numbers_are_touched(
    sampled: Database, account: Account, at_vapi: StandIn
) -> None:
    (first, *_) = await lines(sampled)
    (done,) = await adopted(sampled, at_vapi, [first.tenant_id])
    assert done.number.tenants == (first.tenant_id,)
    assert sum(number["assistantId"] is None for number in account.numbers.values()) == 1
    with pytest.raises(UnknownName, match="no number at Vapi"):
        await adopted(sampled, at_vapi, ["0f8b2a9e-6c1d-4e57-9a35-3d2f1c7b8e90"])


async def test_a_number_that_vapi_does_not_change_is_not_called_adopted(
    sampled: Database, account: Account, at_vapi: StandIn
) -> None:
    stubborn = next(iter(account.numbers))
    account.fails_for = {stubborn}
    done = {each.number.id: each.failure for each in await adopted(sampled, at_vapi)}
    assert isinstance(done.pop(stubborn), VapiRefused)
    assert set(done.values()) == {None}
    (row,) = await rows(sampled, "SELECT bound, adopted_at FROM relevo.vapi_numbers WHERE id = %s", [stubborn])
    assert row == {"bound": True, "adopted_at": None}


async def human_lines(database: Database, account: Account, *said: str) -> list[str]:
    """Map where a person of a business answers, and have the tenants of the account's numbers say it; their ids."""
    tenants = replace(DEFAULT.tenants, fields={"human_phone_number": Field("human_phone_number")})
    owners = [line.tenant_id for line in (await lines(database))[: len(account.numbers)]]
    async with database.transaction() as connection:
        await source.install(connection, replace(DEFAULT, tenants=tenants), NOW)
        for owner, own in zip(owners, said, strict=True):
            query = "UPDATE public.businesses SET human_phone_number = %s WHERE id = %s"
            await connection.execute(query, (own, owner))
    return owners


async def test_adopting_takes_a_business_s_own_line_where_the_number_has_none(
    sampled: Database, account: Account, at_vapi: StandIn
) -> None:
    own = {"type": "number", "number": "+525500000001"}
    first, second, third = account.numbers.values()
    second["fallbackDestination"] = own
    await human_lines(sampled, account, "+52 (55) 1234-5678", "+525512345678", "extensión 12")
    assert [each.failure for each in await adopted(sampled, at_vapi, transfer_to=None)] == [None] * 3
    assert first["fallbackDestination"] == {"type": "number", "number": "+525512345678"}
    assert second["fallbackDestination"] == own
    assert "fallbackDestination" not in third


async def test_a_caller_is_transferred_where_vapi_would_or_to_the_business_s_own_line(
    sampled: Database, account: Account, at_vapi: StandIn
) -> None:
    owners = await human_lines(sampled, account, "+52 (55) 1234-5678", "+525512345678", "extensión 12")
    await adopted(sampled, at_vapi, [owners[1]])
    known = Known(sampled, lambda: NOW)
    assert await known.refresh()
    answering = [known.of_tenant(owner) for owner in owners]
    assert [entry and entry.human_line for entry in answering] == ["+525512345678", HUMAN, None]


def many(count: int, at_once: int) -> dict[str, dict[str, Any]]:
    """Numbers, so many of them made in the same moment."""
    made = (NOW + timedelta(seconds=number // at_once) for number in range(count))
    return {
        f"number-{number:05}": {"id": f"number-{number:05}", "createdAt": at.isoformat().replace("+00:00", ".000Z")}
        for number, at in enumerate(made)
    }


@pytest.mark.parametrize("newest_first", [True, False])
async def test_more_numbers_than_vapi_gives_at_once_are_all_read(
    account: Account, at_vapi: StandIn, newest_first: bool
) -> None:
    account.numbers, account.newest_first = many(2_500, at_once=7), newest_first
    async with upstream.session() as session:
        found = await Vapi(session, at_vapi.url, KEY).numbers()
    assert sorted(each["id"] for each in found) == sorted(account.numbers)


async def test_numbers_of_which_some_cannot_be_read_are_not_taken_for_all(account: Account, at_vapi: StandIn) -> None:
    account.numbers = many(2_500, at_once=2_500)
    async with upstream.session() as session:
        with pytest.raises(VapiRefused, match="tells of 1,000 numbers, and not whether there are more"):
            await Vapi(session, at_vapi.url, KEY).numbers()


async def test_a_wrong_key_is_said_to_be_wrong(sampled: Database, at_vapi: StandIn) -> None:
    async with upstream.session() as session:
        with pytest.raises(VapiRefused, match="refuses the API key"):
            await bindings.read(sampled, Vapi(session, at_vapi.url, "wrong"), lambda: NOW)


async def test_calls_of_which_no_report_came_are_looked_up_or_end_by_their_length(
    sampled: Database, account: Account, at_vapi: StandIn
) -> None:
    began = asked().decided_at
    account.calls["known"] = {
        "id": "known",
        "type": "inboundPhoneCall",
        "status": "ended",
        "endedReason": "customer-ended-call",
        "startedAt": began.isoformat(),
        "endedAt": (began + timedelta(seconds=40)).isoformat(),
        "updatedAt": (began + timedelta(seconds=45)).isoformat(),
        "cost": 0.1,
    }
    account.calls["going on"] = {"id": "going on", "status": "in-progress"}
    await say(sampled, staged("in-progress", 2, "known"), staged("in-progress", 2, "going on"), asked("unknown"))
    async with upstream.session() as session:
        vapi = Vapi(session, at_vapi.url, KEY)
        assert await reconciling.reconcile(sampled, vapi, lambda: began + timedelta(minutes=11)) == 1
        assert await reconciling.reconcile(sampled, vapi, lambda: began + timedelta(hours=2)) == 2
    found = await rows(sampled, "SELECT call_id, status, outcome, our_fault, duration_ms FROM relevo.calls ORDER BY 1")
    assert [(*row.values(),) for row in found] == [
        ("going on", "failed", "unknown", True, None),
        ("known", "completed", "customer_hangup", False, 40_000),
        ("unknown", "failed", "unknown", True, None),
    ]


async def test_a_tenant_whose_number_is_bound_does_not_go_to_v2(
    sampled: Database, account: Account, at_vapi: StandIn
) -> None:
    tenant = (await lines(sampled))[0].tenant_id

    async def faults() -> list[str]:
        query = "SELECT why FROM relevo.unverified_tenants(ARRAY[%s])"
        return [row["why"] for row in await rows(sampled, query, (tenant,))]

    assert (await runner.migrate(sampled, Options(), actor="tests")).success
    assert await faults() == []
    async with upstream.session() as session:
        await reconciling.look_at_numbers(sampled, Vapi(session, at_vapi.url, KEY), lambda: NOW)
        assert [why for why in await faults() if "bound at Vapi" in why] == await faults() != []
        for number in account.numbers.values():
            number["assistantId"] = None
        await reconciling.look_at_numbers(sampled, Vapi(session, at_vapi.url, KEY), lambda: NOW)
        assert await faults() == []


async def test_numbers_that_cannot_be_read_stay_as_they_were_seen(sampled: Database, at_vapi: StandIn) -> None:
    async with upstream.session() as session:
        await reconciling.look_at_numbers(sampled, Vapi(session, at_vapi.url, KEY), lambda: NOW)
        await reconciling.look_at_numbers(sampled, Vapi(session, at_vapi.url, "a wrong key"), lambda: NOW)
    assert len(await bindings.remembered(sampled)) == 3


@pytest.mark.parametrize(
    ("key", "code"), [(None, "binding_unknown"), ("wrong", "binding_unknown"), (KEY, "numbers_bound")]
)
async def test_preflight_tells_of_numbers_that_never_ask(
    key: str | None, code: str, at_vapi: StandIn, sampled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELEVO_VAPI_API_URL", at_vapi.url)
    if key is not None:
        monkeypatch.setenv("RELEVO_VAPI_API_KEY", key)
    answer = await preflight(common=Common(database_url=sampled.url))
    (found,) = [each for each in answer.data["findings"] if each["code"] in ("binding_unknown", "numbers_bound")]
    assert (found["severity"], found["code"]) == ("warning", code)
    assert found["count"] == (3 if key == KEY else 1)
