"""Relevo's own schema: numbered SQL files, each applied once, all or none.

The same files can be kept with a team's other migrations (``relevo db sql``). Applying is safe with two
processes at once, and refuses when a file that was applied reads differently now.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources

from psycopg import sql

from relevo.db.pool import Connection, Database, every, one
from relevo.db.statements import statement
from relevo.errors import MissingPrivilege, Refused, SchemaChanged, SchemaMissing

_NAME = re.compile(r"^(\d{4})_(\w+)\.sql$")


@dataclass(frozen=True, slots=True)
class SchemaFile:
    """One step of the schema."""

    version: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """The fingerprint that an applied file must keep."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Applied:
    """What a database says about one schema file."""

    version: int
    name: str
    applied_at: datetime | None  # None: not applied yet


@cache
def schema_files() -> tuple[SchemaFile, ...]:
    """Every schema file, in order."""
    folder = resources.files("relevo") / "sql"
    found = ((_NAME.match(file.name), file) for file in folder.iterdir())
    files = [SchemaFile(int(match[1]), match[2], file.read_text(encoding="utf-8")) for match, file in found if match]
    return tuple(sorted(files, key=lambda file: file.version))


async def up(database: Database) -> list[SchemaFile]:
    """Apply what is missing, in one transaction; returns what was applied.

    Raises SchemaChanged, MissingPrivilege, or Refused where a table of the same name has another shape.
    """
    async with database.transaction() as connection:
        await connection.execute(statement("db", "lock_schema"))
        await _require_privileges(connection, database.place)
        await connection.execute(statement("db", "create_ledger"))
        applied = await _ledger(connection)
        missing = [file for file in schema_files() if file.version not in applied]
        if missing and missing[0].version == 1:
            await _refuse_foreign_shapes(connection)
        for file in missing:
            await connection.execute(file.text.encode())
            await connection.execute(
                statement("db", "record_file"),
                {"version": file.version, "name": file.name, "sha256": file.sha256},
            )
    return missing


async def status(database: Database) -> list[Applied]:
    """Every schema file, applied or not. Raises SchemaChanged."""
    async with database.transaction(read_only=True) as connection:
        applied = await _ledger(connection)
    return [Applied(file.version, file.name, applied.get(file.version, (None, None))[1]) for file in schema_files()]


async def require(connection: Connection) -> None:
    """Raises SchemaMissing unless every schema file has been applied as it reads now."""
    applied = await _ledger(connection)
    if missing := [file for file in schema_files() if file.version not in applied]:
        raise SchemaMissing(
            f"{len(missing)} of {len(schema_files())} schema files are not applied", fix="run: relevo db up"
        )


async def _ledger(connection: Connection) -> dict[int, tuple[str, datetime]]:
    """Version to fingerprint and time of what was applied; empty where Relevo never was."""
    if not (await one(connection, statement("db", "ledger_exists")))["present"]:
        return {}
    rows = await every(connection, statement("db", "ledger"))
    known = {file.version: file for file in schema_files()}
    for row in rows:
        file = known.get(row["version"])
        if file is None:
            raise SchemaChanged(
                f"the database has schema file {row['version']:04}_{row['name']}, which this Relevo does not know",
                fix="upgrade Relevo: a newer version has been here",
            )
        if file.sha256 != row["sha256"]:
            raise SchemaChanged(
                f"schema file {row['version']:04}_{row['name']} changed after it was applied",
                fix="reinstall Relevo; a change to the schema goes into a new file",
            )
    return {row["version"]: (row["sha256"], row["applied_at"]) for row in rows}


async def _require_privileges(connection: Connection, place: str) -> None:
    row = await one(connection, statement("db", "privileges"))
    if not row["may_create_schema"] or not row["may_use_public"]:
        where = "schema public" if row["may_create_schema"] else "this database"
        raise MissingPrivilege(
            f"role {row['role']} may not create anything in {where} at {place}",
            fix=f"GRANT CREATE ON {'SCHEMA public' if row['may_create_schema'] else 'DATABASE ' + row['database']}"
            f" TO {row['role']}",
        )


async def _refuse_foreign_shapes(connection: Connection) -> None:
    """A table that already bears one of our names must have our columns, else applying would fail half way."""
    rows = await every(connection, statement("db", "foreign_shapes"))
    if rows:
        differences = "; ".join(f"{row['table']}.{row['column']} {row['difference']}" for row in rows)
        raise Refused(
            f"tables of Relevo's names exist in another shape: {differences}",
            fix="rename them, or give them these columns, before relevo db up",
        )


def as_scripts() -> list[tuple[str, str]]:
    """File name and text of every schema file, for a team that applies migrations with its own tool.

    Each script records itself, so that ``relevo db up`` finds nothing left to do.
    """
    ledger = statement("db", "create_ledger").as_string()
    record = "INSERT INTO relevo.schema_files (version, name, sha256) VALUES ({}, {}, {})"
    return [
        (
            f"{file.version:04}_relevo_{file.name}.sql",
            f"{ledger};\n\n{file.text}\n{sql.SQL(record).format(file.version, file.name, file.sha256).as_string()};\n",
        )
        for file in schema_files()
    ]
