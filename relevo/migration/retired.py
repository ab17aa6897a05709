"""Whether v1 still leads. Once it is deprecated nothing is moved from it, mirrored to it or compared with it."""

from __future__ import annotations

from psycopg import errors

from relevo.db.pool import Connection, Database, one
from relevo.db.statements import statement
from relevo.errors import Refused


async def refuse_deprecated(database: Database) -> None:
    """Raises Refused once v1 is deprecated. Where the schema is not there yet, it is not."""
    try:
        async with database.transaction(read_only=True) as connection:
            row = await one(connection, statement("cleanup", "deprecated"))
    except (errors.UndefinedFunction, errors.InvalidSchemaName, errors.InsufficientPrivilege):
        return
    if row["deprecated"]:
        raise Refused(
            "v1 is deprecated: v2 leads, and nothing is moved or compared any more",
            fix="until v1 is dropped: relevo cleanup --stage deprecate --undo",
        )


async def refuse_retired(connection: Connection) -> None:
    """Raises Refused once v1 answers nobody any more."""
    if (await one(connection, statement("cleanup", "deprecated")))["retired"]:
        raise Refused(
            "v1 is retired: going back to it has ended",
            fix="until v1 is dropped: relevo cleanup --stage flags --undo",
        )
