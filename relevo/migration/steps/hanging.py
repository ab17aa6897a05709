"""What hangs on rows that a restore would delete: foreign keys that point at them, and what the server would do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from psycopg import sql

from relevo.db.pool import Connection, every, one
from relevo.db.statements import identifier, statement
from relevo.errors import Refused
from relevo.migration.steps.shapes import Shape, relation_text
from relevo.migration.steps.targets import Scope

# What a foreign key does with the rows that point at a deleted one, as the catalogue has it.
_ACTIONS = {"a": "keeps them from going", "r": "keeps them from going", "c": "deleted", "n": "emptied", "d": "reset"}
_BLOCKS = _ACTIONS["a"]
_DEEPEST = 8  # cascades of cascades; deeper ones nobody builds


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key that points at a table of the backup."""

    name: str
    action: str
    deferrable: bool
    parent: str  # the table of the backup
    child: str | None  # the table of the backup that has it; None: another table
    schema: str
    table: str
    columns: tuple[str, ...]
    referenced: tuple[str, ...]

    @property
    def relation(self) -> sql.Identifier:
        """The table that has it, quoted."""
        return identifier(self.schema, self.table)


@dataclass(frozen=True, slots=True)
class Hanging:
    """Rows that stay, and point at rows that would go."""

    table: str
    constraint: str
    rows: int
    what: str  # becomes of them

    @property
    def blocks(self) -> bool:
        """Whether the server would not let the others go at all."""
        return self.what == _BLOCKS


async def foreign_keys(connection: Connection, shapes: Sequence[Shape]) -> list[ForeignKey]:
    """Every foreign key that points at one of these tables."""
    names: dict[int, str] = {}
    for shape in shapes:
        row = await one(connection, statement("restore", "oid_of"), {"relation": relation_text(shape.target.relation)})
        names[row["oid"]] = shape.name
    return await _read(connection, [relation_text(shape.target.relation) for shape in shapes], names)


async def _read(connection: Connection, relations: list[str], names: dict[int, str]) -> list[ForeignKey]:
    rows = await every(connection, statement("restore", "foreign_keys"), {"relations": relations})
    return [
        ForeignKey(
            row["name"],
            row["action"],
            row["deferrable"],
            names[row["parent"]],
            names[row["child"]] if row["inside"] else None,
            row["schema"],
            row["table"],
            tuple(row["columns"]),
            tuple(row["referenced"]),
        )
        for row in rows
    ]


def children_first(shapes: Sequence[Shape], keys: Sequence[ForeignKey]) -> list[Shape]:
    """The order in which rows can go; where tables point at each other, the order they came in."""
    by_name = {shape.name: shape for shape in shapes}
    order: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(by_name, ()))
    for key in keys:
        if key.child is not None and key.child != key.parent:
            order.add(key.parent, key.child)
    try:
        return [by_name[name] for name in order.static_order()]
    except CycleError:
        return list(shapes)


async def hanging(
    connection: Connection, shapes: Sequence[Shape], keys: Sequence[ForeignKey], scope: Scope, *, discard_newer: bool
) -> list[Hanging]:
    """The rows that stay and point at rows that would be deleted, those that a cascade would reach included."""
    found: list[Hanging] = []
    for shape in shapes:
        going = shape.deletes(discard_newer=discard_newer)
        async for each in _below(
            connection, shapes, keys, shape.name, shape.target.relation, going, scope, discard_newer
        ):
            if each.rows and each not in found:
                found.append(each)
    return found


async def hanging_on(
    connection: Connection, shape: Shape, keys: Sequence[ForeignKey], going: sql.Composable, scope: Scope
) -> list[Hanging]:
    """The rows that point at some rows of a table, and would not survive their going away for a moment."""
    found = []
    for key in keys:
        if key.parent == shape.name and key.action != "a":
            pointing = _pointing(key, shape.target.relation, going)
            rows = await _count(connection, key, pointing, sql.SQL("true"), scope)
            found.append(Hanging(f"{key.schema}.{key.table}", key.name, rows, _ACTIONS[key.action]))
    return [each for each in found if each.rows]


async def _below(
    connection: Connection,
    shapes: Sequence[Shape],
    keys: Sequence[ForeignKey],
    table: str,
    relation: sql.Composable,
    going: sql.Composable,
    scope: Scope,
    discard_newer: bool,
    depth: int = 0,
) -> AsyncIterator[Hanging]:
    for key in keys:
        if key.parent != table or depth == _DEEPEST:
            continue
        pointing = _pointing(key, relation, going)
        rows = await _count(connection, key, pointing, _stays(shapes, key, discard_newer), scope)
        yield Hanging(f"{key.schema}.{key.table}", key.name, rows, _ACTIONS[key.action])
        if key.action == "c" and key.child != table and await _count(connection, key, pointing, sql.SQL("true"), scope):
            further = keys if key.child else await _keys_of(connection, key)
            child = key.child or f"{key.schema}.{key.table}"
            async for each in _below(
                connection, shapes, further, child, key.relation, pointing, scope, discard_newer, depth + 1
            ):
                yield each


async def _keys_of(connection: Connection, key: ForeignKey) -> list[ForeignKey]:
    """The foreign keys that point at a table outside the backup."""
    relation = relation_text(key.relation)
    row = await one(connection, statement("restore", "oid_of"), {"relation": relation})
    return await _read(connection, [relation], {row["oid"]: f"{key.schema}.{key.table}"})


def _pointing(key: ForeignKey, relation: sql.Composable, going: sql.Composable) -> sql.Composed:
    comma = sql.SQL(", ")
    return statement(
        "restore",
        "points_at",
        columns=comma.join(identifier("v1", name) for name in key.columns),
        referenced=comma.join(identifier("v1", name) for name in key.referenced),
        relation=relation,
        condition=going,
    )


def _stays(shapes: Sequence[Shape], key: ForeignKey, discard_newer: bool) -> sql.Composable:
    """Which rows of the pointing table would be there at the end, and not as the backup has them."""
    child = next((shape for shape in shapes if shape.name == key.child), None)
    if child is None or child.partial:
        return sql.SQL("true")
    kept = sql.SQL("({}) AND NOT ({})").format(child.extra(), child.deletes(discard_newer=discard_newer))
    return sql.SQL("({}) OR NOT coalesce(({}), false)").format(kept, child.target.of_tenants)


async def _count(
    connection: Connection, key: ForeignKey, condition: sql.Composable, stays: sql.Composable, scope: Scope
) -> int:
    query = statement("restore", "count_hanging", relation=key.relation, condition=condition, stays=stays)
    rows: int = (await one(connection, query, scope.parameters))["rows"]
    return rows


def refuse_hanging(found: Sequence[Hanging], *, discard_newer: bool) -> None:
    """Raises Refused where rows stand in the way, or would be lost without anybody having said so."""
    told = "; ".join(f"{each.rows:,} of {each.table} ({each.constraint}): {each.what}" for each in found)
    if any(each.blocks for each in found):
        raise Refused(
            f"rows that are not restored point at rows that would be deleted: {told}",
            fix="take those rows away or point them elsewhere"
            + ("" if discard_newer else ", or add --discard-newer where they are calls recorded since"),
        )
    if found and not discard_newer:
        raise Refused(
            f"deleting would reach rows that no backup holds: {told}",
            fix="add --discard-newer to lose them for good, or point them elsewhere first",
        )
