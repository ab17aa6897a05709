"""Tool calls: the platform's upstream does them; without one, the built-in back end notes them down, each once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from typing import Any

from pydantic_core import from_json, to_json

from relevo.clock import Clock
from relevo.db.pool import Connection, Database, first
from relevo.db.statements import statement
from relevo.metrics import record
from relevo.metrics.record import Pin
from relevo.webhooks import tools
from relevo.webhooks.answers import TOOL_FAILED, one_line, results
from relevo.webhooks.calls import UNAVAILABLE, message_of
from relevo.webhooks.message import Event, ToolCall

WITHIN_S = 8.0

_DONE = {
    "reservation_created": "Reservación registrada con el folio {number}.",
    "appointment_created": "Cita registrada con el folio {number}.",
    "order_created": "Pedido registrado con el folio {number}.",
}
_NO_LINE = "No hay una línea para transferir. Tome el recado con nombre, teléfono y motivo."
_MISSING = "Falta preguntar: {names}."
_UNKNOWN = "No existe la herramienta {name}."
_ASKED_FOR = {
    "name": "nombre",
    "date": "fecha",
    "time": "hora",
    "people": "número de personas",
    "items": "qué se va a pedir",
}

Result = tuple[ToolCall, str | None, str | None]


class BackEnd:
    """What answers tool calls where the platform has nobody who does."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    async def act(self, event: Event, pin: Pin) -> bytes:
        """The answer to the tool calls of a message; the same however often it comes. Errors are words in it."""
        try:
            async with asyncio.timeout(WITHIN_S), self._database.transaction() as connection:
                done = [await self._once(connection, call, pin) for call in event.tool_calls]
                worded = [outcome for _, outcome in done if outcome]
                if worded:
                    await record.record(connection, [message_of(event, pin, tool_outcome=min(worded))])
        except UNAVAILABLE:
            return failed(event.tool_calls)
        return results(result for result, _ in done)

    async def _once(self, connection: Connection, call: ToolCall, pin: Pin) -> tuple[Result, str | None]:
        result, error, outcome = decide(call)
        params = {
            "call_id": pin.call_id,
            "tool_call_id": call.id or _made_up(call),
            "tenant_id": pin.tenant_id,
            "version": pin.served_version,
            "name": call.name,
            "arguments": _json(call.arguments),
            "result": result,
            "error": error,
            "outcome": outcome,
            "now": self._clock(),
        }
        row = None
        while row is None:  # somebody may have committed the same one since this statement began
            row = await first(connection, statement("router", "tool_call"), params)
        return (call, row["result"], row["error"]), row["outcome"]


def decide(call: ToolCall) -> tuple[str | None, str | None, str | None]:
    """Result, error (one of them is None) and outcome of a tool call."""
    outcome = tools.OUTCOMES.get(call.name)
    if outcome is not None:
        lacking = tools.missing(call.name, call.arguments)
        if lacking:
            return None, _MISSING.format(names=", ".join(_ASKED_FOR.get(each, each) for each in lacking)), None
        number = hashlib.sha256(f"{call.id} {call.name}".encode()).hexdigest()[:6].upper()
        return _DONE[outcome].format(number=number), None, outcome
    if call.name in tools.TRANSFERS:
        return None, _NO_LINE, None
    return None, _UNKNOWN.format(name=one_line(call.name)), None


def failed(calls: Iterable[ToolCall]) -> bytes:
    """The answer when nobody could do anything: what the assistant should say instead."""
    return results((call, None, TOOL_FAILED) for call in calls)


def succeeded(calls: Iterable[ToolCall], body: bytes) -> str | None:
    """The outcome that an upstream's answer to tool calls proves; None: none that is known."""
    try:
        answer = from_json(body)
    except ValueError:
        return None
    answered = answer.get("results") if isinstance(answer, dict) else None
    good = [
        each.get("toolCallId")
        for each in (answered if isinstance(answered, list) else [])
        if isinstance(each, dict) and each.get("result") and not each.get("error")
    ]
    found = [outcome for call in calls if call.id in good and (outcome := tools.OUTCOMES.get(call.name))]
    return min(found, default=None)


def _made_up(call: ToolCall) -> str:
    """The id of a call of the legacy shape, which has none: the same words are the same call."""
    return f"{call.name}:{hashlib.sha256(_json(call.arguments).encode()).hexdigest()[:32]}"


def _json(arguments: dict[str, Any]) -> str:
    """As PostgreSQL takes it: without NUL and halves of characters."""
    return to_json(_storable(arguments)).decode()


def _storable(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\0", "").encode(errors="replace").decode()
        case dict():
            return {_storable(str(key)): _storable(each) for key, each in value.items()}
        case list():
            return [_storable(each) for each in value]
        case float() if value != value or value in (float("inf"), float("-inf")):
            return None
    return value
