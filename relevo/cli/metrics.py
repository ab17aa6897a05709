"""``relevo metrics``: the figures of both versions, whether they are right, and v1's own history."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

from cyclopts import App, Parameter
from rich.table import Table

from relevo.cli.frame import ORDINARY, Answer, Common, WholeNumber
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.errors import UsageError
from relevo.metrics import checking, folding, history, reading
from relevo.metrics.health import Health
from relevo.metrics.window import Window
from relevo.migration import preflight

app = App(name="metrics", help="The figures of both versions.")

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_LONGEST = timedelta(days=3660)
_Window = Annotated[str, Parameter(name="--window", help="Up to now: 60m, 24h, 30d.")]


@app.command
async def show(
    *,
    window: _Window = "24h",
    tenants: Annotated[bool, Parameter(negative="", help="Also each tenant, by whole hours.")] = False,
    common: Common = ORDINARY,
) -> Answer:
    """Calls, errors, failed calls and latency of both versions over a window."""
    seen = Window.last(_length(window), system_clock())
    async with common.database() as database, database.transaction(read_only=True) as connection:
        await migrations.require(connection)
        found = await reading.health(connection, seen)
        each_tenant = await reading.health_by_tenant(connection, seen) if tenants else []
    data = {"since": seen.since, "metrics": {version: each.figures() for version, each in found.items()}}
    if tenants:
        data["tenants"] = [
            {"tenant_id": each.tenant_id, "version": each.version, **each.figures()} for each in each_tenant
        ]
    return Answer(data, _shown([*found.values(), *each_tenant]))


@app.command
async def check(*, window: _Window = "24h", common: Common = ORDINARY) -> Answer:
    """Whether the figures are what a recount of the recorded calls gives; exit status 1 when not."""
    now = system_clock()
    seen = Window.last(_length(window), now)
    async with common.database() as database:
        await _require(database)
        async with database.transaction(read_only=True) as connection:
            found = await checking.check(connection, seen, now)
    lines = [f"{found.calls:,} calls since {found.since:%Y-%m-%d %H:%M}: {len(found.differences):,} differences"]
    lines += [
        f"  {each['grain']} {each['starts_at']:%Y-%m-%d %H:%M} {each['version']} {each['tenant_id'] or ''} "
        f"{each['figure']}: told {each['told']:,}, counted {each['counted']:,}"
        for each in found.differences[:20]
    ]
    lines += [f"  unknown endedReason {each['reason']}: {each['calls']:,} calls" for each in found.unknown_reasons]
    if found.voice_call_faults:
        lines.append(f"  {found.voice_call_faults:,} calls wait for the platform's table to take them")
    return Answer({"success": found.equal, **asdict(found)}, "\n".join(lines), 0 if found.equal else 1)


@app.command
async def backfill(
    *,
    days: Annotated[WholeNumber, Parameter(help="How far back, today included.")] = 30,
    again: Annotated[bool, Parameter(negative="", help="Also the days that were counted before.")] = False,
    common: Common = ORDINARY,
) -> Answer:
    """Count v1's own calls, those of before the router, into the figures; goes on where it was interrupted."""
    if not 1 <= days <= _LONGEST.days:
        raise UsageError(f"--days {days} is not between 1 and {_LONGEST.days:,}", fix="give a number of days")
    mapping = common.mapping()
    async with common.database() as database:
        await _require(database)
        preflight.refuse_blocked(await preflight.structure(database, mapping))
        done = await history.backfill(
            database, mapping.calls.rows(), days=days, clock=system_clock, again=again, emit=common.sink()
        )
        await folding.fold(database)
    return Answer({"success": True, **asdict(done)}, f"{done.days:,} days counted, {done.calls:,} calls")


async def _require(database: Database) -> None:
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)


def _length(written: str) -> timedelta:
    """``90m``, ``24h``, ``30d``. Raises UsageError."""
    parts = re.fullmatch(r"(\d{1,6})([mhd])", written.strip())
    length = int(parts[1]) * _UNITS[parts[2]] if parts else timedelta()
    if not timedelta() < length <= _LONGEST:
        raise UsageError(f"--window {written!r} is no length of time", fix="write a number and m, h or d, like 24h")
    return length


def _shown(found: list[Health]) -> Table:
    table = Table("version", "tenant", "calls", "errors", "failed", "avg", "p50", "p95", "breaker", "complaints")
    for each in found:
        table.add_row(
            each.version,
            each.tenant_id or "all",
            f"{each.total_calls:,}",
            _share(each.error_rate, each.errors),
            _share(each.failed_call_rate, each.failed_calls),
            *(_ms(value) for value in (each.avg_latency_ms, each.p50_latency_ms, each.p95_latency_ms)),
            str(each.breaker_opens),
            str(each.complaints),
        )
    return table


def _share(rate: float | None, count: int) -> str:
    return "–" if rate is None else f"{rate:.2%} ({count:,})"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f} ms"
