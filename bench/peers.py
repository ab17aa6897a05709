"""The same rule in other flag libraries, from memory, as each would be used: contexts are made beforehand, for what is
measured is the answer. Nothing here needs a network."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

FLAG = "voice_agent_v2"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who is on v2: nobody of one list, everybody of another, and a share of the rest."""

    percentage: int
    enabled: Sequence[str]
    disabled: Sequence[str]


Ask = Callable[[], int]  # ask for every tenant once; how many are on v2


@contextmanager
def peers(rule: Rule, tenants: Sequence[str]) -> Iterator[dict[str, Ask]]:
    """Each library that is installed, by its name, ready to be asked."""
    with ExitStack() as stack:
        yield {
            "UnleashClient": stack.enter_context(unleash(rule, tenants)),
            "growthbook": stack.enter_context(growthbook(rule, tenants)),
            "launchdarkly-server-sdk": stack.enter_context(launchdarkly(rule, tenants)),
            "OpenFeature, in-memory provider": stack.enter_context(openfeature(rule, tenants)),
        }


@contextmanager
def unleash(rule: Rule, tenants: Sequence[str]) -> Iterator[Ask]:
    """UnleashClient, bootstrapped: two strategies, of which one suffices, both closed to the disabled."""
    from UnleashClient import UnleashClient
    from UnleashClient.cache import FileCache

    not_disabled = [{"contextName": "userId", "operator": "NOT_IN", "values": [*rule.disabled]}]
    listed = [{"contextName": "userId", "operator": "IN", "values": [*rule.enabled]}]
    share = {"rollout": str(rule.percentage), "stickiness": "userId", "groupId": FLAG}
    strategies = [
        {"name": "default", "parameters": {}, "constraints": [*not_disabled, *listed]},
        {"name": "flexibleRollout", "parameters": share, "constraints": not_disabled},
    ]
    toggle = {"name": FLAG, "type": "release", "enabled": True, "strategies": strategies}
    with tempfile.TemporaryDirectory() as folder:
        cache = FileCache("bench", directory=folder)
        cache.bootstrap_from_dict({"version": 2, "features": [toggle]})
        client = UnleashClient(
            url="http://127.0.0.1:9/api",
            app_name="bench",
            cache=cache,
            disable_metrics=True,
            disable_registration=True,
            refresh_interval=86_400,
        )
        client.initialize_client(fetch_toggles=False)
        contexts = [{"userId": tenant} for tenant in tenants]
        try:
            yield lambda: sum(client.is_enabled(FLAG, context) for context in contexts)
        finally:
            client.destroy()


@contextmanager
def growthbook(rule: Rule, tenants: Sequence[str]) -> Iterator[Ask]:
    """GrowthBook with its features handed in."""
    from growthbook import GrowthBook

    rules = [
        {"condition": {"id": {"$in": [*rule.disabled]}}, "force": False},
        {"condition": {"id": {"$in": [*rule.enabled]}}, "force": True},
        {"coverage": rule.percentage / 100, "hashAttribute": "id", "force": True},
    ]
    client = GrowthBook(features={FLAG: {"defaultValue": False, "rules": rules}})
    attributes = [{"id": tenant} for tenant in tenants]

    def ask() -> int:
        found = 0
        for each in attributes:
            client.set_attributes(each)
            found += client.is_on(FLAG)
        return found

    try:
        yield ask
    finally:
        client.destroy()


@contextmanager
def launchdarkly(rule: Rule, tenants: Sequence[str]) -> Iterator[Ask]:
    """LaunchDarkly's server SDK, its flag from a file, as its tests do it."""
    from ldclient import Context, LDClient
    from ldclient.config import Config
    from ldclient.integrations import Files

    share = rule.percentage * 1_000
    flag = {
        "key": FLAG,
        "on": True,
        "version": 1,
        "salt": "relevo",
        "variations": [True, False],
        "offVariation": 1,
        "targets": [{"variation": 1, "values": [*rule.disabled]}, {"variation": 0, "values": [*rule.enabled]}],
        "fallthrough": {
            "rollout": {"variations": [{"variation": 0, "weight": share}, {"variation": 1, "weight": 100_000 - share}]}
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "flags.json"
        file.write_text(json.dumps({"flags": {FLAG: flag}}), encoding="utf-8")
        source = Files.new_data_source(paths=[str(file)])
        client = LDClient(Config("bench", update_processor_class=source, send_events=False), start_wait=5)
        contexts = [Context.create(tenant) for tenant in tenants]
        try:
            yield lambda: sum(client.variation(FLAG, context, False) for context in contexts)
        finally:
            client.close()


@contextmanager
def openfeature(rule: Rule, tenants: Sequence[str]) -> Iterator[Ask]:
    """OpenFeature's client on its in-memory provider, which answers by looking up who is on v2."""
    from openfeature import api
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.flag_evaluation import FlagResolutionDetails
    from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

    from relevo.flags.evaluate import percentile

    share = {tenant for tenant in tenants if percentile(tenant) < rule.percentage}
    chosen = (share | {*rule.enabled}) - {*rule.disabled}

    def decide(_flag: InMemoryFlag[bool], context: EvaluationContext) -> FlagResolutionDetails[bool]:
        return FlagResolutionDetails(value=context.targeting_key in chosen)

    flag = InMemoryFlag("off", {"on": True, "off": False}, context_evaluator=decide)
    api.set_provider_and_wait(InMemoryProvider({FLAG: flag}))
    client = api.get_client()
    contexts = [EvaluationContext(tenant) for tenant in tenants]
    try:
        yield lambda: sum(client.get_boolean_value(FLAG, False, context) for context in contexts)
    finally:
        api.clear_providers()
