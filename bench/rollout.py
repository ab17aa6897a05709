"""The rollout: what a tick of its controller takes on a large platform, and how soon eight servers that are busy
answering calls all obey a rollback."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from contextlib import ExitStack, suppress
from statistics import median
from uuid import UUID

import aiohttp
import psycopg

from bench.figures import Figure
from bench.place import Place
from bench.record import FOLDED_DAY, NOW
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.flags.writing import Author
from relevo.migration import source
from relevo.migration.mapping import DEFAULT
from relevo.rollback import levels
from relevo.rollout import controller
from relevo.rollout import plan as plans
from tests.calling import SECRET, WEBHOOK, Line, asked
from tests.serving import Served, serving

TENANTS, LISTED, CALLS_A_DAY = 100_000, 20_000, 10_000_000
TICKS = 40
PROCESSES, ROLLBACKS, ASKED_A_SECOND = 8, 100, 200
CONFIGURATIONS = 1_000
BENCH = Author("bench", None)

# A platform in its third phase, with the last seconds' calls not added up yet.
_PLATFORM = """
    CREATE TABLE public.voice_agent_config OF relevo.v1_config (PRIMARY KEY (id));
    INSERT INTO public.voice_agent_config (id, business_id, is_active)
    SELECT t, t, true FROM (SELECT md5(n::text)::uuid AS t FROM generate_series(1, %(tenants)s) AS n) AS every;
    CREATE OR REPLACE FUNCTION relevo.v1_configurations() RETURNS SETOF relevo.v1_config
    LANGUAGE sql STABLE AS 'SELECT * FROM public.voice_agent_config';
    INSERT INTO public.voice_assistant_configs (id, business_id, assistant_type_id)
    SELECT id, business_id, 'dental_basic' FROM public.voice_agent_config;
    INSERT INTO relevo.verifications SELECT id, business_id, 'matched', '{}', now() FROM public.voice_agent_config;
    INSERT INTO relevo.rollouts (plan, state, phase, phases, flag_version, judged_from, gathered_from, hold_until,
                                 expires_at, due_at, started_at, actor)
    SELECT %(plan)s, 'Progressing', 2, 5, 2, %(now)s::timestamptz - interval '1 day', %(now)s - interval '1 day',
           %(now)s + interval '1 hour', %(now)s + interval '2 days', %(now)s + interval '1 hour',
           %(now)s - interval '1 day', 'bench';
    INSERT INTO relevo.rollout_phases (rollout_id, ordinal, name, percent, tenants)
    SELECT r.id, n, 'phase ' || n, 20, %(listed)s FROM relevo.rollouts r, generate_series(0, 4) AS n;
    INSERT INTO relevo.rollout_cohort (rollout_id, place, tenant_id, phase, why)
    SELECT r.id, row_number() OVER (ORDER BY c.id), c.id, 2, 'bench'
    FROM relevo.rollouts r, public.voice_agent_config c;
    UPDATE public.feature_flags SET enabled = true, enabled_tenants = ARRAY(
        SELECT tenant_id FROM relevo.rollout_cohort ORDER BY place LIMIT %(listed)s);
    UPDATE relevo.rollouts SET state = 'Pending', paused_at = NULL, cause = NULL;
    UPDATE relevo.rollouts SET state = 'Progressing', judged_from = %(now)s::timestamptz - interval '1 day',
           flag_version = (SELECT version FROM public.feature_flags WHERE name = 'voice_agent_v2');
    INSERT INTO relevo.call_deltas
    SELECT 'call ' || n, %(now)s, 'v' || (1 + n %% 2), md5((1 + n)::text)::uuid::text, 1, 1, 0, 0, 0, 0, 0, 1, 500000,
           285
    FROM generate_series(1, 500) AS n
"""
# The last two hours, tenant by tenant.
_TENANT_HOURS = """
    WITH each AS (
        SELECT date_trunc('hour', %(now)s::timestamptz) - h * interval '1 hour' AS at, c.tenant_id,
               CASE WHEN c.place <= %(listed)s THEN 'v2' ELSE 'v1' END AS version
        FROM relevo.rollout_cohort c, generate_series(0, 1) AS h
    ), counted AS (
        INSERT INTO relevo.call_stats SELECT 'tenant', 'calls', at, version, tenant_id, 4, 4, 0, 0, 0, 0, 0, 4, 2000000
        FROM each
    )
    INSERT INTO relevo.call_latencies SELECT 'tenant', 'calls', at, version, tenant_id, 330 + n, 1
    FROM each, generate_series(1, 4) AS n
