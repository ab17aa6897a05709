"""Kill -9 at any moment, of the migrator and of PostgreSQL itself, loses nothing and doubles nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from relevo.db import migrations
from relevo.db.pool import Database
from relevo.migration.mapping import DEFAULT
from relevo.migration.steps import verify
from tests.conftest import OWNER, copied, durable_server, load_sample, rows, value
from tests.migrators import Ended, Migrators, migrators
from tests.servers import Server
from tests.test_move import RUN_BEGINS, fingerprint

KILLS_OF_THE_MIGRATOR = 100  # of each shape
KILLS_OF_THE_SERVER = 10  # of each kind
ALONE = {"batch_size": 4}
IN_PAIRS = {"batch_size": 3, "workers": 2}
RESTARTS_WITHIN_S = 20.0
TOLD_WITHIN_S = 10.0
HALF_SAID = 12  # of some two dozen things that a migrator says


@pytest.fixture(scope="module")
def forks() -> Iterator[Migrators]:
    """Where migrators come from."""
    with migrators() as ready:
        yield ready


async def found(url: str) -> dict[str, Any]:
    """What a finished move left behind, which must not depend on how often it was killed."""
    async with Database(url) as database:
        verdict = await verify.run(database, DEFAULT, tenant_ids=None, metrics=True)
        assert verdict.success, verdict.errors
        assert await rows(database, "SELECT FROM relevo.runs WHERE state <> 'succeeded'") == []
        assert await value(database, "SELECT count(*) FROM relevo.run_calls") == 0
        assert await value(database, "SELECT count(*) FROM public.migration_backups WHERE verified_at IS NOT NULL") >= 1
        return {
            **await fingerprint(database),
            "moved": await value(database, "SELECT count(*) FROM public.voice_assistant_configs"),
            "figures": await value(database, "SELECT count(*) FROM public.voice_assistant_metrics"),
            "set aside": await value(database, "SELECT count(*) FROM relevo.quarantine"),
            "matched": verdict.matched,
        }


async def undisturbed(
    server: Server, template: str, forks: Migrators, shape: dict[str, int]
) -> tuple[dict[str, Any], float]:
    """What a run leaves behind that nobody disturbs, and how long it takes in seconds: the shorter of two."""
    takes_s = []
    for _ in range(2):
        with copied(server, template) as url:
            began_s = time.monotonic()
            ended = forks.run(url, RUN_BEGINS, **shape)
            takes_s.append(time.monotonic() - began_s)
            assert ended.succeeded, ended
            expected = await found(url)
    return expected, min(takes_s)


async def endure(
    server: Server,
    template: str,
    forks: Migrators,
    shape: dict[str, int],
    *,
    kills: int,
    disturb: Callable[[int], None],
    end: Callable[[Ended], bool],
) -> None:
    """Disturb runs at random moments, one after the other until the move is done, then on a fresh database; each
    disturbed run ends as it should, and each move as if nothing had been."""
    dice = random.Random(f"{shape}")
    expected, takes_s = await undisturbed(server, template, forks, shape)
    endured = 0
    while endured < kills:
        with copied(server, template) as url:
            in_a_row, reach_s = 0, takes_s
            while not (ended := run_until(dice.uniform(0, reach_s), forks, url, shape, disturb)).succeeded:
                assert end(ended), ended.traceback or ended
                in_a_row, reach_s = in_a_row + 1, takes_s / 2  # what is left takes less
            assert await found(url) == expected, f"disturbed {in_a_row} times in a row, after {endured}"
        endured += in_a_row


@pytest.mark.parametrize("server", [18], ids=["pg18"], indirect=True)
@pytest.mark.parametrize("shape", [ALONE, IN_PAIRS], ids=["alone", "in pairs"])
async def test_a_migrator_killed_at_any_moment(
    server: Server, template: str, forks: Migrators, shape: dict[str, int]
) -> None:
    await endure(
        server,
        template,
        forks,
        shape,
        kills=KILLS_OF_THE_MIGRATOR,
        disturb=kill,
        end=lambda ended: ended == Ended(signal=signal.SIGKILL),
    )


def run_until(
    moment_s: float, forks: Migrators, url: str, shape: dict[str, int], disturb: Callable[[int], None]
) -> Ended:
    """Migrate, and disturb the process of that number so many seconds after its start, unless it was faster."""
    pid = forks.start(url, RUN_BEGINS, **shape)
    ended = forks.wait(moment_s)
    if ended is None:
        disturb(pid)
        ended = forks.wait()
    assert ended is not None, "the migrator hangs"
    return ended


def kill(pid: int) -> None:
    """Without a word; who is gone already is left alone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def durable() -> Iterator[Server]:
    """A server that keeps what it has committed."""
    with durable_server() as server:
        yield server


