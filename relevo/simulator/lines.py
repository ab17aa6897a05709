"""Whom simulated calls are for: numbers that were named, or those of the tenants in the directory."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from relevo.clock import Clock
from relevo.db.pool import Database
from relevo.errors import Refused, UnknownName, nearest
from relevo.webhooks.identify import Entry, identify
from relevo.webhooks.known import Known
from relevo.webhooks.message import Event

_PHONE = re.compile(r"\+?[\d ()-]{6,20}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """A number that can be called; one of ``number_id`` and ``number`` is there."""

    tenant_id: str | None  # None: a number was named, and whose it is nobody said
    number_id: str | None  # at Vapi
    number: str | None
    weight: float = 1.0  # its share of calls, in any unit


def named(numbers: Iterable[str]) -> list[Line]:
    """The lines of numbers as people give them: +525512345678, or the number's id at Vapi."""
    return [Line(None, None, each) if _PHONE.fullmatch(each) else Line(None, each, None) for each in numbers]


async def of_tenants(
    database: Database, clock: Clock, tenants: Collection[str] | None = None, *, answered: bool = False
) -> list[Line]:
    """The line of every active tenant whose number is its own alone, or of the named ones. ``answered``: only of those
    to whose callers v1 has something to say.

    Raises UnknownName for a tenant that does not exist, and Refused where nobody can be called.
    """
    known = Known(database, clock)
    if not await known.refresh():
        raise Refused("the tenants' numbers cannot be read", fix="run: relevo db status; or name numbers: --numbers")
    by_tenant = known.directory.by_tenant
    for tenant in tenants or ():
        if tenant not in by_tenant:
            raise UnknownName(
                f"there is no tenant {tenant!r}.{nearest(tenant, by_tenant)}", fix="see them: relevo status"
            )
    found: dict[str, Line] = {}
    for tenant, entries in by_tenant.items():
        if tenants is None or tenant in tenants:
            for entry in entries:
                line = _line(entry)
                if not entry.active or tenant in found or _leads_to(known, line) != entry.config_id:
                    continue
                said = await known.said(entry, "v1") if answered else None
                if not answered or (said is not None and said.system_prompt):
                    found[tenant] = line
    lacking = sorted(set(tenants or ()) - found.keys())
    if lacking or not found:
        who = f"tenant {lacking[0]}" if lacking else "no tenant"
        raise Refused(
            f"{who} {'has no' if lacking else 'has an'} active configuration with a number of its own",
            fix="name other tenants, or numbers: --numbers",
        )
    return [found[tenant] for tenant in sorted(found)]


def _line(entry: Entry) -> Line:
    return Line(entry.tenant_id, next(iter(entry.number_ids), None), entry.number)


def _leads_to(known: Known, line: Line) -> str | None:
    """The configuration that a call on a line is for, as the router tells it."""
    asked = Event(type="assistant-request", number_id=line.number_id, number=line.number)
    found = identify(known.directory, asked).entry
    return found.config_id if found else None
