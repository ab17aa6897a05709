"""``relevo breakers``: whether v1 and v2 are asked at all, and deciding it by hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from relevo.cli.frame import ORDINARY, Answer, Common
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.errors import Refused
from relevo.metrics import breakers
from relevo.metrics.breakers import Breaker

app = App(name="breakers", help="The circuit breakers: an open one's version is not asked until it recovers.")

Version = Literal["v1", "v2"]
Upstream = Annotated[str, Parameter(help="As list names it; default: the built-in handler.")]
BUILT_IN = "built in"


@app.command(name="list")
async def list_breakers(*, common: Common = ORDINARY) -> Answer:
    """Each breaker's state, what it counted in its present window, and who changed it last."""
    async with common.database() as database, database.transaction(read_only=True) as connection:
        await migrations.require(connection)
        found = await breakers.breakers(connection)
    table = Table("version", "upstream", "state", "calls", "failed", "slow", "since", "by", "why")
    for each in found:
        table.add_row(
            each.version,
            Text(each.upstream or BUILT_IN),
            f"{each.state}, forced" if each.forced else each.state,
            *(f"{count:,}" for count in (each.calls, each.failures, each.slow)),
            f"{each.changed_at:%Y-%m-%d %H:%M}",
            Text(each.changed_by),
            Text(each.changed_why or ""),
        )
    return Answer([asdict(each) for each in found], table if found else "no breaker has counted anything yet")


@app.command
async def force(
    version: Version, state: Literal["open", "closed"], *, upstream: Upstream = "", common: Common = ORDINARY
) -> Answer:
    """Keep a breaker open (its version is not asked; v1 stands in for v2) or closed, until it is released."""
    async with common.database() as database, database.transaction() as connection:
        await migrations.require(connection)
        changed = await breakers.force(
            connection, version, upstream, state, system_clock(), actor=common.actor, reason=common.reason
        )
    return _told(changed, f"is kept {state}; let it decide again with: relevo breakers release {version}")


@app.command
async def release(version: Version, *, upstream: Upstream = "", common: Common = ORDINARY) -> Answer:
    """Let a forced breaker decide by itself again."""
    async with common.database() as database, database.transaction() as connection:
        await migrations.require(connection)
        changed = await breakers.release(
            connection, version, upstream, system_clock(), actor=common.actor, reason=common.reason
        )
    if changed is None:
        what = f"no breaker of {version} is forced ({upstream or BUILT_IN})"
        raise Refused(what, fix="see those there are: relevo breakers list")
    return _told(changed, "decides by itself again")


def _told(breaker: Breaker, what: str) -> Answer:
    return Answer(asdict(breaker), f"the breaker of {breaker.version} ({breaker.upstream or BUILT_IN}) {what}")
