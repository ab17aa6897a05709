"""The identity provider over HTTP: what it publishes about itself, its keys, and tokens for a code.

What it publishes is kept for ten minutes, and a failure for two seconds. A key that nobody knows may be new: then the
keys are asked for again, though not every time that somebody makes one up.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import aiohttp
from joserfc import jwk
from joserfc.errors import JoseError

from relevo.access.proofs import Granted
from relevo.access.refusals import refused
from relevo.access.terms import Terms, trusted
from relevo.errors import RelevoError

WITHIN_S = 5.0
KEPT_S = 600.0
FAILED_FOR_S = 2.0
NEW_KEYS_EVERY_S = 10.0
_LONGEST = 1 << 20  # bytes of an answer
_RSA_SHORTEST = 342  # characters of a modulus of 2,048 bits
_SPENT = frozenset({"invalid_grant"})  # RFC 6749, 5.2: the code; all else there is between the provider and us

Published = TypeVar("Published")
_Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Places:
    """What a discovery document says, as far as it is needed."""

    authorization: str
    token: str
    keys: str
    by_header: bool  # how a client shows its secret
    signs_answers: bool  # whether an answer always names its issuer (RFC 9207)


class Issuer:
    """One provider."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._places = _Kept(self._discover)
        self._keys = _Kept(self._fetch_keys)

    async def places(self) -> Places:
        """Where to go. Raises IssuerUnreachable, IssuerFaulty."""
        return await self._places.no_older_than(KEPT_S)

    async def keys(self, *, again: bool = False) -> Sequence[jwk.Key]:
        """What it signs with; ``again``: a token names a key that was not among them. Raises as ``places``."""
        return await self._keys.no_older_than(NEW_KEYS_EVERY_S if again else KEPT_S)

    async def exchange(self, code: str, verifier: str, redirect: str) -> Granted:
        """Tokens for a code. Raises SignInFailed for a code that is good no more, or as ``places``."""
        places, terms = await self.places(), self._terms
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "code_verifier": verifier,
        }
        headers = {}
        if terms.client_secret is not None and places.by_header:
            pair = f"{quote(terms.client_id, safe='')}:{quote(terms.client_secret, safe='')}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = terms.client_id
            form |= {"client_secret": terms.client_secret} if terms.client_secret is not None else {}
        status, told = await self._ask("POST", places.token, form=form, headers=headers)
        if 400 <= status < 500:
            why = str(told.get("error", status))
            if why in _SPENT:
                raise refused("spent")
            raise refused("unknown_client", issuer=terms.host, why=_word(why), redirect=redirect)
        id_token, access_token = told.get("id_token"), told.get("access_token")
        if status != 200 or not isinstance(id_token, str):
            raise self._senseless("there is no ID token in its answer")
        return Granted(id_token, access_token if isinstance(access_token, str) else None)

    async def _discover(self) -> Places:
        issuer = self._terms.issuer
        told = await self._published(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if told.get("issuer") != issuer:
            raise self._senseless("it names another issuer")
        near = not issuer.startswith("https:")
        found = [str(told.get(name)) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
        if not all(trusted(each, near=near) for each in found):
            raise self._senseless("its endpoints are no https addresses")
        authorization, token, keys = found
        methods = told.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        return Places(
            authorization,
            token,
            keys,
            by_header="client_secret_basic" in methods,
            signs_answers=told.get("authorization_response_iss_parameter_supported") is True,
        )

    async def _fetch_keys(self) -> Sequence[jwk.Key]:
        told = await self._published((await self.places()).keys)
        listed = told.get("keys")
        return [key for each in (listed if isinstance(listed, list) else []) if (key := _key(each)) is not None]

    async def _published(self, address: str) -> Mapping[str, Any]:
        status, told = await self._ask("GET", address)
        if status != 200:
            raise self._senseless(f"{status} where it should describe itself")
        return told

    async def _ask(
        self,
        method: str,
        address: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, Any]]:
        """Status and JSON of an answer. It is followed nowhere: the code and our secret go to nobody else."""
        host, sent = self._terms.host, {"accept": "application/json", **(headers or {})}
        timeout, jar = aiohttp.ClientTimeout(total=WITHIN_S), aiohttp.DummyCookieJar()
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, cookie_jar=jar) as session,
                session.request(method, address, data=form, headers=sent, allow_redirects=False) as answer,
            ):
                status, body = answer.status, b""
                async for part in answer.content.iter_any():
                    body += part
                    if len(body) > _LONGEST:
                        raise self._senseless("its answer has no end")
        except TimeoutError:
            raise refused("unreachable", issuer=host, why=f"not within {WITHIN_S:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise refused("unreachable", issuer=host, why=type(error).__name__) from None
        if status >= 500 or status == 429:
            raise refused("unreachable", issuer=host, why=f"status {status}")
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            if status < 400:
                raise self._senseless("its answer is no JSON object")
            told = {}
        return status, told

    def _senseless(self, why: str) -> RelevoError:
        return refused("senseless", issuer=self._terms.host, why=why)


class _Kept(Generic[Published]):
    """What was read once, for those who ask meanwhile."""

    def __init__(self, read: Callable[[], Awaitable[Published]]) -> None:
        self._read = read
        self._reading = asyncio.Lock()
        self._found: Published | None = None
        self._failure: RelevoError | None = None
        self._at_s = float("-inf")  # of the loop's clock

    async def no_older_than(self, seconds: float) -> Published:
        """It, read again where it is older. Raises what reading raises, for a while without reading."""
        now_s = asyncio.get_running_loop().time
        async with self._reading:
            if now_s() - self._at_s >= (FAILED_FOR_S if self._failure else seconds):
                try:
                    self._found, self._failure = await self._read(), None
                except RelevoError as error:
                    self._failure = error
                self._at_s = now_s()
            if self._failure is not None:
                raise type(self._failure)(str(self._failure), fix=self._failure.fix)
            assert self._found is not None  # noqa: S101 -- it was read, or there is a failure
            return self._found


def _key(told: Any) -> jwk.Key | None:
    """A public key to rely on; None: what one does not understand is passed over (RFC 7517, 5)."""
    if not isinstance(told, dict) or told.get("kty") not in ("EC", "OKP", "RSA"):
        return None
    if told["kty"] == "RSA" and len(str(told.get("n"))) < _RSA_SHORTEST:
        return None
    try:
        return jwk.import_key(told)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _word(told: str) -> str:
    """An error's code as the standards write them, or nothing of it."""
    return told if told.replace("_", "").isalnum() and told.isascii() and len(told) <= 40 else "?"
