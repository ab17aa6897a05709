"""``relevo db``: our schema, and the embedded server."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.table import Table

from relevo.cli.frame import ERR, ORDINARY, Answer, Common, confirmed
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.db.embedded import EmbeddedServer
from relevo.errors import Refused, UsageError
from relevo.migration import leaving, source

app = App(name="db", help="Relevo's schema, and the embedded PostgreSQL.")


@app.command
async def up(*, common: Common = ORDINARY) -> Answer:
    """Apply Relevo's schema. Safe to run again, and from two places at once."""
    mapping = common.mapping()
    async with common.database(direct=True) as database:
        applied = await migrations.up(database)
        async with database.transaction() as connection:
            await source.install(connection, mapping, system_clock())
    names = [f"{file.version:04}_{file.name}" for file in applied]
    return Answer(
        {"success": True, "applied": names},
        "\n".join(f"applied {name}" for name in names) or "the schema is up to date",
    )


@app.command
def sql(*, output: Path | None = None, common: Common = ORDINARY) -> Answer:  # noqa: ARG001 -- every command takes the common options
    """Print the schema as migration files, to keep with your own.

    Parameters
    ----------
    output
        A folder to write one file each into, instead of printing them.
    """
    scripts = migrations.as_scripts()
    if output is None:
        return Answer(
            [{"name": name, "sql": text} for name, text in scripts],
            "\n".join(f"-- {name}\n{text}" for name, text in scripts),
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in scripts:
            (output / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write into {output}: {error.strerror}", fix="name a folder of your own") from error
    return Answer({"written": [name for name, _ in scripts]}, f"{len(scripts)} files written to {output}")


@app.command
async def status(*, common: Common = ORDINARY) -> Answer:
    """What of the schema is applied, and when. Exit status 1 when something is missing."""
    async with common.database() as database:
        files = await migrations.status(database)
        place = database.place
    table = Table("file", "applied", title=place, title_justify="left")
    for file in files:
        table.add_row(
            f"{file.version:04}_{file.name}",
            f"{file.applied_at:%Y-%m-%d %H:%M:%S %Z}" if file.applied_at else "no",
        )
    complete = all(file.applied_at for file in files)
    return Answer(
        {
            "complete": complete,
            "database": place,
            "files": [{"version": f.version, "name": f.name, "applied_at": f.applied_at} for f in files],
        },
        table,
        0 if complete else 1,
    )


@app.command
async def down(
    *,
    v2_tables: Annotated[bool, Parameter(help="Also v2's tables, the flag and the list of backups.")] = False,
    call_columns: Annotated[bool, Parameter(help="Also the columns that the move added to v1's calls.")] = False,
    backups: Annotated[bool, Parameter(help="Also every backup.")] = False,
    yes: Annotated[bool, Parameter(help="Do not ask.")] = False,
    common: Common = ORDINARY,
) -> Answer:
    """Take Relevo away: dual write, its schema, its functions. v1 is left as it was found; what v2 lives on stays,
    unless it is named. Exit status 1 when the answer was not CONFIRM."""
    parts = {"v2_tables": v2_tables, "call_columns": call_columns, "backups": backups}
    async with common.database(direct=True) as database:
        going = await leaving.plan(database, **parts)
        for line in _going(going):
            ERR.print(line, markup=False)
        if not yes and not confirmed():
            return Answer({"success": False}, "nothing was taken away", 1)
        going = await leaving.leave(database, **parts, emit=common.sink())
    return Answer({"success": True, **asdict(going)}, "Relevo is gone; v1 is as it was found")


def _going(going: leaving.Going) -> list[str]:
    """What goes, a line each."""
    return [
        "This goes, for good:",
        *(f"  trigger {each}" for each in going.triggers),
        *(f"  function {each}" for each in going.functions),
        *(f"  column {schema}.{table}.{column}" for schema, table, column in going.columns),
        *(f"  schema {each}, with all that is kept in it" for each in going.schemas),
        *(f"  table {each}" for each in going.tables),
    ]


@app.command
async def url(*, common: Common = ORDINARY) -> Answer:
    """The connection string in use, password included. Starts the embedded server and leaves it up."""
    in_force = common.settings()
    found = in_force.database_url
    if found is None:
        found = (await asyncio.to_thread(EmbeddedServer(in_force.home).keep)).url
    return Answer({"url": found}, found)


@app.command
async def stop(*, common: Common = ORDINARY) -> Answer:
    """Stop the embedded server."""
    in_force = common.settings()
    if in_force.database_url is not None:
        raise Refused("the database in use is not the embedded one", fix="unset the database URL to stop that one")
    stopped = await asyncio.to_thread(EmbeddedServer(in_force.home).stop)
    return Answer({"stopped": stopped}, "stopped" if stopped else "it was not running")
