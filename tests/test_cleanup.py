"""The cleanup: each stage refused until it is safe, shown before it is done, and taken back where it can be."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
import pytest_asyncio
from psycopg.conninfo import conninfo_to_dict

from relevo.cleanup import doing
from relevo.cleanup.doing import Plan
from relevo.cleanup.stages import STAGES, stage_of
from relevo.db.pool import Database
from relevo.db.programs import program_folder
from relevo.errors import MoveFailed, Refused, UnknownName, UsageError
from relevo.flags import writing
from relevo.flags.writing import Author
from relevo.migration import mirror, runner
from relevo.migration.mapping import from_settings
from relevo.migration.run import Options
from relevo.migration.runs import Who
from relevo.migration.steps import verify
from relevo.report import ticking
from relevo.report.checklist import ITEMS
from relevo.rollback import levels
from tests import finished
from tests.calling import SECRET, WEBHOOK, asked, lines
from tests.commands import relevo, succeeds
from tests.conftest import change, copied, rows, value
from tests.finished import COMPLETED_AT
from tests.inprocess import asking
from tests.servers import Server
from tests.serving import serving
from tests.standins import Reply, stand_in

MAPPING = from_settings(finished.MAPPED)
ANA = Who("ana", "phase 4")
STAGE_OF = {"flags": ("day_1",), "deprecate": ("day_1", "week_1"), "drop": ("day_1", "week_1", "week_4")}
LATE = COMPLETED_AT + timedelta(days=29)
ONLY_ON_V1 = """SELECT count(*) FROM public.voice_agent_config c
    WHERE NOT EXISTS (SELECT FROM public.voice_assistant_configs v WHERE v.id = c.id)"""
V1 = "SELECT * FROM public.voice_agent_config ORDER BY id"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def template_finished(server: Server, template: str) -> AsyncIterator[str]:
    with copied(server, template) as url:
        async with Database(url) as database:
            await finished.finish(database)
        yield str(conninfo_to_dict(url)["dbname"])


@pytest_asyncio.fixture
async def world(server: Server, template_finished: str) -> AsyncIterator[Database]:
    with copied(server, template_finished) as url:
        async with Database(url) as opened:
            yield opened


def late() -> datetime:
    return LATE


async def checked_off(database: Database, *stages: str) -> None:
    """The checklist's items of these stages, but for those that the cleanup itself does."""
    for item in ITEMS:
        if item.stage in stages and item.name not in ("flags_removed", "old_tables_marked", "backups_removed"):
            await change(
                database,
                """INSERT INTO relevo.checklist_done SELECT max(id), %s, now(), 'Ana', 'seen' FROM relevo.rollouts
                   ON CONFLICT DO NOTHING""",
                (item.name,),
            )


async def reach(database: Database, stage: str, tmp_path: Path | None = None) -> None:
    """Everything up to and with a stage."""
    for name in STAGES:
        await checked_off(database, *STAGE_OF.get(name, ()))
        await do(database, name, tmp_path / "final.dump" if tmp_path and name == "drop" else None)
        if name == stage:
            return


async def do(database: Database, stage: str, file: Path | None = None, **more: Any) -> Plan:
    return await doing.do(database, MAPPING, stage_of(stage), ANA, late, file=file, **more)


async def undo(database: Database, stage: str) -> list[str]:
    return await doing.undo(database, MAPPING, stage_of(stage), ANA, late)


async def planned(database: Database, stage: str, now: datetime = LATE) -> Plan:
    return await doing.plan(database, MAPPING, stage_of(stage), lambda: now)


# What stands in the way --------------------------------------------------------------------------------------------


async def test_nothing_is_cleaned_before_the_checklist_is_done(world: Database) -> None:
    for stage in STAGES:
        plan = await planned(world, stage)
        assert plan.blockers, stage
        with pytest.raises((Refused, UsageError)):
            await do(world, stage)
    assert "the checklist is not done: " in (await planned(world, "flags")).blockers[0]
    assert await value(world, "SELECT count(*) FROM relevo.cleanup_stages") == 0


