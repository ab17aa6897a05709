"""The checklist: what a machine can know it checks, with evidence; what people know they sign; what is late is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from relevo.clock import system_clock
from relevo.comms import clients as sending
from relevo.comms.notices import notice_of
from relevo.db.pool import Database
from relevo.errors import Refused, UnknownName, UsageError
from relevo.metrics import reading
from relevo.metrics.health import Health
from relevo.metrics.window import Window
from relevo.report import ticking
from relevo.report.checklist import ITEMS, Line
from relevo.serving import logged
from relevo.serving.logs import Errors
from tests import finished
from tests.calling import SECRET
from tests.commands import Answered, relevo, succeeds
from tests.conftest import NOW, change, copied, rows, value
from tests.finished import COMPLETED_AT
from tests.servers import Server
from tests.serving import serving
from tests.standins import Reply, Request, stand_in

MACHINE = [item.name for item in ITEMS if item.check is not None]
PEOPLE = [item.name for item in ITEMS if item.check is None]
HOUR = timedelta(hours=1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def template_finished(server: Server, template: str) -> AsyncIterator[str]:
    """The name of a database in which the rollout is complete, to which nobody is connected."""
    with copied(server, template) as url:
        async with Database(url) as database:
            await finished.finish(database)
            await everything_is_well(database)
        yield psycopg.conninfo.conninfo_to_dict(url)["dbname"]  # type: ignore[misc]


@pytest_asyncio.fixture
async def world(server: Server, template_finished: str) -> AsyncIterator[Database]:
    """A day after everybody came to v2, and all that a machine can check is as it should be."""
    with copied(server, template_finished) as url:
        async with Database(url) as opened:
            yield opened


async def everything_is_well(database: Database) -> None:
    """So that each test has one thing to break."""
    await finished.calls(database, "v2", 60, NOW - HOUR)
    await change(
        database,
        "INSERT INTO relevo.flag_readers VALUES ('host:1:a', 'voice_agent_v2', 1, 'listen', %(now)s, %(now)s)",
        {"now": NOW},
    )
    await change(
        database,
        """INSERT INTO relevo.vapi_numbers (id, fallback, seen_at)
           SELECT DISTINCT phone_number_id, jsonb_build_object('number', '+525512345678'), now()
           FROM public.voice_assistant_configs WHERE phone_number_id <> ''""",
    )
    async with database.transaction() as connection:
        plan = await sending.plan(connection, notice_of("client_complete"), None)
        await sending.send(connection, plan, None, NOW, actor="tests", reason=None)
    await change(database, "UPDATE relevo.outbox SET state = 'sent', settled_at = now()")
    await calls_that_went_well(database)
    for stage in ("flags", "deprecate", "drop"):
        await change(database, "INSERT INTO relevo.cleanup_stages VALUES (%s, %s, 'ana')", (stage, NOW - HOUR))
    await change(database, "DELETE FROM public.migration_backups")


async def calls_that_went_well(database: Database) -> None:
    """A good test call of each kind that is wanted."""
    async with database.transaction() as connection:
        known = await ticking.facts(connection, COMPLETED_AT, NOW)
    for number, each in enumerate(known.wanted):
        await change(
            database,
            """INSERT INTO relevo.synthetic_calls
               VALUES (%s, %s, 'tenant', %s, 'v2', true, %s, %s, %s, '+525512345678', '{}')""",
            (f"test {number}", NOW - HOUR, each.vertical, each.outcome, bool(each.outcome), bool(each.outcome)),
        )


async def standing(database: Database, now: Any = NOW) -> dict[str, Line]:
    async with database.transaction() as connection:
        found = await ticking.look(connection, now)
    assert found is not None
    return {line.item.name: line for line in found.lines}


async def signed(database: Database, item: str, **said: Any) -> None:
    words: dict[str, Any] = {"name": "Ana Ruiz", "note": "seen", "actor": "ana", "reason": None} | said
    async with database.transaction() as connection:
        await ticking.sign(connection, item, NOW, **words)


# Every item of the specification -----------------------------------------------------------------------------------


def test_the_checklist_is_the_specifications() -> None:
    """Section 8.1, item for item."""
    sections = {
        ("day_1", "technical"): 4,
        ("day_1", "functional"): 4,
        ("day_1", "communication"): 3,
        ("week_1", "monitoring"): 3,
        ("week_1", "cleaning"): 3,
        ("week_1", "documentation"): 3,
        ("week_4", "removal"): 3,
        ("week_4", "final"): 3,
    }
    counted: dict[tuple[str, str], int] = {}
    for item in ITEMS:
        counted[item.stage, item.section] = counted.get((item.stage, item.section), 0) + 1
    assert counted == sections
    assert len({item.name for item in ITEMS}) == len(ITEMS)


async def test_what_holds_is_ticked_with_its_evidence(world: Database) -> None:
    found = await standing(world)
    states = {name: (found[name].state, found[name].evidence) for name in MACHINE}
    assert {name: state for name, (state, _) in states.items()} == dict.fromkeys(MACHINE, "done"), states
    assert all(evidence for _, evidence in states.values())
    assert "60 calls" in found["metrics_within_targets"].evidence
    assert "Latency p95 399 ms (target below 800 ms)" in found["metrics_within_targets"].evidence
    audited = await rows(world, "SELECT actor, subject, details FROM relevo.audit_log WHERE action = 'checklist.tick'")
    assert {row["subject"] for row in audited} == set(MACHINE)
    assert all(row["actor"] == "relevo" and row["details"]["evidence"] for row in audited)
    assert {found[name].state for name in PEOPLE} == {"open"}


async def errors_in_the_figures(database: Database) -> None:
    await finished.calls(database, "v2", 40, NOW - 2 * HOUR, errors=4)


async def slow_answers(database: Database) -> None:
    await finished.calls(database, "v2", 40, NOW - 2 * HOUR, ms=2000)


async def an_incident(database: Database) -> None:
    await change(
        database,
        """INSERT INTO relevo.incidents (cause, severity, title, message, opened_at, seen_at)
           VALUES ('v2.error_rate', 'warning', 'High Error Rate', 'x', %(now)s, %(now)s)""",
        {"now": NOW},
    )


async def an_open_breaker(database: Database) -> None:
    await change(
        database,
        """INSERT INTO relevo.breakers (version, upstream, state, forced, window_at, opened_at, changed_by, changed_at)
           VALUES ('v2', 'https://v2', 'open', true, %(now)s, %(now)s, 'ana', %(now)s)""",
        {"now": NOW},
    )


async def a_logged_error(database: Database) -> None:
    errors = Errors()
    errors.count(None, "error", {"level": "error", "event": "calls not stored"})
    errors.count(None, "info", {"level": "info", "event": "request"})
    assert await logged.keep(database, errors, lambda: NOW) == 1


async def no_server(database: Database) -> None:
    await change(database, "DELETE FROM relevo.flag_readers")


def where_calls(assignment: str, condition: str = "true") -> Callable[[Database], Awaitable[None]]:
    async def break_it(database: Database) -> None:
        assert await change(database, f"UPDATE relevo.synthetic_calls SET {assignment} WHERE {condition}") > 0

    return break_it


async def a_mail_that_died(database: Database) -> None:
    await change(
        database,
        """UPDATE relevo.outbox SET state = 'dead', last_error = '550 no such user'
           WHERE id = (SELECT min(id) FROM relevo.outbox WHERE channel = 'email')""",
    )


async def a_mail_on_its_way(database: Database) -> None:
    await change(
        database,
        """UPDATE relevo.outbox SET state = 'waiting', settled_at = NULL
           WHERE id = (SELECT min(id) FROM relevo.outbox WHERE channel = 'email')""",
    )


async def nobody_told(database: Database) -> None:
    await change(database, "DELETE FROM relevo.outbox")


def no_stage(stage: str) -> Callable[[Database], Awaitable[None]]:
    async def break_it(database: Database) -> None:
        assert await change(database, "DELETE FROM relevo.cleanup_stages WHERE stage = %s", (stage,)) == 1

    return break_it


async def a_backup(database: Database) -> None:
    await change(
        database,
        "INSERT INTO public.migration_backups (tables, contents, actor) VALUES ('{}', '{}', 'ana')",
    )


async def few_calls(database: Database) -> None:
    await change(database, "DELETE FROM relevo.calls")


BROKEN: Mapping[str, list[tuple[str, Callable[[Database], Awaitable[None]], str]]] = {
    "metrics_within_targets": [
        ("failing", errors_in_the_figures, "Error rate 4.00% (target below 2%)"),
        ("failing", slow_answers, "Latency p95"),
        ("open", few_calls, "too little to tell: 0 calls"),
    ],
    "no_active_alerts": [("failing", an_incident, "1 active: High Error Rate")],
    "breakers_closed": [("failing", an_open_breaker, "v2 https://v2: open")],
    "no_critical_logs": [
        ("failing", a_logged_error, "calls not stored (1)"),
        ("open", no_server, "no relevo serve is running"),
    ],
    "test_calls_succeed": [
        ("failing", where_calls("version = 'v1'"), "v1 answered"),
        ("failing", where_calls("answered = false, faults = '{gone}'"), "nobody answered: gone"),
        ("failing", where_calls("faults = '{another tenant answered}'"), "another tenant answered"),
        ("open", where_calls("at = '2020-01-01'", "call_id = 'test 0'"), "not tried"),
    ],
    "reservations_work": [
        (
            "failing",
            where_calls("booked = false, removed = false", "outcome = 'reservation_created'"),
            "it was not made",
        ),
        ("failing", where_calls("removed = false", "outcome = 'reservation_created'"), "not removed"),
    ],
    "appointments_work": [
        (
            "failing",
            where_calls("booked = false, removed = false", "outcome = 'appointment_created'"),
            "it was not made",
        ),
        ("failing", where_calls("removed = false", "outcome = 'appointment_created'"), "not removed"),
    ],
    "transfer_works": [("failing", where_calls("transfer = NULL"), "no person could be reached")],
    "clients_confirmed": [
        ("failing", a_mail_that_died, "1 not"),
        ("failing", a_mail_on_its_way, "1 on their way"),
        ("failing", nobody_told, "0 delivered"),
    ],
    "flags_removed": [("failing", no_stage("flags"), "relevo cleanup --stage flags")],
    "old_tables_marked": [("failing", no_stage("deprecate"), "relevo cleanup --stage deprecate")],
    "backups_removed": [
        ("failing", a_backup, "1 are left"),
        ("failing", no_stage("drop"), "v1 is still there"),
    ],
}


def test_every_item_of_the_machine_has_a_world_in_which_it_fails() -> None:
    assert set(BROKEN) == set(MACHINE)


@pytest.mark.parametrize(
    ("item", "state", "break_it", "says"),
    [(item, *how) for item, hows in BROKEN.items() for how in hows],
    ids=[f"{item}-{number}" for item, hows in BROKEN.items() for number, _ in enumerate(hows)],
)
async def test_what_does_not_hold_is_not_ticked_and_says_why(
    world: Database, item: str, state: str, break_it: Callable[[Database], Awaitable[None]], says: str
) -> None:
    await break_it(world)
    found = await standing(world)
    assert (found[item].state, says in found[item].evidence) == (state, True), found[item].evidence
    assert await value(world, "SELECT count(*) FROM relevo.checklist_done WHERE item = %s", (item,)) == 0


async def test_what_was_ticked_stays_ticked(world: Database) -> None:
    await standing(world)
    await an_incident(world)
    found = await standing(world, NOW + HOUR)
    assert (found["no_active_alerts"].state, found["no_active_alerts"].done.at) == ("done", NOW)  # type: ignore[union-attr]


async def test_clients_without_an_address_are_named_and_no_hindrance(world: Database) -> None:
    one = (await finished.clients(world))[0]
    await change(world, "DELETE FROM relevo.outbox WHERE tenant_id = %s", (one,))
    await change(world, "UPDATE public.businesses SET email = NULL WHERE id = %s", (one,))
    line = (await standing(world))["clients_confirmed"]
    assert line.state == "done"
    assert "clients have no address" in line.evidence


async def test_a_vertical_that_takes_no_reservations_needs_none(world: Database) -> None:
    without = "array_remove(enabled_capabilities, 'reservations') || '{basic}'"
    await change(world, f"UPDATE public.voice_assistant_configs SET enabled_capabilities = {without}")
    await change(world, "DELETE FROM relevo.synthetic_calls")
    await calls_that_went_well(world)
    assert (await standing(world))["reservations_work"].evidence == "no assistant on v2 takes reservations"


# Signing -----------------------------------------------------------------------------------------------------------


async def test_what_people_know_is_signed_with_name_note_and_date(world: Database) -> None:
    await signed(world, "support_informed", note="meeting of Monday")
    line = (await standing(world))["support_informed"]
    assert line.done is not None
    assert (line.state, line.done.name, line.done.note, line.done.at) == ("done", "Ana Ruiz", "meeting of Monday", NOW)
    (row,) = await rows(world, "SELECT actor, subject, details FROM relevo.audit_log WHERE action = 'checklist.sign'")
    assert (row["actor"], row["subject"], row["details"]["name"]) == ("ana", "support_informed", "Ana Ruiz")


@pytest.mark.parametrize(
    ("item", "said", "error", "says"),
    [
        ("suport_informed", {}, UnknownName, "Did you mean 'support_informed'"),
        ("no_active_alerts", {}, UsageError, "is checked by Relevo"),
        ("support_informed", {"name": " "}, UsageError, "--name is empty"),
        ("support_informed", {"note": ""}, UsageError, "--note is empty"),
        ("support_informed", {"note": "x" * 2001}, UsageError, "over 2,000"),
        ("support_informed", {"name": "Relevo"}, UsageError, "the machine's"),
    ],
)
async def test_what_cannot_be_signed(
    world: Database, item: str, said: dict[str, str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        await signed(world, item, **said)


async def test_the_first_signature_stands(world: Database) -> None:
    await signed(world, "support_informed")
    with pytest.raises(Refused, match="signed by Ana Ruiz"):
        await signed(world, "support_informed", name="Luis")
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
        await change(world, "DELETE FROM relevo.checklist_done")


async def test_before_the_rollout_is_complete_nothing_is_due(ready: Database) -> None:
    async with ready.transaction() as connection:
        assert await ticking.look(connection, NOW) is None
    with pytest.raises(Refused, match="no rollout is complete"):
        await signed(ready, "support_informed")
    assert relevo("checklist", url=ready.url).status == 3


async def test_once_everybody_went_back_nothing_is_due(world: Database) -> None:
    await change(world, "DELETE FROM relevo.cleanup_stages")
    await change(world, "UPDATE public.feature_flags SET enabled = false")
    async with world.transaction() as connection:
        assert await ticking.look(connection, NOW) is None


async def test_the_next_rollout_begins_with_an_empty_checklist(world: Database) -> None:
    await signed(world, "support_informed")
    await finished.complete(world, NOW)
    assert (await standing(world))["support_informed"].state == "open"


# What is late ------------------------------------------------------------------------------------------------------


async def remind(database: Database, now: Any) -> Any:
    return await ticking.remind(database, now)


async def test_what_is_late_alerts_once_and_is_over_when_done(world: Database) -> None:
    await standing(world)
    late = COMPLETED_AT + timedelta(days=1, minutes=1)
    assert await remind(world, COMPLETED_AT + timedelta(days=1)) == dict.fromkeys(
        ("checklist.day_1", "checklist.week_1", "checklist.week_4"), "nothing"
    )
    assert (await remind(world, late))["checklist.day_1"] == "open"
    assert (await remind(world, late + HOUR))["checklist.day_1"] == "go_on"
    (incident,) = await rows(world, "SELECT * FROM relevo.incidents")
    assert incident["message"] == "2 items are not done: documentation_updated, support_informed"
    assert await value(world, "SELECT count(*) FROM relevo.outbox WHERE notice = 'alert'") == 1
    for item in ("documentation_updated", "support_informed"):
        await signed(world, item)
    assert (await remind(world, late + 2 * HOUR))["checklist.day_1"] == "calm"
    assert (await remind(world, late + 3 * HOUR))["checklist.day_1"] == "resolve"


async def test_its_own_alert_is_no_alert_that_the_checklist_looks_at(world: Database) -> None:
    late = COMPLETED_AT + timedelta(days=8)
    await an_incident(world)
    assert (await remind(world, late))["checklist.week_1"] == "open"
    assert (await standing(world, late))["no_active_alerts"].state == "failing"
    over = "UPDATE relevo.incidents SET resolved_at = seen_at, resolved_why = 'x' WHERE cause = 'v2.error_rate'"
    await change(world, over)
    assert (await standing(world, late))["no_active_alerts"].state == "done"


async def test_a_late_item_makes_the_command_say_no(world: Database) -> None:
    answered = relevo("checklist", url=world.url)  # by the real clock, which the test cannot move
    assert answered.status in (0, 1)
    assert answered.status == (1 if answered.data["overdue"] else 0)
    assert len(answered.data["items"]) == len(ITEMS)
    done = succeeds("checklist", "sign", "runbooks_updated", "--name", "Luis", "--note", "wiki", url=world.url)
    assert (done["item"], done["name"]) == ("runbooks_updated", "Luis")
    assert relevo("checklist", "sign", "x", "--name", "L", "--note", "n", url=world.url).status == 2


# Test calls through the real webhook --------------------------------------------------------------------------------


async def figures(database: Database) -> dict[str, Health]:
    """All that was ever counted."""
    async with database.transaction(snapshot=True) as connection:
        return await reading.health(connection, Window.last(timedelta(days=3650), system_clock()))


async def test_a_test_call_goes_through_the_webhook_and_leaves_no_trace_in_the_figures(world: Database) -> None:
    await change(world, "DELETE FROM relevo.cleanup_stages")
    before = await figures(world)
    calls_before = await value(world, "SELECT count(*) FROM public.voice_calls")
    with serving(world.url, env={"RELEVO_VAPI_SECRET": SECRET}) as served:
        answered = command(world, served.address)
        assert answered.status == 0, answered.data
    assert {each["vertical"] for each in answered.data} >= {"restaurant", "dental"}
    assert {each["outcome"] for each in answered.data} >= {"reservation_created", "appointment_created"}
    for each in answered.data:
        assert (each["answered"], each["version"], each["faults"]) == (True, "v2", [])
        assert (each["booked"], each["removed"]) == (bool(each["outcome"]), bool(each["outcome"]))
        assert each["transfer"] == finished.LINE
    made = await rows(world, "SELECT * FROM relevo.calls WHERE call_id LIKE 'relevo-test-%%'", ())
    assert len(made) == len(answered.data)
    assert all(row["synthetic"] and row["stage"] == 6 for row in made)
    assert await value(world, "SELECT count(*) FROM relevo.tool_calls") == 0
    assert await figures(world) == before
    assert await value(world, "SELECT count(*) FROM public.voice_calls") == calls_before
    assert await value(
        world, "SELECT count(*) FROM relevo.synthetic_calls WHERE at > now() - interval '1 hour'"
    ) == len(made)


def command(database: Database, address: str, **env: str) -> Answered:
    """``relevo checklist call`` with the tests' secret."""
    words = [sys.executable, "-m", "relevo", "checklist", "call", "--json"]
    done = subprocess.run(
        [*words, "--address", address, "--database-url", database.url],
        capture_output=True,
        text=True,
        env={**os.environ, "RELEVO_VAPI_SECRET": SECRET, **env},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Answered(done.returncode, json.loads(done.stdout), done.stderr)


async def test_a_server_that_is_away_or_shut_is_a_fault_of_each_call(world: Database) -> None:
    away = command(world, "http://127.0.0.1:9")
    assert away.status == 1
    assert all("cannot be asked" in each["faults"][0] and not each["answered"] for each in away.data)
    with serving(world.url, env={"RELEVO_VAPI_SECRET": "another"}) as served:
        shut = command(world, served.address)
    assert all("answered with 401" in each["faults"][0] for each in shut.data)


async def test_a_booking_in_the_platforms_own_books_is_cancelled_by_its_tool(world: Database) -> None:
    """An upstream that keeps books is asked to take the booking back; where it will not, that is said."""
    seen: list[str] = []
    cancels = True

    def answering(request: Request) -> Reply:
        message = request.json["message"]
        assert request.headers["x-relevo-synthetic"] == "true"
        if message["type"] == "assistant-request":
            return Reply(body={"assistantId": "stored"})
        if message["type"] == "tool-calls":
            (call,) = message["toolCallList"]
            name = call["function"]["name"]
            seen.append(name)
            if name.startswith("cancel") and not cancels:
                return Reply(body={"results": [{"toolCallId": call["id"], "error": "no"}]})
            return Reply(body={"results": [{"toolCallId": call["id"], "result": "folio 7"}]})
        if message["type"] == "transfer-destination-request":
            return Reply(body={"destination": {"type": "number", "number": "+521"}})
        return Reply()

    with stand_in(answering) as upstream:
        env = {"RELEVO_VAPI_SECRET": SECRET, "RELEVO_V2_UPSTREAM": upstream.url}
        with serving(world.url, env=env) as served:
            good = command(world, served.address, RELEVO_V2_UPSTREAM=upstream.url)
            assert good.status == 0, good.data
            assert {"create_reservation", "cancel_reservation", "create_appointment", "cancel_appointment"} <= set(seen)
            assert all(each["removed"] for each in good.data if each["outcome"])
            cancels = False
            bad = command(world, served.address, RELEVO_V2_UPSTREAM=upstream.url)
    assert bad.status == 1
    assert all(each["booked"] and not each["removed"] for each in bad.data if each["outcome"])
    assert any("cancel_reservation failed: no" in each["faults"] for each in bad.data)
