"""One POST of JSON, and what its answer means for the message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from pydantic_core import to_json

from relevo.clock import Clock
from relevo.comms.outcome import Delivered, Never, NotNow, Outcome
from relevo.errors import ConfigurationError

ANSWERS_WITHIN_S = 10.0
_ANSWER_SHOWN = 200  # characters of what the other side said

_JSON = {"content-type": "application/json"}


def checked_url(name: str, url: str) -> str:
    """An http(s) URL. Raises ConfigurationError that does not show it: its path may be a secret."""
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"setting {name} is no http(s) URL", fix=f"correct RELEVO_{name.upper()}")
    return url.strip()


class Poster:
    """Posts JSON to one URL, on connections that are kept. ``refused``: the statuses by which the other side says that
    it will never take this very message."""

    def __init__(self, url: str, clock: Clock, *, refused: frozenset[int], secrets: tuple[str, ...]) -> None:
        self._url = url
        self._host = urlsplit(url).hostname or ""
        self._clock = clock
        self._refused = refused
        self._secrets = tuple(secret for secret in secrets if len(secret) > 5)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: Mapping[str, Any]) -> Outcome:
        """Post once, within ANSWERS_WITHIN_S."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=ANSWERS_WITHIN_S)
            # Each message on a connection of its own: one that went stale could not tell whether it arrived.
            self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True))
        try:
            async with self._session.post(
                self._url, data=to_json(body), headers=_JSON, allow_redirects=False
            ) as answer:
                told = (await answer.content.read(2000)).decode(errors="replace")
                return self._judge(answer.status, told, answer.headers.get("retry-after"))
        except TimeoutError:
            return NotNow(f"{self._host} did not answer within {ANSWERS_WITHIN_S:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return NotNow(f"{self._host} could not be reached ({type(error).__name__})")

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _judge(self, status: int, told: str, retry_after: str | None) -> Outcome:
        if 200 <= status < 300:
            return Delivered()
        for secret in self._secrets:
            told = told.replace(secret, "…")
        why = f"{self._host} answered {status}: {' '.join(told.split())[:_ANSWER_SHOWN]}".rstrip(": ")
        if status in self._refused:
            return Never(why)
        return NotNow(why, seconds_of(retry_after, self._clock()))


def seconds_of(retry_after: str | None, now: datetime) -> float | None:
    """What a Retry-After header asks for, in seconds; None where it says nothing that can be read."""
    written = (retry_after or "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", written):
        return float(written)
    try:
        return max((parsedate_to_datetime(written) - now).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
