"""What writes a finished call into the platform's own table: a function of the database, generated from the mapping.

``relevo.record_messages`` calls it in the transaction that records the call. Where an upstream handler writes its own
rows, they are only annotated, with outcome and agent version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from psycopg import sql

from relevo import events
from relevo.db.patience import patiently
from relevo.db.pool import Connection, Database, every, first, one
from relevo.db.statements import statement
from relevo.errors import Refused
from relevo.migration.mapping import Source, SourceMapping
from relevo.migration.source import writes

# Logical field -> its value, out of the call.
_VALUES: Mapping[str, str] = MappingProxyType(
    {
        "business_id": "call.tenant_id::uuid",
        "vapi_call_id": "call.call_id",
        "status": "call.status",
        "started_at": "call.started_at",
        "duration_seconds": "(call.duration_ms / 1000.0)",
        "avg_latency_ms": "call.latency_ms::numeric",
    }
)
# Rows of ours are found again by an id made from the call's; it needs no index and no column more.
_ID = "md5('relevo ' || call.call_id)::uuid"
_OUR_ID_TYPES = ("uuid", "text", "character varying")


@dataclass(frozen=True, slots=True)
class Writer:
    """How finished calls reach the platform's table."""

    table: str
    inserts_for: tuple[str, ...]  # served versions whose rows Relevo writes itself
    looks_up: bool  # whether rows that others wrote are found: by their Vapi call id, which has an index
    outcomes_refused: tuple[str, ...]  # words that the outcome column does not take; such a call gets none


async def install(
    database: Database,
    mapping: SourceMapping,
    *,
    annotate: Collection[str] = (),
    emit: events.Sink = events.silent,
) -> Writer | None:
    """Make the function, unless it is as it should be; None where the platform has no table of calls.

    ``annotate``: the versions (v1, v2) whose upstream handler writes rows itself. Adds the columns ``outcome`` and
    ``agent_version`` where they are missing, as the move does. Raises Refused for a column that demands a value nobody
    gives, and for rows to annotate that could only be found by reading the whole table.
    """
    calls = mapping.calls
    async for attempt in patiently(emit, f"{calls.name} is locked by others"):
        with attempt:
            async with database.transaction(patient=True) as connection:
                await connection.execute(statement("db", "lock_schema"))
                columns = await _columns(connection, calls)
                if not columns:
                    return None
                if not {"outcome", "agent_version"} <= columns.keys():
                    await connection.execute(statement("migration", "add_call_columns", calls_table=calls.relation), {})
                    columns = await _columns(connection, calls)
                writer, function = await _generated(connection, calls, columns, annotate)
                await _replace(connection, function)
    return writer


async def _columns(connection: Connection, calls: Source) -> dict[str, dict[str, Any]]:
    where = {"schema": calls.schema, "table": calls.table}
    return {row["name"]: row for row in await every(connection, statement("metrics", "platform_columns"), where)}


async def _replace(connection: Connection, function: sql.Composed) -> None:
    text = function.as_string()
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    known = await first(connection, statement("metrics", "writer_installed"))
    if known is None or known["fingerprint"] != fingerprint:
        await connection.execute(text.encode(), {})
        await connection.execute(statement("metrics", "writer_stored"), {"fingerprint": fingerprint})


