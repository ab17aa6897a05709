"""The dry run: what a move would do, found out in a transaction that the server itself keeps read only."""

from __future__ import annotations

from psycopg import sql
from psycopg.types.json import Jsonb

from relevo import events
from relevo.db import migrations
from relevo.db.pool import Connection, Database, one
from relevo.db.statements import statement
from relevo.migration import outcomes, overrides, preflight
from relevo.migration.mapping import SourceMapping
from relevo.migration.run import MoveResult, Options


async def rehearse(database: Database, options: Options, mapping: SourceMapping, emit: events.Sink) -> MoveResult:
    """The numbers of the run that would follow. Raises SchemaMissing before ``relevo db up``."""
    result = MoveResult(success=True, dry_run=True)
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)
    decided = await overrides.check(database, mapping, overrides.read(options.overrides)) if options.overrides else []
    async with database.transaction(read_only=True, snapshot=True) as connection:
        findings = await preflight.rows(connection, mapping, tenant_ids=options.tenant_ids)
        preflight.refuse_blocked(findings)
        for finding in findings:
            emit(events.Note(finding.message, warning=finding.severity != "notice"))
        await _configurations(connection, mapping, options, decided, result)
        await _calls(connection, mapping, options, result)
    return result


def _scope(options: Options) -> dict[str, object]:
    return {"tenant_ids": list(options.tenant_ids) if options.tenant_ids is not None else None}


async def _configurations(
    connection: Connection,
    mapping: SourceMapping,
    options: Options,
    decided: list[overrides.Override],
    result: MoveResult,
) -> None:
    derive = statement(
        "migration",
        "derive",
        rule_version=sql.SQL("relevo.current_rules()"),
        overrides=statement("migration", "overrides_foretold"),
        **mapping.fill(),
    )
    foretold = [{"config_id": str(each.config_id), "fields": list(each.decided), **each.decided} for each in decided]
    row = await one(
        connection,
        statement("migration", "dry_run", derive=derive),
        {**_scope(options), "foretold": Jsonb(foretold)},
    )
    result.migrated_configs, result.skipped_configs = row["migrated"], row["skipped"]
    result.quarantined_configs, result.review_configs = row["quarantined"], row["review"]


async def _calls(connection: Connection, mapping: SourceMapping, options: Options, result: MoveResult) -> None:
    source = mapping.calls
    present = await one(
        connection, statement("migration", "call_columns"), {"schema": source.schema, "table": source.table}
    )
    if present["outcome"]:
        column = await outcomes.inspect(connection, mapping, options.tenant_ids)
        result.updated_calls = await column.count(connection, options.tenant_ids)
        result.refused_outcomes = column.refused_calls
    else:
        counted = await one(connection, statement("migration", "count_calls", **mapping.fill()), _scope(options))
        result.updated_calls = counted["many"]
    due = await one(connection, statement("migration", "metrics_due", **mapping.fill()), _scope(options))
    result.metrics_businesses = due["many"]
