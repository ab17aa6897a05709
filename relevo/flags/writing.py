"""Changing the flag: each change is one statement that PostgreSQL applies to the row as it is then.

Who wrote, what changed and the new version are the business of the row's triggers (0011_flags.sql), so that a change
made by hand in SQL leaves the same traces.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import errors

from relevo.db.pool import Connection, Database, every, first
from relevo.db.statements import statement
from relevo.errors import SchemaMissing, UnknownName, UnverifiedTenants, UsageError
from relevo.flags.evaluate import LONGEST_ID, VOICE_AGENT_V2, Flag

_SHOWN = 5  # tenants named in one line of an error
_FLAG = {"name": VOICE_AGENT_V2}


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes the flag, and why: for the audit log."""

    actor: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Unverified:
    """A tenant that may not live on v2."""

    tenant_id: str
    why: str  # as the end of a sentence: "was never verified"


@dataclass(frozen=True, slots=True)
class Change:
    """What a write made of the flag."""

    before: Flag
    flag: Flag  # afterwards; of the same version when there was nothing to change
    unverified: tuple[Unverified, ...] = ()  # put on the disabled list by a percentage, or enabled by force


@dataclass(frozen=True, slots=True)
class Written:
    """One past change, by whomever."""

    at: datetime
    actor: str
    action: str  # flag.create or flag.change
    reason: str | None
    details: dict[str, Any]  # version; from → to; which tenants each list gained and lost


@dataclass(frozen=True, slots=True)
class Reading:
    """A process that answers by the flag."""

    reader: str  # host:pid:which of the process's readers
    version: int
    mode: str  # listen or poll
    applied_at: datetime
    heartbeat_at: datetime


async def get(database: Database) -> Flag:
    """The row as it is now. Raises UnknownName where there is none."""
    async with _transaction(database, read_only=True) as connection:
        return flag_of(await first(connection, statement("flags", "flag"), _FLAG))


async def readers(database: Database) -> list[Reading]:
    """The processes that were heard of within the last minute, and which version each answers by."""
    async with _transaction(database, read_only=True) as connection:
        rows = await every(connection, statement("flags", "readers"), _FLAG)
    return [Reading(**row) for row in rows]


async def history(database: Database, most: int) -> list[Written]:
    """The last changes, newest first."""
    async with _transaction(database, read_only=True) as connection:
        rows = await every(connection, statement("flags", "history"), {**_FLAG, "most": most})
    return [Written(**row) for row in rows]


async def switch(database: Database, enabled: bool, author: Author) -> Change:
    """On: lists and percentage count. Off: everybody is on v1; lists and percentage are kept."""
    async with _changing(database, author) as (connection, before):
        await _execute(connection, "switch", {"enabled": enabled})
        return await _changed(connection, before)


async def set_percentage(database: Database, percentage: int, author: Author) -> Change:
    """Select this share of tenants by hash; of those, unverified ones go to the disabled list, and are named.

    Raises UsageError for anything but a whole number of 0 to 100.
    """
    if type(percentage) is not int or not 0 <= percentage <= 100:
        raise UsageError(
            f"a percentage is a whole number from 0 to 100, not {percentage!r}", fix="nothing was changed; give one"
        )
    async with _changing(database, author) as (connection, before):
        await _execute(connection, "set_percentage", {"percentage": percentage})
        return await _changed(connection, before)


async def enable(database: Database, tenants: Iterable[str], author: Author, *, force: bool = False) -> Change:
    """Put tenants on v2: on the enabled list, off the disabled one.

    Raises UnknownName for a tenant that does not exist, and UnverifiedTenants, unless ``force``; then nobody is
    enabled.
    """
    named = _tenants(tenants)
    async with _changing(database, author, forced=force) as (connection, before):
        await refuse_strangers(connection, named, before.enabled_tenants | before.disabled_tenants)
        unverified = await _unverified(connection, named)
        if unverified and not force:
            raise UnverifiedTenants(
                "not enabled: " + _few(f"{each.tenant_id} {each.why}" for each in unverified),
                fix="run: relevo verify; or give --force, which is audited",
            )
        await _execute(connection, "enable", {"tenants": named})
        after = await _changed(connection, before)
        return Change(after.before, after.flag, unverified)


async def disable(database: Database, tenants: Iterable[str], author: Author) -> Change:
    """Put tenants back on v1: on the disabled list, off the enabled one.

    Raises UnknownName for a tenant that exists nowhere; one that is on either list exists.
    """
    named = _tenants(tenants)
    async with _changing(database, author) as (connection, before):
        await refuse_strangers(connection, named, before.enabled_tenants | before.disabled_tenants)
        await _execute(connection, "disable", {"tenants": named})
        return await _changed(connection, before)