async def _generated(
    connection: Connection, calls: Source, columns: Mapping[str, dict[str, Any]], annotate: Collection[str]
) -> tuple[Writer, sql.Composed]:
    carried = writes(calls, columns)
    outcome, refused = await _outcome(connection, calls)
    ours = _assigned(carried, columns) | {"outcome": outcome, "agent_version": sql.SQL("call.served_version")}
    key = _key(carried, columns)
    indexed = any(columns[name]["indexed"] for name in carried.get("vapi_call_id", ()))
    inserts_for = tuple(version for version in ("v1", "v2") if version not in annotate)
    if annotate and not indexed:
        raise Refused(
            f"{calls.name} has no index on the Vapi call id, by which rows to annotate are found",
            fix=f"CREATE INDEX CONCURRENTLY ON {calls.name} (vapi_call_id)",
        )
    new = ours | {name: _raw(value) for name, value in calls.defaults.items() if name not in ours} | key
    if inserts_for:
        _require_all(calls, new, columns)
    theirs = sql.SQL("{} = call.call_id").format(calls.read("vapi_call_id"))
    by_id = [sql.SQL("{} = {}").format(sql.Identifier("v1", name), value) for name, value in key.items()]
    notes = {
        "outcome": sql.SQL("coalesce(v1.outcome, {})").format(outcome),
        "agent_version": sql.SQL("call.served_version"),
    }
    function = statement(
        "voice_calls",
        "install_writer",
        table=calls.relation,
        changes=_set(ours),
        ours=by_id[0]
        if by_id
        else sql.SQL("call.served_version = ANY ({}) AND {}").format(_array(inserts_for), theirs),
        look_up=sql.SQL("true" if indexed else "false"),
        notes=_set(notes),
        theirs=theirs,
        may_insert=sql.SQL("call.served_version = ANY ({})").format(_array(inserts_for)),
        columns=sql.SQL(", ").join(map(sql.Identifier, new)),
        values=sql.SQL(", ").join(new.values()),
    )
    return Writer(calls.name, inserts_for, indexed, refused), function


def _assigned(
    carried: Mapping[str, Mapping[str, str]], columns: Mapping[str, dict[str, Any]]
) -> dict[str, sql.Composable]:
    """Column -> what of the call is written to it, cast to the column's type."""
    found: dict[str, sql.Composable] = {}
    for logical, value in _VALUES.items():
        for column, expression in carried.get(logical, {}).items():
            written: sql.Composable = _raw(expression.replace("{value}", value))
            if column in columns:
                written = sql.SQL("({})::{}").format(written, _raw(columns[column]["type"]))
            found[column] = written
    return found


def _key(carried: Mapping[str, Mapping[str, str]], columns: Mapping[str, dict[str, Any]]) -> dict[str, sql.Composable]:
    """The id that a row of ours gets; none where the table numbers its rows itself."""
    for column in carried.get("id", {}):
        kind = columns[column]["type"].split("(")[0]
        if kind in _OUR_ID_TYPES and not columns[column]["made_by_itself"]:
            return {column: _raw(f"({_ID})::{columns[column]['type']}")}
    return {}


async def _outcome(connection: Connection, calls: Source) -> tuple[sql.Composable, tuple[str, ...]]:
    """The outcome as the platform's own column takes it, and the words that it does not take."""
    where = {"schema": calls.schema, "table": calls.table}
    column = await one(connection, statement("migration", "outcome_column"), where)
    if column["type"] == "text" and not column["checks"]:
        return sql.SQL("call.outcome"), ()
    words = [row["outcome"] for row in await every(connection, statement("metrics", "outcome_words"))]
    checks = [sql.SQL("coalesce(({}), true)").format(_raw(check)) for check in column["checks"] or []]
    query = statement(
        "migration",
        "words_taken",
        type=_raw(column["type"]),
        checks=sql.SQL(" AND ").join(checks) if checks else sql.SQL("true"),
    )
    taken = (await one(connection, query, {"words": words, "labels": column["words"]}))["words"] or []
    value = sql.SQL("CASE WHEN call.outcome = ANY ({}) THEN call.outcome::{} END").format(
        _array(taken), _raw(column["type"])
    )
    return value, tuple(word for word in words if word not in taken)


def _require_all(calls: Source, given: Iterable[str], columns: Mapping[str, dict[str, Any]]) -> None:
    missing = [name for name, column in columns.items() if column["demanded"] and name not in set(given)]
    if missing:
        raise Refused(
            f"{calls.name} demands {', '.join(missing)}, which a recorded call does not have",
            fix=f'add to relevo.toml, under [source.calls.defaults]: {missing[0]} = "an expression"',
        )


def _set(assigned: Mapping[str, sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(column), value) for column, value in assigned.items()
    )


def _array(words: Iterable[str]) -> sql.Composable:
    return sql.SQL("ARRAY[{}]::text[]").format(sql.SQL(", ").join(map(sql.Literal, words)))


def _raw(expression: str) -> sql.SQL:
    """An expression of the platform; statements go through placeholders, where a percent sign is written twice."""
    return sql.SQL(expression.replace("%", "%%"))
