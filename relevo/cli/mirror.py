"""``relevo mirror``: dual write, what waits for repair, and what a person must decide."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from cyclopts import App
from rich.console import ConsoleRenderable, Group
from rich.table import Table

from relevo.cli.frame import ERR, ORDINARY, Answer, Common, WholeNumber
from relevo.clock import system_clock
from relevo.migration import mirror
from relevo.migration.runs import Who

app = App(name="mirror", help="Dual write between v1 and v2.")


@app.command
async def status(*, common: Common = ORDINARY) -> Answer:
    """Whether dual write is on, what waits for repair, which fields both sides wrote. Exit status 1 when it is off or
    something waits."""
    async with common.database() as database:
        state = await mirror.look(database, common.mapping())
    healthy = state.installed and not state.queued
    return Answer(asdict(state), _state(state), 0 if healthy else 1)


@app.command
async def install(*, strict: bool | None = None, common: Common = ORDINARY) -> Answer:
    """Put dual write in place, or bring it up to date after a change of the source mapping. ``relevo migrate`` does so
    by itself.

    Parameters
    ----------
    strict
        Fail the writer's statement where the other side cannot follow, instead of queueing it for repair.
    """
    async with common.database(direct=True) as database:
        changed = await mirror.install(
            database, common.mapping(), _who(common), system_clock, strict=strict, emit=common.sink()
        )
        state = await mirror.look(database, common.mapping())
    said = "dual write is on" if changed else "dual write was on already"
    if state.unwritable:
        said += f"\nnothing can be written back to v1's {', '.join(state.unwritable)}: edits of these stay on v2"
    return Answer({"success": True, "changed": changed, **asdict(state)}, said)


@app.command
async def remove(*, common: Common = ORDINARY) -> Answer:
    """Take dual write away. Both sides keep what they have; from now on each is written alone."""
    async with common.database(direct=True) as database:
        removed = await mirror.remove(database, _who(common), emit=common.sink())
    return Answer(
        {"success": True, "removed": removed},
        "\n".join(f"removed {each}" for each in removed) or "dual write was not on",
    )


@app.command
async def repair(*, drifted: bool = False, common: Common = ORDINARY) -> Answer:
    """Bring what is queued to the other side. Exit status 1 when something still cannot go.

    Parameters
    ----------
    drifted
        Also configurations that verification found wrong: v2 gets what v1 says.
    """
    async with common.database() as database:
        mended, failed = await mirror.repair(database, _who(common), system_clock, drifted=drifted, emit=common.sink())
    for each in failed:
        ERR.print(f"relevo: {each}", markup=False, soft_wrap=True)
    return Answer(
        {"success": not failed, "repaired": mended, "failed": failed},
        f"{mended:,} configurations repaired, {len(failed):,} still wait",
        1 if failed else 0,
    )


@app.command
async def resolve(conflict: WholeNumber, *, take: Literal["v1", "v2"], common: Common = ORDINARY) -> Answer:
    """Decide a field that both sides wrote.

    Parameters
    ----------
    conflict
        Its number in ``relevo mirror status``.
    take
        Whose value v2 should hold.
    """
    async with common.database() as database:
        await mirror.resolve(database, conflict, take, _who(common), system_clock)
    return Answer({"success": True, "conflict": conflict, "take": take}, f"conflict {conflict}: {take}'s value it is")


def _who(common: Common) -> Who:
    return Who(common.actor, common.reason)


def _state(state: mirror.State) -> ConsoleRenderable:
    facts = Table("dual write", "", show_header=False)
    facts.add_row("installed", "yes" if state.installed else f"no: {', '.join(state.missing)}")
    facts.add_row("a fault", "fails the writer" if state.strict else "is queued for repair")
    facts.add_row(
        "waiting for repair", f"{state.queued:,}" + (f", since {state.oldest:%F %T %Z}" if state.oldest else "")
    )
    facts.add_row("open conflicts", f"{state.conflicts:,}")
    facts.add_row("configurations edited on v2", f"{state.edited_configs:,}")
    facts.add_row("deleted rows kept", f"{state.deleted_configs:,}")
    facts.add_row("v1 fields nothing is written to", ", ".join(state.unwritable) or "none")
    parts: list[ConsoleRenderable] = [facts]
    if state.queue:
        parts.append(_table(state.queue, "queue", "config_id", "written_on", "operation", "fields", "reason", "writer"))
    if state.open_conflicts:
        parts.append(
            _table(state.open_conflicts, "conflicts", "id", "config_id", "field", "v1_value", "v2_value", "kept")
        )
    return Group(*parts)


def _table(rows: list[dict[str, object]], title: str, *columns: str) -> Table:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_short(row[column]) for column in columns))
    return table


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
