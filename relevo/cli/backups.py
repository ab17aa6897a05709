"""``relevo backups``: snapshots of the affected tables, and the way back to them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from relevo.cli import restoring
from relevo.cli.frame import ORDINARY, Answer, Common, TenantIds, tenants
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.db.lease import lease
from relevo.migration import preflight, runner
from relevo.migration.steps import backup
from relevo.migration.steps.difference import Difference

app = App(name="backups", help="Snapshots of the affected tables, and the way back to them.")


@app.command(name="list")
async def list_backups(*, common: Common = ORDINARY) -> Answer:
    """All backups, newest first."""
    async with common.database() as database:
        async with database.transaction(read_only=True) as connection:
            await migrations.require(connection)
        found = await backup.listed(database)
    table = Table("id", "made", "rows", "tables", "tenants", "verified", "by", "reason")
    for each in found:
        table.add_row(
            str(each.id),
            f"{each.created_at:%Y-%m-%d %H:%M:%S}",
            f"{each.rows:,}",
            ", ".join(each.tables),
            "all" if each.tenant_ids is None else f"{len(each.tenant_ids):,}",
            "yes" if each.verified_at else "no",
            Text(each.actor),
            Text(each.reason or ""),
        )
    return Answer([asdict(each) for each in found], table if found else "there are no backups yet")


@app.command
async def create(*, tenant_ids: TenantIds = None, common: Common = ORDINARY) -> Answer:
    """Copy the affected tables as of one moment, and read the copies back."""
    chosen = tenants(tenant_ids)
    mapping = common.mapping()
    async with common.database() as database:
        preflight.refuse_blocked(await preflight.structure(database, mapping))
        await preflight.require_tenants(database, mapping, chosen)
        await migrations.up(database)
        async with lease(database, runner.LEASE):
            made = await backup.create(
                database,
                mapping,
                tenant_ids=chosen,
                clock=system_clock,
                emit=common.sink(),
                actor=common.actor,
                reason=common.reason,
            )
    return Answer(
        {"success": True, "backup_id": made.id, **asdict(made)},
        f"backup {made.id}: {made.rows:,} rows, verified",
    )


DiscardNewer = Annotated[bool, Parameter(negative="", help="Delete calls recorded since the backup too.")]


@app.command
async def diff(
    backup_id: str, /, *, tenant_ids: TenantIds = None, discard_newer: DiscardNewer = False, common: Common = ORDINARY
) -> Answer:
    """Show what restoring a backup would change, row by row counted. Nothing is written."""
    chosen = tenants(tenant_ids)
    async with common.database() as database:
        found = await restoring.preview(database, common.mapping(), backup_id, chosen, discard_newer=discard_newer)
    return Answer(_as_data(found), restoring.shown(found))


@app.command
async def restore(
    backup_id: str,
    /,
    *,
    tenant_ids: TenantIds = None,
    discard_newer: DiscardNewer = False,
    yes: Annotated[bool, Parameter(negative="", help="Do not ask.")] = False,
    common: Common = ORDINARY,
) -> Answer:
    """Make the tables what a backup holds, after a backup of the present: restoring that one undoes it."""
    chosen = tenants(tenant_ids)
    async with common.database() as database:
        done = await restoring.restore(database, common, backup_id, chosen, discard_newer=discard_newer, yes=yes)
    if done is None:
        return Answer({"success": False, "cancelled": True}, "cancelled, nothing changed", 1)
    return Answer({"success": True, **asdict(done)}, restoring.told(done))


def _as_data(found: Difference) -> dict[str, Any]:
    return {
        "success": True,
        "backup_id": found.backup.id,
        "created_at": found.backup.created_at,
        "tenant_ids": found.tenant_ids,
        "empty": found.empty,
        "tables": [asdict(table) for table in found.tables],
        "hanging": [asdict(each) for each in found.hanging],
        "affected_tenants": found.tenants,
    }
