"""A message as it lies in the outbox: which text, filled with what, for whom. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

ChannelName = Literal["slack", "pagerduty", "email"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message that waits to be delivered."""

    id: int
    dedup_key: str  # unique for good: the same thing is never said twice
    notice: str
    thread: str | None  # those of one thread arrive in order
    tenant_id: str | None
    recipient: str | None  # of an e-mail
    variables: Mapping[str, Any]  # JSON values
    created_at: datetime
    attempts: int  # before this one


@dataclass(frozen=True, slots=True)
class Said:
    """Something to be told, not yet in the outbox."""

    dedup_key: str
    channel: ChannelName
    notice: str
    variables: Mapping[str, Any]
    thread: str | None = None
    tenant_id: str | None = None
    recipient: str | None = None
