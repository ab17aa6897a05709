"""The source mapping as functions of the database, so that triggers and rules written in SQL see v1 as the move does.

They are made anew only when what would be generated has changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from psycopg import sql

from relevo.db.pool import Connection, every, first
from relevo.db.statements import identifier, statement
from relevo.migration.mapping import CONFIGURATION_FIELDS, CONTACT_FIELDS, TENANT_FIELDS, Field, Source, SourceMapping
from relevo.migration.steps.copy import derive_from
from relevo.migration.steps.verify import AS_MADE

# Whose rows were written, and how. Changes of a tenant are changes of its configurations on v1.
TRIGGER_FUNCTIONS = (
    *("v1_inserted", "v1_updated", "v1_deleted"),
    *("v2_inserted", "v2_updated", "v2_deleted"),
    *("tenants_inserted", "tenants_updated"),
)

_COLUMN = re.compile(r'^(?:v1\.)?(?:"((?:[^"]|"")+)"|([a-z_][a-z0-9_$]*))$')


async def install(connection: Connection, mapping: SourceMapping, now: datetime) -> bool:
    """Make the functions of ``relevo`` that read and write v1, and those that its triggers call, unless they are as
    they should be; returns whether they were made."""
    types = await column_types(connection, mapping.configurations)
    functions = [
        *_apart(statement("mirror_functions", "source_functions", **_fill(mapping, types))),
        *_trigger_functions(mapping),
    ]
    fingerprint = hashlib.sha256("".join(functions).encode()).hexdigest()
    await connection.execute(statement("db", "lock_schema"))
    known = await first(connection, statement("mirror", "installed_mapping"))
    if known is not None and known["fingerprint"] == fingerprint:
        return False
    await connection.execute(statement("mirror", "unchecked"), {})
    for function in functions:
        await connection.execute(function.encode(), {})
    await connection.execute(statement("mirror", "remember_mapping"), {"fingerprint": fingerprint, "now": now})
    return True


def writes(source: Source, columns: Iterable[str]) -> Mapping[str, Mapping[str, str]]:
    """Per logical field, the columns that carry it and the expression of ``{value}`` for each; fields that nothing can
    carry are absent. A field that is read from a bare column is written to it."""
    known = set(columns)
    found: dict[str, Mapping[str, str]] = {}
    for logical in source.types:
        mapped = source.fields.get(logical, Field(f'"{logical}"'))
        if mapped.write:
            found[logical] = mapped.write
        elif (bare := _COLUMN.match(mapped.read.strip())) and (name := _name_of(bare)) in known:
            found[logical] = {name: "{value}"}
    return found


def _name_of(bare: re.Match[str]) -> str:
    return bare[1].replace('""', '"') if bare[1] else bare[2]


async def column_types(connection: Connection, source: Source) -> dict[str, str]:
    """Column to SQL type of v1's table of configurations; empty where there is no such table."""
    where = {"schema": source.schema, "table": source.table}
    return {row["column"]: row["type"] for row in await every(connection, statement("mirror", "column_types"), where)}


def _fill(mapping: SourceMapping, types: Mapping[str, str]) -> dict[str, sql.Composable]:
    """What the braces of the generated functions stand for."""
    source = mapping.configurations
    carried = writes(source, types)
    inserted = _assignments(carried, types)
    columns = [*inserted, *(column for column in source.defaults if column not in inserted)]
    values = [_inserted(each) for each in inserted.values()]
    values += [sql.SQL("({})").format(_raw(source.defaults[c])) for c in columns if c not in inserted]
    return {
        "configurations": source.rows(),
        "tenants_table": mapping.tenants.relation,
        "tenant_columns": _tenant_columns(mapping.tenants),
        "derive": derive_from(mapping, sql.SQL("unnest(configs)"), AS_MADE),
        "configurations_table": source.relation,
        "id": source.read("id"),
        "writable": _array(carried),
        "insert_columns": sql.SQL(", ").join(identifier(column) for column in columns),
        "insert_values": sql.SQL(", ").join(values),
        "update_columns": sql.SQL(", ").join(_updated(column, each) for column, each in inserted.items()),
    }


