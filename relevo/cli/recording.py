"""What the webhook needs of the database: to know where v1 is, and how calls are written into the platform's table."""

from __future__ import annotations

import asyncio

import psycopg
import structlog

from relevo.clock import system_clock
from relevo.db.pool import Database
from relevo.errors import RelevoError
from relevo.migration import source, voice_calls
from relevo.migration.mapping import SourceMapping
from relevo.settings import Settings

_AGAIN_AFTER_S = 10.0

_log = structlog.get_logger()


async def install(database: Database, mapping: SourceMapping, settings: Settings) -> None:
    """Try until it is done. What refuses is said once a while: calls are answered and recorded without it."""
    done = await _installed(database, mapping, settings)
    while not done:
        await asyncio.sleep(_AGAIN_AFTER_S)
        done = await _installed(database, mapping, settings)


async def _installed(database: Database, mapping: SourceMapping, settings: Settings) -> bool:
    upstreams = (("v1", settings.v1_upstream), ("v2", settings.v2_upstream))
    try:
        async with database.transaction() as connection:
            await source.install(connection, mapping, system_clock())
        await voice_calls.install(database, mapping, annotate=[version for version, url in upstreams if url])
    except RelevoError as error:
        _log.warning("calls do not reach the platform's table yet", why=str(error), fix=error.fix)
        return False
    except psycopg.Error as error:
        _log.warning("calls do not reach the platform's table yet", why=type(error).__name__)
        return False
    return True
