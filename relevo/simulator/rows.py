"""The rows of the v1 tables, as frozen named tuples in column order."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class Business(NamedTuple):
    """A row of businesses."""

    id: UUID
    name: str
    vertical: str | None
    email: str
    time_zone: str
    phone_number: str
    human_phone_number: str | None
    created_at: datetime


class Configuration(NamedTuple):
    """A row of voice_agent_config."""

    id: UUID
    business_id: UUID | None
    vapi_assistant_id: str
    phone_number_id: str | None
    assistant_name: str | None
    system_prompt: str | None
    voice_id: str | None
    first_message: str | None
    is_active: bool | None
    created_at: datetime
    updated_at: datetime


class Call(NamedTuple):
    """A row of voice_calls."""

    id: UUID
    business_id: UUID | None
    vapi_call_id: str
    status: str
    started_at: datetime
    ended_at: datetime | None
    duration_seconds: int | None
    avg_latency_ms: int | None
    created_at: datetime
