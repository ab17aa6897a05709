"""Putting a backup back, by difference, in one transaction: what is the same is not touched.

Order within: mirror off, copies checked, tables locked in the order of their names, the present backed up, triggers
off; extras deleted, differing rows updated, missing ones inserted; constraints checked, the result compared with the
backup once more, triggers as they were. Whatever goes wrong, nothing was changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import psycopg
from psycopg import errors, sql

from relevo import events
from relevo.db.pool import Connection, every, one
from relevo.db.statements import identifier, statement
from relevo.errors import MoveFailed, Refused
from relevo.migration.mapping import SourceMapping
from relevo.migration.steps.backup import Backup, copy_of
from relevo.migration.steps.difference import Difference, TableDifference, compare, forced, of_backup, require_intact
from relevo.migration.steps.hanging import ForeignKey, children_first, foreign_keys, hanging_on, refuse_hanging
from relevo.migration.steps.shapes import Shape, relation_text, shapes
from relevo.migration.steps.targets import Scope, Target

_PAGES_AT_ONCE = 128  # of places to put back: some 25,000 rows, a progress report every second or so
BackUp = Callable[[Sequence[Target], Scope], Awaitable[UUID]]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done."""

    difference: Difference  # as it was when the tables were locked
    backup_before: UUID


async def run(
    connection: Connection,
    mapping: SourceMapping,
    backup: Backup,
    *,
    tenant_ids: Sequence[UUID] | None,
    discard_newer: bool,
    back_up: BackUp,
    emit: events.Sink,
) -> Restored:
    """Restore in the transaction of this connection, which others' writes wait for. ``back_up`` copies the present.

    Raises Refused, and then nothing was changed, where the backup does not fit or rows would be lost.
    """
    await connection.execute(statement("restore", "switch_mirror_off"), {})
    chosen, scope = await of_backup(connection, mapping, backup, tenant_ids)
    await _check(connection, backup, emit)
    await _lock(connection, chosen)
    closed = await forced(connection, chosen)
    for relation in closed:
        await connection.execute(statement("restore", "lift_policies", relation=relation), {})
    fitting = await shapes(connection, chosen, backup, scope)
    difference = await compare(connection, backup, fitting, scope, discard_newer=discard_newer)
    refuse_hanging(difference.hanging, discard_newer=discard_newer)
    before = await back_up(chosen, scope)
    async with _without_triggers(connection, fitting):
        await _apply(connection, _Job(fitting, scope, discard_newer, difference, emit))
    await _require_arrived(connection, backup, fitting, scope, discard_newer=discard_newer)
    for relation in closed:
        await connection.execute(statement("restore", "put_policies_back", relation=relation), {})
    return Restored(difference, before)


@dataclass(frozen=True, slots=True)
class _Job:
    """What every step of a restore needs to know."""

    fitting: Sequence[Shape]
    scope: Scope
    discard_newer: bool
    difference: Difference
    emit: events.Sink
    replaced: set[str] = field(default_factory=set)  # tables of which rows were taken away for a moment

    def of(self, shape: Shape) -> TableDifference:
        """What is to change in a table."""
        return next(table for table in self.difference.tables if table.table == shape.name)

    def reached(self, shape: Shape, keys: Sequence[ForeignKey]) -> bool:
        """Whether a delete from another table, or from itself, may have changed rows of a table."""
        deleting = {table.table for table in self.difference.tables if table.delete}
        return any(key.child == shape.name and key.parent in deleting and key.action in "cnd" for key in keys)


async def _check(connection: Connection, backup: Backup, emit: events.Sink) -> None:
    for recorded in backup.contents.values():
        await connection.execute(statement("restore", "lock_copy", copy=copy_of(recorded)), {})
    await require_intact(connection, backup)
    emit(events.Note(f"the copies of backup {backup.id} are intact: {backup.rows:,} rows"))


