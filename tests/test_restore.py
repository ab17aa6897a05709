"""Going back to a backup: by difference, in one transaction, with nothing lost and a way back from it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from relevo import events
from relevo.db.lease import lease
from relevo.db.pool import Database
from relevo.errors import LeaseHeld, Refused, RelevoError, UnknownName, UsageError
from relevo.migration import runner
from relevo.migration.mapping import DEFAULT
from relevo.migration.steps import backup, difference
from relevo.migration.steps.backup import Backup
from relevo.rollback import data
from tests.commands import relevo, succeeds
from tests.conftest import NOW, change, rows, value
from tests.test_move import move

RESTORED = (
    "public.voice_agent_config",
    "public.voice_calls",
    "public.voice_assistant_types",
    "public.voice_assistant_configs",
    "public.voice_assistant_metrics",
    "relevo.config_origins",
    "relevo.overrides",
    "relevo.quarantine",
)


async def state(database: Database, *tables: str, where: str = "true") -> dict[str, str]:
    """A checksum per table, of whole rows in their text form."""
    return {
        table: await value(
            database,
            f"""SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text COLLATE "C")), '')
                FROM {table} t WHERE {where}""",
        )
        for table in tables or RESTORED
    }


async def taken(database: Database, tenant_ids: list[UUID] | None = None, **options: Any) -> Backup:
    """A backup of the present."""
    return await backup.create(
        database,
        DEFAULT,
        tenant_ids=tenant_ids,
        clock=lambda: NOW,
        emit=events.silent,
        actor="tester",
        reason=None,
        **options,
    )


async def restored(
    database: Database,
    of: Backup | UUID,
    *tenant_ids: UUID,
    emit: events.Sink = events.silent,
    discard_newer: bool = False,
) -> data.DataRestored:
    """Restore it, whole or of some tenants."""
    found = await difference.find(database, str(of if isinstance(of, UUID) else of.id))
    request = data.Request(found, "tester", "a test", tuple(tenant_ids) or None, discard_newer)
    return await data.run(database, DEFAULT, request, clock=lambda: NOW, emit=emit)


async def shown(
    database: Database, of: Backup, *tenant_ids: UUID, discard_newer: bool = False
) -> dict[str, difference.TableDifference]:
    """What restoring it would do, by table."""
    found = await difference.preview(database, DEFAULT, of, tenant_ids=tenant_ids or None, discard_newer=discard_newer)
    return {table.table: table for table in found.tables}


async def refused(database: Database, of: Backup, *tenant_ids: UUID, discard_newer: bool = False) -> RelevoError:
    """Why it cannot be restored; nothing may have changed."""
    before = await state(database)
    with pytest.raises(RelevoError) as caught:
        await restored(database, of, *tenant_ids, discard_newer=discard_newer)
    assert await state(database) == before
    last = "SELECT state FROM relevo.restores ORDER BY started_at DESC, ctid DESC LIMIT 1"
    assert await value(database, last) == "failed"
    return caught.value


# Everything that can happen to rows, at once.
MEDDLE = """
    UPDATE public.voice_agent_config SET system_prompt = 'x', updated_at = '2001-01-01'
    WHERE id IN (SELECT id FROM public.voice_agent_config ORDER BY id LIMIT 5);
    DELETE FROM public.voice_agent_config
    WHERE id IN (SELECT id FROM public.voice_agent_config ORDER BY id DESC LIMIT 4);
    UPDATE public.voice_calls SET status = 'lost', avg_latency_ms = NULL
    WHERE id IN (SELECT id FROM public.voice_calls ORDER BY id LIMIT 100);
    DELETE FROM public.voice_calls WHERE id IN (SELECT id FROM public.voice_calls ORDER BY id DESC LIMIT 50);
    UPDATE public.voice_assistant_configs SET special_instructions = 'y'
    WHERE id IN (SELECT id FROM public.voice_assistant_configs ORDER BY id LIMIT 6);
    DELETE FROM public.voice_assistant_configs
    WHERE id IN (SELECT id FROM public.voice_assistant_configs ORDER BY id DESC LIMIT 7);
    DELETE FROM public.voice_assistant_metrics WHERE total_calls > 10;
    INSERT INTO public.voice_agent_config (id, business_id, system_prompt)
    SELECT gen_random_uuid(), business_id, 'new' FROM public.voice_agent_config WHERE business_id IS NOT NULL LIMIT 3;
