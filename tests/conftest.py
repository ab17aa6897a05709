"""What the tests stand on: real servers, and a database of its own for each test."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from relevo.db import migrations
from relevo.db.pool import Database
from relevo.migration import runner
from relevo.migration.run import Options
from relevo.simulator import sample
from tests.servers import DURABLE, Server, programs_of, running

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
OWNER = "relevo_owner"  # no superuser: Relevo never needs one

# How long it takes to think of an example tells of the machine, which others use too, and not of what is tested.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

# What a shell starts in the background does not hear Ctrl-C, nor does what is started from there; what we start must.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count()

# Files whose single tests take longest. They begin first, so that no worker is left alone with one at the end.
LONG = (
    "test_rehearsal.py",
    "test_rollout_walk.py",
    "test_mirror_property.py",
    "test_rollout_gate.py",
    "test_kills.py",
    "test_move.py",
    "test_dashboard_axe.py",
    "test_webhook_chaos.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first; the others stay as they are."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session", params=[18, 15], ids=["pg18", "pg15"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """PostgreSQL 18 as packaged, and Debian's 15 where it is installed."""
    programs = programs_of(request.param)
    if programs is None:
        pytest.skip(f"PostgreSQL {request.param} is not installed: apt-get install postgresql-{request.param}")
    with running(request.param, programs) as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {OWNER} LOGIN CREATEROLE".encode())
        yield server


@contextmanager
def durable_server(*databases: str) -> Iterator[Server]:
    """A server of one's own that keeps what it has committed, to be killed; with empty databases of these names."""
    programs = programs_of(18)
    assert programs is not None
    with running(18, programs, *DURABLE) as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {OWNER} LOGIN CREATEROLE".encode())
            for name in databases:
                connection.execute(f"CREATE DATABASE {name} OWNER {OWNER}".encode())
        yield server


@contextmanager
def made(server: Server, name: str, of: str = "") -> Iterator[str]:
    """The connection string of a new database for the length of the block. ``of``: the clause that says of what."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER {OWNER} {of}".encode())
    yield server.url(name, OWNER)
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def beside_the_loop(work: Coroutine[Any, Any, None]) -> None:
    """Do it to its end, whether or not a loop of the tests runs here."""
    with ThreadPoolExecutor() as beside:
        beside.submit(asyncio.run, work).result()


@pytest.fixture(scope="session")
def blank(server: Server) -> Iterator[str]:
    """The name of a database with Relevo's schema and nothing else: copying it takes a tenth of applying the schema."""

    async def apply() -> None:
        async with Database(url) as opened:
            await migrations.up(opened)

    with made(server, "blank_of_tests") as url:
        beside_the_loop(apply())
        yield "blank_of_tests"


@pytest.fixture
def database_url(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database, owned by a role that is no superuser; for a test that wants it ``ready``, with the schema."""
    name = f"test_{next(_numbers)}"
    of = f"TEMPLATE {request.getfixturevalue('blank')} STRATEGY file_copy" if "ready" in request.fixturenames else ""
    with made(server, name, of) as url:
        yield url


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The same database through Relevo's pool."""
    async with Database(database_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def ready(database: Database) -> Database:
    """A database with Relevo's schema and no v1 table."""
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)
    return database


@pytest_asyncio.fixture(scope="session")
async def template(server: Server) -> AsyncIterator[str]:
    """The name of a database with Relevo's schema and a small v1, to which nobody is connected: for copies."""
    with made(server, "template_of_tests") as url:
        async with Database(url) as opened:
            await migrations.up(opened)
            await load_sample(opened)
        yield "template_of_tests"


@contextmanager
def copied(server: Server, template: str) -> Iterator[str]:
    """The connection string of a copy of a database, gone at the end of the block."""
    with made(server, f"copy_{next(_numbers)}", f"TEMPLATE {template} STRATEGY file_copy") as url:
        yield url


@pytest_asyncio.fixture
async def sampled(server: Server, template: str) -> AsyncIterator[Database]:
    """A database with Relevo's schema and a small v1, broken rows included."""
    with copied(server, template) as url:
        async with Database(url) as opened:
            yield opened


@pytest_asyncio.fixture(scope="session")
async def moved_template(server: Server, template: str) -> AsyncIterator[str]:
    """The name of the same database after its move, dual write on, to which nobody is connected: for copies."""
    with made(server, "moved_of_tests", f"TEMPLATE {template}") as url:
        async with Database(url) as opened:
            assert (await runner.migrate(opened, Options(), actor="tester", clock=lambda: NOW)).success
        yield "moved_of_tests"


@pytest_asyncio.fixture
async def mirrored(server: Server, moved_template: str) -> AsyncIterator[Database]:
    """A small v1 that was moved, dual write on."""
    with copied(server, moved_template) as url:
        async with Database(url) as opened:
            yield opened


async def load_sample(database: Database, *, tenants: int = 40, calls: int = 3_000) -> sample.SampleSummary:
    """Fill v1; the same every time."""
    async with database.transaction() as connection:
        return await sample.load(connection, tenants=tenants, calls=calls, seed=7, now=NOW)


async def rows(database: Database, query: str, params: Any = None) -> list[dict[str, Any]]:
    """All rows of a query, for looking at what is there."""
    async with database.transaction() as connection:
        return await (await connection.execute(query.encode(), params)).fetchall()


async def value(database: Database, query: str, params: Any = None) -> Any:
    """The single value of a query."""
    (row,) = await rows(database, query, params)
    (only,) = row.values()
    return only


async def change(database: Database, statement: str, params: Any = None) -> int:
    """Run a statement that writes; returns how many rows it touched."""
    async with database.transaction() as connection:
        return (await connection.execute(statement.encode(), params)).rowcount


async def behind(database: Database, statement: str, params: Any = None) -> int:
    """The same behind the mirror's back: one side is written alone."""
    async with database.transaction() as connection:
        await connection.execute("SELECT set_config('relevo.mirror', 'off', true)")
        return (await connection.execute(statement.encode(), params)).rowcount
