"""The flag in an application: always fresh, answering through every outage, changed by atomic statements."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import psycopg
import pytest

from relevo import Flags
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.errors import (
    ConfigurationError,
    DatabaseRefused,
    SchemaMissing,
    UnknownName,
    UnverifiedTenants,
    UsageError,
)
from relevo.flags import reader
from relevo.flags.evaluate import evaluate
from relevo.flags.store import Change, State
from tests.conftest import OWNER, change, rows
from tests.flags import audited, row, settle, version, write
from tests.poolers import PGBOUNCER, pooling
from tests.servers import Server, running
from tests.silence import relay

PATIENCE_S = 30
ON_RECORD = "SELECT version, mode, count(*)::int AS processes FROM relevo.flag_readers GROUP BY version, mode"


@pytest.fixture
def flags(ready: Database) -> Flags:
    """For writing."""
    return Flags(ready)


@pytest.fixture
def own_server(server: Server) -> Iterator[Server]:
    """A server of the same version that nobody else uses: to be stopped."""
    with running(server.version, server.programs) as alone:
        with psycopg.connect(alone.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {OWNER} LOGIN".encode())
            connection.execute(f"CREATE DATABASE app OWNER {OWNER}".encode())
        yield alone


async def until(flags: Flags, holds: Callable[[State], bool]) -> State:
    """The first state for which something holds."""
    async with asyncio.timeout(PATIENCE_S):
        async for state in flags.changes():
            if holds(state):
                return state
    raise AssertionError


# Reading ---------------------------------------------------------------------------------------------------------


async def test_a_change_reaches_a_reader_without_its_asking(ready: Database) -> None:
    async with Flags(ready) as flags:
        assert (flags.state.ready, flags.state.mode, flags.state.why) == (True, "listen", None)
        assert not flags.should_use_v2("a")
        await write(ready, "enabled = true, enabled_tenants = '{a}'")
        changed = await until(flags, lambda state: state.version == 2)
        assert changed.stale_since is None
        assert flags.should_use_v2("a")
        assert flags.evaluate("a").flag_version == flags.flag.version == 2


async def test_eight_processes_answer_by_a_change(ready: Database, database_url: str) -> None:
    async with _processes(8, database_url) as processes:
        for process in processes:
            assert await _line(process) == "1 v1 listen"
        await write(ready, "enabled = true, percentage = 100")
        for process in processes:
            assert await _line(process) == "2 v2 listen"
        async with asyncio.timeout(PATIENCE_S):
            while await rows(ready, ON_RECORD) != [{"version": 2, "mode": "listen", "processes": 8}]:
                pass


@asynccontextmanager
async def _processes(count: int, url: str) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    command = [sys.executable, "-m", "tests.flag_reader", url, "somebody"]
    started = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            await process.wait()


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        return (await process.stdout.readline()).decode().strip()


async def test_a_reader_is_on_record_while_it_reads(ready: Database) -> None:
    async with Flags(ready) as flags:
        await write(ready, "percentage = 1")
        await until(flags, lambda state: state.version == 2)
        async with asyncio.timeout(PATIENCE_S):
            found = await rows(ready, "SELECT * FROM relevo.flag_readers")
            while found[0]["version"] != 2:
                found = await rows(ready, "SELECT * FROM relevo.flag_readers")
        assert found[0]["heartbeat_at"] >= found[0]["applied_at"]
    assert await rows(ready, "SELECT * FROM relevo.flag_readers") == []


async def test_what_a_broken_connection_missed_is_read_when_it_is_back(ready: Database) -> None:
    async with Flags(ready) as flags:
        async with ready.transaction() as connection:
            await connection.execute(
                """SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
                   WHERE application_name = 'relevo flags' AND datname = current_database()"""
            )
            await connection.execute("UPDATE public.feature_flags SET percentage = 7")
        assert (await until(flags, lambda state: state.version == 2)).stale_since is None
        assert flags.flag.percentage == 7


async def test_a_row_written_behind_the_triggers_back_is_read_all_the_same(
    ready: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LOOK_EVERY_S", 0.05)
    async with Flags(ready) as flags:
        await change(ready, "ALTER TABLE public.feature_flags DISABLE TRIGGER USER")
        await write(ready, "enabled = true, enabled_tenants = '{a}'")
        await until(flags, lambda _state: flags.should_use_v2("a"))


async def test_a_stopped_server_changes_nobodys_answer_and_recovery_needs_no_restart(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("LOOK_EVERY_S", "ANSWERS_WITHIN_S", "AGAIN_AFTER_S"):
        monkeypatch.setattr(reader, pause, 0.3)
    url = own_server.url("app", OWNER)
    async with Database(url) as database:
        await migrations.up(database)
        await write(database, "enabled = true, enabled_tenants = '{a}'")
    async with Flags(url) as flags:
        assert flags.should_use_v2("a")
        _freeze(own_server, signal.SIGSTOP)
        stale = await until(flags, lambda state: state.stale_since is not None)
        assert (stale.ready, stale.version) == (True, 2)
        assert flags.should_use_v2("a")
        _freeze(own_server, signal.SIGCONT)
        await until(flags, lambda state: state.stale_since is None)
        options = _stop(own_server)
        await until(flags, lambda state: state.stale_since is not None)
        assert flags.should_use_v2("a")
        own_server.control("-o", options, "start")
        async with Database(url) as database:
            await write(database, "enabled = false")
        assert (await until(flags, lambda state: state.version == 3)).stale_since is None
        assert not flags.should_use_v2("a")


def _stop(server: Server) -> str:
    """Stop it; returns the options to start it with again."""
    words = shlex.split((server.data / "postmaster.opts").read_text())[1:]
    server.control("-m", "fast", "stop")
    return shlex.join(words)


def _freeze(server: Server, how: signal.Signals) -> None:
    """The server with all its processes, as a machine that hangs."""
    children = subprocess.run(["pgrep", "-P", str(server.postmaster())], capture_output=True, text=True).stdout
    for pid in (server.postmaster(), *map(int, children.split())):
        os.kill(pid, how)


async def test_without_a_database_everybody_is_on_v1_until_there_is_one(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "AGAIN_AFTER_S", 0.1)
    url = own_server.url("app", OWNER)
    async with Database(url) as database:
        await migrations.up(database)
        await write(database, "enabled = true, percentage = 100")
    options = _stop(own_server)
    async with Flags(url) as flags:
        assert not flags.state.ready
        assert flags.evaluate("a")[1:4] == (False, "v1", "DEFAULT")
        own_server.control("-o", options, "start")
        await until(flags, lambda state: state.ready)
        assert flags.should_use_v2("a")


@pytest.mark.skipif(not PGBOUNCER.exists(), reason="pgbouncer is not installed: apt-get install pgbouncer")
async def test_behind_a_transaction_pooler_a_reader_polls_and_says_so(
    server: Server, ready: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "POLL_EVERY_S", 0.05)
    with pooling(server, OWNER) as port:
        pooled = database_url.replace(f":{server.port}/", f":{port}/")
        async with Flags(pooled) as flags:
            assert flags.state.mode == "poll"
            assert "RELEVO_DIRECT_URL" in str(flags.state.why)
            await write(ready, "enabled = true, percentage = 100")
            await until(flags, lambda state: state.version == 2)
            assert flags.should_use_v2("a")
            assert (await flags.off(actor="me")).flag.version == 3
        async with Flags(pooled, direct_url=database_url) as flags:
            assert (flags.state.mode, flags.state.why) == ("listen", None)
        async with Flags(pooled, direct_url="postgresql://nobody@127.0.0.1:1/x") as flags:
            assert flags.state.mode == "poll"
            assert "direct connection fails" in str(flags.state.why)
        async with Flags(pooled, direct_url=server.url("postgres")) as flags:
            assert flags.state.mode == "poll"
            assert "another database" in str(flags.state.why)


async def test_the_flag_is_followed_while_the_direct_connection_is_silent(
    server: Server, ready: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("POLL_EVERY_S", "FOUND_WITHIN_S", "DIRECT_AGAIN_AFTER_S"):
        monkeypatch.setattr(reader, pause, 0.05)
    async with relay(server.port) as wire:
        wire.silent = True
        direct = database_url.replace(f":{server.port}/", f":{wire.port}/")
        async with Flags(database_url, direct_url=direct) as flags:
            for written in (2, 3):  # at the start, and each time that it is tried again
                await wire.arrived.wait()
                wire.arrived.clear()
                given_up = wire.closed
                await write(ready, f"percentage = {written}")
                state = await until(flags, partial(_is_of, written))
                assert (state.mode, state.stale_since, wire.closed) == ("poll", None, given_up)
                wire.cut()
            wire.silent = False
            wire.cut()
            assert (await until(flags, lambda state: state.mode == "listen")).why is None


def _is_of(version: int, state: State) -> bool:
    return state.version == version


@pytest.mark.skipif(not PGBOUNCER.exists(), reason="pgbouncer is not installed: apt-get install pgbouncer")
async def test_a_busy_pooler_that_passes_for_a_session_gives_itself_away(
    server: Server, ready: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def misjudged(_database: Database) -> str:
        return "session"

    monkeypatch.setattr(Database, "pooling", misjudged)
    monkeypatch.setattr(reader, "LOOK_EVERY_S", 0.05)
    with pooling(server, OWNER) as port:
        pooled = database_url.replace(f":{server.port}/", f":{port}/")
        async with Flags(pooled) as flags, AsyncExitStack() as busy:
            assert flags.state.mode == "listen"
            taken = False
            while not taken:  # the server connection that listens, which may be looking at this very moment
                other = await busy.enter_async_context(await psycopg.AsyncConnection.connect(pooled))
                taken = bool(await (await other.execute("SELECT pg_listening_channels()")).fetchall())
            assert "RELEVO_DIRECT_URL" in str((await until(flags, lambda state: state.mode == "poll")).why)
    assert await version(ready) == 1


async def test_a_role_that_sees_no_row_is_told_so_at_the_start(
    server: Server, ready: Database, database_url: str
) -> None:
    name = database_url.rsplit("/", 1)[1]
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        connection.execute("DO $$ BEGIN CREATE ROLE blind LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
        connection.execute("GRANT SELECT ON public.feature_flags TO blind")
    with pytest.raises(UnknownName, match="row-level security hides it"):
        await Flags(server.url(name, "blind")).__aenter__()
    assert await version(ready) == 1


async def test_a_role_that_may_not_enter_our_schema_reads_without_being_on_record(
    server: Server, ready: Database, database_url: str
) -> None:
    name = database_url.rsplit("/", 1)[1]
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        connection.execute("DO $$ BEGIN CREATE ROLE app LOGIN BYPASSRLS; EXCEPTION WHEN duplicate_object THEN END $$")
        connection.execute("GRANT SELECT ON public.feature_flags TO app")
    async with Flags(server.url(name, "app")) as flags:
        await write(ready, "percentage = 3")
        await until(flags, lambda state: state.version == 2)
        assert flags.state.stale_since is None
    assert await rows(ready, "SELECT * FROM relevo.flag_readers") == []


async def test_faults_that_waiting_does_not_mend_are_raised(database_url: str, server: Server) -> None:
    with pytest.raises(SchemaMissing, match="lacks part of Relevo's schema") as missing:
        await Flags(database_url).__aenter__()
    assert (missing.value.exit_status, missing.value.fix) == (3, "run: relevo db up")
    with pytest.raises(DatabaseRefused):
        await Flags(server.url("no_such_database")).__aenter__()
    with pytest.raises(ConfigurationError):
        Flags()


async def test_a_listener_that_fails_stops_nobody(ready: Database) -> None:
    heard: list[int] = []

    def broken(_state: State) -> None:
        raise RuntimeError

    async with Flags(ready) as flags:
        flags.subscribe(broken)
        end = flags.subscribe(lambda state: heard.append(state.version))
        await write(ready, "percentage = 1")
        await until(flags, lambda state: state.version == 2)
        end()
        await write(ready, "percentage = 2")
        await until(flags, lambda state: state.version == 3)
    assert heard == [2]


# Writing ---------------------------------------------------------------------------------------------------------


async def test_a_hundred_calls_at_once_lose_none(ready: Database) -> None:
    tenants = await settle(ready, verified=50, unverified=0)
    flags = Flags(ready)
    async with asyncio.TaskGroup() as group:
        for number, tenant in enumerate(tenants.verified):
            group.create_task(flags.enable([tenant], actor=f"actor {number}"))
        for number in range(50):
            group.create_task(flags.set_percentage(number, actor="somebody"))
    found = await row(ready)
    assert sorted(found["enabled_tenants"]) == sorted(tenants.verified)
    told = [each["details"] for each in await audited(ready)]
    assert [each["version"] for each in told] == list(range(2, found["version"] + 1))
    assert sorted(each["enabled_tenants"]["added"][0] for each in told if "enabled_tenants" in each) == sorted(
        tenants.verified
    )


async def test_enabling_and_disabling_move_a_tenant_between_the_lists(ready: Database, flags: Flags) -> None:
    tenants = await settle(ready, verified=2, unverified=0)
    one, other = tenants.verified
    enabled = await flags.enable([one, other, one], actor="ana", reason="canary")
    assert enabled.flag.enabled_tenants == {one, other}
    disabled = await flags.disable([one], actor="ana")
    assert lists(disabled) == ({other}, {one})
    back = await flags.enable([one], actor="ana")
    assert lists(back) == ({one, other}, set())
    assert (back.before, back.flag.version) == (disabled.flag, 4)
    first, *_ = await audited(ready)
    assert (first["actor"], first["reason"]) == ("ana", "canary")


def lists(change: Change) -> tuple[set[str], set[str]]:
    """Who is enabled and who disabled after a change."""
    return set(change.flag.enabled_tenants), set(change.flag.disabled_tenants)


async def test_an_unverified_tenant_is_refused_and_nobody_is_enabled(ready: Database, flags: Flags) -> None:
    tenants = await settle(ready, verified=1, unverified=1)
    with pytest.raises(UnverifiedTenants, match=f"{tenants.unverified[0]} its configuration is not on v2 yet"):
        await flags.enable([*tenants.verified, *tenants.unverified], actor="ana")
    assert (await flags.get()).enabled_tenants == frozenset()
    forced = await flags.enable(tenants.unverified, actor="ana", force=True)
    assert [each.tenant_id for each in forced.unverified] == tenants.unverified
    (told,) = await audited(ready)
    assert told["details"]["forced"] is True


async def test_a_percentage_leaves_the_unverified_on_v1_and_names_them(ready: Database, flags: Flags) -> None:
    tenants = await settle(ready, verified=3, unverified=4)
    await flags.enable(tenants.unverified[:1], actor="ana", force=True)
    changed = await flags.set_percentage(100, actor="ana")
    assert [each.tenant_id for each in changed.unverified] == sorted(tenants.unverified[1:])
    assert lists(changed) == (set(tenants.unverified[:1]), set(tenants.unverified[1:]))
    await flags.on(actor="ana")
    on_v2 = {each for each in (*tenants.verified, *tenants.unverified) if evaluate(await flags.get(), each).value}
    assert on_v2 == {*tenants.verified, *tenants.unverified[:1]}


async def test_a_percentage_written_by_old_code_puts_nobody_unverified_on_v2(ready: Database) -> None:
    """The seed's own call knows nothing of verification."""
    tenants = await settle(ready, verified=2, unverified=2)
    await write(ready, "enabled = true, percentage = 100")
    assert set((await row(ready))["disabled_tenants"]) == set(tenants.unverified)


