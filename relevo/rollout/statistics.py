"""What counts can tell, however often one looks. Pure functions of counts.

One sample is a betting martingale; two samples are judged by whom each error fell on. Both are mixtures over fixed
grids, whose chance of ever passing 1/α while nothing is wrong is at most α (Ville), so that looking each minute
raises no more false alarms than looking once.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import exp, inf, lgamma, log, log1p
from typing import NamedTuple

ALPHA = 0.05

# A bet on a rate of p0 + λ(1 − p0). Upwards from a small rate it may be any; downwards most of the way to nothing.
_UP = (0.006, 0.012, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
_DOWN = (0.4, 0.8, 0.98)
_TIMES_WORSE = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_HALVINGS = 24
"""To an end of an interval: what is left of it, to the safe side, is less than a ten-millionth."""


class Interval(NamedTuple):
    """Where a rate lies, each end with a confidence of 1 − α, at all looks together."""

    low: float
    high: float


class Stratum(NamedTuple):
    """One stretch of time: errors and calls of v1 and of v2 in it."""

    errors_v1: int
    calls_v1: int
    errors_v2: int
    calls_v2: int


def log_evidence_above(errors: int, calls: int, limit: float, bets: tuple[float, ...] = _UP) -> float:
    """How strongly the counts speak against "the rate is at most ``limit``" (0..1, neither end): log of an e-value.

    Raises ValueError for counts that cannot be.
    """
    if not 0 <= errors <= calls:
        raise ValueError(f"{errors} errors of {calls} calls")
    odds, fine = (1 - limit) / limit, calls - errors
    return _mean([errors * log1p(bet * odds) + fine * log1p(-bet) for bet in bets])


def is_above(errors: int, calls: int, limit: float, alpha: float = ALPHA) -> bool:
    """Whether the rate is shown to be above the limit."""
    return log_evidence_above(errors, calls, limit) >= log(1 / alpha)


def interval(errors: int, calls: int, alpha: float = ALPHA) -> Interval:
    """All rates that the counts do not speak against. Without calls: everything."""
    return Interval(_low(errors, calls, alpha, _UP), 1 - _low(calls - errors, calls, alpha, _DOWN))


def log_evidence_worse(strata: Iterable[Stratum]) -> float:
    """How strongly the counts speak against "v2 has errors no more often than v1": log of an e-value.

    Within a stratum, of all its errors v2 has under equal rates a hypergeometric share; bets priced for a binomial
    one are at most fair on that (Hoeffding 1963, theorem 4), whatever the rates are, and whatever they become in the
    next stratum. So a bad hour of both versions, or a cohort that grows, looks like nothing.
    """
    found = [each for each in strata if each.calls_v1 and each.calls_v2 and each.errors_v1 + each.errors_v2]
    return _mean([sum(_bet(each, times) for each in found) for times in _TIMES_WORSE])


def is_worse(strata: Iterable[Stratum], alpha: float = ALPHA) -> bool:
    """Whether v2 is shown to be worse than v1."""
    return log_evidence_worse(strata) >= log(1 / alpha)


def chance_of_more(errors: int, calls: int, other_errors: int, other_calls: int) -> float:
    """How likely it is, were both alike, that these calls have as many of all errors or more (Fisher's exact test).
    For one look only."""
    every, of = errors + other_errors, calls + other_calls
    most = min(every, calls)

    def term(count: int) -> float:
        return _log_choose(calls, count) + _log_choose(other_calls, every - count) - _log_choose(of, every)

    return min(1.0, sum(exp(term(count)) for count in range(errors, most + 1) if every - count <= other_calls))


def calls_to_show(limit: float, alpha: float = ALPHA) -> int:
    """How many calls without an error it takes to show that the rate is below the limit."""
    low, high = 1, 1
    while interval(0, high, alpha).high >= limit:
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        if interval(0, middle, alpha).high < limit:
            high = middle
        else:
            low = middle + 1
    return high


def _bet(stratum: Stratum, times: float) -> float:
    """The growth of a bet that an error is ``times`` as likely to be v2's as its share of the calls says."""
    share = stratum.calls_v2 / (stratum.calls_v1 + stratum.calls_v2)
    odds = 1 + (times - 1) * share
    return stratum.errors_v2 * log(times) - (stratum.errors_v1 + stratum.errors_v2) * log(odds)


@lru_cache(maxsize=1 << 14)  # each look asks for all metrics, most of which have the same counts as before
def _low(errors: int, calls: int, alpha: float, bets: tuple[float, ...]) -> float:
    """The lowest rate that the counts do not speak against."""
    if errors == 0:
        return 0.0
    low, high = 0.0, errors / calls
    against = log(1 / alpha)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle <= 0.0 or log_evidence_above(errors, calls, middle, bets) >= against:
            low = middle
        else:
            high = middle
    return low


def _log_choose(of: int, many: int) -> float:
    return lgamma(of + 1) - lgamma(many + 1) - lgamma(of - many + 1)


def _mean(logs: list[float]) -> float:
    """The logarithm of the mean, without leaving the logarithms."""
    most = max(logs)
    return most if most == -inf else most + log(sum([exp(each - most) for each in logs]) / len(logs))
