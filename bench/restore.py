"""A backup and a restore of many calls, beside pg_dump and pg_restore of the same tables."""

from __future__ import annotations

import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

import psycopg

from bench.figures import Figure, in_turn
from bench.place import BUSINESSES, Place
from relevo import events
from relevo.clock import system_clock
from relevo.db.pool import Database
from relevo.migration.mapping import DEFAULT
from relevo.migration.steps import backup
from relevo.migration.steps.backup import Backup
from relevo.rollback import data

_TABLES = ("public.voice_agent_config", "public.voice_calls")
_LOST = "DELETE FROM voice_calls"
_EDITED = "UPDATE voice_calls SET status = 'lost' WHERE hashtext(id::text) % 100 = 0"  # of a hundred one
_EMPTY = "TRUNCATE voice_agent_config, voice_calls"


async def compare(place: Place, calls: int, rounds: int) -> list[Figure]:
    """Seconds of a backup and of two restores: of all calls, and of one in a hundred."""
    async with place.v1(BUSINESSES, calls) as v1:
        took = await in_turn(
            rounds,
            {
                "backup": partial(_backup_s, place, v1),
                "dump": partial(_dump_s, place, v1),
                "all": partial(_restore_s, place, v1, _LOST),
                "few": partial(_restore_s, place, v1, _EDITED),
                "load": partial(_load_s, place, v1),
            },
        )
    load = "pg_restore into empty tables"
    return [
        Figure(f"backup of {calls:,} calls, read back", took["backup"], "pg_dump", took["dump"], "s"),
        Figure(f"restore of {calls:,} lost calls", took["all"], load, took["load"], "s"),
        Figure(f"restore of {calls // 100:,} edited calls of {calls:,}", took["few"], load, took["load"], "s"),
    ]


async def _taken(database: Database) -> Backup:
    return await backup.create(
        database, DEFAULT, tenant_ids=None, clock=system_clock, emit=events.silent, actor="bench", reason=None
    )


async def _backup_s(place: Place, v1: str) -> float:
    with place.clone(v1) as name:
        async with Database(place.url(name)) as database:
            began_s = time.perf_counter()
            await _taken(database)
            return time.perf_counter() - began_s


async def _restore_s(place: Place, v1: str, damage: str) -> float:
    """The present is backed up within, and the result compared with the backup."""
    with place.clone(v1) as name:
        async with Database(place.url(name)) as database:
            made = await _taken(database)
            _run(place, name, damage)
            place.settle(name)
            began_s = time.perf_counter()
            await data.run(database, DEFAULT, data.Request(made, "bench"))
            return time.perf_counter() - began_s


async def _dump_s(place: Place, v1: str) -> float:
    with place.clone(v1) as name, tempfile.TemporaryDirectory(prefix="relevo-bench-dump-") as folder:
        return _dumped_s(place, name, Path(folder) / "dump")


async def _load_s(place: Place, v1: str) -> float:
    with place.clone(v1) as name, tempfile.TemporaryDirectory(prefix="relevo-bench-dump-") as folder:
        file = Path(folder) / "dump"
        _dumped_s(place, name, file)
        _run(place, name, _EMPTY)
        place.settle(name)
        began_s = time.perf_counter()
        _program(place, "pg_restore", "--data-only", "--single-transaction", "--dbname", place.local(name), file)
        return time.perf_counter() - began_s


def _dumped_s(place: Place, name: str, file: Path) -> float:
    tables = [word for table in _TABLES for word in ("--table", table)]
    began_s = time.perf_counter()
    # Not compressed, as a copy within the database is not: the disk is paid for, no processor time.
    _program(place, "pg_dump", "--format=custom", "--compress=0", *tables, "--file", file, place.local(name))
    return time.perf_counter() - began_s


def _run(place: Place, name: str, query: str) -> None:
    with psycopg.connect(place.local(name), autocommit=True) as connection:
        connection.execute(query.encode())


def _program(place: Place, program: str, *words: object) -> None:
    subprocess.run([str(place.server.programs / program), *map(str, words)], check=True, stderr=subprocess.DEVNULL)
