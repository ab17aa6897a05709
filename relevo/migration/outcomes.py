"""Which outcomes a platform's calls may be given: its own column may have a type and CHECKs of its own words.

Such a CHECK is respected and reported, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import sql

from relevo.db.pool import Connection, every, first, one
from relevo.db.statements import statement
from relevo.migration.mapping import Source, SourceMapping
from relevo.migration.run import Work


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the outcome column of a table takes."""

    calls: Source
    type: str  # of the column
    words: list[str] | None  # those that it takes, of all that calls would get; None: any
    refused: Mapping[str, int]  # word -> calls that would get it, and keep none

    @property
    def refused_calls(self) -> int:
        """How many calls keep no outcome."""
        return sum(self.refused.values())

    @property
    def taken(self) -> dict[str, Any]:
        """The parameter that leaves the refused words out."""
        return {"words": self.words}

    @classmethod
    async def of(cls, work: Work) -> Outcomes:
        """Ask the database, in a transaction of its own."""
        async with work.database.transaction(read_only=True) as connection:
            return await inspect(connection, work.mapping, work.run.tenant_ids)

    def batch(self, leaf: sql.Identifier) -> sql.Composed:
        """The statement that gives outcomes to the calls of some pages."""
        return statement("migration", "outcome_batch", leaf=leaf, type=sql.SQL(self.type), **self._read())

    async def remaining(self, work: Work) -> int:
        """Calls that could have an outcome and have none."""
        async with work.database.transaction(read_only=True) as connection:
            return await self.count(connection, work.run.tenant_ids)

    async def count(self, connection: Connection, tenant_ids: Sequence[UUID] | None) -> int:
        """The same, on a connection that is open already."""
        read = self._read()
        read.pop("id")
        query = statement("migration", "calls_without_outcome", calls_table=self.calls.relation, **read)
        row = await one(connection, query, {"tenant_ids": _listed(tenant_ids), **self.taken})
        return int(row["many"])

    def _read(self) -> dict[str, sql.Composable]:
        return {name: self.calls.read(name) for name in ("status", "business_id", "id")}


async def inspect(connection: Connection, mapping: SourceMapping, tenant_ids: Sequence[UUID] | None) -> Outcomes:
    """What the outcome column takes; a column that is not there yet will take anything."""
    calls = mapping.calls
    where = {"schema": calls.schema, "table": calls.table}
    column = await first(connection, statement("migration", "outcome_column"), where)
    if column is None or (column["type"] == "text" and not column["checks"]):
        return Outcomes(calls, "text", None, {})
    query = statement("migration", "outcome_words", calls_with_outcome=calls.rows(also=("outcome",)))
    found = await every(connection, query, {"tenant_ids": _listed(tenant_ids)})
    words = {row["word"]: row["many"] for row in found}
    checks = [
        sql.SQL("coalesce(({}), true)").format(sql.SQL(check.replace("%", "%%"))) for check in column["checks"] or []
    ]
    query = statement(
        "migration",
        "words_taken",
        type=sql.SQL(column["type"]),
        checks=sql.SQL(" AND ").join(checks) if checks else sql.SQL("true"),
    )
    taken = (await one(connection, query, {"words": list(words), "labels": column["words"]}))["words"] or []
    refused = {word: many for word, many in words.items() if word not in taken}
    return Outcomes(calls, column["type"], taken, refused)


def _listed(tenant_ids: Sequence[UUID] | None) -> list[UUID] | None:
    return list(tenant_ids) if tenant_ids is not None else None
