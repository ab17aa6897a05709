"""Makes the v1 tables and fills them with a world, by COPY, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import scalar_row
from psycopg.sql import SQL, Identifier

from relevo.errors import Refused
from relevo.events import Progress, Sink, silent
from relevo.simulator.rows import Business, Call, Configuration
from relevo.simulator.world import World

Row = Business | Configuration | Call
Connection = AsyncConnection[Any]

_ROWS_PER_EVENT = 5_000


@dataclass(frozen=True, slots=True)
class Table:
    """A v1 table, the type of its rows, what a person calls them, and its columns' types in their order."""

    name: str
    row: type[Row]
    unit: str
    types: str

    @property
    def identifier(self) -> Identifier:
        """The table, quoted."""
        return Identifier("public", self.name)


BUSINESSES = Table("businesses", Business, "businesses", "uuid text text text text text text timestamptz")
CONFIGURATIONS = Table(
    "voice_agent_config",
    Configuration,
    "configurations",
    "uuid uuid text text text text text text bool timestamptz timestamptz",
)
CALLS = Table(
    "voice_calls",
    Call,
    "calls",
    "uuid uuid text text timestamptz timestamptz int4 int4 timestamptz",
)
TABLES = (BUSINESSES, CONFIGURATIONS, CALLS)


@dataclass(frozen=True, slots=True)
class SampleSummary:
    """How many rows were loaded, and how many of them are broken on purpose, by kind of fault."""

    businesses: int
    configurations: int
    calls: int
    broken: dict[str, int]


async def load(
    connection: Connection,
    *,
    tenants: int = 90,
    calls: int = 50_000,
    seed: int = 7,
    now: datetime,
    emit: Sink = silent,
) -> SampleSummary:
    """Fill an empty v1 database; the same ``seed`` and ``now`` give the same rows.

    All or nothing. Raises Refused where a v1 table has rows already, UsageError for impossible numbers.
    """
    world = World(tenants, calls, seed, now)
    async with connection.transaction():
        await _refuse_existing_rows(connection)
        await connection.execute(files("relevo.sql").joinpath("sample.sql").read_bytes())
        return SampleSummary(
            businesses=await _copy(connection, BUSINESSES, world.businesses(), tenants, emit),
            configurations=await _copy(
                connection, CONFIGURATIONS, world.configurations(), world.configuration_count, emit
            ),
            calls=await _copy(connection, CALLS, world.call_rows(), calls, emit),
            broken=world.faults.counts(),
        )


async def _refuse_existing_rows(connection: Connection) -> None:
    for table in TABLES:
        if await _has_rows(connection, table):
            raise Refused(
                f"table {table.name} already has rows",
                fix="Load the sample into an empty database; it never mixes with data that is there.",
            )


async def _has_rows(connection: Connection, table: Table) -> bool:
    """False also where the table does not exist."""
    async with connection.cursor(row_factory=scalar_row) as cursor:  # whatever rows the connection gives
        await cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [f"public.{table.name}"])
        if not await cursor.fetchone():
            return False
        await cursor.execute(SQL("SELECT EXISTS (SELECT FROM {})").format(table.identifier))
        return bool(await cursor.fetchone())


async def _copy(connection: Connection, table: Table, rows: Iterable[Row], total: int, emit: Sink) -> int:
    """How many rows went in. Binary, because writing times as text costs as much as making the rows up."""
    columns = SQL(", ").join(map(Identifier, table.row._fields))
    statement = SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(table.identifier, columns)
    done = 0
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(table.types.split())
        for done, row in enumerate(rows, 1):
            await copy.write_row(row)
            if done % _ROWS_PER_EVENT == 0 and done < total:
                emit(Progress(done, total, table.unit))
    emit(Progress(done, total, table.unit))
    return done
