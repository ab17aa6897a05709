"""``relevo rollback``: going back, by level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Annotated

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from relevo.cli import restoring
from relevo.cli.frame import ORDINARY, Answer, Common, WholeNumber, tenants
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.errors import UsageError, nearest
from relevo.flags.writing import Author
from relevo.migration.steps import backup as backups
from relevo.rollback import cutting, levels
from relevo.rollback.cutting import Cut, How
from relevo.rollback.levels import WentBack
from relevo.webhooks.handlers import upstream
from relevo.webhooks.vapi import Vapi

_LISTED = 5
_EDITS = 10
_CUT: Mapping[How, str] = MappingProxyType(
    {
        "transferred": "put through to a person of the business",
        "ended": "ended with an apology",
        "over": "over before we came",
        "left": "left with v2, to their end:",
    }
)


@dataclass(frozen=True, slots=True)
class Options:
    """What a level may need."""

    cut: bool

    backup_id: str | None
    tenant_id: str | None
    percentage: int | None
    yes: bool


Level = Callable[[Options, Common], Awaitable[Answer]]


async def rollback(
    *,
    level: str = "total",
    tenant_id: str | None = None,
    percentage: WholeNumber | None = None,
    backup_id: str | None = None,
    undo: WholeNumber | None = None,
    cut: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(negative="")] = False,
    common: Common = ORDINARY,
) -> Answer:
    """Go back to v1: one tenant, some, or all, within a second; or the data, to a backup. Each can be undone.

    Parameters
    ----------
    level
        tenant, partial, total or data.
    tenant_id
        Level tenant: who; several are separated by commas. Level data: only this tenant.
    percentage
        Level partial: the share of tenants that stays on v2.
    backup_id
        Level data: the backup to go back to; without it the newest are listed.
    undo
        Instead of going back: undo the rollback of this number in the audit log.
    cut
        Also end v2's part in calls in progress: an apology, and a person of the business where a line is known.
    yes
        Do not ask (level data).
    """
    if cut and (undo is not None or level == "data"):
        raise UsageError("--cut is for the levels tenant, partial and total", fix="leave --cut out")
    if undo is not None:
        async with common.database() as database:
            return _went(await levels.undo(database, undo, _author(common), system_clock))
    chosen = LEVELS.get(level)
    if chosen is None:
        raise UsageError(f"there is no level {level!r}.{nearest(level, LEVELS)}", fix=f"one of: {', '.join(LEVELS)}")
    return await chosen(Options(cut, backup_id, tenant_id, percentage, yes), common)


async def _tenant(options: Options, common: Common) -> Answer:
    named = [each.strip() for each in (options.tenant_id or "").split(",") if each.strip()]
    async with common.database() as database:
        done = await levels.tenants_back(database, named, _author(common), system_clock)
        return _went(done, await _cut(database, options, named, common))


async def _partial(options: Options, common: Common) -> Answer:
    async with common.database() as database:
        done = await levels.partly_back(database, options.percentage, _author(common), system_clock)
        return _went(done, await _cut(database, options, None, common))


async def _total(options: Options, common: Common) -> Answer:
    async with common.database() as database:
        done = await levels.all_back(database, _author(common), system_clock)
        return _went(done, await _cut(database, options, None, common))


async def _cut(database: Database, options: Options, tenants: Sequence[str] | None, common: Common) -> list[Cut] | None:
    """What became of the calls in progress; None: they were to be left alone. Without a key at Vapi going back itself
    still works, and the calls are told to be left."""
    if not options.cut:
        return None
    in_force = common.settings()
    async with upstream.session() as session:
        key = in_force.vapi_api_key
        vapi = Vapi(session, in_force.vapi_api_url, key) if key else None
        return await cutting.cut(database, vapi, tenants, _author(common), system_clock)


def _author(common: Common) -> Author:
    return Author(common.actor, common.reason)


def _went(done: WentBack, calls: Sequence[Cut] | None = None) -> Answer:
    """What was done, and what it means."""
    changed = done.after.version != done.before.version
    many, on_v2 = len(done.affected_tenants), done.after.tenants_on_v2
    who = "1 tenant" if many == 1 else f"{many:,} tenants"
    lines = [f"level {done.level}: {who} changed version; {on_v2:,} of the active ones on v2 now"]
    lines += [] if changed else ["the flag was so already; nothing changed"]
    if calls is not None:
        lines += _told_of_calls(calls)
    elif done.calls_in_progress:
        lines.append(f"{done.calls_in_progress:,} calls of theirs are in progress, and end with v2")
    lines.append(_propagated(done))
    shown = [f"  {each['tenant_id']}: {each['field']}, by {each['edited_by']}" for each in done.edits[:_EDITS]]
    if done.edits:
        lines += [f"{len(done.edits):,} fields were edited on v2 that v1 does not carry:", *shown]
    lines += [f"left on v1, because not verified any more: {', '.join(done.left_out)}"] if done.left_out else []
    lines += [f"to undo: {done.undo_command}"] if done.undo_command else []
    left = sum(each.how == "left" for each in calls or ())
    success = not done.lagging and not left
    cut_calls = None if calls is None else [asdict(each) for each in calls]
    data = {**asdict(done), "success": success, "changed": changed, "cut_calls": cut_calls}
    return Answer(data, Group(*map(Text, lines)), 0 if success else 1)


def _told_of_calls(calls: Sequence[Cut]) -> list[str]:
    """How many calls were cut in which way, and those that were not."""
    counts = Counter(each.how for each in calls)
    lines = [f"{len(calls):,} calls were going on with v2" + ("" if calls else "; there was nothing to cut")]
    lines += [f"  {counts[how]:,} {words}" for how, words in _CUT.items() if counts[how]]
    left = [each for each in calls if each.how == "left"]
    lines += [f"    {each.call_id} of {each.tenant_id}: {each.why}" for each in left[:_LISTED]]
    return lines


def _propagated(done: WentBack) -> str:
    if done.lagging:
        return f"{len(done.lagging)} of {done.readers} processes have not obeyed yet: {', '.join(done.lagging)}"
    if done.propagation_ms is None or not done.readers:
        return "no process answers by the flag right now"
    return f"all {done.readers} processes that answer by the flag obeyed within {done.propagation_ms:,.0f} ms"


async def _data(options: Options, common: Common) -> Answer:
    chosen = tenants(options.tenant_id)
    async with common.database() as database:
        if options.backup_id is None:
            async with database.transaction(read_only=True) as connection:
                await migrations.require(connection)
            return _newest((await backups.listed(database))[:_LISTED])
        done = await restoring.restore(
            database, common, options.backup_id, chosen, discard_newer=False, yes=options.yes
        )
    if done is None:
        return Answer({"level": "data", "success": False, "cancelled": True}, "cancelled, nothing changed", 1)
    tables = [asdict(table) for table in done.tables]
    answer = {
        "level": "data",
        "success": True,
        "before": {"backup_id": done.backup_before},
        "after": {"backup_id": done.backup_id, "tables": tables},
        "affected_tenants": done.affected_tenants,
        "propagation_ms": None,
        "duration_seconds": done.duration_seconds,
        "audit_id": done.audit_id,
        "backup_before": done.backup_before,
        "undo_command": done.undo_command,
        "interrupted": done.interrupted,
    }
    return Answer(answer, restoring.told(done))


def _newest(found: list[backups.Backup]) -> Answer:
    lines = [f"  {each.id}: {each.created_at:%Y-%m-%d %H:%M:%S} ({', '.join(each.tables)})" for each in found]
    fix = "name one: relevo rollback --level data --backup-id ID" if found else "take one: relevo backups create"
    error = {"code": "UsageError", "message": "level data needs --backup-id", "fix": fix}
    listed = [{"id": each.id, "created_at": each.created_at, "tables": each.tables} for each in found]
    text = Group(
        Text("Available backups:" if found else "There are no backups."),
        *map(Text, lines),
        Text(f"relevo: {error['message']} — {fix}"),
    )
    return Answer({"level": "data", "success": False, "backups": listed, "error": error}, text, 2)


LEVELS: Mapping[str, Level] = MappingProxyType({"tenant": _tenant, "partial": _partial, "total": _total, "data": _data})
