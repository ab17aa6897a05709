"""Dual write with a v1 of other names and types: what v2 says reaches it through the mapping's ``write`` entries."""

from __future__ import annotations

import tomllib
from uuid import uuid4

import pytest_asyncio

from relevo.db import migrations
from relevo.db.pool import Database
from relevo.migration import mapping, mirror, runner
from relevo.migration.run import Options
from relevo.migration.steps import verify
from tests.conftest import NOW, change, load_sample, rows, value
from tests.test_mirror import LATER
from tests.test_other_v1 import CONVERSION, MAPPING

V2 = "public.voice_assistant_configs"
WRITABLE = {
    "voice_id": {"read": "voz ->> 'id'", "write": {"voz": "jsonb_build_object('id', {value}::text)"}},
    "is_active": {
        "read": "estado = 'activo' AND habilitado",
        "write": {
            "estado": "CASE WHEN {value} THEN 'activo' ELSE 'inactivo' END",
            "habilitado": "coalesce({value}, false)",
        },
    },
    "created_at": {"read": "creado AT TIME ZONE 'UTC'", "write": {"creado": "{value} AT TIME ZONE 'UTC'"}},
    "system_prompt": {
        "read": """concat_ws(' ', "Prompt", custom_instructions)""",
        "write": {"Prompt": "{value}", "custom_instructions": "NULL"},
    },
}


def ours() -> mapping.SourceMapping:
    """That v1, with what can be written back; phone numbers cannot."""
    source = tomllib.loads(MAPPING)["source"]
    source["configurations"]["fields"] |= WRITABLE
    source["configurations"]["defaults"] = {"Plan": "'básico'"}
    return mapping.from_settings(source)


OURS = ours()


@pytest_asyncio.fixture
async def other(database: Database) -> Database:
    """A v1 under its own names that was moved, dual write on."""
    await load_sample(database, tenants=30, calls=200)
    await change(database, CONVERSION)
    await migrations.up(database)
    moved = await runner.migrate(database, Options(), actor="tester", mapping=OURS, clock=lambda: NOW)
    assert moved.success, moved.errors
    return database


async def in_v1(database: Database, config: object) -> dict[str, object]:
    (row,) = await rows(database, 'SELECT * FROM "CRM"."Asistentes de Voz" WHERE "Id" = %s', (config,))
    return row


async def reasons(database: Database) -> list[str]:
    return [row["reason"] for row in await rows(database, "SELECT reason FROM relevo.mirror_queue ORDER BY id")]


async def test_v2_reaches_json_enum_and_boolean_and_what_cannot_be_written_is_an_edit(other: Database) -> None:
    assert (await mirror.look(other, OURS)).unwritable == ("phone_number_id",)
    config = await value(other, f"SELECT id FROM {V2} WHERE is_active ORDER BY id LIMIT 1")
    await change(
        other,
        f"UPDATE {V2} SET voice_id = 'v', is_active = false, phone_number_id = 'mine', updated_at = %s WHERE id = %s",
        (LATER, config),
    )
    there = await in_v1(other, config)
    assert (there["voz"], there["estado"], there["habilitado"]) == ({"id": "v"}, "inactivo", False)
    assert await value(other, "SELECT array_agg(field) FROM relevo.v2_edits") == ["phone_number_id"]
    assert await reasons(other) == []
    verdict = await verify.run(other, OURS, tenant_ids=None, clock=lambda: LATER)
    assert (verdict.edited_on_v2, verdict.success) == (1, True)


async def test_what_is_too_long_for_v1_waits_instead_of_being_cut(other: Database) -> None:
    config = await value(other, f"SELECT id FROM {V2} ORDER BY id LIMIT 1")
    await change(other, f"UPDATE {V2} SET vapi_assistant_id = repeat('x', 100) WHERE id = %s", (config,))
    (reason,) = await reasons(other)
    assert "too long" in reason
    assert await value(other, f"SELECT length(vapi_assistant_id) FROM {V2} WHERE id = %s", (config,)) == 100


async def test_a_configuration_born_on_v2_gets_what_v1_requires(other: Database) -> None:
    born, tenant = uuid4(), await value(other, f"SELECT business_id FROM {V2} ORDER BY id LIMIT 1")
    await change(
        other,
        f"INSERT INTO {V2} (id, business_id, assistant_type_id) VALUES (%s, %s, 'rest_basic')",
        (born, tenant),
    )
    assert await reasons(other) == []
    there = await in_v1(other, born)
    assert (there["Plan"], there["estado"], there["tenant_id"]) == ("básico", "activo", str(tenant))
    assert there["Prompt"]
