"""Whatever comes in wrong, or at a bad moment, is refused, waited out or set aside, and said in one line."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio

from relevo import events
from relevo.db.pool import Database
from relevo.db.programs import is_root
from relevo.errors import ConfigurationError, DiskFull, LeaseHeld, RelevoError, UnknownName
from relevo.migration import overrides, quarantine, runner
from relevo.migration.mapping import DEFAULT, from_settings
from relevo.migration.preflight import blockers, structure
from relevo.migration.run import Options
from relevo.migration.steps.calls import next_size
from relevo.migration.throttle import Load, reason_to_wait
from tests.commands import relevo
from tests.conftest import OWNER, behind, change, copied, load_sample, rows, value
from tests.servers import NOBODY, Server
from tests.test_move import fingerprint, fingerprint_of_everything, move

# A mapping


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"configuration": {}}, "source knows no 'configuration'. Did you mean 'configurations'?"),
        ({"calls": []}, "source.calls is not a table"),
        ({"calls": {"tabel": "x"}}, "source.calls knows no 'tabel'. Did you mean 'table'?"),
        ({"calls": {"table": 7}}, "source.calls.table is not an SQL expression: 7"),
        ({"calls": {"table": " "}}, "source.calls.table is not an SQL expression"),
        ({"calls": {"fields": "id"}}, "source.calls.fields is not a table"),
        ({"calls": {"fields": {"latency_ms": "x"}}}, "knows no 'latency_ms'. Did you mean 'avg_latency_ms'?"),
        ({"calls": {"fields": {"id": 1}}}, "source.calls.fields.id is not"),
        ({"calls": {"fields": {"id": ""}}}, "source.calls.fields.id is not an SQL expression"),
        ({"calls": {"fields": {"id": "id; DROP TABLE x"}}}, "source.calls.fields.id is not an SQL expression"),
        ({"calls": {"fields": {"id": {"write": {}}}}}, "source.calls.fields.id says nothing of how to read it"),
        ({"calls": {"fields": {"id": {"read": "id", "rite": {}}}}}, "knows no 'rite'. Did you mean 'write' or 'read'?"),
        ({"calls": {"fields": {"id": {"read": ["id"]}}}}, "source.calls.fields.id.read is not an SQL expression"),
        ({"calls": {"fields": {"id": {"read": "id", "write": "x"}}}}, "source.calls.fields.id.write is not a table"),
        ({"calls": {"defaults": "x"}}, "source.calls.defaults is not a table"),
        ({"calls": {"defaults": {"region": 7}}}, "source.calls.defaults.region is not an SQL expression: 7"),
    ],
)
def test_a_wrong_mapping_names_its_key(source: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        from_settings(source)
    assert told in str(raised.value)
    assert raised.value.fix


async def test_what_a_platform_need_not_have_may_be_mapped_all_the_same(sampled: Database) -> None:
    mapping = from_settings({"tenants": {"fields": {"email": "lower(v1.email)"}}})
    assert blockers(await structure(sampled, mapping)) == []
    mapping = from_settings({"tenants": {"fields": {"email": "v1.no_such_column"}}})
    (blocker,) = blockers(await structure(sampled, mapping))
    assert blocker.code == "expression_fails"
    assert "source.tenants.fields.email" in blocker.message


@pytest.mark.parametrize(
    "expression", ["tenant_id +", "nothing_like_this", "(SELECT", "'not a uuid'::date", "id) FROM x --"]
)
async def test_an_expression_that_does_not_parse_is_refused_before_anything_is_written(
    sampled: Database, expression: str
) -> None:
    before = await fingerprint_of_everything(sampled)
    mapping = from_settings({"configurations": {"fields": {"business_id": expression}}})
    for dry_run in (True, False):
        with pytest.raises(RelevoError, match="business_id") as raised:
            await runner.migrate(sampled, Options(dry_run=dry_run), actor="tester", mapping=mapping)
        assert raised.value.exit_status in (2, 3)
    assert await fingerprint_of_everything(sampled) == before


# Overrides


async def some_configurations(database: Database, many: int = 2) -> list[str]:
    found = await rows(
        database,
        """SELECT c.id::text AS id FROM public.voice_agent_config c JOIN public.businesses b ON b.id = c.business_id
           WHERE b.vertical = 'restaurant' ORDER BY c.id LIMIT %s""",
        (many,),
    )
    return [row["id"] for row in found]


@pytest.mark.parametrize(
    ("decided", "told"),
    [
        ('assistant_type = "rest_complete"', "has no field 'assistant_type'. Did you mean 'assistant_type_id'?"),
        ('assistant_type_id = "rest_compleet"', "there is no 'rest_compleet'. Did you mean 'rest_complete'"),
        ("assistant_type_id = 7", "assistant_type_id: there is no 7"),
        ('enabled_capabilities = ["order"]', "there is no 'order'. Did you mean 'orders'"),
        ("enabled_capabilities = []", "is not a list of capabilities"),
        ('enabled_capabilities = "orders"', "is not a list of capabilities"),
        (f'special_instructions = "{"ñ" * 1001}"', "is not a text of at most 1,000 characters"),
        ("special_instructions = true", "is not a text of at most 1,000 characters"),
    ],
)
async def test_a_wrong_override_is_refused_before_anything_is_written(
    sampled: Database, tmp_path: Path, decided: str, told: str
) -> None:
    before = await fingerprint_of_everything(sampled)
    good, bad = await some_configurations(sampled)
    file = tmp_path / "overrides.toml"
    file.write_text(f'["{good}"]\nassistant_type_id = "rest_complete"\n["{bad}"]\n{decided}\n', encoding="utf-8")
    for dry_run in (True, False):
        with pytest.raises((UnknownName, ConfigurationError)) as raised:
            await move(sampled, overrides=file, dry_run=dry_run)
        assert told in str(raised.value)
        assert bad in str(raised.value)
    assert await fingerprint_of_everything(sampled) == before


async def test_an_override_of_nobody_is_refused(sampled: Database, tmp_path: Path) -> None:
    (good,) = await some_configurations(sampled, 1)
    file = tmp_path / "overrides.toml"
    for key in (f"{good[:-1]}g", "", "drop table", good.replace("-", "")):
        file.write_text(f'["{key}"]\nassistant_type_id = "rest_complete"\n', encoding="utf-8")
        with pytest.raises(UnknownName, match="is neither a configuration nor a tenant"):
            await move(sampled, overrides=file)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("o.toml", b"assistant_type_id = 'x'", "is not a table of overrides per id"),
        ("o.toml", b"['a']", "is not a table of overrides per id"),
        ("o.toml", b"['a'", "cannot be read"),
        ("o.toml", b"\xff\xfe", "cannot be read"),
        ("o.json", b"[]", "is not a table of overrides per id"),
        ("o.json", b'{"a": }', "cannot be read"),
        ("missing.toml", None, "cannot read"),
    ],
)
def test_a_file_that_holds_no_overrides_is_refused(tmp_path: Path, name: str, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=told):
        overrides.read(tmp_path / name)


async def test_overrides_reach_rows_already_in_v2_and_are_undone_with_their_run(
    sampled: Database, tmp_path: Path
) -> None:
    await move(sampled)
    before = await fingerprint_of_everything(sampled)
    decided, drifted = await some_configurations(sampled)
    file = tmp_path / "overrides.toml"
    file.write_text(
        f'["{decided.upper()}"]\nassistant_type_id = "dental_basic"\nenabled_capabilities = ["orders"]\n'
        'special_instructions = "Sólo con cita."\n',
        encoding="utf-8",
    )
    own = "SELECT voice_speed FROM public.voice_assistant_configs WHERE id = %s"
    speed = await value(sampled, own, (drifted,))
    await behind(sampled, "UPDATE public.voice_assistant_configs SET voice_speed = 1.5 WHERE id = %s", (drifted,))
    failed = await move(sampled, overrides=file)
    assert failed.undone
    assert any(drifted in error for error in failed.errors)
    await behind(sampled, "UPDATE public.voice_assistant_configs SET voice_speed = %s WHERE id = %s", (speed, drifted))
    after = await fingerprint_of_everything(sampled)
    assert {name for name in before if after.get(name) != before[name]} <= {
        "public.migration_backups",
        "relevo.audit_log",
        "relevo.leases",
        "relevo.run_overrides",
        "relevo.run_steps",
        "relevo.runs",
        "relevo.verifications",  # says what it found when it looked
    }
    done = await move(sampled, overrides=file)
    assert done.success, done.errors
    (row,) = await rows(
        sampled,
        """SELECT assistant_type_id, enabled_capabilities, special_instructions FROM public.voice_assistant_configs
           WHERE id = %s""",
        (decided,),
    )
    assert row == {
        "assistant_type_id": "dental_basic",
        "enabled_capabilities": ["orders"],
        "special_instructions": "Sólo con cita.",
    }
    assert (await move(sampled)).success, "and they stay"


# Two at once


async def test_a_second_migrator_is_told_who_works(sampled: Database) -> None:
    under_way = asyncio.Event()

    def sink(event: events.Event) -> None:
        if isinstance(event, events.StepStarted) and event.number == 2:
            under_way.set()

    first = asyncio.create_task(move(sampled, sink))
    await under_way.wait()
    async with Database(sampled.url) as another:
        with pytest.raises(LeaseHeld, match="is being done by"):
            await move(another)
    assert (await first).success
    assert await value(sampled, "SELECT count(*) FROM relevo.runs") == 1


# A full disk


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 32 MB."""
    if not is_root():
        pytest.skip("only root may mount a small file system to fill")
    place = Path(tempfile.mkdtemp(prefix="relevo-test-disk-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        place.rmdir()
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)
    place.rmdir()


@pytest_asyncio.fixture
async def cramped(server: Server, small_disk: Path) -> AsyncIterator[Database]:
    """A database with a small v1 on the small disk; the server's log of changes is elsewhere."""
    folder = small_disk / "tablespace"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE cramped LOCATION '{folder}'".encode())
        connection.execute(f"CREATE DATABASE cramped OWNER {OWNER} TABLESPACE cramped".encode())
    async with Database(server.url("cramped", OWNER)) as database:
        await load_sample(database, tenants=40, calls=3_000)
        yield database
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE cramped WITH (FORCE)")
        connection.execute("CHECKPOINT")
        connection.execute("DROP TABLESPACE cramped")


def fill(file: Path) -> None:
    """Take all the room there is."""
    left = os.statvfs(file.parent)
    with file.open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, left.f_bavail * left.f_frsize)


