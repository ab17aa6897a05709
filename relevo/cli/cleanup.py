"""``relevo cleanup``: what v1 leaves behind, cleaned away in stages."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Group
from rich.table import Table
from rich.text import Text

from relevo.cleanup import doing
from relevo.cleanup.doing import Plan
from relevo.cleanup.stages import STAGES, stage_of
from relevo.cli.frame import ORDINARY, Answer, Common, WholeNumber
from relevo.clock import system_clock
from relevo.errors import UsageError
from relevo.migration.runs import Who

_LONGEST_DAYS = 3650


async def cleanup(
    *,
    stage: Annotated[
        str | None, Parameter(help="flags, deprecate, drop or backups; without it: where each stands.")
    ] = None,
    yes: Annotated[bool, Parameter(negative="", help="Do it; without it, that only shows what would be done.")] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="Only show it, whatever else is given.")] = False,
    undo: Annotated[bool, Parameter(negative="", help="Take the stage back: flags, deprecate.")] = False,
    archive: Annotated[Path | None, Parameter(help="Stage drop: the new file that the final backup goes to.")] = None,
    older_than_days: Annotated[WholeNumber, Parameter(help="Stage backups: younger ones stay.")] = 28,
    common: Common = ORDINARY,
) -> Answer:
    """Clean v1 away once everybody is on v2, stage by stage. A stage shows all that it would touch, and does it with
    --yes. Exit status 3 while something stands in its way."""
    if not 0 <= older_than_days <= _LONGEST_DAYS:
        raise UsageError(f"{older_than_days} days are no age", fix=f"give 0 to {_LONGEST_DAYS:,}")
    if stage is None and (yes or undo or archive):
        raise UsageError("no stage is named", fix=f"give --stage, one of: {', '.join(STAGES)}")
    chosen = None if stage is None else stage_of(stage)
    mapping, kept, who = common.mapping(), timedelta(days=older_than_days), Who(common.actor, common.reason)
    async with common.database(direct=True) as database:
        if chosen is None:
            return _overview(
                [await doing.plan(database, mapping, each, system_clock, kept=kept) for each in STAGES.values()]
            )
        if undo and not dry_run:
            failed = await doing.undo(database, mapping, chosen, who, system_clock, emit=common.sink())
            told = "\n".join([f"stage {chosen.name} is undone", *failed])
            return Answer({"stage": chosen.name, "undone": True, "not_brought_to_v1": failed}, told, 1 if failed else 0)
        if dry_run or not yes:
            return _shown(await doing.plan(database, mapping, chosen, system_clock, kept=kept))
        done = await doing.do(
            database,
            mapping,
            chosen,
            who,
            system_clock,
            file=archive.absolute() if archive else None,
            kept=kept,
            emit=common.sink(),
        )
    lines = [f"stage {done.stage} is done: {done.means}", *(f"  {each}" for each in done.objects)]
    return Answer({**asdict(done), "dry_run": False}, Text("\n".join(lines)))


def _shown(planned: Plan) -> Answer:
    """What a stage would do."""
    lines = [f"stage {planned.stage}: {planned.means}"]
    if planned.done_at is not None:
        lines.append(f"done at {planned.done_at:%Y-%m-%d %H:%M} UTC")
    lines += [f"  {each}" for each in (*planned.objects, *planned.notes)]
    lines += [f"in the way: {each}" for each in planned.blockers]
    if planned.done_at is None and not planned.blockers:
        lines.append("nothing was done; add --yes to do it")
    return Answer({**asdict(planned), "dry_run": True}, Text("\n".join(lines)), 3 if planned.blockers else 0)


def _overview(plans: list[Plan]) -> Answer:
    table = Table("stage", "does", "done", "in the way")
    for each in plans:
        done = f"{each.done_at:%Y-%m-%d %H:%M}" if each.done_at else "no"
        table.add_row(each.stage, each.means, done, Text("\n".join(each.blockers)))
    hint = Text("relevo cleanup --stage NAME shows what a stage would touch")
    return Answer([asdict(each) for each in plans], Group(table, hint))
