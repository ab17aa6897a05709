"""What restoring a backup would change, table by table, before anything is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from psycopg import sql

from relevo.db.pool import Connection, Database, every, one
from relevo.db.statements import identifier, statement
from relevo.errors import Refused, UnknownName, UsageError, nearest
from relevo.migration.mapping import SourceMapping
from relevo.migration.steps import backup as backups
from relevo.migration.steps.backup import Backup, copy_of
from relevo.migration.steps.hanging import Hanging, foreign_keys, hanging
from relevo.migration.steps.shapes import Shape, relation_text, shapes
from relevo.migration.steps.targets import Scope, Target, scope_of, targets

_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class TableDifference:
    """What a restore would do to one table."""

    table: str
    insert: int = 0
    update: int = 0
    delete: int = 0
    kept_newer: int = 0  # calls recorded since the backup, which stay
    left_alone: int = 0  # rows that now belong to a tenant out of scope
    gone: int = 0  # rows that are gone, and of which the backup holds only some columns
    added_columns: tuple[str, ...] = ()  # since the backup; they stay as they are
    columns: dict[str, int] = field(default_factory=dict)  # in how many rows each differs
    examples: dict[str, list[str]] = field(default_factory=dict)  # keys of the first rows of each kind

    @property
    def empty(self) -> bool:
        """Whether nothing would change."""
        return not (self.insert or self.update or self.delete)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a restore would do."""

    backup: Backup
    tenant_ids: list[UUID] | None
    tables: list[TableDifference]
    hanging: list[Hanging]
    tenants: list[str]  # whose rows would change
    live_on_v2: bool  # the flag sends calls to v2 now, of which configurations would go

    @property
    def empty(self) -> bool:
        """Whether everything is already as in the backup."""
        return all(table.empty for table in self.tables)


async def find(database: Database, backup_id: str) -> Backup:
    """The backup of that id. Raises UnknownName with the nearest."""
    known = {str(backup.id): backup for backup in await backups.listed(database)}
    found = known.get(backup_id.strip().lower())
    if found is None:
        raise UnknownName(f"there is no backup {backup_id}.{nearest(backup_id, known)}", fix="see: relevo backups list")
    return found


async def preview(
    database: Database,
    mapping: SourceMapping,
    backup: Backup,
    *,
    tenant_ids: Sequence[UUID] | None,
    discard_newer: bool,
) -> Difference:
    """The exact difference as of one moment. Nothing is written; where policies hold for the owner too, they are
    lifted and put back in a transaction that is rolled back."""
    async with database.transaction(read_only=True) as connection:
        await connection.execute(statement("restore", "switch_mirror_off"), {})
        chosen, scope = await of_backup(connection, mapping, backup, tenant_ids)
        closed = await forced(connection, chosen)
    async with (
        database.transaction(read_only=not closed, snapshot=True) as connection,
        connection.transaction(force_rollback=bool(closed)),
    ):
        await connection.execute(statement("restore", "switch_mirror_off"), {})
        for relation in closed:
            await connection.execute(statement("restore", "lift_policies", relation=relation), {})
        await require_intact(connection, backup)
        fitting = await shapes(connection, chosen, backup, scope)
        return await compare(connection, backup, fitting, scope, discard_newer=discard_newer, examples=True)


async def of_backup(
    connection: Connection, mapping: SourceMapping, backup: Backup, tenant_ids: Sequence[UUID] | None
) -> tuple[list[Target], Scope]:
    """The tables there are, and whose rows are meant: the tenants named, else those of the backup.

    Raises UsageError for a tenant that the backup does not hold, UnknownName for one that nobody knows.
    """
    partial = any(table.get("partial") for table in backup.contents.values())
    chosen = await targets(connection, mapping, "touched" if partial else "all")
    await _require_copies(connection, backup)
    by_name = {target.name: target for target in chosen}
    copies = [
        _ids_of(mapping, by_name[name], copy_of(recorded))
        for name, recorded in backup.contents.items()
        if name in by_name and name in (mapping.configurations.name, "public.voice_assistant_configs")
    ]
    if tenant_ids is None:
        return chosen, await scope_of(connection, mapping, backup.tenant_ids, *copies)
    if backup.tenant_ids is not None and (foreign := set(tenant_ids) - set(backup.tenant_ids)):
        held = ", ".join(map(str, backup.tenant_ids[:5]))
        raise UsageError(
            f"backup {backup.id} holds nothing of tenant {', '.join(map(str, sorted(foreign)))}",
            fix=f"name tenants it holds: {held}",
        )
    await _require_tenants(connection, mapping, tenant_ids, copies)
    return chosen, await scope_of(connection, mapping, tenant_ids, *copies)


def _ids_of(mapping: SourceMapping, target: Target, copy: sql.Identifier) -> sql.Composed:
    v1 = target.name == mapping.configurations.name
    own_id = mapping.configurations.read("id") if v1 else sql.Identifier("v1", "id")
    return statement("restore", "ids_of", id=own_id, business_id=target.tenant, copy=copy)


async def _require_tenants(
    connection: Connection, mapping: SourceMapping, tenant_ids: Sequence[UUID], copies: Sequence[sql.Composed]
) -> None:
    saved = sql.SQL("({})").format(sql.SQL(" UNION ALL ").join(copies))
    of = {"tenant_ids": list(tenant_ids)}
    unknown = await every(connection, statement("restore", "unknown_tenants", saved=saved, **mapping.fill()), of)
    if unknown:
        known = await every(connection, statement("migration", "some_tenants", **mapping.fill()))
        names = ", ".join(str(row["id"]) for row in unknown)
        close = nearest(str(unknown[0]["id"]), [str(row["id"]) for row in known])
        raise UnknownName(f"there is no tenant {names}.{close}", fix="correct --tenant-ids")


