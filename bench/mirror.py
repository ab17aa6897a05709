"""What the mirror costs whoever writes v1: beside the same writers without it, idle and during a move."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from random import Random

import psycopg

from bench.figures import Figure
from bench.place import Place
from bench.steps import measured
from relevo.db.pool import Database
from relevo.migration import mirror
from relevo.migration.run import Options
from relevo.migration.runs import Who

WRITERS = 4
PAUSE_S = 0.005  # a platform's own writes come now and then; four that never rest would measure the processor's queue
SECONDS = 8.0
WHO = Who("bench", None)

# What a platform writes: mostly numbers and voices, now and then a prompt.
_SHORT = "UPDATE voice_agent_config SET phone_number_id = %s, updated_at = now() WHERE id = %s"
_PROMPT = "UPDATE voice_agent_config SET system_prompt = system_prompt || %s, updated_at = now() WHERE id = %s"


async def compare(place: Place, rows: int, rounds: int) -> list[Figure]:
    """Milliseconds of the slowest hundredth of single-row statements; the least of some rounds, in turn."""
    least: dict[str, float] = {}
    middle: dict[str, float] = {}
    async with place.v1(rows) as v1:
        for _ in range(rounds):
            for name, under in (("alone", _alone), ("mirrored", _mirrored), ("copied", _copied), ("moved", _moved)):
                with place.clone(v1) as database:
                    took_s = await under(place, database)
                ranked = statistics.quantiles(took_s, n=100)
                least[name] = min(least.get(name, float("inf")), ranked[98] * 1_000)
                middle[name] = min(middle.get(name, float("inf")), ranked[49] * 1_000)
    return [
        Figure(
            "p99 of a write to v1, mirror on",
            least["mirrored"],
            "the same, no mirror",
            least["alone"],
            "ms",
            None,
            2,
        ),
        Figure("p50 of the same", middle["mirrored"], "no mirror", middle["alone"], "ms"),
        Figure(
            "p99 of a write to v1 during the move, mirror on",
            least["moved"],
            "during the move, no mirror",
            least["copied"],
            "ms",
            None,
            2,
        ),
        Figure("p50 of the same", middle["moved"], "no mirror", middle["copied"], "ms"),
    ]


async def _alone(place: Place, database: str) -> list[float]:
    return await _written(place, database, asyncio.sleep(SECONDS))


async def _mirrored(place: Place, database: str) -> list[float]:
    await measured(place.url(database), Options(skip_backup=True, batch_size=1_000), until="Configurations")
    return await _written(place, database, asyncio.sleep(SECONDS))


async def _moved(place: Place, database: str) -> list[float]:
    return await _written(place, database, _move(place, database))


async def _copied(place: Place, database: str) -> list[float]:
    async with _triggers_gone(place, database):
        return await _written(place, database, _move(place, database))


async def _move(place: Place, database: str) -> None:
    await measured(place.url(database), Options(skip_backup=True), until="Configurations")


@asynccontextmanager
async def _triggers_gone(place: Place, database: str) -> AsyncIterator[None]:
    """The triggers are taken away as soon as the move has put them there: the copy alone is measured."""

    async def watch() -> None:
        async with Database(place.url(database)) as opened:
            while not await mirror.remove(opened, WHO):  # noqa: ASYNC110 -- nobody tells when a trigger appears
                await asyncio.sleep(0.02)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _written(place: Place, database: str, meanwhile: Awaitable[None]) -> list[float]:
    """Seconds that each statement of the writers took, for as long as something else goes on."""
    took_s: list[float] = []
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            group.create_task(_write(place.local(database), Random(number), took_s, over))
        await meanwhile
        over.set()
    return took_s


async def _write(url: str, chance: Random, took_s: list[float], over: asyncio.Event) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute("SELECT array_agg(id ORDER BY id) FROM voice_agent_config")
        row = await cursor.fetchone()
        assert row is not None
        while not over.is_set():
            config, prompt = chance.choice(row[0]), chance.random() < 0.1
            statement, value = (_PROMPT, " Gracias.") if prompt else (_SHORT, f"phone_{chance.random()}")
            began_s = time.perf_counter()
            await connection.execute(statement.encode(), (value, config))
            took_s.append(time.perf_counter() - began_s)
            await asyncio.sleep(PAUSE_S)