async def test_before_a_rollout_is_complete_there_is_nothing_to_clean(ready: Database) -> None:
    assert "no rollout is complete" in (await planned(ready, "flags")).blockers[0]
    answered = relevo("cleanup", "--stage", "flags", "--yes", url=ready.url)
    assert (answered.status, "no rollout is complete" in answered.told) == (3, True)


async def test_whoever_lives_on_v1_keeps_it(world: Database) -> None:
    await checked_off(world, "day_1")
    assert (await planned(world, "flags")).blockers == []
    one = (await finished.clients(world))[0]
    await change(world, "UPDATE public.feature_flags SET disabled_tenants = %s", ([one],))
    (blocker,) = (await planned(world, "flags")).blockers
    assert f"1 active tenants live on v1: {one}" in blocker
    await change(world, "UPDATE public.feature_flags SET disabled_tenants = '{}', percentage = 60")
    assert any("not on for 100 %" in each for each in (await planned(world, "flags")).blockers)


async def test_a_call_that_v1_answered_yesterday_keeps_it(world: Database) -> None:
    await checked_off(world, "day_1")
    await finished.calls(world, "v1", 3, LATE - timedelta(hours=3))
    (blocker,) = (await planned(world, "flags")).blockers
    assert "v1 answered 3 calls in the last day" in blocker
    assert (await planned(world, "flags", LATE + timedelta(days=2))).blockers == []


async def test_writes_that_wait_keep_dual_write(world: Database) -> None:
    await reach(world, "flags")
    await checked_off(world, "week_1")
    await change(
        world,
        """INSERT INTO relevo.mirror_queue (config_id, written_on, operation, reason, writer)
           VALUES (gen_random_uuid(), 'v1', 'update', 'x', 'x')""",
    )
    (blocker,) = (await planned(world, "deprecate")).blockers
    assert "1 writes wait" in blocker


async def test_a_table_that_cannot_be_renamed_stays(world: Database) -> None:
    await reach(world, "flags")
    await checked_off(world, "week_1")
    await change(world, "CREATE TABLE public.voice_agent_config_deprecated (id int)")
    (blocker,) = (await planned(world, "deprecate")).blockers
    assert "voice_agent_config_deprecated is there already" in blocker


async def test_v1_is_kept_for_28_days_and_until_its_code_is_gone(world: Database) -> None:
    await reach(world, "deprecate")
    early = await planned(world, "drop", COMPLETED_AT + timedelta(days=27, hours=23))
    assert [each for each in early.blockers if "28 days" in each]
    assert any("v1_code_removed" in each for each in early.blockers)
    await checked_off(world, "week_4")
    assert (await planned(world, "drop")).blockers == []


async def test_what_others_hang_on_v1_keeps_it(world: Database) -> None:
    await change(world, "CREATE VIEW public.old_report AS SELECT id FROM public.voice_agent_config")
    await reach(world, "deprecate")
    await checked_off(world, "week_4")
    await change(
        world,
        """CREATE TABLE public.notes (config uuid REFERENCES public.voice_agent_config_deprecated (id))""",
    )
    (blocker,) = (await planned(world, "drop")).blockers
    assert "view public.old_report" in blocker
    assert "foreign key notes_config_fkey of public.notes" in blocker


async def test_backups_go_last_and_by_age(world: Database, tmp_path: Path) -> None:
    assert "stage drop is not done" in (await planned(world, "backups")).blockers[0]
    await reach(world, "drop", tmp_path)
    await change(world, "UPDATE public.migration_backups SET created_at = %s", (LATE - timedelta(days=27),))
    (blocker,) = (await planned(world, "backups")).blockers
    assert "no backup is old enough" in blocker


