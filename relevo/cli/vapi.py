"""``relevo vapi``: which numbers at Vapi ask us, and binding them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from relevo.cli.frame import ORDINARY, Answer, Common, TenantIds, tenants
from relevo.clock import system_clock
from relevo.errors import ConfigurationError, VapiRefused, VapiUnreachable
from relevo.migration.findings import Finding
from relevo.webhooks import numbers as bindings
from relevo.webhooks.handlers import upstream
from relevo.webhooks.numbers import Changed, Number
from relevo.webhooks.routes import PATHS
from relevo.webhooks.vapi import Vapi

app = App(name="vapi", help="Which numbers at Vapi ask us who answers: those bound to no assistant.")


@app.command
async def numbers(*, common: Common = ORDINARY) -> Answer:
    """The numbers as they are at Vapi now: whose they are, and whether they ask us."""
    async with _vapi(common) as vapi, common.database() as database:
        found = await bindings.read(database, vapi, system_clock)
    table = Table("number", "id", "tenants", "asks us", "bound to", "adopted")
    for each in found:
        bound_to = each.assistant_id or each.squad_id or each.workflow_id or ""
        adopted = f"{each.adopted_at:%Y-%m-%d %H:%M} by {each.adopted_by}" if each.adopted_at else ""
        owners = ", ".join(each.tenants) or "nobody"
        table.add_row(Text(each.number or ""), Text(each.id), owners, _asks(each), Text(bound_to), Text(adopted))
    return Answer([{**asdict(each), "asks_us": not each.bound} for each in found], table if found else "no numbers")


@app.command
async def adopt(
    *,
    tenant_ids: TenantIds = None,
    transfer_to: Annotated[str | None, Parameter(help="Where Vapi transfers when we do not answer in time.")] = None,
    common: Common = ORDINARY,
) -> Answer:
    """Unbind numbers from their assistants, so that Vapi asks us for each call. release undoes it."""
    chosen, base = tenants(tenant_ids), common.settings().public_url
    async with _vapi(common) as vapi, common.database() as database:
        done = await bindings.adopt(
            database,
            vapi,
            system_clock,
            tenants=None if chosen is None else [str(each) for each in chosen],
            webhook=None if base is None else base.rstrip("/") + PATHS[0],
            transfer_to=transfer_to,
            actor=common.actor,
            reason=common.reason,
        )
    return _changed(done, "adopted")


@app.command
async def release(*, tenant_ids: TenantIds = None, common: Common = ORDINARY) -> Answer:
    """Put back what adopt changed: assistants, fallbacks and URLs."""
    chosen = tenants(tenant_ids)
    async with _vapi(common) as vapi, common.database() as database:
        done = await bindings.release(
            database,
            vapi,
            system_clock,
            tenants=None if chosen is None else [str(each) for each in chosen],
            actor=common.actor,
            reason=common.reason,
        )
    return _changed(done, "released")


async def findings(common: Common) -> list[Finding]:
    """What preflight says of the numbers at Vapi, also where they cannot be read."""
    unknown = "whether Vapi asks us who answers is unknown: on a number bound to an assistant v2 changes nothing"
    if not common.settings().vapi_api_key:
        fix = "set RELEVO_VAPI_API_KEY to a private key, and run this again"
        return [Finding("warning", "binding_unknown", unknown, fix)]
    try:
        async with _vapi(common) as vapi:
            bound = [each for each in await vapi.numbers() if bindings.is_bound(each)]
    except (VapiUnreachable, VapiRefused) as error:
        return [Finding("warning", "binding_unknown", f"{unknown} ({error})", error.fix)]
    if not bound:
        return []
    return [
        Finding(
            "warning",
            "numbers_bound",
            f"numbers bound to an assistant at Vapi, which never ask us who answers: {len(bound):,}",
            "relevo vapi adopt, before their tenants go to v2; relevo vapi release puts it back",
            len(bound),
            tuple(str(each.get("number") or each["id"]) for each in bound[:10]),
        )
    ]


@asynccontextmanager
async def _vapi(common: Common) -> AsyncIterator[Vapi]:
    in_force = common.settings()
    if in_force.vapi_api_key is None:
        raise ConfigurationError("Vapi's API key is not known", fix="set RELEVO_VAPI_API_KEY to a private key")
    async with upstream.session() as session:
        yield Vapi(session, in_force.vapi_api_url, in_force.vapi_api_key)


def _changed(done: list[Changed], verb: str) -> Answer:
    table = Table("number", "id", "tenants", "")
    told = []
    for each in done:
        failure = str(each.failure) if each.failure else None
        outcome = Text(f"not {verb}: {failure}" if failure else verb)
        table.add_row(Text(each.number.number or ""), Text(each.number.id), ", ".join(each.number.tenants), outcome)
        told.append({"id": each.number.id, "tenants": each.number.tenants, "failure": failure})
    success = all(each.failure is None for each in done)
    data = {"success": success, "numbers": told}
    return Answer(data, table if done else f"nothing to be {verb}", status=0 if success else 1)


def _asks(number: Number) -> str:
    return "no" if number.bound else "yes"
