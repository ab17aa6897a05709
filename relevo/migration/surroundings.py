"""What surrounds the tables: pooler, time limits, grants to browsers, triggers, sizes, foreign CHECKs."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from relevo.db.pool import Connection, Database, every, one
from relevo.db.statements import statement
from relevo.migration import mirror, outcomes, source
from relevo.migration.findings import Finding
from relevo.migration.mapping import SourceMapping

MANY_CALLS = 5_000_000
_ROOM = 1.2  # what a backup takes, in sizes of its tables


async def of_connection(database: Database) -> list[Finding]:
    """How we reach the server, and what it would cut short."""
    findings = []
    if await database.pooling() == "transaction":
        findings.append(
            Finding(
                "notice",
                "transaction_pooler",
                f"{database.place} is a transaction pooler; the move works through it",
                "nothing to do; what listens for changes will want a direct connection",
            )
        )
    async with database.transaction(read_only=True) as connection:
        row = await one(connection, statement("migration", "timeouts"))
    if row["statement_timeout"] != "0":
        findings.append(
            Finding(
                "notice",
                "statement_timeout",
                f"this role's statements are cut off after {row['statement_timeout']}",
                "nothing to do: Relevo lifts the limit for its own transactions",
            )
        )
    return findings


async def of_tables(connection: Connection, mapping: SourceMapping, free_bytes: int | None) -> list[Finding]:
    """Who else may read the tables, what fires when they are written, and how large they are."""
    sources = (mapping.configurations, mapping.calls)
    names = {"tables": [source.relation.as_string() for source in mapping.sources]}
    exposed = await every(connection, statement("migration", "exposed"), names)
    triggers = await every(
        connection, statement("migration", "triggers"), {"calls": mapping.calls.relation.as_string()}
    )
    sizes = await one(
        connection, statement("migration", "sizes"), {"tables": [source.relation.as_string() for source in sources]}
    )
    findings = [
        Finding(
            "warning",
            "exposed",
            f"{row['name']} can be read by {row['role']}, prompts and all, and has no row level security",
            f"REVOKE ALL ON {row['name']} FROM {row['role']}, or ENABLE ROW LEVEL SECURITY",
        )
        for row in exposed
    ]
    findings += [
        Finding(
            "warning",
            "user_trigger",
            f"trigger {row['trigger']} on {row['name']} fires for each row the move writes, and calls {row['calls']}",
            "make sure that it tells nobody outside, or disable it while the move runs",
        )
        for row in triggers
    ]
    findings += await _of_mirror(connection, mapping)
    return [*findings, *_of_sizes(sizes["bytes"], sizes["calls"], free_bytes)]


async def _of_mirror(connection: Connection, mapping: SourceMapping) -> list[Finding]:
    """What dual write cannot see, and what it cannot write back."""
    configurations = mapping.configurations
    carried = source.writes(configurations, await source.column_types(connection, configurations))
    findings = []
    if unwritable := [name for name in configurations.types if name not in carried]:
        first = unwritable[0]
        findings.append(
            Finding(
                "warning",
                "not_written_back",
                f"nothing can be written back to v1's {', '.join(unwritable)}: edits of these on v2 stay on v2",
                "say how in relevo.toml: [source.configurations.fields]"
                f' {first} = {{read = "…", write = {{column = "…"}}}}',
            )
        )
    written = {column for columns in carried.values() for column in columns} | set(configurations.defaults)
    where = {"schema": configurations.schema, "table": configurations.table}
    required = await every(connection, statement("migration", "required_columns"), where)
    if lacking := [row["column"] for row in required if row["column"] not in written]:
        findings.append(
            Finding(
                "warning",
                "required_columns",
                f"{configurations.name} requires {', '.join(lacking)}, of which Relevo knows nothing: a configuration"
                " born on v2 will wait for its v1 row",
                f'give a value in relevo.toml: [source.configurations.defaults] {lacking[0]} = "…"',
            )
        )
    if not await mirror.tenants_watched(connection, mapping):
        findings.append(
            Finding(
                "warning",
                "tenants_not_watched",
                f"{mapping.tenants.name} cannot bear triggers of this role: a vertical that changes goes unnoticed",
                f"connect as the owner of {mapping.tenants.name}, or run relevo verify now and then",
            )
        )
    return findings


def _of_sizes(backup_bytes: int, calls: int, free_bytes: int | None) -> list[Finding]:
    findings = []
    needed = int(backup_bytes * _ROOM)
    if free_bytes is not None and free_bytes < needed:
        findings.append(
            Finding(
                "blocker",
                "disk",
                f"the backup needs about {needed / 1e9:,.1f} GB, and the disk has {free_bytes / 1e9:,.1f} GB left",
                "free space, or back up less: --backup-calls touched",
            )
        )
    if calls > MANY_CALLS:
        findings.append(
            Finding(
                "warning",
                "many_calls",
                f"calls to back up: about {calls:,}, {backup_bytes / 1e9:,.1f} GB with the configurations",
                "--backup-calls touched copies only their key and what the move writes",
                calls,
            )
        )
    return findings


async def of_outcomes(
    connection: Connection, mapping: SourceMapping, tenant_ids: Sequence[UUID] | None
) -> list[Finding]:
    """Outcomes that the platform's own column would not take."""
    column = await outcomes.inspect(connection, mapping, tenant_ids)
    if not column.refused:
        return []
    return [
        Finding(
            "warning",
            "outcome_check",
            f"calls whose outcome the column's own type or CHECK refuses: {column.refused_calls:,}",
            "they keep none; widen the CHECK if they should have one",
            column.refused_calls,
            tuple(f"{word} ({many:,})" for word, many in column.refused.items())[:10],
        )
    ]
