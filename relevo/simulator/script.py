"""A simulated call as Vapi would tell it, message by message. Pure: chance and moments are handed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import log
from random import Random
from typing import Any
from urllib.parse import urlsplit

from relevo.metrics.record import Version
from relevo.simulator.lines import Line
from relevo.webhooks import pin as pins
from relevo.webhooks.tools import OUTCOMES

FAULT = "assistant-not-valid"
"""How a call ends that is our fault: Vapi cannot use the assistant that it was given."""
CARRIER = "phone-call-provider-closed-websocket"
"""How a call ends that is the carrier's."""
HUNG_UP, SAID_GOODBYE = "customer-ended-call", "assistant-ended-call"

_SPREAD = log(1_200 / 700) / 1.645  # of v1's latencies as of v2's: the 95th percentile is 1.7 times the median
_TOOL_SHARE = 0.3
_GOODBYE_SHARE = 0.4
_ARGUMENTS: Mapping[str, Any] = {
    "name": "Ana Prueba",
    "phone": "5555550100",
    "date": "2027-01-15",
    "time": "20:30",
    "people": 2,
    "items": ["2 tacos al pastor"],
    "reason": "Limpieza dental",
}


@dataclass(frozen=True, slots=True)
class Manner:
    """How calls go that a version answers."""

    error_rate: float = 0.01  # share (0..1) that ends by our fault
    latency_ms: float = 600.0  # median of a call's average turn
    failed_rate: float = 0.0  # share that the carrier drops


@dataclass(frozen=True, slots=True)
class Heard:
    """What the answer to an assistant-request comes to."""

    version: Version | None  # who answered; None: it does not say
    decided: Version | None  # who should have; another than ``version``: a fallback
    url: str | None  # where the call's messages go; None: to where we asked
    wanted: tuple[str, ...] | None  # the messages it wants to hear; None: all
    retries: int = 0  # how often a message that is not taken is sent again
    first_retry_s: float = 1.0
    with_credential: bool = False  # whether its messages are authenticated as Vapi authenticates itself
    tools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Script:
    """How one call will go, whoever answers; what depends on that is drawn from ``luck`` (0..1 each)."""

    call_id: str
    line: Line
    begins: datetime
    lasts_s: float
    luck: Mapping[str, float] = field(default_factory=dict)
    latency_factor: float = 1.0  # of the version's median

    def reason(self, manner: Manner) -> str:
        """Why it ends."""
        if self.luck["error"] < manner.error_rate:
            return FAULT
        if self.luck["carrier"] < manner.failed_rate:
            return CARRIER
        return SAID_GOODBYE if self.luck["goodbye"] < _GOODBYE_SHARE else HUNG_UP

    def tool(self, heard: Heard) -> str | None:
        """The tool that is called in it; None: none."""
        known = [name for name in heard.tools if name in OUTCOMES]
        return known[int(self.luck["which"] * len(known))] if known and self.luck["tool"] < _TOOL_SHARE else None

    def asked(self) -> dict[str, Any]:
        """assistant-request."""
        number = {key: value for key, value in (("id", self.line.number_id), ("number", self.line.number)) if value}
        return self._message("assistant-request", self.begins, phoneNumber=number)

    def status(self, word: str, after_s: float, **more: Any) -> dict[str, Any]:
        """status-update."""
        return self._message("status-update", self.begins + timedelta(seconds=after_s), status=word, **more)

    def tool_call(self, name: str, after_s: float) -> dict[str, Any]:
        """tool-calls, of one."""
        call = {
            "id": f"tool-{self.call_id}",
            "type": "function",
            "function": {"name": name, "arguments": _ARGUMENTS},
        }
        return self._message("tool-calls", self.begins + timedelta(seconds=after_s), toolCallList=[call])

    def report(self, manner: Manner) -> dict[str, Any]:
        """end-of-call-report."""
        reason, ended = self.reason(manner), self.begins + timedelta(seconds=self.lasts_s)
        spoken = reason not in (FAULT, CARRIER)
        turn_ms = round(manner.latency_ms * self.latency_factor, 1)
        measured = {"turnLatencyAverage": turn_ms, "turnLatencies": [{"turnLatency": turn_ms}]} if spoken else {}
        return self._message(
            "end-of-call-report",
            ended,
            endedReason=reason,
            startedAt=_iso(self.begins),
            endedAt=_iso(ended),
            durationSeconds=round(self.lasts_s, 1),
            cost=round(self.lasts_s * 0.001, 4),
            analysis={"summary": "A simulated call.", "successEvaluation": "true" if spoken else "false"},
            artifact={"performanceMetrics": measured, "messages": []},
        )

    def _message(self, kind: str, at: datetime, **more: Any) -> dict[str, Any]:
        call = {
            "id": self.call_id,
            "orgId": "relevo-simulator",
            "type": "inboundPhoneCall",
            "status": "ringing",  # as it was when the call began, also in its last message: so does Vapi
            "assistantId": None,
            "customer": {"number": "+525555550100"},
        }
        if self.line.number_id:
            call["phoneNumberId"] = self.line.number_id
        return {"message": {"type": kind, "call": call, "timestamp": int(at.timestamp() * 1000), **more}}


def draw(rng: Random, line: Line, begins: datetime, mean_s: float) -> Script:
    """A call on a line, that lasts ``mean_s`` in the mean."""
    luck = {name: rng.random() for name in ("error", "carrier", "goodbye", "tool", "which")}
    lasts_s = max(rng.lognormvariate(log(mean_s) - 0.125, 0.5), 0.05)
    # Never the id of an earlier run's call, though the dice be the same: that call would be over.
    call_id = f"sim-{begins:%Y%m%dT%H%M%S%f}-{rng.getrandbits(32):08x}"
    return Script(call_id, line, begins, lasts_s, luck, rng.lognormvariate(0.0, _SPREAD))


def understood(answer: Any) -> Heard | None:
    """What an answer to assistant-request says; None for an apology, and for what is no answer."""
    if not isinstance(answer, dict) or answer.get("error") or answer.get("destination"):
        return None
    assistant = answer.get("assistant")
    described = assistant if isinstance(assistant, dict) else answer.get("assistantOverrides") or {}
    if not (assistant or answer.get("assistantId") or answer.get("squad") or answer.get("squadId")):
        return None
    server, model = described.get("server") or {}, described.get("model") or {}
    url = server.get("url")
    claimed = pins.claimed(urlsplit(url).query.encode()) if url else None
    said = (described.get("metadata") or {}).get("agent_version")
    decided, served = claimed or (said, said)
    plan, wanted = server.get("backoffPlan") or {}, described.get("serverMessages")
    return Heard(
        served,
        decided,
        url,
        tuple(wanted) if wanted is not None else None,
        int(plan.get("maxRetries", 0)),
        float(plan.get("baseDelaySeconds", 1)),
        bool(server.get("credentialId")),
        tuple(each["function"]["name"] for each in model.get("tools") or () if each.get("type") == "function"),
    )


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
