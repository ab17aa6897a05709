"""What is remembered of a large platform, for how long, and that a small one is counted each time."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from relevo.dashboard.directory import Directory, Wanted
from relevo.dashboard.remembering import FRESH_FOR, GOOD_FOR, SMALL, Remembered
from tests.conftest import NOW
from tests.flags import flag


class Counting:
    """Something that is counted, and how often it was; ``may_go`` holds it up."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.times = 0
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.counted_twice = asyncio.Event()
        self.now = NOW
        self.remembered = Remembered(self.clock)

    def clock(self) -> datetime:
        """The present moment."""
        return self.now

    async def count(self) -> tuple[int, int]:
        """How often it was."""
        await self.may_go.wait()
        self.times += 1
        if self.times == 2:
            self.counted_twice.set()
        return self.times, self.size

    async def get(self, key: object = "key") -> int:
        """What is known."""
        return (await self.remembered.get("it", key, self.count)).what


async def test_a_small_platform_is_counted_each_time() -> None:
    small = Counting(SMALL)
    assert [await small.get(), await small.get()] == [1, 2]


async def test_a_large_one_is_remembered_until_its_key_is_another() -> None:
    large = Counting(SMALL + 1)
    assert [await large.get(), await large.get(), await large.get("other")] == [1, 1, 2]


async def test_what_is_older_is_counted_again_behind_whoever_asks() -> None:
    large = Counting(SMALL + 1)
    await large.get()
    large.now += FRESH_FOR + timedelta(seconds=1)
    large.may_go.clear()
    assert [await large.get(), await large.get()] == [1, 1]
    large.may_go.set()
    await large.counted_twice.wait()
    await asyncio.sleep(0)  # until what was counted is written down
    assert (await large.get(), large.times) == (2, 2)


async def test_what_is_far_too_old_is_waited_for() -> None:
    large = Counting(SMALL + 1)
    await large.get()
    large.now += GOOD_FOR + timedelta(seconds=1)
    assert await large.get() == 2


async def test_many_who_ask_at_once_are_counted_for_once() -> None:
    large = Counting(SMALL + 1)
    assert set(await asyncio.gather(*(large.get() for _ in range(9)))) == {1}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), ["a", "b", "c", "d"]),
        (Wanted(state="live"), ["b"]),
        (Wanted(state="verified"), ["c"]),
        (Wanted(state="drifted"), ["a", "d"]),
        (Wanted(on_v2=True), ["a", "b"]),
        (Wanted(word="CAF"), ["c"]),
        (Wanted(word="d"), ["b", "d"]),
    ],
)
def test_tenants_are_found_by_the_flag_as_it_is(wanted: Wanted, found: list[str]) -> None:
    names, states = ["arena", "el dorado", "un cafe", ""], ["drifted", "verified", "verified", "drifted"]
    directory = Directory(["a", "b", "c", "d"], names, states, [""] * 4, [5, 90, 50, 5])
    now = flag(percentage=10, on=["b"], off=["d"])
    folded = (wanted.word or "").lower()
    assert [directory.ids[at] for at in directory.places(now, wanted, folded)] == found
    nobody = flag(enabled=False, version=2)
    assert not directory.places(nobody, Wanted(on_v2=True), "")
