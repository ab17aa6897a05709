"""A hundred thousand bent messages: never an error of ours, never another tenant's words.

In-process and seeded, through the application and through the lane. RELEVO_FUZZ says how many; CI is content with two
thousand.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import AsyncIterator
from dataclasses import asdict
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from pydantic_core import to_json

from relevo.db.pool import Database
from relevo.errors import NoMessage
from relevo.webhooks.acting import decide
from relevo.webhooks.identify import identify
from relevo.webhooks.message import parse
from tests.calling import SECRET, Line, call, message
from tests.conftest import copied
from tests.inprocess import Asked, asking
from tests.servers import Server
from tests.test_webhook import prepared
from tests.test_webhook_calls import SHAPES

pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

MANY = int(os.environ.get("RELEVO_FUZZ", "2000"))
FAR = 1 << 70
NESTED: Any = []
for _ in range(150):
    NESTED = [NESTED]
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1.5, FAR, -FAR, 1e308, "", " ", "\0", "\ud83d", "a" * 5000, [], {}, [None], {"": None},
    NESTED, "2026-11-22", "9" * 400, [[]] * 50, {"id": {"id": []}}, "'; DROP TABLE relevo.calls; --", "NaN", "💥" * 60,
]  # fmt: skip
BYTES = [b"", b"\0", b"\xff\xfe", b"{", b"[" * 5000, b'{"message":' * 5000, b"null", b"1e999", b'"x"', b"\xed\xa0\x80"]
HEADERS: list[dict[str, str]] = [
    {"x-vapi-secret": "wrong"}, {"x-vapi-secret": SECRET[:-1]}, {"authorization": "Bearer "}, {"authorization": "x"},
    {"x-signature": "sha256=00", "x-timestamp": "0"}, {"x-signature": "\xe9", "x-timestamp": "\xe9"}, {},
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[False, True], ids=["application", "lane"])
async def world(
    server: Server, template: str, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Asked, list[Line]]]:
    with copied(server, template) as url:
        async with Database(url) as database:
            found = await prepared(database)
            async with asking(database, by_wire=request.param) as application:
                yield application, found


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a message."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


def bent(rng: Random, said: dict[str, Any], line: Line, foreign: Line) -> bytes:
    """A message with some values replaced, taken away or put elsewhere, some bytes changed, and foreign ids where a
    browser could have written them."""
    said = json.loads(json.dumps(said))
    claims = {"business_id": foreign.tenant_id, "tenant_id": foreign.tenant_id}
    overrides = {
        "metadata": claims,
        "variableValues": claims,
        "server": {"url": "http://evil/"},
        "id": foreign.assistant_id,
    }
    said["message"].setdefault("call", {})
    if rng.random() < 0.5:
        said["message"]["call"]["assistantOverrides"] = overrides
        said["message"]["metadata"] = claims
        said["business_id"] = foreign.tenant_id
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        path = rng.choice(places(said))
        target = said
        for key in path[:-1]:
            target = target[key]
        if path and rng.random() < 0.2:
            del target[path[-1]]
        elif path:
            target[path[-1]] = copy.deepcopy(rng.choice(STRANGE))
    on = said["message"].get("call") if isinstance(said, dict) and isinstance(said.get("message"), dict) else None
    if isinstance(on, dict) and isinstance(on.get("id"), str) and on["id"].strip("\0"):  # no two tenants share a call
        on["id"] = f"{on['id'][:90]} of {line.tenant_id}"
    body = bytearray(json.dumps(said).encode())
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        body[rng.randrange(len(body))] = rng.randrange(256)
    return bytes(body[: rng.randrange(len(body))] if rng.random() < 0.05 else body)


def evidence(body: bytes) -> set[str]:
    """All that a message says in places that Vapi fills."""
    try:
        said = json.loads(body.decode(errors="replace"))["message"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return set()

    def at(*path: str) -> str:
        value = said
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value.replace("\0", "") if isinstance(value, str) else ""

    ids = {at("call", "phoneNumberId"), at("phoneNumber", "id"), at("phoneNumber", "number"), at("call", "assistantId")}
    ids |= {at("call", "phoneNumber", "id"), at("call", "phoneNumber", "number"), at("assistant", "id")}
    return ids - {""}


async def test_no_bent_message_makes_an_error_or_tells_anothers_words(world: tuple[Asked, list[Line]]) -> None:
    application, found = world
    rng, seen = Random(7), dict.fromkeys((200, 400, 401, 413), 0)
    by_tenant = {line.tenant_id: line for line in found}
    shapes = [write for write, _, _ in SHAPES.values()]
    for _ in range(MANY):
        line, foreign = rng.sample(found, 2)
        call_id = f"fuzz-{rng.randrange(MANY)}"
        said = rng.choice(rng.choice(shapes)(line, call_id))
        if rng.random() < 0.1:
            kind = rng.choice(("transfer-destination-request", "handoff-destination-request", "hang", "x" * 300, "\0"))
            said = message(kind, call(line, call_id))
        body = rng.choice(BYTES) if rng.random() < 0.02 else bent(rng, said, line, foreign)
        stranger = rng.random() < 0.1
        forged = f"pin={rng.choice(('', 'x', 'AAAA' * 30, '%00', '%F0'))}" if rng.random() < 0.1 else ""
        answer = await application.tell(body, headers=rng.choice(HEADERS) if stranger else None, query=forged)
        assert answer.status in seen, (answer.status, answer.body, body)
        assert not stranger or answer.status == 401
        seen[answer.status] += 1
        told = answer.json.get("assistant") if answer.status == 200 else None
        if told is not None:
            whose = by_tenant.get(told["metadata"]["business_id"])
            prompt = told["model"]["messages"][0]["content"]
            if whose is not None:
                theirs = {whose.number_id, whose.number, whose.assistant_id}
                assert evidence(body) & theirs or f" of {whose.tenant_id}".encode() in body, body
            for other in found:
                if other.tenant_id != told["metadata"]["business_id"] and other.v1_prompt != (whose or other).v1_prompt:
                    assert prompt != other.v1_prompt, body
    assert min(seen[200], seen[400], seen[401]) > 0


async def test_what_is_read_of_a_bent_message_can_be_told_and_is_nobody_elses(world: tuple[Asked, list[Line]]) -> None:
    """The pure parts alone, three times as many."""
    application, found = world
    rng = Random(11)
    by_tenant = {line.tenant_id: line for line in found}
    shapes = [write for write, _, _ in SHAPES.values()]
    read = 0
    for _ in range(3 * MANY):
        line, foreign = rng.sample(found, 2)
        body = bent(rng, rng.choice(rng.choice(shapes)(line, "c")), line, foreign)
        try:
            event = parse(body)
        except NoMessage:
            continue
        read += 1
        to_json(asdict(event))
        whose = identify(application.webhook.known.directory, event).entry
        if whose is not None and (theirs := by_tenant.get(whose.tenant_id)) is not None:
            assert evidence(body) & {theirs.number_id, theirs.number, theirs.assistant_id}, body
        for each in event.tool_calls:
            decide(each)
    assert read > MANY
