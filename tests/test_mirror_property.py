"""Ten thousand random writes of both sides at once, with kills, rollbacks and repairs between: at every rest both sides
are equal or what differs is queued; after repair they are equal; no acknowledged write is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio

from relevo.db.pool import Database
from relevo.migration import mirror, runner
from relevo.migration.mapping import DEFAULT
from relevo.migration.run import Options
from relevo.migration.runs import Who
from relevo.migration.steps import verify
from tests.conftest import NOW, change, copied, rows, value
from tests.mirror_model import TABLES, UNIQUE, WRITERS, History, Writer
from tests.servers import Server

WHO = Who("tester", "a test")
WRITES = {18: 5_100, 15: 1_500}  # by each of two programs
ROUNDS_AT_MOST = 200

# Both sides side by side, and everything that may excuse a difference.
BOTH = """
SELECT coalesce(a.id, b.id) AS id, a.id IS NOT NULL AS on_v1, b.id IS NOT NULL AS on_v2,
       ARRAY(SELECT f FROM unnest('{business_id,vapi_assistant_id,phone_number_id,is_active,created_at,updated_at}'
                                  ::text[]) AS f
             WHERE to_jsonb(a) -> f IS DISTINCT FROM to_jsonb(b) -> f)
       || CASE WHEN coalesce(nullif(a.voice_id, ''), 'elevenlabs-maria') IS DISTINCT FROM b.voice_id
               THEN '{voice_id}'::text[] ELSE '{}' END AS differ,
       a.phone_number_id, a.vapi_assistant_id, a.voice_id,
       EXISTS (SELECT FROM relevo.quarantine q WHERE q.config_id = a.id::text) AS set_aside,
       EXISTS (SELECT FROM relevo.mirror_queue q WHERE q.config_id = coalesce(a.id, b.id)) AS waits,
       ARRAY(SELECT f FROM relevo.mirror_queue q, unnest(q.fields) AS f
             WHERE q.config_id = coalesce(a.id, b.id)) AS queued,
       EXISTS (SELECT FROM relevo.mirror_queue q
               WHERE q.config_id = coalesce(a.id, b.id) AND q.operation <> 'update') AS queued_whole
FROM public.voice_agent_config a FULL JOIN public.voice_assistant_configs b ON b.id = a.id
"""


@pytest.fixture(scope="module")
def writers(server: Server) -> Iterator[None]:
    """A role for each side that may write there, and nothing else."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for role in WRITERS.values():
            connection.execute(f"CREATE ROLE {role} LOGIN".encode())
    yield
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for role in WRITERS.values():
            connection.execute(f"DROP ROLE {role}".encode())


