"""``relevo alerts``: what is wrong, and what could not be told."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Group
from rich.table import Table
from rich.text import Text

from relevo.alerts import incidents
from relevo.cli.frame import ORDINARY, Answer, Common, WholeNumber
from relevo.clock import system_clock
from relevo.comms import outbox
from relevo.db import migrations

SHOWN = 100

app = App(name="alerts", help="What is wrong, told once per incident.")


def register(parent: App) -> None:
    """Hang these commands under the main one."""
    parent.command(app)


@app.command(name="list")
async def list_incidents(
    *,
    every_one: Annotated[bool, Parameter(name="--all", negative="", help="Those that are over, too.")] = False,
    common: Common = ORDINARY,
) -> Answer:
    """Incidents that last, and messages that were given up. Exit status 1 where one is critical."""
    async with common.database() as database, database.transaction(read_only=True) as connection:
        await migrations.require(connection)
        found = await incidents.incidents(connection, every_one=every_one, most=SHOWN)
        late = await outbox.unsent(connection, system_clock(), SHOWN)
    table = Table("id", "severity", "what", "since", "over", "who is on it")
    for each in found:
        over = f"{each.resolved_at:%Y-%m-%d %H:%M}" if each.resolved_at else ""
        row = (str(each.id), each.severity, each.message, f"{each.opened_at:%Y-%m-%d %H:%M}", over, each.acked_by or "")
        table.add_row(*map(Text, row))
    unsent = [
        Text(
            f"not sent: {each['channel']} {each['kind']} of {each['created_at']:%Y-%m-%d %H:%M}:"
            f" {each['fault'] or 'no process is configured for it'}"
        )
        for each in late
    ]
    data = {"incidents": [asdict(each) for each in found], "unsent_messages": late}
    critical = any(each.severity == "critical" and each.resolved_at is None for each in found)
    return Answer(data, Group(table if found else Text("nothing is wrong"), *unsent), 1 if critical else 0)


@app.command
async def ack(incident: WholeNumber, *, common: Common = ORDINARY) -> Answer:
    """Somebody is on it: you.

    Parameters
    ----------
    incident
        Its number, as in relevo alerts list.
    """
    async with common.database() as database, database.transaction() as connection:
        await migrations.require(connection)
        done = await incidents.ack(connection, incident, common.actor, common.reason, system_clock())
    return Answer({"success": True, **asdict(done)}, f"{common.actor} is on incident {done.id}: {done.message}")
