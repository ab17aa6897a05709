"""Reads what the gate judges by: the figures of both versions since the cohort last changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from relevo.db.pool import Connection, every
from relevo.db.statements import statement
from relevo.metrics import reading
from relevo.metrics.latency import Histogram
from relevo.metrics.window import HOUR, MINUTE, Window
from relevo.rollout.gate import Evidence
from relevo.rollout.sample import Pair, Sample

HISTORY = timedelta(days=7)
"""Of v1's own calls: what the gates are rehearsed on, and compared with where v1 has no calls any more."""


def whole_minute(now: datetime) -> datetime:
    """The next minute to begin: calls are counted by whole minutes."""
    return now.replace(second=0, microsecond=0) + MINUTE


async def history(connection: Connection, before: datetime) -> Sample:
    """v1 in the days before."""
    window = Window.between(before - HISTORY, before, before)
    return Sample.of((await reading.health(connection, window))["v1"])


async def gather(
    connection: Connection,
    *,
    judged_from: datetime,
    gathered_from: datetime,
    started_at: datetime,
    on_v2: Iterable[str] | None,
    now: datetime,
) -> Evidence:
    """Everything that was counted. ``on_v2``: whose own figures are wanted too; None: nobody's, which is quicker."""
    phase = await _pair(connection, judged_from, now)
    hour = await _pair(connection, max(judged_from, now - HOUR), now)
    rows = await every(connection, statement("rollout", "strata"), {"since": judged_from})
    strata = _strata(rows)
    middle = (len(strata) + 1) // 2
    gathered = (await reading.health(connection, window_since(gathered_from, now)))["v2"]
    chosen = None if on_v2 is None else frozenset(on_v2)
    return Evidence(
        phase,
        hour,
        strata,
        Sample.of(gathered),
        sum((each.v2 for each in strata[:middle]), Sample()),
        sum((each.v2 for each in strata[middle:]), Sample()),
        await _tenants(connection, judged_from, now, chosen),
        await _tenants(connection, max(judged_from, now - HOUR), now, chosen),
        Sample() if hour.v1.calls and phase.v1.calls else await history(connection, started_at),
    )


async def _pair(connection: Connection, since: datetime, now: datetime) -> Pair:
    found = await reading.health(connection, window_since(since, now))
    return Pair(Sample.of(found["v1"]), Sample.of(found["v2"]))


def window_since(since: datetime, now: datetime) -> Window:
    """From a moment that may be a minute ahead until now."""
    return Window(since, None) if since > now else Window.last(now - since, now)


async def _tenants(
    connection: Connection, since: datetime, now: datetime, chosen: frozenset[str] | None
) -> Mapping[str, Sample]:
    if chosen is None:
        return MappingProxyType({})
    found = await reading.health_by_tenant(connection, window_since(since, now))
    return MappingProxyType(
        {str(each.tenant_id): Sample.of(each) for each in found if each.version == "v2" and each.tenant_id in chosen}
    )


def _strata(rows: list[dict[str, Any]]) -> tuple[Pair, ...]:
    hours: dict[datetime, dict[str, Sample]] = {}
    for row in rows:
        buckets = zip(row["buckets"] or (), row["bucket_calls"] or (), strict=True)
        hours.setdefault(row["hour"], {})[row["version"]] = Sample(
            row["calls"],
            row["errors"],
            row["finished"],
            row["failed"],
            row["critical"],
            Histogram(MappingProxyType(dict(buckets))),
        )
    return tuple(Pair(both.get("v1", Sample()), both.get("v2", Sample())) for both in hours.values())
