"""v1, built in: the stored prompt, first message and voice, as they are."""

from __future__ import annotations

from datetime import datetime

from relevo.webhooks.answers import House, Template
from relevo.webhooks.handlers.upstream import HandlerFailed
from relevo.webhooks.identify import Entry
from relevo.webhooks.known import Known


async def answer(known: Known, entry: Entry, house: House, now: datetime) -> Template:
    """What v1 says. Raises HandlerFailed where there is no v1 row, or one without a prompt."""
    found = await known.template(entry, "v1", house, now)
    if found is None:
        raise HandlerFailed("no v1 row" if not entry.in_v1 else "v1 has no prompt")
    return found
