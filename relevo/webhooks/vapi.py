"""Vapi's own API: numbers read and bound, calls looked up and taken in hand."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from pydantic_core import from_json

from relevo.errors import VapiKeyRefused, VapiRefused, VapiUnreachable

WITHIN_S = 10.0
_PAGE = 1_000  # numbers; Vapi gives no more at once


class Vapi:
    """One account at Vapi."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session, self._url, self._key = session, url.rstrip("/"), key

    async def numbers(self) -> list[dict[str, Any]]:
        """All phone numbers. Raises VapiUnreachable, VapiRefused; also where Vapi does not tell all of them."""
        found: dict[str, dict[str, Any]] = {}
        further = ""
        while True:
            page = await self._ask("GET", f"/phone-number?limit={_PAGE}{further}")
            page = (
                [each for each in page if isinstance(each, dict) and each.get("id")] if isinstance(page, list) else []
            )
            known = len(found)
            found |= {each["id"]: each for each in page}
            if len(page) < _PAGE:
                return [*found.values()]
            if len(found) == known:
                raise VapiRefused(
                    f"Vapi tells of {known:,} numbers, and not whether there are more", fix="see Vapi's dashboard"
                )
            further = _after(page)

    async def change_number(self, number_id: str, change: dict[str, Any]) -> dict[str, Any]:
        """A number, after the change. Raises VapiUnreachable, VapiRefused."""
        return _object(await self._ask("PATCH", f"/phone-number/{quote(number_id, safe='')}", change))

    async def call(self, call_id: str) -> dict[str, Any] | None:
        """What Vapi knows of a call; None where it knows none of that id. Raises VapiUnreachable, VapiRefused."""
        found = await self._ask("GET", f"/call/{quote(call_id, safe='')}", missing_is_none=True)
        return None if found is None else _object(found)

    async def control(self, url: str, said: dict[str, Any]) -> None:
        """Do something with a call that is going on. ``url``: its monitor.controlUrl, of which only servers of Vapi's
        own get the key. Raises VapiUnreachable, VapiRefused."""
        status, _answer = await self._send("POST", url, said, with_key=self._is_theirs(url))
        if not 200 <= status < 300:
            raise VapiRefused(f"Vapi answers {status} to {said['type']}", fix="see the call in Vapi's dashboard")

    def _is_theirs(self, url: str) -> bool:
        ours, host = urlsplit(self._url).hostname or "", urlsplit(url).hostname or ""
        return host == ours or (ours.startswith("api.") and host.endswith(ours[3:]) and url.startswith("https:"))

    async def _send(
        self, method: str, url: str, body: dict[str, Any] | None, *, with_key: bool = True
    ) -> tuple[int, bytes]:
        key = {"authorization": f"Bearer {self._key}"} if with_key else {}
        try:
            async with self._session.request(
                method,
                url,
                json=body,
                headers={"accept-encoding": "identity", **key},
                timeout=aiohttp.ClientTimeout(total=WITHIN_S),
                allow_redirects=False,  # the key goes nowhere else
            ) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            parts = urlsplit(url)
            raise VapiUnreachable(
                f"Vapi does not answer at {parts.scheme}://{parts.netloc}: {type(error).__name__}",
                fix="check RELEVO_VAPI_API_URL",
            ) from error

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, missing_is_none: bool = False
    ) -> Any:
        status, answer = await self._send(method, self._url + path, body)
        if status == 404 and missing_is_none:
            return None
        if status == 401:
            raise VapiKeyRefused("Vapi refuses the API key", fix="set RELEVO_VAPI_API_KEY to a private key")
        if not 200 <= status < 300:
            raise VapiRefused(f"Vapi answers {status} to {method} {path}", fix="see Vapi's dashboard")
        try:
            return from_json(answer)
        except ValueError as error:
            raise VapiUnreachable(
                f"what answers at {self._url} is not Vapi", fix="check RELEVO_VAPI_API_URL"
            ) from error


def _after(page: list[dict[str, Any]]) -> str:
    """The query for what follows a page; those made in the same moment as its last come again. Which way it is sorted
    is not documented."""
    first, last = str(page[0].get("createdAt", "")), str(page[-1].get("createdAt", ""))
    return f"&{'createdAtLe' if first >= last else 'createdAtGe'}={quote(last, safe='')}"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
