"""The dry run: what a move would do, found out in a transaction that the server itself keeps read only."""

from __future__ import annotations

from typing import Any

from relevo import events
from relevo.db import migrations
from relevo.db.pool import Connection, Database, one
from relevo.db.statements import statement
from relevo.migration import preflight
from relevo.migration.mapping import SourceMapping
from relevo.migration.run import MoveResult, Options


async def rehearse(database: Database, options: Options, mapping: SourceMapping, emit: events.Sink) -> MoveResult:
    """What a run would do, found out in a transaction that the server keeps read only."""
    result = MoveResult(success=True, dry_run=True)
    scope = {"tenant_ids": list(options.tenant_ids) if options.tenant_ids is not None else None}
    async with database.transaction(read_only=True, snapshot=True) as connection:
        await migrations.require(connection)
        findings = await preflight.rows(connection, mapping, tenant_ids=options.tenant_ids)
        preflight.refuse_blocked(findings)
        for finding in findings:
            emit(events.Note(finding.message, warning=finding.severity != "notice"))
        derive = statement("migration", "derive", **mapping.fill())
        query = statement("migration", "dry_run", derive=derive)
        row = await one(connection, query, scope)
        result.migrated_configs, result.skipped_configs = row["migrated"], row["skipped"]
        result.quarantined_configs, result.review_configs = row["quarantined"], row["review"]
        result.updated_calls = await _calls_due(connection, mapping, scope)
        query = statement("migration", "metrics_due", **mapping.fill())
        result.metrics_businesses = (await one(connection, query, scope))["many"]
    return result


async def _calls_due(connection: Connection, mapping: SourceMapping, scope: dict[str, Any]) -> int:
    """Calls that have no outcome, or all in scope where there is no such column yet."""
    source = mapping.calls
    present = await one(
        connection, statement("migration", "call_columns"), {"schema": source.schema, "table": source.table}
    )
    if present["outcome"]:
        query = statement(
            "migration",
            "calls_without_outcome",
            calls_table=source.relation,
            business_id=source.read("business_id"),
        )
    else:
        query = statement("migration", "count_calls", **mapping.fill())
    return int((await one(connection, query, scope))["many"])