async def _require_copies(connection: Connection, backup: Backup) -> None:
    for name, recorded in backup.contents.items():
        row = await one(connection, statement("restore", "copies"), {"copy": relation_text(copy_of(recorded))})
        if not row["present"]:
            raise Refused(
                f"backup {backup.id} has lost its copy of {name}: {recorded['copy']} is gone",
                fix="take another backup: relevo backups list",
            )


async def require_intact(connection: Connection, backup: Backup) -> None:
    """Raises Refused unless every copy is what was recorded of it."""
    for name, recorded in backup.contents.items():
        if not await backups.holds(connection, recorded):
            raise Refused(
                f"the copy of {name} in backup {backup.id} was changed since: its checksum does not hold",
                fix="nothing was changed; take another backup: relevo backups list",
            )


async def forced(connection: Connection, chosen: Sequence[Target]) -> list[sql.Identifier]:
    """The tables and partitions whose policies hold for their owner too."""
    found = []
    for target in chosen:
        rows = await every(connection, statement("restore", "tree"), {"relation": relation_text(target.relation)})
        found += [identifier(row["schema"], row["table"]) for row in rows if row["forced"]]
    return found


async def compare(
    connection: Connection,
    backup: Backup,
    fitting: Sequence[Shape],
    scope: Scope,
    *,
    discard_newer: bool,
    examples: bool = False,
) -> Difference:
    """Count what would change. ``examples``: name the first rows, and the columns that differ."""
    tables, tenants = [], set[str]()
    for shape in fitting:
        table, whose = await _compare(connection, shape, scope, discard_newer=discard_newer, examples=examples)
        tables.append(table)
        tenants |= whose
    found: list[Hanging] = []
    if any(table.delete for table in tables):
        keys = await foreign_keys(connection, fitting)
        found = await hanging(connection, fitting, keys, scope, discard_newer=discard_newer)
    of_v2 = next((table for table in tables if table.table == "public.voice_assistant_configs"), None)
    live = bool(of_v2 and of_v2.delete) and (await one(connection, statement("restore", "enabled_on_v2")))["live"]
    return Difference(backup, scope.tenant_ids, tables, found, sorted(tenants), live)


async def _compare(
    connection: Connection, shape: Shape, scope: Scope, *, discard_newer: bool, examples: bool
) -> tuple[TableDifference, set[str]]:
    sides = shape.sides()
    is_calls = shape.target.role == "calls"
    query = statement("restore", "difference", touched=_touched(shape, discard_newer=discard_newer), **sides)
    row = await one(connection, query, scope.parameters)
    extra = 0 if shape.partial or shape.insert_only else row["extra"]
    delete = extra
    if extra and is_calls and not discard_newer:
        counted = statement(
            "restore", "count_known", relation=shape.target.relation, extra=shape.extra(), known=shape.known()
        )
        delete = (await one(connection, counted, scope.parameters))["rows"]
    columns: dict[str, int] = {}
    named: dict[str, list[str]] = {}
    if examples and any(row[kind] for kind in ("missing", "differing", "extra")):
        columns, named = await _details(connection, shape, sides, scope)
    table = TableDifference(
        table=shape.name,
        insert=0 if shape.partial else row["missing"],
        update=row["differing"],
        delete=delete,
        kept_newer=row["extra"] - delete if is_calls else 0,
        left_alone=0 if shape.partial or shape.insert_only else row["moved"],
        gone=row["missing"] if shape.partial and scope.tenant_ids is None else 0,
        added_columns=shape.added,
        columns=columns,
        examples=named,
    )
    return table, {str(tenant) for tenant in row["tenants"] or () if tenant is not None}


async def _details(
    connection: Connection, shape: Shape, sides: dict[str, sql.Composable], scope: Scope
) -> tuple[dict[str, int], dict[str, list[str]]]:
    """In how many rows each column differs, and the first rows of each kind."""
    counted = await every(
        connection, statement("restore", "count_fields", fields=shape.fields, **sides), scope.parameters
    )
    rows = await every(
        connection,
        statement("restore", "details", fields=shape.fields, **sides),
        {**scope.parameters, "most": _EXAMPLES},
    )
    examples: dict[str, list[str]] = {}
    for row in rows:
        told = f"{row['key']}: {', '.join(row['fields'])}" if row["fields"] else row["key"]
        examples.setdefault(row["kind"], []).append(told)
    return {row["name"]: row["rows"] for row in counted}, examples


def _touched(shape: Shape, *, discard_newer: bool) -> sql.Composable:
    """Which rows of a comparison count for the tenants concerned."""
    kinds: list[sql.Composable] = [
        sql.SQL("(live.relevo_inside AND saved.relevo_inside AND ({}))").format(shape.differs)
    ]
    if not shape.partial:
        kinds.append(sql.SQL("(live.relevo_inside IS NULL AND saved.relevo_inside)"))
    if not (shape.partial or shape.insert_only) and (shape.target.role != "calls" or discard_newer):
        kinds.append(sql.SQL("(live.relevo_inside AND saved.relevo_inside IS NULL)"))
    return sql.SQL(" OR ").join(kinds)
