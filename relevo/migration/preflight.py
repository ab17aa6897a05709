"""Everything that would make the move fail or lose something: what, how many, which, and how to mend it.

Structure (tables, columns, privileges) can block. Defects of rows never do: such rows are set aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from relevo.db import migrations
from relevo.db.pool import Connection, Database, every, one
from relevo.db.statements import statement
from relevo.errors import Refused, SchemaMissing, UnknownName, nearest
from relevo.migration.mapping import Source, SourceMapping

Severity = Literal["blocker", "warning", "notice"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found."""

    severity: Severity
    code: str
    message: str
    fix: str
    count: int = 1
    examples: tuple[str, ...] = ()  # the first ten


@dataclass(frozen=True, slots=True)
class _Defect:
    message: str  # before the count
    fix: str
    severity: Severity = "warning"


_SET_ASIDE = "the configuration is set aside in quarantine until this is corrected"
_DEFECTS: Mapping[str, _Defect] = MappingProxyType(
    {
        "config_without_business": _Defect("configurations that name no business", f"set their business; {_SET_ASIDE}"),
        "config_with_unknown_business": _Defect(
            "configurations that name a business that does not exist",
            f"correct it or add the business; {_SET_ASIDE}",
        ),
        "config_without_vertical": _Defect(
            "configurations of a business without a vertical", f"set its vertical; {_SET_ASIDE}"
        ),
        "duplicate_config_id": _Defect(
            "configuration ids that occur more than once, so that rows cannot be told apart",
            "give each row its own id",
            "blocker",
        ),
        "duplicate_business_id": _Defect(
            "business ids that occur more than once, so that a configuration's vertical is ambiguous",
            "give each business its own id",
            "blocker",
        ),
        "duplicate_phone_number": _Defect(
            "phone numbers of several active configurations",
            "deactivate all but one: a call to that number has no single owner",
        ),
        "duplicate_assistant": _Defect(
            "Vapi assistants of several active configurations",
            "deactivate all but one: a call of that assistant has no single owner",
        ),
        "several_active_configs": _Defect(
            "businesses with several active configurations",
            "deactivate all but one, unless each has its own number",
        ),
        "call_without_business": _Defect(
            "calls that name no business", "they keep their outcome, and count in nobody's figures"
        ),
        "call_with_unknown_business": _Defect(
            "calls that name a business that does not exist",
            "add the business, or leave the calls as history",
        ),
        "duplicate_vapi_call_id": _Defect(
            "Vapi call ids of several calls", "keep one row per call; figures count each row"
        ),
    }
)


async def structure(database: Database, mapping: SourceMapping) -> list[Finding]:
    """What the catalogue alone tells. Reads nothing of the tables."""
    async with database.transaction(read_only=True) as connection:
        return await _structure(connection, mapping)


async def inspect(
    database: Database, mapping: SourceMapping, *, tenant_ids: Sequence[UUID] | None = None
) -> list[Finding]:
    """Everything found, blockers first. Where the structure blocks, the rows are not looked at."""
    async with database.transaction(read_only=True, snapshot=True) as connection:
        findings = await _structure(connection, mapping)
        if not blockers(findings):
            findings += await rows(connection, mapping, tenant_ids=tenant_ids)
    order = ("blocker", "warning", "notice")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


async def rows(connection: Connection, mapping: SourceMapping, *, tenant_ids: Sequence[UUID] | None) -> list[Finding]:
    """Defects of the rows in scope, all of them counted, and what v2 already holds."""
    scope = {"tenant_ids": list(tenant_ids) if tenant_ids is not None else None}
    defects = await every(connection, statement("migration", "defects", **mapping.fill()), scope)
    findings = [_of_defect(row["code"], row["many"], tuple(map(str, row["first"]))) for row in defects]
    try:
        await migrations.require(connection)
    except SchemaMissing:
        return findings
    return [
        *findings,
        *await _unruled_verticals(connection, mapping, scope),
        *await _present_in_v2(connection, scope),
    ]


def blockers(findings: Sequence[Finding]) -> list[Finding]:
    """Those that stop the move."""
    return [finding for finding in findings if finding.severity == "blocker"]