@pytest_asyncio.fixture(scope="module")
async def durable_template(durable: Server) -> str:
    """A database on it with Relevo's schema and a small v1."""
    with psycopg.connect(durable.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE template_of_tests OWNER {OWNER}".encode())
    async with Database(durable.url("template_of_tests", OWNER)) as opened:
        await migrations.up(opened)
        await load_sample(opened)
    return "template_of_tests"


def end_the_server(server: Server) -> None:
    """Kill -9 of PostgreSQL, and a start afterwards."""
    os.kill(server.postmaster(), signal.SIGKILL)
    start_again(server)


def start_again(server: Server) -> None:
    """With the options it had. The number in its file may still be that of a dead process which nobody buries."""
    (server.data / "postmaster.pid").unlink()
    again(lambda: server.control("-l", str(server.data / "server.log"), "restart"), subprocess.CalledProcessError)


def end_a_backend(server: Server) -> None:
    """Kill -9 of a process that works for a migrator, which makes PostgreSQL end all others too."""
    query = b"""SELECT pid FROM pg_stat_activity WHERE application_name = 'relevo' AND backend_type = 'client backend'
               ORDER BY state = 'active' DESC, pid LIMIT 1"""
    with (
        closing(psycopg.connect(server.url("postgres"), autocommit=True)) as observer,
        suppress(psycopg.OperationalError),
    ):
        while (row := observer.execute(query).fetchone()) is not None:
            kill(row[0])  # one that was just going takes nobody with it; then the next
            list(observer.notifies(timeout=1))  # until PostgreSQL ends this session as well
    again(lambda: psycopg.connect(server.url("postgres")).close(), psycopg.OperationalError)


def again(attempt: Callable[[], None], passing: type[Exception]) -> None:
    """Try until it works: for a while the processes of a killed server are still going away."""
    deadline = time.monotonic() + RESTARTS_WITHIN_S
    while True:
        try:
            return attempt()
        except passing:
            assert time.monotonic() < deadline, "PostgreSQL does not come back"
            time.sleep(0.1)


@pytest.mark.parametrize("disturb", [end_the_server, end_a_backend])
async def test_a_server_killed_at_any_moment(
    durable: Server, durable_template: str, forks: Migrators, disturb: Callable[[Server], None]
) -> None:
    await endure(
        durable,
        durable_template,
        forks,
        IN_PAIRS,
        kills=KILLS_OF_THE_SERVER,
        disturb=lambda _migrator: disturb(durable),
        end=lambda ended: ended.error == "DatabaseUnreachable",
    )


def held_still(pid: int) -> None:
    """Wait until a process has been stopped where it was to be."""
    deadline = time.monotonic() + TOLD_WITHIN_S
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "it does not come there"
        time.sleep(0.01)


async def test_a_server_that_is_gone_is_told_at_once_and_the_run_goes_on_later(
    durable: Server, durable_template: str, forks: Migrators
) -> None:
    expected, _takes_s = await undisturbed(durable, durable_template, forks, IN_PAIRS)
    with copied(durable, durable_template) as url:
        pid = forks.start(url, RUN_BEGINS, until=HALF_SAID, hit_by=signal.SIGSTOP, **IN_PAIRS)
        held_still(pid)
        os.kill(pid, signal.SIGCONT)
        os.kill(durable.postmaster(), signal.SIGKILL)
        ended = forks.wait(TOLD_WITHIN_S)
        assert ended is not None, "the error keeps us waiting"
        assert ended.error == "DatabaseUnreachable", ended.traceback or ended
        assert forks.run(url, RUN_BEGINS).error == "DatabaseUnreachable"
        start_again(durable)
        assert forks.run(url, RUN_BEGINS).succeeded
        assert await found(url) == expected