# Each stage: start → roll back → start → complete --------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["flags", "deprecate"])
async def test_a_stage_can_be_taken_back_and_done_again(world: Database, stage: str) -> None:
    await reach(world, "flags") if stage == "deprecate" else None
    await checked_off(world, *STAGE_OF[stage])
    before = await everything(world)
    await do(world, stage)
    assert await everything(world) != before
    assert await undo(world, stage) == []
    assert await everything(world) == before
    assert (await verified(world)).success
    await do(world, stage)
    with pytest.raises(Refused, match=f"stage {stage} is done since"):
        await do(world, stage)
    assert (await planned(world, stage)).done_at == LATE
    audited = "SELECT array_agg(action ORDER BY id) FROM relevo.audit_log WHERE action LIKE 'cleanup.%%'"
    told = await value(world, audited, ())
    assert told[-3:] == [f"cleanup.{stage}", "cleanup.undo", f"cleanup.{stage}"]


async def everything(database: Database) -> Any:
    """What a stage could change: relations and triggers by name, v1's and v2's rows, the stages done."""
    found = [
        "SELECT c.relname, c.relkind FROM pg_class c WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
        """SELECT t.tgname, t.tgrelid::regclass::text AS of, t.tgenabled FROM pg_trigger t
           WHERE NOT tgisinternal ORDER BY 1, 2""",
        V1,
        "SELECT * FROM public.voice_assistant_configs ORDER BY id",
        """SELECT relname, array(SELECT unnest(relacl)::text ORDER BY 1) AS acl FROM pg_class
           WHERE relname LIKE 'voice%%' ORDER BY 1""",
        "SELECT stage FROM relevo.cleanup_stages ORDER BY 1",
    ]
    return [await rows(database, query, ()) for query in found]


async def verified(database: Database) -> verify.Verdict:
    return await verify.run(database, MAPPING, tenant_ids=None)


async def test_stages_are_taken_back_last_in_first_out(world: Database, tmp_path: Path) -> None:
    await reach(world, "deprecate")
    with pytest.raises(Refused, match="stage deprecate is done"):
        await undo(world, "flags")
    await undo(world, "deprecate")
    await undo(world, "flags")
    with pytest.raises(Refused, match="stage flags is not done"):
        await undo(world, "flags")
    await reach(world, "drop", tmp_path)
    for stage, says in (
        ("deprecate", "stage drop is done"),
        ("drop", "cannot be undone"),
        ("backups", "cannot be undone"),
    ):
        with pytest.raises(Refused, match=says):
            await undo(world, stage)


# Flags ----------------------------------------------------------------------------------------------------------------


async def test_from_then_on_the_flag_is_history_and_going_back_says_that_it_has_ended(world: Database) -> None:
    await reach(world, "flags")
    who = Author("ana", None)
    one = (await finished.clients(world))[0]
    before = await rows(world, "SELECT * FROM public.feature_flags")
    for going_back in (
        lambda: levels.all_back(world, who, late),
        lambda: levels.tenants_back(world, [one], who, late),
        lambda: levels.partly_back(world, 50, who, late),
        lambda: writing.switch(world, False, who),
        lambda: change(world, "UPDATE public.feature_flags SET enabled = false, percentage = 0"),
    ):
        with pytest.raises(Refused, match="v1 is retired") as refused:
            await going_back()
        assert "relevo cleanup --stage flags --undo" in refused.value.fix
    with psycopg.connect(world.url) as by_hand, pytest.raises(psycopg.Error, match="rollback by it has ended"):
        by_hand.execute("UPDATE public.feature_flags SET enabled = false WHERE name = 'voice_agent_v2'")
    assert await rows(world, "SELECT * FROM public.feature_flags") == before
    restored = relevo("rollback", "--level", "data", "--backup-id", await a_backup(world), "--yes", url=world.url)
    assert (restored.status, "v1 is retired" in restored.told) == (3, True), restored.told
    assert await ticked(world, "flags_removed")


