"""What each stage of the cleanup does to v1, in the transaction of whoever runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from psycopg import sql

from relevo.cleanup import archive
from relevo.db.pool import Connection, every, first, one
from relevo.db.statements import identifier, statement
from relevo.errors import MoveFailed, Refused, UsageError
from relevo.migration import mirror
from relevo.migration.steps.backup import copy_of

_ENDING = "_deprecated"
_ARCHIVED = ("relevo.config_origins", "relevo.deleted_configs")


@dataclass(frozen=True, slots=True)
class Place:
    """Where v1's table is, under both its names."""

    schema: str
    name: str

    @property
    def kept(self) -> str:
        """Its name once deprecated: PostgreSQL counts bytes, and cuts after 63."""
        return self.name.encode()[: 63 - len(_ENDING)].decode(errors="ignore") + _ENDING

    @property
    def old(self) -> sql.Identifier:
        """Under its own name."""
        return identifier(self.schema, self.name)

    @property
    def new(self) -> sql.Identifier:
        """Under the name of a deprecated one."""
        return identifier(self.schema, self.kept)


async def table_of(connection: Connection, place: Place, *, deprecated: bool) -> Mapping[str, Any] | None:
    """v1's table as it is called now; None where there is none."""
    names = (place.kept, place.name) if deprecated else (place.name, place.kept)
    where = {"schema": place.schema, "table": names[0], "other": names[1]}
    return await first(connection, statement("cleanup", "table"), where)


@dataclass(frozen=True, slots=True)
class Work:
    """A stage under way."""

    connection: Connection
    place: Place
    now: datetime
    kept: timedelta
    file: Path | None
    url: str

    async def run(self, name: str, params: Mapping[str, Any] | None = None, **fill: sql.Composable) -> None:
        """One statement of the cleanup."""
        await self.connection.execute(statement("cleanup", name, **fill), dict(params or {}))

    @property
    def named(self) -> sql.Literal:
        """v1's table as people are told of it."""
        return sql.Literal(f"{self.place.schema}.{self.place.name}".replace("%", "%%"))

    async def oid(self, *, deprecated: bool) -> int:
        """v1's table. Raises Refused where it is gone."""
        table = await table_of(self.connection, self.place, deprecated=deprecated)
        if table is None:
            raise Refused("v1's table is not there", fix="see: relevo cleanup")
        return int(table["oid"])


async def _retire(_doing: Work) -> dict[str, Any]:
    """The stage's row is what everybody goes by: the trigger on the flag, and the router."""
    return {}


async def _deprecate(doing: Work) -> dict[str, Any]:
    place, oid = doing.place, await doing.oid(deprecated=False)
    only_on_v1 = await one(doing.connection, statement("cleanup", "only_on_v1"))
    await mirror.drop_triggers(doing.connection)
    grants = await every(doing.connection, statement("cleanup", "grants"), {"oid": oid})
    reads = await one(doing.connection, statement("cleanup", "reads"), {"oid": oid})
    await doing.run("rename", table=place.old, to=sql.Identifier(place.kept.replace("%", "%%")))
    for name in ("refuse_writes", "refuse_truncate"):
        await doing.run(name, table=place.new, told=doing.named)
    await doing.run("always_refuse", table=place.new)
    await doing.run("stand_in", view=place.old, table=place.new)
    await _open_as_before(doing, grants)
    return {"only_on_v1": [str(each) for each in only_on_v1["ids"]], "reads": reads["reads"], "grants": len(grants)}


async def _open_as_before(doing: Work, grants: list[dict[str, Any]]) -> None:
    """The view that stands in is known as ours, and open to whom the table was."""
    await doing.run("explain", view=doing.place.old)
    for row in grants:
        grantee = sql.SQL("PUBLIC") if row["grantee"] == "PUBLIC" else sql.Identifier(row["grantee"])
        await doing.run("grant", privilege=sql.SQL(row["privilege"]), view=doing.place.old, grantee=grantee)


async def take_writes_again(connection: Connection, place: Place) -> None:
    """Undo stage deprecate but for dual write: the table has its name again, and takes writes."""
    await connection.execute(statement("cleanup", "drop_view", view=place.old), {})
    for name in ("write_again", "truncate_again"):
        await connection.execute(statement("cleanup", name, table=place.new), {})
    to = sql.Identifier(place.name.replace("%", "%%"))
    await connection.execute(statement("cleanup", "rename", table=place.new, to=to), {})


async def _drop(doing: Work) -> dict[str, Any]:
    if doing.file is None:
        raise UsageError("the final backup needs a file", fix="name one that is kept: --archive FILE")
    await doing.run("hold", table=doing.place.new)
    tables = {doing.place.new.as_string(): doing.place.new} | {each: identifier(*each.split(".")) for each in _ARCHIVED}
    server = await one(doing.connection, statement("cleanup", "server"))
    made = await archive.export(doing.url, list(tables), doing.file, server["major"])
    try:
        counted = {_plain(name): await _rows(doing, table) for name, table in tables.items()}
        exported = {_plain(name): rows for name, rows in made.rows.items()}
        if exported != counted:
            raise MoveFailed(
                f"the export holds {exported}, and the tables {counted}", fix="nothing was dropped; try again"
            )
        await _bury(doing)
    except BaseException:
        archive.remove(doing.file)  # nothing was dropped, so it is no final backup
        raise
    return {"archive": made.file, "sha256": made.sha256, "rows": counted}


async def _rows(doing: Work, table: sql.Identifier) -> int:
    return int((await one(doing.connection, statement("cleanup", "rows", table=table)))["rows"])


def _plain(name: str) -> str:
    """A table's name as people write it, however PostgreSQL quotes it."""
    return name.replace('"', "")


async def _bury(doing: Work) -> None:
    """The table goes; in its place stands what tells of it."""
    place, oid = doing.place, await doing.oid(deprecated=True)
    columns = await every(doing.connection, statement("cleanup", "columns"), {"oid": oid})
    grants = await every(doing.connection, statement("cleanup", "grants"), {"oid": oid})
    await doing.run("drop_view", view=place.old)
    await doing.run("drop_table", table=place.new)
    empty = [
        sql.SQL("NULL::{} AS {}").format(sql.SQL(row["type"].replace("%", "%%")), identifier(row["name"]))
        for row in columns
    ]
    await doing.run("tombstone", view=place.old, columns=sql.SQL(", ").join(empty), told=doing.named)
    await _open_as_before(doing, grants)
    await doing.run("forget_prompts")
    await doing.run("forget_deleted")


async def _drop_backups(doing: Work) -> dict[str, Any]:
    before = {"before": doing.now - doing.kept}
    dropped = []
    for row in await every(doing.connection, statement("cleanup", "backups_before"), before):
        for recorded in row["contents"].values():
            await doing.run("drop_copy", copy=copy_of(recorded))
        await doing.run("forget_backup", {"id": row["id"]})
        dropped.append(str(row["id"]))
    return {"backups": dropped}


STEPS: Mapping[str, Callable[[Work], Awaitable[dict[str, Any]]]] = {
    "flags": _retire,
    "deprecate": _deprecate,
    "drop": _drop,
    "backups": _drop_backups,
}