@pytest_asyncio.fixture
async def shared(server: Server, template: str, writers: None) -> AsyncIterator[Database]:  # noqa: ARG001
    """A small v1 that was moved, dual write on, both tables under row level security."""
    with copied(server, template) as url:
        async with Database(url) as database:
            assert (await runner.migrate(database, Options(), actor="tester", clock=lambda: NOW)).success
            await change(
                database,
                """INSERT INTO public.voice_agent_config (id, business_id, system_prompt)
                   SELECT gen_random_uuid(), id, 'Toma reservaciones.' FROM public.businesses
                   CROSS JOIN generate_series(1, 5) WHERE vertical <> ''""",
            )
            for side, role in WRITERS.items():
                table = TABLES[side]
                await change(database, f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
                await change(database, f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}")
                await change(database, f"CREATE POLICY ours ON {table} TO {role} USING (true) WITH CHECK (true)")
            yield database


async def test_no_acknowledged_write_is_lost(shared: Database, server: Server) -> None:
    for seed in (1, 2):
        await Program(shared, server, seed).run(WRITES[server.version])


class Program:
    """Writers at once, rest, look; now and then somebody is killed, all is repaired, the move is run again."""

    def __init__(self, database: Database, server: Server, seed: int) -> None:
        self.database, self.server, self.seed = database, server, seed
        self.chance = random.Random(seed)
        self.history = History()
        self.writers = [
            Writer(database.url, side, f"{side}-{seed}-{number}", random.Random(seed * 100 + number), self.history)
            for number, side in enumerate(("v1", "v2") * 3)
        ]

    async def run(self, least_rows: int) -> None:
        try:
            for number in range(ROUNDS_AT_MOST):
                await self.round()
                await self.equal_or_queued(f"seed {self.seed}, round {number}")
                if self.history.rows >= least_rows:
                    break
                if number % 4 == 3:
                    await self.repaired(f"seed {self.seed}, round {number}")
            await self.repaired(f"seed {self.seed}, end")
        finally:
            for writer in self.writers:
                await writer.close()
        assert self.history.rows >= least_rows

    async def round(self) -> None:
        there = await rows(
            self.database,
            """SELECT a.id, a.business_id FROM public.voice_agent_config a
               JOIN public.voice_assistant_configs b USING (id) JOIN public.businesses t ON t.id = a.business_id
               WHERE t.vertical <> '' ORDER BY md5(a.id::text) LIMIT 200""",
        )
        configs, tenants = [row["id"] for row in there], [row["business_id"] for row in there]
        work = [asyncio.create_task(each.work(5, configs, tenants)) for each in self.writers]
        others = ((self.kill, 0.4), (self.repair, 0.2), (self.move_again, 0.1))
        beside = [asyncio.create_task(each()) for each, share in others if self.chance.random() < share]
        await asyncio.gather(*work, *beside)

    async def kill(self) -> None:
        """End the server's side of a connection."""
        await asyncio.sleep(self.chance.random() * 0.2)
        victim = self.chance.choice(self.writers).connection
        if victim is None or victim.closed:
            return
        async with await psycopg.AsyncConnection.connect(self.server.url("postgres"), autocommit=True) as connection:
            with suppress(psycopg.OperationalError):
                await connection.execute("SELECT pg_terminate_backend(%s)", (victim.info.backend_pid,))

    async def repair(self) -> None:
        await mirror.repair(self.database, WHO, lambda: NOW)

    async def move_again(self) -> None:
        moved = await runner.migrate(self.database, Options(skip_backup=True), actor="tester", clock=lambda: NOW)
        assert moved.success, moved.errors

    async def equal_or_queued(self, when: str) -> None:
        """The law at every rest, and that verification says the same."""
        both = await rows(self.database, BOTH)
        wrong = [
            row
            for row in both
            if row["differ"]
            and not (row["set_aside"] or row["queued_whole"] or set(row["differ"]) <= set(row["queued"]))
        ]
        assert wrong == [], when
        loops = "SELECT count(*) FROM relevo.mirror_queue WHERE reason LIKE 'triggers of both sides%%'"
        assert await value(self.database, loops) == 0, when
        verdict = await verify.run(self.database, DEFAULT, tenant_ids=None, clock=lambda: NOW)
        told = (verdict.quarantined, verdict.queued, verdict.drifted, verdict.missing, verdict.orphaned)
        aside = sum(row["set_aside"] for row in both)
        waits = sum(row["waits"] and not row["set_aside"] for row in both)
        assert told == (aside, waits, 0, 0, 0), (when, verdict.errors)

    async def repaired(self, when: str) -> None:
        """The law after repair."""
        _, failed = await mirror.repair(self.database, WHO, lambda: NOW)
        assert failed == [], when
        there = {row["id"]: row for row in await rows(self.database, BOTH)}
        assert [row for row in there.values() if row["differ"] and not row["set_aside"]] == [], when
        for config, sure in self.history.deleted.items():
            assert not (sure and config in there), f"{when}: {config} came back"
        for config, sure in self.history.born.items():
            assert config in there or not sure or config in self.history.deleted, f"{when}: {config} was not born"
        conflicts = await self.kept_in_conflicts()
        for config, name in self.history.writes:
            last = self.history.last(config, name)
            if config in there and last:
                kept = {there[config][name], *conflicts.get((config, name), ())}
                assert last & kept, f"{when}: {config} {name} is {there[config][name]}, not one of {last}"
        gone = await rows(self.database, "SELECT DISTINCT config_id FROM relevo.deleted_configs")
        assert {config for config, sure in self.history.deleted.items() if sure} <= {row["config_id"] for row in gone}

    async def kept_in_conflicts(self) -> dict[tuple[UUID, str], set[Any]]:
        found = await rows(
            self.database,
            "SELECT config_id, field, v1_value, v2_value FROM relevo.mirror_conflicts WHERE field = ANY (%s)",
            (list(UNIQUE),),
        )
        return {(row["config_id"], row["field"]): {row["v1_value"], row["v2_value"]} for row in found}