async def a_backup(database: Database) -> str:
    return str(await value(database, "SELECT min(id::text) FROM public.migration_backups"))


async def ticked(database: Database, item: str) -> bool:
    async with database.transaction() as connection:
        standing = await ticking.look(connection, LATE)
    assert standing is not None
    return next(line.state == "done" for line in standing.lines if line.item.name == item)


async def test_v1_answers_no_call_any_more_not_even_in_v2s_place(world: Database) -> None:
    """v2's upstream is down: until then v1 stands in, from then on there is an apology."""
    (line, *_others) = await lines(world)
    with stand_in(lambda _request: Reply(500)) as v2, stand_in(lambda _: Reply(body={"assistantId": "v1"})) as v1:
        env = {"RELEVO_V2_UPSTREAM": v2.url, "RELEVO_V1_UPSTREAM": v1.url, "RELEVO_VAPI_SECRET": SECRET}
        shown = {"x-vapi-secret": SECRET}
        with serving(world.url, env=env) as before:
            assert before.ask("POST", WEBHOOK, asked(line, "one"), headers=shown).json["assistantId"] == "v1"
        await reach(world, "flags")
        with serving(world.url, env=env) as after:
            answer = after.ask("POST", WEBHOOK, asked(line, "two"), headers=shown).json
    assert "assistantId" not in answer
    assert answer.keys() & {"error", "destination"}
    assert len(v1.received) == 1
    (row,) = await rows(world, "SELECT * FROM relevo.calls WHERE call_id = 'two'")
    assert (row["version"], row["unanswered"]) == ("v2", True)
    assert "v1 is retired" in row["fallback"]


async def test_v2_answers_as_before(world: Database) -> None:
    (line, *_others) = await lines(world)
    async with asking(world) as before:
        first = (await before.tell(asked(line, "one"))).json["assistant"]["model"]
    await reach(world, "deprecate")
    async with asking(world) as after:
        assert (await after.tell(asked(line, "two"))).json["assistant"]["model"] == first


# Deprecate ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        "INSERT INTO public.voice_agent_config (id, system_prompt) VALUES (gen_random_uuid(), 'x')",
        "UPDATE public.voice_agent_config SET system_prompt = 'x'",
        "UPDATE public.voice_agent_config SET system_prompt = 'x' WHERE false",
        "DELETE FROM public.voice_agent_config",
        "UPDATE public.voice_agent_config_deprecated SET system_prompt = 'x'",
        "TRUNCATE public.voice_agent_config_deprecated",
    ],
)
async def test_a_writer_on_v1_gets_a_clear_error(world: Database, write: str) -> None:
    await reach(world, "deprecate")
    before = await rows(world, V1)
    with psycopg.connect(world.url) as connection, pytest.raises(psycopg.Error) as refused:
        connection.execute(write.encode())
    assert "v1 is deprecated: public.voice_agent_config takes no more writes" in str(refused.value)
    assert "write to public.voice_assistant_configs" in (refused.value.diag.message_hint or "")
    assert await rows(world, V1) == before


async def test_another_role_reads_on_and_hears_the_same_when_it_writes(world: Database) -> None:
    if await value(world, "SELECT to_regrole('app_of_tests') IS NULL"):
        await change(world, "CREATE ROLE app_of_tests LOGIN")
    await change(world, "GRANT SELECT, INSERT, UPDATE ON public.voice_agent_config TO app_of_tests")
    await reach(world, "deprecate")
    app = psycopg.conninfo.make_conninfo(world.url, user="app_of_tests")
    with psycopg.connect(app, autocommit=True) as connection:
        found = connection.execute("SELECT count(*) FROM public.voice_agent_config").fetchone()
        assert found is not None
        with pytest.raises(psycopg.Error, match="v1 is deprecated"):
            connection.execute("UPDATE public.voice_agent_config SET system_prompt = 'x'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM public.voice_agent_config")


