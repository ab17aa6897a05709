"""``relevo tokens``: who may ask ``relevo serve``, and for what."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from cyclopts import App
from rich.table import Table
from rich.text import Text

from relevo.access import tokens
from relevo.access.roles import role as role_of
from relevo.cli.frame import ERR, ORDINARY, Answer, Common
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.errors import UsageError

app = App(name="tokens", help="API tokens of relevo serve.")

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@app.command
async def create(
    *, role: str, name: str | None = None, expires: str | None = None, common: Common = ORDINARY
) -> Answer:
    """Make a token and print it, this once.

    Parameters
    ----------
    role
        What it may do: viewer (read, evaluate flags), operator (change them too), admin.
    name
        For whom or what; goes to the audit log with everything done by it.
    expires
        When it ends: 12h, 90d, 4w from now, or a moment such as 2027-01-31 or 2027-01-31T18:00Z (UTC); default: never.
    """
    granted = role_of(role)
    expires_at = None if expires is None else _moment(expires, system_clock())
    async with common.database() as database:
        await _require_schema(database)
        made = await tokens.create(
            database,
            granted,
            name=name,
            expires_at=expires_at,
            clock=system_clock,
            actor=common.actor,
            reason=common.reason,
        )
    if not common.json:
        ERR.print(f"token {made.id}, {granted.label}; it is shown this once:")
    told = {"id": made.id, "role": granted.label, "name": name, "expires_at": made.expires_at, "token": made.secret}
    return Answer({"success": True, **told}, made.secret)


@app.command(name="list")
async def list_tokens(*, common: Common = ORDINARY) -> Answer:
    """All tokens, newest first; never their secrets."""
    async with common.database() as database:
        await _require_schema(database)
        found = await tokens.listed(database)
    now = system_clock()
    table = Table("id", "role", "name", "made", "by", "last used", "state")
    for each in found:
        table.add_row(
            each.id,
            each.role,
            Text(each.name or ""),
            _day(each.created_at),
            Text(each.created_by),
            _day(each.last_used_at),
            _state(each, now),
        )
    return Answer([asdict(each) for each in found], table if found else "there are no tokens yet")


@app.command
async def revoke(token_id: str, /, *, common: Common = ORDINARY) -> Answer:
    """End a token. Running servers stop taking it within about a second.

    Parameters
    ----------
    token_id
        Its id, from tokens list.
    """
    async with common.database() as database:
        await _require_schema(database)
        found, ended = await tokens.revoke(
            database, token_id, clock=system_clock, actor=common.actor, reason=common.reason
        )
    text = f"token {found.id} ({found.role}) is revoked" + ("" if ended else f", since {_day(found.revoked_at)}")
    return Answer({"success": True, "id": found.id, "revoked": ended}, text)


async def _require_schema(database: Database) -> None:
    async with database.transaction(read_only=True) as connection:
        await migrations.require(connection)


def _moment(written: str, now: datetime) -> datetime:
    """A moment as people write it, in UTC where they name no zone."""
    try:
        if span := re.fullmatch(r"(\d{1,5})([hdw])", written):
            return now + int(span[1]) * _UNITS[span[2]]
        moment = datetime.fromisoformat(written)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"--expires cannot be read: {written!r}", fix="write 12h, 90d, 4w, or a moment such as 2027-01-31"
        ) from error
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _state(token: tokens.Token, now: datetime) -> str:
    if token.revoked_at is not None:
        return f"revoked {_day(token.revoked_at)}"
    if token.expires_at is None:
        return "good"
    return f"{'expired' if token.expires_at <= now else 'good until'} {_day(token.expires_at)}"


def _day(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
