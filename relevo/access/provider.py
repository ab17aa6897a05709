"""Signing in with an identity provider: OpenID Connect's code flow with PKCE (RFC 9700).

A sign-in begins with one secret, kept in a cookie of the browser and nowhere else. State, nonce and PKCE's verifier
are derived from it, each one way: the provider sees the first two, and only that browser can bring the answer back.
Any process may receive it; a session begins once per secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlencode

from relevo.access import proofs
from relevo.access.issuer import Issuer
from relevo.access.keyring import Caller
from relevo.access.proofs import UnknownKey, Unproven
from relevo.access.refusals import refused
from relevo.access.terms import Terms

LASTS = timedelta(minutes=10)
"""For as long a browser remembers that a sign-in was begun."""
_ERRORS = (  # what may be repeated to people; any other word is of somebody's own making
    *("access_denied", "invalid_request", "invalid_scope", "server_error", "temporarily_unavailable"),
    *("unauthorized_client", "unsupported_response_type", "interaction_required", "login_required"),
    *("account_selection_required", "consent_required"),
)


@dataclass(frozen=True, slots=True)
class SignIn:
    """One attempt to sign in."""

    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> SignIn:
        """One that nobody else can know."""
        return cls(secrets.token_urlsafe(32))

    @property
    def state(self) -> str:
        """By which its answer is known."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """By which the ID token made for it is known."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """Without which its code is worth nothing."""
        return self._derived("verifier")

    @property
    def fingerprint(self) -> bytes:
        """What of it is kept with the session that it began."""
        return hashlib.sha256(self.secret.encode("utf-8", "surrogateescape")).digest()

    def _derived(self, what: str) -> str:
        key = self.secret.encode("utf-8", "surrogateescape")
        return _written(hmac.digest(key, what.encode(), "sha256"))


class Provider:
    """Where people come from who have no token."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._issuer = Issuer(terms)

    @property
    def issuer(self) -> str:
        """Its name for itself."""
        return self._terms.issuer

    @property
    def host(self) -> str:
        """Its name for people."""
        return self._terms.host

    async def address(self, sign_in: SignIn, redirect: str) -> str:
        """Where to send the browser; it comes back to ``redirect``. Raises IssuerUnreachable, IssuerFaulty."""
        place = (await self._issuer.places()).authorization
        asked = {
            "response_type": "code",
            "client_id": self._terms.client_id,
            "redirect_uri": redirect,
            "scope": self._terms.scopes,
            "state": sign_in.state,
            "nonce": sign_in.nonce,
            "code_challenge": _written(hashlib.sha256(sign_in.verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        return f"{place}{'&' if '?' in place else '?'}{urlencode(asked)}"

    def is_stranger(self, sign_in: SignIn | None, answer: Mapping[str, str]) -> bool:
        """Whether these parameters answer no sign-in that this browser began."""
        return sign_in is None or not hmac.compare_digest(answer.get("state", "").encode(), sign_in.state.encode())

    async def person(self, sign_in: SignIn | None, answer: Mapping[str, str], redirect: str, now: datetime) -> Caller:
        """Whom the provider vouches for, by the parameters that the browser came back with.

        Raises SignInFailed, NoRole, IssuerUnreachable, IssuerFaulty.
        """
        if sign_in is None or self.is_stranger(sign_in, answer):
            raise refused("stranger")
        if "error" in answer:
            why = answer["error"] if answer["error"] in _ERRORS else "?"
            raise refused("declined", issuer=self.host, why=why)
        if not answer.get("code"):
            raise refused("declined", issuer=self.host, why="?")
        named = answer.get("iss")
        if named != self.issuer and (named is not None or (await self._issuer.places()).signs_answers):
            raise refused("unproven", issuer=self.host, why="iss")
        granted = await self._issuer.exchange(answer["code"], sign_in.verifier, redirect)
        try:
            return await self._person(granted, sign_in.nonce, now)
        except Unproven as error:
            raise refused("unproven", issuer=self.host, why=error.why) from error

    async def _person(self, granted: proofs.Granted, nonce: str, now: datetime) -> Caller:
        keys = await self._issuer.keys()
        try:
            claims = proofs.identity(granted.id_token, keys, self._terms, nonce, now)
        except UnknownKey:
            keys = await self._issuer.keys(again=True)
            claims = proofs.identity(granted.id_token, keys, self._terms, nonce, now)
        return proofs.person(granted, claims, keys, self._terms, now)


def _written(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