@pytest.mark.parametrize("step", [1, 3, 4], ids=["backup", "configurations", "calls"])
async def test_a_full_disk_is_named_and_what_was_done_stays(cramped: Database, small_disk: Path, step: int) -> None:
    ballast = small_disk / "ballast"

    def sink(event: events.Event) -> None:
        if isinstance(event, events.StepStarted) and event.number == step:
            fill(ballast)

    with pytest.raises(DiskFull) as raised:
        await move(cramped, sink)
    assert "free space" in raised.value.fix
    ballast.unlink()
    result = await move(cramped)
    assert result.success, result.errors
    assert await value(cramped, "SELECT count(*) FROM relevo.runs") == 1
    assert await value(cramped, "SELECT count(*) FROM public.migration_backups") == 1


# The quarantine


async def test_what_is_retried_unchanged_stays_with_its_reason_and_goes_once_mended(sampled: Database) -> None:
    await move(sampled)
    before = await fingerprint(sampled)
    waiting = await quarantine.listed(sampled, DEFAULT)
    assert {each.reason for each in waiting} == {"no_vertical", "no_business", "unknown_business"}
    answered = await asyncio.to_thread(relevo, "quarantine", "retry", url=sampled.url)
    assert answered.status == 1
    assert answered.data["migrated_configs"] == 0
    assert await quarantine.listed(sampled, DEFAULT) == waiting
    assert await fingerprint(sampled) == before

    mended = await behind(sampled, "UPDATE public.businesses SET vertical = 'dental' WHERE vertical IS NULL")
    result = await quarantine.retry(sampled, DEFAULT, actor="tester")
    assert result is not None
    assert result.success
    assert result.migrated_configs == sum(each.reason == "no_vertical" for each in waiting) >= mended > 0
    left = await quarantine.listed(sampled, DEFAULT)
    assert left == [each for each in waiting if each.reason != "no_vertical"]

    await change(
        sampled,
        "DELETE FROM public.voice_agent_config WHERE id = ANY (%s)",
        ([UUID(each.config_id) for each in left],),
    )
    assert await quarantine.retry(sampled, DEFAULT, actor="tester") is None, "what v1 no longer has is not waited for"
    assert await quarantine.listed(sampled, DEFAULT) == []


