"""``relevo sessions``: who is signed in to the dashboard, and ending that."""

from __future__ import annotations

from cyclopts import App
from rich.table import Table
from rich.text import Text

from relevo.access import sessions
from relevo.cli.frame import ORDINARY, Answer, Common
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.errors import UnknownName, nearest

app = App(name="sessions", help="Who is signed in to the dashboard.")


@app.command(name="list")
async def list_sessions(*, common: Common = ORDINARY) -> Answer:
    """Who is signed in, the newest first; 200 at most."""
    async with common.database() as database:
        found = await _standing(database)
    table = Table("id", "who", "role", "through", "since", "until")
    for each in found:
        since, until = (f"{at:%Y-%m-%d %H:%M}" for at in (each.began_at, each.expires_at))
        through = each.caller.issuer or "a token"
        table.add_row(each.id, Text(each.caller.actor), each.caller.role.label, Text(through), since, until)
    told = [
        {
            "id": each.id,
            "who": each.caller.actor,
            "role": each.caller.role.label,
            "issuer": each.caller.issuer,
            "began_at": each.began_at,
            "expires_at": each.expires_at,
        }
        for each in found
    ]
    return Answer(told, table if found else "nobody is signed in")


@app.command
async def end(*session_ids: str, common: Common = ORDINARY) -> Answer:
    """End sessions, at once and for good.

    Parameters
    ----------
    session_ids
        Their ids, from sessions list.
    """
    async with common.database() as database:
        known = [each.id for each in await _standing(database)]
        ended = []
        for named in session_ids or ("",):
            if not await sessions.end(database, named, system_clock(), actor=common.actor, reason=common.reason):
                raise UnknownName(
                    f"there is no session {named!r} that goes on.{nearest(named, known)}",
                    fix="see: relevo sessions list",
                )
            ended.append(named)
    return Answer({"success": True, "ended": ended}, f"ended: {', '.join(ended)}")


async def _standing(database: Database) -> list[sessions.Session]:
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)
    return await sessions.listed(database, system_clock())
