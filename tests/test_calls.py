"""The record of calls: one row per call, the same whatever order its messages come in, written to the platform too."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from relevo.db.pool import Database
from relevo.metrics import folding, record
from relevo.metrics.record import Message
from relevo.migration.mapping import DEFAULT
from relevo.migration.voice_calls import install
from tests.conftest import change, rows, value
from tests.recorded import ASKED_AT, TENANT, asked, pin, reported, say, staged

ROWS = "SELECT c::text AS row FROM relevo.calls c ORDER BY call_id"
SUMS = """SELECT s::text AS row FROM relevo.call_stats s
          WHERE (calls, finished, failed, errors, measured) <> (0, 0, 0, 0, 0)
          UNION ALL SELECT l::text FROM relevo.call_latencies l WHERE calls <> 0 ORDER BY 1"""


async def call(database: Database, call_id: str = "call") -> dict[str, Any]:
    """The row of a call, without its registers."""
    (row,) = await rows(database, "SELECT * FROM relevo.calls WHERE call_id = %s", (call_id,))
    return row


ENDINGS = [
    ("assistant-ended-call", "completed", "information_given", False),
    ("assistant-ended-call-after-message-spoken", "completed", "information_given", False),
    ("assistant-said-end-call-phrase", "completed", "information_given", False),
    ("customer-ended-call", "completed", "customer_hangup", False),
    ("call.in-progress.twilio-completed-call", "completed", "customer_hangup", False),
    ("call.in-progress.sip-completed-call", "completed", "customer_hangup", False),
    ("assistant-forwarded-call", "completed", "transferred_to_human", False),
    ("assistant-request-returned-forwarding-phone-number", "completed", "transferred_to_human", False),
    ("call.ringing.hook-executed-transfer", "completed", "transferred_to_human", False),
    ("call.in-progress.error-transfer-failed", "completed", "transfer_failed", False),
    ("call.in-progress.error-warm-transfer-max-duration", "completed", "transfer_failed", False),
    ("customer-ended-call-before-warm-transfer", "completed", "transfer_failed", False),
    ("customer-ended-call-during-transfer", "completed", "transfer_failed", False),
    ("customer-ended-call-after-warm-transfer-attempt", "completed", "transfer_failed", False),
    ("silence-timed-out", "completed", "timeout", False),
    ("voicemail", "completed", "voicemail", False),
    ("customer-busy", "no_answer", "no_answer", False),
    ("call.in-progress.error-vapifault-outbound-sip-480-unavailable", "no_answer", "no_answer", False),
    ("call.ringing.sip-inbound-caller-hungup-before-call-connect", "no_answer", "no_answer", False),
    ("manually-canceled", "canceled", "canceled", False),
    ("assistant-request-failed", "failed", "failed", True),
    ("assistant-request-returned-no-assistant", "failed", "failed", True),
    ("assistant-not-valid", "failed", "failed", True),
    ("call.in-progress.error-assistant-did-not-receive-customer-audio", "completed", "no_audio", False),
    ("pipeline-error-openai-llm-failed", "failed", "failed", False),
    ("call.in-progress.error-vapifault-worker-died", "failed", "failed", False),
    ("call.start.error-get-assistant", "failed", "failed", False),
    ("worker-shutdown", "failed", "failed", False),
    ("twilio-failed-to-connect-call", "failed", "failed", False),
    ("something-new", "completed", "unknown", False),
    ("something-new-with-an-Error", "failed", "unknown", False),
    ("vapifault-of-next-year", "failed", "unknown", False),
    ("customer_ended_call", "completed", "unknown", False),
    (None, "completed", "unknown", False),
]


async def test_what_a_call_ended_with_says_how_it_went(ready: Database) -> None:
    for part in (ENDINGS[:20], ENDINGS[20:]):
        await say(ready, *(reported(str(reason), reason) for reason, *_ in part))
    found = {row["call_id"]: row for row in await rows(ready, "SELECT * FROM relevo.calls")}
    assert [
        (reason, row["status"], row["outcome"], row["our_fault"])
        for reason, *_ in ENDINGS
        for row in (found[str(reason)],)
    ] == ENDINGS


async def test_exact_values_come_before_patterns_and_rows_are_added_as_data(ready: Database) -> None:
    await change(
        ready,
        """INSERT INTO relevo.ended_reasons (ordinal, pattern, status, outcome, fault)
           VALUES (900, 'pipeline-error-known', 'completed', 'timeout', 'nobody'), (1, 'pipeline-error-kno*',
                   'canceled', 'canceled', 'nobody')""",
    )
    await say(ready, reported("a", "pipeline-error-known"), reported("b", "pipeline-error-knot"))
    found = await rows(ready, "SELECT status FROM relevo.calls ORDER BY call_id")
    assert [row["status"] for row in found] == ["completed", "canceled"]


async def test_a_tool_s_success_wins_over_a_transfer_and_that_over_structured_data(ready: Database) -> None:
    told: list[tuple[Message, str]] = [
        (reported(reason="silence-timed-out"), "timeout"),
        (reported(reason="silence-timed-out", at=ASKED_AT + timedelta(seconds=80), outcome="complaint"), "complaint"),
        (asked(transferred=True), "transferred_to_human"),
        (asked(tool_outcome="order_created"), "order_created"),
    ]
    for message, outcome in told:
        await say(ready, message)
        assert (await call(ready))["outcome"] == outcome


async def test_a_late_report_finds_a_call_nobody_has_heard_of(ready: Database) -> None:
    standing = await say(ready, reported(asked=False, version="v1", decided_by="unasked"))
    assert (standing["call"].version, standing["call"].status) == ("v1", "completed")
    row = await call(ready)
    assert (row["duration_ms"], row["latency_ms"], row["started_at"]) == (
        63_000,
        812.5,
        ASKED_AT + timedelta(seconds=2),
    )


async def test_without_a_report_the_status_updates_tell_how_long_it_was(ready: Database) -> None:
    await say(ready, asked(), staged("in-progress", 3), staged("ended", 48, ended_reason="customer-ended-call"))
    row = await call(ready)
    assert (row["status"], row["duration_ms"], row["latency_ms"]) == ("completed", 45_000, None)


async def test_a_report_without_times_or_turns_is_taken_as_it_is(ready: Database) -> None:
    nothing: dict[str, Any] = {"at": None, "started_at": None, "ended_at": None, "duration_ms": None}
    await say(ready, reported(latency_ms=0.0, **nothing))
    row = await call(ready)
    assert (row["started_at"], row["ended_at"], row["duration_ms"], row["latency_ms"]) == (ASKED_AT, None, None, None)


async def test_a_finished_call_is_never_open_again(ready: Database) -> None:
    await say(ready, reported(), staged("ringing", 400), staged("in-progress", 500))
    assert (await call(ready))["status"] == "completed"
    await change(ready, "UPDATE relevo.calls SET stage = 2, report = NULL, ending = NULL")
    assert (await call(ready))["status"] == "completed"


async def test_a_corrected_report_corrects(ready: Database) -> None:
    corrected = reported(reason="pipeline-error-x", at=ASKED_AT + timedelta(seconds=90), latency_ms=None)
    await say(ready, corrected, reported())
    row = await call(ready)
    assert (row["status"], row["latency_ms"]) == ("failed", None)


async def test_a_report_wins_over_what_was_looked_up_and_both_over_giving_up(ready: Database) -> None:
    await say(ready, asked())
    assert await record.close_overdue(ready, ASKED_AT + timedelta(hours=2), timedelta(hours=2)) == 0
    assert await record.close_overdue(ready, ASKED_AT + timedelta(hours=3), timedelta(hours=2)) == 1
    row = await call(ready)
    assert (row["status"], row["outcome"], row["our_fault"], row["ended_at"]) == ("failed", "unknown", True, None)
    await say(ready, reported(source="lookup", at=ASKED_AT + timedelta(hours=4), reason="voicemail"))
    assert ((await call(ready))["outcome"], (await call(ready))["our_fault"]) == ("voicemail", False)
    await say(ready, reported())
    assert (await call(ready))["outcome"] == "customer_hangup"
    assert await record.close_overdue(ready, ASKED_AT + timedelta(hours=9), timedelta(hours=2)) == 0


async def test_what_ended_without_a_report_can_be_looked_up(ready: Database) -> None:
    await say(ready, staged("ended", 9, "silent"), reported("told"), asked("open"), asked("ours", synthetic=True))
    async with ready.transaction() as connection:
        hour = timedelta(hours=1)
        assert await record.unreported(connection, ASKED_AT - hour, ASKED_AT + hour) == ["silent"]


async def test_a_decided_pin_never_changes(ready: Database) -> None:
    first = await pin(ready, asked("a"), asked("b", version="v1"))
    assert {name: each.version for name, each in first.items()} == {"a": "v2", "b": "v1"}
    later = {"decided_at": ASKED_AT - timedelta(minutes=1), "decided_by": "other"}
    again = await pin(ready, asked("a", version="v1", **later), asked("b", version="v2", **later))
    assert again == first
    await change(ready, "UPDATE relevo.calls SET version = 'v1', asked = true")
    assert (await call(ready, "a"))["version"] == "v2"


async def test_the_pin_that_stands_is_told_alike_whatever_a_role_s_settings(ready: Database) -> None:
    await pin(ready, asked())
    odd = make_conninfo(ready.url, options="-c DateStyle=German -c TimeZone=Asia/Kathmandu -c search_path=relevo")
    async with Database(odd) as database:
        (standing,) = (await record.pin(database, [asked(version="v1")])).values()
    assert (standing.version, standing.decided_at) == ("v2", ASKED_AT)


async def test_an_assumed_pin_gives_way_to_a_decided_one(ready: Database) -> None:
    assumed = staged("ringing", 1, asked=False, version="v1", decided_by="unasked")
    assert (await say(ready, assumed))["call"].version == "v1"
    assert (await pin(ready, asked()))["call"].version == "v2"
    assert (await say(ready, assumed))["call"].version == "v2"
    assert (await call(ready))["crossed"] is False


async def test_the_tenant_may_be_known_later(ready: Database) -> None:
    unasked: dict[str, Any] = {"asked": False, "version": "v1"}
    await say(ready, staged("ringing", 1, tenant_id=None, **unasked), staged("ringing", 2, **unasked), each=True)
    await say(ready, staged("ringing", 1, tenant_id=None, **unasked))
    assert (await call(ready))["tenant_id"] == TENANT


async def test_a_call_answered_as_two_versions_is_marked_as_our_fault(ready: Database) -> None:
    await pin(ready, asked())
    await say(ready, asked())
    assert (await call(ready))["crossed"] is False
    await say(ready, asked(version="v1", decided_by="signed"))
    row = await call(ready)
    assert (row["version"], row["crossed"], row["our_fault"]) == ("v2", True, True)


async def test_two_decisions_that_the_same_version_answered_are_no_fault(ready: Database) -> None:
    """One process pinned v1 and died; the other found v2 decided, hanging, and had v1 answer."""
    await pin(ready, asked(version="v1", served_version="v1"))
    await say(ready, asked(version="v2", served_version="v1"))
    assert (await call(ready))["crossed"] is False


async def test_what_a_decided_pin_says_is_not_lost_on_an_assumed_one(ready: Database) -> None:
    await say(ready, staged("ringing", 1, asked=False, version="v1", decided_by="unasked"))
    await pin(ready, asked(served_version="v1", fallback="v2: no answer", unanswered=True, synthetic=True))
    row = await call(ready)
    assert (row["served_version"], row["fallback"], row["unanswered"], row["synthetic"]) == (
        "v1", "v2: no answer", True, True,
    )  # fmt: skip


async def test_of_many_who_pin_at_once_one_decides(ready: Database) -> None:
    async def decide(number: int) -> str:
        version = "v1" if number % 2 else "v2"
        at = ASKED_AT - timedelta(milliseconds=number)
        return (await pin(ready, asked(version=version, decided_at=at)))["call"].decided_at.isoformat()

    assert len(set(await asyncio.gather(*(decide(number) for number in range(12))))) == 1
    assert await value(ready, "SELECT sum(calls) FROM relevo.call_deltas") == 1


async def test_a_fallback_counts_for_the_version_that_was_decided(ready: Database) -> None:
    await pin(ready, asked(served_version="v1", fallback="timeout"))
    row = await call(ready)
    assert (row["version"], row["served_version"], row["fallback"], row["our_fault"]) == ("v2", "v1", "timeout", True)


async def test_what_no_database_would_take_is_taken_out(ready: Database) -> None:
    strange = "a\0b\ud800" + "x" * 500
    await say(ready, reported(reason=strange, success=strange, latency_ms=float("nan"), cost_usd=float("inf")))
    await say(ready, reported("other", duration_ms=2**70, latency_ms=-1.0))
    assert await value(ready, "SELECT char_length((ending).reason) FROM relevo.calls WHERE call_id = 'call'") == 200
    assert await value(ready, "SELECT count(latency_ms) FROM relevo.calls") == 0


async def test_a_shadow_is_kept_beside_its_call(ready: Database) -> None:
    await pin(ready, asked())
    async with ready.transaction() as connection:
        await record.record_shadow(connection, "call", {"would_answer": True, "took_ms": 12})
        await record.record_shadow(connection, "nobody", {"would_answer": True})
    await say(ready, reported())
    assert (await call(ready))["shadow"] == {"would_answer": True, "took_ms": 12}


# What Vapi may send of one call. Every message brings the same decided pin; some were assumed before.
def _messages() -> st.SearchStrategy[list[Message]]:
    moments = st.one_of(st.none(), st.integers(0, 90).map(lambda s: ASKED_AT + timedelta(seconds=s)))
    reasons = st.sampled_from([None, "customer-ended-call", "assistant-request-failed", "pipeline-error-x", "new"])
    latencies = st.sampled_from([None, -3.0, 0.0, 411.0, 412.0, 2950.5])
    stages = st.sampled_from(["scheduled", "queued", "ringing", "in-progress", "forwarding", "ended", "odd"])
    assumed = st.builds(
        lambda tenant, version, seconds: {
            "asked": False,
            "tenant_id": tenant,
            "version": version,
            "served_version": version,
            "decided_at": ASKED_AT + timedelta(seconds=seconds),
            "decided_by": "unasked",
            "flag_version": None,
        },
        st.sampled_from([None, TENANT]),
        st.sampled_from(["v1", "v2"]),
        st.sampled_from([-70, 0, 3]),
    )
    pins = st.one_of(st.just({}), assumed)
    updates = st.builds(
        lambda p, at, s, r: asked(at=at, stage=s, ended_reason=r if s == "ended" else None, **p),
        pins, moments, stages, reasons,
    )  # fmt: skip
    reports = st.builds(
        lambda p, at, r, late, source: reported(at=at, reason=r, latency_ms=late, source=source, **p),
        pins, moments, reasons, latencies, st.sampled_from(["report", "lookup", "overdue"]),
    )  # fmt: skip
    others = st.builds(
        lambda p, at, tool, moved, fell, mute: asked(
            at=at, tool_outcome=tool, transferred=moved, fallback=fell, unanswered=mute, **p
        ),
        pins, moments, st.sampled_from([None, "order_created", "reservation_created"]), st.booleans(),
        st.sampled_from([None, "timeout", "breaker"]), st.booleans(),
    )  # fmt: skip
    return st.lists(st.one_of(updates, reports, others), min_size=1, max_size=6)


async def test_any_order_with_any_repetition_makes_the_same_row_and_the_same_figures(ready: Database) -> None:
    async def told(messages: list[Message], *, each: bool, halfway: bool) -> tuple[Any, Any]:
        await change(ready, "TRUNCATE relevo.calls, relevo.call_deltas, relevo.call_stats, relevo.call_latencies")
        middle = len(messages) // 2
        for part in (messages[:middle], messages[middle:]):
            if part:
                await say(ready, *part, each=each)
            if halfway:
                await folding.fold(ready)
        await folding.fold(ready)
        return await rows(ready, ROWS), await rows(ready, SUMS)

    loop = asyncio.get_running_loop()

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(_messages(), st.randoms(use_true_random=False), st.booleans(), st.booleans())
    def holds(messages: list[Message], chance: Any, each: bool, halfway: bool) -> None:
        shuffled = messages + chance.choices(messages, k=chance.randrange(4))
        chance.shuffle(shuffled)
        straight = asyncio.run_coroutine_threadsafe(told(messages, each=True, halfway=False), loop).result()
        other = asyncio.run_coroutine_threadsafe(told(shuffled, each=each, halfway=halfway), loop).result()
        assert other == straight

    await asyncio.to_thread(holds)


VOICE_CALLS = "SELECT * FROM public.voice_calls WHERE vapi_call_id = 'call'"


async def test_a_finished_call_is_in_the_platforms_table_at_the_same_commit(sampled: Database) -> None:
    writer = await install(sampled, DEFAULT)
    assert writer is not None
    assert (writer.inserts_for, writer.outcomes_refused) == (("v1", "v2"), ())
    await say(sampled, asked(), staged("in-progress", 2))
    assert await rows(sampled, VOICE_CALLS) == []
    await say(sampled, reported(), reported(), each=True)
    (row,) = await rows(sampled, VOICE_CALLS)
    assert (str(row["business_id"]), row["status"], row["outcome"]) == (TENANT, "completed", "customer_hangup")
    assert (row["agent_version"], row["duration_seconds"], row["avg_latency_ms"]) == ("v2", 63, 813)
    await say(sampled, asked(tool_outcome="order_created"))
    (again,) = await rows(sampled, VOICE_CALLS)
    assert again == row | {"outcome": "order_created"}
    assert await value(sampled, "SELECT count(*) FROM relevo.call_faults") == 0


async def test_synthetic_calls_and_those_of_no_known_tenant_are_not(sampled: Database) -> None:
    await install(sampled, DEFAULT)
    await say(sampled, reported(synthetic=True), reported("other", tenant_id=None, asked=False))
    assert await value(sampled, "SELECT count(*) FROM public.voice_calls WHERE vapi_call_id IN ('call', 'other')") == 0


RAISES = """CREATE FUNCTION public.raises() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'not on a sunday'; END $$;
            CREATE TRIGGER raises BEFORE INSERT ON public.voice_calls FOR EACH ROW EXECUTE FUNCTION public.raises()"""


@pytest.mark.parametrize(
    ("stumble", "mend", "fault"),
    [
        (
            "ALTER TABLE public.voice_calls ADD CONSTRAINT c CHECK (status <> 'completed') NOT VALID",
            "ALTER TABLE public.voice_calls DROP CONSTRAINT c",
            "23514",
        ),
        (RAISES, "DROP TRIGGER raises ON public.voice_calls", "not on a sunday"),
        (
            "ALTER TABLE public.voice_calls RENAME status TO estado",
            "ALTER TABLE public.voice_calls RENAME estado TO status",
            "42703",
        ),
    ],
)
async def test_a_platform_that_refuses_a_call_does_not_cost_us_the_call(
    sampled: Database, stumble: str, mend: str, fault: str
) -> None:
    await install(sampled, DEFAULT)
    await change(sampled, stumble)
    await say(sampled, reported())
    assert (await call(sampled))["status"] == "completed"
    async with sampled.transaction() as connection:
        waiting = await record.faults(connection)
    assert waiting["many"] == 1
    assert fault in waiting["last_fault"]
    now = waiting["oldest"] + timedelta(minutes=1, seconds=1)
    assert await record.repair_voice_calls(sampled, waiting["oldest"] + timedelta(seconds=1)) == 0
    assert await record.repair_voice_calls(sampled, now) == 0
    assert await value(sampled, "SELECT tries FROM relevo.call_faults") == 2
    await change(sampled, mend)
    assert await record.repair_voice_calls(sampled, now + timedelta(days=1)) == 1
    assert await value(sampled, "SELECT count(*) FROM relevo.call_faults") == 0
    assert len(await rows(sampled, VOICE_CALLS)) == 1


async def test_rows_that_an_upstream_writes_are_only_annotated(sampled: Database) -> None:
    with pytest.raises(Exception, match="no index on the Vapi call id"):
        await install(sampled, DEFAULT, annotate=("v2",))
    await change(sampled, "CREATE INDEX ON public.voice_calls (vapi_call_id)")
    writer = await install(sampled, DEFAULT, annotate=("v2",))
    assert writer is not None
    assert writer.inserts_for == ("v1",)
    await say(sampled, reported())
    assert await rows(sampled, VOICE_CALLS) == []
    await change(
        sampled,
        """INSERT INTO public.voice_calls (id, business_id, vapi_call_id, status, duration_seconds, agent_version)
           VALUES (gen_random_uuid(), gen_random_uuid(), 'call', 'theirs', 7, 'v1')""",
    )
    later = await value(sampled, "SELECT last_at + interval '1 hour' FROM relevo.call_faults")
    assert await record.repair_voice_calls(sampled, later) == 1
    (row,) = await rows(sampled, VOICE_CALLS)
    assert (row["status"], row["duration_seconds"], row["outcome"], row["agent_version"]) == (
        "theirs", 7, "customer_hangup", "v2",
    )  # fmt: skip


async def test_words_that_the_outcome_column_refuses_are_left_out(sampled: Database) -> None:
    await change(
        sampled,
        """ALTER TABLE public.voice_calls ADD outcome varchar(30) CHECK (outcome IN ('voicemail', 'unknown')),
                                          ADD agent_version text""",
    )
    writer = await install(sampled, DEFAULT)
    assert writer is not None
    assert "customer_hangup" in writer.outcomes_refused
    assert not {"voicemail", "unknown"} & set(writer.outcomes_refused)
    await say(sampled, reported(), reported("other", reason="voicemail"))
    query = "SELECT vapi_call_id, outcome FROM public.voice_calls WHERE vapi_call_id IN ('call', 'other') ORDER BY 1"
    assert [row["outcome"] for row in await rows(sampled, query)] == [None, "voicemail"]


async def test_a_table_that_numbers_its_rows_itself_is_written_too(ready: Database) -> None:
    await change(
        ready,
        """CREATE TABLE public.voice_calls (
               id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, business_id uuid NOT NULL, vapi_call_id text UNIQUE,
               status text NOT NULL, started_at timestamptz, duration_seconds integer, avg_latency_ms integer)""",
    )
    await install(ready, DEFAULT)
    await say(ready, reported(), asked(tool_outcome="order_created"), each=True)
    (row,) = await rows(ready, VOICE_CALLS)
    assert row["outcome"] == "order_created"


async def test_a_column_that_demands_what_nobody_gives_is_named(sampled: Database) -> None:
    await change(sampled, "ALTER TABLE public.voice_calls ADD moneda text DEFAULT 'MXN'")
    await change(sampled, "ALTER TABLE public.voice_calls ALTER moneda SET NOT NULL, ALTER moneda DROP DEFAULT")
    with pytest.raises(Exception, match="demands moneda"):
        await install(sampled, DEFAULT)


async def test_without_a_table_of_calls_there_is_nothing_to_write(ready: Database) -> None:
    assert await install(ready, DEFAULT) is None
    await say(ready, reported())
    assert await value(ready, "SELECT count(*) FROM relevo.call_faults") == 0


BREAKER = """INSERT INTO relevo.breakers (version, upstream, window_at, changed_at, {0})
             VALUES ('v2', '', now(), now(), {1})"""


IMPOSSIBLE = [
    BREAKER.format("state", "'ajar'"),
    BREAKER.format("state", "'open'"),
    BREAKER.format("state, opened_at", "'half_open', now()"),
    BREAKER.format("opened_at", "now()"),
    BREAKER.format("calls, failures", "1, 2"),
    BREAKER.format("state, opened_at, probe_by, forced", "'half_open', now(), 'me', true"),
    "INSERT INTO relevo.calls (call_id, version, served_version, decided_at, decided_by, asked) "
    "VALUES ('', 'v1', 'v1', now(), 'x', true)",
    "INSERT INTO relevo.calls (call_id, version, served_version, decided_at, decided_by, asked) "
    "VALUES ('a', 'v3', 'v1', now(), 'x', true)",
    "INSERT INTO relevo.complaints (tenant_id, version, text, at, actor) VALUES ('a', 'v1', '', now(), 'x')",
]


async def test_invariants_are_constraints(ready: Database) -> None:
    for insert in IMPOSSIBLE:
        with pytest.raises(psycopg.IntegrityError):
            await change(ready, insert)
