"""Who may come in: the token of a request, before anything else of the request is read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

from relevo.access.guesses import Guesses
from relevo.access.keyring import Caller, Keyring
from relevo.access.roles import Role
from relevo.errors import Forbidden, TooManyGuesses, Unauthorized

Headers = Iterable[tuple[bytes, bytes]]  # as ASGI has them: names in lower case

_FIX = "send a token of relevo tokens create, as Authorization: Bearer … or X-API-Key: …"


class Door:
    """Lets callers in by their token, and makes an address wait that presents many wrong ones."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._guesses, self._strangers, self._failures = Guesses(), Guesses(), Guesses()

    async def admit(self, headers: Headers, address: str, needed: Role) -> Caller:
        """The caller, who may do what ``needed`` may.

        Raises Unauthorized (no token, or a wrong one), TooManyGuesses, Forbidden, or DatabaseUnreachable while no
        token can be checked.
        """
        presented = _presented(headers)
        if presented is None:
            raise Unauthorized("this needs a token", fix=_FIX)
        caller = await self._keyring.caller(presented)
        if caller is None:
            _refuse(self._guesses.wrong(address, _now_s()))
            raise Unauthorized("the token is unknown, revoked or expired", fix=_FIX)
        if caller.role < needed:
            raise Forbidden(
                f"a token of role {caller.role.label} may not do this", fix=f"use a token of role {needed.label}"
            )
        return caller

    def refuse_stranger(self, address: str) -> None:
        """Count an answer to a sign-in that nobody here began: any page can make any browser bring one, so that it
        counts against nothing else. Raises TooManyGuesses where the address brought too many."""
        _refuse(self._strangers.wrong(address, _now_s()))

    def is_worth_a_line(self, address: str) -> bool:
        """Whether one more sign-in of an address that failed is written down: whoever makes thousands fills no log."""
        return self._failures.wrong(address, _now_s()) is None


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _refuse(wait_s: float | None) -> None:
    if wait_s is not None:
        raise TooManyGuesses(math.ceil(wait_s))


def _presented(headers: Headers) -> str | None:
    """The token a request carries; None where it carries none. Authorization wins."""
    key = None
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer" and token.strip():
                return token.strip()
        elif name == b"x-api-key" and value.strip():
            key = value.decode("latin-1").strip()
    return key
