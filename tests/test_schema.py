"""Relevo's own schema: applied once, by anybody, and shut to those who have no business there."""

from __future__ import annotations

import asyncio
import re

import psycopg
import pytest
from psycopg import sql

from relevo.db import migrations
from relevo.db.pool import Database
from relevo.db.statements import statement, statements
from relevo.errors import MissingPrivilege, Refused, SchemaChanged, SchemaMissing
from relevo.migration.mapping import DEFAULT
from tests.conftest import change, rows, value
from tests.servers import Server

PARAMETER = re.compile(r"%\((\w+)\)s")
UTILITY = re.compile(r"^(CREATE|ALTER|DROP|DO|LISTEN)\b", re.MULTILINE)
FLAG = "SELECT * FROM public.feature_flags WHERE name = 'voice_agent_v2'"


async def test_applying_twice_applies_once(database: Database) -> None:
    assert len(await migrations.up(database)) == len(migrations.schema_files())
    assert await migrations.up(database) == []
    assert all(file.applied_at for file in await migrations.status(database))


async def test_two_at_once_apply_once(database: Database) -> None:
    applied = await asyncio.gather(*(migrations.up(database) for _ in range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations.schema_files())]


async def test_a_changed_file_is_refused(ready: Database) -> None:
    await change(ready, "UPDATE relevo.schema_files SET sha256 = 'other' WHERE version = 2")
    with pytest.raises(SchemaChanged, match="0002_v2 changed"):
        await migrations.up(ready)


async def test_a_newer_schema_is_refused(ready: Database) -> None:
    await change(ready, "INSERT INTO relevo.schema_files VALUES (9999, 'tomorrow', 'x')")
    with pytest.raises(SchemaChanged, match="does not know"):
        await migrations.up(ready)


async def test_without_the_schema_commands_say_so(database: Database) -> None:
    async with database.transaction() as connection:
        with pytest.raises(SchemaMissing, match="not applied"):
            await migrations.require(connection)


async def test_the_flag_begins_off_and_needs_no_v1(ready: Database) -> None:
    (flag,) = await rows(ready, FLAG)
    assert (flag["enabled"], flag["percentage"], flag["enabled_tenants"], flag["disabled_tenants"]) == (
        False,
        0,
        [],
        [],
    )


async def test_an_existing_flag_is_kept(database: Database) -> None:
    await change(
        database,
        """CREATE TABLE public.feature_flags (
               id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE, enabled boolean,
               percentage integer, enabled_tenants text[], disabled_tenants text[])""",
    )
    await change(database, "INSERT INTO public.feature_flags VALUES (DEFAULT, 'voice_agent_v2', true, 30, '{a}', '{}')")
    await migrations.up(database)
    (flag,) = await rows(database, FLAG)
    assert (flag["enabled"], flag["percentage"], flag["enabled_tenants"], flag["version"]) == (True, 30, ["a"], 1)


async def test_a_table_of_another_shape_is_refused_before_anything_is_made(database: Database) -> None:
    await change(database, "CREATE TABLE public.voice_assistant_configs (id bigint, business_id uuid)")
    with pytest.raises(Refused, match=r"voice_assistant_configs\.id is bigint, expected uuid"):
        await migrations.up(database)
    assert await value(database, "SELECT to_regclass('relevo.schema_files')") is None