def flag_of(row: Mapping[str, Any] | None) -> Flag:
    """The flag that a row holds. Raises UnknownName for no row."""
    if row is None:
        raise UnknownName(
            f"there is no flag {VOICE_AGENT_V2} here, or row-level security hides it from this role",
            fix="run: relevo db up; or connect as a role that passes row-level security",
        )
    return Flag(
        row["name"],
        row["enabled"],
        row["percentage"],
        frozenset(row["enabled_tenants"]),
        frozenset(row["disabled_tenants"]),
        row["version"],
    )


@asynccontextmanager
async def _transaction(database: Database, *, read_only: bool = False) -> AsyncIterator[Connection]:
    """A transaction in which a missing schema has a name. (Asking for every schema file first would keep a newer
    Relevo from going back on an older schema.)"""
    try:
        async with database.transaction(read_only=read_only) as connection:
            yield connection
    except (errors.UndefinedTable, errors.UndefinedFunction) as error:
        raise SchemaMissing(
            f"this database lacks part of Relevo's schema: {error.diag.message_primary}", fix="run: relevo db up"
        ) from error


@asynccontextmanager
async def _changing(
    database: Database, author: Author, *, forced: bool = False
) -> AsyncIterator[tuple[Connection, Flag]]:
    """A transaction that holds the row, says who acts, and knows what the row was."""
    if not author.actor.strip():
        raise UsageError("the actor is empty", fix="name who changes the flag")
    async with _transaction(database) as connection:
        act = {"actor": author.actor, "reason": author.reason, "forced": forced}
        await connection.execute(statement("flags", "act"), act)
        yield connection, flag_of(await first(connection, statement("flags", "locked_flag"), _FLAG))


async def _execute(connection: Connection, name: str, values: Mapping[str, Any]) -> None:
    await connection.execute(statement("flags", name), {**_FLAG, **values})


async def _changed(connection: Connection, before: Flag) -> Change:
    """What became of the row; and whom its trigger put on the disabled list, because they are not verified."""
    after = flag_of(await first(connection, statement("flags", "flag"), _FLAG))
    put_aside = sorted(after.disabled_tenants - before.disabled_tenants)
    counts = after.percentage > before.percentage or (after.enabled and not before.enabled)
    return Change(before, after, await _unverified(connection, put_aside) if counts else ())


async def _unverified(connection: Connection, tenants: list[str]) -> tuple[Unverified, ...]:
    rows = await every(connection, statement("flags", "unverified"), {"tenants": tenants}) if tenants else []
    return tuple(Unverified(row["tenant_id"], row["why"]) for row in rows)


def _tenants(given: Iterable[str]) -> list[str]:
    """The tenants to change, each once. Raises UsageError for what cannot be a tenant id."""
    tenants = list(dict.fromkeys(given))
    if not tenants:
        raise UsageError("no tenant is named", fix="name at least one")
    for tenant in tenants:
        if not 1 <= len(tenant) <= LONGEST_ID or "\0" in tenant:
            raise UsageError(
                f"{tenant[:40]!r} is no tenant id", fix=f"give 1 to {LONGEST_ID:,} characters, none of them NUL"
            )
    return tenants


async def refuse_strangers(connection: Connection, tenants: list[str], listed: frozenset[str]) -> None:
    """Nobody should believe to have rolled a tenant back whose id was misspelt. A listed tenant is never a stranger:
    it was known once, and going back must work for it."""
    rows = await every(connection, statement("flags", "strangers"), {"tenants": tenants})
    strangers = [row["id"] for row in rows if row["id"] not in listed]
    if not strangers:
        return
    known = {row["id"]: row["name"] for row in await every(connection, statement("flags", "known"))}
    raise UnknownName(
        f"there is no tenant {_few(map(repr, strangers))}.{_meant(strangers[0], known, listed)}",
        fix="nothing was changed; give the ids as they are in the tenants' table",
    )


def _meant(stranger: str, known: Mapping[str, str | None], listed: frozenset[str]) -> str:
    """The nearest ids, found also by the name of the business."""
    labels = {tenant.casefold(): tenant for tenant in listed}
    for tenant, name in known.items():
        label = f"{tenant} ({name})" if name else tenant
        labels |= {tenant.casefold(): label, (name or tenant).casefold(): label}
    close = difflib.get_close_matches(stranger.casefold(), labels, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(dict.fromkeys(labels[each] for each in close))}?" if close else ""


def _few(names: Iterable[str]) -> str:
    """The first few, and how many more."""
    every_one = list(names)
    more = len(every_one) - _SHOWN
    return "; ".join(every_one[:_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")
