"""Step 3: configurations, in batches by key, each batch one transaction with its cursor.

With several workers each has a range of keys and a cursor of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg import errors, sql

from relevo import events
from relevo.db.patience import patiently
from relevo.db.pool import Connection, every, one
from relevo.db.statements import put_together, statement
from relevo.migration import overrides
from relevo.migration.mapping import SourceMapping
from relevo.migration.run import Work
from relevo.migration.throttle import Throttle

STEP = "configurations"
_OF_A_ROW = (psycopg.DataError, psycopg.IntegrityError, errors.RaiseException)
"""What it looks like when the database does not take one of the rows."""


@dataclass(slots=True)
class Counts:
    """What a worker has done so far, over all its sessions; kept as its cursor."""

    until: str | None = None  # the last key of its range; None: to the end
    after: str | None = None  # the last key seen
    seen: int = 0
    migrated: int = 0
    quarantined: int = 0
    finished: bool = False

    @property
    def skipped(self) -> int:
        """Configurations that v2 already had."""
        return self.seen - self.migrated - self.quarantined

    def add(self, batch: dict[str, Any]) -> None:
        """Count one batch."""
        self.after = batch["last"] or self.after
        self.seen += batch["seen"]
        self.migrated += batch["migrated"]
        self.quarantined += batch["quarantined"]
        self.finished = batch["seen"] == 0


_How = Callable[[Connection, sql.Composed, Work, Counts, str | None, int], Coroutine[Any, Any, dict[str, Any]]]


async def run(work: Work) -> Counts:
    """Copy every configuration in scope that v2 lacks; returns the counts of the whole run."""
    workers = [Counts(**state.cursor) for state in await work.states(STEP)]
    total = await _prepare(work)
    if not workers:
        workers = await _divide(work)
    throttle = Throttle(work.database, work.emit)

    def report() -> None:
        work.emit(events.Progress(sum(each.seen for each in workers), total, "configurations"))

    try:
        async with asyncio.TaskGroup() as group:
            for number, counts in enumerate(workers):
                if not counts.finished:
                    group.create_task(_work_through(work, number, counts, throttle, report))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed  # one cause is enough to tell: the others failed beside it
    return Counts(
        seen=sum(each.seen for each in workers),
        migrated=sum(each.migrated for each in workers),
        quarantined=sum(each.quarantined for each in workers),
    )


async def _work_through(
    work: Work, number: int, counts: Counts, throttle: Throttle, report: Callable[[], None]
) -> None:
    """One worker's range, batch by batch."""
    query = put_together(
        statement("migration", "copy_batch", derive=derive_from_batch(work.mapping), **work.mapping.fill())
    )
    while not counts.finished:
        await throttle.yield_to_others()
        async for attempt in patiently(work.emit, "configurations are locked by others"):
            with attempt:
                try:
                    batch = await _moved(work, number, counts, query, _copy)
                except _OF_A_ROW:
                    batch = await _moved(work, number, counts, query, _halved)
                counts.add(batch)
        report()


async def _moved(work: Work, number: int, counts: Counts, query: sql.Composed, how: _How) -> dict[str, Any]:
    """Copy one batch, in one transaction with the cursor that comes after it."""
    async with work.database.transaction(durable=False, patient=True) as connection:
        # v1 is held while v2 is derived from it: the mirror would only find that they are equal.
        await connection.execute(statement("mirror", "off"), {})
        batch = await how(connection, query, work, counts, counts.after, work.run.batch_size)
        after = Counts(**asdict(counts))
        after.add(batch)
        await work.save(connection, STEP, asdict(after), worker=number, finished=after.finished)
    return batch


async def _prepare(work: Work) -> int:
    """Let verticals without rules join the catalogue, and decisions of people take effect on rows already there;
    returns how many configurations are in scope."""
    async with work.database.transaction() as connection:
        await work.lease.hold(connection)
        added = await every(
            connection,
            statement("migration", "add_types", **work.mapping.fill()),
            {**work.scope, "rule_version": work.run.rule_version},
        )
        types = [row["id"] for row in added]
        await connection.execute(statement("migration", "record_types"), {"run_id": work.run.id, "types": types})
        await overrides.apply(connection, work)
        counted = await one(
            connection, statement("migration", "count_configurations", **work.mapping.fill()), work.scope
        )
    return int(counted["total"])


async def _divide(work: Work) -> list[Counts]:
    """Give each worker a range of keys of about the same size, and remember which."""
    many = work.run.workers
    ends: list[str | None] = []
    async with work.database.transaction() as connection:
        if many > 1:
            shares = {"shares": [share / many for share in range(1, many)]}
            query = statement("migration", "split_configurations", **work.mapping.fill())
            ends = (await one(connection, query, {**work.scope, **shares}))["ends"] or []
        starts = [None, *ends]
        workers = [Counts(until=end, after=start) for start, end in zip(starts, [*ends, None], strict=True)]
        for number, counts in enumerate(workers):
            await work.save(connection, STEP, asdict(counts), worker=number)
    return workers


async def _halved(
    connection: Connection, query: sql.Composed, work: Work, counts: Counts, after: str | None, size: int
) -> dict[str, Any]:
    """Copy up to ``size`` configurations after a key, among which the database may not take one: that is found by
    halving the batch, and set aside alone."""
    try:
        async with connection.transaction():
            return await _copy(connection, query, work, counts, after, size)
    except _OF_A_ROW as error:
        if size == 1:
            return await _set_aside(connection, work, after, error)
    first = await _halved(connection, query, work, counts, after, size // 2)
    rest = await _halved(connection, query, work, counts, first["last"] or after, size - size // 2)
    return {
        "last": rest["last"] or first["last"],
        **{count: first[count] + rest[count] for count in ("seen", "migrated", "quarantined")},
    }


async def _copy(
    connection: Connection, query: sql.Composed, work: Work, counts: Counts, after: str | None, size: int
) -> dict[str, Any]:
    return await one(
        connection,
        query,
        {
            **work.scope,
            "after": after,
            "until": counts.until,
            "batch_size": size,
            "rule_version": work.run.rule_version,
            "run_id": work.run.id,
            "now": work.run.started_at,
        },
    )


async def _set_aside(connection: Connection, work: Work, after: str | None, error: psycopg.Error) -> dict[str, Any]:
    row = await one(
        connection, statement("migration", "next_key", **work.mapping.fill()), {**work.scope, "after": after}
    )
    await connection.execute(
        statement("migration", "quarantine_one"),
        {
            "config_id": row["id"],
            "run_id": work.run.id,
            "reason": "rejected",
            "detail": error.diag.message_primary or str(error),
        },
    )
    return {"last": row["id"], "seen": 1, "migrated": 0, "quarantined": 1}


def derive_from_batch(mapping: SourceMapping, rule_version: sql.Composable | None = None) -> sql.Composed:
    """The derivation, reading the rows of a CTE named ``batch`` instead of the whole table, by the rules of the run
    unless said otherwise."""
    return derive_from(mapping, sql.SQL("batch"), rule_version or sql.Placeholder("rule_version"))


def derive_from(mapping: SourceMapping, configurations: sql.Composable, rule_version: sql.Composable) -> sql.Composed:
    """The derivation of some configurations of v1."""
    return statement(
        "migration",
        "derive",
        configurations=configurations,
        tenants=mapping.tenants.rows(),
        rule_version=rule_version,
        overrides=sql.Identifier("relevo", "overrides"),
    )