async def test_turning_on_checks_what_becomes_unverified_while_it_was_off(ready: Database, flags: Flags) -> None:
    tenants = await settle(ready, verified=2, unverified=0)
    await flags.set_percentage(100, actor="ana")
    await change(ready, "UPDATE relevo.verifications SET state = 'drifted'")
    turned = await flags.on(actor="ana")
    assert {each.tenant_id for each in turned.unverified} == set(tenants.verified)


async def test_a_percentage_that_falls_asks_nothing(ready: Database, flags: Flags) -> None:
    """Going back must work when v1 cannot be read."""
    await settle(ready, verified=2, unverified=2)
    await write(ready, "enabled = true, percentage = 60")
    await change(ready, "DROP FUNCTION relevo.unverified_tenants CASCADE")
    assert (await flags.set_percentage(0, actor="ana")).flag.percentage == 0
    assert (await flags.off(actor="ana")).flag.enabled is False


async def test_a_tenant_that_exists_nowhere_is_an_error_with_the_nearest(ready: Database, flags: Flags) -> None:
    (tenant,) = (await settle(ready, verified=1, unverified=0)).verified
    misspelt = tenant[:-1] + ("0" if tenant[-1] != "0" else "1")
    for call in (flags.enable, flags.disable):
        with pytest.raises(UnknownName, match=f"Did you mean {tenant}"):
            await call([tenant, misspelt], actor="ana")
    with pytest.raises(UnknownName, match=f"Did you mean {tenant}"):
        await flags.disable(["negocio 0"], actor="ana")
    assert await version(ready) == 1


