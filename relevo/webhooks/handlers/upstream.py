"""A handler of the platform's own: messages go on to it byte for byte, with the headers that sign them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from relevo.errors import ConfigurationError

LONGEST_ANSWER = 1 << 20
# Shorter than any server keeps a connection: one that it has just closed would swallow a call. (Node.js: 5 s.)
KEPT_ALIVE_S = 4.0
_CONNECTIONS = 200
# Those of one connection, not of the message.
_HOP_BY_HOP = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class HandlerFailed(Exception):
    """Whoever should have answered did not; says in a few words why."""


class NothingToSay(HandlerFailed):
    """There is nothing for this one tenant. Whether the handler is well is not told by that."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an upstream answered, as it is."""

    status: int
    content_type: str
    body: bytes


class Upstream:
    """One URL that messages go on to."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """Raises ConfigurationError for what is no http URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError("an upstream is no http or https URL", fix="write https://host/path")
        self._session, self._url = session, url
        self.name = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        """The URL without what may be secret in it."""

    async def forward(self, body: bytes, headers: Iterable[tuple[bytes, bytes]], within_s: float) -> Reply:
        """The upstream's answer, whatever its status. Raises HandlerFailed for none in time, and for a redirect: what
        Vapi signed for us is not sent elsewhere."""
        sent = [(name, value) for raw, value in _texts(headers) if (name := raw.lower()) not in _HOP_BY_HOP]
        try:
            async with self._session.post(
                self._url,
                data=body,
                headers=[*sent, ("accept-encoding", "identity")],
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=within_s),
                skip_auto_headers=("User-Agent", "Content-Type"),
            ) as response:
                if 300 <= response.status < 400:
                    raise HandlerFailed(f"it redirects ({response.status})")
                answer = await response.content.read(LONGEST_ANSWER + 1)
                while len(answer) <= LONGEST_ANSWER and (more := await response.content.read(LONGEST_ANSWER)):
                    answer += more
                if len(answer) > LONGEST_ANSWER:
                    raise HandlerFailed("its answer is too long")
                return Reply(response.status, response.headers.get("content-type", "application/json"), answer)
        except TimeoutError:
            raise HandlerFailed(f"no answer within {within_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise HandlerFailed(type(error).__name__) from error


def session() -> aiohttp.ClientSession:
    """What upstreams are asked through: kept-alive connections, no cookies, no proxies from the environment."""
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=KEPT_ALIVE_S)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)


def _texts(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, str]]:
    return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
