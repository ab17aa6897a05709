"""A v1 with other tables, names, types, rules and triggers moves with nothing changed but relevo.toml."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from relevo.db import migrations
from relevo.db.pool import Database
from relevo.migration import runner
from relevo.migration.run import Options
from tests.commands import relevo, succeeds
from tests.conftest import OWNER, change, load_sample, rows, value
from tests.servers import Server
from tests.test_move import CONTENT

MAPPING = """
[source.tenants]
table = "CRM.tenants"

[source.tenants.fields]
vertical = "giro"
name = '"Razón Social"'

[source.configurations]
table = "CRM.Asistentes de Voz"

[source.configurations.fields]
id = '"Id"'
business_id = "tenant_id"
vapi_assistant_id = '"vapiAssistantId"'
phone_number_id = 'SELECT n."Vapi Id" FROM "CRM"."Números" AS n WHERE n."Asistente" = v1."Id"'
assistant_name = '"Nombre del Asistente"'
system_prompt = '''concat_ws(E'\\n\\n## Instrucciones especiales\\n', "Prompt", nullif(custom_instructions, ''))'''
voice_id = "voz ->> 'id'"
first_message = '"Saludo 100%"'
is_active = "estado = 'activo' AND habilitado"
created_at = "creado AT TIME ZONE 'UTC'"
updated_at = "actualizado"

[source.calls]
table = "CRM.Llamadas"

[source.calls.fields]
business_id = "tenant_id"
vapi_call_id = '"vapiCallId"'
status = "estado"
started_at = '"Inicio"'
duration_seconds = "extract(epoch FROM duracion)"
avg_latency_ms = '"Latencia ms"'
"""

CONVERSION = """
CREATE SCHEMA "CRM";
CREATE FUNCTION "CRM".tocar() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.actualizado := clock_timestamp(); RETURN NEW; END $$;
CREATE TYPE "CRM"."Estado" AS ENUM ('activo', 'inactivo');

CREATE TABLE "CRM".tenants (id text PRIMARY KEY, "Razón Social" text, giro text, "País" char(2) NOT NULL);
INSERT INTO "CRM".tenants SELECT id, name, vertical, 'MX' FROM public.businesses;

CREATE TABLE "CRM"."Asistentes de Voz" (
    "Id" uuid PRIMARY KEY, tenant_id text, "vapiAssistantId" varchar(80), "Nombre del Asistente" text, "Prompt" text,
    custom_instructions text, voz jsonb NOT NULL, "Saludo 100%" text, estado "CRM"."Estado" NOT NULL,
    habilitado boolean NOT NULL, "Plan" text NOT NULL, creado timestamp, actualizado timestamptz
);
INSERT INTO "CRM"."Asistentes de Voz"
SELECT id, business_id, vapi_assistant_id, assistant_name, system_prompt,
       CASE WHEN get_byte(uuid_send(id), 0) < 100 THEN 'No se aceptan mascotas.' ELSE '' END,
       jsonb_build_object('id', voice_id), first_message,
       (CASE WHEN is_active IS TRUE OR get_byte(uuid_send(id), 1) < 128 THEN 'activo' ELSE 'inactivo' END
       )::"CRM"."Estado",
       is_active IS TRUE OR get_byte(uuid_send(id), 1) >= 128, 'básico', created_at AT TIME ZONE 'UTC', updated_at
FROM public.voice_agent_config;
CREATE TRIGGER tocar BEFORE UPDATE ON "CRM"."Asistentes de Voz" FOR EACH ROW EXECUTE FUNCTION "CRM".tocar();

CREATE TABLE "CRM"."Números" ("Asistente" uuid PRIMARY KEY, "Vapi Id" text NOT NULL);
INSERT INTO "CRM"."Números" SELECT id, phone_number_id FROM public.voice_agent_config WHERE phone_number_id IS NOT NULL;

CREATE TABLE "CRM"."Llamadas" (
    id bigint PRIMARY KEY, tenant_id text, "vapiCallId" text, estado text, "Inicio" timestamptz, duracion interval,
    "Latencia ms" double precision, "Moneda" text NOT NULL, actualizado timestamptz, outcome varchar(40)
    CONSTRAINT "Palabras de la casa" CHECK (outcome IN ('answered', 'failed', 'missed', 'unknown'))
);
INSERT INTO "CRM"."Llamadas"
SELECT row_number() OVER (ORDER BY id), business_id, vapi_call_id, status, started_at,
       make_interval(secs => duration_seconds), avg_latency_ms, 'MXN', created_at,
       CASE WHEN get_byte(uuid_send(id), 0) >= 50 THEN NULL
            WHEN status = 'completed' THEN 'answered' WHEN status = 'no_answer' THEN 'missed' END