async def test_a_listed_tenant_can_always_be_disabled(ready: Database, flags: Flags) -> None:
    await settle(ready, verified=1, unverified=0)
    await write(ready, "enabled_tenants = '{gone}'")
    assert (await flags.disable(["gone"], actor="ana")).flag.disabled_tenants == {"gone"}


async def test_where_no_tenant_is_known_a_disable_is_taken_at_its_word(flags: Flags) -> None:
    assert (await flags.disable(["somebody"], actor="ana")).flag.disabled_tenants == {"somebody"}


@pytest.mark.parametrize("percentage", [-1, 101, 12.5, "abc", True, None])
async def test_what_is_no_percentage_changes_nothing(ready: Database, flags: Flags, percentage: Any) -> None:
    with pytest.raises(UsageError, match="whole number from 0 to 100"):
        await flags.set_percentage(percentage, actor="ana")
    assert await version(ready) == 1


@pytest.mark.parametrize("tenants", [[], [""], ["x" * 1001], ["a\0b"]])
async def test_what_is_no_tenant_changes_nothing(ready: Database, flags: Flags, tenants: list[str]) -> None:
    with pytest.raises(UsageError):
        await flags.disable(tenants, actor="ana")
    with pytest.raises(UsageError):
        await flags.disable(["a"], actor=" ")
    assert await version(ready) == 1


async def test_a_connection_string_is_enough_to_write(database_url: str, ready: Database) -> None:
    turned = await Flags(database_url).on(actor="ana")
    assert (turned.before.enabled, turned.flag.enabled, await version(ready)) == (False, True, 2)
