"""Incidents in the database: each change, its row in rollout_alerts, its audit and its messages are one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from relevo.alerts.incident import Open, Step, step
from relevo.alerts.thresholds import Finding, Severity
from relevo.comms import outbox
from relevo.comms.message import Said
from relevo.db.pool import Connection, every, first
from relevo.db.statements import statement
from relevo.errors import Refused, UnknownName

MOST = 1000


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that is, or was, wrong."""

    id: int
    cause: str
    severity: Severity  # the highest so far
    title: str
    message: str
    action: str | None
    details: dict[str, Any]
    opened_at: datetime
    seen_at: datetime
    quiet_since: datetime | None
    resolved_at: datetime | None  # None: it is not over
    resolved_why: str | None
    acked_at: datetime | None  # None: nobody has said that they are at it
    acked_by: str | None


async def incidents(connection: Connection, *, over: bool = False) -> list[Incident]:
    """Those that are not over, the worst and newest first; ``over``: then those that are."""
    rows = await every(connection, statement("alerts", "incidents"), {"every": over, "most": MOST})
    return [Incident(**row) for row in rows]


async def note(connection: Connection, finding: Finding, now: datetime) -> Step:
    """Take a look's finding down, and tell what is new of it; returns what was done."""
    row = await first(connection, statement("alerts", "open_incident"), {"cause": finding.cause})
    known = None if row is None else Incident(**row)
    before = None if known is None else Open(known.severity, known.quiet_since)
    chosen = step(before, finding.judgement, now, finding.shown)
    values: dict[str, Any] = {
        "id": None if known is None else known.id,
        "cause": finding.cause,
        "severity": finding.shown or finding.judgement,
        "title": finding.title,
        "message": finding.message,
        "action": finding.action,
        "details": Jsonb(dict(finding.details)),
        "now": now,
        "why": "healthy again" if finding.judgement == "healthy" else "too few calls to tell any more",
    }
    if chosen in ("go_on", "calm"):
        await connection.execute(statement("alerts", chosen), values)
    elif chosen != "nothing":
        changed = await first(connection, statement("alerts", chosen), values)
        if changed is not None:  # else another process was first, and has told
            await _tell(connection, Incident(**changed), _HAPPENED[chosen], now)
    return chosen


async def acknowledge(
    connection: Connection, incident_id: int, now: datetime, *, actor: str, reason: str | None
) -> Incident:
    """Say that somebody is at it; the first who does stays. Raises UnknownName, and Refused for one that is over."""
    values = {"id": incident_id, "now": now, "actor": actor, "reason": reason}
    row = await first(connection, statement("alerts", "acknowledge"), values)
    if row is not None:
        acked = Incident(**row)
        if acked.severity == "critical":
            await outbox.tell(connection, _event(acked, "acknowledge", now), now)
        return acked
    row = await first(connection, statement("alerts", "incident"), {"id": incident_id})
    if row is None:
        raise UnknownName(f"there is no incident {incident_id}", fix="see their ids: relevo alerts list")
    found = Incident(**row)
    if found.resolved_at is not None:
        raise Refused(f"incident {incident_id} is over", fix="see what is not: relevo alerts list")
    return found


_HAPPENED: Mapping[Step, str] = {"open": "opened", "worsen": "worsened", "resolve": "resolved"}


async def _tell(connection: Connection, incident: Incident, happened: str, now: datetime) -> None:
    """Slack hears of everything; PagerDuty of what is critical."""
    variables = {
        "happened": happened,
        "severity": incident.severity,
        "title": incident.title,
        "message": incident.resolved_why.capitalize() if incident.resolved_why else incident.message,
        "action": incident.action,
        "incident": incident.id,
        "opened_at": incident.opened_at.isoformat(),
        "at": now.isoformat(),
    }
    thread = f"incident:{incident.id}"
    said = Said(f"{thread}:{happened}:slack", "slack", "alert", variables, thread=f"{thread}:slack")
    await outbox.tell(connection, said, now)
    if incident.severity == "critical":
        action = "resolve" if happened == "resolved" else "trigger"
        await outbox.tell(connection, _event(incident, action, now), now)


def _event(incident: Incident, action: str, now: datetime) -> Said:
    """What PagerDuty is told. Its incident goes by cause and beginning: several databases may share a service."""
    variables = {
        "event_action": action,
        "incident": f"relevo:{incident.cause}:{incident.opened_at.isoformat()}",
        "summary": f"{incident.title}: {incident.message}",
        "severity": incident.severity,
        "at": now.isoformat(),
        "details": {"action": incident.action, **incident.details},
    }
    thread = f"incident:{incident.id}"
    return Said(f"{thread}:{action}:pagerduty", "pagerduty", "alert", variables, thread=f"{thread}:pagerduty")
