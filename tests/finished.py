"""The world after a rollout: everybody verified is on v2, nobody is left on v1, and a day has gone well."""

from __future__ import annotations

from datetime import datetime, timedelta

from relevo.db.pool import Database
from relevo.migration import mirror, runner
from relevo.migration.mapping import from_settings
from relevo.migration.run import Options
from relevo.migration.runs import Who
from tests.conftest import NOW, behind, change, rows

COMPLETED_AT = NOW - timedelta(hours=20)
MAPPED = {"tenants": {"fields": {"email": "email", "time_zone": "time_zone", "phone_number": "phone_number"}}}
LINE = "+525512345678"


async def finish(database: Database) -> None:
    """Move, verify and promote the sample; whoever cannot live on v2 is given up, as a team would before it ends."""
    mapping = from_settings(MAPPED)
    await runner.migrate(database, Options(), actor="tests", mapping=mapping)
    await mirror.install(database, mapping, Who("tests", None), lambda: NOW)
    await behind(
        database,
        """UPDATE public.voice_agent_config SET is_active = false WHERE business_id IS NULL OR business_id::text IN (
             SELECT u.tenant_id FROM relevo.unverified_tenants(ARRAY(SELECT relevo.active_tenants())) AS u)""",
    )
    await complete(database, COMPLETED_AT)


async def complete(database: Database, at: datetime) -> None:
    """The flag for all, and a rollout that says so."""
    await change(database, "UPDATE public.feature_flags SET enabled = true, percentage = 100")
    await change(
        database,
        """INSERT INTO relevo.rollouts (plan, state, phases, flag_version, judged_from, gathered_from, hold_until,
                                        expires_at, started_at, finished_at, actor)
           VALUES ('', 'Complete', 1, 1, %(at)s, %(at)s, %(at)s, %(at)s, %(at)s::timestamptz - interval '5 days',
                   %(at)s, 'tests')""",
        {"at": at},
    )


async def calls(database: Database, version: str, many: int, at: datetime, *, errors: int = 0, ms: float = 400) -> None:
    """Finished calls of tenants in turn; the first are errors."""
    await change(
        database,
        """INSERT INTO relevo.calls (call_id, tenant_id, version, served_version, decided_at, decided_by, asked, stage,
                                     ending, report)
           SELECT 'call ' || %(version)s::text || %(at)s::text || n,
                  (ARRAY(SELECT relevo.active_tenants()))[1 + n %% 5], %(version)s, %(version)s, %(at)s, 'flag', true,
                  6,
                  ROW (4, %(at)s, CASE WHEN n < %(errors)s THEN 'assistant-not-found' ELSE 'customer-ended-call' END
                      )::relevo.ending,
                  ROW (4, %(at)s, NULL, NULL, 60000, %(ms)s, NULL, NULL, NULL)::relevo.report
           FROM generate_series(0, %(many)s - 1) AS n""",
        {"version": version, "many": many, "at": at, "errors": errors, "ms": ms},
    )


async def clients(database: Database) -> list[str]:
    """Active tenants with an address."""
    found = await rows(
        database,
        """SELECT b.id::text AS id FROM public.businesses b
           WHERE b.id::text IN (SELECT relevo.active_tenants()) AND b.email IS NOT NULL ORDER BY b.id""",
    )
    return [row["id"] for row in found]
