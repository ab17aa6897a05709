"""``relevo flags``: what the flag says, and changing it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import App, Parameter, Token
from rich.console import Group
from rich.table import Table
from rich.text import Text

from relevo.cli.frame import ORDINARY, Answer, Common, WholeNumber
from relevo.errors import UsageError
from relevo.flags import writing
from relevo.flags.evaluate import Flag, evaluate_all
from relevo.flags.writing import Author, Change

SHOWN = 10  # of each list, to a person

app = App(name="flags", help="The flag voice_agent_v2: who is on v2.")


def _percentage(_type: type, tokens: Sequence[Token]) -> int:
    written = tokens[0].value
    if not re.fullmatch(r"\d{1,3}", written, re.ASCII) or int(written) > 100:
        raise UsageError(
            f"a percentage is a whole number from 0 to 100, not {written!r}", fix="nothing was changed; give one"
        )
    return int(written)


Percentage = Annotated[int, Parameter(converter=_percentage, allow_leading_hyphen=True)]
TenantNames = Annotated[str, Parameter(name="tenant", allow_leading_hyphen=True)]


@app.command
async def show(*, common: Common = ORDINARY) -> Answer:
    """The flag as it is now, and which processes answer by which version."""
    async with common.database() as database:
        flag = await writing.get(database)
        readers = await writing.readers(database)
    table = Table("process", "version", "told by", "since")
    for each in readers:
        table.add_row(Text(each.reader), str(each.version), each.mode, f"{each.applied_at:%Y-%m-%d %H:%M:%S}")
    data = {**_data(flag), "readers": [asdict(each) for each in readers]}
    return Answer(data, Group(_table(flag), table) if readers else _table(flag))


@app.command
async def evaluate(*tenants: TenantNames, common: Common = ORDINARY) -> Answer:
    """v1 or v2 for each tenant, and why, in the order asked. Any text is taken for a tenant id."""
    if not tenants:
        raise UsageError("no tenant is named", fix="name at least one")
    async with common.database() as database:
        flag = await writing.get(database)
    answers = evaluate_all(flag, tenants)
    table = Table("tenant", "variant", "reason", "percentile")
    for each in answers:
        place = "" if each.percentile is None else str(each.percentile)
        table.add_row(Text(each.tenant_id), each.variant, each.reason, place)
    return Answer([each._asdict() for each in answers], table)


@app.command
async def set_percentage(percentage: Percentage, *, common: Common = ORDINARY) -> Answer:
    """Select this share of tenants by hash. Of those, unverified ones go to the disabled list, and are named."""
    async with common.database() as database:
        change = await writing.set_percentage(database, percentage, _author(common))
    return _changed(change, "not verified, so put on the disabled list")


@app.command
async def enable(
    *tenants: TenantNames, force: Annotated[bool, Parameter(negative="")] = False, common: Common = ORDINARY
) -> Answer:
    """Put tenants on v2. Refused while one of them is not verified.

    Parameters
    ----------
    force
        Enable unverified tenants too; goes to the audit log.
    """
    async with common.database() as database:
        change = await writing.enable(database, tenants, _author(common), force=force)
    return _changed(change, "enabled by force, though")


@app.command
async def disable(*tenants: TenantNames, common: Common = ORDINARY) -> Answer:
    """Put tenants back on v1."""
    async with common.database() as database:
        return _changed(await writing.disable(database, tenants, _author(common)))


@app.command
async def on(*, common: Common = ORDINARY) -> Answer:
    """Let lists and percentage count."""
    async with common.database() as database:
        change = await writing.switch(database, True, _author(common))
    return _changed(change, "not verified, so put on the disabled list")


@app.command
async def off(*, common: Common = ORDINARY) -> Answer:
    """Everybody on v1. Lists and percentage are kept."""
    async with common.database() as database:
        return _changed(await writing.switch(database, False, _author(common)))


@app.command
async def history(*, limit: WholeNumber = 20, common: Common = ORDINARY) -> Answer:
    """What was changed, when, by whom and why; newest first.

    Parameters
    ----------
    limit
        How many changes.
    """
    if limit < 1:
        raise UsageError(f"--limit is {limit}", fix="give 1 or more")
    async with common.database() as database:
        changes = await writing.history(database, limit)
    table = Table("when", "who", "what", "why")
    for each in changes:
        table.add_row(
            f"{each.at:%Y-%m-%d %H:%M:%S}", Text(each.actor), Text(_told(each.details)), Text(each.reason or "")
        )
    return Answer([asdict(each) for each in changes], table if changes else "nobody has changed the flag")


def _author(common: Common) -> Author:
    return Author(common.actor, common.reason)


def _changed(change: Change, unverified_are: str = "") -> Answer:
    """What the row is afterwards: a write that did nothing must not look like one that did."""
    changed = change.flag.version != change.before.version
    data = {
        "success": True,
        "changed": changed,
        **_data(change.flag),
        "unverified": [asdict(each) for each in change.unverified],
    }
    lines = [Text(f"{each.tenant_id}: {unverified_are} {each.why}") for each in change.unverified]
    said = [] if changed else [Text("the flag was so already; nothing changed")]
    return Answer(data, Group(*said, *lines, _table(change.flag)))


def _data(flag: Flag) -> dict[str, Any]:
    return {
        "name": flag.name,
        "enabled": flag.enabled,
        "percentage": flag.percentage,
        "enabled_tenants": sorted(flag.enabled_tenants),
        "disabled_tenants": sorted(flag.disabled_tenants),
        "version": flag.version,
    }


def _table(flag: Flag) -> Table:
    table = Table(show_header=False)
    table.add_row("flag", flag.name)
    table.add_row("state", "on" if flag.enabled else "off: everybody is on v1")
    table.add_row("percentage", f"{flag.percentage} %")
    table.add_row("enabled tenants", _listed(flag.enabled_tenants))
    table.add_row("disabled tenants", _listed(flag.disabled_tenants))
    table.add_row("version", str(flag.version))
    return table


def _listed(tenants: frozenset[str]) -> Text:
    first = sorted(tenants)[:SHOWN]
    more = len(tenants) - len(first)
    return Text("\n".join(first) + (f"\nand {more:,} more" if more else "") if tenants else "none")


def _told(details: dict[str, Any]) -> str:
    """A delta of the audit log, in a few words."""
    parts = [f"version {details['version']}"]
    for name in ("enabled", "percentage"):
        if name in details:
            parts.append(f"{name} {_value(details[name].get('from'))} → {_value(details[name]['to'])}")
    for name in ("enabled_tenants", "disabled_tenants"):
        for verb, sign in (("added", "+"), ("removed", "−")):
            tenants = details.get(name, {}).get(verb, [])
            more = f" and {len(tenants) - 3:,} more" if len(tenants) > 3 else ""
            parts += [f"{name} {sign} {', '.join(tenants[:3])}{more}"] if tenants else []
    return "; ".join(parts) + ("; forced" if details.get("forced") else "")


def _value(value: bool | int | None) -> str:
    return (
        {True: "on", False: "off", None: "nothing"}[value] if isinstance(value, bool) or value is None else f"{value} %"
    )