async def _lock(connection: Connection, chosen: Sequence[Target]) -> None:
    """Everybody may go on reading; writers wait. Where policies are to be lifted, readers wait too."""
    closed = {relation.as_string() for relation in await forced(connection, chosen)}
    for target in sorted(chosen, key=lambda each: each.name):
        kind = "lock_exclusively" if target.relation.as_string() in closed else "lock"
        await connection.execute(statement("restore", kind, relation=target.relation), {})


@asynccontextmanager
async def _without_triggers(connection: Connection, fitting: Sequence[Shape]) -> AsyncIterator[None]:
    """People's own triggers off, one by one, and afterwards each as it was: by itself, always, or on a replica."""
    found = [
        (identifier(row["schema"], row["table"]), identifier(row["trigger"]), row["state"])
        for shape in fitting
        for row in await every(
            connection, statement("restore", "triggers"), {"relation": relation_text(shape.target.relation)}
        )
    ]
    for relation, trigger, _ in found:
        await connection.execute(statement("restore", "disable_trigger", relation=relation, trigger=trigger), {})
    yield
    for relation, trigger, state in found:
        again = statement("restore", f"enable_trigger_{state}", relation=relation, trigger=trigger)
        await connection.execute(again, {})


async def _apply(connection: Connection, job: _Job) -> None:
    """At first with the foreign keys as they are, so that readers need not wait; where they forbid every order of
    statements, once more with those between the restored tables checked at the end."""
    keys = await foreign_keys(connection, job.fitting)
    strict = [key for key in keys if key.child is not None and not key.deferrable]
    try:
        async with connection.transaction():
            await _write(connection, job, keys)
    except errors.ForeignKeyViolation as error:
        if not strict:
            raise _unfit(error) from error
    except psycopg.IntegrityError as error:
        raise _unfit(error) from error
    else:
        return
    try:
        async with _deferred(connection, strict):
            await _write(connection, job, keys)
    except psycopg.IntegrityError as error:
        raise _unfit(error) from error


@asynccontextmanager
async def _deferred(connection: Connection, strict: Sequence[ForeignKey]) -> AsyncIterator[None]:
    for key in strict:
        name = identifier(key.name)
        await connection.execute(statement("restore", "make_deferrable", relation=key.relation, constraint=name), {})
    yield
    for key in strict:
        name = identifier(key.name)
        await connection.execute(statement("restore", "make_immediate", relation=key.relation, constraint=name), {})


async def _write(connection: Connection, job: _Job, keys: Sequence[ForeignKey]) -> None:
    """Deletes, children first; updates; inserts, parents first. What a delete takes along is put back by these."""
    await connection.execute(statement("restore", "defer_constraints"), {})
    order = children_first(job.fitting, keys)
    for shape in order:
        await _delete(connection, shape, job)
    await connection.execute(statement("restore", "create_stage"), {})
    for shape in order:
        if job.of(shape).update or job.reached(shape, keys):
            await _update(connection, shape, job, keys)
    for shape in reversed(order):
        if job.of(shape).insert or job.reached(shape, keys) or shape.name in job.replaced:
            await _insert(connection, shape, job)
    await connection.execute(statement("restore", "check_constraints"), {})


async def _delete(connection: Connection, shape: Shape, job: _Job) -> None:
    if not job.of(shape).delete:
        return
    going = shape.deletes(discard_newer=job.discard_newer)
    query = statement("restore", "delete_extra", relation=shape.target.relation, condition=going)
    done = await connection.execute(query, job.scope.parameters)
    job.emit(events.Progress(done.rowcount, done.rowcount, f"rows deleted from {shape.name}"))


async def _update(connection: Connection, shape: Shape, job: _Job, keys: Sequence[ForeignKey]) -> None:
    count, pages = await _stage(connection, shape, job.scope, inserts=False)
    try:
        async with connection.transaction():
            await _replace(connection, shape, job, keys)
            await _in_parts(connection, shape, job, "update", count, pages)
    except (errors.UniqueViolation, errors.ExclusionViolation):
        # Two rows that have swapped a unique value pass each other only when both are away for a moment.
        await connection.execute(statement("restore", "replace_all"), {})
        await _replace(connection, shape, job, keys)


