"""What Vapi is answered, as it takes it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic_core import to_json

from relevo.metrics.record import Version
from relevo.webhooks import pin as pins
from relevo.webhooks.identify import Entry
from relevo.webhooks.message import ToolCall
from relevo.webhooks.tools import tools_of

APOLOGY = (
    "Disculpe, en este momento no podemos atender su llamada. Por favor intente de nuevo en unos minutos. Gracias."
)
APOLOGY_BEFORE_TRANSFER = "Disculpe, en este momento no puedo atenderle. Le comunico con una persona del equipo."
TOOL_FAILED = (
    "No fue posible completar la operación en este momento. Discúlpese, tome el recado con nombre y teléfono, "
    "y diga que el equipo le devolverá la llamada."
)
# What is sent to us: what wants an answer, and what tells how a call went.
SERVER_MESSAGES = (
    "end-of-call-report",
    "function-call",
    "status-update",
    "tool-calls",
    "transfer-destination-request",
    "transfer-update",
)
SERVER_TIMEOUT_S = 20
# A message that we could not store (503) comes again: after 1, 2, 4, 8, 10, 10 … seconds, some 80 in all.
BACKOFF_PLAN = {"type": "exponential", "maxRetries": 10, "baseDelaySeconds": 1}

_DEFAULTS: Mapping[str, Any] = {
    "model": {"provider": "openai", "model": "gpt-4.1"},
    "voice": {"provider": "11labs"},
    "transcriber": {"provider": "deepgram", "model": "nova-3", "language": "es"},
}
_PIN = "@pin@"
_DAYS = ("lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo")
_MONTHS = (
    "enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre", "octubre", "noviembre",
    "diciembre",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """What one version says to a caller of one configuration, as stored or rendered; without the day."""

    assistant_name: str | None
    system_prompt: str | None
    first_message: str | None
    voice_id: str | None
    voice_speed: float | None = None
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class House:
    """What is the same in all assistants."""

    url: str  # of this webhook, without the pin
    credential_id: str | None
    defaults: Mapping[str, Any]

    def server(self, token: str | None) -> dict[str, Any]:
        """Where Vapi sends the messages of a call. Without a token, no call is pinned by it."""
        server: dict[str, Any] = {"timeoutSeconds": SERVER_TIMEOUT_S, "backoffPlan": BACKOFF_PLAN}
        if self.credential_id:
            server["credentialId"] = self.credential_id
        return {**server, "url": self.url if token is None else f"{self.url}?{pins.PARAMETER}={token}"}


@dataclass(frozen=True, slots=True)
class Template:
    """An assistant-request's answer with a gap for the pin, so that a call costs no encoding."""

    before: bytes
    after: bytes
    unpinned: bytes

    def filled(self, token: str | None) -> bytes:
        """The answer for one call."""
        return self.unpinned if token is None else b"".join((self.before, token.encode(), self.after))


def house(url: str, credential_id: str | None, own: Mapping[str, Any]) -> House:
    """What is the same in all assistants; ``own`` wins over what Relevo would say, part by part."""
    parts = {
        name: {**_DEFAULTS.get(name, {}), **value} if isinstance(value, dict) else value for name, value in own.items()
    }
    return House(url, credential_id, {**_DEFAULTS, **parts})


def assistant(said: Said, entry: Entry, version: Version, house: House, now: datetime) -> dict[str, Any]:
    """An assistant of ours. v2 is told the day and the hour; v1 speaks by what is stored, and nothing else."""
    prompt = said.system_prompt or ""
    if version == "v2":
        prompt = "\n\n".join(filter(None, (prompt, told_at_call(now, entry.minutes_from_utc))))
    tools = tools_of(said.capabilities, entry.human_line)
    model = {**house.defaults["model"], "messages": [{"role": "system", "content": prompt}]}
    voice = {**house.defaults["voice"], "voiceId": said.voice_id or None, "speed": said.voice_speed}
    parts = {
        **house.defaults,
        "name": (said.assistant_name or "")[:40] or None,  # as much as Vapi takes
        "firstMessage": said.first_message or None,
        "voice": {key: value for key, value in voice.items() if value is not None} if said.voice_id else None,
        "model": model | ({"tools": tools} if tools else {}),
        "serverMessages": SERVER_MESSAGES,
        # For people who look at the call; never read back.
        "metadata": {"business_id": entry.tenant_id, "agent_version": version, "config_id": entry.config_id},
    }
    return {key: value for key, value in parts.items() if value is not None}


def template(described: Mapping[str, Any], house: House) -> Template:
    """The answer that gives an assistant. The server stands last, so that nobody's prompt can hold the gap."""
    whole = to_json({"assistant": {**described, "server": house.server(_PIN)}})
    before, _, after = whole.rpartition(_PIN.encode())
    return Template(before, after, to_json({"assistant": {**described, "server": house.server(None)}}))


def with_server(answer: dict[str, Any], house: House, token: str | None) -> dict[str, Any]:
    """An upstream's answer, so changed that the call's messages come to us, pinned."""
    server = house.server(token)
    for part in ("assistant", "squad"):
        if isinstance(answer.get(part), dict):
            target = "assistant" if part == "assistant" else "membersOverrides"
            inner = answer[part]
            changed = {**inner, "server": server} if target == "assistant" else _overridden(inner, target, server)
            return {**answer, part: changed}
    if answer.get("assistantId") or answer.get("squadId"):
        return _overridden(answer, "assistantOverrides", server)
    return answer


def apology(human_line: str | None) -> bytes:
    """Spoken, and then a person, where there is a line to one."""
    if human_line is None:
        return to_json({"error": APOLOGY})
    return to_json({"destination": transfer_to(human_line, APOLOGY_BEFORE_TRANSFER)})


def transfer_to(human_line: str, message: str) -> dict[str, Any]:
    """A destination as Vapi takes it."""
    return {"type": "number", "number": human_line, "message": message}


def results(calls: Iterable[tuple[ToolCall, str | None, str | None]]) -> bytes:
    """Answers to tool calls: each with its result, or with its error. Vapi ignores texts of several lines."""
    answered = []
    for call, result, error in calls:
        said = {"error": one_line(error)} if error is not None else {"result": one_line(result or "")}
        if call.id is None:  # the legacy shape has one call, and its result on top
            return to_json({"result": one_line(error or result or "")})
        answered.append({"toolCallId": call.id, "name": call.name, **said})
    return to_json({"results": answered})


def one_line(text: str) -> str:
    """A text without line ends."""
    return " ".join(text.split())


def told_at_call(now: datetime, minutes_from_utc: int) -> str:
    """The day and the hour as an assistant is told them: relevo.told_at_call, for when there is no database."""
    here = now + timedelta(minutes=minutes_from_utc)
    hour = "y es la" if here.hour == 1 else "y son las"
    return (
        f"## Fecha y hora\nHoy es {_DAYS[here.weekday()]} {here.day} de {_MONTHS[here.month - 1]} de {here.year} "
        f"{hour} {here.hour}:{here.minute:02}, hora local."
    )


def _overridden(answer: dict[str, Any], where: str, server: dict[str, Any]) -> dict[str, Any]:
    overrides = answer.get(where)
    return {**answer, where: {**(overrides if isinstance(overrides, dict) else {}), "server": server}}
