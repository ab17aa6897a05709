"""Vapi's webhook on a real server: who is let in, who answers, and what is recorded before it is confirmed."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from relevo.db.pool import Database
from relevo.flags import writing
from relevo.flags.writing import Author
from relevo.migration import runner
from relevo.migration.run import Options
from relevo.webhooks.answers import APOLOGY
from tests.calling import SECRET, SEEDS_WEBHOOK, WEBHOOK, Line, asked, call, lines, message, report, status, tool_calls
from tests.conftest import copied, rows, value
from tests.servers import Server
from tests.serving import Answer, Served, serving

pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

_ids = itertools.count()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A server, its database, and two lines: one that the flag has on v1, one on v2."""

    served: Served
    database: Database
    on_v1: Line
    on_v2: Line
    others: list[Line]

    def tell(self, said: Any, path: str = WEBHOOK, **headers: str) -> Answer:
        """A message, with the secret unless another header is given."""
        return self.served.ask("POST", path, said, headers=headers or {"x-vapi-secret": SECRET})

    async def row(self, call_id: str) -> dict[str, Any]:
        """What is recorded of a call."""
        (row,) = await rows(self.database, "SELECT * FROM relevo.calls WHERE call_id = %s", [call_id])
        return row


async def prepared(database: Database) -> list[Line]:
    """Moved to v2, flag on, and the first line enabled."""
    await runner.migrate(database, Options(skip_backup=True), actor="tests")
    found = await lines(database)
    who = Author("tests", None)
    await writing.enable(database, [found[0].tenant_id], who)
    await writing.switch(database, True, who)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def exchange(server: Server, template: str) -> AsyncIterator[Exchange]:
    with copied(server, template) as url:
        async with Database(url) as database:
            on_v2, on_v1, *others = await prepared(database)
            with serving(url, env={"RELEVO_VAPI_SECRET": f"old {SECRET}"}) as served:
                yield Exchange(served, database, on_v1, on_v2, others)


def new_call() -> str:
    return f"call-{next(_ids)}"


def prompt_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return str(answer.json["assistant"]["model"]["messages"][0]["content"])


async def test_a_tenant_on_v1_hears_the_stored_prompt(exchange: Exchange) -> None:
    call_id = new_call()
    answer = exchange.tell(asked(exchange.on_v1, call_id))
    assert prompt_of(answer) == exchange.on_v1.v1_prompt
    row = await exchange.row(call_id)
    assert (row["tenant_id"], row["version"], row["served_version"]) == (exchange.on_v1.tenant_id, "v1", "v1")
    assert (row["decided_by"], row["asked"], row["status"]) == ("flag", True, "asked")


async def test_a_tenant_on_v2_hears_the_template_and_the_day(exchange: Exchange) -> None:
    call_id = new_call()
    answer = exchange.tell(asked(exchange.on_v2, call_id), SEEDS_WEBHOOK)
    (row,) = await rows(
        exchange.database,
        """SELECT r.*, relevo.told_at_call(now(), b.time_zone) AS told, v.voice_speed AS speed, v.enabled_capabilities
           FROM public.voice_assistant_configs v JOIN public.businesses b ON b.id = v.business_id, relevo.render(v) AS r
           WHERE v.id = %s::uuid""",
        [exchange.on_v2.config_id],
    )
    assistant = answer.json["assistant"]
    assert prompt_of(answer).startswith(row["system_prompt"] + "\n\n## Fecha y hora\nHoy es ")
    assert assistant["firstMessage"] == row["first_message"]
    assert assistant["voice"]["voiceId"] == row["voice_id"]
    assert assistant["voice"]["speed"] == float(row["speed"])
    assert assistant["metadata"]["business_id"] == exchange.on_v2.tenant_id
    assert (await exchange.row(call_id))["version"] == "v2"


