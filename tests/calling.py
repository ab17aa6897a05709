"""Vapi as the tests need it: messages of every shape, and a world of tenants to call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from relevo.db.pool import Database
from tests.conftest import rows

SECRET = "a-secret-of-the-tests"
WEBHOOK = "/webhooks/vapi"
SEEDS_WEBHOOK = "/api/voice-agent/webhook"
BEGAN = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Line:
    """A tenant that can be called, and what each version would say."""

    tenant_id: str
    config_id: str
    number_id: str
    number: str
    assistant_id: str
    v1_prompt: str = field(repr=False)  # a failing example that prints it is not read by anybody


async def lines(database: Database) -> list[Line]:
    """Every line whose number is one tenant's alone, and is active on both sides; by tenant."""
    query = """
        SELECT c.business_id::text AS tenant_id, c.id::text AS config_id, c.phone_number_id AS number_id,
               b.phone_number AS number, c.vapi_assistant_id AS assistant_id, c.system_prompt AS v1_prompt
        FROM public.voice_agent_config c JOIN public.businesses b ON b.id = c.business_id
        WHERE c.is_active AND c.system_prompt <> '' AND c.phone_number_id IS NOT NULL
          AND (SELECT count(*) FROM public.voice_agent_config o WHERE o.phone_number_id = c.phone_number_id) = 1
          AND (SELECT count(*) FROM public.voice_agent_config o WHERE o.business_id = c.business_id) = 1
        ORDER BY c.business_id
    """
    return [Line(**row) for row in await rows(database, query)]


def call(line: Line | None, call_id: str, **more: Any) -> dict[str, Any]:
    """The call object of an inbound call."""
    said: dict[str, Any] = {"id": call_id, "orgId": "org", "type": "inboundPhoneCall", "status": "ringing"}
    if line is not None:
        said["phoneNumberId"] = line.number_id
    return {**said, **more}


def message(kind: str, call: Mapping[str, Any], seconds: float = 0, **more: Any) -> dict[str, Any]:
    """A server message, so many seconds after the tests' call began."""
    at = BEGAN + timedelta(seconds=seconds)
    return {"message": {"type": kind, "call": call, "timestamp": int(at.timestamp() * 1000), **more}}


def asked(line: Line, call_id: str, **more: Any) -> dict[str, Any]:
    """assistant-request: of it, only the number tells."""
    number = {"id": line.number_id, "number": line.number}
    return message("assistant-request", call(line, call_id, assistantId=None), phoneNumber=number, **more)


def status(line: Line | None, call_id: str, word: str, seconds: float, **more: Any) -> dict[str, Any]:
    """status-update."""
    return message("status-update", call(line, call_id), seconds, status=word, **more)


def report(line: Line | None, call_id: str, reason: str = "customer-ended-call", **more: Any) -> dict[str, Any]:
    """end-of-call-report of a call of a minute."""
    said: dict[str, Any] = {
        "endedReason": reason,
        "startedAt": (BEGAN + timedelta(seconds=2)).isoformat().replace("+00:00", "Z"),
        "endedAt": (BEGAN + timedelta(seconds=62)).isoformat().replace("+00:00", "Z"),
        "durationSeconds": 60.0,
        "cost": 0.12,
        "analysis": {"summary": "…", "successEvaluation": "true", "structuredData": {}},
        "artifact": {
            "performanceMetrics": {"turnLatencyAverage": 900.5},
            "messages": [{"role": "user", "message": "Hola"}],
        },
    }
    return message("end-of-call-report", call(line, call_id), 67, **{**said, **more})


def tool_calls(line: Line | None, call_id: str, *calls: Mapping[str, Any], seconds: float = 30) -> dict[str, Any]:
    """tool-calls."""
    return message("tool-calls", call(line, call_id), seconds, toolCallList=list(calls))
