"""The move from end to end: everything arrives once, nothing else changes, and any interruption is survived."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from relevo import events
from relevo.db.lease import lease
from relevo.db.pool import Database
from relevo.errors import LeaseHeld, LeaseLost, MoveFailed, Refused, SchemaMissing, UnknownName
from relevo.migration import runner
from relevo.migration.run import MoveResult, Options
from relevo.migration.steps import backup
from tests.conftest import NOW, behind, change, load_sample, rows, value
from tests.migrators import Ended, Migrators, migrators

RUN_BEGINS = NOW + timedelta(minutes=1)

# What must be the same however often the move was interrupted.
CONTENT = {
    "configs": """SELECT to_jsonb(v) - 'migrated_at' AS row FROM public.voice_assistant_configs v""",
    "origins": """SELECT to_jsonb(o) - 'run_id' AS row FROM relevo.config_origins o""",
    "metrics": """SELECT to_jsonb(m) - 'id' - 'created_at' AS row FROM public.voice_assistant_metrics m""",
    "quarantine": """SELECT to_jsonb(q) - 'run_id' - 'set_aside_at' AS row FROM relevo.quarantine q""",
    "types": """SELECT to_jsonb(t) - 'created_at' AS row FROM public.voice_assistant_types t""",
    "calls": """SELECT to_jsonb(c) AS row FROM public.voice_calls c""",
    "source": """SELECT to_jsonb(c) AS row FROM public.voice_agent_config c""",
}


async def fingerprint(database: Database) -> dict[str, str]:
    """A checksum per table of everything that the move may write, and of v1."""
    sums = {}
    for name, query in CONTENT.items():
        found = await rows(database, f'SELECT row::text FROM ({query}) AS content ORDER BY row::text COLLATE "C"')
        sums[name] = hashlib.sha256("\n".join(row["row"] for row in found).encode()).hexdigest()
    return sums


async def move(database: Database, emit: events.Sink = events.silent, **options: Any) -> MoveResult:
    return await runner.migrate(
        database, Options(**options), actor="tester", reason="a test", clock=lambda: RUN_BEGINS, emit=emit
    )


async def test_every_row_arrives_or_is_set_aside(sampled: Database) -> None:
    result = await move(sampled)
    configurations = await value(sampled, "SELECT count(*) FROM public.voice_agent_config")
    assert result.success
    assert result.errors == []
    assert result.migrated_configs + result.quarantined_configs == configurations
    assert result.quarantined_configs == await value(
        sampled,
        """SELECT count(*) FROM public.voice_agent_config c LEFT JOIN public.businesses b ON b.id = c.business_id
           WHERE b.vertical IS NULL""",
    )
    assert result.quarantined_configs > 0
    assert await value(sampled, "SELECT count(*) FROM public.voice_calls WHERE outcome IS NULL") == 0
    assert result.updated_calls == await value(sampled, "SELECT count(*) FROM public.voice_calls")
    assert await value(sampled, "SELECT count(DISTINCT agent_version) FROM public.voice_calls") == 1


async def test_what_is_the_same_is_the_same(sampled: Database) -> None:
    await move(sampled)
    differences = await value(
        sampled,
        """SELECT count(*) FROM public.voice_assistant_configs v JOIN public.voice_agent_config c USING (id)
           WHERE (v.business_id, v.vapi_assistant_id, v.phone_number_id, v.is_active, v.created_at, v.updated_at)
                 IS DISTINCT FROM
                 (c.business_id, c.vapi_assistant_id, c.phone_number_id, c.is_active, c.created_at, c.updated_at)
              OR v.voice_id <> coalesce(nullif(c.voice_id, ''), 'elevenlabs-maria')
              OR (v.voice_speed, v.personality_type, v.template_version, v.migrated_from_v1)
                 <> (1.0, 'friendly', '1', true)""",
    )
    assert differences == 0
    prompts = await rows(
        sampled,
        """SELECT c.system_prompt, v.original_prompt_hash, o.prompt FROM public.voice_assistant_configs v
           JOIN public.voice_agent_config c USING (id) JOIN relevo.config_origins o ON o.config_id = v.id""",
    )
    for row in prompts:
        assert row["original_prompt_hash"] == hashlib.sha256((row["system_prompt"] or "").encode()).hexdigest()
        assert row["prompt"] == row["system_prompt"]


async def test_v1_keeps_every_byte(sampled: Database) -> None:
    query = "SELECT md5(string_agg(c::text, '' ORDER BY id)) FROM {} c"
    tables = ("public.voice_agent_config", "public.businesses")
    before = [await value(sampled, query.format(table)) for table in tables]
    calls = "SELECT id, business_id, vapi_call_id, status, started_at, duration_seconds, avg_latency_ms"
    calls_before = await rows(sampled, f"{calls} FROM public.voice_calls ORDER BY id")
    await move(sampled)
    assert [await value(sampled, query.format(table)) for table in tables] == before
    assert await rows(sampled, f"{calls} FROM public.voice_calls ORDER BY id") == calls_before


async def test_a_second_run_doubles_nothing(sampled: Database) -> None:
    first = await move(sampled)
    before = await fingerprint(sampled)
    again = await move(sampled)
    assert await fingerprint(sampled) == before
    assert again.success
    assert (again.migrated_configs, again.updated_calls, again.metrics_businesses) == (0, 0, 0)
    assert again.skipped_configs == first.migrated_configs
    assert again.review_configs == first.review_configs


async def test_the_dry_run_tells_the_numbers_of_the_run(sampled: Database) -> None:
    before = await fingerprint_of_everything(sampled)
    foretold = await move(sampled, dry_run=True)
    assert await fingerprint_of_everything(sampled) == before
    done = await move(sampled)
    for figure in (
        "migrated_configs",
        "skipped_configs",
        "quarantined_configs",
        "review_configs",
        "updated_calls",
        "metrics_businesses",
    ):
        assert getattr(foretold, figure) == getattr(done, figure), figure


async def fingerprint_of_everything(database: Database) -> dict[str, Any]:
    """Every table of the database, row count and checksum."""
    tables = await rows(
        database,
        """SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
           WHERE schemaname IN ('public', 'relevo', 'relevo_backup') ORDER BY 1""",
    )
    query = "SELECT count(*) || ':' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {} t"
    return {table["name"]: await value(database, query.format(table["name"])) for table in tables}


async def test_the_server_itself_keeps_a_dry_run_from_writing(ready: Database) -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        async with ready.transaction(read_only=True) as connection:
            await connection.execute("INSERT INTO public.voice_assistant_types VALUES ('x', 'y', 'z')")


async def test_tenants_named_are_the_only_ones_touched(sampled: Database) -> None:
    chosen = await rows(
        sampled,
        """SELECT b.id FROM public.businesses b WHERE vertical IS NOT NULL
             AND EXISTS (SELECT FROM public.voice_calls c WHERE c.business_id = b.id)
             AND EXISTS (SELECT FROM public.voice_agent_config c WHERE c.business_id = b.id)
           ORDER BY id LIMIT 3""",
    )
    ids = tuple(row["id"] for row in chosen)
    foretold = await move(sampled, tenant_ids=ids, dry_run=True)
    result = await move(sampled, tenant_ids=ids)
    assert result.success
    assert result.migrated_configs == foretold.migrated_configs >= 3
    for table in ("voice_assistant_configs", "voice_assistant_metrics"):
        touched = await rows(sampled, f"SELECT DISTINCT business_id AS id FROM public.{table}")
        assert {row["id"] for row in touched} == set(ids)
    with_outcome = "SELECT DISTINCT business_id AS id FROM public.voice_calls WHERE outcome IS NOT NULL"
    assert {row["id"] for row in await rows(sampled, with_outcome)} == set(ids)
    (made,) = await backup.listed(sampled)
    copy = made.contents["public.voice_agent_config"]["copy"]
    copied = await rows(sampled, f"SELECT DISTINCT business_id AS id FROM {copy}")
    assert {row["id"] for row in copied} == set(ids)
    assert (await move(sampled)).success, "the rest follows"


async def test_an_unknown_tenant_is_refused_before_anything_is_written(sampled: Database) -> None:
    before = await fingerprint_of_everything(sampled)
    with pytest.raises(UnknownName, match="there is no tenant"):
        await move(sampled, tenant_ids=(uuid4(),))
    assert await fingerprint_of_everything(sampled) == before


async def test_metrics_are_the_specifications(sampled: Database) -> None:
    """Recomputed here in plain Python from the calls."""
    calls = await rows(
        sampled,
        "SELECT business_id, status, started_at, duration_seconds, avg_latency_ms FROM public.voice_calls"
        " WHERE business_id IS NOT NULL",
    )
    await move(sampled)
    by_business: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
    for call in calls:
        by_business[call["business_id"]].append(call)
    found = {row["business_id"]: row for row in await rows(sampled, "SELECT * FROM public.voice_assistant_metrics")}
    assert set(found) == set(by_business)
    for business, its_calls in by_business.items():
        row = found[business]
        assert (row["period_start"], row["period_end"]) == (RUN_BEGINS - timedelta(days=30), RUN_BEGINS)
        recent = [call for call in its_calls if row["period_start"] <= call["started_at"] <= row["period_end"]]
        assert row["total_calls"] == len(recent)
        assert row["successful_calls"] == sum(call["status"] == "completed" for call in recent)
        assert row["failed_calls"] == sum(call["status"] == "failed" for call in recent)
        durations = [call["duration_seconds"] for call in recent if (call["duration_seconds"] or 0) > 0]
        latencies = sorted(call["avg_latency_ms"] for call in recent if (call["avg_latency_ms"] or 0) > 0)
        assert float(row["avg_duration_seconds"]) == pytest.approx(statistics.fmean(durations) if durations else 0)
        assert float(row["avg_latency_ms"]) == pytest.approx(statistics.fmean(latencies) if latencies else 0)
        assert row["p50_latency_ms"] == nearest_rank(latencies, Decimal("0.5"))
        assert row["p95_latency_ms"] == nearest_rank(latencies, Decimal("0.95"))


def nearest_rank(ordered: list[int], share: Decimal) -> int:
    """The smallest value that at least ``share`` of all do not exceed; 0 for none."""
    return ordered[int((share * len(ordered)).to_integral_value(rounding="ROUND_CEILING")) - 1] if ordered else 0


async def test_outcomes_follow_from_the_status(sampled: Database) -> None:
    await move(sampled)
    pairs = await rows(sampled, "SELECT DISTINCT status, outcome FROM public.voice_calls")
    assert len(pairs) > 3
    for pair in pairs:
        assert pair["outcome"] == ("unknown" if pair["status"] in (None, "completed") else pair["status"])


async def test_an_outcome_that_is_there_is_kept(sampled: Database) -> None:
    await change(sampled, "ALTER TABLE public.voice_calls ADD outcome text")
    await change(sampled, "UPDATE public.voice_calls SET outcome = 'order_created' WHERE status = 'completed'")
    result = await move(sampled)
    assert (
        await value(
            sampled, "SELECT count(*) FROM public.voice_calls WHERE status = 'completed' AND outcome <> 'order_created'"
        )
        == 0
    )
    assert await value(sampled, "SELECT sum(orders_created) FROM public.voice_assistant_metrics") > 0
    assert result.updated_calls == await value(
        sampled, "SELECT count(*) FROM public.voice_calls WHERE status <> 'completed'"
    )


async def test_a_call_its_table_refuses_to_change_is_left_alone_and_counted(sampled: Database) -> None:
    await change(
        sampled,
        """CREATE FUNCTION public.guard() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN RAISE EXCEPTION 'archived'; END $$;
           CREATE TRIGGER guard BEFORE UPDATE ON public.voice_calls FOR EACH ROW
           WHEN (OLD.id::text < '01') EXECUTE FUNCTION public.guard()""",
    )
    guarded = await value(sampled, "SELECT count(*) FROM public.voice_calls WHERE id::text < '01'")
    result = await move(sampled)
    assert result.success
    assert guarded > 3
    assert result.refused_outcomes == guarded
    assert result.updated_calls == await value(sampled, "SELECT count(*) - %s FROM public.voice_calls", (guarded,))
    assert await value(sampled, "SELECT count(*) FROM public.voice_calls WHERE outcome IS NULL") == guarded


async def test_calls_of_a_partitioned_table(ready: Database) -> None:
    await load_sample(ready, tenants=5, calls=500)
    await change(ready, "ALTER TABLE public.voice_calls RENAME TO old_calls")
    await change(
        ready,
        """CREATE TABLE public.voice_calls (LIKE public.old_calls) PARTITION BY HASH (id);
           CREATE TABLE public.calls_0 PARTITION OF public.voice_calls FOR VALUES WITH (MODULUS 2, REMAINDER 0);
           CREATE TABLE public.calls_1 PARTITION OF public.voice_calls FOR VALUES WITH (MODULUS 2, REMAINDER 1);
           INSERT INTO public.voice_calls SELECT * FROM public.old_calls;
           DROP TABLE public.old_calls""",
    )
    result = await move(ready)
    assert result.success
    assert result.updated_calls == 500
    (made,) = await backup.listed(ready)
    assert made.contents["public.voice_calls"]["rows"] == 500


async def test_a_row_without_an_id_is_told_and_left(sampled: Database) -> None:
    await change(
        sampled,
        """ALTER TABLE public.voice_agent_config DROP CONSTRAINT voice_agent_config_pkey;
           ALTER TABLE public.voice_agent_config ALTER id DROP NOT NULL;
           INSERT INTO public.voice_agent_config (business_id) SELECT id FROM public.businesses LIMIT 1""",
    )
    heard: list[events.Event] = []
    foretold = await move(sampled, dry_run=True)
    result = await move(sampled, heard.append)
    assert result.success
    assert result.migrated_configs == foretold.migrated_configs
    assert any(isinstance(event, events.Note) and "without an id" in event.text for event in heard)


async def test_a_vertical_without_rules_joins_the_catalogue(sampled: Database) -> None:
    await change(
        sampled,
        """UPDATE public.businesses SET vertical = 'Óptica "La Ñ"' WHERE id = (
               SELECT business_id FROM public.voice_agent_config JOIN public.businesses b ON b.id = business_id
               WHERE vertical = 'restaurant' LIMIT 1)""",
    )
    assert (await move(sampled)).success
    assert await value(
        sampled, "SELECT count(*) FROM public.voice_assistant_configs WHERE assistant_type_id = 'Óptica \"La Ñ\"_basic'"
    )


async def test_a_row_the_database_will_not_take_is_set_aside_alone(sampled: Database) -> None:
    await change(
        sampled,
        "ALTER TABLE public.voice_assistant_configs ADD CONSTRAINT house_rule CHECK (voice_id <> 'forbidden')",
    )
    victims = await rows(
        sampled,
        """UPDATE public.voice_agent_config SET voice_id = 'forbidden' WHERE id IN (
               SELECT c.id FROM public.voice_agent_config c JOIN public.businesses b ON b.id = c.business_id
               WHERE b.vertical IS NOT NULL ORDER BY c.id DESC LIMIT 2) RETURNING id""",
    )
    result = await move(sampled, batch_size=100)
    set_aside = await rows(sampled, "SELECT * FROM relevo.quarantine WHERE reason = 'rejected'")
    assert {row["config_id"] for row in set_aside} == {str(row["id"]) for row in victims}
    assert all("house_rule" in row["detail"] for row in set_aside)
    assert result.success
    assert result.migrated_configs + result.quarantined_configs == await value(
        sampled, "SELECT count(*) FROM public.voice_agent_config"
    )


async def test_a_corrected_row_leaves_the_quarantine(sampled: Database) -> None:
    first = await move(sampled)
    await behind(sampled, "UPDATE public.businesses SET vertical = 'dental' WHERE vertical IS NULL")
    again = await move(sampled)
    assert again.migrated_configs > 0
    assert again.quarantined_configs == first.quarantined_configs - again.migrated_configs
    assert await value(sampled, "SELECT count(*) FROM relevo.quarantine") == again.quarantined_configs


async def test_only_a_failed_verification_undoes_and_exactly_what_the_run_wrote(sampled: Database) -> None:
    """A first run moves some tenants and stays; the second fails and leaves no trace beside its record."""
    some = await rows(sampled, "SELECT id FROM public.businesses WHERE vertical IS NOT NULL ORDER BY id LIMIT 10")
    assert (await move(sampled, tenant_ids=tuple(row["id"] for row in some))).success
    before = await fingerprint(sampled)
    await change(
        sampled,
        """CREATE FUNCTION public.tamper() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN NEW.voice_speed := 1.5; RETURN NEW; END $$;
           CREATE TRIGGER tamper BEFORE INSERT ON public.voice_assistant_configs
           FOR EACH ROW EXECUTE FUNCTION public.tamper()""",
    )
    result = await move(sampled)
    assert not result.success
    assert result.undone
    assert any("differs in voice_speed" in error for error in result.errors)
    assert await fingerprint(sampled) == before
    assert await value(sampled, "SELECT count(*) FROM relevo.run_calls") == 0
    (run,) = await rows(sampled, "SELECT * FROM relevo.runs WHERE state = 'undone'")
    assert run["result"]["errors"]


async def test_the_backup_is_one_moment_read_back(sampled: Database) -> None:
    result = await move(sampled)
    (made,) = await backup.listed(sampled)
    assert made.id == result.backup_id
    assert made.verified_at is not None
    assert made.contents["public.voice_agent_config"]["rows"] == await value(
        sampled, "SELECT count(*) FROM public.voice_agent_config"
    )
    copy = made.contents["public.voice_agent_config"]["copy"]
    assert copy.startswith("relevo_backup.")
    assert await value(sampled, f"SELECT count(*) FROM (TABLE {copy} EXCEPT TABLE public.voice_agent_config) d") == 0
    assert await value(sampled, f"SELECT relrowsecurity FROM pg_class WHERE oid = '{copy}'::regclass")


async def test_a_backup_that_reads_otherwise_than_written_stops_the_move(
    sampled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_back = backup._read_back

    async def meddled(database: Database, backup_id: UUID, contents: dict[str, Any], clock: Any) -> None:
        copy = contents["public.voice_agent_config"]["copy"]
        await change(database, f"UPDATE {copy} SET voice_id = 'x' WHERE id = (SELECT min(id::text)::uuid FROM {copy})")
        await read_back(database, backup_id, contents, clock)

    monkeypatch.setattr(backup, "_read_back", meddled)
    with pytest.raises(MoveFailed, match="does not read as it was written"):
        await move(sampled)
    assert await value(sampled, "SELECT count(*) FROM public.voice_assistant_configs") == 0


async def test_skipping_the_backup_warns(sampled: Database) -> None:
    heard: list[events.Event] = []
    result = await move(sampled, heard.append, skip_backup=True)
    assert result.backup_id is None
    assert any(isinstance(event, events.Note) and event.warning and "backup" in event.text for event in heard)
    assert await backup.listed(sampled) == []


async def test_the_audit_log_tells_who_and_why(sampled: Database) -> None:
    await move(sampled)
    told = await rows(sampled, "SELECT actor, action, reason FROM relevo.audit_log ORDER BY id")
    assert [row["action"] for row in told] == [
        "migration.start",
        "backup.create",
        "mirror.install",
        "migration.succeeded",
    ]
    assert {row["actor"] for row in told} == {"tester"}
    assert told[0]["reason"] == "a test"


async def test_one_migrator_at_a_time(sampled: Database) -> None:
    before = await fingerprint_of_everything(sampled)
    async with lease(sampled, runner.LEASE):
        with pytest.raises(LeaseHeld, match="is being done by"):
            await move(sampled)
    changed = await fingerprint_of_everything(sampled)
    assert {name for name in before if before[name] != changed[name]} == {"relevo.leases"}
    assert (await move(sampled)).success


async def test_who_lost_the_lease_writes_nothing_more(sampled: Database) -> None:
    async def steal() -> None:
        await change(sampled, "UPDATE relevo.leases SET token = token + 1, holder = 'elsewhere:1:1'")

    stolen: list[asyncio.Task[None]] = []

    def on_event(event: events.Event) -> None:
        if isinstance(event, events.StepStarted) and event.number == 3:
            stolen.append(asyncio.get_running_loop().create_task(steal()))

    with pytest.raises(LeaseLost):
        await move(sampled, on_event, batch_size=5)
    assert len(stolen) == 1
    assert not (await rows(sampled, "SELECT FROM relevo.runs WHERE state <> 'running'"))


async def test_a_run_to_resume_on_a_database_that_never_saw_one_changes_nothing(database: Database) -> None:
    await load_sample(database, tenants=1, calls=0)
    with pytest.raises(SchemaMissing):
        await move(database, resume=uuid4())
    assert await value(database, "SELECT to_regnamespace('relevo')") is None


async def test_an_open_run_is_not_continued_for_other_tenants(sampled: Database) -> None:
    await interrupt(sampled, lambda event: isinstance(event, events.StepStarted) and event.number == 3)
    (tenant,) = await rows(sampled, "SELECT id FROM public.businesses LIMIT 1")
    with pytest.raises(Refused, match="begun for other tenants"):
        await move(sampled, tenant_ids=(tenant["id"],))
    with pytest.raises(UnknownName, match="is not open"):
        await move(sampled, resume=uuid4())
    open_run = await value(sampled, "SELECT id FROM relevo.runs WHERE state = 'running'")
    assert (await move(sampled, resume=open_run)).run_id == open_run


async def interrupt(database: Database, at: Callable[[events.Event], bool]) -> None:
    """Run until an event, and stop there as a Ctrl-C would."""

    class Stop(Exception):
        pass

    def sink(event: events.Event) -> None:
        if at(event):
            raise Stop

    with pytest.raises(Stop):
        await move(database, sink, batch_size=7)


# A migrator in a process of its own that kills itself, without a word, at the Nth thing it has to say.
@pytest.fixture(scope="module")
def forks() -> Iterator[Migrators]:
    """Where migrators come from."""
    with migrators() as ready:
        yield ready


async def test_killed_between_any_two_batches_the_end_is_the_same(
    sampled: Database, server: Any, forks: Migrators
) -> None:
    """Kill -9 at everything a run says, one after the other, each on a fresh copy; then once more, to the end."""
    template = sampled.url.rsplit("/", 1)[1]
    await sampled._pool.close()

    async def on_a_copy(name: str, kills: list[int]) -> tuple[dict[str, str], int]:
        copy = f"{template}_{name}"
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {copy} TEMPLATE {template} OWNER relevo_owner".encode())
        url = sampled.url.replace(template, copy)
        for last in kills:
            killed = await asyncio.to_thread(forks.run, url, RUN_BEGINS, until=last, batch_size=9)
            assert killed == Ended(signal=signal.SIGKILL), killed
        finished = await asyncio.to_thread(forks.run, url, RUN_BEGINS, batch_size=9)
        assert finished.succeeded, finished
        async with Database(url) as database:
            content = await fingerprint(database)
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {copy} WITH (FORCE)".encode())
        return content, finished.said

    expected, events_said = await on_a_copy("whole", [])
    assert events_said > 20
    for last in range(1, events_said + 1):
        content, _said = await on_a_copy(f"killed_{last}", [last])
        assert content == expected, f"killed at event {last} of {events_said}"
    content, _said = await on_a_copy("killed_often", [12, 9, 8, 10])
    assert content == expected
