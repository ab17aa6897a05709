"""On what terms people sign in with an identity provider: which, what it may sign with, and where it names a role."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from relevo.access.roles import LABELS, Role
from relevo.errors import ConfigurationError, nearest
from relevo.settings import Settings

# Signed with a key pair. What is signed with a shared secret could be made by whoever checks it.
ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
_ONES_OWN = ("user_metadata", "raw_user_meta_data")  # Supabase: whoever signs in may write it


@dataclass(frozen=True, slots=True)
class Terms:
    """The settings, checked."""

    issuer: str
    client_id: str
    client_secret: str | None = field(repr=False)  # None: a public client
    scopes: str
    algorithms: tuple[str, ...]
    role_claim: str
    roles: Mapping[str, Role]  # by value of that claim

    @property
    def host(self) -> str:
        """The provider as it is named to people."""
        return urlsplit(self.issuer).netloc


def terms_of(settings: Settings) -> Terms | None:
    """The terms in force; None: people sign in with tokens alone. Raises ConfigurationError."""
    if settings.oidc_issuer is None:
        for name in ("client_id", "client_secret", "roles"):
            if getattr(settings, f"oidc_{name}"):
                raise _wrong(f"oidc_{name}", "is there, but oidc_issuer is not", fix="set RELEVO_OIDC_ISSUER as well")
        return None
    secret = settings.oidc_client_secret
    return Terms(
        _issuer(settings.oidc_issuer),
        _filled("oidc_client_id", settings.oidc_client_id or ""),
        _filled("oidc_client_secret", secret.get_secret_value()) if secret else None,
        _scopes(settings.oidc_scopes),
        _algorithms(settings.oidc_algorithms),
        _role_claim(settings.oidc_role_claim),
        _roles(settings.oidc_roles),
    )


def trusted(url: str, *, near: bool = False) -> bool:
    """Whether what is asked at an address can be believed: over https; ``near``: or on this machine."""
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and parts.port != 0 and parts.username is None and not parts.fragment
    except ValueError:
        return False
    return whole and (parts.scheme == "https" or (near and parts.scheme == "http" and _near(parts.hostname or "")))


def _near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _issuer(url: str) -> str:
    if not trusted(url, near=True) or urlsplit(url).query or not url.isprintable() or " " in url:
        raise _wrong("oidc_issuer", "is no https address", fix="write the issuer as its provider does, https://…")
    return url


def _filled(name: str, value: str) -> str:
    if not value.strip():
        raise _wrong(name, "is empty", fix=f"set RELEVO_{name.upper()} to what the provider gave you")
    return value.strip()


def _scopes(written: str) -> str:
    scopes = written.split()
    if "openid" not in scopes:
        raise _wrong("oidc_scopes", "lacks openid", fix='write at least "openid email"')
    return " ".join(scopes)


def _algorithms(written: str) -> tuple[str, ...]:
    named = tuple(written.split())
    for each in named or ("nothing",):
        if each not in ALGORITHMS:
            raise _wrong(
                "oidc_algorithms",
                f"names {each}, by which nobody can be believed.{nearest(each, ALGORITHMS)}",
                fix=f"choose of {', '.join(sorted(ALGORITHMS))}",
            )
    return named


def _role_claim(written: str) -> str:
    claim = _filled("oidc_role_claim", written)
    if claim.split(".")[0] in _ONES_OWN:
        raise _wrong("oidc_role_claim", f"is {claim}, which people write themselves", fix="use app_metadata")
    return claim


def _roles(written: Mapping[str, str]) -> Mapping[str, Role]:
    for value, named in written.items():
        if named not in LABELS:
            raise _wrong(
                "oidc_roles",
                f"gives {value!r} the role {named!r}, which there is not.{nearest(named, LABELS)}",
                fix=f"write {', '.join(LABELS)}",
            )
    return {value: LABELS[named] for value, named in written.items()} or LABELS


def _wrong(name: str, how: str, *, fix: str) -> ConfigurationError:
    return ConfigurationError(f"setting {name} {how}", fix=fix)
