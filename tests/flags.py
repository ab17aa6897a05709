"""What the tests of the flag share: evaluators to compare, tenants to name, rows to write."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid5

import psycopg

from relevo.db.pool import Database
from relevo.flags.evaluate import Flag, evaluate
from tests.conftest import change, rows, value
from tests.oracle import node

SEED = Path(__file__).with_name("seed_flags.mjs")
FLAG = "SELECT * FROM public.feature_flags WHERE name = 'voice_agent_v2'"
AUDIT = "SELECT * FROM relevo.audit_log WHERE subject = 'voice_agent_v2' ORDER BY id"
FAMILY = UUID("9c5b94b1-35ad-49bb-b118-8e8fc24abf80")

Said = tuple[bool, int]  # uses v2, percentile


class Evaluator(Protocol):
    """Answers for tenants by a flag. The four of them must agree: Python, SQL, the seed's JavaScript, OFREP."""

    def __call__(self, flag: Flag, tenants: Sequence[str]) -> list[Said]:
        """What it says of each tenant, in order."""


def by_python(flag: Flag, tenants: Sequence[str]) -> list[Said]:
    """Relevo's own, in process."""
    answers = [evaluate(flag, tenant) for tenant in tenants]
    return [(each.value, -1 if each.percentile is None else each.percentile) for each in answers]


def by_sql(connection: psycopg.Connection) -> Evaluator:
    """The functions in schema public, on the row itself, which is written first."""

    def ask(flag: Flag, tenants: Sequence[str]) -> list[Said]:
        connection.execute(
            """UPDATE public.feature_flags SET enabled = %s, percentage = %s, enabled_tenants = %s,
               disabled_tenants = %s WHERE name = 'voice_agent_v2'""",
            (flag.enabled, flag.percentage, sorted(flag.enabled_tenants), sorted(flag.disabled_tenants)),
        )
        found = connection.execute(
            """SELECT should_use_voice_agent_v2(t), voice_agent_v2_percentile(t)
               FROM unnest(%s::text[]) WITH ORDINALITY AS u (t, place) ORDER BY place""",
            (list(tenants),),
        )
        return [(uses, place) for uses, place in found]

    return ask


@contextmanager
def by_seed() -> Iterator[Evaluator]:
    """The seed's own code in Node, gone at the end of the block."""
    program = node()
    assert program is not None
    with subprocess.Popen(
        [program, str(SEED)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answered = process.stdin, process.stdout

        def ask(flag: Flag, tenants: Sequence[str]) -> list[Said]:
            flags = {
                "enabled": flag.enabled,
                "percentage": flag.percentage,
                "enabledTenants": sorted(flag.enabled_tenants),
                "disabledTenants": sorted(flag.disabled_tenants),
            }
            asked.write(json.dumps({"flags": flags, "tenants": list(tenants)}) + "\n")
            asked.flush()
            return [(uses, place) for uses, place in json.loads(answered.readline())]

        yield ask


def flag(
    *, enabled: bool = True, percentage: int = 0, on: Iterable[str] = (), off: Iterable[str] = (), version: int = 1
) -> Flag:
    """A flag as a row would hold it: the disabled list wins."""
    return Flag("voice_agent_v2", enabled, percentage, frozenset(on) - frozenset(off), frozenset(off), version)


@dataclass(frozen=True, slots=True)
class Tenants:
    """Tenants of a small v1."""

    verified: list[str]
    unverified: list[str]


async def settle(database: Database, *, verified: int, unverified: int) -> Tenants:
    """A v1 with tenants in it, mapped as an installed mapping would; some of them moved and verified."""
    await change(database, "CREATE TABLE public.businesses (id uuid PRIMARY KEY, name text, vertical text)")
    await change(database, "CREATE TABLE public.voice_agent_config OF relevo.v1_config")
    await change(
        database,
        """CREATE OR REPLACE FUNCTION relevo.v1_configurations() RETURNS SETOF relevo.v1_config
           LANGUAGE sql STABLE AS 'SELECT * FROM public.voice_agent_config'""",
    )
    made = [uuid5(FAMILY, str(number)) for number in range(verified + unverified)]
    for number, tenant in enumerate(made):
        await _move_in(database, tenant, f"Negocio {number}", verified=number < verified)
    ids = [str(tenant) for tenant in made]
    return Tenants(ids[:verified], ids[verified:])


async def _move_in(database: Database, tenant: UUID, name: str, *, verified: bool) -> None:
    config = uuid5(FAMILY, name)
    await change(database, "INSERT INTO public.businesses VALUES (%s, %s, 'dental')", (tenant, name))
    await change(
        database,
        "INSERT INTO public.voice_agent_config (id, business_id, is_active) VALUES (%s, %s, true)",
        (config, tenant),
    )
    if verified:
        await change(
            database,
            """INSERT INTO public.voice_assistant_configs (id, business_id, assistant_type_id)
               VALUES (%s, %s, 'dental_basic')""",
            (config, tenant),
        )
        await change(
            database, "INSERT INTO relevo.verifications VALUES (%s, %s, 'matched', '{}', now())", (config, tenant)
        )


async def write(database: Database, assignments: str, *values: object) -> int:
    """Change the row by hand, as ``psql`` would."""
    return await change(
        database, f"UPDATE public.feature_flags SET {assignments} WHERE name = 'voice_agent_v2'", values
    )


async def row(database: Database) -> dict[str, Any]:
    """The row as it is."""
    (found,) = await rows(database, FLAG)
    return found


async def audited(database: Database) -> list[dict[str, Any]]:
    """What the audit log says of the flag, oldest first."""
    return await rows(database, AUDIT)


async def version(database: Database) -> int:
    """The row's version."""
    return int(await value(database, "SELECT version FROM public.feature_flags WHERE name = 'voice_agent_v2'"))
