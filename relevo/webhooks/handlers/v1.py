"""v1, built in: the stored prompt, first message and voice, as they are."""

from __future__ import annotations

from datetime import datetime

from relevo.webhooks.answers import House, Template
from relevo.webhooks.handlers.upstream import NothingToSay
from relevo.webhooks.identify import Entry
from relevo.webhooks.known import Known


async def answer(known: Known, entry: Entry, house: House, now: datetime) -> Template:
    """What v1 says. Raises NothingToSay where there is no v1 row, one without a prompt, or none at hand."""
    found = await known.template(entry, "v1", house, now)
    if found is None:
        if not entry.in_v1:
            raise NothingToSay("no v1 row")
        raise NothingToSay("v1 has no prompt" if known.has_heard(entry) else "what v1 says is not known")
    return found
