"""``relevo backups``: snapshots of the affected tables."""

from __future__ import annotations

from dataclasses import asdict

from cyclopts import App
from rich.table import Table
from rich.text import Text

from relevo.cli.frame import ORDINARY, Answer, Common, TenantIds, tenants
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.db.lease import lease
from relevo.migration import preflight, runner
from relevo.migration.steps import backup

app = App(name="backups", help="Snapshots of the affected tables.")


def register(parent: App) -> None:
    """Hang these commands under the main one."""
    parent.command(app)


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
