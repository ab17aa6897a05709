"""Incidents: one per cause while it lasts, told when it opens, when it gets worse, and when it is over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from relevo.alerts.thresholds import Condition, Severity
from relevo.comms import outbox
from relevo.db.pool import Connection, every, first
from relevo.db.statements import statement
from relevo.errors import UnknownName

QUIET_FOR = timedelta(minutes=15)
"""How long the cause must be gone before an incident is over: what comes and goes is one incident."""

Event = Literal["open", "escalate", "update", "resolve"]


@dataclass(frozen=True, slots=True)
class Incident:
    """One of them."""

    id: int
    cause: str
    severity: Severity
    title: str
    message: str
    action: str | None
    opened_at: datetime
    seen_at: datetime
    resolved_at: datetime | None
    acked_at: datetime | None
    acked_by: str | None


def event_of(known: Incident | None, condition: Condition | None, now: datetime) -> Event | None:
    """What becomes of a cause's incident; None: nothing."""
    if condition is None:
        return "resolve" if known is not None and now - known.seen_at >= QUIET_FOR else None
    if known is None:
        return "open"
    return "escalate" if (known.severity, condition.severity) == ("warning", "critical") else "update"


async def settle(connection: Connection, found: Iterable[Condition], now: datetime) -> list[tuple[Event, Incident]]:
    """Bring the incidents in line with what is wrong now; returns what is told. The messages go to the outbox in the
    same transaction."""
    wrong = {each.cause: each for each in found}
    known = {row["cause"]: Incident(**row) for row in await every(connection, statement("alerts", "open_incidents"))}
    told: list[tuple[Event, Incident]] = []
    for cause in sorted(wrong.keys() | known.keys()):
        event = event_of(known.get(cause), wrong.get(cause), now)
        if event is None:
            continue
        incident = await _write(connection, event, known.get(cause), wrong.get(cause), now)
        if incident is not None and event != "update":
            await _tell(connection, event, incident, now)
            told.append((event, incident))
    return told


async def incidents(connection: Connection, *, every_one: bool, most: int) -> list[Incident]:
    """Those that last, newest first; with ``every_one`` then the others."""
    wanted = {"every": every_one, "most": most}
    return [Incident(**row) for row in await every(connection, statement("alerts", "incidents"), wanted)]


async def ack(connection: Connection, incident_id: int, actor: str, reason: str | None, now: datetime) -> Incident:
    """Somebody is on it. Raises UnknownName where none of that number waits for anybody."""
    said = {"id": incident_id, "actor": actor, "reason": reason, "now": now}
    row = await first(connection, statement("alerts", "ack"), said)
    if row is None:
        raise UnknownName(f"there is no incident {incident_id} that waits for anybody", fix="see: relevo alerts list")
    return Incident(**row)


async def _write(
    connection: Connection, event: Event, known: Incident | None, condition: Condition | None, now: datetime
) -> Incident | None:
    values: dict[str, Any] = {"now": now, "id": known.id if known else None}
    if condition is not None:
        worst = "critical" if known is not None and known.severity == "critical" else condition.severity
        values |= asdict(condition) | {"severity": worst}
    name = "update" if event == "escalate" else event
    row = await first(connection, statement("alerts", name), values)
    return None if row is None else Incident(**row)


async def _tell(connection: Connection, event: Event, incident: Incident, now: datetime) -> None:
    facts = {
        "event": event,
        "incident": incident.id,
        "cause": incident.cause,
        "severity": incident.severity,
        "title": incident.title,
        "message": incident.message,
        "action": incident.action,
        "at": now.isoformat(),
    }
    key = f"incident-{incident.id}-{event}"
    await outbox.put(connection, "slack", f"incident.{event}", f"slack-{key}", facts, now)
    if incident.severity == "critical":
        await outbox.put(connection, "pagerduty", f"incident.{event}", f"pagerduty-{key}", facts, now)
    if event != "resolve":
        told = {name: facts[name] for name in ("severity", "title", "message", "action", "cause", "event")}
        await connection.execute(statement("alerts", "tell"), told | {"id": incident.id})