async def test_v2_leads_and_nothing_is_moved_or_compared_any_more(world: Database) -> None:
    active = await value(world, "SELECT count(*) FROM relevo.active_tenants()")
    await reach(world, "deprecate")
    assert await value(world, "SELECT count(*) FROM relevo.active_tenants()") == active
    one = await value(world, "SELECT id FROM public.voice_assistant_configs ORDER BY id LIMIT 1")
    await change(world, "UPDATE public.voice_assistant_configs SET voice_id = 'new' WHERE id = %s", (one,))
    assert await value(world, "SELECT voice_id <> 'new' FROM public.voice_agent_config WHERE id = %s", (one,))
    for going_on in (
        lambda: verified(world),
        lambda: mirror.install(world, MAPPING, ANA, late),
        lambda: runner.migrate(world, Options(), actor="ana", mapping=MAPPING),
    ):
        with pytest.raises(Refused, match="v1 is deprecated"):
            await going_on()
    for command in (["status"], ["flags", "show"], ["checklist"], ["mirror", "status"]):
        assert relevo(*command, url=world.url).status in (0, 1)
    assert await ticked(world, "old_tables_marked")


async def test_what_was_written_meanwhile_reaches_v1_when_it_is_taken_back(world: Database) -> None:
    await reach(world, "deprecate")
    one, two = [
        row["id"] for row in await rows(world, "SELECT id FROM public.voice_assistant_configs ORDER BY id LIMIT 2")
    ]
    await change(
        world,
        """UPDATE public.voice_assistant_configs SET voice_id = 'new', special_instructions = 'Sin cebolla'
           WHERE id = %s""",
        (one,),
    )
    await change(world, "DELETE FROM public.voice_assistant_configs WHERE id = %s", (two,))
    await change(
        world,
        """INSERT INTO public.voice_assistant_configs (id, business_id, assistant_type_id, voice_id)
           SELECT '11111111-1111-4111-8111-111111111111', business_id, assistant_type_id, 'born'
           FROM public.voice_assistant_configs WHERE id = %s""",
        (one,),
    )
    only_on_v1 = await value(
        world,
        f"{ONLY_ON_V1} AND c.id <> %s",
        (two,),
    )
    assert await undo(world, "deprecate") == []
    assert await value(world, "SELECT voice_id FROM public.voice_agent_config WHERE id = %s", (one,)) == "new"
    assert await value(world, "SELECT count(*) FROM public.voice_agent_config WHERE id = %s", (two,)) == 0
    assert (
        await value(
            world, "SELECT voice_id FROM public.voice_agent_config WHERE id = '11111111-1111-4111-8111-111111111111'"
        )
        == "born"
    )
    assert (
        await value(
            world,
            ONLY_ON_V1,
        )
        == only_on_v1
    )
    verdict = await verified(world)
    assert (verdict.drifted, verdict.missing, verdict.edited_on_v2 >= 1) == (0, 0, True)
    assert (
        await value(world, "SELECT special_instructions FROM public.voice_assistant_configs WHERE id = %s", (one,))
        == "Sin cebolla"
    )


@contextlib.contextmanager
def held(database: Database, statement: LiteralString) -> Iterator[None]:
    """What a statement locks, held by somebody else."""
    with psycopg.connect(database.url) as other:
        other.execute(statement)
        yield
        other.rollback()


async def edited(database: Database) -> list[Any]:
    """The first two configurations, edited on v2 alone."""
    await change(
        database,
        """UPDATE public.voice_assistant_configs SET voice_id = 'new'
           WHERE id IN (SELECT id FROM public.voice_assistant_configs ORDER BY id LIMIT 2)""",
    )
    asked = "SELECT id FROM public.voice_assistant_configs WHERE voice_id = 'new' ORDER BY id"
    return [row["id"] for row in await rows(database, asked)]


