"""Vapi's own API: numbers read and bound, calls looked up."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import aiohttp
from pydantic_core import from_json

from relevo.errors import VapiRefused, VapiUnreachable

WITHIN_S = 10.0
_MOST_NUMBERS = 1_000


class Vapi:
    """One account at Vapi."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session, self._url, self._key = session, url.rstrip("/"), key

    async def numbers(self) -> list[dict[str, Any]]:
        """All phone numbers. Raises VapiUnreachable, VapiRefused."""
        found = await self._ask("GET", f"/phone-number?limit={_MOST_NUMBERS}")
        return [each for each in found if isinstance(each, dict) and each.get("id")] if isinstance(found, list) else []

    async def change_number(self, number_id: str, change: dict[str, Any]) -> dict[str, Any]:
        """A number, after the change. Raises VapiUnreachable, VapiRefused."""
        return _object(await self._ask("PATCH", f"/phone-number/{quote(number_id, safe='')}", change))

    async def call(self, call_id: str) -> dict[str, Any] | None:
        """What Vapi knows of a call; None where it knows none of that id. Raises VapiUnreachable, VapiRefused."""
        found = await self._ask("GET", f"/call/{quote(call_id, safe='')}", missing_is_none=True)
        return None if found is None else _object(found)

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, missing_is_none: bool = False
    ) -> Any:
        try:
            async with self._session.request(
                method,
                self._url + path,
                json=body,
                headers={"authorization": f"Bearer {self._key}", "accept-encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=WITHIN_S),
                allow_redirects=False,  # the key goes nowhere else
            ) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise VapiUnreachable(
                f"Vapi does not answer at {self._url}: {type(error).__name__}", fix="check RELEVO_VAPI_API_URL"
            ) from error
        if response.status == 404 and missing_is_none:
            return None
        if response.status in (401, 403):
            raise VapiRefused("Vapi refuses the API key", fix="set RELEVO_VAPI_API_KEY to a private key")
        if not 200 <= response.status < 300:
            raise VapiRefused(f"Vapi answers {response.status} to {method} {path}", fix="see Vapi's dashboard")
        try:
            return from_json(answer)
        except ValueError as error:
            raise VapiUnreachable(
                f"what answers at {self._url} is not Vapi", fix="check RELEVO_VAPI_API_URL"
            ) from error


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
