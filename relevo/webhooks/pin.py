"""The signed pin: who answers a call, in the URL that its messages are sent to.

It survives an outage of the database, saves the reading of the row, and proves that a message of its own call comes
from whom we answered: it is made of the call's id, and no other call can use it. Pure; the keys are in the database.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from pydantic_core import from_json, to_json

from relevo.metrics.record import Pin, Version

PARAMETER = "pin"
GOOD_FOR = timedelta(days=7)
"""A report may come late, but not that late."""
_LONGEST = 2_000  # bytes of a pin
_MAC_BYTES = 32
_LONGEST_KEY = 64  # bytes that BLAKE2 takes of a key
_USE = b"relevo-pin"  # so that nothing else signed with such a key is a pin


@dataclass(frozen=True, slots=True)
class Keys:
    """The signing keys by their number; the newest signs, all are accepted."""

    secrets: Mapping[int, bytes]

    @property
    def newest(self) -> int | None:
        """The key to sign with; None: there is none yet."""
        return max(self.secrets, default=None)


def signed(pin: Pin, keys: Keys) -> str | None:
    """A pin as text fit for a URL; None without a key."""
    number = keys.newest
    if number is None:
        return None
    payload = to_json(
        [
            number,
            pin.call_id,
            pin.tenant_id,
            pin.version,
            pin.served_version,
            int(pin.decided_at.timestamp() * 1_000_000),
            pin.decided_by,
            pin.asked,
            pin.flag_version,
        ]
    )
    return _written(_mac(keys.secrets[number], payload) + payload)


def verified(text: str, keys: Keys, now: datetime) -> Pin | None:
    """The pin that a text is; None for a forged or an old one."""
    try:
        raw = base64.b64decode(_padded(text), altchars=b"-_", validate=True) if len(text) <= _LONGEST else b""
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        said = from_json(payload)
        key = keys.secrets.get(said[0])
        if key is None or not hmac.compare_digest(mac, _mac(key, payload)):
            return None
    except (ValueError, TypeError, LookupError):
        return None
    _, call_id, tenant_id, version, served, decided_us, decided_by, asked, flag_version = said  # ours: we signed it
    decided_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=decided_us)
    if not now - GOOD_FOR <= decided_at <= now + timedelta(minutes=5):
        return None
    return Pin(
        call_id=call_id,
        tenant_id=tenant_id,
        version=version,
        served_version=served,
        decided_at=decided_at,
        decided_by=decided_by,
        asked=asked,
        flag_version=flag_version,
    )


def claimed(query: bytes) -> tuple[Version, Version] | None:
    """The versions that decided and answered, as the pin in a URL's query says; unproved, for whoever plays Vapi."""
    text = in_query(query)
    try:
        said = from_json(base64.b64decode(_padded(text or ""), altchars=b"-_", validate=True)[_MAC_BYTES:])
        return said[3], said[4]
    except (ValueError, TypeError, LookupError):
        return None


def in_query(query: bytes) -> str | None:
    """The pin's text in the query of a URL; None where there is none, or so much else that the URL is none of ours."""
    if PARAMETER.encode() not in query:
        return None
    try:
        found = parse_qs(query.decode("latin-1"), max_num_fields=20).get(PARAMETER)
    except ValueError:
        return None
    return found[0] if found else None


def _mac(key: bytes, payload: bytes) -> bytes:
    """BLAKE2's own keyed mode: as good as HMAC with SHA-256, in half of the time."""
    return hashlib.blake2b(payload, key=key[:_LONGEST_KEY], digest_size=_MAC_BYTES, person=_USE).digest()


def _written(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _padded(text: str) -> bytes:
    written = text.encode("ascii", "strict")
    return written + b"=" * (-len(written) % 4)
