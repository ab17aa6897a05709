"""How long to wait after a failed attempt, and how long to go on trying. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

from relevo.comms.message import ChannelName

FIRST_S, LONGEST_S = 2.0, 600.0
CHANNEL_LONGEST_S = 60.0
"""A channel that fails is tried again at least this often, by one message: who is back is found within a minute."""
OBEYED_S = 3600.0
"""How long, at most, another side may ask to be left alone."""

GIVES_UP_AFTER: Mapping[ChannelName, timedelta] = MappingProxyType(
    {"slack": timedelta(days=1), "pagerduty": timedelta(days=1), "email": timedelta(days=3)}
)
"""How long a message is worth delivering. Those of yesterday only confuse; a client can read it on Monday."""


def pause_s(failures: int, chance: float, longest_s: float = LONGEST_S) -> float:
    """Seconds to wait after so many failures in a row, from 1. ``chance`` is 0..1: the pause is between half and all
    of twice as long as the one before, so that those who failed together do not come back together."""
    whole = min(FIRST_S * 2.0 ** min(failures - 1, 30), longest_s)
    return whole * (0.5 + chance / 2)