async def voices(database: Database, ids: list[Any]) -> list[str]:
    """By what v1 has these speak."""
    asked = "SELECT voice_id FROM public.voice_agent_config WHERE id = ANY (%s) ORDER BY id"
    return [row["voice_id"] for row in await rows(database, asked, (ids,))]


async def begun(database: Database) -> asyncio.Task[list[str]]:
    """Taking dual write's stage back, as far as it has to wait for somebody's lock."""
    waits = asyncio.Event()
    undoing = doing.undo(database, MAPPING, stage_of("deprecate"), ANA, late, emit=lambda _told: waits.set())
    task = asyncio.create_task(undoing)
    await waits.wait()
    return task


async def test_taking_it_back_is_whole_or_not_at_all(world: Database) -> None:
    """Who cannot lock one of v2's tables, and is stopped while waiting, changed nothing, and may try again."""
    await reach(world, "deprecate")
    ids = await edited(world)
    before = await everything(world)
    with held(world, "LOCK TABLE public.voice_assistant_configs IN ROW EXCLUSIVE MODE"):
        task = await begun(world)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await everything(world) == before
    assert await undo(world, "deprecate") == []
    assert await voices(world, ids) == ["new", "new"]


async def test_killed_where_it_waits_it_changed_nothing(world: Database) -> None:
    await reach(world, "deprecate")
    ids = await edited(world)
    before = await everything(world)
    words = [sys.executable, "-m", "relevo", "cleanup", "--stage", "deprecate", "--undo"]
    waiting = (
        """SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'public.voice_assistant_configs'::regclass"""
    )
    with held(world, "LOCK TABLE public.voice_assistant_configs IN ROW EXCLUSIVE MODE"):
        env = {**os.environ, "RELEVO_DATABASE_URL": world.url}
        quiet = subprocess.DEVNULL
        undoing = await asyncio.create_subprocess_exec(*words, env=env, stdout=quiet, stderr=quiet)
        while not await value(world, waiting):
            assert undoing.returncode is None
        undoing.kill()
        await undoing.wait()
    assert await everything(world) == before
    assert await undo(world, "deprecate") == []
    assert await voices(world, ids) == ["new", "new"]


async def test_stopped_after_it_was_taken_back_the_rest_waits_for_repair(world: Database) -> None:
    """Not even what is called drift is then taken from v1."""
    await reach(world, "deprecate")
    ids = await edited(world)
    with held(world, "SELECT FROM public.voice_assistant_configs ORDER BY id LIMIT 1 FOR UPDATE"):
        task = await begun(world)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await verified(world)
    _mended, failed = await mirror.repair(world, ANA, late, drifted=True)
    assert failed == []
    assert await voices(world, ids) == ["new", "new"]
    assert await value(world, "SELECT count(*) FROM public.voice_assistant_configs WHERE voice_id = 'new'") == 2


async def test_what_v1_is_told_before_it_has_v2s_edits_is_not_lost(world: Database) -> None:
    """As ever with dual write the later of two stands, and what only one side wrote is the other's too."""
    await reach(world, "deprecate")
    _first, second = await edited(world)
    await change(
        world, "UPDATE public.voice_assistant_configs SET vapi_assistant_id = 'newer' WHERE id = %s", (second,)
    )
    with held(world, "SELECT FROM public.voice_assistant_configs ORDER BY id LIMIT 1 FOR UPDATE"):
        task = await begun(world)
        await change(world, "UPDATE public.voice_agent_config SET voice_id = 'of v1' WHERE id = %s", (second,))
    assert await task == []
    for side in ("voice_agent_config", "voice_assistant_configs"):
        told = f"SELECT voice_id, vapi_assistant_id FROM public.{side} WHERE id = %s"
        assert await rows(world, told, (second,)) == [{"voice_id": "of v1", "vapi_assistant_id": "newer"}]


async def test_readers_are_counted(world: Database) -> None:
    await reach(world, "deprecate")
    (note,) = (await planned(world, "drop")).notes
    assert "v1's table was read " in note


