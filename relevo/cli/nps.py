"""``relevo nps``: what clients answered, for the report."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from relevo.cli.frame import ORDINARY, Answer, Common
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.report import nps

app = App(name="nps", help="What clients answered, for the report.")


@app.command(name="import")
async def import_answers(file: Path, *, common: Common = ORDINARY) -> Answer:
    """Read answers from a CSV file: answered_at, score (0 to 10), and tenant_id and id where they are known. A line
    that cannot be understood is named, and then nothing is imported; what was imported before is not counted twice."""
    answers = nps.read(file)
    async with common.database() as database, database.transaction() as connection:
        await migrations.require(connection)
        added = await nps.store(
            connection, answers, str(file), system_clock(), actor=common.actor, reason=common.reason
        )
    data = {"file": str(file), "answers": len(answers), "added": added}
    return Answer(data, f"{added:,} answers imported; {len(answers) - added:,} were known already")
