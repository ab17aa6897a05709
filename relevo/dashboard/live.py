"""News for open pages: one stream per page, which only names what is worth fetching again.

One look at the database per second and process, and only while somebody listens. A stream ends by itself when the
server stops, and when its reader is signed out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
from starlette.responses import Response, StreamingResponse

from relevo.access import sessions
from relevo.access.roles import Role
from relevo.dashboard.house import House, Visit
from relevo.dashboard.places import COOKIE, Place
from relevo.db.pool import one
from relevo.db.statements import statement
from relevo.errors import RelevoError
from relevo.flags.evaluate import VOICE_AGENT_V2

BEAT_S = 1.0
FIGURES_EVERY = 5  # beats
_RETRY_MS = 2_000
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Pulse:
    """What has changed, told to all who listen."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._listeners: set[asyncio.Queue[dict[str, Any]]] = set()
        self._wanted = asyncio.Event()

    async def beat(self) -> None:
        """Look and tell, for as long as the server lives; sleeps while nobody listens."""
        before: dict[str, Any] | None = None
        beats = 0
        while not self._house.leaving():
            if not self._listeners:
                self._wanted.clear()
                before = None
                await self._wanted.wait()
            found = await self._look()
            topics = [] if before is None or found is None else [name for name in found if found[name] != before[name]]
            if beats % FIGURES_EVERY == 0:
                topics.append("figures")
            self._tell({"ok": found is not None, "topics": topics, "at": self._house.clock().isoformat()})
            before, beats = found or before, beats + 1
            await asyncio.sleep(BEAT_S)
        self._tell({"ok": True, "topics": [], "at": self._house.clock().isoformat()})  # so that streams see it, and end

    async def listen(self) -> AsyncIterator[dict[str, Any]]:
        """Each beat. A listener that does not keep up misses some, never the newest."""
        news: asyncio.Queue[dict[str, Any]] = asyncio.Queue(2)
        self._listeners.add(news)
        self._wanted.set()
        try:
            while True:
                yield await news.get()
        finally:
            self._listeners.discard(news)

    async def _look(self) -> dict[str, Any] | None:
        """None: the database does not answer."""
        try:
            async with asyncio.timeout(5), self._house.database.transaction(read_only=True) as connection:
                return dict(await one(connection, statement("dashboard", "pulse"), {"name": VOICE_AGENT_V2}))
        except (RelevoError, psycopg.Error, TimeoutError):
            return None

    def _tell(self, beat: dict[str, Any]) -> None:
        for news in self._listeners:
            if news.full():
                beat = {**beat, "topics": sorted({*beat["topics"], *news.get_nowait()["topics"]})}
            news.put_nowait(beat)

    async def stream(self, visit: Visit) -> Response:
        """The news as server-sent events."""
        if self._house.leaving():
            return Response(status_code=503, headers={"retry-after": "1"})
        secret = visit.request.cookies[COOKIE]
        return StreamingResponse(self._events(secret), headers=_HEADERS, media_type="text/event-stream")

    async def _events(self, secret: str) -> AsyncIterator[str]:
        yield f"retry: {_RETRY_MS}\n\n"
        async for beat in self.listen():
            if self._house.leaving():
                return
            if "figures" in beat["topics"] and beat["ok"] and not await self._may_listen(secret):
                yield "event: signed-out\ndata: {}\n\n"
                return
            yield f"data: {json.dumps(beat)}\n\n"

    async def _may_listen(self, secret: str) -> bool:
        try:
            return await sessions.of(self._house.database, secret, self._house.wall()) is not None
        except (RelevoError, psycopg.Error):
            return True  # the database is away; who was good a moment ago is told so

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it is heard."""
        return (Place("GET", "/live", Role.VIEWER, self.stream),)
