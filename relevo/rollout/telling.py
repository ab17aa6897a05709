"""Tells the team where the rollout stands: the specification's status update."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from relevo.comms import outbox
from relevo.comms.message import Said
from relevo.db.pool import Database
from relevo.errors import Refused
from relevo.metrics import reading
from relevo.metrics.window import Window
from relevo.rollout.moving import Rollout
from relevo.rollout.operating import status

DAY = timedelta(days=1)


async def tell_status(database: Database, now: datetime) -> dict[str, Any]:
    """Write the update to the outbox, at most one a minute; returns what it says. Raises Refused where there never was
    a rollout."""
    found = await status(database, now)
    if found.rollout is None:
        raise Refused("there never was a rollout to tell of", fix="run: relevo rollout start")
    async with database.transaction() as connection:
        today = (await reading.health(connection, Window.last(DAY, now)))["v2"]
        limits = found.rollout.plan.limits
        variables = {
            "state": found.rollout.standing.state,
            "phase": found.rollout.phase.name,
            "percentage": round(100 * found.tenants_on_v2 / found.total_tenants) if found.total_tenants else 0,
            "tenants_on_v2": found.tenants_on_v2,
            "total_tenants": found.total_tenants,
            "days": ((found.rollout.finished_at or now) - found.rollout.started_at) / DAY,
            "error_rate": today.error_rate,
            "error_rate_target": limits["error_rate"].go,
            "p95_latency_ms": today.p95_latency_ms,
            "p95_target_ms": limits["p95_latency_ms"].go,
            "calls_today": today.total_calls,
            "next_step": next_step(found.rollout, now),
        }
        said = Said(f"team_status:{now:%Y-%m-%dT%H:%M}", "slack", "team_status", variables)
        await outbox.tell(connection, said, now)
    return variables


def next_step(rollout: Rollout, now: datetime) -> str:
    """What comes next, as a sentence without its full stop."""
    standing = rollout.standing
    if rollout.finished_at is not None:
        return "None: the rollout is complete" if standing.state == "Complete" else "Find the cause, and plan anew"
    if standing.state in ("Paused", "Degraded"):
        return "A human decides: relevo rollout evaluate"
    if standing.is_last:
        return "Complete, if metrics stable"
    following = rollout.plan.phases[standing.phase + 1]
    where = f"{following.percent:g}%" if following.percent is not None else following.name
    wait = max(standing.hold_until - now, timedelta()) if standing.hold_until else rollout.phase.min_hold
    hours = round(wait / timedelta(hours=1))
    when = f"in {hours} hour{'' if hours == 1 else 's'}" if hours else "now"
    return f"Expand to {where} {when} if metrics stable"
