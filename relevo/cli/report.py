"""``relevo report``: what v2 has brought."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Group
from rich.table import Table

from relevo.cli.frame import ORDINARY, Answer, Common, WholeNumber
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.errors import UsageError
from relevo.report import reading, telling
from relevo.report.reading import V1

_LONGEST_DAYS = 3650


def register(parent: App) -> None:
    """Hang this command under the main one."""
    parent.command(report)


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
    mapping = common.mapping()
    v1 = V1(
        mapping.calls.schema,
        mapping.calls.table,
        mapping.calls.rows(also=("outcome",)),
        mapping.tenants.rows(),
    )
    windows = {"before": timedelta(days=before_days), "after": timedelta(days=after_days)}
    async with common.database() as database, database.transaction(read_only=True, snapshot=True) as connection:
        await migrations.require(connection)
        made = await reading.read(connection, v1, system_clock(), **windows)
    if html is not None:
        try:
            html.write_text(telling.page(made, value_per_booking), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {html}: {error.strerror}", fix="name a file that can be written") from error
    table = Table("metric", "before (v1)", "after (v2)", "improvement", "target", "met", "conclusion")
    for row in telling.lines(telling.table_of_success(made)):
        table.add_row(*row)
    told = "\n".join(f"- {doubt}" for doubt in telling.doubts(made))
    last = f"written to {html}" if html else "relevo report --html FILE writes it as a page, with plots and trades"
    return Answer(telling.as_json(made, value_per_booking), Group(table, "what cannot be concluded:", told, last))