def _assignments(
    carried: Mapping[str, Mapping[str, str]], types: Mapping[str, str]
) -> dict[str, list[tuple[str, sql.Composable]]]:
    """Per column of v1, the logical fields that are written to it, each with its expression, cast to the column."""
    found: dict[str, list[tuple[str, sql.Composable]]] = {}
    for logical, columns in carried.items():
        value = f"(written.config).{logical}"  # a name of ours, not the platform's
        for column, expression in columns.items():
            written = sql.SQL("({})").format(_raw(expression.replace("{value}", value)))
            if column in types:
                written = sql.SQL("({})::{}").format(written, sql.SQL(types[column].replace("%", "%%")))
            found.setdefault(column, []).append((logical, written))
    return found


def _inserted(written: list[tuple[str, sql.Composable]]) -> sql.Composable:
    """A new row's column: of several fields that share it, the last one's expression."""
    return written[-1][1]


def _updated(column: str, written: list[tuple[str, sql.Composable]]) -> sql.Composable:
    """A column keeps its value unless a field that it carries is among those written."""
    cases = [
        sql.SQL("WHEN {} = ANY (written.fields) THEN {}").format(sql.Literal(logical), value)
        for logical, value in written
    ]
    return sql.SQL("{0} = CASE {1} ELSE {2} END").format(
        identifier(column), sql.SQL(" ").join(cases), identifier("v1", column)
    )


def _tenant_columns(tenants: Source) -> sql.Composable:
    """The tenant's fields; a contact field that the platform did not map is empty."""
    mapped = [
        tenants.read(name) if name in TENANT_FIELDS or name in tenants.fields else sql.SQL("NULL::text")
        for name in (*TENANT_FIELDS, *CONTACT_FIELDS)
    ]
    return sql.SQL(", ").join(mapped)


def fields() -> sql.Composable:
    """Every logical field of a configuration, as an array."""
    return _array(CONFIGURATION_FIELDS)


def _array(names: Iterable[str]) -> sql.Composable:
    return sql.SQL("ARRAY[{}]::text[]").format(sql.SQL(", ").join(map(sql.Literal, names)))


def _raw(expression: str) -> sql.SQL:
    """An expression of the mapping; statements go through placeholders, where a percent sign is written twice."""
    return sql.SQL(expression.replace("%", "%%"))


def _trigger_functions(mapping: SourceMapping) -> list[str]:
    """A function for each statement that may write to either side."""
    new, old = sql.Identifier("new_rows"), sql.Identifier("old_rows")
    images = {
        "fields": fields(),
        "new_configurations": mapping.configurations.rows_of(new),
        "old_configurations": mapping.configurations.rows_of(old),
        "new_tenants": mapping.tenants.rows_of(new),
        "old_tenants": mapping.tenants.rows_of(old),
        "of_tenants": statement("mirror_functions", "of_tenants"),
    }

    def function(name: str) -> str:
        side, _, event = name.partition("_")
        unreadable = statement("mirror_functions", "fail")
        if side == "v1":
            rows = {"id": mapping.configurations.read("id"), "images": old if event == "deleted" else new}
            unreadable = statement("mirror_functions", "queue_ids", fields=fields(), **rows)
        return statement(
            "mirror_functions",
            "trigger_function",
            function=sql.Identifier("relevo", name),
            change=sql.Identifier("relevo", "v2_change" if side == "v2" else "v1_change"),
            written=statement("mirror_functions", name, **images),
            unreadable=unreadable,
        ).as_string()

    return [function(name) for name in TRIGGER_FUNCTIONS]


def _apart(functions: sql.Composed) -> list[str]:
    """The functions one by one: a server takes one command at a time together with parameters."""
    return [each for each in re.split(r"(?<=\$);\s*", functions.as_string()) if each]