async def test_a_role_without_rights_is_told_which(server: Server, database_url: str) -> None:
    name = database_url.rsplit("/", 1)[1]
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        connection.execute("DO $$ BEGIN CREATE ROLE passer_by LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    async with Database(server.url(name, "passer_by")) as database:
        with pytest.raises(MissingPrivilege) as refusal:
            await migrations.up(database)
    assert refusal.value.fix == f"GRANT CREATE ON DATABASE {name} TO passer_by"


async def test_the_printed_scripts_do_the_same(database: Database) -> None:
    for _name, text in migrations.as_scripts():
        await change(database, text)
    assert await migrations.up(database) == []


async def test_the_browsers_roles_get_nothing(server: Server, database_url: str) -> None:
    """As on Supabase, where whatever is created in public is granted to them by default."""
    name = database_url.rsplit("/", 1)[1]
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        for role in ("anon", "authenticated", "service_role"):
            connection.execute(f"DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN END $$".encode())
        connection.execute("GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role")
    async with Database(database_url) as database:
        await change(database, "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated")
        await migrations.up(database)
        tables = await rows(
            database,
            """SELECT c.oid::regclass::text AS name, c.relrowsecurity,
                      has_table_privilege('anon', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER') AS anon,
                      has_table_privilege('authenticated', c.oid, 'SELECT, INSERT, UPDATE, DELETE') AS authenticated,
                      has_table_privilege('service_role', c.oid, 'SELECT') AS backend
               FROM pg_class c WHERE relnamespace IN ('public'::regnamespace, 'relevo'::regnamespace)
                 AND relkind = 'r' AND relname <> 'schema_files'""",
        )
        assert len(tables) > 15
        assert [table for table in tables if table["anon"] or table["authenticated"]] == []
        assert [table for table in tables if not table["relrowsecurity"]] == []
        assert {table["name"] for table in tables if table["backend"]} == {
            f"public.{name}"
            for name in (
                "feature_flags",
                "voice_assistant_types",
                "voice_assistant_configs",
                "voice_assistant_metrics",
                "rollout_alerts",
                "migration_backups",
            )
        }


# v1 through the mapping. They must be seen through by the planner, which a function with a setting is not; they are
# called with an empty search path only, by functions that have one and by Relevo itself.
SEEN_THROUGH = ["relevo.v1_configurations()", "relevo.v1_tenants()"]


async def test_functions_cannot_be_fooled_by_a_search_path(ready: Database) -> None:
    loose = await rows(
        ready,
        """SELECT p.oid::regprocedure::text AS name FROM pg_proc p
           WHERE p.pronamespace IN ('relevo'::regnamespace, 'public'::regnamespace)
             AND p.prosqlbody IS NULL AND coalesce(array_to_string(p.proconfig, ','), '') !~ 'search_path='
           ORDER BY 1""",
    )
    assert [row["name"] for row in loose] == SEEN_THROUGH


@pytest.mark.parametrize(
    ("table", "insert"),
    [
        ("feature_flags", "INSERT INTO public.feature_flags (name, percentage) VALUES ('x', 101)"),
        ("feature_flags", "INSERT INTO public.feature_flags (name, percentage) VALUES ('x', -1)"),
        (
            "voice_assistant_configs",
            """INSERT INTO public.voice_assistant_configs (id, business_id, assistant_type_id)
               VALUES (gen_random_uuid(), gen_random_uuid(), 'no_such_type')""",
        ),
        (
            "voice_assistant_configs",
            """INSERT INTO public.voice_assistant_configs (id, business_id, assistant_type_id, special_instructions)
               VALUES (gen_random_uuid(), gen_random_uuid(), 'rest_basic', repeat('x', 1001))""",
        ),
        (
            "voice_assistant_configs",
            """INSERT INTO public.voice_assistant_configs (id, business_id, assistant_type_id, enabled_capabilities)
               VALUES (gen_random_uuid(), gen_random_uuid(), 'rest_basic', '{}')""",
        ),
        (
            "voice_assistant_configs",
            """INSERT INTO public.voice_assistant_configs (id, business_id, assistant_type_id, migrated_from_v1)
               VALUES (gen_random_uuid(), gen_random_uuid(), 'rest_basic', true)""",
        ),
        ("rollout_alerts", "INSERT INTO public.rollout_alerts (type, title, message) VALUES ('mild', 'a', 'b')"),
        (
            "runs",
            """INSERT INTO relevo.runs (started_at, actor, batch_size, rule_version)
               VALUES (now(), 'a', 1, 1), (now(), 'b', 1, 1)""",
        ),
        ("runs", "INSERT INTO relevo.runs (started_at, actor, batch_size, rule_version) VALUES (now(), 'a', 0, 1)"),
        ("rule_keywords", "UPDATE relevo.rule_keywords SET decoys = '{}'"),
        ("rule_keywords", "INSERT INTO relevo.rule_keywords VALUES (1, 'dental', 'muela', 99)"),
        ("rule_sets", "UPDATE relevo.rule_sets SET note = 'other'"),
        ("audit_log", "DELETE FROM relevo.audit_log"),
        ("audit_log", "UPDATE relevo.audit_log SET actor = 'somebody else'"),
    ],
)
async def test_invariants_are_constraints(ready: Database, table: str, insert: str) -> None:
    with pytest.raises(psycopg.IntegrityError):
        await change(ready, insert)
    assert table in insert


async def test_a_drafted_rule_set_changes_only_what_comes_after(ready: Database) -> None:
    draft = await value(ready, "SELECT relevo.draft_rules('teeth')")
    await change(ready, f"INSERT INTO relevo.rule_keywords VALUES ({draft}, 'dental', 'muela', 99)")
    await change(ready, f"INSERT INTO relevo.rule_capabilities VALUES ({draft}, 'dental', 'molars', 99, '{{muela}}')")
    await change(ready, f"SELECT relevo.publish_rules({draft})")
    inferred = "SELECT (relevo.infer('me duele la muela', 'dental', {})).enabled_capabilities"
    assert await value(ready, inferred.format(1)) == ["basic"]
    assert await value(ready, inferred.format(draft)) == ["molars"]
    assert await value(ready, "SELECT relevo.current_rules()") == draft


async def test_a_rule_set_that_names_an_unknown_keyword_is_not_published(ready: Database) -> None:
    draft = await value(ready, "SELECT relevo.draft_rules('typo')")
    await change(ready, f"INSERT INTO relevo.rule_capabilities VALUES ({draft}, 'dental', 'x', 9, '{{zita}}')")
    with pytest.raises(psycopg.IntegrityError, match="zita"):
        await change(ready, f"SELECT relevo.publish_rules({draft})")
    assert await value(ready, "SELECT relevo.current_rules()") == 1


async def test_every_statement_prepares(sampled: Database) -> None:
    """Against the real schema, so that a misspelt column is found here and not at three in the morning."""
    await change(sampled, "ALTER TABLE public.voice_calls ADD outcome text, ADD agent_version text")
    calls = DEFAULT.calls
    derive = statement(
        "migration",
        "derive",
        rule_version=sql.SQL("relevo.current_rules()"),
        overrides=sql.Identifier("relevo", "overrides"),
        **DEFAULT.fill(),
    )
    fill: dict[str, sql.Composable] = {
        "rule_version": sql.SQL("relevo.current_rules()"),
        "overrides": sql.Identifier("relevo", "overrides"),
        "type": sql.SQL("text"),
        "checks": sql.SQL("true"),
        **DEFAULT.fill(),
        "derive": derive,
        "rows": calls.rows(),
        "white_space": sql.Literal(" "),
        "calls_table": calls.relation,
        "calls_with_outcome": calls.rows(also=("outcome",)),
        "leaf": calls.relation,
        "relation": calls.relation,
        "copy": calls.relation,
        "columns": sql.SQL("id, business_id"),
        "scope": sql.SQL("true"),
        "status": calls.read("status"),
        "business_id": calls.read("business_id"),
        "id": calls.read("id"),
        "tenants_table": DEFAULT.tenants.relation,
        "tenant_id": DEFAULT.tenants.read("id"),
        "time_zone": sql.NULL,
        "more": sql.SQL(""),
        "fields": sql.SQL("'{}'::text[]"),
        "field": sql.Identifier("voice_id"),
        "table": calls.relation,
    }
    prepared = 0
    for folder in (
        "db",
        "migration",
        "backup",
        "tenants",
        "access",
        "flags",
        "metrics",
        "breaker",
        "states",
        "router",
        "mirror",
        "leaving",
        "rollout",
        "rollback",
        "comms",
        "alerts",
        "report",
        "sessions",
        "checklist",
        "cleanup",
        "dashboard",
    ):
        for name in statements(folder):
            if UTILITY.search(statements(folder)[name]):  # PREPARE takes only what plans
                continue
            query = statement(folder, name, **fill).as_string()
            parameters = sorted(set(PARAMETER.findall(query)))
            for place, parameter in enumerate(parameters, start=1):
                query = query.replace(f"%({parameter})s", f"${place}")
            numbered = query.replace("%%", "%")
            await change(sampled, f"PREPARE {folder}_{name} AS {numbered}")
            prepared += 1
    assert prepared > 45
