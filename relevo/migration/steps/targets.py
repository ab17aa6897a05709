"""What a backup holds: the v1 tables that the move touches, and all that Relevo keeps of a configuration.

Left out, because it is not data of a moment: the flag (it has levels, a history and a version of its own, and setting
it back could put a tenant on a v2 row that is gone), runs, audit log and other history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from psycopg import sql

from relevo.db.pool import Connection, every, first, one
from relevo.db.statements import identifier, statement
from relevo.migration.mapping import SourceMapping
from relevo.migration.run import BackupCalls

# calls: rows that come by themselves and are kept by a restore. catalogue: rows that belong to no tenant.
Role = Literal["rows", "calls", "catalogue"]
# Ours that have a row per configuration; one that is not there yet is passed over.
_OF_CONFIGURATIONS = (
    "config_origins",
    "overrides",
    "verifications",
    "quarantine",
    "v2_edits",
    "mirror_queue",
    "mirror_conflicts",
)


@dataclass(frozen=True, slots=True)
class Target:
    """A table to back up, and which of its rows belong to a list of tenants."""

    schema: str
    table: str
    of_tenants: sql.Composable  # a condition on v1 with %(tenant_ids)s and %(config_ids)s
    tenant: sql.Composable = field(
        default_factory=lambda: sql.SQL("NULL::uuid")
    )  # an expression of v1: whose row it is
    role: Role = "rows"
    only: tuple[str, ...] | None = None  # columns; None: all of them

    @property
    def name(self) -> str:
        """The table as people write it."""
        return f"{self.schema}.{self.table}"

    @property
    def relation(self) -> sql.Identifier:
        """The table, quoted."""
        return identifier(self.schema, self.table)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose rows: the parameters of every condition ``of_tenants``."""

    tenant_ids: list[UUID] | None = None  # None: everybody's
    config_ids: list[str] | None = None  # the configurations of these tenants, in v1, v2 and the copies concerned

    @property
    def parameters(self) -> dict[str, object]:
        """As statements take them."""
        return {"tenant_ids": self.tenant_ids, "config_ids": self.config_ids}


async def targets(connection: Connection, mapping: SourceMapping, calls: BackupCalls) -> list[Target]:
    """The tables that are there, parents of v2 before their children."""
    only = await _columns_of_calls(connection, mapping, calls)
    v2_owner = sql.Identifier("v1", "business_id")
    of_configuration = sql.SQL("%(tenant_ids)s::uuid[] IS NULL OR v1.config_id::text = ANY (%(config_ids)s::text[])")
    wanted = [
        _of_source(
            mapping.configurations.schema, mapping.configurations.table, mapping.configurations.read("business_id")
        ),
        _of_source(mapping.calls.schema, mapping.calls.table, mapping.calls.read("business_id"), "calls", only),
        Target("public", "voice_assistant_types", sql.SQL("true"), role="catalogue"),
        _of_source("public", "voice_assistant_configs", v2_owner),
        _of_source("public", "voice_assistant_metrics", v2_owner),
        *(Target("relevo", table, of_configuration) for table in _OF_CONFIGURATIONS),
    ]
    there = {
        (row["schema"], row["table"])
        for row in await every(
            connection,
            statement("backup", "present"),
            {"schemas": [each.schema for each in wanted], "tables": [each.table for each in wanted]},
        )
    }
    return [each for each in wanted if (each.schema, each.table) in there]


async def scope_of(
    connection: Connection, mapping: SourceMapping, tenant_ids: Sequence[UUID] | None, *copies: sql.Composable
) -> Scope:
    """The scope of these tenants. ``copies``: further subselects of id and business_id."""
    if tenant_ids is None:
        return Scope()
    more = sql.SQL("").join(sql.SQL(" UNION {}").format(each) for each in copies)
    query = statement("backup", "configs_of_tenants", more=more, **mapping.fill())
    row = await one(connection, query, {"tenant_ids": list(tenant_ids)})
    return Scope(list(tenant_ids), row["config_ids"])


def _of_source(
    schema: str, table: str, owner: sql.Composable, role: Role = "rows", only: tuple[str, ...] | None = None
) -> Target:
    mine = sql.SQL("%(tenant_ids)s::uuid[] IS NULL OR {} = ANY (%(tenant_ids)s::uuid[])").format(owner)
    return Target(schema, table, mine, owner, role, only)


async def _columns_of_calls(
    connection: Connection, mapping: SourceMapping, calls: BackupCalls
) -> tuple[str, ...] | None:
    """The columns of calls to copy: all of them, or the key and what the move writes, where there is a key."""
    if calls == "all":
        return None
    where = {"schema": mapping.calls.schema, "table": mapping.calls.table}
    row = await first(connection, statement("backup", "touched_columns"), where)
    return tuple(row["names"]) if row and row["has_key"] else None
