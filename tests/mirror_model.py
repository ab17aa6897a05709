"""Writers of both sides at once, and a model of what they were promised: every acknowledged write, and which of those
on one field may be the last."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors

TABLES = {"v1": "public.voice_agent_config", "v2": "public.voice_assistant_configs"}
UNIQUE = ("phone_number_id", "vapi_assistant_id", "voice_id")  # fields that are given a value that nobody else writes
WRITERS = {"v1": "writes_v1", "v2": "writes_v2"}  # the role of each side: no owner, under row level security
LEVELS = ("READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
PROMPT = "Toma reservaciones y pedidos del menú. ## Instrucciones especiales\nNota {}"

# How a transaction may end that was not acknowledged: others were faster, or it was killed.
LOST_RACES = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.AdminShutdown,
    psycopg.OperationalError,
)


@dataclass(frozen=True, slots=True)
class Write:
    """One field of one configuration, as a transaction left it."""

    value: Any
    side: str
    began: float
    ended: float  # when the commit was acknowledged; infinite: nobody knows whether it was made


@dataclass(slots=True)
class History:
    """All that was acknowledged, or may have been made."""

    writes: dict[tuple[UUID, str], list[Write]] = field(default_factory=lambda: defaultdict(list))
    born: dict[UUID, bool] = field(default_factory=dict)  # whether it was acknowledged
    deleted: dict[UUID, bool] = field(default_factory=dict)
    rows: int = 0

    def last(self, config: UUID, name: str) -> set[Any]:
        """The values that may be the last: written by those that no other acknowledged write followed. Empty: whatever
        was there before, for no write is known to have been made."""
        written = self.writes.get((config, name), [])
        sure = [each for each in written if each.ended < math.inf]
        if not sure:
            return set()
        return {each.value for each in written if not any(each.ended <= other.began for other in sure)}


@dataclass(slots=True)
class Deed:
    """What one transaction did so far."""

    values: dict[tuple[UUID, str], tuple[Any, float]] = field(default_factory=dict)
    born: list[UUID] = field(default_factory=list)
    deleted: list[UUID] = field(default_factory=list)
    rows: int = 0


class Writer:
    """A connection of one side's role, doing random transactions."""

    def __init__(self, url: str, side: str, name: str, chance: random.Random, history: History) -> None:
        self.url = url.replace("//relevo_owner@", f"//{WRITERS[side]}@")
        self.side, self.name, self.chance, self.history = side, name, chance, history
        self.count = 0
        self.connection: psycopg.AsyncConnection[Any] | None = None

    async def work(self, transactions: int, configs: list[UUID], tenants: list[UUID]) -> None:
        """Some transactions, one after the other; those that lose a race are given up."""
        for _ in range(transactions):
            if self.connection is None or self.connection.closed:
                self.connection = await psycopg.AsyncConnection.connect(self.url, autocommit=True)
            deed, committing = Deed(), False
            try:
                await self._begin()
                for _ in range(self.chance.randint(1, 3)):
                    await self._statement(deed, configs, tenants)
                    if self.chance.random() < 0.2:
                        await asyncio.sleep(self.chance.random() * 0.05)  # open while others write
                committing = self.chance.random() < 0.85
                await self.connection.execute("COMMIT" if committing else "ROLLBACK")
            except LOST_RACES:
                if self.connection.closed:
                    if committing:
                        self._remember(deed, math.inf)
                else:
                    with suppress(psycopg.OperationalError):  # killed only now
                        await self.connection.execute("ROLLBACK")
            else:
                if committing:
                    self._remember(deed, time.monotonic())

    async def close(self) -> None:
        """Go away."""
        if self.connection is not None:
            await self.connection.close()

    async def _begin(self) -> None:
        assert self.connection is not None
        await self.connection.execute(f"BEGIN ISOLATION LEVEL {self.chance.choice(LEVELS)}".encode())
        await self.connection.execute("SET LOCAL lock_timeout = '300ms'")

    async def _statement(self, deed: Deed, configs: list[UUID], tenants: list[UUID]) -> None:
        self.count += 1
        value = f"{self.name}-{self.count}"
        some = self.chance.sample(configs, min(len(configs), self.chance.choice((1, 2, 10, 60, 150))))
        if self.chance.random() < 0.3:
            some = configs[: self.chance.randint(1, 4)]  # where everybody is
        choice = self.chance.random()
        if choice < 0.70:
            await self._update(deed, self.chance.choice(UNIQUE), value, some)
        elif choice < 0.85:
            await self._update_other(deed, value, some)
        elif choice < 0.95:
            await self._insert(deed, self.chance.choice(tenants), value)
        else:
            await self._delete(deed, some[:1])

    async def _update(self, deed: Deed, name: str, value: str, some: list[UUID]) -> None:
        began = time.monotonic()
        query = f"""UPDATE {TABLES[self.side]} SET {name} = %s, updated_at = clock_timestamp()
                    WHERE id = ANY (%s) RETURNING id"""
        for config in await self._run(query, value, sorted(some)):
            deed.values[config, name] = (value, began)
            deed.rows += 1

    async def _update_other(self, deed: Deed, value: str, some: list[UUID]) -> None:
        """What is inferred from v1, or v2's own."""
        changes = {
            "v1": ("system_prompt = %s", PROMPT.format(value)),
            "v2": ("special_instructions = %s", value),
        }
        assignment, content = changes[self.side]
        query = f"UPDATE {TABLES[self.side]} SET {assignment} WHERE id = ANY (%s) RETURNING id"
        deed.rows += len(await self._run(query, content, some[:5]))

    async def _insert(self, deed: Deed, tenant: UUID, value: str) -> None:
        began = time.monotonic()
        of_v2 = ("", "") if self.side == "v1" else (", assistant_type_id", ", 'rest_basic'")
        query = f"""INSERT INTO {TABLES[self.side]} (id, business_id, phone_number_id{of_v2[0]})
                    SELECT gen_random_uuid(), %s, %s{of_v2[1]} FROM generate_series(1, 3) RETURNING id"""
        for config in await self._run(query, tenant, value):
            deed.born.append(config)
            deed.values[config, "phone_number_id"] = (value, began)
            deed.rows += 1

    async def _delete(self, deed: Deed, some: list[UUID]) -> None:
        deed.deleted += await self._run(f"DELETE FROM {TABLES[self.side]} WHERE id = ANY (%s) RETURNING id", some)
        deed.rows += 1

    async def _run(self, query: str, *values: Any) -> list[UUID]:
        assert self.connection is not None
        return [row[0] for row in await (await self.connection.execute(query.encode(), values)).fetchall()]

    def _remember(self, deed: Deed, ended: float) -> None:
        sure = ended < math.inf
        for (config, name), (value, began) in deed.values.items():
            self.history.writes[config, name].append(Write(value, self.side, began, ended))
        self.history.born.update(dict.fromkeys(deed.born, sure))
        self.history.deleted.update(
            {config: sure or self.history.deleted.get(config, False) for config in deed.deleted}
        )
        self.history.rows += deed.rows if sure else 0