# Others are at work too

LONGEST_S = 30  # a run that still waits then, waits for ever


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (Load(0, 0.0), None),
        (Load(0, 10.0), None),
        (Load(1, 0.0), "1 sessions wait for locks"),
        (Load(3, 99.0), "3 sessions wait for locks"),
        (Load(0, 10.6), "a replica is 11 s behind"),
    ],
)
def test_batches_wait_for_others(load: Load, told: str | None) -> None:
    assert reason_to_wait(load) == told


@pytest.mark.parametrize(
    ("pages", "took_s", "following"),
    [
        (64, 0.4, 64),
        (64, 0.2, 128),
        (64, 0.001, 128),
        (64, 0.0, 128),
        (64, 0.8, 32),
        (64, 60.0, 1),
        (1, 60.0, 1),
        (1, 0.3, 1),
        (16_384, 0.1, 16_384),
        (12_000, 0.1, 16_384),
    ],
)
def test_batches_of_calls_take_about_as_long_as_they_should(pages: int, took_s: float, following: int) -> None:
    assert next_size(pages, took_s) == following


async def test_a_run_gives_way_to_whoever_waits_for_a_lock(sampled: Database) -> None:
    await change(sampled, "CREATE TABLE public.orders (id int)")
    heard: list[str] = []
    async with await psycopg.AsyncConnection.connect(sampled.url) as holder:
        await holder.execute("LOCK TABLE public.orders")
        waiter = await psycopg.AsyncConnection.connect(sampled.url)
        waiting = asyncio.create_task(waiter.execute("SELECT FROM public.orders"))
        while not await value(sampled, "SELECT count(*) FROM pg_locks WHERE NOT granted"):
            pass
        freed: list[asyncio.Task[None]] = []

        def sink(event: events.Event) -> None:
            if isinstance(event, events.Note) and "giving way" in event.text:
                heard.append(event.text)
                freed.append(asyncio.get_running_loop().create_task(holder.rollback()))

        result = await asyncio.wait_for(move(sampled, sink), LONGEST_S)
        await asyncio.wait_for(waiting, LONGEST_S)
        await waiter.close()
    assert result.success
    assert heard == ["giving way: 1 sessions wait for locks"]


