"""Whether the statistics are what relevo.calls says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relevo.db.pool import Connection, every, one
from relevo.db.statements import statement
from relevo.metrics.record import faults
from relevo.metrics.window import HOUR, MINUTES_KEPT, Window


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found."""

    since: datetime  # whole hours
    until: datetime
    calls: int  # in them
    differences: list[dict[str, Any]]  # grain, starts_at, version, tenant_id, figure, told, counted
    unknown_reasons: list[dict[str, Any]]  # endedReasons that no rule knows, and how many calls ended so
    voice_call_faults: int  # calls that the platform's own table has not taken yet

    @property
    def equal(self) -> bool:
        """Whether every figure of every minute, hour, day and tenant is what a recount gives."""
        return not self.differences


async def check(connection: Connection, window: Window, now: datetime) -> Checked:
    """Recount the calls of the hours that the window touches, and compare. In one statement, so that calls and
    figures are of the same moment."""
    since = window.since.replace(minute=0, second=0, microsecond=0)
    end = window.until or now + HOUR
    until = end.replace(minute=0, second=0, microsecond=0) + HOUR
    hours = {"since": since, "until": until}
    kept = {**hours, "minutes_since": now - MINUTES_KEPT}
    counted = await one(connection, statement("metrics", "count_calls"), hours)
    return Checked(
        since,
        until,
        counted["calls"],
        [
            *await every(connection, statement("metrics", "differences"), kept),
            *await every(connection, statement("metrics", "coarse_differences"), kept),
        ],
        await every(connection, statement("metrics", "reasons_unknown"), hours),
        (await faults(connection))["many"],
    )
