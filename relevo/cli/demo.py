"""``relevo demo``: the whole story from nothing, on a database of its own that is gone afterwards."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console, ConsoleRenderable, Group
from rich.text import Text

from relevo.cli import checklist, db, mirror, move, report, rollout, sample
from relevo.cli.frame import ERR, ORDINARY, OUT, Answer, Common
from relevo.cli.progress import end_drawing
from relevo.cli.rehearsing import View, claims_text, heard_table
from relevo.cli.serve import assembled
from relevo.db.embedded import EmbeddedServer
from relevo.errors import Interrupted, UsageError, nearest
from relevo.migration.mapping import CONTACT_FIELDS
from relevo.rehearsal import scenario as scenarios
from relevo.rehearsal.scenario import SCENARIOS, Checked, Scenario
from relevo.rehearsal.stage import Stage, staged
from relevo.report import ticking
from relevo.report.ticking import Standing
from relevo.rollout.plan import Plan
from relevo.serving import logs

Step = tuple[str, Callable[[Common], Awaitable[Answer]]]

STORY: tuple[Step, ...] = (
    ("A v1 database: 90 tenants and their calls", lambda common: sample.load(common=common)),
    ("What would stand in the way?", lambda common: move.preflight(common=common)),
    ("Relevo's own schema", lambda common: db.up(common=common)),
    ("What would be done?", lambda common: move.migrate(dry_run=True, common=common)),
    ("Do it: backup, copy, verify, with dual write from the first row on", lambda common: move.migrate(common=common)),
    ("Does v2 follow from v1, row by row?", lambda common: move.verify(common=common)),
    ("Are both sides in step?", lambda common: mirror.status(common=common)),
)
USUAL = "healthy"
_WIDE = 110  # columns
_HOURS_A_SECOND = 3_000.0  # times as fast, about


async def demo(
    *,
    scenario: str = USUAL,
    times: float | None = None,
    plan: rollout.PlanFile = None,
    keep: Annotated[bool, Parameter(negative="")] = False,
    common: Common = ORDINARY,
) -> Answer:
    """The whole story on an embedded database of its own: the move, then a rollout in compressed time, with simulated
    calls over HTTP. Exit status 1 when something is not as it must be at the end.

    Parameters
    ----------
    scenario
        What happens: healthy, v2-fails, v2-slow, sick-tenant, carrier-down, database-restart, slack-down,
        corrupt-data, edits-both-sides, human-steps-in.
    times
        How many times as fast as the real clock; default: as the scenario needs it.
    plan
        A plan as TOML, for the healthy scenario; the canary is chosen here, and promotion is automatic. Default: the
        specification's.
    keep
        Go on serving afterwards, until Ctrl-C.
    """
    chosen, by = _chosen(scenario, plan, times)
    began = time.monotonic()
    home = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="relevo-demo-"))
    server = EmbeddedServer(home)
    console = ERR if common.json else OUT
    try:
        _end_as_by_ctrl_c()
        logs.configure((home / "serve.log").open("ab", buffering=0))
        ERR.print("starting a PostgreSQL of its own …")
        address = await asyncio.to_thread(server.keep)
        common = replace(common, database_url=address.url, config=_configured(home))
        steps = await _moved(common, chosen, console)
        data: dict[str, Any] = {"scenario": chosen.name, "steps": steps}
        if steps[-1]["status"] == 0:
            data |= await _rehearsed(common, home, chosen, times or chosen.times, by, keep, console)
    except asyncio.CancelledError:
        raise Interrupted("interrupted; the database is gone again", fix="run it again to begin anew") from None
    finally:
        await asyncio.to_thread(server.destroy)
        await asyncio.to_thread(shutil.rmtree, home)
    success = all(each["holds"] for each in data.get("claims", [{"holds": False}]))
    lasted = time.monotonic() - began
    ending = f"{'done' if success else 'not as it must be'}, in {lasted:.1f} s; the database is gone again"
    return Answer({"success": success, **data, "duration_seconds": round(lasted, 1)}, ending, int(not success))


def _chosen(name: str, plan: Path | None, times: float | None) -> tuple[Scenario, Plan]:
    if times is not None and not 1 <= times <= 20_000:
        raise UsageError(f"time cannot run {times:g} times as fast", fix="give --times 1 to 20000")
    chosen = SCENARIOS.get(name)
    if chosen is None:
        close = nearest(name, SCENARIOS)
        raise UsageError(f"there is no scenario {name!r}.{close}", fix=f"one of: {', '.join(SCENARIOS)}")
    if plan is not None and name != USUAL:
        raise UsageError(f"{name} is written for the specification's plan", fix=f"take {USUAL}, or no --plan")
    return chosen, rollout.plan_of(plan)


def _end_as_by_ctrl_c() -> None:
    """Whoever is ended or loses the terminal cleans up, too."""
    task = asyncio.current_task()
    for each in (signal.SIGTERM, signal.SIGHUP):
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(each, task.cancel)


def _configured(home: Path) -> Path:
    """The rehearsal's own relevo.toml, which stands in for one that may lie where we were called: the sample's v1 knows
    how its clients are reached."""
    file = home / "relevo.toml"
    fields = "".join(f'{name} = "{name}"\n' for name in CONTACT_FIELDS)
    file.write_text(f"[source.tenants.fields]\n{fields}", encoding="utf-8")
    return file


async def _moved(common: Common, chosen: Scenario, console: Console) -> list[dict[str, Any]]:
    """The move, step by step; a scenario has fewer calls, and says less of it."""
    done: list[dict[str, Any]] = []
    for title, step in STORY if chosen.name == USUAL else _SHORT:
        console.rule(f"[bold]{title}", align="left")
        answer = await step(common)
        end_drawing()
        if chosen.name == USUAL and not common.json:
            console.print(answer.text)
        done.append({"step": title, "status": answer.status, "answer": answer.data})
        if answer.status != 0:
            break
    return done


_SHORT: tuple[Step, ...] = (
    ("A v1 database: 90 tenants", lambda common: sample.load(calls=8_000, common=common)),
    ("The move", lambda common: move.migrate(common=replace(common, json=True))),
)


async def _rehearsed(
    common: Common, home: Path, chosen: Scenario, times: float, plan: Plan, keep: bool, console: Console
) -> dict[str, Any]:
    mapping, url = common.mapping(), common.database_url or ""
    console.rule("[bold]The rollout", align="left")
    console.print(chosen.sentence)
    view = View(console)
    async with staged(url, home, mapping, assembled, view.told, times, chosen.calls_a_day, plan) as stage:
        _announce(stage, console)
        with view:
            view.stage = stage
            checked = await scenarios.play(stage, chosen)
        heard = await scenarios.heard(stage)
        made = await report.made(stage.database, stage.mapping, stage.clock())
        brought = Text("\nWhat v2 has brought", "bold")
        left = await _left(stage)
        due = [Text("\nWhat is left to do", "bold"), _due(left, console)] if left else []
        console.print(Group(heard_table(heard), brought, report.table(made), *due, *_verdict(checked)))
        if keep:
            await _stay(stage, console)
        return {
            "address": stage.address,
            "claims": [asdict(each) for each in checked],
            "heard": heard,
            "traffic": stage.traffic.tally.as_json() if stage.traffic else None,
            "messages": [asdict(each) for each in stage.inbox.posts],
            "report": report.as_json(made),
            "checklist": checklist.data(left) if left else None,
        }


async def _left(stage: Stage) -> Standing | None:
    """The checklist; None where no rollout is complete."""
    async with stage.database.transaction() as connection:
        return await ticking.look(connection, stage.clock())


def _due(left: Standing, console: Console) -> ConsoleRenderable:
    """The checklist, where it can be read; else how it stands."""
    if console.width >= _WIDE:
        return checklist.table(left)
    states = Counter(line.state for line in left.lines)
    counted = ", ".join(f"{states[state]} {state}" for state in ("done", "failing", "open") if states[state])
    return Text(
        f"{len(left.lines)} items: {counted}; relevo checklist lists them, and a wider terminal shows them here"
    )


def _verdict(checked: list[Checked]) -> list[Text]:
    return [Text("\nWhat must be true at the end, asked of the database", "bold"), claims_text(checked)]


def _announce(stage: Stage, console: Console) -> None:
    """Where to look."""
    console.print(f"dashboard: {stage.address}", soft_wrap=True)
    console.print(f"sign in with: {stage.token}", soft_wrap=True)
    console.print(f"what Slack, PagerDuty and clients get: {stage.inbox.http}", soft_wrap=True)
    late = "(a second is hours here: what goes over a wire arrives late)\n"
    console.print(late if stage.clock.times > _HOURS_A_SECOND else "", style="dim")


async def _stay(stage: Stage, console: Console) -> None:
    """Serve until somebody has seen enough."""
    await stage.set_pace(1)
    _announce(stage, console)
    console.print("it goes on serving, in real time; Ctrl-C ends it and cleans up")
    task = asyncio.current_task()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if task is not None:
            task.uncancel()
