"""Both versions over time: the points of the charts, and the rows of the table that says the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from markupsafe import Markup

from relevo.dashboard import wording
from relevo.db.pool import Asked
from relevo.db.statements import statement
from relevo.metrics.latency import middle_of
from relevo.metrics.reading import VERSIONS


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time that figures are asked for."""

    length: timedelta
    label: str
    grain: str  # of the charts
    closed: timedelta  # so much of them, from the present one back, may still change much

    def edge(self, now: datetime) -> datetime:
        """Up to where the points may be remembered."""
        edge = (now - self.closed).replace(second=0, microsecond=0)
        return edge.replace(minute=0 if self.grain == "hour" else edge.minute // 5 * 5)


SPANS = {
    "1h": Span(timedelta(hours=1), "the last hour", "minute", timedelta(minutes=5)),
    "24h": Span(timedelta(hours=24), "the last 24 hours", "hour", timedelta(hours=1)),
    "7d": Span(timedelta(days=7), "the last 7 days", "hour", timedelta(hours=1)),
}


@dataclass(frozen=True)
class Point:
    """Both versions at one time."""

    at: datetime
    calls: tuple[int, int]  # v1, v2
    error_rate: tuple[float | None, float | None]
    p95_latency_ms: tuple[float | None, float | None]

    @cached_property
    def row(self) -> Markup:
        """Its row of the table. There are hundreds, the same in every language; nothing but numbers is in them."""
        cells = [
            *((each, wording.whole(each)) for each in self.calls),
            *((None if each is None else 100 * each, wording.percent(each)) for each in self.error_rate),
            *((each, wording.milliseconds(each)) for each in self.p95_latency_ms),
        ]
        told = "".join(
            f'<td class="num" data-value="{"" if value is None else value}">{written}</td>' for value, written in cells
        )
        head = f'<th scope="row">{self.at:%m-%d %H:%M}</th>'
        return Markup(f'<tr data-at="{self.at.isoformat()}">{head}{told}</tr>')  # noqa: S704


def table(points: Sequence[Point]) -> Markup:
    """The rows of all; empty where there is none."""
    return Markup("\n").join(point.row for point in points)


def asking(span: Span, since: datetime, until: datetime | None) -> Asked:
    """What asks for a stretch of time; ``until`` None: with no end."""
    return statement("dashboard", "series"), {"grain": span.grain, "since": since, "until": until}


def points(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Both versions, oldest first; times without a call are left out."""
    counts = {(row["starts_at"], row["version"]): row for row in rows}
    nothing = {"calls": 0, "errors": 0, "bucket": None}
    found = []
    for at in sorted({at for at, _version in counts}):
        both = [counts.get((at, version), nothing) for version in VERSIONS]
        rates = [each["errors"] / each["calls"] if each["calls"] else None for each in both]
        latencies = [None if each["bucket"] is None else middle_of(each["bucket"]) for each in both]
        calls = (both[0]["calls"], both[1]["calls"])
        found.append(Point(at, calls, (rates[0], rates[1]), (latencies[0], latencies[1])))
    return found
