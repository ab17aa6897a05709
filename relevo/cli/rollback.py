"""``relevo rollback``: going back, by level."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Group
from rich.text import Text

from relevo.cli import restoring
from relevo.cli.frame import ORDINARY, Answer, Common, tenants
from relevo.db import migrations
from relevo.errors import UsageError, nearest
from relevo.migration.steps import backup as backups

_LISTED = 5


@dataclass(frozen=True, slots=True)
class Options:
    """What a level may need."""

    backup_id: str | None
    tenant_id: str | None
    yes: bool


Level = Callable[[Options, Common], Awaitable[Answer]]


def register(parent: App) -> None:
    """Hang this command under the main one."""
    parent.command(rollback)


async def rollback(
    *,
    level: str,
    backup_id: str | None = None,
    tenant_id: str | None = None,
    yes: Annotated[bool, Parameter(negative="")] = False,
    common: Common = ORDINARY,
) -> Answer:
    """Go back. Level data: the data as a backup holds them, which can itself be undone.

    Parameters
    ----------
    level
        data.
    backup_id
        The backup to go back to; without it the newest are listed.
    tenant_id
        Only this tenant.
    yes
        Do not ask.
    """
    chosen = LEVELS.get(level)
    if chosen is None:
        raise UsageError(f"there is no level {level!r}.{nearest(level, LEVELS)}", fix=f"one of: {', '.join(LEVELS)}")
    return await chosen(Options(backup_id, tenant_id, yes), common)


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


LEVELS: Mapping[str, Level] = MappingProxyType({"data": _data})
