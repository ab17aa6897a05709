"""What ``backups restore`` and ``rollback --level data`` share: show the difference, ask, restore, tell."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from relevo.cli.frame import ERR, Common, confirmed
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.migration.mapping import SourceMapping
from relevo.migration.steps import difference
from relevo.migration.steps.difference import Difference
from relevo.migration.steps.hanging import refuse_hanging
from relevo.rollback import data


async def preview(
    database: Database,
    mapping: SourceMapping,
    backup_id: str,
    tenant_ids: Sequence[UUID] | None,
    *,
    discard_newer: bool,
) -> Difference:
    """The difference that restoring the backup of that id would make."""
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)
    backup = await difference.find(database, backup_id)
    return await difference.preview(database, mapping, backup, tenant_ids=tenant_ids, discard_newer=discard_newer)


async def restore(
    database: Database,
    common: Common,
    backup_id: str,
    tenant_ids: tuple[UUID, ...] | None,
    *,
    discard_newer: bool,
    yes: bool,
) -> data.DataRestored | None:
    """Show, ask, restore; None when the answer was not CONFIRM.

    Raises Refused where nobody can be asked.
    """
    mapping = common.mapping()
    found = await preview(database, mapping, backup_id, tenant_ids, discard_newer=discard_newer)
    ERR.print(shown(found))
    refuse_hanging(found.hanging, discard_newer=discard_newer)
    if not yes and not confirmed():
        return None
    request = data.Request(found.backup, common.actor, common.reason, tenant_ids, discard_newer)
    return await data.run(database, mapping, request, emit=common.sink())


def shown(found: Difference) -> Group:
    """The difference for people."""
    whose = "all tenants" if found.tenant_ids is None else f"{len(found.tenant_ids):,} tenants"
    table = Table(
        Column("table", no_wrap=True),
        *(Column(name, justify="right") for name in ("insert", "update", "delete", "kept")),
        "columns that differ, in rows",
        title=f"Restoring backup {found.backup.id} of {found.backup.created_at:%Y-%m-%d %H:%M:%S} UTC, {whose}",
        title_justify="left",
    )
    for each in found.tables:
        columns = ", ".join(f"{name} {rows:,}" for name, rows in each.columns.items())
        numbers = (each.insert, each.update, each.delete, each.kept_newer)
        table.add_row(each.table, *(f"{number:,}" for number in numbers), Text(columns))
    return Group(table, *(Text(line) for line in _remarks(found)))


def _remarks(found: Difference) -> list[str]:
    lines = []
    for each in found.tables:
        for kind, rows in each.examples.items():
            lines += [f"  {each.table} {kind}: {row}" for row in rows]
    for each in found.tables:
        if each.kept_newer:
            lines.append(f"{each.kept_newer:,} rows of {each.table} recorded since the backup are kept")
        if each.left_alone:
            lines.append(
                f"{each.left_alone:,} rows of {each.table} changed hands and are left alone: name both tenants"
            )
        if each.gone:
            lines.append(f"{each.gone:,} rows of {each.table} are gone; this backup holds only some of their columns")
        if each.added_columns:
            lines.append(f"{each.table} has new columns, which stay as they are: {', '.join(each.added_columns)}")
    lines += [
        f"{each.rows:,} rows of {each.table} hang on them ({each.constraint}): {each.what}" for each in found.hanging
    ]
    if found.live_on_v2:
        lines.append("! the flag sends calls to v2; where a v2 configuration goes, v1 answers")
    return [*lines, "nothing differs" if found.empty else "the present is backed up first; writers wait meanwhile"]


def told(done: data.DataRestored) -> Group:
    """What was done, for people."""
    table = Table(
        Column("table", no_wrap=True),
        *(Column(name, justify="right") for name in ("inserted", "updated", "deleted", "kept")),
        title=f"Backup {done.backup_id} is restored, in {done.duration_seconds:.2f} s",
        title_justify="left",
    )
    for each in done.tables:
        numbers = (each.inserted, each.updated, each.deleted, each.kept_newer)
        table.add_row(each.table, *(f"{number:,}" for number in numbers))
    return Group(table, Text(f"to undo: {done.undo_command}"), Text("now: relevo verify"))
