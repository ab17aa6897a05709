"""Level 4: the data goes back to a backup. The last resort, and it too has a way back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from relevo import events
from relevo.clock import Clock, system_clock
from relevo.db import migrations
from relevo.db.lease import Lease, lease
from relevo.db.patience import patiently
from relevo.db.pool import Connection, Database, first, one
from relevo.db.statements import statement
from relevo.errors import DatabaseUnreachable, Refused
from relevo.migration.mapping import SourceMapping
from relevo.migration.retired import refuse_retired
from relevo.migration.runner import LEASE
from relevo.migration.steps import backup as backups
from relevo.migration.steps import restore
from relevo.migration.steps.backup import Backup
from relevo.migration.steps.targets import Scope, Target

_NOTHING_DONE = "nothing was changed"


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be restored, who asks, and why."""

    backup: Backup
    actor: str
    reason: str | None = None
    tenant_ids: tuple[UUID, ...] | None = None  # None: all of the backup's
    discard_newer: bool = False


@dataclass(frozen=True, slots=True)
class TableRestored:
    """What was done to one table, in rows."""

    table: str
    inserted: int
    updated: int
    deleted: int
    kept_newer: int  # calls recorded since the backup
    left_alone: int
    added_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataRestored:
    """A restore that was done."""

    backup_id: UUID
    backup_before: UUID
    undo_command: str
    tables: list[TableRestored]
    affected_tenants: list[str]
    audit_id: int
    duration_seconds: float
    interrupted: list[str] = field(default_factory=list)  # what was found of a restore that did not end


async def run(
    database: Database,
    mapping: SourceMapping,
    request: Request,
    *,
    clock: Clock = system_clock,
    emit: events.Sink = events.silent,
) -> DataRestored:
    """Restore, in one transaction, after a backup of the present in the same one: nothing can come between.

    Raises Refused while a run of the move is open or where the backup does not fit, LeaseHeld while another process
    moves, backs up or restores; and then nothing was changed.
    """
    began_s = time.monotonic()
    async with lease(database, LEASE) as held:
        interrupted, restore_id = await _begin(database, held, request, clock)
        for told in interrupted:
            emit(events.Note(told, warning=True))
        try:
            done, audit_id = await _restore(database, mapping, held, request, restore_id, clock, emit)
        except DatabaseUnreachable:
            raise  # nobody is there to note it; the next restore finds this one open, and says so
        except Exception:
            await _note_failure(database, restore_id, clock)
            raise
    return DataRestored(
        backup_id=request.backup.id,
        backup_before=done.backup_before,
        undo_command=f"relevo backups restore {done.backup_before}",
        tables=_tables(done),
        affected_tenants=done.difference.tenants,
        audit_id=audit_id,
        duration_seconds=round(time.monotonic() - began_s, 3),
        interrupted=interrupted,
    )


async def _begin(database: Database, held: Lease, request: Request, clock: Clock) -> tuple[list[str], UUID]:
    """Say what is about to be done, before it is; returns what was found of one that did not end."""
    interrupted = []
    async with database.transaction() as connection:
        await migrations.require(connection)
        await held.hold(connection)
        await refuse_retired(connection)
        if (run := await first(connection, statement("migration", "open_run"))) is not None:
            raise Refused(
                f"run {run['id']} of the move is open since {run['started_at']:%Y-%m-%d %H:%M} UTC",
                fix=f"finish it first: relevo migrate --resume {run['id']}",
            )
        open_one = await first(connection, statement("restore", "open_restore"))
        if open_one is not None:
            await connection.execute(statement("restore", "fail_restore"), {"id": open_one["id"], "now": clock()})
            interrupted.append(
                f"the restore of backup {open_one['backup_id']} that {open_one['actor']} began at"
                f" {open_one['started_at']:%Y-%m-%d %H:%M:%S} UTC was cut off: {_NOTHING_DONE} by it"
            )
        row = await one(
            connection,
            statement("restore", "begin_restore"),
            {
                "backup_id": request.backup.id,
                "now": clock(),
                "actor": request.actor,
                "reason": request.reason,
                "tenant_ids": list(request.tenant_ids) if request.tenant_ids is not None else None,
                "discard_newer": request.discard_newer,
            },
        )
    return interrupted, row["id"]


async def _restore(
    database: Database,
    mapping: SourceMapping,
    held: Lease,
    request: Request,
    restore_id: UUID,
    clock: Clock,
    emit: events.Sink,
) -> tuple[restore.Restored, int]:
    async for attempt in patiently(emit, "the tables are in use by others"):
        with attempt:
            async with database.transaction(patient=True) as connection:

                async def back_up(chosen: Sequence[Target], scope: Scope) -> UUID:
                    return await _back_up(connection, chosen, scope, request, clock, emit)

                done = await restore.run(
                    connection,
                    mapping,
                    request.backup,
                    tenant_ids=request.tenant_ids,
                    discard_newer=request.discard_newer,
                    back_up=back_up,
                    emit=emit,
                )
                audit_id = await _record(connection, request, done, restore_id, clock)
                await held.hold(connection)
            return done, audit_id
    raise AssertionError("patiently either returns or raises")


async def _back_up(
    connection: Connection,
    chosen: Sequence[Target],
    scope: Scope,
    request: Request,
    clock: Clock,
    emit: events.Sink,
) -> UUID:
    backup_id, contents = await backups.write(
        connection,
        chosen,
        scope,
        clock=clock,
        emit=emit,
        actor=request.actor,
        reason=f"before the restore of {request.backup.id}",
    )
    await backups.read_back(connection, backup_id, contents, clock)
    return backup_id


async def _record(
    connection: Connection, request: Request, done: restore.Restored, restore_id: UUID, clock: Clock
) -> int:
    await connection.execute(
        statement("restore", "finish_restore"),
        {"id": restore_id, "now": clock(), "backup_before": done.backup_before},
    )
    details: dict[str, Any] = {
        "backup_before": str(done.backup_before),
        "tenant_ids": None if request.tenant_ids is None else [str(each) for each in request.tenant_ids],
        "discard_newer": request.discard_newer,
        "tables": [asdict(table) for table in _tables(done)],
    }
    row = await one(
        connection,
        statement("restore", "audit"),
        {
            "actor": request.actor,
            "action": "backup.restore",
            "subject": str(request.backup.id),
            "reason": request.reason,
            "details": Jsonb(details),
        },
    )
    audit_id: int = row["id"]
    return audit_id


async def _note_failure(database: Database, restore_id: UUID, clock: Clock) -> None:
    async with database.transaction() as connection:
        await connection.execute(statement("restore", "fail_restore"), {"id": restore_id, "now": clock()})


def _tables(done: restore.Restored) -> list[TableRestored]:
    return [
        TableRestored(
            each.table, each.insert, each.update, each.delete, each.kept_newer, each.left_alone, each.added_columns
        )
        for each in done.difference.tables
    ]
