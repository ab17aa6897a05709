"""``relevo sample``: a believable v1 database to try things on."""

from __future__ import annotations

from cyclopts import App
from rich.table import Table

from relevo.cli.frame import ORDINARY, Answer, Common, WholeNumber
from relevo.clock import system_clock
from relevo.errors import UsageError
from relevo.simulator import sample

app = App(name="sample", help="A realistic v1 database to rehearse on.")


@app.command
async def load(
    *,
    tenants: WholeNumber = 90,
    calls: WholeNumber = 50_000,
    seed: WholeNumber = 7,
    common: Common = ORDINARY,
) -> Answer:
    """Create the v1 tables and fill them with restaurants, clinics and their calls; some rows broken on purpose.

    Parameters
    ----------
    tenants
        How many businesses.
    calls
        How many calls, over the last 60 days.
    seed
        The same seed gives the same rows.
    """
    if tenants < 1 or calls < 0:
        raise UsageError("a sample needs at least 1 tenant and 0 calls", fix="give --tenants 1 or more")
    now = system_clock().replace(minute=0, second=0, microsecond=0)
    async with common.database() as database, database.transaction() as connection:
        made = await sample.load(connection, tenants=tenants, calls=calls, seed=seed, now=now, emit=common.sink())
    table = Table("rows", "count", title="Sample v1 database", title_justify="left")
    data = {"businesses": made.businesses, "configurations": made.configurations, "calls": made.calls}
    for name, count in data.items():
        table.add_row(name, f"{count:,}")
    for name, count in made.broken.items():
        table.add_row(f"broken on purpose: {name}", f"{count:,}")
    return Answer({"success": True, **data, "broken": dict(made.broken)}, table)
