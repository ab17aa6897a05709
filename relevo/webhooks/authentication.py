"""Who may speak to the webhook: whoever shows one of the secrets that were agreed on with Vapi, or signs with it.

Pure, on raw bytes, compared in constant time, before anything is parsed. Several ways may be accepted at once, and
several secrets for each, so that one can be replaced while both are in use.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Algorithm = Literal["sha256", "sha512", "sha1"]
REPLAYED_AFTER_S = 300.0
"""A signed time that is further from ours than this is a recording of an old message."""


@dataclass(frozen=True, slots=True)
class Signing:
    """How messages are signed, where they are."""

    secrets: tuple[str, ...] = ()
    algorithm: Algorithm = "sha256"
    headers: tuple[str, ...] = ("x-signature", "x-vapi-signature")  # the first that is there counts; in lower case
    timestamp_header: str = "x-timestamp"
    signs_time: bool = True  # the text ``{timestamp}.{body}``; else the body alone
    prefix: str = ""  # before the signature; ``sha256=`` and the like are taken off anyhow


@dataclass(frozen=True, slots=True)
class Authentication:
    """Everything that is accepted. Nothing at all, unless ``none`` was said aloud, refuses everybody."""

    secrets: tuple[str, ...] = ()  # in X-Vapi-Secret
    bearers: tuple[str, ...] = ()  # in Authorization
    signing: Signing = Signing()
    none: bool = False

    @property
    def configured(self) -> bool:
        """Whether anybody could be let in."""
        return self.none or bool(self.secrets or self.bearers or self.signing.secrets)

    def by_headers(self, headers: Mapping[str, str]) -> bool:
        """Whether the headers (names in lower case) alone prove who speaks."""
        shown = headers.get("x-vapi-secret")
        if self.none or (shown is not None and _is_one_of(shown, self.secrets)):
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and _is_one_of(token.strip(), self.bearers)

    def is_signed(self, headers: Mapping[str, str]) -> bool:
        """Whether there is a signature to look at, for which the body is needed."""
        return bool(self.signing.secrets) and _signature(headers, self.signing) is not None

    def by_signature(self, headers: Mapping[str, str], body: bytes, now: datetime) -> bool:
        """Whether the body is signed by one of the secrets, and not long ago."""
        signing, shown = self.signing, _signature(headers, self.signing)
        if shown is None:
            return False
        text = body
        if signing.signs_time:
            stamp = headers.get(signing.timestamp_header, "")
            if not _is_recent(stamp, now):
                return False
            text = stamp.encode("latin-1", "replace") + b"." + body
        return any(_fits(shown, hmac.digest(_key(each), text, signing.algorithm)) for each in signing.secrets)


def sign(secret: str, text: bytes, algorithm: Algorithm = "sha256") -> str:
    """The signature of a text, in hexadecimal: as Vapi makes it."""
    return hmac.new(_key(secret), text, getattr(hashlib, algorithm)).hexdigest()


def _signature(headers: Mapping[str, str], signing: Signing) -> str | None:
    shown = next((headers[name] for name in signing.headers if name in headers), None)
    if shown is None:
        return None
    return shown.strip().removeprefix(signing.prefix).removeprefix(f"{signing.algorithm}=")


def _fits(shown: str, digest: bytes) -> bool:
    """In hexadecimal or base64; both are looked at, whichever it is."""
    written = shown.encode("latin-1", "replace")
    in_hex = hmac.compare_digest(written.lower(), digest.hex().encode())
    in_base64 = hmac.compare_digest(written, base64.b64encode(digest))
    return in_hex or in_base64


def _is_recent(stamp: str, now: datetime) -> bool:
    """Seconds or milliseconds since 1970, or ISO text."""
    if stamp.isascii() and stamp.isdigit() and len(stamp) < 17:
        seconds = float(stamp)
        seconds = seconds / 1000 if seconds >= 1e11 else seconds
    else:
        try:
            seconds = datetime.fromisoformat(stamp[:40]).timestamp()
        except (ValueError, OverflowError, OSError):
            return False
    return abs(now.timestamp() - seconds) <= REPLAYED_AFTER_S


def _is_one_of(shown: str, known: Iterable[str]) -> bool:
    found = False
    for each in known:  # all of them, so that the time taken tells nothing
        found |= hmac.compare_digest(shown.encode("latin-1", "replace"), _key(each))
    return found


def _key(secret: str) -> bytes:
    return secret.encode()
