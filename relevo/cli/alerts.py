"""``relevo alerts``: what is wrong now, and who is at it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from relevo.alerts import incidents
from relevo.alerts.incidents import Incident
from relevo.cli.frame import ORDINARY, Answer, Common, WholeNumber
from relevo.clock import system_clock
from relevo.db import migrations

app = App(name="alerts", help="What is wrong now, and who is at it.")


@app.command(name="list")
async def list_alerts(
    *,
    every: Annotated[bool, Parameter(name="--all", negative="", help="Also those that are over.")] = False,
    common: Common = ORDINARY,
) -> Answer:
    """Incidents that are not over, the worst first."""
    async with common.database() as database, database.transaction(read_only=True) as connection:
        await migrations.require(connection)
        found = await incidents.incidents(connection, over=every)
    table = Table("id", "severity", "since", "until", "taken by", "what")
    for each in found:
        until = f"{each.resolved_at:%Y-%m-%d %H:%M}" if each.resolved_at else ""
        colour = "red" if each.severity == "critical" else "yellow"
        severity = Text(each.severity, style="" if each.resolved_at else colour)
        what = Text(f"{each.title}: {each.message}")
        table.add_row(
            str(each.id), severity, f"{each.opened_at:%Y-%m-%d %H:%M}", until, Text(each.acked_by or ""), what
        )
    return Answer([asdict(each) for each in found], table if found else "nothing is wrong")


@app.command
async def ack(incident: WholeNumber, *, common: Common = ORDINARY) -> Answer:
    """Say that you are at it. PagerDuty hears of it, too."""
    async with common.database() as database, database.transaction() as connection:
        await migrations.require(connection)
        acked: Incident = await incidents.acknowledge(
            connection, incident, system_clock(), actor=common.actor, reason=common.reason
        )
    return Answer(asdict(acked), f"incident {acked.id} is taken by {acked.acked_by}")
