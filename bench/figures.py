"""One line of the table: a figure, what it is compared with, and whether that is what was asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
Contestant = Callable[[], Awaitable[float]]
HEADINGS = ("what", "figure", "compared with", "its figure", "ratio", "asked", "")


@dataclass(frozen=True, slots=True)
class Figure:
    """Two measurements of one run, side by side: on a noisy machine only their ratio means something."""

    what: str
    value: float
    compared_with: str
    other: float
    unit: str  # of both
    least: float | None = None  # what the ratio should be at least; None: no lower bound
    most: float | None = None  # and at most

    @property
    def ratio(self) -> float:
        """The figure, as a multiple of what it is compared with."""
        return self.value / self.other

    @property
    def asked(self) -> str:
        """The bounds, in words; empty where nothing was asked."""
        if self.least is not None and self.most is not None:
            return f"{self.least:g}–{self.most:g}×"
        if self.least is not None:
            return f"≥ {self.least:g}×"
        return f"≤ {self.most:g}×" if self.most is not None else ""

    @property
    def reached(self) -> bool | None:
        """Whether the ratio is within the bounds; None where nothing was asked."""
        if self.least is None and self.most is None:
            return None
        return (self.least is None or self.ratio >= self.least) and (self.most is None or self.ratio <= self.most)


async def in_turn(rounds: int, contestants: Mapping[Name, Contestant]) -> dict[Name, float]:
    """The least that each contestant took, in its own unit; all take part in every round, so that a noisy minute
    hits all of them."""
    best: dict[Name, float] = {}
    for _ in range(rounds):
        for name, measure in contestants.items():
            best[name] = min(best.get(name, float("inf")), await measure())
    return best


def table(figures: Iterable[Figure]) -> str:
    """The figures as aligned text."""
    verdict = {True: "reached", False: "MISSED", None: ""}
    lines = [HEADINGS] + [
        (
            each.what,
            f"{_short(each.value)} {each.unit}",
            each.compared_with,
            f"{_short(each.other)} {each.unit}",
            f"{each.ratio:.2f}×",
            each.asked,
            verdict[each.reached],
        )
        for each in figures
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.2f}"
