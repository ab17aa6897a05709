"""Configurations that were set aside: why, and whether they can go now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from relevo import events
from relevo.clock import Clock, system_clock
from relevo.db.pool import Database, every
from relevo.db.statements import statement
from relevo.migration.mapping import SourceMapping
from relevo.migration.run import MoveResult, Options
from relevo.migration.runner import migrate


@dataclass(frozen=True, slots=True)
class SetAside:
    """One configuration in quarantine."""

    config_id: str
    business_id: str | None
    reason: str  # for machines: no_vertical
    detail: str  # for people
    set_aside_at: datetime
    run_id: UUID
    in_v1: bool  # False: it has since been deleted there


async def listed(database: Database, mapping: SourceMapping) -> list[SetAside]:
    """All that is set aside, by reason."""
    async with database.transaction(read_only=True) as connection:
        rows = await every(connection, statement("migration", "set_aside", **mapping.fill()))
    return [SetAside(**row) for row in rows]


async def retry(
    database: Database,
    mapping: SourceMapping,
    *,
    actor: str,
    reason: str | None = None,
    clock: Clock = system_clock,
    emit: events.Sink = events.silent,
) -> MoveResult | None:
    """Move what can go now, in a run of its own; None when nothing is set aside.

    What v1 no longer has leaves the quarantine. What is still defective stays, with its present reason.
    """
    async with database.transaction() as connection:
        await connection.execute(statement("migration", "forget_deleted", **mapping.fill()), {})
    waiting = await listed(database, mapping)
    if not waiting:
        return None
    options = Options(config_ids=tuple(UUID(each.config_id) for each in waiting), skip_backup=True)
    return await migrate(database, options, actor=actor, reason=reason, mapping=mapping, clock=clock, emit=emit)
