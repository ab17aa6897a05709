"""``relevo report``: what v2 has brought."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Column, Table

from relevo.cli.frame import ORDINARY, Answer, Common, WholeNumber
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.errors import UsageError
from relevo.migration.mapping import SourceMapping
from relevo.report import reading, telling
from relevo.report.reading import V1, Report

_LONGEST_DAYS = 3650
_USUAL = timedelta(days=30)


async def report(
    *,
    html: Annotated[Path | None, Parameter(help="Write the report as one page to this file.")] = None,
    before_days: Annotated[WholeNumber, Parameter(help="v1's window: so long before v2's first call.")] = 30,
    after_days: Annotated[WholeNumber, Parameter(help="v2's window: so long up to now.")] = 30,
    value_per_booking: Annotated[float | None, Parameter(help="What a booking or order is worth to a client.")] = None,
    common: Common = ORDINARY,
) -> Answer:
    """Success metrics: v1 against v2, with intervals, targets, and what cannot be concluded."""
    for days in (before_days, after_days):
        if not 1 <= days <= _LONGEST_DAYS:
            raise UsageError(f"{days} days are no window", fix=f"give 1 to {_LONGEST_DAYS:,} days")
    windows = {"before": timedelta(days=before_days), "after": timedelta(days=after_days)}
    async with common.database() as database:
        found = await made(database, common.mapping(), system_clock(), **windows)
    if html is not None:
        try:
            html.write_text(telling.page(found, value_per_booking), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {html}: {error.strerror}", fix="name a file that can be written") from error
    last = f"written to {html}" if html else "relevo report --html FILE writes it as a page, with plots and trades"
    return Answer(telling.as_json(found, value_per_booking), Group(table(found), last))


async def made(
    database: Database,
    mapping: SourceMapping,
    now: datetime,
    *,
    before: timedelta = _USUAL,
    after: timedelta = _USUAL,
) -> Report:
    """The report as of a moment. Raises SchemaMissing."""
    v1 = V1(
        mapping.calls.schema,
        mapping.calls.table,
        mapping.calls.rows(also=("outcome",)),
        mapping.tenants.rows(),
    )
    async with database.transaction(read_only=True, snapshot=True) as connection:
        await migrations.require(connection)
        return await reading.read(connection, v1, now, before=before, after=after)


def table(found: Report) -> Group:
    """The report for people."""
    # Eighty columns hold every word whole: narrow heads, no lines between, and only titles and conclusions are broken.
    heads = ("metric", "before\n(v1)", "after\n(v2)", "improvement", "target", "met", "conclusion")
    columns = (Column(head, no_wrap=head not in ("metric", "conclusion")) for head in heads)
    rows = Table(*columns, box=SIMPLE_HEAD, padding=0)
    for row in telling.lines(telling.table_of_success(found)):
        rows.add_row(*row)
    return Group(rows, "what cannot be concluded:", "\n".join(f"- {doubt}" for doubt in telling.doubts(found)))


def as_json(found: Report) -> dict[str, Any]:
    """The report for machines."""
    return telling.as_json(found, None)
