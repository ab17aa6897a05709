"""Step 5: every v2 row in scope, derived again from its v1 row and compared field by field."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from psycopg import sql
from psycopg.types.json import Jsonb

from relevo import events
from relevo.clock import Clock, system_clock
from relevo.db.pool import Connection, Database, every, one
from relevo.db.statements import statement
from relevo.migration.mapping import SourceMapping
from relevo.migration.retired import refuse_deprecated
from relevo.migration.steps.copy import derive_from_batch

_ROWS_AT_ONCE = 2_000
_ERRORS_LISTED = 1_000

# The rules that made the v2 row; those in force where there is no such row.
AS_MADE = sql.SQL(
    "coalesce((SELECT o.rule_version FROM relevo.config_origins o WHERE o.config_id = c.id), relevo.current_rules())"
)


@dataclass(slots=True)
class Verdict:
    """What verification found. ``checked`` is the sum of the next six."""

    checked: int = 0
    matched: int = 0
    edited_on_v2: int = 0
    drifted: int = 0
    missing: int = 0
    quarantined: int = 0
    queued: int = 0  # a write of theirs waits for repair
    orphaned: int = 0
    errors: list[str] = field(default_factory=list)  # the first thousand, one line each

    @property
    def success(self) -> bool:
        """Whether v2 holds what v1 says it should, nothing more and nothing less, and nothing waits."""
        return self.move_success and not self.queued

    @property
    def move_success(self) -> bool:
        """The same for the move alone, which has no part in writes that came beside it and wait for repair."""
        return not (self.drifted or self.missing or self.orphaned or self.errors)

    def blame(self, error: str) -> None:
        """Note what is wrong, as long as a person could still read it."""
        if len(self.errors) < _ERRORS_LISTED:
            self.errors.append(error)


async def run(
    database: Database,
    mapping: SourceMapping,
    *,
    tenant_ids: Sequence[UUID] | None,
    config_ids: Sequence[UUID] | None = None,
    emit: events.Sink = events.silent,
    metrics: bool = False,
    clock: Clock = system_clock,
) -> Verdict:
    """Compare everything in scope, as of one moment, and record what was found of each configuration.

    ``metrics``: each business with calls must have figures.
    """
    await refuse_deprecated(database)
    verdict = Verdict()
    scope = {
        "tenant_ids": list(tenant_ids) if tenant_ids is not None else None,
        "config_ids": list(config_ids) if config_ids is not None else None,
    }
    async with database.transaction(read_only=True, snapshot=True) as connection:
        total = await one(connection, statement("migration", "count_configurations", **mapping.fill()), scope)
        async for judged in _compare(connection, mapping, scope, verdict, total["total"], emit):
            await _record(database, judged, clock)
        await _find_orphans(connection, mapping, scope, verdict)
        if metrics:
            await _require_metrics(connection, mapping, scope, verdict)
    return verdict


async def _compare(
    connection: Connection,
    mapping: SourceMapping,
    scope: dict[str, Any],
    verdict: Verdict,
    total: int,
    emit: events.Sink,
) -> AsyncIterator[list[dict[str, Any]]]:
    """Batch after batch, what is to be said of each configuration."""
    query = statement("migration", "expected_batch", derive=derive_from_batch(mapping, AS_MADE), **mapping.fill())
    after: str | None = None
    while True:
        batch = await one(connection, query, {**scope, "after": after, "batch_size": _ROWS_AT_ONCE})
        if batch["seen"] == 0:
            return
        after = batch["last"]
        for config in batch["judged"]:
            _count(verdict, config)
        emit(events.Progress(verdict.checked, total, "configurations"))
        yield batch["judged"]


async def _record(database: Database, judged: list[dict[str, Any]], clock: Clock) -> None:
    """Keep it, for whoever asks whether a tenant may live on v2. Not in the transaction that compares: that one sees
    a single moment and writes nothing."""
    async with database.transaction() as connection:
        await connection.execute(
            statement("migration", "record_verification"), {"judged": Jsonb(judged), "now": clock()}
        )


def _count(verdict: Verdict, config: dict[str, Any]) -> None:
    verdict.checked += 1
    state = config["state"]
    setattr(verdict, state, getattr(verdict, state) + 1)
    if state == "missing":
        verdict.blame(f"config {config['id']}: missing in v2")
    elif state == "drifted":
        verdict.blame(f"config {config['id']}: differs in {', '.join(config['fields'])}")


async def _find_orphans(
    connection: Connection, mapping: SourceMapping, scope: dict[str, Any], verdict: Verdict
) -> None:
    for row in await every(connection, statement("migration", "orphaned", **mapping.fill()), scope):
        if row["queued"]:  # born or deleted on one side alone
            verdict.checked += 1
            verdict.queued += 1
            continue
        verdict.orphaned += 1
        verdict.blame(f"config {row['id']}: in v2, but not in v1")


async def _require_metrics(
    connection: Connection, mapping: SourceMapping, scope: dict[str, Any], verdict: Verdict
) -> None:
    row = await one(connection, statement("migration", "businesses_without_metrics", **mapping.fill()), scope)
    if row["many"]:
        verdict.blame(f"{row['many']} businesses with calls have no row in voice_assistant_metrics")
