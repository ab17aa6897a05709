"""The breakers of a process: what counts against a handler, and what is one tenant's alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
import pytest_asyncio

from relevo.db.pool import Database
from relevo.flags.store import Flags
from relevo.metrics.breakers import Breaker, breakers
from relevo.metrics.record import Pin, Version
from relevo.webhooks import answers
from relevo.webhooks.answers import Template
from relevo.webhooks.asking import Asked, Asking
from relevo.webhooks.breaker import RULES, after_probe
from relevo.webhooks.breaking import Breakers, Key
from relevo.webhooks.calls import Calls
from relevo.webhooks.handlers import upstream
from relevo.webhooks.handlers.upstream import HandlerFailed, NothingToSay, Upstream
from relevo.webhooks.identify import Entry
from relevo.webhooks.known import Known
from relevo.webhooks.message import Event
from relevo.webhooks.shadow import Shadow
from relevo.webhooks.unplaced import Unplaced
from tests.calling import lines
from tests.conftest import NOW, change, value
from tests.servers import Server
from tests.silence import Wire, relay

ASKED = Asked(Event(type="assistant-request"), b"{}", (), answers.house("https://x", None, {}))
V1, V2 = ("v1", ""), ("v2", "")
OPEN = """
    INSERT INTO relevo.breakers (version, upstream, state, window_at, opened_at, probe_at, changed_at)
    VALUES (%s, %s, 'open', %s, %s, %s, %s)
"""


@dataclass(slots=True)
class Hands:
    """A clock that is set by hand."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass(slots=True)
class Desk:
    """Whoever asks the handlers, and two tenants: one well, one whose v1 prompt is empty, and whom v2 does not have."""

    database: Database
    known: Known
    breakers: Breakers
    asking: Asking
    well: Entry
    empty: Entry
    clock: Hands
    upstreams: dict[Version, Upstream] = field(default_factory=dict)

    async def asked(self, entry: Entry, version: Version, times: int = 1) -> list[str]:
        """Who answers, or why nobody does."""
        return [await self._asked(entry, version) for _ in range(times)]

    async def _asked(self, entry: Entry, version: Version) -> str:
        try:
            answer = await self.asking.ask(ASKED, entry, version, 2.5)
        except HandlerFailed as failure:
            return str(failure)
        assert isinstance(answer, Template)
        return version

    async def state(self) -> dict[Key, Breaker]:
        """As all processes share it, once what was seen here has been told."""
        await self.breakers.refresh()
        async with self.database.transaction() as connection:
            return {(each.version, each.upstream): each for each in await breakers(connection)}

    async def open(self, key: Key, probe_in: timedelta) -> None:
        """As another process would."""
        await change(self.database, OPEN, (*key, NOW, NOW, self.clock.now + probe_in, NOW))
        await self.breakers.refresh()


@pytest_asyncio.fixture
async def desk(mirrored: Database) -> AsyncIterator[Desk]:
    well, empty, *_ = await lines(mirrored)
    await change(
        mirrored, "UPDATE public.voice_agent_config SET system_prompt = '' WHERE id::text = %s", (empty.config_id,)
    )
    clock, upstreams = Hands(), dict[Version, Upstream]()
    known, shared = Known(mirrored, clock), Breakers(mirrored, clock, "tests")
    calls = Calls(mirrored, known, clock)
    asking = Asking(known, calls, Flags(mirrored), shared, Unplaced(mirrored, clock), clock, upstreams)
    assert await known.refresh()
    entries = [known.of_tenant(each.tenant_id) for each in (well, empty)]
    one, other = (each for each in entries if each is not None)
    yield Desk(mirrored, known, shared, asking, one, replace(other, in_v2=False), clock, upstreams)


async def test_a_tenant_without_a_prompt_costs_no_other_tenant_the_answer(desk: Desk) -> None:
    assert set(await desk.asked(desk.empty, "v1", RULES.at_least)) == {"v1 has no prompt"}
    assert V1 not in await desk.state()
    assert await desk.asked(desk.well, "v1") == ["v1"]


async def test_tenants_that_v2_does_not_have_are_no_fault_of_v2(desk: Desk) -> None:
    assert set(await desk.asked(desk.empty, "v2", RULES.at_least)) == {"no v2 row, or it is set aside"}
    assert V2 not in await desk.state()
    assert await desk.asked(desk.well, "v2") == ["v2"]


async def test_a_probe_that_meets_such_a_tenant_is_handed_on_to_the_next_call(desk: Desk) -> None:
    await desk.open(V1, timedelta(0))
    assert await desk.asked(desk.empty, "v1") == ["v1 has no prompt"]
    assert (await desk.state())[V1].state == "open"
    assert await desk.asked(desk.well, "v1") == ["v1"]
    assert (await desk.state())[V1].state == "closed"


def test_what_a_probe_leads_to() -> None:
    assert after_probe(True, NOW) == ("closed", None)
    assert after_probe(False, NOW) == ("open", NOW + RULES.rests_for)
    assert after_probe(None, NOW) == ("open", NOW)


