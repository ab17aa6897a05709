"""What an identity provider has signed: is it good, whom does it name, and which role does it give them. Pure.

OpenID Connect Core 1.0, 3.1.3.7. The algorithm is never the token's own choice, and no key is taken from it.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from joserfc import jwt
from joserfc.errors import (
    BadSignatureError,
    ClaimError,
    InvalidKeyIdError,
    JoseError,
    UnsupportedAlgorithmError,
)
from joserfc.jwk import Key, KeySet
from joserfc.jws import JWSRegistry

from relevo.access.keyring import Caller
from relevo.access.refusals import refused
from relevo.access.roles import LABELS, Role
from relevo.access.terms import Terms

LEEWAY_S = 60  # clocks differ
_SUBJECT_LONGEST = 255  # as the standard has it
_SHOWN_LONGEST = 100

Claims = Mapping[str, Any]


class Unproven(Exception):
    """A token proves nothing. ``why`` is a word for people: the claim that is wrong, or signature, algorithm, form."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class UnknownKey(Unproven):
    """The key that a token names is not among those that were published."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What the provider hands over for a code."""

    id_token: str
    access_token: str | None


def identity(token: str, keys: Sequence[Key], terms: Terms, nonce: str, now: datetime) -> Claims:
    """The claims of an ID token that was made for us and for this sign-in. Raises Unproven, UnknownKey."""
    claims = _signed(token, keys, terms, now, audience=terms.client_id)
    audience = claims["aud"]
    several = isinstance(audience, list) and len(audience) > 1
    if (several or "azp" in claims) and claims.get("azp") != terms.client_id:
        raise Unproven("azp")
    presented = claims.get("nonce")
    if not isinstance(presented, str) or not hmac.compare_digest(presented.encode(), nonce.encode()):
        raise Unproven("nonce")
    subject = claims["sub"]
    if len(subject) > _SUBJECT_LONGEST or not subject.isprintable():
        raise Unproven("sub")
    return claims


def person(granted: Granted, claims: Claims, keys: Sequence[Key], terms: Terms, now: datetime) -> Caller:
    """Who that is and what they may do. Raises NoRole.

    The role is looked for in the ID token, then in the access token: Supabase has ``app_metadata``, and Keycloak its
    roles, there alone.
    """
    subject, email = claims["sub"], claims.get("email")
    shown = isinstance(email, str) and 0 < len(email) <= _SUBJECT_LONGEST and email.isprintable()
    name = email if shown and claims.get("email_verified") is not False else None
    caller = Caller(subject, name, Role.VIEWER, terms.issuer)
    gaps = {
        "who": name or subject,
        "actor": caller.actor,
        "issuer": terms.host,
        "claim": terms.role_claim,
        "known": " / ".join(LABELS) if terms.roles == LABELS else "RELEVO_OIDC_ROLES",  # which may name other people
    }
    value = _found(claims, terms.role_claim)
    if value is None:
        value = _found(_ours(granted.access_token, claims, keys, terms, now), terms.role_claim)
    if value in (None, "", []):
        raise refused("no_role", **gaps)
    if terms.role_claim == "email" and claims.get("email_verified") is not True:
        raise refused("unverified", **gaps)
    values = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
    roles = [terms.roles[each] for each in values if each in terms.roles]
    if not roles:
        raise refused("unknown_role", value=_shown(values), **gaps)
    return replace(caller, role=max(roles))


def _ours(token: str | None, identity: Claims, keys: Sequence[Key], terms: Terms, now: datetime) -> Claims:
    """The claims of an access token that is a proof, for the same person, given to us; else none."""
    try:
        claims = _signed(token or "", keys, terms, now, audience=None)
    except Unproven:
        return {}
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    ours = terms.client_id in (*audience, claims.get("azp"), claims.get("client_id"))
    return claims if ours and claims["sub"] == identity["sub"] else {}


def _signed(token: str, keys: Sequence[Key], terms: Terms, now: datetime, *, audience: str | None) -> Claims:
    registry = JWSRegistry(algorithms=terms.algorithms, strict_check_header=False)
    rules = jwt.JWTClaimsRegistry(
        int(now.timestamp()),
        LEEWAY_S,
        iss={"essential": True, "value": terms.issuer},
        sub={"essential": True},
        aud={"essential": True, "value": audience} if audience else {"essential": True},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        claims = jwt.decode(token, KeySet(list(keys)), algorithms=terms.algorithms, registry=registry).claims
        rules.validate(claims)
    except InvalidKeyIdError as error:
        raise UnknownKey("key") from error
    except UnsupportedAlgorithmError as error:
        raise Unproven("algorithm") from error
    except BadSignatureError as error:
        raise Unproven("signature") from error
    except ClaimError as error:
        raise Unproven(error.claim) from error
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise Unproven("form") from error
    return claims


def _found(claims: Claims, path: str) -> Any:
    """What a claim says; its name may have dots of its own, else they lead into structures. None: nothing."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _shown(values: Sequence[str]) -> str:
    told = ", ".join(repr(each) for each in values) or "no text"
    return told if len(told) <= _SHOWN_LONGEST else f"{told[:_SHOWN_LONGEST]}…"
