"""Where the v1 rows are: a table per kind of row, and an expression per logical field.

The default mapping is the specification's names. Everything that reads v1 reads it through ``rows()``, a
subselect with the logical fields as columns, so that no statement knows what a platform calls its columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as Table
from dataclasses import dataclass, field
from types import MappingProxyType

from psycopg import sql

CONFIGURATION_FIELDS: Table[str, str] = MappingProxyType(
    {
        "id": "uuid",
        "business_id": "uuid",
        "vapi_assistant_id": "text",
        "phone_number_id": "text",
        "assistant_name": "text",
        "system_prompt": "text",
        "voice_id": "text",
        "first_message": "text",
        "is_active": "boolean",
        "created_at": "timestamp with time zone",
        "updated_at": "timestamp with time zone",
    }
)
CALL_FIELDS: Table[str, str] = MappingProxyType(
    {
        "id": "text",
        "business_id": "uuid",
        "vapi_call_id": "text",
        "status": "text",
        "started_at": "timestamp with time zone",
        "duration_seconds": "numeric",
        "avg_latency_ms": "numeric",
    }
)
TENANT_FIELDS: Table[str, str] = MappingProxyType({"id": "uuid", "vertical": "text", "name": "text"})


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of v1 row: its table and how each logical field is read from it."""

    kind: str  # configurations, calls, tenants
    types: Table[str, str]  # logical field -> SQL type
    schema: str
    table: str
    expressions: Table[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Logical field -> SQL expression over the table's columns; a field not listed is a column of its own name."""

    @property
    def name(self) -> str:
        """The table as people write it."""
        return f"{self.schema}.{self.table}"

    @property
    def relation(self) -> sql.Identifier:
        """The table, quoted."""
        return sql.Identifier(self.schema, self.table)

    def read(self, logical: str) -> sql.Composed:
        """One logical field, as an expression over the table's own columns."""
        written = self.expressions.get(logical)
        value = sql.SQL(written) if written else sql.Identifier(logical)
        return sql.SQL("({})::{}").format(value, sql.SQL(self.types[logical]))

    def rows(self, also: Iterable[str] = ()) -> sql.Composed:
        """The table as a subselect with the logical fields as columns, and any of ours named in ``also``."""
        read = [sql.SQL("{} AS {}").format(self.read(name), sql.Identifier(name)) for name in self.types]
        fields = sql.SQL(", ").join([*read, *map(sql.Identifier, also)])
        return sql.SQL("(SELECT {} FROM {})").format(fields, self.relation)


@dataclass(frozen=True, slots=True)
class SourceMapping:
    """All of v1 that Relevo reads."""

    configurations: Source
    calls: Source
    tenants: Source

    @property
    def sources(self) -> tuple[Source, Source, Source]:
        """Configurations, calls, tenants."""
        return self.configurations, self.calls, self.tenants

    def fill(self) -> dict[str, sql.Composable]:
        """What the braces of a statement stand for."""
        return {source.kind: source.rows() for source in self.sources}


DEFAULT = SourceMapping(
    configurations=Source("configurations", CONFIGURATION_FIELDS, "public", "voice_agent_config"),
    calls=Source("calls", CALL_FIELDS, "public", "voice_calls"),
    tenants=Source("tenants", TENANT_FIELDS, "public", "businesses"),
)
