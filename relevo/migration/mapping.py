"""Where the v1 rows are: a table per kind of row, and an expression per logical field.

The default mapping is the specification's names; ``[source]`` in relevo.toml says where a platform differs.
Everything that reads v1 reads it through ``rows()``, a subselect with the logical fields as columns, so that no
statement knows what a platform calls its columns. Expressions see the table as ``v1``.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as Table
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from psycopg import sql

from relevo.db.statements import identifier
from relevo.errors import ConfigurationError, nearest

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
CONTACT_FIELDS: Table[str, str] = MappingProxyType(
    {
        "time_zone": "text",
        "email": "text",
        "phone_number": "text",
        "human_phone_number": "text",  # where a person of the business answers
    }
)


@dataclass(frozen=True, slots=True)
class Field:
    """How one logical field is read from the table, and how a value is written back."""

    read: str  # an SQL expression over the columns of v1
    write: Table[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Column -> SQL expression of ``{value}``; empty where nothing can be written back."""


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of v1 row: its table and how each logical field is read from it."""

    kind: str  # configurations, calls, tenants
    types: Table[str, str]  # logical field -> SQL type
    schema: str
    table: str
    fields: Table[str, Field] = field(default_factory=lambda: MappingProxyType({}))
    """Logical fields that are not simply a column of the same name."""
    optional: Table[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Further logical fields that a platform may map, and whose absence is no fault."""
    defaults: Table[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Column -> SQL expression, for columns that v1 requires and Relevo knows nothing of."""

    @property
    def name(self) -> str:
        """The table as people write it."""
        return f"{self.schema}.{self.table}"

    @property
    def relation(self) -> sql.Identifier:
        """The table, quoted."""
        return identifier(self.schema, self.table)

    def read(self, logical: str) -> sql.Composed:
        """One logical field, as an expression over the table's own columns."""
        mapped = self.fields.get(logical)
        # Statements go through psycopg's placeholders, where a percent sign is written twice.
        value = sql.SQL(mapped.read.replace("%", "%%")) if mapped else sql.Identifier("v1", logical)
        type_name = self.types.get(logical) or self.optional[logical]
        return sql.SQL("({})::{}").format(value, sql.SQL(type_name))

    def rows(self, also: Iterable[str] = ()) -> sql.Composed:
        """The table as a subselect with the logical fields as columns, and any of ours named in ``also``."""
        return self.rows_of(self.relation, also)

    def rows_of(self, relation: sql.Composable, also: Iterable[str] = ()) -> sql.Composed:
        """The same of another relation with the table's columns, such as the rows that a statement wrote."""
        read = [sql.SQL("{} AS {}").format(self.read(name), sql.Identifier(name)) for name in self.types]
        own = [sql.Identifier("v1", name) for name in also]
        return sql.SQL("(SELECT {} FROM {} AS v1)").format(sql.SQL(", ").join([*read, *own]), relation)


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

    def fill_answers(self) -> dict[str, sql.Composable]:
        """The same for what both versions say to a caller: see relevo.tenants.answer."""
        tenants = self.tenants
        zone = tenants.read("time_zone") if "time_zone" in tenants.fields else sql.NULL
        own = {"tenants_table": tenants.relation, "tenant_id": tenants.read("id"), "time_zone": zone}
        return {"configurations": self.configurations.rows(), "tenants": tenants.rows(), **own}


DEFAULT = SourceMapping(
    configurations=Source("configurations", CONFIGURATION_FIELDS, "public", "voice_agent_config"),
    calls=Source("calls", CALL_FIELDS, "public", "voice_calls"),
    tenants=Source("tenants", TENANT_FIELDS, "public", "businesses", optional=CONTACT_FIELDS),
)


def from_settings(tables: Table[str, Any]) -> SourceMapping:
    """The mapping that ``[source]`` describes, on top of the default.

    Raises ConfigurationError naming the key, and the nearest one that exists.
    """
    known = {source.kind: source for source in DEFAULT.sources}
    _require_known("source", tables, known)
    return SourceMapping(**{kind: _source(base, tables.get(kind, {})) for kind, base in known.items()})


def _source(base: Source, table: Table[str, Any]) -> Source:
    where = f"source.{base.kind}"
    _require_known(where, table, ("table", "fields", "defaults"))
    schema, _, name = _text(f"{where}.table", table.get("table", base.name)).rpartition(".")
    fields = table.get("fields", {})
    _require_known(f"{where}.fields", fields, (*base.types, *base.optional))
    return replace(
        base,
        schema=schema or "public",
        table=name,
        fields=MappingProxyType({key: _field(f"{where}.fields.{key}", value) for key, value in fields.items()}),
        defaults=_texts(f"{where}.defaults", table.get("defaults", {})),
    )


def _field(where: str, value: object) -> Field:
    if isinstance(value, str):
        return Field(_text(where, value))
    _require_known(where, value, ("read", "write"))
    if not isinstance(value, dict) or "read" not in value:
        raise ConfigurationError(f"{where} says nothing of how to read it", fix=f'add {where}.read = "an expression"')
    return Field(_text(f"{where}.read", value["read"]), _texts(f"{where}.write", value.get("write", {})))


def _texts(where: str, value: object) -> Table[str, str]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where} is not a table", fix=f'write [{where}] and below it column = "expression"')
    return MappingProxyType({key: _text(f"{where}.{key}", each) for key, each in value.items()})


def _text(where: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip() or ";" in value:
        raise ConfigurationError(f"{where} is not an SQL expression: {value!r}", fix="write one expression, in quotes")
    return value


def _require_known(where: str, table: object, known: Iterable[str]) -> None:
    if not isinstance(table, dict):
        raise ConfigurationError(f"{where} is not a table", fix=f"write [{where}] and its keys below")
    names = list(known)
    for key in table:
        if key not in names:
            raise ConfigurationError(
                f"{where} knows no {key!r}.{nearest(key, names)}", fix=f"one of: {', '.join(names)}"
            )