ADD_COLUMNS = "ALTER TABLE public.voice_calls ADD outcome text, ADD agent_version text"
A_CONFIGURATION = "SELECT FROM public.voice_agent_config ORDER BY id DESC LIMIT 1 FOR UPDATE"
A_CALL = "SELECT FROM public.voice_calls LIMIT 1 FOR UPDATE"


@pytest.mark.parametrize(
    ("before", "step", "lock", "told"),
    [
        ("SELECT", 3, A_CONFIGURATION, "configurations are locked by others: trying again"),
        ("SELECT", 4, "LOCK TABLE public.voice_calls", "public.voice_calls is locked by others: trying again"),
        ("SELECT", 4, A_CALL, "public.voice_calls is locked by others: trying again"),
        (ADD_COLUMNS, 4, A_CALL, "calls are locked by others: trying again"),
    ],
    ids=["a configuration", "all calls", "a call while columns are added", "a call"],
)
async def test_a_lock_that_others_hold_is_waited_for_in_short_tries(
    sampled: Database, before: str, step: int, lock: str, told: str
) -> None:
    await change(sampled, before)
    heard: list[str] = []
    with psycopg.connect(sampled.url) as other:

        def sink(event: events.Event) -> None:
            if isinstance(event, events.StepStarted) and event.number == step:
                other.execute(lock.encode())
            if isinstance(event, events.Note) and "locked by others" in event.text:
                heard.append(event.text)
                other.rollback()

        result = await asyncio.wait_for(move(sampled, sink), LONGEST_S)
    assert heard == [told]
    assert result.success
    assert await value(sampled, "SELECT count(*) FROM public.voice_calls WHERE outcome IS NULL") == 0


# Workers


async def test_the_number_of_workers_changes_nothing_but_the_time(server: Server, template: str) -> None:
    async def moved(*attempts: dict[str, Any]) -> dict[str, str]:
        with copied(server, template) as url:
            async with Database(url) as database:
                *interrupted, last = attempts
                for attempt in interrupted:
                    await stop_in_the_middle(database, **attempt)
                result = await move(database, **last)
                assert result.success, result.errors
                assert result.migrated_configs == await value(
                    database, "SELECT count(*) FROM public.voice_assistant_configs"
                )
                return await fingerprint(database)

    alone = await moved({"workers": 1})
    assert await moved({"workers": 2, "batch_size": 7}) == alone
    assert await moved({"workers": 3, "batch_size": 1}) == alone
    assert await moved({"workers": 2, "batch_size": 3}, {"workers": 3}) == alone
    assert await moved({"workers": 3, "batch_size": 3}, {"workers": 1}, {"workers": 1}) == alone


async def stop_in_the_middle(database: Database, **options: Any) -> None:
    """Stop once a few configurations are moved, and more are left."""

    class Stop(Exception):
        pass

    def sink(event: events.Event) -> None:
        match event:
            case events.Progress(done=done, total=total, unit="configurations") if total and 8 < done < total:
                raise Stop

    with pytest.raises(Stop):
        await move(database, sink, **options)
