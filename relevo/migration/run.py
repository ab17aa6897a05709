"""A run of the move: what was asked, how far each step has come, and what it wrote."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from relevo.clock import Clock
from relevo.db.lease import Lease
from relevo.db.pool import Connection, Database, first
from relevo.db.statements import statement
from relevo.events import Sink
from relevo.migration.mapping import SourceMapping

DEFAULT_BATCH_SIZE = 100


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of the move."""

    dry_run: bool = False
    batch_size: int = DEFAULT_BATCH_SIZE
    tenant_ids: tuple[UUID, ...] | None = None  # None: all of them
    skip_backup: bool = False
    resume: UUID | None = None  # None: pick up an open run, else start one


@dataclass(slots=True)
class MoveResult:
    """The summary of a run, or of what a run would do."""

    success: bool = False
    run_id: UUID | None = None
    dry_run: bool = False
    migrated_configs: int = 0
    skipped_configs: int = 0
    quarantined_configs: int = 0
    review_configs: int = 0
    updated_calls: int = 0
    metrics_businesses: int = 0
    backup_id: UUID | None = None
    errors: list[str] = field(default_factory=list)
    undone: bool = False
    duration_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the database has it."""

    id: UUID
    started_at: datetime
    tenant_ids: list[UUID] | None
    batch_size: int
    rule_version: int
    backup_id: UUID | None
    skip_backup: bool


@dataclass(frozen=True, slots=True)
class Work:
    """Everything a step needs: the run, the lease that fences it, where v1 is, and whom to tell."""

    database: Database
    mapping: SourceMapping
    run: Run
    lease: Lease
    clock: Clock
    emit: Sink

    @property
    def scope(self) -> dict[str, Any]:
        """The parameters that limit a statement to the run's tenants."""
        return {"tenant_ids": self.run.tenant_ids}

    async def cursor(self, step: str) -> StepState:
        """How far the step has come."""
        async with self.database.transaction(read_only=True) as connection:
            row = await first(connection, statement("migration", "step"), {"run_id": self.run.id, "step": step})
        return StepState(row["cursor"], row["finished_at"] is not None) if row else StepState()

    async def save(self, connection: Connection, step: str, cursor: dict[str, Any], *, finished: bool = False) -> None:
        """Store how far the step has come, together with what it wrote; fenced by the lease."""
        await self.lease.hold(connection)
        await connection.execute(
            statement("migration", "save_step"),
            {
                "run_id": self.run.id,
                "step": step,
                "cursor": Jsonb(cursor),
                "finished": finished,
                "now": self.clock(),
            },
        )


@dataclass(frozen=True, slots=True)
class StepState:
    """A step's own notes, and whether it is done."""

    cursor: dict[str, Any] = field(default_factory=dict)
    finished: bool = False


async def audit(
    connection: Connection,
    *,
    actor: str,
    action: str,
    subject: object = None,
    reason: str | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """Write one line of the audit log, in the transaction of the change it tells of."""
    await connection.execute(
        statement("migration", "audit"),
        {
            "actor": actor,
            "action": action,
            "subject": None if subject is None else str(subject),
            "reason": reason,
            "details": Jsonb(details or {}),
        },
    )
