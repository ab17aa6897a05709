"""``relevo complaints``: what users say went wrong."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from relevo.cli.frame import ORDINARY, Answer, Common, WholeNumber
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.errors import UsageError
from relevo.metrics import complaints
from relevo.tenants.answer import tenant_of

app = App(name="complaints", help="What users say went wrong.")


@app.command
async def add(
    tenant: str,
    text: str,
    *,
    version: Annotated[
        Literal["v1", "v2"] | None, Parameter(help="Of which they speak; default: that of the last call.")
    ] = None,
    common: Common = ORDINARY,
) -> Answer:
    """Write a complaint of a tenant's users down; it counts against the version they spoke with."""
    if not 0 < len(text.strip()) <= 4000:
        raise UsageError("the complaint is empty, or over 4,000 characters", fix="say in a few words what went wrong")
    async with common.database() as database:
        found = await tenant_of(database, tenant, common.mapping().fill())
        async with database.transaction() as connection:
            made = await complaints.add(
                connection,
                str(found.id),
                text.strip(),
                system_clock(),
                version=version,
                actor=common.actor,
                reason=common.reason,
            )
    return Answer(asdict(made), f"complaint {made.id} counts against {made.version}")


@app.command(name="list")
async def list_complaints(
    *,
    dismissed: Annotated[bool, Parameter(negative="", help="Also those that count no more.")] = False,
    common: Common = ORDINARY,
) -> Answer:
    """Complaints, newest first."""
    async with common.database() as database, database.transaction(read_only=True) as connection:
        await migrations.require(connection)
        found = await complaints.complaints(connection, dismissed=dismissed)
    table = Table("id", "at", "tenant", "version", "counts", "by", "text")
    for each in found:
        counts = "no" if each.dismissed_at else "yes"
        shown = (str(each.id), f"{each.at:%Y-%m-%d %H:%M}", Text(each.tenant_id), each.version, counts)
        table.add_row(*shown, Text(each.actor), Text(each.text))
    return Answer([asdict(each) for each in found], table if found else "there are no complaints")


@app.command
async def dismiss(complaint: WholeNumber, *, common: Common = ORDINARY) -> Answer:
    """Count a complaint no more: it was a mistake, or not about us."""
    async with common.database() as database, database.transaction() as connection:
        await migrations.require(connection)
        gone = await complaints.dismiss(connection, complaint, system_clock(), actor=common.actor, reason=common.reason)
    return Answer(asdict(gone), f"complaint {gone.id} counts no more")
