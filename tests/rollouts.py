"""What the tests of the rollout share: tenants with a v1, calls of both versions, and ticks in compressed time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from psycopg import sql

from relevo.db.pool import Database
from relevo.flags.writing import Author
from relevo.migration.mapping import DEFAULT as MAPPING
from relevo.rollout import controller, operating
from relevo.rollout.controller import Ticked
from relevo.rollout.moving import Rollout, last_rollout
from relevo.rollout.plan import DEFAULT, Plan
from tests.conftest import change, rows, value
from tests.flags import row, settle

# A Monday that is still to come: what the database stamps by its own clock must not be later than the test's.
BEGAN = datetime(2093, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ANA = Author("ana", "because")
SOURCE: Mapping[str, sql.Composable] = MAPPING.fill()


@dataclass
class Scene:
    """A platform with verified tenants, and a clock that only the test moves."""

    database: Database
    tenants: list[str]
    now: datetime = BEGAN
    calls_made: int = 0

    def clock(self) -> datetime:
        """The present moment."""
        return self.now

    async def start(self, plan: Plan = DEFAULT, *, force: bool = True, canary: int = 2) -> Rollout:
        """Begin with the first tenants as the canary; v1 has no history here, or one that it is forced over."""
        named = replace(plan, named=tuple(self.tenants[:canary]))
        rollout, _line, _rehearsed = await operating.start(self.database, named, SOURCE, ANA, self.clock, force=force)
        return rollout

    async def tick(self, **later: float) -> Ticked | None:
        """One tick, after so much more time."""
        self.now += timedelta(**later)
        return await controller.tick(self.database, self.now)

    async def settle_into(self, hours: float = 0) -> Ticked | None:
        """Reach the phase asked for, then look again after some hours."""
        await self.tick(seconds=5)
        return await self.tick(hours=hours)

    async def rollout(self) -> Rollout:
        """The newest as its row has it."""
        async with self.database.transaction(read_only=True) as connection:
            found = await last_rollout(connection)
        assert found is not None
        return found

    async def on_v2(self) -> list[str]:
        """The flag's list."""
        return list((await row(self.database))["enabled_tenants"])

    async def calls(
        self, version: str, many: int, *, errors: int = 0, tenants: Sequence[str] | None = None, ms: float = 500
    ) -> None:
        """Finished calls, spread over the minute that is over and its tenants in turn; the first are errors."""
        whose = list(tenants or (await self.on_v2() if version == "v2" else self.tenants[-3:]))
        await change(
            self.database,
            """INSERT INTO relevo.calls (call_id, tenant_id, version, served_version, decided_at, decided_by, asked,
                                         stage, ending, report)
               SELECT 'call ' || %(base)s + n, (%(whose)s::text[])[1 + n %% cardinality(%(whose)s::text[])],
                      %(version)s, %(version)s, %(at)s, 'flag', true, 6,
                      ROW (4, %(at)s, CASE WHEN n < %(errors)s THEN 'assistant-not-found' ELSE 'customer-ended-call' END
                          )::relevo.ending,
                      ROW (4, %(at)s, NULL, NULL, 60000, %(ms)s, NULL, NULL, NULL)::relevo.report
               FROM generate_series(0, %(many)s - 1) AS n""",
            {"base": self.calls_made, "whose": whose, "version": version, "at": self.now, "errors": errors,
             "many": many, "ms": ms},
        )  # fmt: skip
        self.calls_made += many


async def scene(database: Database, *, verified: int = 20, unverified: int = 0) -> Scene:
    """Verified tenants, and a v1 without a single call."""
    found = await settle(database, verified=verified, unverified=unverified)
    await change(
        database,
        """CREATE TABLE public.voice_calls (id text PRIMARY KEY, business_id uuid, vapi_call_id text, status text,
           started_at timestamptz, duration_seconds numeric, avg_latency_ms numeric)""",
    )
    return Scene(database, found.verified)


async def audited(database: Database) -> list[str]:
    """What the audit log says of rollouts, oldest first."""
    found = await value(
        database,
        "SELECT coalesce(array_agg(action ORDER BY id), '{}') FROM relevo.audit_log WHERE action LIKE 'rollout.%%'",
        (),
    )
    return list(found)


async def every_transition_follows_the_one_before(database: Database) -> list[str]:
    """The chain of each rollout is whole, and audited link by link; returns all events."""
    chain = await rows(database, "SELECT * FROM relevo.rollout_transitions ORDER BY id")
    audited = await rows(database, "SELECT * FROM relevo.audit_log WHERE action LIKE 'rollout.%%' ORDER BY id", ())
    events = [each["event"] for each in chain]
    state: dict[int, str] = {}
    for each in chain:
        assert each["source"] == state.get(each["rollout_id"]), each
        state[each["rollout_id"]] = each["target"]
    assert [each["action"] for each in audited] == [f"rollout.{each}" for each in events]
    assert [each["actor"] for each in audited] == [each["actor"] for each in chain]
    changes = await value(database, "SELECT count(*) FROM relevo.audit_log WHERE action = 'flag.change'")
    assert changes == (await row(database))["version"] - 1
    return events
