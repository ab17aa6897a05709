"""Step 3: configurations, in batches by key, each batch one transaction with its cursor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg import sql

from relevo import events
from relevo.db.pool import Connection, every, one
from relevo.db.statements import statement
from relevo.migration.mapping import SourceMapping
from relevo.migration.run import Work

STEP = "configurations"


@dataclass(slots=True)
class Counts:
    """What the step has done so far, over all its sessions; kept as the step's cursor."""

    after: str | None = None  # the last key seen
    seen: int = 0
    migrated: int = 0
    quarantined: int = 0

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


async def run(work: Work) -> Counts:
    """Copy every configuration in scope that v2 lacks; returns the counts of the whole run."""
    state = await work.cursor(STEP)
    counts = Counts(**state.cursor)
    if state.finished:
        return counts
    total = await _prepare(work)
    while True:
        async with work.database.transaction(durable=False) as connection:
            batch = await _batch(connection, work, counts.after, work.run.batch_size)
            counts.add(batch)
            finished = batch["seen"] == 0
            await work.save(connection, STEP, asdict(counts), finished=finished)
        work.emit(events.Progress(counts.seen, total, "configurations"))
        if finished:
            return counts


async def _prepare(work: Work) -> int:
    """Let verticals without rules join the catalogue; returns how many configurations are in scope."""
    async with work.database.transaction() as connection:
        await work.lease.hold(connection)
        added = await every(
            connection,
            statement("migration", "add_types", **work.mapping.fill()),
            {**work.scope, "rule_version": work.run.rule_version},
        )
        types = [row["id"] for row in added]
        await connection.execute(statement("migration", "record_types"), {"run_id": work.run.id, "types": types})
        counted = await one(
            connection, statement("migration", "count_configurations", **work.mapping.fill()), work.scope
        )
    return int(counted["total"])


async def _batch(connection: Connection, work: Work, after: str | None, size: int) -> dict[str, Any]:
    """Copy up to ``size`` configurations after a key. A row that the database will not take is found by halving
    the batch, and set aside alone."""
    try:
        async with connection.transaction():
            return await _copy(connection, work, after, size)
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        if size == 1:
            return await _set_aside(connection, work, after, error)
    first = await _batch(connection, work, after, size // 2)
    rest = await _batch(connection, work, first["last"] or after, size - size // 2)
    return {
        "last": rest["last"] or first["last"],
        **{count: first[count] + rest[count] for count in ("seen", "migrated", "quarantined")},
    }


async def _copy(connection: Connection, work: Work, after: str | None, size: int) -> dict[str, Any]:
    return await one(
        connection,
        statement("migration", "copy_batch", derive=derive_from_batch(work.mapping), **work.mapping.fill()),
        {
            **work.scope,
            "after": after,
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


def derive_from_batch(mapping: SourceMapping) -> sql.Composed:
    """The derivation, reading the rows of a CTE named ``batch`` instead of the whole table."""
    return statement("migration", "derive", configurations=sql.SQL("batch"), tenants=mapping.tenants.rows())
