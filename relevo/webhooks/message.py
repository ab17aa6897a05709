"""One server message of Vapi, read without trust: whatever is absent, null or of another type is not there.

Keyed on ``message.type``; unknown types and unknown fields pass. (Vapi's own client library types 4 of 32 real messages
rightly, so it is not asked.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic_core import from_json

from relevo.errors import NoMessage

Direction = Literal["inbound", "outbound", "web"]

LONGEST_ID = 200  # code points of any id; Vapi's are UUIDs
MOST_TOOL_CALLS = 32
_LONGEST_NAME = 200
_LONGEST_DURATION_MS = 7 * 86_400_000
_DIRECTIONS: dict[str, Direction] = {
    "inboundPhoneCall": "inbound",
    "outboundPhoneCall": "outbound",
    "webCall": "web",
    "vapi.websocketCall": "web",
}
# What the assistants' structured data may say of a call's outcome.
OUTCOMES = frozenset(
    {
        "reservation_created",
        "appointment_created",
        "order_created",
        "information_given",
        "transferred_to_human",
        "customer_hangup",
        "voicemail",
    }
)
_TRANSFER_FAILED = ("transfer-failed", "warm-transfer")
_SURROGATE = re.compile(rb"(?<!\\)((?:\\\\)*)\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_FIRST_SECOND, _LAST_SECOND = 946_684_800, 4_102_444_800  # the years 2000 to 2099


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One thing that the assistant wants done."""

    id: str | None  # None: of the legacy shape, function-call
    name: str
    arguments: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Event:
    """What a message says; None: it does not. Nobody changes one; that it is not frozen makes it in a third of the
    time."""

    type: str
    call_id: str | None = None
    at: datetime | None = None
    direction: Direction | None = None
    number_id: str | None = None
    number: str | None = None  # of the business, not of the caller
    call_assistant_id: str | None = None  # set by Vapi itself
    assistant_id: str | None = None  # of the assistant described in the message; a browser may have written that
    status: str | None = None  # never call.status, which is a snapshot from the call's beginning
    ended_reason: str | None = None  # nor call.endedReason
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration_ms: int | None = None
    latency_ms: float | None = None
    outcome: str | None = None  # by structured data
    success: str | None = None
    cost_usd: float | None = None
    transferred: bool = False
    tool_calls: tuple[ToolCall, ...] = ()


def parse(body: bytes) -> Event:
    """What a body says. Raises NoMessage for what is no JSON object with a ``message`` that has a ``type``."""
    said = _object(_decoded(body))
    message = _object(said.get("message"))
    kind = _text(message.get("type"))
    if kind is None:
        raise NoMessage("the body has no message.type", fix="send Vapi's server messages here, and nothing else")
    return of(message, kind.split("[", 1)[0])  # transcript[transcriptType="final"] is a transcript


def of(message: dict[str, Any], kind: str) -> Event:
    """What the ``message`` part says."""
    call, number = _object(message.get("call")), _object(message.get("phoneNumber"))
    described = number or _object(call.get("phoneNumber"))
    direction = _text(call.get("type"))
    return Event(
        type=kind,
        call_id=_id(call.get("id")) or _id(message.get("callId")),
        at=moment(message.get("timestamp")),
        direction=_DIRECTIONS.get(direction or ""),
        number_id=_id(call.get("phoneNumberId")) or _id(described.get("id")),
        number=_id(described.get("number")),
        call_assistant_id=_id(call.get("assistantId")),
        assistant_id=_id(_object(message.get("assistant")).get("id")),
        status=_text(message.get("status")) if kind == "status-update" else None,
        ended_reason=_text(message.get("endedReason")),
        **(ending(message) if kind == "end-of-call-report" else {}),
        tool_calls=tuple(_tool_calls(message)),
    )


def ending(report: dict[str, Any]) -> dict[str, Any]:
    """What an end-of-call-report, or a call looked up at Vapi, says of how a call went: fields of Event."""
    analysis, artifact = _object(report.get("analysis")), _object(report.get("artifact"))
    started_at, ended_at = moment(report.get("startedAt")), moment(report.get("endedAt"))
    reason = _text(report.get("endedReason")) or ""
    failed = any(word in reason for word in _TRANSFER_FAILED)
    return {
        "started_at": started_at,
        "ended_at": ended_at,
        "duration_ms": _duration_ms(report, started_at, ended_at),
        "latency_ms": _latency_ms(_object(artifact.get("performanceMetrics"))),
        "outcome": _outcome(analysis, artifact),
        "success": _said(analysis.get("successEvaluation")),
        "cost_usd": _number(report.get("cost")),
        "transferred": bool(_list(artifact.get("transfers"))) and not failed,
    }


