"""v2, built in: the rendered template with the day and the hour, the voice's speed, a tool per capability."""

from __future__ import annotations

from datetime import datetime

from relevo.webhooks.answers import House, Template
from relevo.webhooks.handlers.upstream import NothingToSay
from relevo.webhooks.identify import Entry
from relevo.webhooks.known import Known


async def answer(known: Known, entry: Entry, house: House, now: datetime) -> Template:
    """What v2 says. Raises NothingToSay where v2 has no row, has set it aside, cannot render it, or is not known."""
    found = await known.template(entry, "v2", house, now) if entry.in_v2 else None
    if found is None:
        if not entry.in_v2:
            raise NothingToSay("no v2 row, or it is set aside")
        raise NothingToSay("v2 cannot be rendered" if known.has_heard(entry) else "what v2 says is not known")
    return found
