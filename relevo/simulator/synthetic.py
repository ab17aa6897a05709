"""One test call, played to a running ``relevo serve`` as Vapi would: asked, answered, booked, transferred, over.

Every message is marked as ours (``X-Relevo-Synthetic``), so that the call counts nowhere. Nothing here reads or writes
a database: whether what was said is so, others look up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from pydantic_core import from_json, to_json

from relevo.simulator.script import understood
from relevo.webhooks.routes import PATHS

WITHIN_S = 20.0
_CALLER = "+520000000000"
_LASTED = timedelta(seconds=30)

Headers = Callable[[bytes], Mapping[str, str]]
"""What proves to the webhook that a body comes from Vapi."""


@dataclass(frozen=True, slots=True)
class Booking:
    """What a call asks for: which tool makes it, which one takes it back, with what."""

    create: str
    cancel: str
    more: Mapping[str, Any]


BOOKINGS: Mapping[str, Booking] = MappingProxyType(
    {
        "reservation_created": Booking("create_reservation", "cancel_reservation", {"time": "12:00", "people": 2}),
        "appointment_created": Booking("create_appointment", "cancel_appointment", {"time": "12:00"}),
        "order_created": Booking("create_order", "cancel_order", {"items": ["Prueba: no preparar"]}),
    }
)


@dataclass(frozen=True, slots=True)
class Line:
    """A tenant's line to call, and what to ask for."""

    tenant_id: str
    vertical: str
    number_id: str
    number: str | None
    outcome: str | None  # the booking to make, by the outcome that it gives a call; None: only a conversation


@dataclass(slots=True)
class Played:
    """What each step of a call came to."""

    call_id: str
    line: Line
    answered: bool = False
    booked: str | None = None  # the words in which the booking was confirmed; None: it was not made
    cancelled: bool = False
    transfer: str | None = None  # where a person would have been reached
    faults: list[str] = field(default_factory=list)


class Player:
    """Plays calls to one server. ``cancels``: whether a booking is taken back by a tool call, as an upstream that keeps
    its own books needs it."""

    def __init__(
        self, session: aiohttp.ClientSession, address: str, headers: Headers, *, cancels: bool, transfers: bool = True
    ) -> None:
        self._session, self._address, self._headers = session, address.rstrip("/"), headers
        self._cancels, self._transfers = cancels, transfers
        self._query = ""

    async def play(self, line: Line, call_id: str, now: datetime) -> Played:
        """One call from beginning to end. Whatever goes wrong is a fault of what comes back, not an exception."""
        played, self._query = Played(call_id, line), ""
        try:
            await self._ask(played, now)
            if played.answered:
                await self._say(played, "status-update", now, status="in-progress")
                await self._book(played, now)
                await self._be_transferred(played, now)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            played.faults.append(f"the server cannot be asked: {_why(error)}")
        finally:
            await self._hang_up(played, now)
        return played

    async def _ask(self, played: Played, now: datetime) -> None:
        number = {"id": played.line.number_id, "number": played.line.number}
        answer = await self._say(played, "assistant-request", now, phoneNumber=number)
        heard = understood(answer)
        played.answered = heard is not None
        if heard is None:
            played.faults.append(f"no assistant answers: {answer.get('error') or sorted(answer) or 'nothing was said'}")
        elif heard.url is not None:
            self._query = urlsplit(heard.url).query  # the pin, as Vapi would send it back

    async def _book(self, played: Played, now: datetime) -> None:
        booking = BOOKINGS.get(played.line.outcome or "")
        if booking is None:
            return
        day = (now + timedelta(days=1)).date().isoformat()
        said = {"name": "Prueba de Relevo", "phone": "5500000000", "date": day, **booking.more}
        played.booked = await self._use(played, booking.create, said, now)
        if played.booked is not None and self._cancels:
            told = {"confirmation": played.booked, **said}
            played.cancelled = await self._use(played, booking.cancel, told, now) is not None

    async def _use(self, played: Played, tool: str, arguments: Mapping[str, Any], now: datetime) -> str | None:
        """The result of a tool; None, and a fault, for none."""
        function = {"name": tool, "arguments": dict(arguments)}
        call = {"id": f"{played.call_id} {tool}", "type": "function", "function": function}
        answer = await self._say(played, "tool-calls", now, toolCallList=[call])
        results = answer.get("results")
        first = _object(results[0]) if isinstance(results, list) and results else {}
        result = first.get("result")
        if isinstance(result, str) and result and not first.get("error"):
            return result
        played.faults.append(f"{tool} failed: {first.get('error') or 'no result'}")
        return None

    async def _be_transferred(self, played: Played, now: datetime) -> None:
        if not self._transfers:
            return
        answer = await self._say(played, "transfer-destination-request", now)
        destination = _object(answer.get("destination"))
        played.transfer = destination.get("number") or destination.get("sipUri")

    async def _hang_up(self, played: Played, now: datetime) -> None:
        times = {"startedAt": (now - _LASTED).isoformat(), "endedAt": now.isoformat()}
        try:
            await self._say(played, "end-of-call-report", now, endedReason="customer-ended-call", **times)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            if not played.faults:
                played.faults.append(f"the report was not taken: {_why(error)}")

    async def _say(self, played: Played, kind: str, now: datetime, **said: Any) -> dict[str, Any]:
        """Send one message; what is answered. Raises ValueError for an answer that is none."""
        call = {
            "id": played.call_id,
            "type": "inboundPhoneCall",
            "phoneNumberId": played.line.number_id,
            "customer": {"number": _CALLER},
        }
        body = to_json({"message": {"type": kind, "call": call, "timestamp": int(now.timestamp() * 1000), **said}})
        query = f"?{self._query}" if self._query else ""
        async with self._session.post(
            f"{self._address}{PATHS[0]}{query}",
            data=body,
            headers={"content-type": "application/json", "x-relevo-synthetic": "true", **self._headers(body)},
            timeout=aiohttp.ClientTimeout(total=WITHIN_S),
        ) as response:
            if response.status != 200:
                raise ValueError(f"{kind} was answered with {response.status}")
            return _object(from_json(await response.read()))


def _why(error: Exception) -> str:
    return str(error) if type(error) is ValueError else type(error).__name__


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
