"""Ends v2's part in calls that are going on: whoever calls hears an apology, and is put through to a person of the
business where a line of theirs is known.

Calls stay with the version that they began with; cutting is for a v2 that must not say another word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from psycopg.types.json import Jsonb

from relevo.clock import Clock
from relevo.db.pool import Database, every
from relevo.db.statements import statement
from relevo.errors import RelevoError, VapiKeyRefused, VapiRefused, VapiUnreachable
from relevo.flags.writing import Author
from relevo.rollback.levels import LONGEST_CALL
from relevo.webhooks.answers import APOLOGY, APOLOGY_BEFORE_TRANSFER, transfer_to
from relevo.webhooks.vapi import Vapi

AT_ONCE = 16
"""Calls that are spoken of with Vapi at the same time."""

How = Literal["transferred", "ended", "over", "left"]


@dataclass(frozen=True, slots=True)
class Cut:
    """What became of one call."""

    call_id: str
    tenant_id: str
    how: How  # over: before we came; left: it goes on with v2
    why: str | None = None  # left: why


async def cut(
    database: Database, vapi: Vapi | None, tenants: Sequence[str] | None, author: Author, clock: Clock
) -> list[Cut]:
    """Cut the calls that v2 answers for these tenants; None: for all whom the flag does not put on v2 now.

    Never raises for what Vapi says or does not say: such a call is ``left``, and is told why.
    """
    async with database.transaction(read_only=True) as connection:
        wanted = {"tenants": None if tenants is None else list(tenants), "since": clock() - LONGEST_CALL}
        found = await every(connection, statement("rollback", "calls_of_v2"), wanted)
    cutter = _Cutter(database, vapi, author)
    return list(await asyncio.gather(*(cutter.one(call) for call in found)))


class _Cutter:
    """Speaks with Vapi of one call after the other, until it is found that Vapi does not speak with us."""

    def __init__(self, database: Database, vapi: Vapi | None, author: Author) -> None:
        self._database, self._vapi, self._author = database, vapi, author
        self._away = None if vapi is not None else "RELEVO_VAPI_API_KEY is not set, so nobody can speak for us at Vapi"
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def one(self, call: Mapping[str, Any]) -> Cut:
        """What became of this one, told to the audit log where it was cut."""
        async with self._turns:
            how, why = await self._speak(call)
            if how in ("transferred", "ended"):
                await self._note(call, how)
        return Cut(call["call_id"], call["tenant_id"], how, why)

    async def _speak(self, call: Mapping[str, Any]) -> tuple[How, str | None]:
        if self._vapi is None or self._away is not None:
            return "left", self._away
        try:
            known = await self._vapi.call(call["call_id"])
        except (VapiUnreachable, VapiKeyRefused) as error:
            self._away = str(error)  # it would be the same for each, maybe after ten seconds each
            return "left", self._away
        except VapiRefused as error:  # of this one; a refusal comes at once, so the others may be asked
            return "left", str(error)
        if known is None:
            return "left", "Vapi does not know it"
        if known.get("status") == "ended":
            return "over", None
        url = (known.get("monitor") or {}).get("controlUrl")
        if not isinstance(url, str) or not url:
            return "left", "Vapi gives no control over it: its assistant's monitorPlan.controlEnabled is off"
        line = _line(call["human_lines"] or {}, known.get("phoneNumberId"))
        try:
            await self._vapi.control(url, _said(line))
        except RelevoError as error:
            return "left", str(error)
        return ("ended", None) if line is None else ("transferred", None)

    async def _note(self, call: Mapping[str, Any], how: How) -> None:
        said = {
            "actor": self._author.actor,
            "reason": self._author.reason,
            "call_id": call["call_id"],
            "details": Jsonb({"tenant_id": call["tenant_id"], "how": how}),
        }
        async with self._database.transaction() as connection:
            await connection.execute(statement("rollback", "note_cut"), said)


def _line(lines: Mapping[str, str], number_id: Any) -> str | None:
    """The human line of the number that was called; else the tenant's only one."""
    return lines.get(str(number_id)) or (next(iter(lines.values())) if len(lines) == 1 else None)


def _said(line: str | None) -> dict[str, Any]:
    """What Vapi is told to do with the call."""
    if line is None:
        return {"type": "say", "content": APOLOGY, "endCallAfterSpoken": True}
    destination = transfer_to(line, APOLOGY_BEFORE_TRANSFER)
    del destination["message"]  # said once, by the message itself
    return {"type": "transfer", "destination": destination, "content": APOLOGY_BEFORE_TRANSFER}
