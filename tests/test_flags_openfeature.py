"""The flag through OpenFeature's own client."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent
from openfeature.exception import ErrorCode
from openfeature.provider import ProviderStatus

from relevo import Flags
from relevo.db.pool import Database
from relevo.flags.openfeature import RelevoProvider
from tests.conftest import change
from tests.flags import write

PATIENCE_S = 30


@pytest.fixture
def events() -> Iterator[queue.Queue[tuple[ProviderEvent, EventDetails]]]:
    """What OpenFeature tells, of every provider, as it comes."""
    heard: queue.Queue[tuple[ProviderEvent, EventDetails]] = queue.Queue()
    for event in ProviderEvent:
        api.add_handler(event, lambda details, event=event: heard.put((event, details)))  # type: ignore[misc]
    yield heard
    api.clear_providers()  # and the handlers with them


async def next_event(events: queue.Queue[tuple[ProviderEvent, EventDetails]], wanted: ProviderEvent) -> EventDetails:
    """The next event of a kind that our provider caused."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            event, details = await asyncio.to_thread(events.get, True, PATIENCE_S)
            if event == wanted and details.provider_name == "relevo":
                return details


@pytest_asyncio.fixture
async def client(ready: Database) -> AsyncIterator[OpenFeatureClient]:
    """OpenFeature's client in front of the flag."""
    async with Flags(ready) as flags:
        api.set_provider_and_wait(RelevoProvider(flags))
        yield api.get_client()
        api.clear_providers()


def of(tenant: str) -> EvaluationContext:
    """The context in which a tenant is asked for."""
    return EvaluationContext(targeting_key=tenant)


async def test_both_colours_of_the_client_give_the_flags_answer(
    client: OpenFeatureClient, ready: Database, events: queue.Queue[tuple[ProviderEvent, EventDetails]]
) -> None:
    await write(ready, "enabled = true, percentage = 98, enabled_tenants = '{b}', disabled_tenants = '{c}'")
    await next_event(events, ProviderEvent.PROVIDER_CONFIGURATION_CHANGED)
    for tenant, expected in {
        "a": (True, "v2", "SPLIT"),
        "b": (True, "v2", "TARGETING_MATCH"),
        "c": (False, "v1", "TARGETING_MATCH"),
    }.items():
        answer = client.get_boolean_details("voice_agent_v2", False, of(tenant))
        assert (answer.value, answer.variant, answer.reason) == expected
        assert answer.flag_metadata == {"flagVersion": 2}
        assert await client.get_boolean_details_async("voice_agent_v2", False, of(tenant)) == answer


async def test_what_cannot_be_answered_gives_the_default_and_says_why(client: OpenFeatureClient) -> None:
    flag = "voice_agent_v2"
    for details, code in (
        (client.get_boolean_details("dark_mode", True, of("a")), ErrorCode.FLAG_NOT_FOUND),
        (client.get_boolean_details(flag, True), ErrorCode.TARGETING_KEY_MISSING),
        (client.get_boolean_details(flag, True, of("")), ErrorCode.TARGETING_KEY_MISSING),
        (client.get_boolean_details(flag, True, of("x" * 1001)), ErrorCode.INVALID_CONTEXT),
        (client.get_string_details(flag, "v1", of("a")), ErrorCode.TYPE_MISMATCH),
        (client.get_integer_details(flag, 1, of("a")), ErrorCode.TYPE_MISMATCH),
        (client.get_float_details(flag, 1.5, of("a")), ErrorCode.TYPE_MISMATCH),
        (client.get_object_details(flag, {"v": 1}, of("a")), ErrorCode.TYPE_MISMATCH),
        (client.get_string_details("dark_mode", "v1", of("a")), ErrorCode.FLAG_NOT_FOUND),
    ):
        assert (details.error_code, details.reason) == (code, "ERROR"), details
        assert details.value in (True, "v1", 1, 1.5, {"v": 1})


async def test_the_providers_state_is_told(
    ready: Database, database_url: str, events: queue.Queue[tuple[ProviderEvent, EventDetails]]
) -> None:
    name = database_url.rsplit("/", 1)[1]
    async with Flags(database_url) as flags:
        api.set_provider_and_wait(RelevoProvider(flags))
        assert (await next_event(events, ProviderEvent.PROVIDER_READY)).provider_name == "relevo"
        await write(ready, "percentage = 1")
        changed = await next_event(events, ProviderEvent.PROVIDER_CONFIGURATION_CHANGED)
        assert changed.flags_changed == ["voice_agent_v2"]
        await change(ready, f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        await change(
            ready,
            """SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
               WHERE application_name = 'relevo flags' AND datname = current_database()""",
        )
        await next_event(events, ProviderEvent.PROVIDER_STALE)
        assert api.get_client().get_provider_status() == ProviderStatus.STALE
        assert api.get_client().get_boolean_details("voice_agent_v2", True, of("a")).variant == "v1"
        await change(ready, f"ALTER DATABASE {name} CONNECTION LIMIT -1")
        await next_event(events, ProviderEvent.PROVIDER_READY)
        assert api.get_client().get_provider_status() == ProviderStatus.READY
        api.clear_providers()


async def test_before_the_flag_is_known_the_provider_is_not_ready() -> None:
    async with Flags("postgresql://nobody@127.0.0.1:1/nowhere") as flags:
        api.set_provider(RelevoProvider(flags))
        details = api.get_client().get_boolean_details("voice_agent_v2", True, of("a"))
        assert (details.value, details.error_code) in {
            (True, ErrorCode.PROVIDER_NOT_READY),
            (True, ErrorCode.GENERAL),
        }
        api.clear_providers()
