"""How many wrong attempts one address may make before it has to wait. Pure: the moment is handed in.

Guessing 192 bits is hopeless with or without this; it keeps a misconfigured client, or a scanner, from filling logs
and from asking the database again and again whether its token is new. A right token is never made to wait.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

BURST = 10  # wrong tokens at once
EVERY_S = 6.0  # and one more per this many seconds
_ADDRESSES = 10_000  # as many are remembered; the one unheard of for longest is forgotten


class Guesses:
    """A bucket per address."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens left, as of

    def wrong(self, address: str, now_s: float) -> float | None:
        """Count a wrong one; returns the seconds until another is looked at, None while there is room."""
        place = _network(address)
        left = self._left(place, now_s)
        allowed = left >= 1
        self._buckets.pop(place, None)
        self._buckets[place] = (left - 1 if allowed else left, now_s)
        if len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)
        return None if allowed else (1 - left) * EVERY_S

    def waits(self, address: str, now_s: float) -> float | None:
        """The seconds until another is looked at, without counting one; None while there is room."""
        left = self._left(_network(address), now_s)
        return None if left >= 1 else (1 - left) * EVERY_S

    def _left(self, place: str, now_s: float) -> float:
        left, since = self._buckets.get(place, (float(BURST), now_s))
        return min(float(BURST), left + (now_s - since) / EVERY_S)


def _network(address: str) -> str:
    """Who owns an IPv6 address owns its /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
