"""``relevo demo``: the main job from nothing, on a database of its own that is gone afterwards."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from relevo.cli import db, move, sample
from relevo.cli.frame import ERR, ORDINARY, OUT, Answer, Common
from relevo.db.embedded import EmbeddedServer

Step = tuple[str, Callable[[Common], Awaitable[Answer]]]

STORY: tuple[Step, ...] = (
    ("A v1 database: 90 tenants and their calls", lambda common: sample.load(common=common)),
    ("What would stand in the way?", lambda common: move.preflight(common=common)),
    ("Relevo's own schema", lambda common: db.up(common=common)),
    ("What would be done?", lambda common: move.migrate(dry_run=True, common=common)),
    ("Do it", lambda common: move.migrate(common=common)),
    ("Does v2 follow from v1, row by row?", lambda common: move.verify(common=common)),
)


def register(parent: App) -> None:
    """Hang this command under the main one."""
    parent.command(demo)


async def demo(*, keep: Annotated[bool, Parameter(negative="")] = False, common: Common = ORDINARY) -> Answer:
    """Run the main job on a fresh embedded database: sample, preflight, dry run, migrate, verify.

    Parameters
    ----------
    keep
        Leave the database up afterwards, and say where it is.
    """
    began = time.monotonic()
    home = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="relevo-demo-"))
    server = EmbeddedServer(home)
    ERR.print("starting a PostgreSQL of its own …")
    address = await asyncio.to_thread(server.keep)
    done: list[dict[str, object]] = []
    try:
        for title, step in STORY:
            ERR.rule(f"[bold]{title}", align="left")
            answer = await step(replace(common, database_url=address.url))
            if not common.json:
                OUT.print(answer.text)
            done.append({"step": title, "status": answer.status, "answer": answer.data})
            if answer.status != 0:
                break
    finally:
        if not keep:
            await asyncio.to_thread(server.destroy)
            await asyncio.to_thread(shutil.rmtree, home)
    status = int(done[-1]["status"] != 0)
    where = f"it is still up: {address.url} (RELEVO_HOME={home})" if keep else "the database is gone again"
    return Answer(
        {"success": status == 0, "steps": done, "database_url": address.url if keep else None},
        f"{'done' if status == 0 else 'stopped'} in {time.monotonic() - began:.1f} s; {where}",
        status,
    )
