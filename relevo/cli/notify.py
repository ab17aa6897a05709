"""``relevo notify``: what clients and the team are told."""

from __future__ import annotations

import itertools
import random
import shutil
import webbrowser
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from relevo.cli.frame import ORDINARY, Answer, Common, TenantIds, WholeNumber
from relevo.clock import system_clock
from relevo.comms import clients, outbox, texts
from relevo.comms.blockkit import payload
from relevo.comms.channels import channels, texts_of
from relevo.comms.clients import Client, Sending
from relevo.comms.delivery import Delivery
from relevo.comms.notices import notice_of
from relevo.comms.outcome import Channel
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.errors import UsageError
from relevo.events import Progress, Sink, StepFinished
from relevo.rollout.telling import tell_status

app = App(name="notify", help="What clients and the team are told.")

_SHOWN = 20


@app.command
async def preview(
    name: str,
    *,
    tenant_id: Annotated[str | None, Parameter(help="As this client would get it; default: a sample.")] = None,
    html: Annotated[Path | None, Parameter(help="Write the e-mail's HTML to this file.")] = None,
    browser: Annotated[bool, Parameter(negative="", help="Show that file in the browser.")] = False,
    at: Annotated[datetime | None, Parameter(help="The moment that it speaks of.")] = None,
    common: Common = ORDINARY,
) -> Answer:
    """A notice as it would go out. Nothing is sent."""
    in_force, notice = common.settings(), notice_of(name)
    written = texts_of(in_force)
    variables: Any = dict(notice.sample)
    if tenant_id is not None:
        async with common.database() as database, database.transaction(read_only=True) as connection:
            await migrations.require(connection)
            planned = await clients.plan(connection, notice, [tenant_id])
        variables = clients.variables_of((*planned.to, *planned.left_out)[0], at)
    if notice.audience == "team":
        if html or browser or tenant_id:
            raise UsageError(f"{name} goes to Slack", fix="leave --html, --browser and --tenant-id out")
        text = written.slack(name, variables)
        return Answer(payload(text, in_force.slack_channel), text)
    mail = written.mail(name, variables)
    if browser and html is None:
        raise UsageError("--browser shows a file", fix="name one with --html FILE")
    if html is not None:
        _write(html, mail.html)
    if html is not None and browser:
        webbrowser.open(html.resolve().as_uri())
    data = {"notice": name, "subject": mail.subject, "text": mail.text, "html": mail.html}
    return Answer(data, f"{mail.subject}\n\n{mail.text}".rstrip())


@app.command
async def send(
    name: str,
    *,
    tenant_ids: TenantIds = None,
    at: Annotated[datetime | None, Parameter(help="The moment the text speaks of, with its offset; else none.")] = None,
    yes: Annotated[bool, Parameter(negative="", help="Send to all clients; without it, that only shows who.")] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="Show who would get it; send nothing.")] = False,
    common: Common = ORDINARY,
) -> Answer:
    """Tell clients something by e-mail, each once, ever; naming no tenant is a dry run unless --yes is given. Or tell
    the team by Slack where the rollout stands: team_status."""
    in_force, notice, now = common.settings(), notice_of(name), system_clock()
    opened = channels(in_force, texts_of(in_force), system_clock)  # a faulty text is found before anything is written
    if name == "team_status":
        return await _send_status(common, opened, dry=dry_run)
    named = None if tenant_ids is None else _ids(tenant_ids)
    dry = dry_run or (named is None and not yes)
    moment = at.astimezone() if at else None
    async with common.database() as database:
        async with database.transaction(read_only=dry) as connection:
            await migrations.require(connection)
            planned = await clients.plan(connection, notice, named)
            told = (
                []
                if dry
                else await clients.send(connection, planned, moment, now, actor=common.actor, reason=common.reason)
            )
        if dry:
            return Answer(_data(planned, told, dry=True), _shown_dry(planned))
        await _deliver(database, opened, "email", common.sink())
        async with database.transaction(read_only=True) as connection:
            became = await outbox.became(connection, name, told)
    shown = _shown(planned, told, became, mail=in_force.smtp_url is not None)
    return Answer(_data(planned, told, dry=False) | {"messages": became}, shown)


@app.command
async def status(*, common: Common = ORDINARY) -> Answer:
    """What waits, what was sent, what is dead and why."""
    in_force = common.settings()
    configured = {
        "slack": in_force.slack_webhook_url is not None,
        "pagerduty": in_force.pagerduty_routing_key is not None,
        "email": in_force.smtp_url is not None,
    }
    async with common.database() as database, database.transaction(read_only=True) as connection:
        await migrations.require(connection)
        counted = await outbox.counts(connection)
        troubled = await outbox.troubled(connection, _SHOWN)
    table = Table("channel", "notice", "state", "messages", "oldest", title="messages")
    for row in counted:
        where = row["channel"] + ("" if configured[row["channel"]] else " (not configured here)")
        table.add_row(where, row["notice"], row["state"], f"{row['messages']:,}", f"{row['oldest']:%Y-%m-%d %H:%M}")
    for row in troubled:
        table.add_row(
            f"#{row['id']}", row["notice"], row["state"], f"{row['attempts']}×", Text(row["last_error"] or "")
        )
    data = {"configured": configured, "messages": counted, "troubled": troubled}
    return Answer(data, table if counted else "nothing was ever told")


