"""Step 1: one consistent snapshot of the affected tables, with counts and checksums, read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from psycopg import sql
from psycopg.types.json import Jsonb

from relevo import events
from relevo.clock import Clock
from relevo.db.pool import Connection, Database, every, one
from relevo.db.statements import identifier, statement
from relevo.errors import MoveFailed
from relevo.migration.mapping import SourceMapping
from relevo.migration.run import BackupCalls, Work, audit
from relevo.migration.steps.targets import Scope, Target, scope_of, targets

_SCHEMA = "relevo_backup"
_PAGES_AT_ONCE = 4096  # 32 MB: a progress report every few hundred milliseconds


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup as recorded."""

    id: UUID
    created_at: datetime
    tables: list[str]
    contents: dict[str, dict[str, Any]]  # table -> copy, rows, checksum
    tenant_ids: list[UUID] | None
    actor: str
    reason: str | None
    verified_at: datetime | None

    @property
    def rows(self) -> int:
        """Rows in all its tables."""
        return sum(table["rows"] for table in self.contents.values())


async def run(work: Work, *, actor: str, reason: str | None) -> UUID:
    """Make the run's backup, or find the one that an interrupted run made. Returns its id."""
    if work.run.backup_id is not None:
        return work.run.backup_id
    made = await create(
        work.database,
        work.mapping,
        tenant_ids=work.run.tenant_ids,
        calls=work.run.backup_calls,
        clock=work.clock,
        emit=work.emit,
        actor=actor,
        reason=reason or f"before run {work.run.id}",
    )
    async with work.database.transaction() as connection:
        await work.lease.hold(connection)
        await connection.execute(
            statement("migration", "set_run_backup"), {"run_id": work.run.id, "backup_id": made.id}
        )
    return made.id


async def create(
    database: Database,
    mapping: SourceMapping,
    *,
    tenant_ids: Sequence[UUID] | None,
    calls: BackupCalls = "all",
    clock: Clock,
    emit: events.Sink,
    actor: str,
    reason: str | None,
) -> Backup:
    """Copy the affected tables as of one moment, then read the copies back.

    Raises MoveFailed when a copy does not read as it was written.
    """
    async with database.transaction(snapshot=True) as connection:
        chosen = await targets(connection, mapping, calls)
        scope = await scope_of(connection, mapping, tenant_ids)
        backup_id, contents = await write(connection, chosen, scope, clock=clock, emit=emit, actor=actor, reason=reason)
    await _read_back(database, backup_id, contents, clock)
    return next(backup for backup in await listed(database) if backup.id == backup_id)


async def write(
    connection: Connection,
    chosen: Sequence[Target],
    scope: Scope,
    *,
    clock: Clock,
    emit: events.Sink,
    actor: str,
    reason: str | None,
) -> tuple[UUID, dict[str, dict[str, Any]]]:
    """Copy tables and record the backup, in a transaction that sees one moment: by its snapshot, or by locks.

    Returns the backup's id and its contents, which are still to be read back.
    """
    backup_id = uuid4()
    # Rows that a policy hides would be missing in silence; this way PostgreSQL refuses.
    await connection.execute(statement("backup", "hide_nothing"), {})
    contents = {target.name: await _copy(connection, target, backup_id, scope, emit) for target in chosen}
    await connection.execute(
        statement("backup", "record"),
        {
            "id": backup_id,
            "now": clock(),
            "tables": list(contents),
            "contents": Jsonb(contents),
            "actor": actor,
            "reason": reason,
            "tenant_ids": scope.tenant_ids,
        },
    )
    details = {"rows": sum(table["rows"] for table in contents.values())}
    await audit(connection, actor=actor, action="backup.create", subject=backup_id, reason=reason, details=details)
    return backup_id, contents


async def listed(database: Database) -> list[Backup]:
    """All backups, newest first."""
    async with database.transaction(read_only=True) as connection:
        return [Backup(**row) for row in await every(connection, statement("backup", "list"))]


async def _copy(
    connection: Connection, target: Target, backup_id: UUID, scope: Scope, emit: events.Sink
) -> dict[str, Any]:
    """Copy one table page range by page range; returns what is recorded of it."""
    names = (
        target.only
        or (await one(connection, statement("backup", "columns"), {"schema": target.schema, "table": target.table}))[
            "names"
        ]
    )
    columns = sql.SQL(", ").join(map(identifier, names))
    copy_name = f"{_cut(target.table)}_{backup_id.hex[:12]}"
    copy = identifier(_SCHEMA, copy_name)
    fill: dict[str, sql.Composable] = {"copy": copy, "columns": columns, "relation": target.relation}
    await connection.execute(statement("backup", "create_copy", **fill), {})
    await connection.execute(statement("backup", "seclude_copy", copy=copy), {})
    leaves = await every(connection, statement("migration", "leaves"), {"schema": target.schema, "table": target.table})
    copied = 0
    for leaf in leaves:
        insert = statement(
            "backup",
            "fill_copy",
            leaf=identifier(leaf["schema"], leaf["table"]),
            scope=target.of_tenants,
            **fill,
        )
        for pages in range(0, leaf["pages"], _PAGES_AT_ONCE):
            reach = {"from": f"({pages},0)", "to": f"({pages + _PAGES_AT_ONCE},0)"}
            copied += (await connection.execute(insert, {**scope.parameters, **reach})).rowcount
            emit(events.Progress(copied, None, f"rows of {target.name}"))
    sums = await one(
        connection,
        statement("backup", "checksum", columns=columns, relation=target.relation, scope=target.of_tenants),
        scope.parameters,
    )
    partial = target.only is not None
    return {"copy": f"{_SCHEMA}.{copy_name}", "columns": list(names), "partial": partial, **sums}


def _cut(table: str) -> str:
    """A table's name, short enough to have something appended: PostgreSQL counts bytes, and cuts after 63."""
    return table.encode()[:40].decode(errors="ignore")


async def _read_back(database: Database, backup_id: UUID, contents: dict[str, dict[str, Any]], clock: Clock) -> None:
    async with database.transaction() as connection:
        await read_back(connection, backup_id, contents, clock)


async def read_back(connection: Connection, backup_id: UUID, contents: dict[str, dict[str, Any]], clock: Clock) -> None:
    """Compare the copies with what was recorded of them. Raises MoveFailed."""
    for name, recorded in contents.items():
        if not await holds(connection, recorded):
            raise MoveFailed(
                f"the backup of {name} does not read as it was written",
                fix="nothing was moved; check the disk, then run the command again",
            )
    await connection.execute(statement("backup", "mark_verified"), {"id": backup_id, "now": clock()})


async def holds(connection: Connection, recorded: dict[str, Any]) -> bool:
    """Whether the copy of a table is still what was recorded of it."""
    query = statement(
        "backup",
        "checksum",
        columns=sql.SQL(", ").join(map(identifier, recorded["columns"])),
        relation=copy_of(recorded),
        scope=sql.SQL("true"),
    )
    row = await one(connection, query)
    return (row["rows"], row["checksum"]) == (recorded["rows"], recorded["checksum"])


def copy_of(recorded: dict[str, Any]) -> sql.Identifier:
    """The copy of a table, quoted."""
    return identifier(*recorded["copy"].split(".", 1))
