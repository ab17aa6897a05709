"""``relevo status`` and ``relevo why``: where the tenants stand, and everything about one of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import ConsoleRenderable, Group
from rich.table import Table
from rich.text import Text

from relevo.cli.frame import ORDINARY, Answer, Common, WholeNumber
from relevo.migration import preflight, states
from relevo.migration.states import TenantState, Why
from relevo.tenants.answer import tenant_of
from relevo.webhooks.placing import TenantCalls, calls_of

_COLOUR = {"live": "green", "verified": "green", "copied": "yellow", "pending": "yellow", "waiting": "yellow"}


async def status(
    *,
    state: Annotated[str | None, Parameter(help="Only tenants in this state.")] = None,
    most: Annotated[WholeNumber, Parameter(help="How many tenants to show; JSON has them all.")] = 50,
    common: Common = ORDINARY,
) -> Answer:
    """All tenants and where each stands on its way to v2. Exit status 1 when one drifted or has writes that wait."""
    mapping = common.mapping()
    async with common.database() as database:
        preflight.refuse_blocked(await preflight.structure(database, mapping))
        found = await states.all_tenants(database, mapping)
    counts = Counter(each.state for each in found)
    chosen = [each for each in found if state is None or each.state == state]
    data = {
        "total_tenants": len(found),
        "tenants_on_v2": sum(each.version == "v2" for each in found),
        "states": dict(counts),
        "tenants": [asdict(each) for each in chosen],
    }
    wrong = counts["drifted"] + counts["waiting"]
    return Answer(data, _table(chosen, counts, most), 1 if wrong else 0)


async def why(tenant: str, *, common: Common = ORDINARY) -> Answer:
    """Everything about one tenant: data, flag, what waits, what was edited, and why it is not further on.

    Parameters
    ----------
    tenant
        Its id, the beginning of its id, or its name.
    """
    mapping = common.mapping()
    async with common.database() as database:
        preflight.refuse_blocked(await preflight.structure(database, mapping))
        fill = {name: rows for name, rows in mapping.fill().items() if name != "calls"}
        found = await states.why(database, mapping, (await tenant_of(database, tenant, fill)).id)
        async with database.transaction(read_only=True) as connection:
            calls = await calls_of(connection, str(found.tenant.tenant_id))
    data = {**asdict(found.tenant), "flag": found.flag._asdict(), "configurations": found.configs, **asdict(calls)}
    return Answer(data, Group(_why(found), _calls(calls)))


def _table(chosen: list[TenantState], counts: Counter[Any], most: int) -> ConsoleRenderable:
    table = Table("tenant", "name", "state", "version", "why", title_justify="left")
    for each in chosen[:most]:
        colour = _COLOUR.get(each.state, "red")
        reasons = Text("; ".join(each.reasons))
        table.add_row(str(each.tenant_id), Text(each.name or "—"), f"[{colour}]{each.state}[/]", each.version, reasons)
    summary = ", ".join(f"{count:,} {state}" for state, count in counts.most_common()) or "no tenants"
    left = len(chosen) - most
    more = [Text(f"and {left:,} more: --most {len(chosen)}, --state, or --json")] if left > 0 else []
    return Group(table, *more, Text(summary))


def _why(found: Why) -> ConsoleRenderable:
    tenant, flag = found.tenant, found.flag
    head = Text.assemble((tenant.name or "a business without a name", "bold"), f"  {tenant.tenant_id}  ")
    facts = Table(show_header=False, box=None)
    facts.add_row("state", f"[{_COLOUR.get(tenant.state, 'red')}]{tenant.state}[/]")
    for reason in tenant.reasons:
        facts.add_row("", Text(reason))
    facts.add_row("vertical", Text(tenant.vertical or "none"))
    facts.add_row(
        "flag",
        f"{flag.variant}, by {flag.reason} (percentile {flag.percentile}, flag version {flag.flag_version}: "
        f"{'on' if found.flag_row.enabled else 'off'}, {found.flag_row.percentage} %)",
    )
    return Group(head, facts, *(_config(each) for each in found.configs))


def _calls(calls: TenantCalls) -> Table:
    table = Table(show_header=False, box=None)
    for each in calls.numbers:
        asks = "is bound, and never asks us: relevo vapi adopt" if each["bound"] else "asks us"
        table.add_row("number", Text(f"{each['number'] or each['id']} {asks}, as of {each['seen_at'][:16]}"))
    if not calls.numbers:
        table.add_row("number", "not known whether it asks us: relevo vapi numbers")
    for each in calls.open_calls:
        pin = f"{each['version']} by {each['decided_by']}, served by {each['served_version']}"
        table.add_row("call", Text(f"{each['call_id']} {each['status']}: {pin}, since {each['decided_at'][:16]}"))
    last = calls.last_fallback
    if last is not None:
        table.add_row("last fallback", Text(f"{last['at'][:16]} {last['why']} (call {last['call_id']})"))
    return table


def _config(config: dict[str, Any]) -> Table:
    active = "active" if config["is_active"] else "not active"
    table = Table(show_header=False, title=f"configuration {config['config_id']}, {active}", title_justify="left")
    sides = [side for side, there in (("v1", config["in_v1"]), ("v2", config["in_v2"])) if there]
    table.add_row("is on", " and ".join(sides))
    table.add_row("number", Text(config["phone_number_id"] or "none"))
    table.add_row("assistant type", config["assistant_type_id"] or "none yet")
    when = f", since {config['verified_at']:%Y-%m-%d %H:%M} UTC" if config["verified_at"] else ""
    table.add_row("verification", f"{config['verification'] or 'never'}{when}")
    if config["differs_in"]:
        table.add_row("differs in", ", ".join(config["differs_in"]))
    if config["quarantine_reason"]:
        table.add_row("set aside", Text(f"{config['quarantine_reason']}: {config['quarantine_detail']}"))
    for edit in config["edits"]:
        table.add_row("edited on v2", Text(f"{edit['field']} by {edit['edited_by']}, {edit['edited_at'][:16]}"))
    for each in config["queue"]:
        table.add_row("waits", Text(f"{', '.join(each['fields'])} written on {each['written_on']}: {each['reason']}"))
    for each in config["conflicts"]:
        kept = f"{each['field']}: v1 {each['v1_value']!r}, v2 {each['v2_value']!r}, kept {each['kept']}"
        table.add_row(f"conflict {each['id']}", Text(kept))
    if config["review"]:
        table.add_row("to review", ", ".join(config["review"]))
    return table