async def test_the_pin_outlives_the_flag(exchange: Exchange) -> None:
    call_id, who = new_call(), Author("tests", None)
    exchange.tell(asked(exchange.on_v2, call_id))
    await writing.disable(exchange.database, [exchange.on_v2.tenant_id], who)
    try:
        other = new_call()
        while exchange.tell(asked(exchange.on_v2, other)).json["assistant"]["metadata"]["agent_version"] != "v1":
            other = new_call()
        again = exchange.tell(asked(exchange.on_v2, call_id))
        assert again.json["assistant"]["metadata"]["agent_version"] == "v2"
        exchange.tell(report(exchange.on_v2, call_id))
        row = await exchange.row(call_id)
        assert (row["version"], row["status"], row["outcome"], row["crossed"]) == (
            "v2",
            "completed",
            "customer_hangup",
            False,
        )
    finally:
        await writing.enable(exchange.database, [exchange.on_v2.tenant_id], who)


async def test_a_pin_speaks_for_its_own_call_alone(exchange: Exchange) -> None:
    call_id = new_call()
    server = exchange.tell(asked(exchange.on_v2, call_id)).json["assistant"]["server"]
    assert server["backoffPlan"]["maxRetries"] == 10
    url = urlsplit(server["url"])
    path = f"{url.path}?{url.query}"
    assert exchange.served.ask("POST", path, report(exchange.on_v2, call_id)).status == 200
    assert (await exchange.row(call_id))["status"] == "completed"
    assert exchange.served.ask("POST", path, report(exchange.on_v2, new_call())).status == 401
    assert exchange.served.ask("POST", path[:-2] + "xx", report(exchange.on_v2, call_id)).status == 401


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-vapi-secret": "wrong"}, {"authorization": f"Bearer {SECRET}"}, {"x-signature": "00", "x-timestamp": "1"}],
    ids=["nothing", "wrong", "bearer", "signature"],
)
def test_strangers_are_not_let_in(exchange: Exchange, headers: dict[str, str]) -> None:
    answer = exchange.served.ask("POST", WEBHOOK, asked(exchange.on_v1, new_call()), headers=headers)
    assert (answer.status, answer.json["code"]) == (401, "Unauthorized")


def test_a_secret_that_is_being_replaced_is_still_good(exchange: Exchange) -> None:
    said = asked(exchange.on_v1, new_call())
    assert exchange.tell(said, **{"x-vapi-secret": "old"}).status == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"message": 7}', b'{"message": {}}', b"\xff\xfe", b'{"message":' * 90_000],
    ids=["empty", "cut", "list", "null", "number", "no-type", "not-utf8", "deep"],
)
def test_what_is_no_message_is_said_to_be_none(exchange: Exchange, body: bytes) -> None:
    answer = exchange.tell(body)
    assert (answer.status, answer.json["code"]) == (400, "NoMessage")


def test_a_body_of_ten_megabytes_is_refused(exchange: Exchange) -> None:
    assert exchange.tell(b" " * 10_000_000).status == 413


async def test_who_cannot_be_told_hears_an_apology_and_is_kept(exchange: Exchange) -> None:
    call_id = new_call()
    said = message("assistant-request", {"id": call_id, "phoneNumberId": "nobodys"}, phoneNumber={"number": "+5200"})
    answer = exchange.tell(said)
    assert (answer.status, answer.json) == (200, {"error": APOLOGY})
    row = await exchange.row(call_id)
    assert (row["tenant_id"], row["unanswered"]) == (None, True)
    kept = "SELECT number_id, number FROM relevo.unplaced_calls WHERE call_id = %s"
    while not (found := await rows(exchange.database, kept, [call_id])):
        pass  # it is kept beside the answer
    assert found == [{"number_id": "nobodys", "number": "+5200"}]
    assert exchange.tell(status(None, new_call(), "in-progress", 1)).json == {}


async def test_a_browser_cannot_say_whose_call_it_is(exchange: Exchange) -> None:
    call_id = new_call()
    overrides = {"metadata": {"business_id": exchange.on_v2.tenant_id}, "variableValues": {}}
    web = {"id": call_id, "type": "webCall", "assistantOverrides": overrides}
    described = {"id": exchange.on_v2.assistant_id, "metadata": {"business_id": exchange.on_v2.tenant_id}}
    answer = exchange.tell(message("assistant-request", web, assistant=described))
    assert answer.json == {"error": APOLOGY}
    assert (await exchange.row(call_id))["tenant_id"] is None


