"""Step 4: the outcome of every existing call, and thirty days of figures per business."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import errors, sql

from relevo import events
from relevo.db.patience import patiently
from relevo.db.pool import Connection, every, one
from relevo.db.statements import identifier, statement
from relevo.migration.mapping import Source
from relevo.migration.outcomes import Outcomes
from relevo.migration.run import Work
from relevo.migration.throttle import Throttle

STEP = "calls"
METRICS_WINDOW = timedelta(days=30)
_FIRST_PAGES = 64
_MOST_PAGES = 16_384  # 128 MB
_ROWS_OF_A_PAGE = 2_048  # no page of any size holds more
_BATCH_TAKES_S = 0.4  # long enough to be efficient, short enough that nobody notices


@dataclass(slots=True)
class Progress:
    """How far the step has come: which physical table, which page of it; and what it has written."""

    leaf: int = 0
    page: int = 0
    updated_calls: int = 0
    refused_outcomes: int = 0
    metrics_businesses: int = 0


def next_size(pages: int, took_s: float) -> int:
    """How many pages the next batch should have, for it to take about as long as it should; at most twice as many."""
    wanted = int(pages * _BATCH_TAKES_S / max(took_s, 0.001))
    return max(1, min(wanted, pages * 2, _MOST_PAGES))


async def run(work: Work) -> Progress:
    """Returns what the whole run has written."""
    (state,) = await work.states(STEP) or (None,)
    progress = Progress(**state.cursor) if state else Progress()
    if state and state.finished:
        return progress
    await _add_columns(work)
    outcomes = await Outcomes.of(work)
    progress.refused_outcomes = outcomes.refused_calls
    await _set_outcomes(work, outcomes, progress)
    await _compute_metrics(work, progress)
    return progress


async def leaves(connection: Connection, source: Source) -> list[dict[str, Any]]:
    """The physical tables behind a source: schema, table, pages."""
    return await every(connection, statement("migration", "leaves"), {"schema": source.schema, "table": source.table})


async def _add_columns(work: Work) -> None:
    """Add outcome and agent_version. The lock is asked for in short tries, so that nobody queues behind us."""
    calls = work.mapping.calls
    where = {"schema": calls.schema, "table": calls.table}
    async with work.database.transaction(read_only=True) as connection:
        present = await one(connection, statement("migration", "call_columns"), where)
    absent = [name for name, is_there in present.items() if not is_there]
    if not absent:
        return
    async for attempt in patiently(work.emit, f"{calls.name} is locked by others"):
        with attempt:
            async with work.database.transaction(patient=True) as connection:
                await work.lease.hold(connection)
                await connection.execute(statement("migration", "add_call_columns", calls_table=calls.relation), {})
                await connection.execute(statement("migration", "remember_call_columns"), {**where, "columns": absent})


async def _set_outcomes(work: Work, outcomes: Outcomes, progress: Progress) -> None:
    """Walk the table page by page; rows that moved or arrived meanwhile are caught by a second walk."""
    async with work.database.transaction(read_only=True) as connection:
        tables = await leaves(connection, work.mapping.calls)
    total = sum(table["pages"] for table in tables)
    throttle = Throttle(work.database, work.emit)
    pages = _FIRST_PAGES
    for number, table in enumerate(tables):
        if number < progress.leaf:
            continue
        leaf = identifier(table["schema"], table["table"])
        before = sum(each["pages"] for each in tables[:number])
        while progress.page < table["pages"]:
            await throttle.yield_to_others()
            began_s = time.monotonic()
            await _batch(work, outcomes, leaf, progress, pages)
            pages = next_size(pages, time.monotonic() - began_s)
            work.emit(events.Progress(min(before + progress.page, total), total, "pages of calls"))
        progress.leaf, progress.page = number + 1, 0
    if await outcomes.remaining(work):
        await _sweep(work, outcomes, tables, progress)


async def _batch(
    work: Work, outcomes: Outcomes, leaf: sql.Identifier, progress: Progress, pages: int, *, last_time: bool = False
) -> None:
    """One transaction. ``last_time``: a call that its table refuses now will be looked at no more, and is counted."""
    async for attempt in patiently(work.emit, "calls are locked by others"):
        with attempt:
            async with work.database.transaction(durable=False, patient=True) as connection:
                start, size = progress.page * _ROWS_OF_A_PAGE, pages * _ROWS_OF_A_PAGE
                done, refused = await _update(connection, work, outcomes, leaf, start, size)
                after = Progress(**asdict(progress))
                after.updated_calls += done
                after.refused_outcomes += refused if last_time else 0
                after.page += pages
                await work.save(connection, STEP, asdict(after))
            progress.updated_calls, progress.refused_outcomes = after.updated_calls, after.refused_outcomes
            progress.page = after.page


async def _sweep(work: Work, outcomes: Outcomes, tables: Sequence[dict[str, Any]], progress: Progress) -> None:
    for table in tables:
        leaf = identifier(table["schema"], table["table"])
        progress.page = 0
        while progress.page < table["pages"] * 2 + _FIRST_PAGES:
            await _batch(work, outcomes, leaf, progress, _MOST_PAGES, last_time=True)


async def _update(
    connection: Connection, work: Work, outcomes: Outcomes, leaf: sql.Identifier, start: int, size: int
) -> tuple[int, int]:
    """Give outcomes to the calls in some places of the table; returns how many, and how many the table itself
    refused: such a call is found by halving, and left as it is, alone."""
    reach = {"from": _place(start), "to": _place(start + size)}
    try:
        async with connection.transaction():
            row = await one(
                connection, outcomes.batch(leaf), {**work.scope, **reach, **outcomes.taken, "run_id": work.run.id}
            )
            return int(row["updated"]), 0
    except (psycopg.IntegrityError, psycopg.DataError, errors.RaiseException):
        if size == 1:
            return 0, 1
    first = await _update(connection, work, outcomes, leaf, start, size // 2)
    rest = await _update(connection, work, outcomes, leaf, start + size // 2, size - size // 2)
    return first[0] + rest[0], first[1] + rest[1]


def _place(number: int) -> str:
    """The place in a table of that number, as PostgreSQL writes it: page and row."""
    return f"({number // _ROWS_OF_A_PAGE},{number % _ROWS_OF_A_PAGE})"


async def _compute_metrics(work: Work, progress: Progress) -> None:
    calls = work.mapping.calls
    query = statement("migration", "metrics", calls_with_outcome=calls.rows(also=("outcome",)))
    window = {"period_start": work.run.started_at - METRICS_WINDOW, "period_end": work.run.started_at}
    async with work.database.transaction() as connection:
        done = await one(connection, query, {**work.scope, **window, "run_id": work.run.id})
        progress.metrics_businesses += done["inserted"]
        await work.save(connection, STEP, asdict(progress), finished=True)