def moment(value: Any) -> datetime | None:
    """A time as ISO text, or as seconds or milliseconds since 1970; None for anything else. Always in UTC."""
    if isinstance(value, str):
        value = value.strip()
        if not _is_number(value):
            return _iso(value)
        value = float(value)
    seconds = _number(value)
    if seconds is None:
        return None
    if seconds >= 1e11:
        seconds /= 1000
    if not _FIRST_SECOND <= seconds < _LAST_SECOND:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _decoded(body: bytes) -> Any:
    try:
        return from_json(body, allow_inf_nan=True, cache_strings="keys")
    except ValueError:
        pass
    try:  # emoji cut in two, which JavaScript allows and this parser does not; its limit of depth is wanted, though
        return from_json(_SURROGATE.sub(rb"\1?", body.decode(errors="replace").encode()), cache_strings=False)
    except ValueError:
        raise NoMessage("the body is no JSON", fix="send Vapi's server messages as they are") from None


def _tool_calls(message: dict[str, Any]) -> Iterator[ToolCall]:
    """The calls, in any of their shapes, each once."""
    seen: set[str | None] = set()
    for each in [*_list(message.get("toolCallList")), *_list(message.get("toolCalls"))][: 2 * MOST_TOOL_CALLS]:
        call = _object(each)
        function = _object(call.get("function"))
        name = _name(function.get("name")) or _name(call.get("name"))
        arguments = next(
            (part[key] for part, key in ((function, "arguments"), (call, "parameters"), (call, "arguments"))
             if part.get(key) is not None),
            None,
        )  # fmt: skip
        known = _id(call.get("id"))
        if known is not None and name is not None and known not in seen and len(seen) < MOST_TOOL_CALLS:
            seen.add(known)
            yield ToolCall(known, name, _arguments(arguments))
    legacy = _object(message.get("functionCall"))
    if not seen and (name := _name(legacy.get("name"))) is not None:
        yield ToolCall(_id(legacy.get("id")), name, _arguments(legacy.get("parameters")))


def _arguments(value: Any) -> dict[str, Any]:
    """Arguments as an object; they also come as the text of one."""
    if isinstance(value, str):
        try:
            value = from_json(_clean(value), cache_strings=False)  # which half a character would make fail
        except ValueError:
            return {}
    return _object(value)


def _duration_ms(report: dict[str, Any], started_at: datetime | None, ended_at: datetime | None) -> int | None:
    for key, factor in (("durationMs", 1), ("durationSeconds", 1_000), ("durationMinutes", 60_000)):
        number = _number(report.get(key))
        if number is not None and 0 <= number * factor <= _LONGEST_DURATION_MS:
            return round(number * factor)
    if started_at is None or ended_at is None or ended_at < started_at:
        return None
    lasted = (ended_at - started_at) // timedelta(milliseconds=1)
    return lasted if lasted <= _LONGEST_DURATION_MS else None


def _latency_ms(metrics: dict[str, Any]) -> float | None:
    average = _number(metrics.get("turnLatencyAverage"))
    if average is not None and average > 0:
        return average
    turns = [_number(_object(turn).get("turnLatency")) for turn in _list(metrics.get("turnLatencies"))]
    measured = [turn for turn in turns if turn is not None and turn > 0]
    return sum(measured) / len(measured) if measured else None


def _outcome(analysis: dict[str, Any], artifact: dict[str, Any]) -> str | None:
    outputs = artifact.get("structuredOutputs")
    entries = outputs.values() if isinstance(outputs, dict) else _list(outputs)
    named = [_object(each).get("result") for each in entries if _object(each).get("name") == "outcome"]
    for word in (*named, _object(analysis.get("structuredData")).get("outcome")):
        if isinstance(word, str) and word in OUTCOMES:
            return word
    return None


def _iso(text: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(text[:40])
        return moment((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 24


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _said(value: Any) -> str | None:
    """A text, or a truth or number as the text of it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    number = _number(value)
    return _text(value) if number is None else f"{number:g}"


def _text(value: Any) -> str | None:
    return _clean(value)[:_LONGEST_NAME] or None if isinstance(value, str) else None


def _id(value: Any) -> str | None:
    """An id; None for what is too long to be one. (It is not cut: two calls must never become one.)"""
    return _clean(value) or None if isinstance(value, str) and len(value) <= LONGEST_ID else None


_name = _id


def _clean(text: str) -> str:
    """Without what PostgreSQL or UTF-8 cannot hold."""
    return text if text.isascii() and "\0" not in text else text.replace("\0", "").encode(errors="replace").decode()


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
