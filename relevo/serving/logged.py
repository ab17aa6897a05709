"""Errors that this process logged, kept by the hour: so that "the logs hold no error" can be asked of a database."""

from __future__ import annotations

import asyncio

import psycopg

from relevo.clock import Clock
from relevo.db.pool import Database
from relevo.db.statements import statement
from relevo.errors import RelevoError
from relevo.serving.logs import Errors

EVERY_S = 10.0


async def keep(database: Database, errors: Errors, clock: Clock) -> int:
    """Store what was counted; how many errors. What cannot be stored is counted on."""
    counted = errors.fetch()
    if not counted:
        return 0
    try:
        async with database.transaction() as connection:
            values = {"now": clock(), "events": list(counted), "errors": list(counted.values())}
            await connection.execute(statement("checklist", "log_errors"), values)
    except (RelevoError, psycopg.Error):
        errors.put_back(counted)
        return 0
    return sum(counted.values())


async def keep_keeping(database: Database, errors: Errors, clock: Clock, *, every_s: float = EVERY_S) -> None:
    """Do so for as long as this task is not cancelled, and once more then."""
    try:
        while True:
            await asyncio.sleep(every_s)
            await keep(database, errors, clock)
    finally:
        await keep(database, errors, clock)