# Drop -----------------------------------------------------------------------------------------------------------------


async def test_nothing_is_dropped_before_it_is_exported(world: Database, tmp_path: Path) -> None:
    await reach(world, "deprecate")
    await checked_off(world, "week_4")
    with pytest.raises(UsageError, match="needs a file"):
        await do(world, "drop")
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        await do(world, "drop", taken)
    assert taken.read_text() == "mine"
    with pytest.raises(UsageError, match="cannot write"):
        await do(world, "drop", tmp_path / "no" / "folder")
    with pytest.raises(MoveFailed, match="pg_dump failed"):
        await do(world, "drop", tmp_path / "x", export_url="postgresql://nobody@127.0.0.1:9/x")
    assert not (tmp_path / "x").exists()
    other = await asyncio.to_thread(elsewhere, world.url)
    with pytest.raises(MoveFailed):
        await do(world, "drop", tmp_path / "y", export_url=other)
    assert not (tmp_path / "y").exists()
    assert await value(world, "SELECT count(*) FROM public.voice_agent_config_deprecated") > 0


def elsewhere(url: str) -> str:
    """Another database: an export of that is no backup of this."""
    return str(psycopg.conninfo.make_conninfo(url, dbname="postgres"))


async def test_an_export_that_lacks_a_row_is_no_backup(
    world: Database, server: Server, template_finished: str, tmp_path: Path
) -> None:
    """Of another database, which looks the same but for one row."""
    await reach(world, "deprecate")
    await checked_off(world, "week_4")
    with copied(server, template_finished) as url:
        async with Database(url) as other:
            await reach(other, "deprecate")
            table = "public.voice_agent_config_deprecated"
            await change(other, f"ALTER TABLE {table} DISABLE TRIGGER USER")
            await change(other, f"DELETE FROM {table} WHERE id = (SELECT max(id::text) FROM {table})::uuid")
        with pytest.raises(MoveFailed, match="the export holds"):
            await do(world, "drop", tmp_path / "x", export_url=url)
    assert not (tmp_path / "x").exists()
    assert await value(world, "SELECT count(*) FROM public.voice_agent_config_deprecated") > 0