@app.command
async def retry(
    *messages: WholeNumber,
    every: Annotated[bool, Parameter(name="--all", negative="", help="All dead messages.")] = False,
    common: Common = ORDINARY,
) -> Answer:
    """Try dead messages once more; who runs relevo serve delivers them."""
    if every == bool(messages):
        raise UsageError("name the dead messages to retry, or --all", fix="see their ids: relevo notify status")
    async with common.database() as database, database.transaction() as connection:
        await migrations.require(connection)
        ids = None if every else list(messages)
        found = await outbox.retry(connection, ids, system_clock(), actor=common.actor, reason=common.reason)
    lines = [f"{len(found.again)} messages are tried again"]
    lines += [f"#{each} is not: its incident is over, and would be opened for good" for each in found.over]
    return Answer({"retried": found.again, "over": found.over}, "\n".join(lines))


@app.command(name="texts")
def copy_texts(folder: Path, *, common: Common = ORDINARY) -> Answer:  # noqa: ARG001
    """Copy the texts to a folder, to be edited; RELEVO_NOTIFY_TEXTS then names it."""
    if folder.exists():
        raise UsageError(f"{folder} is there already", fix="name a folder that is not")
    try:
        shutil.copytree(texts.SHIPPED, folder)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}", fix="name a folder that can be made") from error
    names = sorted(file.name for file in folder.iterdir())
    return Answer({"folder": str(folder), "files": names}, f"{len(names)} files in {folder}; set RELEVO_NOTIFY_TEXTS")


async def _send_status(common: Common, opened: list[Channel], *, dry: bool) -> Answer:
    if dry:
        raise UsageError("a status update has no dry run", fix="see it with: relevo rollout status")
    async with common.database() as database:
        async with database.transaction(read_only=True) as connection:
            await migrations.require(connection)
        told = await tell_status(database, system_clock())
        await _deliver(database, opened, "slack", common.sink())
    return Answer({"notice": "team_status", **told}, f"the team is told: {told['state']}, {told['percentage']}%")


async def _deliver(database: Database, opened: list[Channel], name: str, sink: Sink) -> None:
    """Deliver at once what can go at once; what cannot waits for relevo serve."""
    for channel in opened:
        if channel.name == name:
            await _deliver_by(channel, database, sink)
        await channel.close()


async def _deliver_by(channel: Channel, database: Database, sink: Sink) -> None:
    async with database.transaction(read_only=True) as connection:
        due = await outbox.due(connection, channel.name, system_clock())
    count = itertools.count(1)
    delivery = Delivery(database, channel, system_clock, random.random)
    tried = await delivery.deliver_due(lambda: sink(Progress(next(count), due, "messages")))
    if due:
        sink(StepFinished(f"{tried:,} of {due:,} messages tried"))


def _ids(written: str) -> list[str]:
    ids = [each.strip().lower() for each in written.split(",") if each.strip()]
    if not ids:
        raise UsageError("--tenant-ids is empty", fix="name at least one tenant, or leave it out for all")
    return ids


def _data(planned: Sending, told: list[str], *, dry: bool) -> dict[str, Any]:
    return {
        "notice": planned.notice,
        "dry_run": dry,
        "to": [asdict(client) for client in planned.to],
        "told": told,
        "left_out": [asdict(client) for client in planned.left_out],
    }


def _shown_dry(planned: Sending) -> str:
    lines = [f"{len(planned.to):,} clients would get {planned.notice}; {len(planned.left_out):,} are left out"]
    lines += _left_out(planned)
    lines += [f"  to {_named(client)} <{client.email}>" for client in planned.to[:_SHOWN]]
    return "\n".join([*lines, "nothing was sent; add --yes to send it"])


def _shown(planned: Sending, told: list[str], became: Mapping[str, int], *, mail: bool) -> str:
    lines = [f"{len(told):,} clients are told; {len(planned.left_out):,} are left out", *_left_out(planned)]
    lines.append(f"{became['sent']:,} mails are sent, {became['waiting']:,} wait, {became['dead']:,} are dead")
    if not mail:
        lines.append("the messages wait: RELEVO_SMTP_URL is not set here; a relevo serve that has it delivers them")
    elif became["waiting"]:
        lines.append("what waits is delivered by relevo serve, or by the same command again; why: relevo notify status")
    if became["dead"]:
        lines.append("see why: relevo notify status; once that is mended: relevo notify retry")
    return "\n".join(lines)


def _left_out(planned: Sending) -> list[str]:
    return [f"  {_named(client)}: {client.why_not}" for client in planned.left_out[:_SHOWN]]


def _named(client: Client) -> str:
    return f"{client.name or '?'} ({client.tenant_id})"


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", fix="name a file that can be written") from error
