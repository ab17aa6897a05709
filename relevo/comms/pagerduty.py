"""PagerDuty: events of version 2 of its API."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from relevo.clock import Clock
from relevo.comms.blockkit import cut
from relevo.comms.message import Message
from relevo.comms.outcome import Never, Outcome
from relevo.comms.wire import Poster, checked_url
from relevo.errors import ConfigurationError

URL = "https://events.pagerduty.com/v2/enqueue"
DEDUP_KEY, SUMMARY = 255, 1024
"""The longest of each in characters."""
ACTIONS = ("trigger", "acknowledge", "resolve")
SEVERITIES = ("critical", "error", "warning", "info")

_REFUSED = frozenset({400, 413, 422})


def event(variables: Mapping[str, Any], routing_key: str) -> dict[str, Any]:
    """The event that a message's variables say: ``event_action`` and ``incident``, and of a trigger ``summary``,
    ``severity``, ``at`` and ``details``. Raises KeyError or ValueError for others."""
    action = variables["event_action"]
    if action not in ACTIONS:
        raise ValueError(f"there is no event action {action!r}")
    told: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": dedup_key(variables["incident"]),
    }
    if action == "trigger":
        if variables["severity"] not in SEVERITIES:
            raise ValueError(f"there is no severity {variables['severity']!r}")
        told["client"] = "Relevo"
        told["payload"] = {
            "summary": cut(variables["summary"], SUMMARY),
            "source": "relevo",
            "severity": variables["severity"],
            "timestamp": variables["at"],
            "component": "voice-agent-v2",
            "custom_details": variables.get("details", {}),
        }
    return told


def dedup_key(incident: str) -> str:
    """By which PagerDuty knows that events are of one incident; one too long is shortened, and stays its own."""
    if len(incident) <= DEDUP_KEY:
        return incident
    return incident[: DEDUP_KEY - 33] + ":" + hashlib.sha256(incident.encode()).hexdigest()[:32]


class PagerDuty:
    """The events API. A ``url`` without a path gets the API's own. Raises ConfigurationError."""

    name = "pagerduty"
    at_once = 1

    def __init__(self, routing_key: str, url: str, clock: Clock) -> None:
        if not routing_key.strip():
            raise ConfigurationError("pagerduty_routing_key is empty", fix="set RELEVO_PAGERDUTY_ROUTING_KEY")
        checked = checked_url("pagerduty_url", url)
        whole = checked.rstrip("/") + urlsplit(URL).path if urlsplit(checked).path in {"", "/"} else checked
        self._routing_key = routing_key.strip()
        self._poster = Poster(whole, clock, refused=_REFUSED, secrets=(self._routing_key,))

    async def send(self, message: Message) -> Outcome:
        """Post it once. The same event twice is one: PagerDuty goes by its dedup_key."""
        try:
            told = event(message.variables, self._routing_key)
        except (KeyError, ValueError) as error:
            return Never(f"the message holds no event: {error}")
        return await self._poster.post(told)

    async def close(self) -> None:
        """Let go of connections."""
        await self._poster.close()
