"""Draws that the standard library does not offer. Chance itself is always an argument."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from random import Random
from typing import TypeVar
from uuid import UUID

Card = TypeVar("Card")


def identity(rng: Random) -> UUID:
    """A version 4 UUID."""
    return UUID(int=rng.getrandbits(128), version=4)


def deal(rng: Random, deck: Sequence[Card]) -> Iterator[Card]:
    """The deck's cards in random order, and again shuffled, without end.

    Shares are thereby kept in small worlds too, and every card appears once per round.
    """
    while True:
        yield from rng.sample(deck, len(deck))


def apart(rng: Random, below: int, count: int) -> list[int]:
    """``count`` distinct odd numbers under ``below``: no two neighbours, and never 0."""
    return rng.sample(range(1, below, 2), count)


def scatter(rng: Random, weights: Iterable[float], count: int) -> Counter[int]:
    """How many of ``count`` balls fall into each bin, bins numbered from 0 and as wide as their weight."""
    edges = list(accumulate(weights))
    last, width = len(edges) - 1, edges[-1]
    return Counter(bisect(edges, rng.random() * width, 0, last) for _ in range(count))