async def test_a_shadow_tells_the_breaker_nothing(desk: Desk) -> None:
    async with upstream.session() as session:
        desk.upstreams["v2"] = away = Upstream(session, "http://127.0.0.1:1/hook")
        shadow = Shadow(desk.database, desk.known, desk.asking, share=1)
        for number in range(RULES.at_least):
            shadow.watch(ASKED, _pin(desk.well, number), b"{}")
        await shadow.finish()
        key = ("v2", away.name)
        assert key not in await desk.state()
        with pytest.raises(HandlerFailed, match="ClientConnector"):
            await desk.asking.look(ASKED, desk.well, "v2", 2.5)


async def test_a_shadow_takes_nobodys_probe(desk: Desk) -> None:
    await desk.open(V2, timedelta(0))
    with pytest.raises(HandlerFailed, match="its breaker is open"):
        await desk.asking.look(ASKED, desk.well, "v2", 2.5)
    assert (await desk.state())[V2].state == "open"


async def test_what_is_not_known_of_a_tenant_is_not_called_an_empty_prompt(desk: Desk) -> None:
    stranger = Entry("not-there", desk.well.tenant_id, active=True, in_v1=True, in_v2=True)
    with pytest.raises(NothingToSay, match="what v1 says is not known"):
        await desk.asking.ask(ASKED, stranger, "v1", 2.5)
    with pytest.raises(NothingToSay, match="what v2 says is not known"):
        await desk.asking.ask(ASKED, stranger, "v2", 2.5)


# Without the database ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Alone:
    """The breakers of a process whose database has fallen silent; v1's was open, and its probe is due."""

    breakers: Breakers
    clock: Hands
    wire: Wire
    database: Database  # by a way that is not silent

    async def shared(self) -> str:
        """v1's state as others see it."""
        return str(await value(self.database, "SELECT state FROM relevo.breakers WHERE version = 'v1'"))


@pytest_asyncio.fixture
async def alone(server: Server, ready: Database, database_url: str) -> AsyncIterator[Alone]:
    clock = Hands()
    async with relay(server.port) as wire, Database(database_url.replace(f":{server.port}/", f":{wire.port}/")) as ours:
        shared = Breakers(ours, clock, "tests")
        await change(ready, OPEN, (*V1, NOW, NOW, NOW, NOW))
        await shared.refresh()
        wire.silent = True
        yield Alone(shared, clock, wire, ready)
        wire.silent = False
        wire.cut()
        await shared.finish()


async def test_a_caller_does_not_wait_for_the_driver_to_give_up(alone: Alone) -> None:
    before = alone.wire.closed
    assert await alone.breakers.admit(V1) == "probe"
    assert alone.wire.closed == before  # the driver is still trying to call it off
    await alone.breakers.told(V1, "probe", 0.1, failed=False)
    await alone.breakers.refresh()
    assert alone.wire.closed == before


async def test_an_open_breaker_closes_without_the_database(alone: Alone) -> None:
    assert await alone.breakers.admit(V1) == "probe"
    assert await alone.breakers.admit(V1) == "stop"
    await alone.breakers.told(V1, "probe", 0.1, failed=False)
    assert await alone.breakers.admit(V1) == "go"


@pytest.mark.parametrize("failed", [True, False], ids=["failed", "slow"])
async def test_one_probe_goes_in_each_rest_while_the_database_is_silent(alone: Alone, failed: bool) -> None:
    for _ in range(2):
        assert sorted(await asyncio.gather(*[alone.breakers.admit(V1) for _ in range(5)])) == ["probe", *["stop"] * 4]
        await alone.breakers.told(V1, "probe", RULES.slow_s, failed=failed)
        assert await alone.breakers.admit(V1) == "stop"
        alone.clock.now += RULES.rests_for


async def test_a_probe_that_is_never_heard_of_again_is_followed_by_another(alone: Alone) -> None:
    assert await alone.breakers.admit(V1) == "probe"
    alone.clock.now += RULES.rests_for
    assert await alone.breakers.admit(V1) == "probe"


async def test_a_probe_of_ours_that_told_nothing_is_handed_on(alone: Alone) -> None:
    assert await alone.breakers.admit(V1) == "probe"
    await alone.breakers.told(V1, "probe", 0.1, failed=None)
    assert await alone.breakers.admit(V1) == "probe"


async def test_what_fails_meanwhile_is_left_alone_by_us(alone: Alone) -> None:
    for _ in range(RULES.at_least):
        assert await alone.breakers.admit(V2) == "go"
        await alone.breakers.told(V2, "go", 0.1, failed=True)
    await alone.breakers.refresh()
    assert await alone.breakers.admit(V2) == "stop"


async def test_when_the_database_is_back_the_state_is_everybodys_again(alone: Alone) -> None:
    assert await alone.breakers.admit(V1) == "probe"
    await alone.breakers.told(V1, "probe", 0.1, failed=False)
    assert (await alone.breakers.admit(V1), await alone.shared()) == ("go", "open")
    alone.wire.silent = False
    alone.wire.cut()
    await alone.breakers.finish()
    await alone.breakers.refresh()
    assert (await alone.breakers.admit(V1), await alone.shared()) == ("probe", "half_open")
    await alone.breakers.told(V1, "probe", 0.1, failed=False)
    assert (await alone.breakers.admit(V1), await alone.shared()) == ("go", "closed")


def _pin(entry: Entry, number: int) -> Pin:
    return Pin(
        call_id=f"c{number}", tenant_id=entry.tenant_id, version="v1", served_version="v1", decided_at=NOW,
        decided_by="flag", asked=True, flag_version=1,
    )  # fmt: skip
