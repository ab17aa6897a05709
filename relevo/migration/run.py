"""A run of the move: what was asked, how far each step has come, and what it wrote."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from relevo.clock import Clock
from relevo.db.lease import Lease
from relevo.db.pool import Connection, Database, every
from relevo.db.statements import statement
from relevo.events import Sink
from relevo.migration.mapping import SourceMapping

DEFAULT_BATCH_SIZE = 100
MOST_WORKERS = 16
BackupCalls = Literal["all", "touched"]  # whole rows of calls, or only the columns that the move writes
LARGEST_BATCH = 100_000  # one transaction, held for as long as it takes


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of the move."""

    dry_run: bool = False
    batch_size: int = DEFAULT_BATCH_SIZE
    workers: int = 1
    tenant_ids: tuple[UUID, ...] | None = None  # None: all of them
    config_ids: tuple[UUID, ...] | None = None  # None: all of the tenants'
    skip_backup: bool = False
    backup_calls: BackupCalls = "all"
    overrides: Path | None = None
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
    refused_outcomes: int = 0  # calls whose outcome the platform's own column would not take
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
    config_ids: list[UUID] | None
    batch_size: int
    workers: int
    rule_version: int
    backup_id: UUID | None
    skip_backup: bool
    backup_calls: BackupCalls


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
        """The parameters that limit a statement to the run's tenants and configurations."""
        return {"tenant_ids": self.run.tenant_ids, "config_ids": self.run.config_ids}

    async def states(self, step: str) -> list[StepState]:
        """How far each worker of the step has come; empty before it began."""
        async with self.database.transaction(read_only=True) as connection:
            rows = await every(connection, statement("migration", "step"), {"run_id": self.run.id, "step": step})
        return [StepState(row["cursor"], row["finished_at"] is not None) for row in rows]

    async def save(
        self, connection: Connection, step: str, cursor: dict[str, Any], *, worker: int = 0, finished: bool = False
    ) -> None:
        """Store how far the step has come, together with what it wrote; fenced by the lease."""
        await self.lease.hold(connection)
        await connection.execute(
            statement("migration", "save_step"),
            {
                "run_id": self.run.id,
                "step": step,
                "worker": worker,
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
