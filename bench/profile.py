"""Where the time of the copy goes, per row: by function, by part of the statement, and outside of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from bench.figures import in_turn
from bench.move import STEP
from bench.place import Place
from bench.steps import measured
from relevo.clock import system_clock
from relevo.db.pool import Database, one
from relevo.db.statements import statement
from relevo.migration.mapping import DEFAULT
from relevo.migration.run import Options
from relevo.migration.steps.copy import derive_from_batch

SMALL, LARGE = 100, 1_000  # batch sizes whose difference tells what a batch costs whatever its size
_LEAST_US = 0.5  # what costs less is not listed
_NOBODY = UUID(int=0)

_FUNCTIONS = """
    SELECT schemaname || '.' || funcname, self_time FROM pg_stat_user_functions ORDER BY self_time DESC
"""
_HASH = "SELECT max(encode(sha256(convert_to(system_prompt, 'UTF8')), 'hex')) FROM voice_agent_config"
_NO_HASH = "SELECT max(octet_length(system_prompt)) FROM voice_agent_config"


@dataclass(frozen=True, slots=True)
class Share:
    """What one thing costs, of one row."""

    kind: str  # function, statement, trigger, step
    name: str
    microseconds: float


async def profile(place: Place, rows: int) -> list[Share]:
    """Shares, dearest first within their kind. Functions are counted while they are watched, which costs a little."""
    async with place.v1(rows) as v1:
        sizes = await in_turn(3, {size: partial(_step_s, place, v1, size) for size in (SMALL, LARGE)})
        parts = await _parts(place, v1)
        return [*_outside(sizes, rows), *parts, _hash(place, v1, rows), *await _functions(place, v1, rows)]


async def _step_s(place: Place, v1: str, size: int) -> float:
    with place.clone(v1) as database:
        watch = await measured(place.url(database), Options(skip_backup=True, batch_size=size), until=STEP)
    return watch.took_s[STEP]


def _outside(sizes: dict[int, float], rows: int) -> Iterator[Share]:
    """What a batch costs by being one, from the difference of two sizes."""
    for size, seconds in sizes.items():
        yield Share("step", f"all, batches of {size:,}", seconds * 1e6 / rows)
    batch_s = (sizes[SMALL] - sizes[LARGE]) / (rows / SMALL - rows / LARGE)
    yield Share("step", f"each batch by itself ({batch_s * 1e3:.1f} ms), batches of {SMALL:,}", batch_s * 1e6 / SMALL)


async def _functions(place: Place, v1: str, rows: int) -> list[Share]:
    with place.clone(v1) as database:
        with psycopg.connect(place.url("postgres"), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {database} SET track_functions = 'all'".encode())
        await measured(place.url(database), Options(skip_backup=True, batch_size=LARGE), until=STEP)
        with psycopg.connect(place.url(database)) as connection:
            found = connection.execute(_FUNCTIONS).fetchall()
    return [Share("function", name, ms * 1e3 / rows) for name, ms in found]


def _hash(place: Place, v1: str, rows: int) -> Share:
    """Hashing, from the difference of two queries that read the same prompts."""
    with psycopg.connect(place.url(v1)) as connection:
        took_ms = [
            min(
                connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}".encode()).fetchall()[0][0][0][
                    "Execution Time"
                ]
                for _ in range(3)
            )
            for query in (_HASH, _NO_HASH)
        ]
    return Share("function", "sha256, encode and convert_to", (took_ms[0] - took_ms[1]) * 1e3 / rows)


async def _parts(place: Place, v1: str) -> list[Share]:
    """The statement of the second large batch, node by node, each without what is below it. The first would mislead:
    it is planned for an empty v2."""
    limits = {"tenant_ids": None, "config_ids": None, "until": None, "batch_size": LARGE}
    parameters = {**limits, "rule_version": 1, "run_id": _NOBODY, "now": system_clock()}
    query = statement("migration", "copy_batch", derive=derive_from_batch(DEFAULT), **DEFAULT.fill())
    with place.clone(v1) as name:
        async with Database(place.url(name)) as database, database.transaction() as connection:
            first = await one(connection, query, {**parameters, "after": None})
            plan, again = [
                (await one(connection, explain.format(query), {**parameters, "after": first["last"]}))["QUERY PLAN"][0]
                for explain in (
                    sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) {}"),
                    sql.SQL("EXPLAIN (SUMMARY, FORMAT JSON) {}"),
                )
            ]
    spent: defaultdict[tuple[str, str], float] = defaultdict(float)
    for name, ms in _own_ms(plan["Plan"]):
        spent["statement", name] += ms
    for trigger in plan["Triggers"]:
        spent["trigger", trigger.get("Constraint Name", trigger["Trigger Name"])] += trigger["Time"]
    dearest = sorted(spent.items(), key=lambda each: -each[1])
    shares = [Share(kind, name, ms * 1e3 / LARGE) for (kind, name), ms in dearest if ms * 1e3 / LARGE >= _LEAST_US]
    planning = again["Planning Time"] * 1e3 / SMALL  # the first time it also reads the catalogue
    return [*shares, Share("statement", f"planning, once per batch of {SMALL:,}", planning)]


def _own_ms(plan: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """What each node of a plan took without what is below it. A CTE is worked out while it is first read, so what it
    took is taken off the dearest of its readers."""
    nodes = list(_nodes(plan))
    ctes = {node["Subplan Name"]: _all_ms(node) for node in nodes if _is_cte(node)}
    readers: dict[str, dict[str, Any]] = {}
    for node in nodes:
        if node["Node Type"] == "CTE Scan":
            cte = f"CTE {node['CTE Name']}"
            readers[cte] = max(readers.get(cte, node), node, key=_all_ms)
    for node in nodes:
        below = sum(_all_ms(child) for child in node.get("Plans", ()) if not _is_cte(child))
        below += sum(ctes[cte] for cte, reader in readers.items() if reader is node)
        yield _name(node), max(0.0, _all_ms(node) - below)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _is_cte(node: dict[str, Any]) -> bool:
    return str(node.get("Subplan Name", "")).startswith("CTE ")


def _all_ms(node: dict[str, Any]) -> float:
    took: float = node["Actual Total Time"] * node["Actual Loops"]
    return took


def _name(node: dict[str, Any]) -> str:
    kind = node.get("Operation", "") + " " + node["Node Type"]
    of = node.get("Relation Name") or node.get("CTE Name") or node.get("Function Name") or node.get("Subplan Name")
    return f"{kind.strip()} {of or ''}".strip()


def told(shares: list[Share]) -> str:
    """The shares as aligned text."""
    width = max(len(share.name) for share in shares)
    lines = [f"{share.kind:<10}{share.name:<{width}}{share.microseconds:>9.1f} µs/row" for share in shares]
    return "\n".join(lines)
