"""All tenants by name, with what their states follow from: in memory, so that a page of 100,000 is found at once.

Who is on v2 is told from the flag's row at each look. The rows of a page are read anew: only who is on it may be older.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from psycopg.rows import tuple_row

from relevo.dashboard.house import House
from relevo.db.statements import statement
from relevo.flags.evaluate import VOICE_AGENT_V2, Flag, decide
from relevo.flags.writing import flag_of

_AT_ONCE = 2_000  # rows taken at a time, so that others are answered in between
_LISTS_KEPT = 32


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tenants are asked for."""

    state: str | None = None
    on_v2: bool | None = None
    word: str | None = None  # part of a name, whatever its case and accents, or the beginning of an id


@dataclass(frozen=True, slots=True)
class Directory:
    """Tenants by name; those without one last. The lists go together."""

    ids: list[str]
    names: list[str]  # folded
    states: list[str]  # "verified" stands for live as well
    configs: list[str]  # their configurations' ids, separated by spaces
    percentiles: list[int | None]  # None: nobody is chosen by hash
    found: OrderedDict[tuple[int, Wanted], Sequence[int]] = field(default_factory=OrderedDict)

    def places(self, flag: Flag, wanted: Wanted, folded: str) -> Sequence[int]:
        """The places of those wanted, by the flag as it is now. ``folded``: the word as names are."""
        kept = self.found.get((flag.version, wanted))
        if kept is None:
            kept = self.found[flag.version, wanted] = self._search(flag, wanted, folded)
            if len(self.found) > _LISTS_KEPT:
                self.found.popitem(last=False)
        return kept

    def _search(self, flag: Flag, wanted: Wanted, folded: str) -> Sequence[int]:
        found: Sequence[int] = range(len(self.ids))
        if wanted.word is not None:
            begins = wanted.word.lower()
            found = [at for at in found if folded in self.names[at] or self.ids[at].startswith(begins)]
        if wanted.state not in (None, "live", "verified"):
            found = [at for at in found if self.states[at] == wanted.state]
        elif wanted.state is not None:
            live = wanted.state == "live"
            found = [at for at in found if self.states[at] == "verified" and self._on_v2(flag, at) == live]
        if wanted.on_v2 is not None:
            found = [at for at in found if self._on_v2(flag, at) == wanted.on_v2]
        return found

    def _on_v2(self, flag: Flag, at: int) -> bool:
        # Percentiles are read only where some are below the percentage and some are not; else any would do.
        return decide(flag, self.ids[at], self.percentiles[at] or 0)[0]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of those found."""

    ids: list[UUID]
    configs: list[UUID]
    many: int  # found in all
    flag: Flag  # as it is now
    at: datetime  # who is on it, and in which state they were looked for, is as of then


async def page(house: House, wanted: Wanted, *, most: int, skip: int) -> Page:
    """Some of the tenants wanted, by name."""
    flag, folded = await _asked(house, wanted)
    by_hash = 0 < flag.percentage < 100

    async def read() -> tuple[Directory, int]:
        directory = await _read(house, by_hash)
        return directory, len(directory.ids)

    known = await house.remembered.get("directory", by_hash, read)
    found = known.what.places(flag, wanted, folded)
    shown = found[skip : skip + most]
    configs = [UUID(config) for at in shown for config in known.what.configs[at].split()]
    return Page([UUID(known.what.ids[at]) for at in shown], configs, len(found), flag, known.at)


async def _asked(house: House, wanted: Wanted) -> tuple[Flag, str]:
    """The flag as it is now, its lists fetched only where this process has an older one; and the word, folded."""
    asked = {"word": wanted.word or "", "name": VOICE_AGENT_V2}
    rows = await house.database.alone(statement("dashboard", "folded"), asked)
    flag = house.flags.flag
    if not rows or flag.version != rows[0]["version"]:
        found = await house.database.alone(statement("flags", "flag"), asked)
        flag = flag_of(found[0] if found else None)
    return flag, rows[0]["folded"]


async def _read(house: House, by_hash: bool) -> Directory:
    rows = house.mapping.fill()
    query = statement("dashboard", "directory", tenants=rows["tenants"], configurations=rows["configurations"])
    directory = Directory([], [], [], [], [])
    async with (
        house.database.transaction(read_only=True) as connection,
        connection.cursor("directory", row_factory=tuple_row) as cursor,
    ):
        await cursor.execute(query, {"by_hash": by_hash})
        while part := await cursor.fetchmany(_AT_ONCE):
            for tenant, name, state, configs, percentile in part:
                directory.ids.append(tenant)
                directory.names.append(name)
                directory.states.append(state)
                directory.configs.append(configs)
                directory.percentiles.append(percentile)
            await asyncio.sleep(0)
    return directory
