"""What the catalogue says of v1: tables, columns, expressions, privileges. Nothing of the rows is read."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from relevo.db import migrations
from relevo.db.pool import Connection, every
from relevo.db.statements import statement
from relevo.errors import ConfigurationError, SchemaMissing, nearest
from relevo.migration.findings import Finding, blockers
from relevo.migration.mapping import Source, SourceMapping


async def of_v1(connection: Connection, mapping: SourceMapping) -> list[Finding]:
    """Everything in the catalogue that stands in the way."""
    sources = [{"kind": s.kind, "schema": s.schema, "table": s.table} for s in mapping.sources]
    found = await every(connection, statement("migration", "tables"), {"sources": Jsonb(sources)})
    facts = {row["kind"]: row for row in found}
    findings: list[Finding] = []
    for source in mapping.sources:
        of_table = _of_table(source, facts[source.kind])
        findings += of_table
        if not blockers(of_table):
            findings += await _of_columns(connection, source)
    try:
        await migrations.require(connection)
    except SchemaMissing:
        findings.append(
            Finding(
                "notice",
                "schema_not_applied",
                "Relevo's schema is not applied yet",
                "relevo migrate applies it; a dry run wants it before: relevo db up",
            )
        )
        findings += await _foreign_shapes(connection)
    return findings


async def _foreign_shapes(connection: Connection) -> list[Finding]:
    """Tables that already bear our names and are something else."""
    return [
        Finding(
            "blocker",
            "foreign_shape",
            f"public.{row['table']} exists already, and its column {row['column']} {row['difference']}",
            "rename that table, or give it the column as expected",
        )
        for row in await every(connection, statement("db", "foreign_shapes"))
    ]


def _of_table(source: Source, fact: dict[str, Any]) -> list[Finding]:
    """A table that is absent, closed to us, or that hides rows from us."""
    if fact["oid"] is None:
        return [
            Finding(
                "blocker",
                "table_missing",
                f"there is no table {source.name}, from which {source.kind} are read",
                f'name the table in relevo.toml: [source.{source.kind}] table = "…"',
            )
        ]
    if denied := _denied(source, fact):
        return [denied]
    findings = []
    if source.kind != "tenants" and not fact["is_table"] and not fact["stands_in"]:
        findings.append(
            Finding(
                "blocker",
                "not_a_table",
                f"{source.name} is a view or a foreign table, so its rows can be neither locked nor given a column",
                f'name the table behind it in relevo.toml: [source.{source.kind}] table = "…"',
            )
        )
    elif not fact["may_alter"] and (unable := _unable(source, fact)):
        findings.append(
            Finding(
                "blocker",
                "not_owner",
                f"{source.name} belongs to another role, so {unable}",
                f"connect as the owner of {source.name}, or as a member of that role",
            )
        )
    if fact["rls_hides_rows"]:
        findings.append(
            Finding(
                "blocker",
                "rows_hidden",
                f"row level security of {source.name} may hide rows from this role, in silence",
                "connect as the owner, or give the role BYPASSRLS",
            )
        )
    return findings


def _unable(source: Source, fact: dict[str, Any]) -> str | None:
    """What only an owner can do to the table, and the move must; None: nothing."""
    if source.kind == "configurations":
        return "dual write cannot put its triggers on it"
    if source.kind == "calls" and not fact["has_our_columns"]:
        return "its columns outcome and agent_version cannot be added"
    return None


def _denied(source: Source, fact: dict[str, Any]) -> Finding | None:
    """The first right that is missing; None when all are there."""
    if not fact["may_enter"]:
        right, on = "USAGE", f"schema {source.schema}"
    elif not fact["may_read"]:
        right, on = "SELECT", source.name
    elif source.kind != "tenants" and not fact["may_update"]:  # configurations are read FOR SHARE, which asks for it
        right, on = "UPDATE", source.name
    else:
        return None
    return Finding(
        "blocker",
        "no_privilege",
        f"this role lacks the right {right} on {on}",
        f"GRANT {right} ON {on} to it, or connect as the owner",
    )


async def _of_columns(connection: Connection, source: Source) -> list[Finding]:
    """Each logical field must be a column, or an expression that PostgreSQL understands."""
    found = await every(connection, statement("migration", "columns"), {"schema": source.schema, "table": source.table})
    columns = [row["column"] for row in found]
    missing = [
        Finding(
            "blocker",
            "column_missing",
            f"{source.name} has no column {logical}.{nearest(logical, columns)}",
            f'say where it is in relevo.toml: [source.{source.kind}.fields] {logical} = "…"',
        )
        for logical in source.types
        if logical not in source.fields and logical not in columns
    ]
    wrong = [await _of_expression(connection, source, logical) for logical in source.fields]
    found_wrong = [*missing, *(finding for finding in wrong if finding)]
    return found_wrong or await _of_types(connection, source)


async def _of_types(connection: Connection, source: Source) -> list[Finding]:
    """A column whose type PostgreSQL cannot make into what it should be."""
    try:
        async with connection.transaction():
            await every(connection, statement("migration", "probe", rows=source.rows()))
    except psycopg.ProgrammingError as error:
        return [
            Finding(
                "blocker",
                "cannot_be_read",
                f"{source.name} cannot be read as it should be: {error.diag.message_primary}",
                f"say how to read that column in relevo.toml: [source.{source.kind}.fields]",
            )
        ]
    return []


async def _of_expression(connection: Connection, source: Source, logical: str) -> Finding | None:
    """What is wrong with one mapped field. Raises ConfigurationError for what is no SQL at all."""
    where = f"source.{source.kind}.fields.{logical}"
    probe = sql.SQL("SELECT {} FROM {} AS v1 LIMIT 0").format(source.read(logical), source.relation)
    try:
        async with connection.transaction():
            await every(connection, probe)
    except psycopg.errors.SyntaxError as error:
        raise ConfigurationError(
            f"{where} does not parse: {error.diag.message_primary}: {source.fields[logical].read}",
            fix="write an SQL expression over the row, which is called v1",
        ) from error
    except psycopg.Error as error:
        return Finding(
            "blocker",
            "expression_fails",
            f"{where} does not work: {error.diag.message_primary}: {source.fields[logical].read}",
            error.diag.message_hint or "correct the expression; the row is called v1, other tables need their schema",
        )
    return None
