"""A mapping proposed for what a database holds: a file to read, correct and keep as relevo.toml.

Names decide, nearest first; a guess is marked as one. Nothing is proposed that the default mapping finds by itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from relevo.db.pool import Database, every
from relevo.db.statements import statement
from relevo.migration.mapping import DEFAULT, Source

Tables = Mapping[str, Mapping[str, str]]  # schema.table -> column -> type

# What platforms call the same thing.
_OTHER_NAMES: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "configurations": ("voice_agents", "assistants", "voice_assistants", "agent_config", "vapi_assistants"),
        "calls": ("calls", "call_logs", "vapi_calls", "phone_calls"),
        "tenants": ("tenants", "clients", "accounts", "organizations", "companies", "customers"),
        "business_id": ("tenant_id", "client_id", "account_id", "organization_id", "company_id", "customer_id"),
        "vapi_assistant_id": ("assistant_id", "vapi_id"),
        "phone_number_id": ("vapi_phone_number_id", "phone_id", "number_id"),
        "assistant_name": ("name", "display_name"),
        "system_prompt": ("prompt", "instructions", "system_message"),
        "voice_id": ("voice", "elevenlabs_voice_id"),
        "first_message": ("greeting", "welcome_message"),
        "is_active": ("active", "enabled", "is_enabled", "habilitado", "activo", "status", "estado"),
        "created_at": ("created", "inserted_at", "creado_en"),
        "updated_at": ("updated", "modified_at", "actualizado_en"),
        "vapi_call_id": ("call_id", "external_id", "provider_call_id"),
        "status": ("state", "call_status", "estado"),
        "started_at": ("start_time", "started", "called_at", "created_at"),
        "duration_seconds": ("duration", "duration_s", "call_duration"),
        "avg_latency_ms": ("latency_ms", "latency", "avg_latency", "mean_latency_ms"),
        "vertical": ("industry", "business_type", "type", "category", "giro"),
        "name": ("business_name", "display_name", "nombre"),
    }
)

# A status text instead of a boolean: the words of an active one are a guess.
_AS_BOOLEAN = "lower({}) IN ('active', 'activo', 'enabled', 'live', 'on')"


async def propose(database: Database) -> str:
    """The text of a relevo.toml that maps what is there; with a remark where it is a guess."""
    async with database.transaction(read_only=True) as connection:
        rows = await every(connection, statement("migration", "all_columns"))
    tables: dict[str, dict[str, str]] = {}
    for row in rows:
        tables.setdefault(row["table"], {})[row["column"]] = row["type"]
    return as_toml(tables)


def as_toml(tables: Tables) -> str:
    """The proposal for some tables, as the text of a file."""
    lines = ["# Proposed by relevo preflight --propose: read it, correct it, then run relevo preflight again."]
    for source in DEFAULT.sources:
        lines += _of_source(source, tables)
    return "\n".join(lines) + "\n"


def _of_source(source: Source, tables: Tables) -> Iterator[str]:
    table = _nearest_table(source, tables)
    yield ""
    yield f"[source.{source.kind}]"
    if table is None:
        yield f'# table = ""  # no table looks like {source.name}: name it'
        return
    if table != source.name:
        yield f"table = {_quoted(table)}  # a guess"
    fields = list(_fields(source, tables[table]))
    if fields:
        yield ""
        yield f"[source.{source.kind}.fields]"
        yield from fields


def _nearest_table(source: Source, tables: Tables) -> str | None:
    if source.name in tables:
        return source.name
    names = (source.table, *_OTHER_NAMES[source.kind])
    bare = {table.rpartition(".")[2].lower(): table for table in reversed(list(tables))}
    by_name = [bare[name] for name in names if name in bare]
    alike = [bare[name] for name in difflib.get_close_matches(source.table, list(bare), n=1, cutoff=0.7)]
    return next(iter([*by_name, *alike]), None)


def _fields(source: Source, columns: Mapping[str, str]) -> Iterator[str]:
    """A line for each logical field that is not a column of its own name."""
    for field, wanted in source.types.items():
        if field in columns:
            continue
        column = _nearest_column(field, columns)
        if column is None:
            yield f'{field} = "NULL"  # no column looks like it: name one, or leave it out of v2'
        elif wanted == "boolean" and columns[column] != "boolean":
            yield f"{field} = {_quoted(_AS_BOOLEAN.format(_name(column)))}  # a guess: which words mean active?"
        else:
            yield f"{field} = {_quoted(_name(column))}  # a guess, of type {columns[column]}"


def _nearest_column(field: str, columns: Mapping[str, str]) -> str | None:
    folded = {column.lower(): column for column in columns}
    for name in _OTHER_NAMES.get(field, ()):
        if name in folded:
            return folded[name]
    alike = difflib.get_close_matches(field, list(folded), n=1, cutoff=0.75)
    return folded[alike[0]] if alike else None


def _name(column: str) -> str:
    """A column as an SQL expression: quoted where PostgreSQL would read it otherwise."""
    plain = column.replace("_", "a").isalnum() and column == column.lower() and not column[0].isdigit()
    return column if plain else '"' + column.replace('"', '""') + '"'


def _quoted(text: str) -> str:
    """A TOML string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
