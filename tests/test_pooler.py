"""Everything works through a pooler that hands out server connections transaction by transaction."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from relevo import events
from relevo.db.pool import Database
from relevo.errors import LeaseHeld
from tests.commands import relevo, succeeds
from tests.conftest import OWNER, copied, value
from tests.migrators import Ended, Migrators, migrators
from tests.poolers import PGBOUNCER, pooling
from tests.servers import Server
from tests.test_move import RUN_BEGINS, fingerprint, move


@pytest.fixture(scope="module")
def pooler(server: Server) -> Iterator[int]:
    """The port of PgBouncer in front of the server."""
    if not PGBOUNCER.exists():
        pytest.skip(f"{PGBOUNCER} is not installed: apt-get install pgbouncer")
    with pooling(server, OWNER) as port:
        yield port


@pytest.fixture(scope="module")
def forks() -> Iterator[Migrators]:
    """Where migrators come from."""
    with migrators() as ready:
        yield ready


def through(pooler: int, url: str) -> str:
    """A connection string of the server, by way of the pooler."""
    return f"postgresql://{OWNER}@127.0.0.1:{pooler}/{url.rsplit('/', 1)[1]}"


async def test_a_whole_move_from_nothing(pooler: int, database_url: str) -> None:
    url = through(pooler, database_url)

    async def done(*words: str) -> Any:
        return await asyncio.to_thread(succeeds, *words, url=url)

    await done("sample", "load", "--tenants", "30", "--calls", "2000")
    assert (await done("db", "up"))["applied"]
    assert (await done("preflight"))["success"]
    foretold = await done("migrate", "--dry-run")
    result = await done("migrate", "--workers", "2")
    for number in ("migrated_configs", "quarantined_configs", "updated_calls", "metrics_businesses"):
        assert result[number] == foretold[number] > 0, number
    assert (await done("verify"))["matched"] == result["migrated_configs"]
    retried = await asyncio.to_thread(relevo, "quarantine", "retry", url=url)
    assert (retried.status, retried.data["migrated_configs"]) == (1, 0)
    made = await done("backups", "create")
    assert made["verified_at"]
    assert {each["id"] for each in await done("backups", "list")} == {made["id"], result["backup_id"]}
    async with Database(url) as database:
        assert not await value(database, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        assert await value(database, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") <= 5


async def test_killed_in_the_middle_and_run_again(pooler: int, server: Server, template: str, forks: Migrators) -> None:
    async def moved(*kills: int) -> dict[str, str]:
        with copied(server, template) as direct:
            url = through(pooler, direct)
            for last in kills:
                killed = await asyncio.to_thread(forks.run, url, RUN_BEGINS, until=last, batch_size=9)
                assert killed == Ended(signal=signal.SIGKILL), killed
            async with Database(url) as database:
                assert (await move(database, workers=2)).success
                return await fingerprint(database)

    assert await moved(9, 5, 12) == await moved()


async def test_one_migrator_at_a_time(pooler: int, server: Server, template: str) -> None:
    with copied(server, template) as direct:
        under_way = asyncio.Event()

        def sink(event: events.Event) -> None:
            if isinstance(event, events.StepStarted) and event.number == 2:
                under_way.set()

        async with Database(through(pooler, direct)) as one, Database(through(pooler, direct)) as another:
            first = asyncio.create_task(move(one, sink))
            await under_way.wait()
            with pytest.raises(LeaseHeld):
                await move(another)
            assert (await first).success
