"""Controllers that are killed, a database that restarts, a pooler between: each thing is done once, or not at all."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from relevo.db import migrations
from relevo.db.lease import lease
from relevo.db.pool import Database
from relevo.errors import RelevoError
from relevo.rollout import controller
from relevo.rollout.plan import DEFAULT
from tests.conftest import OWNER, durable_server, rows, value
from tests.controllers import Controllers, compressed, controllers
from tests.flags import row
from tests.poolers import PGBOUNCER, pooling
from tests.rollouts import HOUR, Scene, every_transition_follows_the_one_before, scene
from tests.servers import Server
from tests.test_kills import start_again

QUICK = replace(
    DEFAULT,
    promotion="automatic",
    phases=tuple(
        replace(each, min_hold=2 * HOUR, max_hold=400 * HOUR, every=HOUR / 4, min_calls=5, evidence=False)
        for each in DEFAULT.phases
    ),
)
HOURS_A_SECOND = 2.0
ENDS_WITHIN_S = 90.0


@pytest.fixture(scope="module")
def forks() -> Iterator[Controllers]:
    """Where controllers come from."""
    with controllers() as ready:
        yield ready


async def told(database: Database) -> dict[str, Any]:
    """Everything that a controller may have done."""
    return {
        "flag": {**await row(database), "updated_at": None},
        "rollout": await rows(database, "SELECT id, state, phase, flag_version, cause, revision FROM relevo.rollouts"),
        "transitions": await rows(database, "SELECT id, source, event, target FROM relevo.rollout_transitions"),
        "evaluations": await value(database, "SELECT count(*) FROM relevo.rollout_evaluations"),
        "audit": await rows(database, "SELECT id, action FROM relevo.audit_log WHERE action NOT LIKE 'alert%%'", ()),
        "messages": await rows(database, "SELECT dedup_key FROM relevo.outbox ORDER BY 1"),
    }


async def failing(here: Scene) -> None:
    """About to be rolled back."""
    await here.start()
    await here.tick(seconds=5)
    here.now += timedelta(minutes=2)
    await here.calls("v2", 40, errors=16)
    await here.calls("v1", 120, errors=2)


async def healthy(here: Scene) -> None:
    """About to be promoted."""
    await here.start(QUICK)
    await here.tick(seconds=5)
    here.now += timedelta(minutes=2)
    await here.calls("v2", 40)
    await here.tick(hours=3)
    assert (await here.rollout()).standing.state == "Healthy"


@pytest.mark.parametrize(("about_to", "event"), [(failing, "roll_back"), (healthy, "promote")])
@pytest.mark.parametrize("server", [18], ids=["pg18"], indirect=True)
async def test_a_controller_killed_anywhere_in_a_tick_has_done_all_or_nothing_and_the_next_does_it_once(
    ready: Database, forks: Controllers, about_to: Any, event: str
) -> None:
    here = await scene(ready)
    await about_to(here)
    now = here.now + timedelta(seconds=30)
    before = await told(ready)
    kills = 0
    while (after := await told(ready)) == before:
        kills += 1
        ended = await asyncio.to_thread(forks.tick, ready.url, now, kills)
        assert ended in ("killed", "done"), ended
        assert kills < 200
    print(f"{event}: killed at {kills} requests to the database; done by the one that came past its commit")
    assert ended == "killed", "it died after the commit, and before it could know"
    assert kills > 20
    assert [each["event"] for each in after["transitions"]].count(event) == 1
    for number in range(kills + 1, kills + 6):  # the one that comes after it, killed as well
        await asyncio.to_thread(forks.tick, ready.url, now, number)
    here.now = now
    await here.tick(seconds=1)
    events = await every_transition_follows_the_one_before(ready)
    assert events.count(event) == 1


@asynccontextmanager
async def compressed_time(database: Database) -> AsyncIterator[tuple[Scene, float]]:
    """A rollout that takes seconds, whose tenants are called all the time."""
    began_s = time.monotonic()
    here = await scene(database)
    clock = compressed(began_s, HOURS_A_SECOND)
    here.now = clock()
    await here.start(QUICK)

    async def keep_calling() -> None:
        while True:
            with suppress(RelevoError, psycopg.Error):
                here.now = clock()
                await here.calls("v1", 20)
                if await here.on_v2():
                    await here.calls("v2", 20)
            await asyncio.sleep(0.05)

    calling = asyncio.create_task(keep_calling())
    try:
        yield here, began_s
    finally:
        calling.cancel()
        await asyncio.wait([calling])


async def ended(database: Database) -> bool:
    """Whether it is over; a database that is away says nothing."""
    with suppress(RelevoError, psycopg.Error):
        return bool(await value(database, "SELECT finished_at IS NOT NULL FROM relevo.rollouts"))
    return False


async def endure(database: Database, url: str, forks: Controllers, disturb: Any) -> list[str]:
    """Two controllers take the plan to its end while they are disturbed; returns what happened."""
    async with compressed_time(database) as (_here, began_s):
        for _ in range(2):
            forks.keep(url, began_s, HOURS_A_SECOND)
        try:
            deadline = time.monotonic() + ENDS_WITHIN_S
            while not await ended(database):
                assert time.monotonic() < deadline, await rows(database, "SELECT * FROM relevo.rollouts")
                await disturb(began_s)
        finally:
            for pid in list(forks.running):
                forks.kill(pid)
    events = await every_transition_follows_the_one_before(database)
    asked = await rows(database, "SELECT phase FROM relevo.rollout_transitions WHERE event = 'promote' ORDER BY id")
    assert [each["phase"] for each in asked] == [1, 2, 3, 4]
    assert events[-1] == "finish"
    return events


def killing(url: str, forks: Controllers) -> Any:
    """Kill whichever controller, whenever, and start another."""
    dice = random.Random(7)
    kills = 0

    async def disturb(began_s: float) -> None:
        nonlocal kills
        await asyncio.sleep(dice.uniform(0.2, 1.6))
        forks.kill(dice.choice(forks.running))
        kills += 1
        forks.keep(url, began_s, HOURS_A_SECOND)

    return disturb


async def test_controllers_that_are_killed_at_any_moment_take_the_plan_to_its_end(
    ready: Database, forks: Controllers
) -> None:
    await endure(ready, ready.url, forks, killing(ready.url, forks))


async def test_the_same_behind_a_pooler_of_transactions(server: Server, ready: Database, forks: Controllers) -> None:
    if not PGBOUNCER.exists():
        pytest.skip(f"{PGBOUNCER} is not installed: apt-get install pgbouncer")
    with pooling(server, OWNER) as port:
        url = f"postgresql://{OWNER}@127.0.0.1:{port}/{ready.url.rsplit('/', 1)[1]}"
        async with Database(url) as pooled:
            assert await pooled.pooling() == "transaction"
            await endure(pooled, url, forks, killing(url, forks))


@pytest.fixture(scope="module")
def durable() -> Iterator[Server]:
    """A server that keeps what it has committed."""
    with durable_server("restarted") as server:
        yield server


async def test_a_database_that_is_killed_and_started_again(durable: Server, forks: Controllers) -> None:
    url = durable.url("restarted", OWNER)
    restarts = 0

    async def restart(_began_s: float) -> None:
        nonlocal restarts
        await asyncio.sleep(1.5)
        if restarts < 3:
            restarts += 1
            durable.pull_the_plug()
            await asyncio.to_thread(start_again, durable)

    async with Database(url, wait_s=5) as database:
        await migrations.up(database)
        await endure(database, url, forks, restart)
    assert restarts == 3


async def test_one_that_lost_its_lease_while_it_looked_does_not_act(ready: Database) -> None:
    here = await scene(ready)
    await failing(here)
    async with lease(ready, controller.LEASE) as held:
        async with ready.transaction() as connection:
            await connection.execute(b"UPDATE relevo.leases SET token = token + 1 WHERE name = 'rollout'")
        with pytest.raises(RelevoError, match="took over"):
            await controller.tick(ready, here.now + timedelta(seconds=1), held)
    assert "roll_back" not in await every_transition_follows_the_one_before(ready)