def refuse_blocked(findings: Sequence[Finding]) -> None:
    """Raises Refused, naming the first blocker and how to mend it."""
    if found := blockers(findings):
        more = f" (and {len(found) - 1} more: relevo preflight lists them)" if len(found) > 1 else ""
        raise Refused(f"{found[0].message}{more}", fix=found[0].fix)


async def require_tenants(database: Database, mapping: SourceMapping, tenant_ids: Sequence[UUID] | None) -> None:
    """Raises UnknownName, with the nearest ids, for a tenant that has neither business nor configuration."""
    if tenant_ids is None:
        return
    async with database.transaction(read_only=True) as connection:
        query = statement("migration", "unknown_tenants", **mapping.fill())
        unknown = await every(connection, query, {"tenant_ids": list(tenant_ids)})
        if not unknown:
            return
        query = statement("migration", "some_tenants", **mapping.fill())
        known = [row["id"] for row in await every(connection, query)]
    names = ", ".join(str(row["id"]) for row in unknown)
    raise UnknownName(f"there is no tenant {names}.{nearest(str(unknown[0]['id']), known)}", fix="correct --tenant-ids")


async def _structure(connection: Connection, mapping: SourceMapping) -> list[Finding]:
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
    return findings


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
    if not fact["may_enter"] or not fact["may_read"]:
        return [_denied(source, "SELECT")]
    findings = []
    if source.kind == "calls" and not fact["may_alter"]:
        findings.append(
            Finding(
                "blocker",
                "not_owner",
                f"{source.name} belongs to another role, so its column outcome cannot be added",
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


def _denied(source: Source, right: str) -> Finding:
    return Finding(
        "blocker",
        "no_privilege",
        f"this role may not {right} from {source.name}",
        f"GRANT {right} ON {source.name} to it, or connect as the owner",
    )


async def _of_columns(connection: Connection, source: Source) -> list[Finding]:
    """Each logical field must be a column, or be mapped to an expression."""
    found = await every(connection, statement("migration", "columns"), {"schema": source.schema, "table": source.table})
    columns = [row["column"] for row in found]
    return [
        Finding(
            "blocker",
            "column_missing",
            f"{source.name} has no column {logical}.{nearest(logical, columns)}",
            f'say where it is in relevo.toml: [source.{source.kind}.fields] {logical} = "…"',
        )
        for logical in source.types
        if logical not in source.fields and logical not in columns
    ]


def _of_defect(code: str, many: int, examples: tuple[str, ...]) -> Finding:
    defect = _DEFECTS[code]
    return Finding(defect.severity, code, f"{defect.message}: {many:,}", defect.fix, many, examples)


async def _unruled_verticals(connection: Connection, mapping: SourceMapping, scope: dict[str, Any]) -> list[Finding]:
    known = [row["vertical"] for row in await every(connection, statement("migration", "verticals_known"))]
    verticals = await every(
        connection, statement("migration", "verticals_without_rules", **mapping.fill()), {**scope, "known": known}
    )
    if not verticals:
        return []
    total = sum(row["many"] for row in verticals)
    examples = tuple(f"{row['vertical']} ({row['many']})" for row in verticals[:10])
    return [
        Finding(
            "warning",
            "vertical_without_rules",
            f"businesses of a vertical without rules, which become VERTICAL_basic: {total:,}",
            "correct a misspelt vertical, or draft rules for it",
            total,
            examples,
        )
    ]


async def _present_in_v2(connection: Connection, scope: dict[str, Any]) -> list[Finding]:
    row = await one(connection, statement("migration", "v2_rows"), scope)
    findings = []
    if row["by_relevo"]:
        findings.append(
            Finding(
                "notice",
                "already_moved",
                f"configurations in v2 from an earlier run: {row['by_relevo']:,}",
                "nothing to do: they are skipped",
                row["by_relevo"],
            )
        )
    if row["by_others"]:
        findings.append(
            Finding(
                "warning",
                "foreign_rows_in_v2",
                f"configurations in v2 that Relevo did not write: {row['by_others']:,}",
                "they are left as they are; verification reports those that do not follow from v1",
                row["by_others"],
            )
        )
    return findings