FROM public.voice_calls;
CREATE TRIGGER tocar BEFORE UPDATE ON "CRM"."Llamadas" FOR EACH ROW EXECUTE FUNCTION "CRM".tocar();

DROP TABLE public.businesses, public.voice_agent_config, public.voice_calls;
"""

# The same v1 under the specification's names: what the mapping makes up is written into the columns.
UNCONVERTED = """
UPDATE public.voice_agent_config
SET system_prompt = concat_ws(E'\n\n## Instrucciones especiales\n', system_prompt, 'No se aceptan mascotas.')
WHERE get_byte(uuid_send(id), 0) < 100;
UPDATE public.voice_agent_config SET system_prompt = '' WHERE system_prompt IS NULL;
UPDATE public.voice_agent_config SET is_active = false WHERE is_active IS NULL;
"""

TABLES = ("tenants", "Asistentes de Voz", "Números", "Llamadas")
V1 = """SELECT (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.id) FROM "CRM".tenants t) AS tenants,
               (SELECT jsonb_agg(to_jsonb(a) ORDER BY a."Id") FROM "CRM"."Asistentes de Voz" a) AS assistants,
               (SELECT jsonb_agg(to_jsonb(n) ORDER BY n."Asistente") FROM "CRM"."Números" n) AS numbers,
               (SELECT jsonb_agg(to_jsonb(l) - ARRAY['outcome', 'agent_version', 'actualizado'] ORDER BY l.id)
                FROM "CRM"."Llamadas" l) AS calls"""
NUMBERS = (
    "migrated_configs",
    "skipped_configs",
    "quarantined_configs",
    "review_configs",
    "updated_calls",
    "refused_outcomes",
    "metrics_businesses",
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The one file that says how this v1 differs."""
    file = tmp_path / "relevo.toml"
    file.write_text(MAPPING, encoding="utf-8")
    return file


@pytest_asyncio.fixture
async def other(database: Database) -> Database:
    """A v1 under its own names, row level security on, nobody let through but the owner."""
    await load_sample(database, tenants=30, calls=2_000)
    await change(database, CONVERSION)
    for table in TABLES:
        await change(database, f'ALTER TABLE "CRM"."{table}" ENABLE ROW LEVEL SECURITY')
    return database