async def test_what_was_dropped_is_in_the_archive(world: Database, tmp_path: Path) -> None:
    v1, calls = await rows(world, V1), await value(world, "SELECT count(*) FROM public.voice_calls")
    prompts = await value(world, "SELECT count(*) FROM relevo.config_origins WHERE prompt IS NOT NULL")
    await reach(world, "drop", tmp_path)
    file = tmp_path / "final.dump"
    assert file.stat().st_mode & 0o777 == 0o600
    (stage,) = await rows(world, "SELECT * FROM relevo.cleanup_stages WHERE stage = 'drop'")
    assert stage["details"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert stage["details"]["rows"]["public.voice_agent_config_deprecated"] == len(v1)
    assert await value(world, "SELECT to_regclass('public.voice_agent_config_deprecated') IS NULL")
    assert await value(world, "SELECT count(*) FROM relevo.config_origins WHERE prompt IS NOT NULL") == 0
    assert await value(world, "SELECT count(*) FROM public.voice_calls") == calls
    assert prompts > 0
    restore = [program_folder() / "pg_restore", "--no-owner", "--table=voice_agent_config_deprecated"]
    await asyncio.to_thread(
        partial(subprocess.run, [*restore, f"--dbname={world.url}", file])
    )  # of 18, into 15: it complains, and does
    assert await rows(world, "SELECT * FROM public.voice_agent_config_deprecated ORDER BY id") == v1


async def test_afterwards_old_readers_hear_why_and_relevo_goes_on(world: Database, tmp_path: Path) -> None:
    (line, *_others) = await lines(world)
    active = await value(world, "SELECT count(*) FROM relevo.active_tenants()")
    await reach(world, "drop", tmp_path)
    for statement in ("SELECT * FROM public.voice_agent_config", "SELECT count(*) FROM public.voice_agent_config"):
        with psycopg.connect(world.url) as old, pytest.raises(psycopg.Error, match="v1 was dropped"):
            old.execute(statement.encode())
    assert await rows(world, V1) == []
    assert await value(world, "SELECT count(*) FROM relevo.active_tenants()") == active
    async with asking(world) as router:
        assert (await router.tell(asked(line, "after"))).json["assistant"]
    for command in (
        ["status"],
        ["why", line.tenant_id],
        ["answer", line.tenant_id],
        ["checklist"],
        ["report"],
        ["cleanup"],
        ["db", "up"],
        ["backups", "create"],
    ):
        answered = relevo(*command, url=world.url)
        assert answered.status in (0, 1), (command, answered.told)


# Backups --------------------------------------------------------------------------------------------------------------


async def test_old_backups_go_and_the_checklist_says_so(world: Database, tmp_path: Path) -> None:
    await reach(world, "drop", tmp_path)
    copies = "SELECT count(*) FROM pg_class WHERE relnamespace = 'relevo_backup'::regnamespace AND relkind = 'r'"
    assert await value(world, copies) > 0
    await change(world, "UPDATE public.migration_backups SET created_at = %s", (LATE - timedelta(days=29),))
    await change(
        world,
        "INSERT INTO public.migration_backups (created_at, tables, contents, actor) VALUES (%s, '{}', '{}', 'ana')",
        (LATE - timedelta(days=3),),
    )
    done = await do(world, "backups")
    assert len(done.objects) == 1
    assert await value(world, copies) == 0
    assert not await ticked(world, "backups_removed")
    assert (await planned(world, "backups")).done_at is None
    await do(world, "backups", kept=timedelta(days=1))
    assert await ticked(world, "backups_removed")
    assert (await planned(world, "backups")).done_at == LATE


# The command ----------------------------------------------------------------------------------------------------------


async def test_without_yes_nothing_is_done(world: Database) -> None:
    await checked_off(world, "day_1")
    before = await everything(world)
    for words in ([], ["--dry-run"], ["--yes", "--dry-run"], ["--undo", "--dry-run"]):
        shown = succeeds("cleanup", "--stage", "flags", *words, url=world.url)
        assert (shown["dry_run"], len(shown["objects"]), shown["blockers"]) == (True, 2, [])
    blocked = relevo("cleanup", "--stage", "deprecate", url=world.url)
    assert (blocked.status, len(blocked.data["objects"]) > 8) == (3, True)
    assert await everything(world) == before
    assert [each["stage"] for each in succeeds("cleanup", url=world.url)] == list(STAGES)
    done = succeeds("cleanup", "--stage", "flags", "--yes", "--actor", "ana", "--reason", "day 2", url=world.url)
    assert (done["dry_run"], done["stage"]) == (False, "flags")
    assert await value(world, "SELECT actor || ': ' || reason FROM relevo.cleanup_stages") == "ana: day 2"
    assert succeeds("cleanup", "--stage", "flags", "--undo", url=world.url)["undone"] is True


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--stage", "flag"], 2, "Did you mean 'flags'"),
        (["--yes"], 2, "no stage is named"),
        (["--stage", "backups", "--older-than-days", "-1"], 2, "no age"),
        (["--stage", "drop", "--yes"], 2, "--archive FILE"),
        (["--stage", "flags", "--undo"], 3, "is not done"),
    ],
)
async def test_a_wrong_word_is_one_clear_line(ready: Database, words: list[str], status: int, says: str) -> None:
    answered = relevo("cleanup", *words, url=ready.url)
    assert (answered.status, says in answered.told) == (status, True), answered.told


def test_an_unknown_stage_has_a_nearest_name() -> None:
    with pytest.raises(UnknownName, match="'deprecate'"):
        stage_of("deprecated")
