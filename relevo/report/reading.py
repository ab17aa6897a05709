"""Reads what the report tells: both versions' figures over their windows, by trade, and what happened meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

from psycopg import sql

from relevo.db.pool import Connection, every, one
from relevo.db.statements import statement
from relevo.metrics.health import Health
from relevo.metrics.reading import health, health_by_tenant
from relevo.metrics.window import Window
from relevo.report import nps
from relevo.report.comparison import Compared, Period, compare

MOST_EVENTS = 200
_COUNTS = tuple(each.name for each in fields(Health) if each.name not in ("version", "tenant_id"))


@dataclass(frozen=True, slots=True)
class V1:
    """Where v1's rows are, by the source mapping."""

    schema: str
    table: str  # of calls
    calls_with_outcome: sql.Composable
    tenants: sql.Composable


@dataclass(frozen=True, slots=True)
class Report:
    """All that the report tells."""

    made_at: datetime
    before: Period
    after: Period
    overall: tuple[Compared, ...]
    by_vertical: Mapping[str, tuple[Compared, ...]]
    timeline: tuple[dict[str, Any], ...]
    nps: Compared | None = None  # None: nobody answered, or nothing was imported


async def read(connection: Connection, v1: V1, now: datetime, *, before: timedelta, after: timedelta) -> Report:
    """The report as of now. v2's window is the last ``after``, but not from before its first call; v1's the ``before``
    that ends where v2 began. Both in whole hours."""
    first_v2 = (await one(connection, statement("report", "first_v2_call")))["at"]
    began = first_v2 or _hour(now)
    spans = {
        "v1": (_hour(began - before), _hour(began)),
        "v2": (max(_hour(now - after), _hour(began)), _hour(now + timedelta(hours=1))),
    }
    trades = {
        row["tenant_id"]: row["vertical"] or ""
        for row in await every(connection, statement("report", "verticals", tenants=v1.tenants))
    }
    whole, parts = {}, {}
    for version, (since, until) in spans.items():
        whole[version], parts[version] = await _period(connection, v1, version, since, until, now, trades)
    verticals = sorted(set(parts["v1"]) | set(parts["v2"]))
    empty = {version: replace(whole[version], health=Health(version), outcomes={}) for version in spans}
    values = {"since": spans["v1"][1] - timedelta(days=1), "until": now, "most": MOST_EVENTS}
    return Report(
        now,
        whole["v1"],
        whole["v2"],
        compare(whole["v1"], whole["v2"]),
        {
            vertical: compare(parts["v1"].get(vertical, empty["v1"]), parts["v2"].get(vertical, empty["v2"]))
            for vertical in verticals
        },
        tuple(await every(connection, statement("report", "timeline"), values)),
        await nps.compare(connection, spans["v1"], spans["v2"]),
    )


async def _period(
    connection: Connection,
    v1: V1,
    version: str,
    since: datetime,
    until: datetime,
    now: datetime,
    trades: Mapping[str, str],
) -> tuple[Period, dict[str, Period]]:
    """One version in its window: all of it, and by trade."""
    window = Window.between(since, until, now)
    outcomes, known = await _outcomes(connection, v1, version, since, until)
    total = Period(
        version, since, until, (await health(connection, window))[version], _summed(outcomes.values()), known
    )
    tenants = [each for each in await health_by_tenant(connection, window) if each.version == version]
    parts: dict[str, Period] = {}
    for vertical in sorted({_trade(trades, each.tenant_id) for each in tenants}):
        of_it = [each for each in tenants if _trade(trades, each.tenant_id) == vertical]
        counted = _summed(found for tenant, found in outcomes.items() if _trade(trades, tenant) == vertical)
        parts[vertical] = replace(total, health=_together(version, of_it), outcomes=counted)
    return total, parts


async def _outcomes(
    connection: Connection, v1: V1, version: str, since: datetime, until: datetime
) -> tuple[dict[str, Counter[str]], bool]:
    """Calls by tenant and outcome; False where the platform's own table has none yet."""
    values = {"version": version, "since": since, "until": until}
    rows, known = await every(connection, statement("report", "outcomes_of_calls"), values), True
    if version == "v1":
        table = {"schema": v1.schema, "table": v1.table}
        known = (await one(connection, statement("report", "has_outcome"), table))["known"]
        if known:
            query = statement("report", "outcomes_of_history", calls_with_outcome=v1.calls_with_outcome)
            rows = [*rows, *await every(connection, query, values)]
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row["tenant_id"], Counter())[row["outcome"]] += row["calls"]
    return found, known


def _together(version: str, parts: Iterable[Health]) -> Health:
    """Figures of several tenants as one."""
    total = Health(version)
    for part in parts:
        total = replace(total, **{name: getattr(total, name) + getattr(part, name) for name in _COUNTS})
    return total


def _summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


def _trade(trades: Mapping[str, str], tenant: str | None) -> str:
    return trades.get(tenant or "", "") or "unknown"


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
