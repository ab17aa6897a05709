"""Dual write: what one side writes the other has at the same commit, or it is queued; nothing is lost or loops."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from relevo import events
from relevo.db.patience import patiently
from relevo.db.pool import Database
from relevo.errors import Refused, UnknownName
from relevo.migration import keeping, mirror
from relevo.migration.mapping import DEFAULT
from relevo.migration.runs import Who
from relevo.migration.steps import verify
from tests.conftest import NOW, behind, change, rows, value

WHO = Who("tester", "a test")
LATER = NOW + timedelta(hours=1)
SHARED = "business_id, vapi_assistant_id, phone_number_id, is_active, created_at, updated_at"

DENTAL = "Eres la recepción. Agenda cita con el doctor, informa de servicios y tratamientos."
REST = "Toma reservaciones y pedidos del menú. ## Instrucciones especiales\nNo hay estacionamiento."


async def some_config(database: Database, vertical: str = "restaurant", skip: int = 0) -> UUID:
    found: UUID = await value(
        database,
        """SELECT c.id FROM public.voice_agent_config c JOIN public.businesses b ON b.id = c.business_id
           JOIN public.voice_assistant_configs v ON v.id = c.id
           WHERE b.vertical = %s ORDER BY c.id OFFSET %s LIMIT 1""",
        (vertical, skip),
    )
    return found


async def v1(database: Database, config: UUID) -> dict[str, Any]:
    (row,) = await rows(database, "SELECT * FROM public.voice_agent_config WHERE id = %s", (config,))
    return row


async def v2(database: Database, config: UUID) -> dict[str, Any]:
    (row,) = await rows(database, "SELECT * FROM public.voice_assistant_configs WHERE id = %s", (config,))
    return row


async def on_v2(database: Database, field: str, content: str) -> int:
    """How many configurations of v2 hold a value."""
    query = f"SELECT count(*) FROM public.voice_assistant_configs WHERE {field} = %s"
    count: int = await value(database, query, (content,))
    return count


async def queued(database: Database) -> list[str]:
    """Why each queued write waits."""
    return [row["reason"] for row in await rows(database, "SELECT reason FROM relevo.mirror_queue ORDER BY id")]


async def verified(database: Database) -> verify.Verdict:
    return await verify.run(database, DEFAULT, tenant_ids=None, clock=lambda: LATER)


async def assert_equal(database: Database) -> None:
    """Shared fields are the same on both sides, and nothing waits."""
    assert await queued(database) == []
    verdict = await verified(database)
    assert verdict.success, verdict.errors


async def test_the_move_switches_dual_write_on_before_it_copies(mirrored: Database) -> None:
    state = await mirror.look(mirrored, DEFAULT)
    assert state.installed
    assert state.missing == state.unwritable == ()
    assert state.queued == 0


@pytest.mark.parametrize(
    ("field", "new"),
    [
        ("phone_number_id", "pn_new"),
        ("vapi_assistant_id", "asst_new"),
        ("voice_id", "elevenlabs-juan"),
        ("is_active", False),
        ("updated_at", LATER),
    ],
)
async def test_a_shared_field_written_on_either_side_is_on_both(mirrored: Database, field: str, new: Any) -> None:
    one, two = await some_config(mirrored), await some_config(mirrored, skip=1)
    await change(mirrored, f"UPDATE public.voice_agent_config SET {field} = %s WHERE id = %s", (new, one))
    assert (await v2(mirrored, one))[field] == new
    await change(mirrored, f"UPDATE public.voice_assistant_configs SET {field} = %s WHERE id = %s", (new, two))
    assert (await v1(mirrored, two))[field] == new
    await assert_equal(mirrored)


async def test_a_prompt_rewritten_on_v1_is_inferred_anew(mirrored: Database) -> None:
    config = await some_config(mirrored)
    await change(mirrored, "UPDATE public.voice_agent_config SET system_prompt = %s WHERE id = %s", (REST, config))
    after = await v2(mirrored, config)
    assert after["special_instructions"] == "No hay estacionamiento."
    assert after["assistant_type_id"] == "rest_standard"
    await assert_equal(mirrored)


async def test_what_was_edited_on_v2_stays_and_a_clash_keeps_both(mirrored: Database) -> None:
    config = await some_config(mirrored)
    await change(
        mirrored,
        "UPDATE public.voice_assistant_configs SET special_instructions = 'Hablar de usted' WHERE id = %s",
        (config,),
    )
    before = await v1(mirrored, config)
    verdict = await verified(mirrored)
    assert (verdict.edited_on_v2, verdict.drifted, verdict.success) == (1, 0, True)
    await change(mirrored, "UPDATE public.voice_agent_config SET system_prompt = %s WHERE id = %s", (REST, config))
    after = await v2(mirrored, config)
    assert after["special_instructions"] == "Hablar de usted"
    assert after["assistant_type_id"] == "rest_standard"
    (clash,) = (await mirror.look(mirrored, DEFAULT)).open_conflicts
    assert (clash["field"], clash["v1_value"], clash["v2_value"], clash["kept"]) == (
        "special_instructions",
        "No hay estacionamiento.",
        "Hablar de usted",
        "v2",
    )
    assert (await v1(mirrored, config))["first_message"] == before["first_message"]
    await mirror.resolve(mirrored, clash["id"], "v1", WHO, lambda: LATER)
    assert (await v2(mirrored, config))["special_instructions"] == "No hay estacionamiento."
    verdict = await verified(mirrored)
    assert (verdict.edited_on_v2, verdict.success) == (0, True)
    with pytest.raises(Refused):
        await mirror.resolve(mirrored, clash["id"], "v2", WHO, lambda: LATER)
    with pytest.raises(UnknownName):
        await mirror.resolve(mirrored, 4711, "v2", WHO, lambda: LATER)


async def test_an_edit_on_v2_never_touches_a_prompt_that_people_wrote(mirrored: Database) -> None:
    config = await some_config(mirrored)
    before = await v1(mirrored, config)
    await change(
        mirrored,
        """UPDATE public.voice_assistant_configs
           SET special_instructions = 'x', personality_type = 'formal', voice_speed = 1.2, updated_at = %s
           WHERE id = %s""",
        (LATER, config),
    )
    assert await v1(mirrored, config) == before | {"updated_at": LATER}
    edits = await rows(mirrored, "SELECT field FROM relevo.v2_edits WHERE config_id = %s ORDER BY 1", (config,))
    assert [row["field"] for row in edits] == ["personality_type", "special_instructions", "voice_speed"]


async def test_an_edit_taken_back_is_no_edit(mirrored: Database) -> None:
    config = await some_config(mirrored)
    before = (await v2(mirrored, config))["enabled_capabilities"]
    for capabilities in (["faq"], before):
        await change(
            mirrored,
            "UPDATE public.voice_assistant_configs SET enabled_capabilities = %s WHERE id = %s",
            (capabilities, config),
        )
    assert await value(mirrored, "SELECT count(*) FROM relevo.v2_edits") == 0


async def test_rows_born_on_v1_are_on_v2_at_once_defective_ones_are_set_aside(mirrored: Database) -> None:
    tenant = await value(mirrored, "SELECT id FROM public.businesses WHERE vertical = 'dental' ORDER BY id LIMIT 1")
    good, bad = uuid4(), uuid4()
    await change(
        mirrored,
        """INSERT INTO public.voice_agent_config (id, business_id, system_prompt)
           VALUES (%s, %s, %s), (%s, NULL, 'Hola')""",
        (good, tenant, DENTAL, bad),
    )
    assert (await v2(mirrored, good))["assistant_type_id"] == "dental_standard"
    assert (
        await value(mirrored, "SELECT reason FROM relevo.quarantine WHERE config_id = %s", (str(bad),)) == "no_business"
    )
    await change(mirrored, "UPDATE public.voice_agent_config SET business_id = %s WHERE id = %s", (tenant, bad))
    assert (await v2(mirrored, bad))["business_id"] == tenant
    assert await value(mirrored, "SELECT count(*) FROM relevo.quarantine WHERE config_id = %s", (str(bad),)) == 0
    await assert_equal(mirrored)


async def test_a_configuration_born_on_v2_has_a_v1_row_that_can_answer(mirrored: Database) -> None:
    tenant = await value(mirrored, "SELECT id FROM public.businesses WHERE vertical = 'dental' ORDER BY id LIMIT 1")
    born = uuid4()
    await change(
        mirrored,
        """INSERT INTO public.voice_assistant_configs
               (id, business_id, assistant_type_id, enabled_capabilities, special_instructions, phone_number_id)
           VALUES (%s, %s, 'dental_standard', '{appointments,services_info}', 'Hay rampa de acceso.', 'pn_born')""",
        (born, tenant),
    )
    assert await queued(mirrored) == []
    there = await v1(mirrored, born)
    assert there["phone_number_id"] == "pn_born"
    assert "Hay rampa de acceso." in there["system_prompt"]
    assert there["first_message"]
    assert there["assistant_name"]
    verdict = await verified(mirrored)
    assert verdict.success, verdict.errors
    # It is rendered anew as long as nobody has written into it.
    await change(
        mirrored,
        "UPDATE public.voice_assistant_configs SET special_instructions = 'Hay elevador.' WHERE id = %s",
        (born,),
    )
    assert "Hay elevador." in (await v1(mirrored, born))["system_prompt"]
    await change(mirrored, "UPDATE public.voice_agent_config SET system_prompt = 'Mío.' WHERE id = %s", (born,))
    await change(
        mirrored,
        "UPDATE public.voice_assistant_configs SET special_instructions = 'Hay café.' WHERE id = %s",
        (born,),
    )
    assert (await v1(mirrored, born))["system_prompt"] == "Mío."
    assert (await v2(mirrored, born))["special_instructions"] == "Hay café."
    assert (await verified(mirrored)).success


async def test_a_deletion_goes_across_and_the_row_is_kept_aside(mirrored: Database) -> None:
    one, two = await some_config(mirrored), await some_config(mirrored, skip=1)
    prompt = (await v1(mirrored, two))["system_prompt"]
    await change(mirrored, "DELETE FROM public.voice_agent_config WHERE id = %s", (one,))
    await change(mirrored, "DELETE FROM public.voice_assistant_configs WHERE id = %s", (two,))
    for table in ("voice_agent_config", "voice_assistant_configs"):
        assert await value(mirrored, f"SELECT count(*) FROM public.{table} WHERE id = ANY (%s)", ([one, two],)) == 0
    kept = await rows(mirrored, "SELECT side, row FROM relevo.deleted_configs ORDER BY id")
    assert [row["side"] for row in kept] == ["v2", "v1"]
    assert kept[1]["row"]["system_prompt"] == prompt
    await assert_equal(mirrored)


async def test_truncating_a_mirrored_table_is_refused(mirrored: Database) -> None:
    for table in ("voice_agent_config", "voice_assistant_configs"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="cannot be truncated"):
            await change(mirrored, f"TRUNCATE public.{table}")


async def test_a_vertical_that_changes_is_inferred_anew(mirrored: Database) -> None:
    config = await some_config(mirrored)
    await change(mirrored, "UPDATE public.voice_agent_config SET system_prompt = %s WHERE id = %s", (DENTAL, config))
    await change(
        mirrored,
        "UPDATE public.businesses SET vertical = 'dental' WHERE id = %s",
        ((await v1(mirrored, config))["business_id"],),
    )
    assert (await v2(mirrored, config))["assistant_type_id"] == "dental_standard"
    await assert_equal(mirrored)


async def test_a_row_that_changes_its_tenant_follows_on_v2(mirrored: Database) -> None:
    config, dental = await some_config(mirrored), await some_config(mirrored, "dental")
    tenant = (await v1(mirrored, dental))["business_id"]
    await change(mirrored, "UPDATE public.voice_agent_config SET business_id = %s WHERE id = %s", (tenant, config))
    after = await v2(mirrored, config)
    assert after["business_id"] == tenant
    assert after["assistant_type_id"].startswith("dental_")
    await assert_equal(mirrored)


async def test_five_thousand_rows_in_one_statement_an_upsert_and_a_copy(mirrored: Database) -> None:
    tenant = await value(mirrored, "SELECT id FROM public.businesses WHERE vertical = 'dental' ORDER BY id LIMIT 1")
    await change(
        mirrored,
        """INSERT INTO public.voice_agent_config (id, business_id, system_prompt, phone_number_id)
           SELECT gen_random_uuid(), %s, %s, 'many' FROM generate_series(1, 5000)""",
        (tenant, DENTAL),
    )
    assert (
        await value(mirrored, "SELECT count(*) FROM public.voice_assistant_configs WHERE phone_number_id = 'many'")
        == 5_000
    )
    await change(mirrored, "UPDATE public.voice_agent_config SET voice_id = 'v' WHERE phone_number_id = 'many'")
    assert await on_v2(mirrored, "voice_id", "v") == 5_000
    config = await some_config(mirrored)
    await change(
        mirrored,
        """INSERT INTO public.voice_agent_config (id, business_id, phone_number_id)
           VALUES (%s, %s, 'up'), (%s, %s, 'up')
           ON CONFLICT (id) DO UPDATE SET phone_number_id = excluded.phone_number_id""",
        (config, tenant, uuid4(), tenant),
    )
    assert (
        await value(mirrored, "SELECT count(*) FROM public.voice_assistant_configs WHERE phone_number_id = 'up'") == 2
    )
    async with (
        mirrored.transaction() as connection,
        connection.cursor().copy(
            "COPY public.voice_agent_config (id, business_id, phone_number_id) FROM STDIN"
        ) as copy,
    ):
        for _ in range(1_500):
            await copy.write_row((uuid4(), tenant, "copied"))
    assert (
        await value(mirrored, "SELECT count(*) FROM public.voice_assistant_configs WHERE phone_number_id = 'copied'")
        == 1_500
    )
    await assert_equal(mirrored)


async def test_what_waits_is_repaired_by_itself_while_relevo_serves(mirrored: Database) -> None:
    config = await some_config(mirrored)
    async with mirrored.transaction() as holder:
        await holder.execute("SELECT FROM public.voice_assistant_configs WHERE id = %s FOR UPDATE", (config,))
        await change(mirrored, "UPDATE public.voice_agent_config SET phone_number_id = 'w' WHERE id = %s", (config,))
        assert len(await queued(mirrored)) == 1
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        task = group.create_task(keeping.keep_repaired(mirrored, lambda: LATER, every_s=0.01))
        while await queued(mirrored):
            pass
        task.cancel()
    assert (await v2(mirrored, config))["phone_number_id"] == "w"
    await assert_equal(mirrored)


async def test_what_changed_behind_its_back_is_found_by_itself_while_relevo_serves(mirrored: Database) -> None:
    config = await some_config(mirrored)
    await behind(mirrored, "UPDATE public.voice_agent_config SET phone_number_id = 'b' WHERE id = %s", (config,))
    state = "SELECT state FROM relevo.verifications WHERE config_id = %s"
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        task = group.create_task(keeping.keep_verified(mirrored, DEFAULT, lambda: LATER, every_s=0.01))
        while await value(mirrored, state, (config,)) == "matched":
            pass
        task.cancel()
    assert await value(mirrored, state, (config,)) == "drifted"


@pytest.mark.parametrize(
    "reader", ["relevo.v1_configurations() AS c WHERE c.id = '{}'", "relevo.v1_by_id(ARRAY['{}'::uuid])"]
)
async def test_what_is_asked_of_v1_is_found_by_its_index(mirrored: Database, reader: str) -> None:
    config = await some_config(mirrored)
    async with mirrored.transaction() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")  # a table of ninety rows is read faster whole
        explained = await connection.execute(f"EXPLAIN SELECT FROM {reader.format(config)}".encode())
        plan = "\n".join(line for each in await explained.fetchall() for line in each.values())
    assert "voice_agent_config_pkey" in plan


async def test_waiting_for_a_lock_is_told_as_an_event_and_nowhere_else(capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[events.Event] = []
    async for attempt in patiently(heard.append, "the table is locked"):
        with attempt:
            if attempt.num == 1:
                raise psycopg.errors.LockNotAvailable
    assert heard == [events.Note("the table is locked: trying again", warning=True)]
    assert capfd.readouterr() == ("", "")
