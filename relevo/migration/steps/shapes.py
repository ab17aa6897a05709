"""How a table and its copy in a backup fit together: the key, the columns, and the SQL that compares the two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from relevo.db.pool import Connection, every, first, one
from relevo.db.statements import identifier, statement
from relevo.errors import Refused
from relevo.migration.steps.backup import Backup, copy_of
from relevo.migration.steps.targets import Scope, Target

_NEVER, _ALWAYS = sql.SQL("false"), sql.SQL("true")


@dataclass(frozen=True, slots=True)
class Column:
    """A column that both sides have."""

    name: str
    cast: sql.Composable | None  # to the type it has now, where that is another one
    generated: bool  # from other columns; never written
    always_identity: bool  # given on insert alone

    @property
    def saved(self) -> sql.Composable:
        """Its value in the copy, as what it is now."""
        value = identifier("saved", self.name)
        return sql.SQL("({})::{}").format(value, self.cast) if self.cast else value


@dataclass(frozen=True, slots=True)
class Shape:
    """A table of a backup, ready to be compared and restored."""

    target: Target
    copy: sql.Identifier
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    added: tuple[str, ...]  # since the backup; a restore leaves them as they are
    partial: bool  # the copy has only some columns of each row: nothing is inserted or deleted
    insert_only: bool  # rows that belong to no tenant, while only some tenants are restored
    earlier: tuple[str, ...] = field(default=())  # copies of the same table in earlier backups

    @property
    def name(self) -> str:
        """The table as people write it."""
        return self.target.name

    @property
    def written(self) -> tuple[Column, ...]:
        """The columns that an insert gives."""
        return tuple(column for column in self.columns if not column.generated)

    @property
    def updated(self) -> tuple[Column, ...]:
        """The columns that an update may set."""
        fixed = {*self.key, *(column.name for column in self.columns if column.always_identity)}
        return tuple(column for column in self.written if column.name not in fixed)

    @property
    def differs(self) -> sql.Composable:
        """Whether two rows of the same key differ: in their bytes, so that 1.0 is not 1.00."""
        compared = [column for column in self.written if column.name not in self.key]
        return _NEVER if self.insert_only or not compared else _unlike(compared)

    @property
    def replaced(self) -> sql.Composable:
        """Whether a row differs in what no update can set."""
        fixed = [column for column in self.written if column.always_identity and column.name not in self.key]
        return _unlike(fixed) if fixed else _NEVER

    @property
    def fields(self) -> sql.Composable:
        """The names of the columns that differ, as an array with NULL for the others."""
        names = [
            sql.SQL("CASE WHEN {} THEN {} END").format(_unlike([column]), sql.Literal(column.name.replace("%", "%%")))
            for column in self.written
        ]
        return sql.SQL("ARRAY[{}]::text[]").format(sql.SQL(", ").join(names))

    def match(self, saved: str, live: str) -> sql.Composable:
        """That two rows have the same key."""
        pairs = (sql.SQL("{} = {}").format(self._saved_key(saved, name), identifier(live, name)) for name in self.key)
        return sql.SQL(" AND ").join(pairs)

    def _saved_key(self, alias: str, name: str) -> sql.Composable:
        (cast,) = (column.cast for column in self.columns if column.name == name)
        value = identifier(alias, name)
        return sql.SQL("({})::{}").format(value, cast) if cast else value

    def sides(self) -> dict[str, sql.Composable]:
        """What the braces of a comparison stand for."""
        key = sql.SQL("concat_ws(', ', {})").format(_list(identifier("v1", name) for name in self.key))
        inside = _ALWAYS if self.partial else self.target.of_tenants
        tenant = sql.SQL("NULL::uuid") if self.partial else self.target.tenant
        return {
            "saved": statement("restore", "side", inside=inside, tenant=tenant, key=key, relation=self.copy),
            "live": statement(
                "restore",
                "side",
                inside=self.target.of_tenants,
                tenant=self.target.tenant,
                key=key,
                relation=self.target.relation,
            ),
            "match": self.match("saved", "live"),
            "differs": self.differs,
        }

    def extra(self) -> sql.Composed:
        """That a row of the table, v1, is in scope and not in the backup."""
        inside = _NEVER if self.partial or self.insert_only else self.target.of_tenants
        return statement("restore", "extra", inside=inside, copy=self.copy, match=self.match("saved", "v1"))

    def known(self) -> sql.Composable:
        """That an earlier backup holds a row of the table, v1."""
        if not self.earlier:
            return _NEVER
        key = _list(identifier(name) for name in self.key)
        copies = (
            statement("restore", "keys_of", key=key, copy=identifier(*copy.split(".", 1))) for copy in self.earlier
        )
        return statement(
            "restore", "known", copies=sql.SQL(" UNION ALL ").join(copies), match=self.match("saved", "v1")
        )

    def deletes(self, *, discard_newer: bool) -> sql.Composable:
        """That a row of the table, v1, goes. Calls recorded since the backup stay unless they are discarded."""
        if self.target.role != "calls" or discard_newer:
            return self.extra()
        if not self.earlier:
            return _NEVER
        return sql.SQL("({}) AND ({})").format(self.extra(), self.known())


async def shapes(connection: Connection, chosen: Sequence[Target], backup: Backup, scope: Scope) -> list[Shape]:
    """Every table of the backup. Raises Refused where one does not fit any more, saying how to mend it."""
    by_name = {target.name: target for target in chosen}
    found = []
    for name in sorted(backup.contents):
        if name not in by_name:
            raise Refused(
                f"backup {backup.id} holds {name}, which is not there, or not mapped, any more",
                fix=f"create {name} again, empty, or restore with the relevo.toml of that time",
            )
        found.append(await _shape(connection, by_name[name], backup, scope))
    return found


async def _shape(connection: Connection, target: Target, backup: Backup, scope: Scope) -> Shape:
    recorded = backup.contents[target.name]
    copy = copy_of(recorded)
    live = {row["name"]: row for row in await every(connection, statement("restore", "columns"), _at(target.relation))}
    saved = await every(connection, statement("restore", "columns"), _at(copy))
    if gone := [row for row in saved if row["name"] not in live]:
        raise Refused(
            f"{target.name} has lost columns since the backup: {', '.join(row['name'] for row in gone)}",
            fix="; ".join(f"ALTER TABLE {target.name} ADD COLUMN {row['name']} {row['type']}" for row in gone)
            + "; then restore",
        )
    columns = tuple([await _column(connection, target, copy, row, live[row["name"]]) for row in saved])
    names = {row["name"] for row in saved}
    key = await _key(connection, target, names)
    partial = bool(recorded.get("partial"))
    return Shape(
        target=target,
        copy=copy,
        key=key,
        columns=columns,
        added=() if partial else tuple(name for name in live if name not in names),
        partial=partial,
        insert_only=target.role == "catalogue" and scope.tenant_ids is not None,
        earlier=await _earlier(connection, target, backup, key) if target.role == "calls" else (),
    )


async def _key(connection: Connection, target: Target, saved: set[str]) -> tuple[str, ...]:
    row = await first(connection, statement("restore", "key"), _at(target.relation))
    if row is None or not saved.issuperset(row["names"]):
        raise Refused(
            f"{target.name} has no primary key that the backup has too, so its rows cannot be told apart",
            fix=f"ALTER TABLE {target.name} ADD PRIMARY KEY (…); then restore",
        )
    return tuple(row["names"])


async def _column(
    connection: Connection, target: Target, copy: sql.Identifier, saved: dict[str, Any], live: dict[str, Any]
) -> Column:
    """Raises Refused where the column has another type now, which would not give back every value."""
    name, cast = saved["name"], None
    if saved["type"] != live["type"]:
        cast = sql.SQL(live["type"].replace("%", "%%"))
        old = sql.SQL(saved["type"].replace("%", "%%"))
        query = statement("restore", "lossy", copy=copy, column=identifier(name), new=cast, old=old)
        try:
            async with connection.transaction():
                lossy = (await one(connection, query))["rows"] > 0
        except (psycopg.DataError, psycopg.ProgrammingError):
            lossy = True
        if lossy:
            raise Refused(
                f"{target.name}.{name} was {saved['type']} and is {live['type']} now, which cannot hold what it held",
                fix=f"ALTER TABLE {target.name} ALTER COLUMN {name} TYPE {saved['type']}; then restore",
            )
    return Column(name, cast, live["generated"], live["always_identity"])


async def _earlier(connection: Connection, target: Target, backup: Backup, key: tuple[str, ...]) -> tuple[str, ...]:
    of = {"id": backup.id, "table": target.name, "key": list(key)}
    return tuple(row["copy"] for row in await every(connection, statement("restore", "earlier_copies"), of))


def _at(relation: sql.Identifier) -> dict[str, str]:
    return {"relation": relation.as_string().replace("%%", "%")}


def relation_text(relation: sql.Identifier) -> str:
    """A quoted name as a value for to_regclass."""
    return _at(relation)["relation"]


def _unlike(columns: Iterable[Column]) -> sql.Composed:
    columns = tuple(columns)
    return sql.SQL("(ROW({})::record OPERATOR(pg_catalog.*<>) ROW({})::record)").format(
        _list(identifier("live", column.name) for column in columns), _list(column.saved for column in columns)
    )


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)
