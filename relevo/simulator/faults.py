"""Rows that are broken on purpose, as real v1 databases have them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from relevo.simulator.chance import apart, identity
from relevo.simulator.rows import Call, Configuration

FEWEST_TENANTS = 20
FEWEST_CALLS = 1_000

BreakConfiguration = Callable[[Random, Configuration], Configuration]
BreakCall = Callable[[Random, Call, Call], Call]  # the call, and the one before it

# Configurations that belong to no business: added to those of the tenants.
LOST_CONFIGURATIONS: dict[str, BreakConfiguration] = {
    "config_without_business": lambda _rng, row: row._replace(business_id=None),
    "config_with_unknown_business": lambda rng, row: row._replace(business_id=identity(rng)),
}

BROKEN_CALLS: dict[str, BreakCall] = {
    "call_without_business": lambda _rng, row, _before: row._replace(business_id=None),
    "call_with_unknown_business": lambda rng, row, _before: row._replace(business_id=identity(rng)),
    "duplicate_vapi_call_id": lambda _rng, row, before: before._replace(id=row.id),  # recorded twice
}


@dataclass(frozen=True, slots=True)
class Faults:
    """Which rows are broken; tenants and calls by their number from 0."""

    without_vertical: frozenset[int] = frozenset()
    sharing_phone: frozenset[int] = frozenset()  # each with the tenant before it
    lost_configurations: tuple[str, ...] = ()  # the kind of each
    calls: Mapping[int, str] = field(default_factory=dict)  # the kind of each

    def counts(self) -> dict[str, int]:
        """How many rows are broken, by kind; a kind that does not occur is absent."""
        kinds = Counter([*self.lost_configurations, *self.calls.values()])
        kinds["business_without_vertical"] = len(self.without_vertical)
        kinds["duplicate_phone_number_id"] = len(self.sharing_phone)
        return dict(+kinds)


def _some(rng: Random, kinds: Iterable[str]) -> list[str]:
    return [kind for kind in kinds for _ in range(rng.randint(1, 3))]


def plan(rng: Random, tenants: int, calls: int) -> Faults:
    """One to three rows of each kind; none in a world too small to hide them."""
    if tenants < FEWEST_TENANTS:
        return Faults()
    mute, sharing = rng.randint(1, 3), rng.randint(1, 3)
    chosen = apart(rng, tenants, mute + sharing)
    lost = _some(rng, LOST_CONFIGURATIONS)  # before the calls: their number changes nothing else
    broken = _some(rng, BROKEN_CALLS) if calls >= FEWEST_CALLS else []
    return Faults(
        without_vertical=frozenset(chosen[:mute]),
        sharing_phone=frozenset(chosen[mute:]),
        lost_configurations=tuple(lost),
        calls=dict(zip(apart(rng, calls, len(broken)), broken, strict=True)),
    )


def break_calls(rng: Random, calls: Iterable[Call], kinds: Mapping[int, str]) -> Iterator[Call]:
    """The same calls, those whose number is in ``kinds`` broken in that way."""
    before = None
    for number, call in enumerate(calls):
        if before is not None and number in kinds:
            call = BROKEN_CALLS[kinds[number]](rng, call, before)
        yield call
        before = call