"""
NEW_CALL = """
    INSERT INTO public.voice_calls (id, business_id, vapi_call_id, status, started_at)
    SELECT gen_random_uuid(), id, 'new', 'completed', now() FROM public.businesses ORDER BY id LIMIT 8
"""


async def test_a_restore_brings_everything_back_and_undo_brings_the_present_back(sampled: Database) -> None:
    assert (await move(sampled)).success
    made = await taken(sampled)
    as_backed_up = await state(sampled)
    await change(sampled, MEDDLE)
    present = await state(sampled)
    assert all(present[table] != as_backed_up[table] for table in present if "v1" in table)
    foretold = await shown(sampled, made)
    gone = f"""SELECT count(*) FROM {made.contents["public.voice_agent_config"]["copy"]} AS saved
               WHERE NOT EXISTS (SELECT FROM public.voice_agent_config c WHERE c.id = saved.id)"""
    missing = await value(sampled, gone)
    done = await restored(sampled, made)
    assert await state(sampled) == as_backed_up
    for table in done.tables:
        would = foretold[table.table]
        assert (table.inserted, table.updated, table.deleted) == (would.insert, would.update, would.delete)
    of_v1 = foretold["public.voice_agent_config"]
    assert (of_v1.insert, of_v1.update, of_v1.delete) == (missing, 5, 3)
    assert (foretold["public.voice_calls"].insert, foretold["public.voice_calls"].update) == (50, 100)
    assert of_v1.columns["system_prompt"] == 5
    assert all(each.endswith("system_prompt, updated_at") for each in of_v1.examples["update"])

    assert done.undo_command == f"relevo backups restore {done.backup_before}"
    await restored(sampled, done.backup_before)
    assert await state(sampled) == present


async def test_a_backup_of_an_empty_v2_empties_it_again(sampled: Database) -> None:
    before = await state(sampled, "public.voice_agent_config", "public.voice_assistant_configs")
    made = await taken(sampled)
    assert (await move(sampled)).success
    moved = await state(sampled)
    done = await restored(sampled, made)
    assert await state(sampled, *before) == before
    assert await value(sampled, "SELECT count(*) FROM relevo.config_origins") == 0
    (calls,) = (table for table in done.tables if table.table == "public.voice_calls")
    assert calls.added_columns == ("outcome", "agent_version")
    await restored(sampled, done.backup_before)
    assert await state(sampled) == moved


async def test_calls_recorded_since_are_kept(sampled: Database) -> None:
    made = await taken(sampled)
    before = await state(sampled)
    await change(sampled, NEW_CALL)
    present = await state(sampled)
    done = await restored(sampled, made)
    assert await state(sampled) == present
    assert {table.table: table.kept_newer for table in done.tables}["public.voice_calls"] == 8
    assert (await shown(sampled, made, discard_newer=True))["public.voice_calls"].delete == 8
    undoable = await restored(sampled, made, discard_newer=True)
    assert await state(sampled) == before
    await restored(sampled, undoable.backup_before)
    assert await state(sampled) == present


async def test_calls_that_a_restore_brought_back_go_with_its_undo(sampled: Database) -> None:
    """They are in the table and not in the backup before; and yet nobody recorded them since."""
    made = await taken(sampled)
    await change(sampled, "DELETE FROM public.voice_calls WHERE status = 'failed'")
    present = await state(sampled)
    done = await restored(sampled, made)
    await change(sampled, NEW_CALL)
    undone = await restored(sampled, done.backup_before)
    assert {table.table: table.kept_newer for table in undone.tables}["public.voice_calls"] == 8
    assert await value(sampled, "SELECT count(*) FROM public.voice_calls WHERE status = 'failed'") == 0
    await change(sampled, "DELETE FROM public.voice_calls WHERE vapi_call_id = 'new'")
    assert await state(sampled) == present


async def test_one_tenant_alone_leaves_its_neighbours_byte_identical(sampled: Database) -> None:
    assert (await move(sampled)).success
    made = await taken(sampled)
    tenant = await value(
        sampled,
        """SELECT business_id FROM public.voice_assistant_configs GROUP BY 1
           ORDER BY count(*) DESC, business_id LIMIT 1""",
    )
    mine, others = f"business_id = '{tenant}'", f"business_id IS DISTINCT FROM '{tenant}'"
    tables = [table for table in RESTORED if table.startswith("public.voice_a") and "types" not in table]
    tables.append("public.voice_calls")
    before = await state(sampled, *tables, where=mine)
    await change(sampled, "UPDATE public.voice_agent_config SET first_message = 'edited'")
    await change(sampled, "UPDATE public.voice_calls SET status = 'edited'")
    await change(sampled, "DELETE FROM public.voice_assistant_configs")
    neighbours = await state(sampled, *tables, where=others)
    present = await state(sampled)
    done = await restored(sampled, made, tenant)
    assert await state(sampled, *tables, where=mine) == before
    assert await state(sampled, *tables, where=others) == neighbours
    assert done.affected_tenants == [str(tenant)]
    origins = "SELECT count(*) FROM relevo.config_origins"
    assert await value(sampled, origins) == await value(sampled, "SELECT count(*) FROM public.voice_assistant_configs")
    await restored(sampled, done.backup_before)
    assert await state(sampled) == present


async def test_a_row_that_changed_hands_is_left_to_both(sampled: Database) -> None:
    made = await taken(sampled)
    one, other = (
        row["business_id"]
        for row in await rows(
            sampled,
            """SELECT DISTINCT business_id FROM public.voice_agent_config c JOIN public.businesses b
               ON b.id = c.business_id ORDER BY 1 LIMIT 2""",
        )
    )
    before = await state(sampled)
    await change(sampled, "UPDATE public.voice_agent_config SET business_id = %s WHERE business_id = %s", [other, one])
    present = await state(sampled)
    for tenant in (one, other):
        done = await restored(sampled, made, tenant)
        assert {table.table: table.left_alone for table in done.tables}["public.voice_agent_config"] > 0
        assert await state(sampled) == present
    await restored(sampled, made, one, other)
    assert await state(sampled) == before


async def test_a_backup_of_what_the_move_touches_restores_these_columns_alone(sampled: Database) -> None:
    assert (await move(sampled)).success
    made = await taken(sampled, calls="touched")
    outcomes = "SELECT md5(string_agg(outcome || id, '' ORDER BY id)) FROM public.voice_calls"
    before = await value(sampled, outcomes)
    await change(sampled, "UPDATE public.voice_calls SET outcome = 'wrong', status = 'stays'")
    await change(sampled, NEW_CALL)
    done = await restored(sampled, made, discard_newer=True)
    assert await value(sampled, outcomes.replace("voice_calls", "voice_calls WHERE status = 'stays'")) == before
    assert await value(sampled, "SELECT count(*) FROM public.voice_calls WHERE status <> 'stays'") == 8
    await restored(sampled, done.backup_before)
    assert await value(sampled, "SELECT count(*) FROM public.voice_calls WHERE outcome = 'wrong'") > 100


# --- what is refused, and then nothing is changed ---


async def test_a_backup_that_was_changed_is_refused(sampled: Database) -> None:
    made = await taken(sampled)
    copy = made.contents["public.voice_agent_config"]["copy"]
    await change(
        sampled, f"UPDATE {copy} SET first_message = 'forged' WHERE id = (SELECT min(id::text)::uuid FROM {copy})"
    )
    error = await refused(sampled, made)
    assert "checksum" in str(error)
    assert error.exit_status == 3
    with pytest.raises(Refused, match="checksum"):
        await shown(sampled, made)
    await change(sampled, f"DROP TABLE {copy}")
    assert "is gone" in str(await refused(sampled, made))


async def test_an_open_run_of_the_move_is_finished_first(sampled: Database) -> None:
    made = await taken(sampled)

    def interrupting(event: events.Event) -> None:
        if isinstance(event, events.StepStarted) and event.number == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await move(sampled, interrupting)
    error = None
    with pytest.raises(Refused) as caught:
        await restored(sampled, made)
    error = caught.value
    assert "is open" in str(error)
    assert error.fix.startswith("finish it first: relevo migrate --resume")
    assert (await move(sampled)).success
    await restored(sampled, made)


async def test_a_backup_nobody_knows(sampled: Database) -> None:
    made = await taken(sampled)
    close = str(made.id)[:-1] + ("0" if str(made.id)[-1] != "0" else "1")
    with pytest.raises(UnknownName, match=str(made.id)):
        await difference.find(sampled, close)


async def test_tenants_that_the_backup_does_not_hold(sampled: Database) -> None:
    one, other = (
        row["business_id"]
        for row in await rows(
            sampled,
            """SELECT DISTINCT business_id FROM public.voice_agent_config c JOIN public.businesses b
               ON b.id = c.business_id ORDER BY 1 LIMIT 2""",
        )
    )
    made = await taken(sampled, [one])
    with pytest.raises(UsageError, match=str(other)):
        await shown(sampled, made, other)
    with pytest.raises(UnknownName, match="there is no tenant"):
        await shown(sampled, await taken(sampled), uuid4())
    before = await state(sampled)
    await change(sampled, "UPDATE public.voice_agent_config SET first_message = 'edited'")
    edited = await state(sampled, "public.voice_agent_config", where=f"business_id IS DISTINCT FROM '{one}'")
    await restored(sampled, made)
    assert await state(sampled, "public.voice_agent_config", where=f"business_id IS DISTINCT FROM '{one}'") == edited
    assert await state(sampled) != before


async def test_two_at_once(sampled: Database) -> None:
    made = await taken(sampled)
    async with lease(sampled, runner.LEASE):
        with pytest.raises(LeaseHeld):
            await restored(sampled, made)
    under_way, go_on = asyncio.Event(), asyncio.Event()
    async with Database(sampled.url) as another:

        def sink(_event: events.Event) -> None:
            under_way.set()

        first = asyncio.create_task(restored(sampled, made, emit=sink))
        await under_way.wait()
        with pytest.raises(LeaseHeld):
            await restored(another, made)
        go_on.set()
        await first


async def test_every_restore_is_audited(sampled: Database) -> None:
    made = await taken(sampled)
    await change(sampled, "UPDATE public.voice_agent_config SET first_message = 'edited'")
    done = await restored(sampled, made)
    (line,) = await rows(sampled, "SELECT * FROM relevo.audit_log WHERE id = %s", [done.audit_id])
    assert (line["action"], line["subject"], line["actor"], line["reason"]) == (
        "backup.restore",
        str(made.id),
        "tester",
        "a test",
    )
    assert line["details"]["backup_before"] == str(done.backup_before)
    assert "edited" not in json.dumps(line["details"])


@pytest.mark.parametrize(
    "row",
    [
        "(backup_id, started_at, actor, discard_newer, state) VALUES (gen_random_uuid(), now(), 'a', false, 'done')",
        "(backup_id, started_at, actor, discard_newer, finished_at)"
        " VALUES (gen_random_uuid(), now(), 'a', false, now())",
        "(backup_id, started_at, actor, discard_newer, state, finished_at)"
        " VALUES (gen_random_uuid(), now(), 'a', false, 'done', now())",
        "(backup_id, started_at, actor, discard_newer)"
        " SELECT gen_random_uuid(), now(), 'a', false FROM generate_series(1, 2)",
    ],
)
async def test_a_restore_cannot_be_recorded_as_what_it_is_not(ready: Database, row: str) -> None:
    with pytest.raises(psycopg.IntegrityError):
        await change(ready, f"INSERT INTO relevo.restores {row}")


# --- the command line ---


async def test_the_commands(sampled: Database) -> None:
    made = await taken(sampled)
    before = await state(sampled)
    await change(sampled, "UPDATE public.voice_agent_config SET first_message = 'edited'")
    url = sampled.url

    async def run(*words: str) -> Any:
        return await asyncio.to_thread(relevo, *words, url=url)

    told = (await run("backups", "diff", str(made.id))).data
    (of_v1,) = (table for table in told["tables"] if table["table"] == "public.voice_agent_config")
    edited = await value(sampled, "SELECT count(*) FROM public.voice_agent_config")
    assert of_v1["update"] == edited
    assert of_v1["columns"] == {"first_message": edited}

    asked = await run("backups", "restore", str(made.id))
    assert (asked.status, asked.data["error"]["code"]) == (3, "Refused")
    assert "--yes" in asked.told
    assert await state(sampled) != before

    done = await run("backups", "restore", str(made.id), "--yes", "--actor", "olga")
    assert (done.status, done.data["success"]) == (0, True)
    assert await state(sampled) == before
    undone = await asyncio.to_thread(succeeds, *done.data["undo_command"].split()[1:], "--yes", url=url)
    assert undone["backup_id"] == done.data["backup_before"]
    assert (
        await value(sampled, "SELECT count(*) FROM public.voice_agent_config WHERE first_message = 'edited'") == edited
    )

    back = await run("rollback", "--level", "data", "--backup-id", str(made.id), "--yes")
    assert back.status == 0
    keys = "level success before after affected_tenants propagation_ms duration_seconds audit_id"
    assert back.data.keys() >= set(keys.split())
    assert (back.data["level"], back.data["propagation_ms"]) == ("data", None)
    assert await state(sampled) == before


@pytest.mark.parametrize(("typed", "status"), [("CONFIRM", 0), ("confirm", 1), ("", 1)])
async def test_a_terminal_is_asked_and_takes_only_one_word(sampled: Database, typed: str, status: int) -> None:
    made = await taken(sampled)
    before = await state(sampled)
    await change(sampled, "UPDATE public.voice_agent_config SET first_message = 'edited'")
    present = await state(sampled)
    ours, theirs = os.openpty()
    words = ("-m", "relevo", "backups", "restore", str(made.id), "--json", "--database-url", sampled.url)
    os.write(ours, f"{typed}\n".encode())
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, *words], stdin=theirs, capture_output=True, text=True
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == status, done.stderr
    assert 'Type "CONFIRM" to proceed' in done.stderr
    assert json.loads(done.stdout)["success"] == (status == 0)
    assert await state(sampled) == (before if status == 0 else present)


async def test_level_data_without_a_backup_lists_the_five_newest(sampled: Database) -> None:
    for _ in range(6):
        await taken(sampled)
    listed = await asyncio.to_thread(relevo, "rollback", "--level", "data", url=sampled.url)
    assert listed.status == 2
    assert len(listed.data["backups"]) == 5
    assert listed.data["backups"][0].keys() == {"id", "created_at", "tables"}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("rollback", "--level", "dta"), 2, "'data'"),
        (("rollback", "--level", "data", "--backup-id", "nonsense"), 2, "no backup nonsense"),
        (("backups", "diff", "nonsense"), 2, "no backup nonsense"),
        (("backups", "restore", "nonsense", "--yes"), 2, "no backup nonsense"),
    ],
)
async def test_words_that_make_no_sense(sampled: Database, words: tuple[str, ...], status: int, said: str) -> None:
    answered = await asyncio.to_thread(relevo, *words, url=sampled.url)
    assert answered.status == status
    assert said in answered.told
