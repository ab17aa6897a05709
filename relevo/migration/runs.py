"""How a run begins, is picked up, and ends: succeeded, or undone to the last row it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from relevo import events
from relevo.clock import Clock
from relevo.db.lease import Lease
from relevo.db.pool import Connection, Database, first, one
from relevo.db.statements import statement
from relevo.errors import Refused, UnknownName
from relevo.migration import overrides
from relevo.migration.run import MoveResult, Options, Run, Work, audit

# In this order: what depends on another row goes before it.
_UNDO = (
    "undo_metrics",
    "undo_noted_overrides",
    "undo_applied_overrides",
    "undo_configurations",
    "undo_overrides",
    "undo_quarantine",
    "undo_types",
)


@dataclass(frozen=True, slots=True)
class Who:
    """Who acts, and why."""

    actor: str
    reason: str | None


async def begin(
    database: Database,
    held: Lease,
    options: Options,
    decided: list[overrides.Override],
    who: Who,
    clock: Clock,
    emit: events.Sink,
) -> Run:
    """The interrupted run, if there is one, else a new one; the decisions of people are stored with it.

    Raises UnknownName for a run that is not open, Refused where the open one was begun for other rows.
    """
    async with database.transaction() as connection:
        await held.hold(connection)
        row = await first(connection, statement("migration", "open_run"))
        if row is None and options.resume is not None:
            raise UnknownName(f"run {options.resume} is not open", fix="leave --resume out to start a new run")
        action = "migration.start" if row is None else "migration.resume"
        if row is None:
            row = await _start(connection, options, who, clock)
        else:
            _require_same(row, options)
            emit(events.Note(f"resuming run {row['id']}, begun {row['started_at']:%Y-%m-%d %H:%M} UTC"))
        await audit(connection, actor=who.actor, action=action, subject=row["id"], reason=who.reason)
        await overrides.store(connection, decided, run_id=row["id"], actor=who.actor, reason=who.reason)
    return Run(**row)


async def opened(database: Database) -> Run:
    """The run that is open. Raises UnknownName where none is."""
    async with database.transaction(read_only=True) as connection:
        row = await first(connection, statement("migration", "open_run"))
    if row is None:
        raise UnknownName(
            "no run is open", fix="nothing has to be given up; a finished run goes back by: relevo rollback"
        )
    return Run(**row)


async def end(work: Work, who: Who, result: MoveResult) -> None:
    """End the run, in one transaction with what ending means: its notes dropped, or all it wrote undone."""
    run_id = {"run_id": work.run.id}
    async with work.database.transaction() as connection:
        await work.lease.hold(connection)
        if not result.success:
            await _undo(connection, work)
        await connection.execute(statement("migration", "forget_touched_calls"), run_id)
        summary = {
            "success": result.success,
            "migrated_configs": result.migrated_configs,
            "quarantined_configs": result.quarantined_configs,
            "updated_calls": result.updated_calls,
            "refused_outcomes": result.refused_outcomes,
            "errors": result.errors[:10],
        }
        state = "succeeded" if result.success else "undone"
        await connection.execute(
            statement("migration", "finish_run"),
            {**run_id, "state": state, "now": work.clock(), "result": Jsonb(summary)},
        )
        await audit(
            connection,
            actor=who.actor,
            action=f"migration.{state}",
            subject=work.run.id,
            reason=who.reason,
            details=summary,
        )


async def _start(connection: Connection, options: Options, who: Who, clock: Clock) -> dict[str, Any]:
    return await one(
        connection,
        statement("migration", "start_run"),
        {
            "now": clock(),
            "actor": who.actor,
            "reason": who.reason,
            "tenant_ids": list(options.tenant_ids) if options.tenant_ids is not None else None,
            "config_ids": list(options.config_ids) if options.config_ids is not None else None,
            "batch_size": options.batch_size,
            "workers": options.workers,
            "skip_backup": options.skip_backup,
            "backup_calls": options.backup_calls,
        },
    )


def _require_same(row: dict[str, Any], options: Options) -> None:
    """An open run is finished as it was begun."""
    if options.resume is not None and options.resume != row["id"]:
        raise UnknownName(
            f"run {options.resume} is not open; {row['id']} is", fix=f"relevo migrate --resume {row['id']}"
        )
    if options.resume is None:
        for asked, begun in ((options.tenant_ids, row["tenant_ids"]), (options.config_ids, row["config_ids"])):
            if (None if asked is None else sorted(asked)) != (None if begun is None else sorted(begun)):
                raise Refused(
                    f"run {row['id']} is open and was begun for other tenants",
                    fix=f"finish it first: relevo migrate --resume {row['id']}",
                )


async def _undo(connection: Connection, work: Work) -> None:
    """Take back exactly what the run wrote, from v2 alone: v1 keeps its rows."""
    run_id = {"run_id": work.run.id}
    await connection.execute(statement("mirror", "off"), {})
    for name in _UNDO:
        await connection.execute(statement("migration", name), run_id)
    calls = work.mapping.calls
    where = {"schema": calls.schema, "table": calls.table}
    if not (await one(connection, statement("migration", "call_columns"), where))["outcome"]:
        return  # the run did not come so far
    query = statement("migration", "undo_calls", calls_table=calls.relation, id=calls.read("id"))
    await connection.execute(query, run_id)
