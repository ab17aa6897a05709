"""Reads the figures of a window: folded sums and the unfolded tail, in one statement and so of one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from relevo.db.pool import Asked, Connection, every
from relevo.db.statements import statement
from relevo.metrics.health import Health
from relevo.metrics.latency import Histogram
from relevo.metrics.window import Window

VERSIONS = ("v1", "v2")


async def health(connection: Connection, window: Window) -> dict[str, Health]:
    """Each version's figures, also of one without a call."""
    return health_of(await every(connection, *asking_health(window)))


def asking_health(window: Window) -> Asked:
    """What asks for them, where it is asked together with something else."""
    spans = window.spans
    params = {
        "grains": [span.grain for span in spans],
        "since": [span.since for span in spans],
        "until": [span.until for span in spans],
        "window_since": window.since,
        "window_until": window.until,
    }
    return statement("metrics", "health"), params


def health_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Health]:
    """Each version's figures, from the rows that came."""
    found = {row["version"]: _health(row) for row in rows}
    return {version: found.get(version, Health(version)) for version in VERSIONS}


async def health_by_tenant(connection: Connection, window: Window, *, tenant_id: str | None = None) -> list[Health]:
    """Each tenant's figures on each version it had calls on, over the whole hours that touch the window: tenants are
    kept by the hour. Breaker openings belong to no tenant and are 0. ``tenant_id`` None: all of them."""
    hours = Window(
        window.since.replace(minute=0, second=0, microsecond=0),
        window.until,
    )
    params = {"since": hours.since, "until": hours.until, "tenant_id": tenant_id}
    rows = await every(connection, statement("metrics", "health_by_tenant"), params)
    return [_health(row, row["tenant_id"]) for row in rows]


def _health(row: Mapping[str, Any], tenant_id: str | None = None) -> Health:
    counts = ("finished", "failed", "errors", "unanswered", "fallbacks", "crossed", "measured", "latency_us")
    number = {name: int(row[name]) for name in counts}
    buckets = zip(row["buckets"] or (), row["bucket_calls"] or (), strict=True)
    return Health(
        version=row["version"],
        tenant_id=tenant_id,
        total_calls=int(row["calls"]),
        finished_calls=number["finished"],
        failed_calls=number["failed"],
        errors=number["errors"],
        unanswered=number["unanswered"],
        fallbacks=number["fallbacks"],
        crossed=number["crossed"],
        measured_calls=number["measured"],
        latency_us=number["latency_us"],
        latencies=Histogram(MappingProxyType({bucket: int(calls) for bucket, calls in buckets if calls})),
        breaker_opens=int(row["breaker_opens"]),
        complaints=int(row["complaints"]),
    )
