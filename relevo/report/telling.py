"""The report as people read it: JSON, a page that needs nothing else, and what cannot be concluded. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from relevo.report.comparison import Compared, Figure, Interval, Metric, Period
from relevo.report.reading import Report

FEW_CALLS = 299
"""So many clean calls show a rate below 1 %; with fewer, little is certain."""
_WIDE, _LEFT, _RIGHT = 640, 120, 90  # of a plot, in its own units


@dataclass(frozen=True, slots=True)
class Gain:
    """What more bookings are worth a month, by the team's own figure."""

    value_per_booking: float
    bookings_a_day: float  # more than before; negative: fewer
    a_month: float
    interval: Interval


def doubts(report: Report) -> list[str]:
    """What cannot be concluded, in sentences."""
    before, after = report.before, report.after
    told = [
        "The two windows are of different times: season, weekday and campaigns are in the difference, too.",
        "Calls of one business are alike; the intervals take them for independent, and are too narrow for that.",
        "NPS goes by the day of the answer, and tells nothing of who was on v2 that day."
        if report.nps
        else "NPS is not measured by Relevo, and none was imported: relevo nps import FILE.",
    ]
    if before.health.total_calls == 0:
        told.append("v1 has no figures before v2 began: run relevo metrics backfill, then the report again.")
    if not before.outcomes_known:
        told.append("The platform's calls have no outcome yet, so nobody knows what v1 booked: run relevo migrate.")
    for period in (before, after):
        if 0 < period.health.total_calls < FEW_CALLS:
            told.append(f"{period.version} had {period.health.total_calls} calls in its window; that shows little.")
    if after.days < 7:
        told.append("v2's window is shorter than a week, so weekdays are not balanced.")
    for each in table_of_success(report):
        if each.conclusion == "no difference shown":
            told.append(f"{each.metric.title}: the intervals overlap; no difference is shown.")
        if each.met == "not shown":
            told.append(f"{each.metric.title}: below its target, but the interval reaches beyond it.")
    return told


def gain(report: Report, value_per_booking: float) -> Gain | None:
    """The return on the investment in bookings a month of 30 days; None where they were not counted."""
    booked = [each for each in report.overall if each.metric.unit == "per_day"]
    pairs = [(each.before, each.after) for each in booked]
    if any(before.value is None or after.value is None for before, after in pairs):
        return None
    more = sum((after.value or 0) - (before.value or 0) for before, after in pairs)
    low = sum(_end(after, 0) - _end(before, 1) for before, after in pairs)
    high = sum(_end(after, 1) - _end(before, 0) for before, after in pairs)
    month = 30 * value_per_booking
    return Gain(value_per_booking, more, more * month, Interval(low * month, high * month))


def as_json(report: Report, value_per_booking: float | None = None) -> dict[str, Any]:
    """The report for machines."""
    earned = None if value_per_booking is None else gain(report, value_per_booking)
    return {
        "made_at": report.made_at,
        "windows": {each.version: _window(each) for each in (report.before, report.after)},
        "metrics": [_row(each) for each in report.overall],
        "verticals": {name: [_row(each) for each in rows] for name, rows in report.by_vertical.items()},
        "nps": None if report.nps is None else _row(report.nps),
        "return": None
        if earned is None
        else {
            "value_per_booking": earned.value_per_booking,
            "bookings_a_day": earned.bookings_a_day,
            "a_month": earned.a_month,
            "interval": list(earned.interval),
        },
        "timeline": list(report.timeline),
        "not_concluded": doubts(report),
    }


def page(report: Report, value_per_booking: float | None = None) -> str:
    """The report as one HTML page, plots included."""
    environment = Environment(
        loader=PackageLoader("relevo.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"day": lambda at: f"{at:%Y-%m-%d %H:%M}", "change": change}
    return environment.get_template("report.html").render(
        report=report,
        rows=table_of_success(report),
        shown=shown,
        between=between,
        plots=[(each, plot(each)) for each in report.overall],
        gain=None if value_per_booking is None else gain(report, value_per_booking),
        doubts=doubts(report),
    )


def shown(metric: Metric, value: float | None) -> str:
    """A value in its unit; a dash where nothing was counted."""
    if value is None:
        return "–"
    return {"ms": f"{value:,.0f} ms", "rate": f"{value:.2%}", "per_day": f"{value:,.1f}", "points": f"{value:+.0f}"}[
        metric.unit
    ]


def between(metric: Metric, figure: Figure) -> str:
    """An interval in its unit; empty where there is none."""
    return "" if figure.interval is None else " to ".join(shown(metric, each) for each in figure.interval)


def change(compared: Compared) -> str:
    """``+28%``, or ``+12`` points, is better; a dash where there is nothing to compare with."""
    if compared.improvement is None:
        return "–"
    return f"{compared.improvement:+.0f}" if compared.metric.unit == "points" else f"{compared.improvement:+.0%}"


def table_of_success(report: Report) -> list[Compared]:
    """The specification's rows (8.2), NPS last where it was imported."""
    return [*report.overall, *([report.nps] if report.nps else [])]


def plot(compared: Compared) -> dict[str, Any]:
    """Where the bars, whiskers and the target of one metric stand, on a scale from 0."""
    figures = (("v1", compared.before), ("v2", compared.after))
    ends = [each.interval.high for _name, each in figures if each.interval] + [compared.metric.target or 0.0]
    top = max(ends) * 1.1 or 1.0

    def x(value: float) -> float:
        return round(_LEFT + (_WIDE - _LEFT - _RIGHT) * value / top, 1)

    return {
        "wide": _WIDE,
        "left": _LEFT,
        "target": None if compared.metric.target is None else x(compared.metric.target),
        "bars": [
            {
                "name": name,
                "end": x(each.value),
                "low": x(each.interval.low),
                "high": x(each.interval.high),
                "text": shown(compared.metric, each.value),
            }
            if each.value is not None and each.interval is not None
            else {"name": name, "end": None, "low": None, "high": None, "text": "not counted"}
            for name, each in figures
        ],
    }


def lines(rows: Sequence[Compared]) -> list[tuple[str, ...]]:
    """The table of success for a terminal."""
    return [
        (
            each.metric.title,
            shown(each.metric, each.before.value),
            shown(each.metric, each.after.value),
            change(each),
            "" if each.metric.target is None else f"< {shown(each.metric, each.metric.target)}",
            each.met or "",
            each.conclusion,
        )
        for each in rows
    ]


def _window(period: Period) -> dict[str, Any]:
    return {"since": period.since, "until": period.until, "days": period.days, **period.health.figures()}


def _row(each: Compared) -> dict[str, Any]:
    return {
        "metric": each.metric.name,
        "title": each.metric.title,
        "before": _figure(each.before),
        "after": _figure(each.after),
        "improvement": each.improvement,
        "target": each.metric.target,
        "target_met": each.met,
        "conclusion": each.conclusion,
    }


def _figure(figure: Figure) -> dict[str, Any]:
    interval = None if figure.interval is None else list(figure.interval)
    return {"value": figure.value, "interval": interval, "calls": figure.of}


def _end(figure: Figure, which: int) -> float:
    return figure.interval[which] if figure.interval else figure.value or 0.0
