"""What this process knows of configurations and keys: always at hand, so that a call is answered without a query.

Compared with the database every few seconds by digests; what differs is read anew, in slices, between which calls are
answered. Without its database a process goes on with what it knew last: numbers, tenants, and what either version last
said.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
import structlog
from psycopg import AsyncCursor
from psycopg.rows import DictRow

from relevo.clock import Clock
from relevo.db.deadlines import Deadlines
from relevo.db.pool import Database, every, one
from relevo.db.statements import statement
from relevo.errors import RelevoError
from relevo.metrics.record import Version
from relevo.webhooks.answers import House, Said, Template, assistant, template
from relevo.webhooks.identify import Directory, Entry
from relevo.webhooks.pin import Keys

REFRESH_EVERY_S = 5.0
IDLE = 20  # times as long as reading the directory took, at least: on a large platform it must not become the work
HEARD_AT_FIRST = 2_000  # configurations; whoever calls one of the others before it was heard waits for a query
_READ_WITHIN_S = 60.0  # the directory; a database that is silent for longer is given up
_SAID_WITHIN_S = 2.0  # to a caller who waits for it
_AGAIN_AFTER_S = 0.5  # a stranger may be new: look, but not more often than this
_BATCH = 200  # configurations that are asked for together
_SLICE = 50  # rows that are taken in at a time: a caller waits for as long as they take
_TEMPLATES = 4_000  # kept at most; each lasts a minute

_AWAY = (RelevoError, psycopg.Error, TimeoutError)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Heard:
    """What both versions say of one configuration, as of one stamp."""

    tenant_id: str
    stamp: str
    v1: Said | None
    v2: Said | None  # None: there is no row, or it cannot be rendered


class Known:
    """See the module. ``keep_fresh`` must be running."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self.directory = Directory()
        self.keys = Keys({})
        self.read = False
        """Whether the directory has been read at least once."""
        self.v1_retired = False
        """Whether v1 answers nobody any more, not even in v2's place."""
        self._digests: dict[int, int] = {}  # of the buckets
        self._buckets: dict[int, dict[str, Entry]] = {}  # by their ids
        self._to_hear: dict[str, Entry] = {}
        self._heard: dict[str, _Heard] = {}
        self._templates: dict[tuple[str, Version, str, int], Template] = {}
        self._refreshing = asyncio.Lock()
        self._deadlines = Deadlines()
        self._looking: asyncio.Task[None] | None = None
        self._read_at_s = float("-inf")  # of the loop's clock
        self._reading_took_s = 0.0

    async def keep_fresh(self) -> None:
        """Read again and again. Never returns."""
        try:
            while True:
                await self.refresh()
                await asyncio.sleep(max(REFRESH_EVERY_S, IDLE * self._reading_took_s))
        finally:
            if self._looking is not None:
                self._looking.cancel()

    async def refresh(self, *, hear_at_most: int | None = None) -> bool:
        """Read what changed; False where the database could not be read: what was known stays. ``hear_at_most``: of so
        many configurations what is said to callers; None: of all."""
        try:
            async with self._refreshing:  # whoever looks for a number waits for this, and not for the hearing
                try:
                    await self._deadlines.wait(self._read(), _READ_WITHIN_S)
                finally:
                    self._read_at_s = asyncio.get_running_loop().time()
            await self._hear(hear_at_most)
        except _AWAY as error:
            _log.warning("configurations not read", error=type(error).__name__)
            return False
        return True

    async def finish(self) -> None:
        """Wait for what was given up."""
        await self._deadlines.finish()

    async def look_again(self) -> None:
        """Read again because somebody asks for what is not known; not more often than makes sense. It goes on where
        they cannot wait for it, for they may call again."""
        asked_s = asyncio.get_running_loop().time()
        if asked_s - self._read_at_s < _AGAIN_AFTER_S:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(asked_s))
        await asyncio.shield(self._looking)

    async def _look(self, asked_s: float) -> None:
        async with self._refreshing:
            pass  # somebody may be reading just now, and what they find is as good
        if self._read_at_s < asked_s:
            await self.refresh(hear_at_most=0)

    def has_heard(self, entry: Entry) -> bool:
        """Whether what is said to callers of a configuration is at hand."""
        heard = self._heard.get(entry.config_id)
        return heard is not None and heard.tenant_id == entry.tenant_id  # or it would be another tenant's

    async def said(self, entry: Entry, version: Version) -> Said | None:
        """What a version says to callers of a configuration; None where it has nothing to say."""
        if not self.has_heard(entry):
            with contextlib.suppress(*_AWAY):
                await self._deadlines.wait(self._listen([entry]), _SAID_WITHIN_S)
        if not self.has_heard(entry):
            return None
        heard = self._heard[entry.config_id]
        return heard.v1 if version == "v1" else heard.v2

    async def template(self, entry: Entry, version: Version, house: House, now: datetime) -> Template | None:
        """The answer that a version gives, made once a minute; None where it has nothing to say."""
        said = await self.said(entry, version)
        if said is None or not said.system_prompt:
            return None
        stamp = self._heard[entry.config_id].stamp
        key = (entry.config_id, version, f"{stamp} {house.url}", int(now.timestamp() // 60))
        found = self._templates.get(key)
        if found is None:
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()
            found = self._templates[key] = template(assistant(said, entry, version, house, now), house)
        return found

    def of_tenant(self, tenant_id: str | None) -> Entry | None:
        """A tenant's configuration, an active one where there is one."""
        entries = self.directory.by_tenant.get(tenant_id or "", ())
        return next((entry for entry in entries if entry.active), entries[0] if entries else None)

    async def _read(self) -> None:
        began_s = asyncio.get_running_loop().time()
        async with self._database.transaction(read_only=True, snapshot=True) as connection:
            keys = await every(connection, statement("router", "keys"))
            retired = await one(connection, statement("router", "retired"))
            now = self._clock()
            rows = await every(connection, statement("router", "directory_digests"), {"now": now})
            digests = {row["bucket"]: row["digest"] for row in rows}
            differ = [each for each in digests | self._digests if digests.get(each) != self._digests.get(each)]
            fresh: dict[int, dict[str, Entry]] = {bucket: {} for bucket in differ}
            if differ:
                found = await connection.execute(statement("router", "directory"), {"now": now, "buckets": differ})
                async for row in _in_slices(found):
                    fresh[row["bucket"]][row["config_id"]] = _entry(row)
        if differ:
            await self._take_in(fresh)
        self.v1_retired = retired["v1"]
        self.keys = Keys({row["id"]: bytes(row["secret"]) for row in keys})
        self._digests = digests
        self.read = True
        self._reading_took_s = asyncio.get_running_loop().time() - began_s

    async def _take_in(self, fresh: dict[int, dict[str, Entry]]) -> None:
        """The buckets that are no longer what they were; the whole directory is replaced at once."""
        buckets = self._buckets | fresh
        made = Directory()
        for bucket in buckets.values():
            made.add(bucket.values())
            await asyncio.sleep(0)
        for number, bucket in fresh.items():
            for gone in self._buckets.get(number, {}).keys() - bucket.keys():
                self._heard.pop(gone, None)
                self._to_hear.pop(gone, None)
            self._to_hear |= bucket
        self._buckets, self.directory = buckets, made

    async def _hear(self, at_most: int | None) -> None:
        stale = [entry for entry in self._to_hear.values() if not self._is_fresh(entry)]
        self._to_hear = {entry.config_id: entry for entry in stale}
        wanted = stale[:at_most]
        for start in range(0, len(wanted), _BATCH):
            await self._listen(some := wanted[start : start + _BATCH])
            for entry in some:
                if self._to_hear.get(entry.config_id) is entry:  # else it has changed meanwhile
                    del self._to_hear[entry.config_id]

    def _is_fresh(self, entry: Entry) -> bool:
        heard = self._heard.get(entry.config_id)
        return heard is not None and heard.stamp == entry.stamp

    async def _listen(self, entries: Sequence[Entry]) -> None:
        """Hear what both versions say. One that cannot be rendered does not keep the others from being heard."""
        try:
            heard = await self._said(entries, render=True)
        except (psycopg.DataError, psycopg.ProgrammingError, psycopg.InternalError):
            if len(entries) > 1:
                for entry in entries:
                    await self._listen([entry])
                return
            _log.error("v2 cannot be rendered", config_id=entries[0].config_id)
            heard = await self._said(entries, render=False)
        self._heard |= heard

    async def _said(self, entries: Sequence[Entry], *, render: bool) -> dict[str, _Heard]:
        by_id = {entry.config_id: entry for entry in entries}
        wanted = {"config_ids": list(by_id), "render": render}
        async with self._database.transaction(read_only=True) as connection:
            found = await connection.execute(statement("router", "said"), wanted)
            return {row["config_id"]: _heard(by_id[row["config_id"]], row) async for row in _in_slices(found)}


async def _in_slices(found: AsyncCursor[DictRow]) -> AsyncIterator[DictRow]:
    while rows := await found.fetchmany(_SLICE):
        for row in rows:
            yield row
        await asyncio.sleep(0)


def _entry(row: DictRow) -> Entry:
    return Entry(**{**row, "number_ids": tuple(row["number_ids"])})


def _heard(entry: Entry, row: DictRow) -> _Heard:
    v1 = Said(row["v1_name"], row["v1_prompt"], row["v1_first_message"], row["v1_voice_id"]) if row["in_v1"] else None
    v2 = None
    if row["in_v2"] and row["v2_prompt"] is not None:
        v2 = Said(
            row["v2_name"],
            row["v2_prompt"],
            row["v2_first_message"],
            row["v2_voice_id"],
            row["v2_voice_speed"],
            tuple(row["capabilities"]),
        )
    return _Heard(entry.tenant_id, entry.stamp, v1, v2)
