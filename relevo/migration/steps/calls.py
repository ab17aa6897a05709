"""Step 4: the outcome of every existing call, and thirty days of figures per business."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from psycopg import errors, sql

from relevo import events
from relevo.db.pool import Connection, every, one
from relevo.db.statements import statement
from relevo.errors import Refused
from relevo.migration.run import Work

STEP = "calls"
METRICS_WINDOW = timedelta(days=30)
_PAGES_AT_ONCE = 512  # some 30,000 calls
_LOCK_TRIES = 8


async def run(work: Work) -> dict[str, int]:
    """Returns ``updated_calls`` and ``metrics_businesses`` of the whole run."""
    state = await work.cursor(STEP)
    counts: dict[str, Any] = {
        "leaf": 0,
        "page": 0,
        "updated_calls": 0,
        "metrics_businesses": 0,
        **state.cursor,
    }
    if not state.finished:
        await _add_columns(work)
        await _set_outcomes(work, counts)
        await _compute_metrics(work, counts)
    return {name: counts[name] for name in ("updated_calls", "metrics_businesses")}


async def _add_columns(work: Work) -> None:
    """Add outcome and agent_version. The lock is asked for in short tries, so that nobody queues behind us."""
    calls = work.mapping.calls
    async with work.database.transaction(read_only=True) as connection:
        present = await one(
            connection, statement("migration", "call_columns"), {"schema": calls.schema, "table": calls.table}
        )
    if present["outcome"] and present["agent_version"]:
        return
    for attempt in range(_LOCK_TRIES):
        try:
            async with work.database.transaction() as connection:
                await work.lease.hold(connection)
                await connection.execute("SET LOCAL lock_timeout = '1s'")
                await connection.execute(statement("migration", "add_call_columns", calls_table=calls.relation))
                return
        except errors.LockNotAvailable:
            work.emit(events.Note(f"{calls.name} is locked by others; trying again", warning=True))
            await asyncio.sleep(0.2 * 2**attempt)
    raise Refused(
        f"{calls.name} stayed locked by others, so its columns could not be added",
        fix="end the long transaction that holds it, then run relevo migrate again: it goes on from here",
    )


async def _set_outcomes(work: Work, counts: dict[str, Any]) -> None:
    """Walk the table page by page; rows that moved or arrived meanwhile are caught by a second walk."""
    calls = work.mapping.calls
    async with work.database.transaction(read_only=True) as connection:
        leaves = await every(
            connection, statement("migration", "leaves"), {"schema": calls.schema, "table": calls.table}
        )
    total = sum(leaf["pages"] for leaf in leaves)
    for number, leaf in enumerate(leaves):
        if number < counts["leaf"]:
            continue
        relation = sql.Identifier(leaf["schema"], leaf["table"])
        while counts["page"] < leaf["pages"]:
            await _outcome_batch(work, relation, counts)
            passed = sum(each["pages"] for each in leaves[:number]) + counts["page"]
            work.emit(events.Progress(min(passed, total), total, "pages of calls"))
        counts["leaf"], counts["page"] = number + 1, 0
    if await _remaining(work):
        await _sweep(work, [sql.Identifier(leaf["schema"], leaf["table"]) for leaf in leaves], counts)


async def _outcome_batch(work: Work, leaf: sql.Identifier, counts: dict[str, Any]) -> None:
    reach = {"from": f"({counts['page']},0)", "to": f"({counts['page'] + _PAGES_AT_ONCE},0)"}
    async with work.database.transaction(durable=False) as connection:
        counts["updated_calls"] += await _update(connection, work, leaf, reach)
        counts["page"] += _PAGES_AT_ONCE
        await work.save(connection, STEP, counts)


async def _sweep(work: Work, leaves: list[sql.Identifier], counts: dict[str, Any]) -> None:
    whole = {"from": "(0,0)", "to": "(4294967294,0)"}
    for leaf in leaves:
        async with work.database.transaction(durable=False) as connection:
            counts["updated_calls"] += await _update(connection, work, leaf, whole)
            await work.save(connection, STEP, counts)


async def _update(connection: Connection, work: Work, leaf: sql.Identifier, reach: dict[str, str]) -> int:
    calls = work.mapping.calls
    query = statement(
        "migration",
        "outcome_batch",
        leaf=leaf,
        status=calls.read("status"),
        business_id=calls.read("business_id"),
        id=calls.read("id"),
    )
    return int((await one(connection, query, {**work.scope, **reach, "run_id": work.run.id}))["updated"])


async def _remaining(work: Work) -> int:
    calls = work.mapping.calls
    query = statement(
        "migration",
        "calls_without_outcome",
        calls_table=calls.relation,
        business_id=calls.read("business_id"),
    )
    async with work.database.transaction(read_only=True) as connection:
        return int((await one(connection, query, work.scope))["many"])


async def _compute_metrics(work: Work, counts: dict[str, Any]) -> None:
    calls = work.mapping.calls
    query = statement("migration", "metrics", calls_with_outcome=calls.rows(also=("outcome",)))
    window = {"period_start": work.run.started_at - METRICS_WINDOW, "period_end": work.run.started_at}
    async with work.database.transaction() as connection:
        done = await one(connection, query, {**work.scope, **window, "run_id": work.run.id})
        counts["metrics_businesses"] += done["inserted"]
        await work.save(connection, STEP, counts, finished=True)