async def _insert(connection: Connection, shape: Shape, job: _Job) -> None:
    if shape.partial:
        return
    count, pages = await _stage(connection, shape, job.scope, inserts=True)
    await _in_parts(connection, shape, job, "insert", count, pages)
    await _push_sequences(connection, shape)


async def _stage(connection: Connection, shape: Shape, scope: Scope, *, inserts: bool) -> tuple[int, int]:
    """Note the places of the rows to insert, or of those to update; returns how many, and how many pages of notes."""
    await connection.execute(statement("restore", "empty_stage"), {})
    name = "stage_missing" if inserts else "stage_differing"
    query = statement("restore", name, again=shape.replaced, **shape.sides())
    count = (await connection.execute(query, scope.parameters)).rowcount
    return count, (await one(connection, statement("restore", "stage_pages")))["pages"]


async def _replace(connection: Connection, shape: Shape, job: _Job, keys: Sequence[ForeignKey]) -> None:
    """Take away the rows that are to be inserted anew. Raises Refused where others hang on them."""
    of_copy = {"copy": shape.copy, "match": shape.match("saved", "v1")}
    going = statement("restore", "staged_there", **of_copy)
    if found := await hanging_on(connection, shape, keys, going, job.scope):
        told = "; ".join(f"{each.rows:,} of {each.table} ({each.constraint})" for each in found)
        raise Refused(
            f"rows of {shape.name} must go for a moment to come back as they were, and rows hang on them: {told}",
            fix="drop that foreign key's ON DELETE action until the restore is done",
        )
    query = statement("restore", "delete_replaced", relation=shape.target.relation, **of_copy)
    if (await connection.execute(query, {})).rowcount:
        job.replaced.add(shape.name)


async def _in_parts(connection: Connection, shape: Shape, job: _Job, kind: str, count: int, pages: int) -> None:
    if kind == "update" and not shape.updated:
        return
    comma = sql.SQL(", ")
    assignments = (sql.SQL("{} = {}").format(identifier(column.name), column.saved) for column in shape.updated)
    query = statement(
        "restore",
        kind,
        relation=shape.target.relation,
        copy=shape.copy,
        match=shape.match("saved", "v1"),
        assignments=comma.join(assignments),
        columns=comma.join(identifier(column.name) for column in shape.written),
        values=comma.join(column.saved for column in shape.written),
    )
    done = 0
    for page in range(0, pages, _PAGES_AT_ONCE):
        reach = {"from": f"({page},0)", "to": f"({page + _PAGES_AT_ONCE},0)"}
        done += (await connection.execute(query, reach)).rowcount
        job.emit(events.Progress(done, count, f"rows of {shape.name} ({kind})"))


async def _push_sequences(connection: Connection, shape: Shape) -> None:
    """Have the numbers go on after the highest that came back."""
    at = {"relation": relation_text(shape.target.relation)}
    for row in await every(connection, statement("restore", "sequences"), at):
        push = statement("restore", "push_sequence", column=identifier(row["name"]), relation=shape.target.relation)
        await connection.execute(push, {"sequence": row["sequence"]})


async def _require_arrived(
    connection: Connection, backup: Backup, fitting: Sequence[Shape], scope: Scope, *, discard_newer: bool
) -> None:
    left = await compare(connection, backup, fitting, scope, discard_newer=discard_newer)
    if not left.empty:
        names = ", ".join(table.table for table in left.tables if not table.empty)
        raise MoveFailed(
            f"{names} did not become what the backup holds: a rule or a trigger of the database interferes",
            fix="nothing was changed; take that rule away (see \\d in psql), then run the command again",
        )


def _unfit(error: psycopg.IntegrityError) -> Refused:
    """A row of the backup that the tables would not take any more. Details of other faults may hold a whole row."""
    told = f": {error.diag.message_detail}" if isinstance(error, errors.ForeignKeyViolation) else ""
    where = f"{error.diag.schema_name}.{error.diag.table_name}"
    return Refused(
        f"a row of the backup does not fit {where} any more: {error.diag.message_primary}{told}",
        fix="nothing was changed; restore what it points at, or relax that constraint, then run the command again",
    )
