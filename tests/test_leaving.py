"""Relevo goes, and v1 is as it was found: not one object more or less, by pg_dump's own words."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import pytest

from relevo.db.pool import Database
from relevo.errors import Refused
from relevo.migration import leaving, runner
from relevo.migration.mapping import DEFAULT
from relevo.migration.run import Options
from relevo.migration.steps import verify
from tests.commands import relevo
from tests.conftest import NOW, behind, change, load_sample, rows, value
from tests.servers import Server


async def leave(database: Database, *, everything: bool) -> leaving.Going:
    return await leaving.leave(database, v2_tables=everything, call_columns=everything, backups=everything)


def dump(server: Server, database: Database, *options: str) -> str:
    """The database as pg_dump writes it down, without what differs each time."""
    command = [str(server.programs / "pg_dump"), "--dbname", database.url, *options]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}).stdout
    return re.sub(r"^\\(un)?restrict .*$", "", told, flags=re.MULTILINE)


async def test_v1_is_left_as_it_was_found(server: Server, database: Database) -> None:
    await load_sample(database, tenants=20, calls=500)
    before = dump(server, database)
    assert (await runner.migrate(database, Options(), actor="tester", clock=lambda: NOW)).success
    assert dump(server, database, "--schema-only") != before
    going = await leave(database, everything=True)
    assert len(going.triggers) == 10
    assert {column for _, _, column in going.columns} == {"outcome", "agent_version"}
    assert dump(server, database) == before


async def test_what_v2_lives_on_stays_unless_it_is_named(database: Database) -> None:
    await load_sample(database, tenants=20, calls=500)
    moved = await runner.migrate(database, Options(), actor="tester", clock=lambda: NOW)
    await leave(database, everything=False)
    assert await value(database, "SELECT count(*) FROM public.voice_assistant_configs") == moved.migrated_configs
    assert await value(database, "SELECT count(*) FROM public.voice_calls WHERE outcome IS NOT NULL") == 500
    assert await value(database, "SELECT to_regnamespace('relevo_backup') IS NOT NULL")
    changed = await change(database, "UPDATE public.voice_agent_config SET voice_id = 'alone'")
    await change(database, "DELETE FROM public.voice_assistant_configs")
    left = await value(database, "SELECT count(*) FROM public.voice_agent_config WHERE voice_id = 'alone'")
    assert left == changed > 0


async def test_a_column_that_was_there_before_stays(database: Database) -> None:
    await load_sample(database, tenants=5, calls=50)
    await change(database, "ALTER TABLE public.voice_calls ADD COLUMN outcome text")
    await runner.migrate(database, Options(), actor="tester", clock=lambda: NOW)
    await leave(database, everything=True)
    assert await value(
        database,
        """SELECT array_agg(attname::text) FROM pg_attribute
           WHERE attrelid = 'public.voice_calls'::regclass AND attname IN ('outcome', 'agent_version')
             AND NOT attisdropped""",
    ) == ["outcome"]


async def test_a_table_that_was_there_before_stays(database: Database) -> None:
    await change(
        database,
        """CREATE TABLE public.feature_flags (
               name text PRIMARY KEY, enabled boolean NOT NULL DEFAULT false, percentage integer NOT NULL DEFAULT 0,
               enabled_tenants text[] NOT NULL DEFAULT '{}', disabled_tenants text[] NOT NULL DEFAULT '{}')""",
    )
    await load_sample(database, tenants=5, calls=50)
    await runner.migrate(database, Options(), actor="tester", clock=lambda: NOW)
    await leave(database, everything=True)
    found = await rows(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    assert [row["tablename"] for row in found] == ["businesses", "feature_flags", "voice_agent_config", "voice_calls"]


async def test_it_stays_while_somebody_needs_it(sampled: Database) -> None:
    await runner.migrate(sampled, Options(), actor="tester", clock=lambda: NOW)
    await change(sampled, "UPDATE public.feature_flags SET enabled = true, percentage = 10")
    with pytest.raises(Refused, match="still puts tenants on v2"):
        await leave(sampled, everything=True)
    await change(sampled, "UPDATE relevo.runs SET state = 'running', finished_at = NULL")
    with pytest.raises(Refused, match="is open"):
        await leave(sampled, everything=False)
    verdict = await verify.run(sampled, DEFAULT, tenant_ids=None, clock=lambda: NOW)
    assert verdict.success


def test_nobody_is_taken_by_surprise(sampled: Database) -> None:
    answered: Any = relevo("db", "down", url=sampled.url)
    assert answered.status == 3
    assert "CONFIRM" in answered.told
    gone: Any = relevo("db", "down", "--yes", url=sampled.url)
    assert gone.status == 0
    assert "relevo" in gone.data["schemas"]
    assert relevo("db", "status", url=sampled.url).status == 1


async def test_the_mirror_can_go_alone_and_come_back(sampled: Database) -> None:
    await runner.migrate(sampled, Options(), actor="tester", clock=lambda: NOW)
    config = await value(sampled, "SELECT id FROM public.voice_assistant_configs ORDER BY id LIMIT 1")
    removed: Any = relevo("mirror", "remove", url=sampled.url)
    assert len(removed.data["removed"]) == 10
    assert relevo("mirror", "status", url=sampled.url).status == 1
    await behind(sampled, "UPDATE public.voice_agent_config SET phone_number_id = 'alone' WHERE id = %s", (config,))
    assert relevo("verify", url=sampled.url).status == 1
    assert relevo("mirror", "install", url=sampled.url).status == 0
    assert relevo("mirror", "repair", url=sampled.url).data["repaired"] == 0
    mended: Any = relevo("mirror", "repair", "--drifted", url=sampled.url)
    assert mended.data == {"success": True, "repaired": 1, "failed": []}
    assert relevo("verify", url=sampled.url).status == 0
    assert relevo("mirror", "status", url=sampled.url).status == 0
