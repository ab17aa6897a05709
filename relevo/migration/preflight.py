"""Everything that would make the move fail or lose something: what, how many, which, and how to mend it.

Structure (tables, columns, privileges) can block. Defects of rows never do: such rows are set aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from relevo.db import migrations
from relevo.db.pool import Connection, Database, every, one
from relevo.db.statements import statement
from relevo.errors import SchemaMissing, UnknownName, nearest
from relevo.migration import structure as structural
from relevo.migration import surroundings
from relevo.migration.findings import Finding, Severity, blockers, refuse_blocked
from relevo.migration.mapping import SourceMapping


@dataclass(frozen=True, slots=True)
class _Defect:
    message: str  # before the count
    fix: str
    severity: Severity = "warning"


__all__ = ["Finding", "blockers", "inspect", "refuse_blocked", "require_tenants", "rows", "structure"]

# What relevo.white_space() says, which is not there before the schema is.
_WHITE = {
    "white_space": sql.Literal(
        " \t\n\v\f\r\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f"
        "\u205f\u3000\ufeff"
    )
}
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
        "config_without_id": _Defect(
            "configurations without an id, which cannot be told apart and stay where they are", "give each row an id"
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
        return await structural.of_v1(connection, mapping)


async def inspect(
    database: Database,
    mapping: SourceMapping,
    *,
    tenant_ids: Sequence[UUID] | None = None,
    free_bytes: int | None = None,
) -> list[Finding]:
    """Everything found, blockers first. Where the structure blocks, the rows are not looked at.

    ``free_bytes``: room on the database's disk; None where it cannot be known.
    """
    findings = await surroundings.of_connection(database)
    async with database.transaction(read_only=True, snapshot=True) as connection:
        findings += await structural.of_v1(connection, mapping)
        if not blockers(findings):
            findings += await surroundings.of_tables(connection, mapping, free_bytes)
            findings += await rows(connection, mapping, tenant_ids=tenant_ids)
    order = ("blocker", "warning", "notice")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


async def rows(connection: Connection, mapping: SourceMapping, *, tenant_ids: Sequence[UUID] | None) -> list[Finding]:
    """Defects of the rows in scope, all of them counted, and what v2 already holds."""
    scope = {"tenant_ids": list(tenant_ids) if tenant_ids is not None else None}
    try:
        async with connection.transaction():
            defects = await every(connection, statement("migration", "defects", **_WHITE, **mapping.fill()), scope)
    except psycopg.DataError as error:
        return [
            Finding(
                "blocker",
                "unreadable_value",
                f"a value of v1 cannot be read: {error.diag.message_primary}",
                "correct it, or say in relevo.toml how to read it: [source]",
            )
        ]
    findings = [_of_defect(row["code"], row["many"], tuple(map(str, row["first"]))) for row in defects]
    try:
        await migrations.require(connection)
    except SchemaMissing:
        return findings
    return [
        *findings,
        *await _unruled_verticals(connection, mapping, scope),
        *await _present_in_v2(connection, scope),
        *await surroundings.of_outcomes(connection, mapping, tenant_ids),
    ]


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


def _of_defect(code: str, many: int, examples: tuple[str, ...]) -> Finding:
    defect = _DEFECTS[code]
    return Finding(defect.severity, code, f"{defect.message}: {many:,}", defect.fix, many, examples)


async def _unruled_verticals(connection: Connection, mapping: SourceMapping, scope: dict[str, Any]) -> list[Finding]:
    known = [row["vertical"] for row in await every(connection, statement("migration", "verticals_known"))]
    query = statement("migration", "verticals_without_rules", **_WHITE, **mapping.fill())
    verticals = await every(connection, query, {**scope, "known": known})
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