"""


async def ticks(place: Place) -> list[Figure]:
    """Milliseconds of a tick that decides nothing, as nearly all do."""
    with place.clone("template0") as name:
        async with Database(place.url(name)) as database:
            await migrations.up(database)
            with psycopg.connect(place.url(name), autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
                said = {"now": NOW, "listed": LISTED, "tenants": TENANTS, "plan": plans.written(plans.DEFAULT)}
                connection.execute(_PLATFORM, said)
                tenants = [str(UUID(int=number)) for number in range(90)]
                day = {"now": NOW, "calls": CALLS_A_DAY, "tenants": tenants, "middle": 285}
                connection.execute(FOLDED_DAY.encode(), day)
                connection.execute(_TENANT_HOURS, said)
                connection.execute("VACUUM (ANALYZE)")
            took_ms = []
            for _ in range(TICKS):
                began_s = time.perf_counter()
                ticked = await controller.tick(database, NOW)
                await controller.watch(database, NOW)
                took_ms.append((time.perf_counter() - began_s) * 1e3)
            assert ticked is not None
            print(f"{ticked.evaluation.verdict}: {ticked.evaluation.why}", file=sys.stderr)
    what = f"a tick at {TENANTS:,} tenants and {CALLS_A_DAY:,} calls a day"
    return [Figure(f"{what}, median of {TICKS}", median(took_ms), "asked", 200, "ms", most=1)]


async def rollbacks(place: Place) -> list[Figure]:
    """Servers that are asked by Vapi all the while; each rollback is undone before the next."""
    async with place.v1(CONFIGURATIONS) as v1:
        with place.clone(v1) as name, ExitStack() as servers:
            url = place.url(name)
            async with Database(url) as database:
                async with database.transaction() as connection:
                    await source.install(connection, DEFAULT, system_clock())
                with psycopg.connect(url, autocommit=True) as connection:
                    rows = connection.execute("SELECT business_id, id, phone_number_id FROM voice_agent_config")
                    lines = [Line(str(tenant), str(config), number, "", "", "") for tenant, config, number in rows]
                env = {"RELEVO_VAPI_SECRET": SECRET}
                served = [servers.enter_context(serving(url, env=env)) for _ in range(PROCESSES)]
                load = asyncio.create_task(_load(served, lines))
                try:
                    obeyed_ms, took_ms = await _back_and_forth(database, lines)
                finally:
                    load.cancel()
                    await asyncio.wait([load])
                many = await _answered(database)
    what = f"a rollback until {PROCESSES} busy servers obey"
    print(f"{many:,} calls were answered beside {ROLLBACKS} rollbacks", file=sys.stderr)
    return [
        Figure(f"{what}, p99 of {ROLLBACKS}", _p99(obeyed_ms), "asked", 1_000, "ms", most=1),
        Figure(f"{what}, median", median(obeyed_ms), "p99", _p99(obeyed_ms), "ms"),
        Figure("the same by the clock of whoever asked, p99", _p99(took_ms), "asked", 1_000, "ms", most=1),
    ]


async def _back_and_forth(database: Database, lines: list[Line]) -> tuple[list[float], list[float]]:
    tenants = [line.tenant_id for line in lines]
    obeyed_ms, took_ms = [], []
    for number in range(ROLLBACKS):
        async with database.transaction() as connection:
            await connection.execute(
                b"UPDATE public.feature_flags SET enabled = true, enabled_tenants = %s", (tenants,)
            )
        await asyncio.sleep(0.05 + 0.003 * (number % 17))  # not in step with anything
        began_s = time.perf_counter()
        done = await levels.all_back(database, BENCH, system_clock)
        took_ms.append((time.perf_counter() - began_s) * 1e3)
        assert done.readers == PROCESSES, f"{done.readers} servers answer by the flag"
        assert done.propagation_ms is not None, f"{done.lagging} did not obey"
        obeyed_ms.append(done.propagation_ms)
    return obeyed_ms, took_ms


async def _load(served: list[Served], lines: list[Line]) -> None:
    """So many new calls a second, spread over the servers."""
    async with aiohttp.ClientSession(headers={"x-vapi-secret": SECRET}) as session:
        asking: set[asyncio.Task[None]] = set()
        for number in itertools.count():
            server, line = served[number % len(served)], lines[number % len(lines)]
            task = asyncio.create_task(_ask(session, server, json.dumps(asked(line, f"bench {number}")).encode()))
            asking.add(task)
            task.add_done_callback(asking.discard)
            await asyncio.sleep(1 / ASKED_A_SECOND)


async def _ask(session: aiohttp.ClientSession, server: Served, body: bytes) -> None:
    with suppress(aiohttp.ClientError, TimeoutError):
        headers = {"content-type": "application/json"}
        async with session.post(server.address + WEBHOOK, data=body, headers=headers) as response:
            await response.read()


async def _answered(database: Database) -> int:
    async with database.transaction(read_only=True) as connection:
        row = await (await connection.execute(b"SELECT count(*) AS calls FROM relevo.calls")).fetchone()
    return int(row["calls"]) if row else 0


def _p99(values: list[float]) -> float:
    return sorted(values)[-(-len(values) * 99 // 100) - 1]