@pytest_asyncio.fixture
async def twin(server: Server) -> AsyncIterator[Database]:
    """The same v1 under the specification's names, in a database of its own."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE twin OWNER {OWNER}".encode())
    async with Database(server.url("twin", OWNER)) as database:
        await load_sample(database, tenants=30, calls=2_000)
        await change(database, UNCONVERTED)
        await migrations.up(database)
        yield database
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE twin WITH (FORCE)")


async def test_it_moves_from_end_to_end(other: Database, twin: Database, config: Path) -> None:
    async def done(*words: str) -> Any:
        return await asyncio.to_thread(succeeds, *words, url=other.url, config=config)

    before = (await rows(other, V1))[0]
    assert (await done("preflight"))["success"]
    await done("db", "up")
    found = {finding["code"]: finding for finding in (await done("preflight"))["findings"]}
    assert {finding["severity"] for finding in found.values()} <= {"warning", "notice"}
    assert {"config_without_vertical", "duplicate_vapi_call_id"} <= found.keys()
    assert found["outcome_check"]["severity"] == "warning"

    foretold = await done("migrate", "--dry-run")
    result = await done("migrate")
    assert {name: foretold[name] for name in NUMBERS} == {name: result[name] for name in NUMBERS}
    assert result["migrated_configs"] > 20
    assert result["refused_outcomes"] == await value(
        other, """SELECT count(*) FROM "CRM"."Llamadas" WHERE outcome IS NULL"""
    )
    assert result["refused_outcomes"] > 0

    verdict = await done("verify")
    assert verdict["matched"] == result["migrated_configs"]
    assert verdict["quarantined"] == result["quarantined_configs"] > 0

    again = await done("migrate")
    assert (again["migrated_configs"], again["updated_calls"], again["metrics_businesses"]) == (0, 0, 0)
    assert again["refused_outcomes"] == result["refused_outcomes"]
    assert (await rows(other, V1))[0] == before

    await migrate_at(twin, await value(other, "SELECT started_at FROM relevo.runs ORDER BY started_at LIMIT 1"))
    for name in ("configs", "quarantine", "types"):
        assert await content(other, name) == await content(twin, name), name
    figures = """SELECT business_id, period_end, total_calls, successful_calls, failed_calls, avg_duration_seconds,
                        avg_latency_ms, p50_latency_ms, p95_latency_ms
                 FROM public.voice_assistant_metrics ORDER BY business_id"""
    assert await rows(other, figures) == await rows(twin, figures)


async def migrate_at(database: Database, moment: Any) -> None:
    assert (await runner.migrate(database, Options(), actor="tester", clock=lambda: moment)).success


async def content(database: Database, name: str) -> list[str]:
    found = await rows(database, f"SELECT row::text FROM ({CONTENT[name]}) AS content")
    return sorted(row["row"] for row in found)


async def test_the_platforms_own_words_are_respected(other: Database, config: Path) -> None:
    outcomes = """SELECT estado AS status, outcome, count(*) FROM "CRM"."Llamadas" GROUP BY 1, 2 ORDER BY 1, 2"""
    own = {(row["status"], row["outcome"]): row["count"] for row in await rows(other, outcomes)}
    await asyncio.to_thread(succeeds, "migrate", url=other.url, config=config)
    after = {(row["status"], row["outcome"]): row["count"] for row in await rows(other, outcomes)}
    assert after["completed", "answered"] == own["completed", "answered"] > 0
    assert after["no_answer", "missed"] == own["no_answer", "missed"] > 0
    assert after["no_answer", None] == own["no_answer", None] > 0
    assert after["completed", "unknown"] == own["completed", None] > 0
    assert after["failed", "failed"] == own["failed", None] > 0
    assert await value(other, """SELECT count(*) FROM pg_constraint WHERE conname = 'Palabras de la casa'""") == 1


async def test_what_failed_verification_is_undone_under_its_own_names(other: Database, config: Path) -> None:
    await migrations.up(other)
    before = (await rows(other, V1))[0]
    outcomes = 'SELECT id, outcome FROM "CRM"."Llamadas" ORDER BY id'
    outcomes_before = await rows(other, outcomes)
    await change(
        other,
        """CREATE FUNCTION public.tamper() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN NEW.voice_speed := 1.5; RETURN NEW; END $$;
           CREATE TRIGGER tamper BEFORE INSERT ON public.voice_assistant_configs
           FOR EACH ROW EXECUTE FUNCTION public.tamper()""",
    )
    answered = await asyncio.to_thread(relevo, "migrate", url=other.url, config=config)
    assert answered.status == 1
    assert answered.data["undone"]
    assert await value(other, "SELECT count(*) FROM public.voice_assistant_configs") == 0
    assert await rows(other, outcomes) == outcomes_before
    assert (await rows(other, V1))[0] == before


async def test_a_role_that_passes_row_level_security_may_move_what_is_forced_on_the_owner(
    other: Database, server: Server, config: Path
) -> None:
    for table in TABLES:
        await change(other, f'ALTER TABLE "CRM"."{table}" FORCE ROW LEVEL SECURITY')
    refused = await asyncio.to_thread(relevo, "migrate", url=other.url, config=config)
    assert refused.status == 3
    assert "row level security" in refused.data["error"]["message"]
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE passes_rls LOGIN BYPASSRLS IN ROLE {OWNER}".encode())
        try:
            url = other.url.replace(f"//{OWNER}@", "//passes_rls@")
            assert (await asyncio.to_thread(succeeds, "migrate", url=url, config=config))["migrated_configs"] > 20
            assert (await asyncio.to_thread(succeeds, "verify", url=url, config=config))["success"]
        finally:
            name = other.url.rsplit("/", 1)[1]
            with psycopg.connect(server.url(name), autocommit=True) as inside:
                inside.execute("DROP OWNED BY passes_rls CASCADE")
            connection.execute("DROP ROLE passes_rls")
