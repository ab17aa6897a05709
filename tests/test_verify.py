"""A verifier is worth what it was seen to catch: every column is spoilt in turn, and must be named."""

from __future__ import annotations

from typing import Any

import pytest

from relevo.db.pool import Database
from relevo.migration.mapping import DEFAULT
from relevo.migration.steps import verify
from tests.conftest import behind, rows, value

ONE = "(SELECT id FROM public.voice_assistant_configs ORDER BY id LIMIT 1)"

# Column of v2 -> what to spoil it with.
SPOILT = {
    "business_id": "gen_random_uuid()",
    "assistant_type_id": "CASE assistant_type_id WHEN 'rest_basic' THEN 'dental_basic' ELSE 'rest_basic' END",
    "vapi_assistant_id": "coalesce(vapi_assistant_id, '') || 'x'",
    "phone_number_id": "coalesce(phone_number_id, '') || 'x'",
    "voice_id": "voice_id || 'x'",
    "voice_speed": "voice_speed + 0.1",
    "personality_type": "'grumpy'",
    "special_instructions": "left('x' || coalesce(special_instructions, ''), 1000)",
    "enabled_capabilities": "enabled_capabilities || 'flying'::text",
    "template_version": "'2'",
    "is_active": "is_active IS NOT TRUE",
    "created_at": "coalesce(created_at, now()) + interval '1 microsecond'",
    "updated_at": "coalesce(updated_at, now()) + interval '1 microsecond'",
    "migrated_from_v1": "false",
    "original_prompt_hash": "repeat('0', 64)",
}
SPOILT_ORIGIN = {"prompt": "coalesce(prompt, '') || 'x'", "provenance": "'{}'"}
REPORTED_AS = {"prompt": "archived_prompt"}
OUTSIDE = {"id", "migrated_at"}  # the key; and a moment of ours that v1 says nothing of


async def verdict(database: Database, **scope: Any) -> verify.Verdict:
    return await verify.run(database, DEFAULT, tenant_ids=None, **scope)


async def test_a_faithful_copy_passes(mirrored: Database) -> None:
    found = await verdict(mirrored)
    assert found.success
    assert (
        found.checked
        == found.matched + found.quarantined
        == await value(mirrored, "SELECT count(*) FROM public.voice_agent_config")
    )


async def test_no_column_is_left_out(mirrored: Database) -> None:
    columns = await rows(
        mirrored,
        """SELECT column_name AS name FROM information_schema.columns
           WHERE table_schema = 'public' AND table_name = 'voice_assistant_configs'""",
    )
    assert {row["name"] for row in columns} == set(SPOILT) | OUTSIDE


@pytest.mark.parametrize("column", SPOILT)
async def test_a_spoilt_column_is_named(mirrored: Database, column: str) -> None:
    spoilt = await behind(
        mirrored, f"UPDATE public.voice_assistant_configs SET {column} = {SPOILT[column]} WHERE id = {ONE}"
    )
    found = await verdict(mirrored)
    assert spoilt == 1
    assert (found.success, found.drifted, found.missing, found.orphaned) == (False, 1, 0, 0)
    assert found.errors[0].endswith(f"differs in {column}")


@pytest.mark.parametrize("column", SPOILT_ORIGIN)
async def test_a_spoilt_archive_is_named(mirrored: Database, column: str) -> None:
    spoil = f"UPDATE relevo.config_origins SET {column} = {SPOILT_ORIGIN[column]} WHERE config_id = {ONE}"
    await behind(mirrored, spoil)
    found = await verdict(mirrored)
    assert found.drifted == 1
    assert found.errors[0].endswith(f"differs in {REPORTED_AS.get(column, column)}")


async def test_a_lost_origin_is_named(mirrored: Database) -> None:
    await behind(mirrored, f"DELETE FROM relevo.config_origins WHERE config_id = {ONE}")
    found = await verdict(mirrored)
    assert found.errors[0].endswith("differs in origin")


async def test_a_row_that_vanished_is_missing(mirrored: Database) -> None:
    await behind(mirrored, f"DELETE FROM public.voice_assistant_configs WHERE id = {ONE}")
    found = await verdict(mirrored)
    assert (found.success, found.missing, found.drifted) == (False, 1, 0)
    assert found.errors[0].endswith("missing in v2")


async def test_a_row_from_nowhere_is_orphaned(mirrored: Database) -> None:
    await behind(
        mirrored,
        """INSERT INTO public.voice_assistant_configs (id, business_id, assistant_type_id)
           SELECT gen_random_uuid(), id, 'rest_basic' FROM public.businesses LIMIT 1""",
    )
    found = await verdict(mirrored)
    assert (found.success, found.orphaned) == (False, 1)
    assert found.errors[0].endswith("in v2, but not in v1")


async def test_a_change_in_v1_afterwards_is_drift(mirrored: Database) -> None:
    await behind(
        mirrored, f"UPDATE public.voice_agent_config SET system_prompt = 'Quiero una reservación.' WHERE id = {ONE}"
    )
    found = await verdict(mirrored)
    assert found.drifted == 1
    assert "original_prompt_hash" in found.errors[0]
    assert "archived_prompt" in found.errors[0]


async def test_a_business_without_figures_is_an_error_of_the_run(mirrored: Database) -> None:
    await behind(
        mirrored,
        "DELETE FROM public.voice_assistant_metrics WHERE id = (SELECT id FROM public.voice_assistant_metrics LIMIT 1)",
    )
    assert (await verdict(mirrored)).success, "configurations are not at fault"
    found = await verdict(mirrored, metrics=True)
    assert found.errors == ["1 businesses with calls have no row in voice_assistant_metrics"]


async def test_rows_are_judged_by_the_rules_that_made_them(mirrored: Database) -> None:
    draft = await value(mirrored, "SELECT relevo.draft_rules('another word')")
    await behind(mirrored, f"INSERT INTO relevo.rule_keywords VALUES ({draft}, '*', 'e', 99)")
    await behind(mirrored, f"INSERT INTO relevo.rule_capabilities VALUES ({draft}, '*', 'letters', 99, '{{e}}')")
    await behind(mirrored, f"SELECT relevo.publish_rules({draft})")
    assert (await verdict(mirrored)).success
