"""What people look at and decide: the review list and the quarantine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from jinja2 import Environment, PackageLoader
from rich.console import Group
from rich.table import Table
from rich.text import Text

from relevo.cli.frame import ORDINARY, Answer, Common, TenantIds, tenants
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.errors import UsageError
from relevo.migration import preflight, quarantine, reviewing

app = App(name="quarantine", help="Configurations that were set aside.")


async def review(
    *,
    html: Path | None = None,
    uncovered: Annotated[bool, Parameter(negative="")] = False,
    tenant_ids: TenantIds = None,
    common: Common = ORDINARY,
) -> Answer:
    """List what a person should look at before a tenant goes live.

    Parameters
    ----------
    html
        Write a page with each prompt beside its result, the deciding words marked.
    uncovered
        Also list prompts whose only fault is that they say things v2 would not carry.
    """
    chosen = tenants(tenant_ids)
    mapping = common.mapping()
    async with common.database() as database:
        preflight.refuse_blocked(await preflight.structure(database, mapping))
        async with database.transaction(read_only=True) as connection:
            await migrations.require(connection)
        await preflight.require_tenants(database, mapping, chosen)
        listing = reviewing.entries(database, mapping, tenant_ids=chosen, uncovered_too=uncovered)
        entries = [entry async for entry in listing]
        place = database.place
    if html is not None:
        _write(html, entries, place)
    table = Table("configuration", "business", "vertical", "type", "look at it because", "not carried")
    for entry in entries:
        lost = sum(len(passage["text"]) for passage in entry.uncovered)
        table.add_row(
            str(entry.config_id),
            Text(entry.business_name or ""),
            Text(entry.vertical),
            Text(entry.assistant_type_id),
            "\n".join(reason for reason in entry.reasons if reason != "uncovered"),
            f"{lost:,} characters" if lost else "",
        )
    last = f"written to {html}" if html else "relevo review --html FILE shows each prompt beside its result"
    return Answer(
        [asdict(entry) for entry in entries],
        Group(table, f"{len(entries):,} to look at; {last}") if entries else "nothing to look at",
    )


@app.command(name="list")
async def list_quarantine(*, common: Common = ORDINARY) -> Answer:
    """What was set aside, and why."""
    async with common.database() as database:
        async with database.transaction(read_only=True) as connection:
            await migrations.require(connection)
        found = await quarantine.listed(database, common.mapping())
    table = Table("configuration", "business", "reason", "detail", "set aside")
    for each in found:
        detail = each.detail if each.in_v1 else f"{each.detail}; it is gone from v1"
        table.add_row(
            each.config_id, each.business_id or "", each.reason, Text(detail), f"{each.set_aside_at:%Y-%m-%d %H:%M}"
        )
    return Answer([asdict(each) for each in found], table if found else "nothing is set aside")


@app.command
async def retry(*, common: Common = ORDINARY) -> Answer:
    """Move what can go now. Exit status 1 when something is still set aside."""
    mapping = common.mapping()
    async with common.database() as database:
        async with database.transaction(read_only=True) as connection:
            await migrations.require(connection)
        result = await quarantine.retry(database, mapping, actor=common.actor, reason=common.reason, emit=common.sink())
        left = await quarantine.listed(database, mapping)
    moved = result.migrated_configs if result else 0
    reasons = "".join(f"\n  {each.config_id}: {each.detail}" for each in left[:10])
    return Answer(
        {
            "success": not left,
            "migrated_configs": moved,
            "quarantined_configs": len(left),
            "left": [asdict(e) for e in left],
        },
        f"{moved:,} moved, {len(left):,} still set aside{reasons}",
        1 if left else 0,
    )


def _write(file: Path, entries: list[reviewing.Entry], place: str) -> None:
    """One page that needs nothing else; every text of a tenant is escaped."""
    pages = Environment(loader=PackageLoader("relevo.migration"), autoescape=True)
    page = pages.get_template("review.html").render(
        entries=entries, reasons=reviewing.REASONS, place=place, now=system_clock()
    )
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", fix="name a file that can be written") from error