async def test_a_call_that_never_asked_is_v1s(exchange: Exchange) -> None:
    call_id = new_call()
    bound = call(None, call_id, type="webCall", assistantId=exchange.on_v2.assistant_id)
    assert exchange.tell(message("status-update", bound, status="in-progress")).status == 200
    row = await exchange.row(call_id)
    assert (row["tenant_id"], row["version"], row["decided_by"]) == (exchange.on_v2.tenant_id, "v1", "unasked")


async def test_a_reservation_is_made_once_and_is_the_outcome(exchange: Exchange) -> None:
    call_id, line = new_call(), exchange.on_v2
    exchange.tell(asked(line, call_id))
    arguments = {"name": "Ana Díaz", "date": "2026-11-24", "time": "20:00", "people": 4}
    function = {"name": "create_reservation", "arguments": arguments}
    said = tool_calls(line, call_id, {"id": "t1", "type": "function", "function": function})
    first, second = exchange.tell(said), exchange.tell(said)
    assert first.json == second.json
    (result,) = first.json["results"]
    assert (result["toolCallId"], result["name"]) == ("t1", "create_reservation")
    assert "folio" in result["result"]
    kept = "SELECT arguments, outcome FROM relevo.tool_calls WHERE call_id = %s"
    assert await rows(exchange.database, kept, [call_id]) == [
        {"arguments": arguments, "outcome": "reservation_created"}
    ]
    exchange.tell(report(line, call_id))
    assert (await exchange.row(call_id))["outcome"] == "reservation_created"


def test_a_tool_that_lacks_something_asks_for_it(exchange: Exchange) -> None:
    call_id = new_call()
    exchange.tell(asked(exchange.on_v2, call_id))
    said = tool_calls(exchange.on_v2, call_id, {"id": "t", "name": "create_order", "parameters": {"name": "Ana"}})
    (result,) = exchange.tell(said).json["results"]
    assert result["error"] == "Falta preguntar: qué se va a pedir."


async def test_a_report_is_in_the_platforms_own_table(exchange: Exchange) -> None:
    call_id = new_call()
    exchange.tell(asked(exchange.on_v1, call_id))
    assert exchange.tell(report(exchange.on_v1, call_id, "assistant-ended-call")).json == {}
    (row,) = await rows(exchange.database, "SELECT * FROM public.voice_calls WHERE vapi_call_id = %s", [call_id])
    assert (str(row["business_id"]), row["status"], row["outcome"], row["agent_version"]) == (
        exchange.on_v1.tenant_id,
        "completed",
        "information_given",
        "v1",
    )


@pytest.mark.parametrize("kind", ["hang", "speech-update", 'transcript[transcriptType="final"]', "what.comes.next"])
def test_messages_that_want_no_answer_get_none(exchange: Exchange, kind: str) -> None:
    assert exchange.tell(message(kind, call(exchange.on_v1, new_call()))).json == {}


def test_other_questions_are_answered(exchange: Exchange) -> None:
    on = call(exchange.on_v1, new_call())
    assert exchange.tell(message("knowledge-base-request", on)).json == {"documents": []}
    assert exchange.tell(message("campaign.predial", on)).json == {"eligible": True}
    assert exchange.tell(message("transfer-destination-request", on)).json == {"error": APOLOGY}


async def test_nothing_is_refused_to_the_other_tenants(exchange: Exchange) -> None:
    for line in exchange.others:
        call_id = new_call()
        assert prompt_of(exchange.tell(asked(line, call_id))) == line.v1_prompt
        assert (await exchange.row(call_id))["tenant_id"] == line.tenant_id
    assert await value(exchange.database, "SELECT count(*) FROM relevo.calls WHERE crossed") == 0
