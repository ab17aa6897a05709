"""Taking Relevo away, so that v1 is as it was found. What v2 lives on stays, unless it is asked for by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from psycopg import sql

from relevo import events
from relevo.db import migrations
from relevo.db.patience import patiently
from relevo.db.pool import Connection, Database, one
from relevo.db.statements import identifier, statement
from relevo.errors import Refused
from relevo.migration import mirror


@dataclass(frozen=True, slots=True)
class Going:
    """What goes."""

    triggers: tuple[str, ...]
    functions: tuple[str, ...]  # of ours in schema public
    columns: tuple[tuple[str, str, str], ...] = ()  # schema, table, column, that the move added to v1's calls
    tables: tuple[str, ...] = ()  # in schema public: v2's own, the flag, alerts, the list of backups
    schemas: tuple[str, ...] = field(default=("relevo",))


async def plan(database: Database, *, v2_tables: bool, call_columns: bool, backups: bool) -> Going:
    """What would go. Raises Refused while something still needs it, SchemaMissing where there is nothing."""
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)
        return await _plan(connection, v2_tables, call_columns, backups)


async def leave(
    database: Database, *, v2_tables: bool, call_columns: bool, backups: bool, emit: events.Sink = events.silent
) -> Going:
    """Take it all away, in one transaction; returns what went. Raises as ``plan`` does."""
    async for attempt in patiently(emit, "a table is locked by others"):
        with attempt:
            async with database.transaction(patient=True) as connection:
                await migrations.require(connection)
                going = await _plan(connection, v2_tables, call_columns, backups)
                await mirror.drop_triggers(connection)
                await _drop(connection, going)
    return going


async def _plan(connection: Connection, v2_tables: bool, call_columns: bool, backups: bool) -> Going:
    use = await one(connection, statement("leaving", "in_use"))
    if use["open_run"]:
        raise Refused(
            f"run {use['open_run']} is open", fix=f"finish it first: relevo migrate --resume {use['open_run']}"
        )
    if use["leases"]:
        raise Refused(f"somebody is at work: {use['leases']}", fix="let it end, or stop it")
    if v2_tables and use["flags_on"]:
        raise Refused("the flag still puts tenants on v2, whose tables would go", fix="relevo rollback --level total")
    ours = await one(connection, statement("leaving", "ours"))
    columns = [(each["schema"], each["table"], each["column"]) for each in ours["columns"]]
    return Going(
        triggers=tuple(await mirror.triggers(connection)),
        functions=tuple(ours["functions"]),
        columns=tuple(columns) if call_columns else (),
        tables=tuple(ours["tables"]) if v2_tables else (),
        schemas=("relevo", "relevo_backup") if backups else ("relevo",),
    )


async def _drop(connection: Connection, going: Going) -> None:
    for schema, table, column in going.columns:
        fill = {"table": identifier(schema, table), "column": identifier(column)}
        await connection.execute(statement("leaving", "drop_column", **fill), {})
    await connection.execute(statement("leaving", "drop_schema"), {})
    await connection.execute(statement("leaving", "drop_functions"), {})
    if "relevo_backup" in going.schemas:
        await connection.execute(statement("leaving", "drop_backups"), {})
    for table in going.tables:  # as the catalogue wrote it, quoted where it must be
        await connection.execute(statement("leaving", "drop_table", table=sql.SQL(table.replace("%", "%%"))), {})
