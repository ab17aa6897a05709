"""An identity provider on the loopback: real keys, the wire of OpenID Connect, and mistakes where it is told to.

It does what Supabase's OAuth server does: the ID token names the person, the access token carries ``app_metadata``.
"""

from __future__ import annotations

import base64
import hashlib
import html
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey

from tests.standins import Reply, Request, StandIn

CLIENT, SECRET = "relevo-client", "a secret, with: signs & spaces %"
SUBJECT, EMAIL = "8ccaa7af-909f-44e7-84cb-67cdccb56be6", "ana@example.com"
CALLBACK = "/sign-in/callback"

Claims = dict[str, Any]
Change = Callable[[Claims], Claims]


def key(kid: str) -> ECKey:
    """A new key pair."""
    return ECKey.generate_key("P-256", {"kid": kid, "use": "sig", "alg": "ES256"})


def same(claims: Claims) -> Claims:
    """No change."""
    return claims


@dataclass(slots=True)
class Issuer:
    """The provider; everything may be changed while it runs."""

    server: StandIn
    pair: ECKey = field(default_factory=lambda: key("first"))
    published: list[Any] | None = None  # None: the pair in use
    role: Any = "operator"  # app_metadata.relevo_role; None: nobody gave one
    identity: Change = same  # what becomes of the ID token's claims
    access: Change = same
    signed: Callable[[Claims], str] | None = None  # instead of signing with the pair
    discovery: Mapping[str, Any] = field(default_factory=dict)  # instead of what would be said
    refuses: str | None = None  # an error that people come back with
    secret: str = SECRET  # "": Relevo is a public client
    codes_last: bool = False  # a code is good again and again
    codes: dict[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Its name: another site than the one of Relevo in the tests."""
        return self.server.url.replace("127.0.0.1", "localhost")

    @property
    def settings(self) -> dict[str, str]:
        """What ``relevo serve`` needs to know."""
        return {
            "RELEVO_OIDC_ISSUER": self.url,
            "RELEVO_OIDC_CLIENT_ID": CLIENT,
            "RELEVO_OIDC_CLIENT_SECRET": SECRET,
        }

    def asked(self, path: str) -> int:
        """How often a place was asked."""
        return sum(urlsplit(each.path).path == path for each in self.server.received)

    def answer(self, request: Request) -> Reply:
        """One request."""
        parts = urlsplit(request.path)
        places = {
            "/.well-known/openid-configuration": lambda: Reply(body=self._described()),
            "/keys": lambda: Reply(body={"keys": self._keys()}),
            "/authorize": lambda: self._consent({name: values[0] for name, values in parse_qs(parts.query).items()}),
            "/token": lambda: self._exchange(request),
        }
        place = places.get(parts.path)
        return place() if place else Reply(404)

    def back(self, location: str) -> str:
        """The answer that somebody sent to ``location`` comes back with, once they said yes: a path of ours."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        parts = urlsplit(self._back(asked))
        return f"{parts.path}?{parts.query}"

    def _described(self) -> Claims:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "code_challenge_methods_supported": ["S256"],
            **self.discovery,
        }

    def _keys(self) -> list[Any]:
        return [self.pair.as_dict(private=False)] if self.published is None else self.published

    def _consent(self, asked: Mapping[str, str]) -> Reply:
        head = '<!doctype html><title>Consent</title><link rel="icon" href="data:,">'
        page = f'{head}<a id="yes" href="{html.escape(self._back(asked))}">Yes</a>'
        return Reply(body=page.encode(), headers={"content-type": "text/html"})

    def _back(self, asked: Mapping[str, str]) -> str:
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        told = {"state": asked["state"]}
        if self.refuses:
            told |= {"error": self.refuses}
        else:
            told |= {"code": secrets.token_urlsafe(8)}
            self.codes[told["code"]] = dict(asked)
        return f"{asked['redirect_uri']}?{urlencode(told)}"

    def _exchange(self, request: Request) -> Reply:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if not self._knows(request, form):
            return Reply(401, {"error": "invalid_client"})
        asked = self.codes.get(form["code"]) if self.codes_last else self.codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if (
            asked is None
            or asked["code_challenge"] != challenge.decode()
            or asked["redirect_uri"] != form["redirect_uri"]
        ):
            return Reply(400, {"error": "invalid_grant"})
        return Reply(body=self._tokens(asked["nonce"]))

    def _knows(self, request: Request, form: Mapping[str, str]) -> bool:
        header = request.headers.get("authorization", "")
        if header.startswith("Basic "):
            pair = base64.b64decode(header[6:]).decode().split(":")
            told = [parse_qs(f"x={each}")["x"][0] for each in pair]
        else:
            told = [form.get("client_id", ""), form.get("client_secret", "")]
        return told == [CLIENT, self.secret]

    def _tokens(self, nonce: str) -> Claims:
        now = int(time.time())
        usual = {"iss": self.url, "sub": SUBJECT, "iat": now, "exp": now + 3600}
        email = {"email": EMAIL, "email_verified": True}
        metadata = {"provider": "email"} | ({"relevo_role": self.role} if self.role is not None else {})
        identity = self.identity({**usual, **email, "aud": CLIENT, "nonce": nonce})
        access = self.access(
            {**usual, **email, "aud": "authenticated", "client_id": CLIENT, "role": "authenticated",
             "app_metadata": metadata, "user_metadata": {"relevo_role": "admin"}}
        )  # fmt: skip
        sign = self.signed or self.sign
        return {"token_type": "bearer", "expires_in": 3600, "id_token": sign(identity), "access_token": sign(access)}

    def sign(self, claims: Claims) -> str:
        """A token as it should be."""
        return jwt.encode({"alg": "ES256", "kid": self.pair.kid}, claims, self.pair, algorithms=["ES256"])


@contextmanager
def issuing() -> Iterator[Issuer]:
    """A running provider."""
    server = StandIn(lambda _request: Reply(503))
    issuer = Issuer(server)
    server.answering = issuer.answer
    with server.running():
        yield issuer
