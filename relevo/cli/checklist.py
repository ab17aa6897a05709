"""``relevo checklist``: what is left to do once everybody is on v2."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from typing import Annotated, Any

import aiohttp
from cyclopts import App, Parameter
from rich import box
from rich.table import Column, Table
from rich.text import Text

from relevo.cli.frame import ORDINARY, Answer, Common
from relevo.cli.simulate import credentials
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.errors import ConfigurationError, Refused
from relevo.report import ticking, trial
from relevo.report.checklist import Line
from relevo.report.ticking import Standing
from relevo.settings import Settings
from relevo.simulator.synthetic import Headers, Player

app = App(name="checklist", help="What is left to do once everybody is on v2.")

_COLOURS = {"done": "green", "failing": "red", "open": ""}


@app.default
async def checklist(*, common: Common = ORDINARY) -> Answer:
    """Every item of the checklist: day 1, week 1, week 4. What Relevo can check it checks and ticks. Exit status 1
    when an item is overdue."""
    async with common.database() as database, database.transaction() as connection:
        await migrations.require(connection)
        standing = await ticking.look(connection, system_clock())
    if standing is None:
        raise Refused("no rollout is complete, so nothing is due yet", fix="see: relevo rollout status")
    late = any(line.overdue for line in standing.lines)
    return Answer(data(standing), table(standing), 1 if late else 0)


@app.command
async def sign(
    item: str,
    *,
    name: Annotated[str, Parameter(help="Who says so.")],
    note: Annotated[str, Parameter(help="What was done, or where it can be seen.")],
    common: Common = ORDINARY,
) -> Answer:
    """Say that an item is done which only people can know."""
    async with common.database() as database, database.transaction() as connection:
        await migrations.require(connection)
        done = await ticking.sign(
            connection, item, system_clock(), name=name, note=note, actor=common.actor, reason=common.reason
        )
    return Answer({"item": item, **asdict(done)}, f"{item} is signed by {done.name}")


@app.command
async def call(
    *,
    address: Annotated[str, Parameter(help="Where relevo serve answers.")] = "http://127.0.0.1:8080",
    common: Common = ORDINARY,
) -> Answer:
    """Make test calls through the webhook of a running relevo serve: one for each vertical and kind of booking. They
    are left out of every figure, and what they book is removed again. Exit status 1 when one has a fault."""
    in_force = common.settings()
    proof = _proof(in_force)
    built_in = in_force.v2_upstream is None
    async with common.database() as database, aiohttp.ClientSession() as session:
        async with database.transaction(read_only=True) as connection:
            await migrations.require(connection)
        tried = await trial.try_all(
            database,
            Player(session, address, proof, cancels=not built_in),
            system_clock,
            lambda: f"relevo-test-{secrets.token_hex(8)}",
            built_in=built_in,
            actor=common.actor,
            reason=common.reason,
        )
    table = Table("vertical", "booking", "answered by", "made", "removed", "a person at", "faults")
    for each in tried:
        yes = {True: "yes", False: "no"}
        booking = (each.outcome or "").removesuffix("_created")
        made = (yes[each.booked], yes[each.removed]) if each.outcome else ("", "")
        table.add_row(
            each.vertical, booking, each.version or "nobody", *made, each.transfer or "", "; ".join(each.faults)
        )
    return Answer([asdict(each) for each in tried], table, 1 if any(each.faults for each in tried) else 0)


def _proof(in_force: Settings) -> Headers:
    """What lets our messages in, of what the settings accept. Raises ConfigurationError where nothing is accepted."""
    shown = credentials(in_force)
    if not (shown.secret or shown.bearer or shown.hmac_secret) and in_force.webhook_auth != "none":
        raise ConfigurationError(
            "no webhook authentication is configured, so no test call would be let in", fix="set RELEVO_VAPI_SECRET"
        )
    return lambda body: shown.headers(body, system_clock)


def data(standing: Standing) -> dict[str, Any]:
    """The checklist for machines."""
    return {
        "rollout": standing.rollout_id,
        "completed_at": standing.completed_at,
        "done": sum(line.state == "done" for line in standing.lines),
        "overdue": sum(line.overdue for line in standing.lines),
        "items": [_item(line) for line in standing.lines],
    }


def _item(line: Line) -> dict[str, Any]:
    return {
        "item": line.item.name,
        "stage": line.item.stage,
        "section": line.item.section,
        "title": line.item.title,
        "checked_by": "people" if line.item.check is None else "relevo",
        "state": line.state,
        "due_at": line.due_at,
        "overdue": line.overdue,
        "done_at": line.done.at if line.done else None,
        "done_by": line.done.name if line.done else None,
        "note": line.done.note if line.done else None,
        "evidence": line.evidence,
    }


def table(standing: Standing) -> Table:
    """The checklist for people."""
    rows = Table("stage", Column("item", no_wrap=True), "state", "due", "by", "evidence", box=box.SIMPLE)
    stage = ""
    for line in standing.lines:
        state = Text("overdue" if line.overdue else line.state, style="red" if line.overdue else _COLOURS[line.state])
        shown, stage = line.item.stage if line.item.stage != stage else "", line.item.stage
        who = line.done.name if line.done else "relevo" if line.item.check else "(sign)"
        rows.add_row(shown, line.item.name, state, f"{line.due_at:%m-%d %H:%M}", Text(who), Text(line.evidence))
    rows.title = f"the rollout was complete at {standing.completed_at:%Y-%m-%d %H:%M} UTC"
    return rows
