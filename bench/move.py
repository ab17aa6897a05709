"""Configurations per second, beside the ways in which one could do it by hand."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import psycopg

from bench.figures import Figure, in_turn
from bench.place import Place
from bench.steps import measured
from relevo.migration.run import Options

STEP = "Configurations"
STRETCH = 20_000  # rows per second and core
ROW_BY_ROW = 3_000  # rows: more would only take longer

# Tables of the same shape, indexes and references as the real ones, which hold what the move has made.
_PLAIN = """
    CREATE TABLE plain_configs (LIKE voice_assistant_configs INCLUDING ALL,
                                FOREIGN KEY (assistant_type_id) REFERENCES voice_assistant_types);
    CREATE TABLE plain_origins (LIKE relevo.config_origins INCLUDING ALL)
"""
_INSERT_SELECT = """
    INSERT INTO plain_configs SELECT * FROM voice_assistant_configs;
    INSERT INTO plain_origins SELECT * FROM relevo.config_origins
"""
_V1 = """
    SELECT id, business_id, vapi_assistant_id, phone_number_id, voice_id, is_active, created_at, updated_at,
           system_prompt
    FROM voice_agent_config
"""
_COPY_CONFIGS = """
    COPY plain_configs (id, business_id, vapi_assistant_id, phone_number_id, voice_id, is_active, created_at,
                        updated_at, assistant_type_id, enabled_capabilities, migrated_from_v1, migrated_at,
                        original_prompt_hash) FROM STDIN
"""
_COPY_ORIGINS = "COPY plain_origins (config_id, run_id, rule_version, prompt, provenance, review) FROM STDIN"
_NOBODY = "00000000-0000-0000-0000-000000000000"


async def compare(place: Place, rows: int, rounds: int) -> list[Figure]:
    """Rows per second of the configurations step, and of everything it is compared with."""
    async with place.v1(rows) as v1, _made(place, v1) as made:
        moved = partial(_moved, place, v1)
        contestants = {
            "100": partial(moved, 100),
            "row by row": partial(_row_by_row, place, made, min(rows, ROW_BY_ROW)),
            "1,000": partial(moved, 1_000),
            "insert select": partial(_insert_select, place, made),
            "two workers": partial(moved, 100, workers=2),
            "python": partial(_through_python, place, made),
        }
        least = await in_turn(rounds, contestants)
    rate = {name: rows / seconds for name, seconds in least.items()}
    rate["row by row"] = min(rows, ROW_BY_ROW) / least["row by row"]
    figures = []
    for size in ("100", "1,000"):
        figure = partial(Figure, f"configurations, batches of {size}", rate[size], unit="rows/s")
        figures += [
            figure("an INSERT per row, autocommit", rate["row by row"], least=10),
            figure("the stretch goal, per core", STRETCH, least=1),
            figure("INSERT … SELECT of ready rows", rate["insert select"]),
            figure("a Python loop and COPY", rate["python"]),
        ]
    figures.append(
        Figure("two workers, batches of 100", rate["two workers"], "one worker", rate["100"], "rows/s", least=1.7)
    )
    return figures


async def _moved(place: Place, v1: str, batch_size: int, workers: int = 1) -> float:
    """Seconds of the step on a fresh copy of v1."""
    options = Options(skip_backup=True, batch_size=batch_size, workers=workers)
    with place.clone(v1) as database:
        watch = await measured(place.url(database), options, until=STEP)
    return watch.took_s[STEP]


@asynccontextmanager
async def _made(place: Place, v1: str) -> AsyncIterator[str]:
    """A database that was moved, with plain tables beside those of v2; its name."""
    with place.clone(v1) as database:
        await measured(place.url(database), Options(skip_backup=True, batch_size=1_000), until=STEP)
        with psycopg.connect(place.url(database), autocommit=True) as connection:
            connection.execute(_PLAIN)
            connection.execute("VACUUM (FREEZE, ANALYZE)")
        yield database


def _emptied(place: Place, database: str) -> None:
    with psycopg.connect(place.url(database), autocommit=True) as connection:
        connection.execute("TRUNCATE plain_configs, plain_origins")
    place.settle(database)


async def _insert_select(place: Place, database: str) -> float:
    """The least that a database must do for the same rows: they are ready, nothing is derived."""
    _emptied(place, database)
    with psycopg.connect(place.local(database)) as connection:
        began_s = time.perf_counter()
        connection.execute(_INSERT_SELECT)
        connection.commit()
        return time.perf_counter() - began_s


async def _row_by_row(place: Place, database: str, rows: int) -> float:
    """What a script does that inserts row by row, without its reading and deriving, and without an archive."""
    _emptied(place, database)
    with psycopg.connect(place.local(database), autocommit=True) as connection:
        ready = connection.execute("SELECT * FROM voice_assistant_configs LIMIT %s", [rows]).fetchall()
        insert = f"INSERT INTO plain_configs VALUES ({', '.join(['%s'] * len(ready[0]))})".encode()
        began_s = time.perf_counter()
        for row in ready:
            connection.execute(insert, row)
        return time.perf_counter() - began_s


async def _through_python(place: Place, database: str) -> float:
    """Rows read into Python, a word looked for and a hash taken, and all written by COPY in one transaction."""
    _emptied(place, database)
    with (
        psycopg.connect(place.local(database)) as source,
        psycopg.connect(place.local(database)) as one,
        psycopg.connect(place.local(database)) as other,
    ):
        began_s = time.perf_counter()
        with (
            source.cursor("v1") as cursor,
            one.cursor().copy(_COPY_CONFIGS) as configs,
            other.cursor().copy(_COPY_ORIGINS) as origins,
        ):
            cursor.itersize = 1_000
            for *same, prompt in cursor.execute(_V1):
                able = ["orders"] if "pedido" in prompt.lower() else ["basic"]
                digest = hashlib.sha256(prompt.encode()).hexdigest()
                configs.write_row((*same, "rest_basic", able, True, same[-1], digest))
                origins.write_row((same[0], _NOBODY, 1, prompt, "{}", []))
        one.commit()
        other.commit()
        return time.perf_counter() - began_s
