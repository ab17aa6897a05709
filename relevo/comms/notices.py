"""Every notice there is: how it goes out, to whom, and what its text may be filled with. A new one is a new row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from relevo.comms.message import ChannelName
from relevo.errors import UnknownName, nearest


@dataclass(frozen=True, slots=True)
class Notice:
    """One kind of message."""

    name: str
    audience: Literal["client", "team"]
    means: str  # when it is sent, for people
    sample: Mapping[
        str, Any
    ]  # a value of each variable: for the preview, and so that a text is tried before it is used

    @property
    def channel(self) -> ChannelName:
        """Clients get e-mail, the team gets Slack."""
        return "email" if self.audience == "client" else "slack"


_CLIENT: Mapping[str, Any] = {
    "client_name": "Restaurante La Terraza",
    "vertical": "restaurant",
    "time_zone": "America/Mexico_City",
}
_V2 = {"error_rate": 0.008, "p95_latency_ms": 650.0, "calls_today": 1234}
_PROGRESS = {"percentage": 50, "tenants_on_v2": 45, "total_tenants": 90}

_ALL = (
    Notice("client_before", "client", "before a client joins", {**_CLIENT, "at": "2026-11-30T15:00:00+00:00"}),
    Notice("client_complete", "client", "when the rollout is complete", {**_CLIENT, "at": "2026-12-10T18:30:00+00:00"}),
    Notice("client_returned", "client", "when one client goes back", {**_CLIENT, "at": "2026-12-02T22:05:00+00:00"}),
    Notice(
        "team_status",
        "team",
        "where the rollout stands",
        {
            **_PROGRESS,
            **_V2,
            "state": "Healthy",
            "phase": "majority",
            "days": 3.0,
            "error_rate_target": 0.02,
            "p95_target_ms": 800,
            "next_step": "Expand to 75% in 24 hours if metrics stable",
        },
    ),
    Notice(
        "team_phase",
        "team",
        "when the rollout enters another state",
        {
            **_PROGRESS,
            "state": "Pending",
            "event": "promote",
            "phase": "expansion",
            "number": 3,
            "phases": 5,
            "actor": "ana",
            "why": "two days without an error",
            "at": "2026-12-01T16:00:00+00:00",
        },
    ),
    Notice(
        "team_rollback",
        "team",
        "when tenants go back to v1",
        {
            **_PROGRESS,
            "percentage": 0,
            "tenants_on_v2": 0,
            "trigger": "Error rate exceeded 5%",
            "action": "Rolled back to 0%",
            "actor": "rollout controller",
            "at": "2024-01-20T14:35:00+00:00",
        },
    ),
    Notice(
        "alert",
        "team",
        "when an incident opens, worsens or is over",
        {
            "happened": "opened",
            "severity": "critical",
            "title": "Voice Agent V2: Critical Error Rate",
            "message": "Error rate is 6.20% (threshold: 5%)",
            "action": "Consider immediate rollback",
            "incident": 7,
            "opened_at": "2026-12-01T16:00:00+00:00",
            "at": "2026-12-01T16:00:00+00:00",
        },
    ),
)
NOTICES: Mapping[str, Notice] = MappingProxyType({notice.name: notice for notice in _ALL})


def notice_of(name: str) -> Notice:
    """The notice of a name. Raises UnknownName with the nearest."""
    if name not in NOTICES:
        raise UnknownName(f"there is no notice {name!r}.{nearest(name, NOTICES)}", fix=f"one of: {', '.join(NOTICES)}")
    return NOTICES[name]
