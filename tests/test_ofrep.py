"""OFREP: the wire, its errors, the real clients that speak it, and the same answers as everywhere else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode

from relevo.access.roles import Role
from relevo.flags.evaluate import LONGEST_ID, Flag, evaluate
from relevo.serving.envelope import LONGEST_BODY
from tests.oracle import node
from tests.servers import Server
from tests.serving import BULK, FLAG, SINGLE, Answer, House, housed

pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

NPM = Path(__file__).parent / "npm"

Ask = Callable[..., Any]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(server: Server, template: str) -> AsyncIterator[House]:
    async with housed(server, template) as house:
        house.served.until("/readyz", 200)
        yield house


def write(house: House, **columns: Any) -> Flag:
    """Write the row by hand, as any other program might, and wait until the server answers by it."""
    row: dict[str, Any] = {"enabled": True, "percentage": 0, "enabled_tenants": [], "disabled_tenants": []} | columns
    with psycopg.connect(house.database.url, autocommit=True) as connection:
        version = connection.execute(
            """UPDATE public.feature_flags
               SET enabled = %(enabled)s, percentage = %(percentage)s,
                   enabled_tenants = %(enabled_tenants)s, disabled_tenants = %(disabled_tenants)s
               RETURNING version""",
            row,
        ).fetchone()
    assert version is not None
    while house.served.evaluate("x", house.viewer)["metadata"]["flagVersion"] < version[0]:
        pass
    lists = frozenset(row["enabled_tenants"]), frozenset(row["disabled_tenants"])
    return Flag(FLAG, row["enabled"], row["percentage"], *lists, version[0])


def single(house: House, body: Any, key: str = FLAG, token: str | None = None) -> Answer:
    return house.served.ask("POST", f"{BULK}/{key}", body, token=token or house.viewer)


def bulk(house: House, body: Any, etag: str | None = None, token: str | None = None) -> Answer:
    headers = {"if-none-match": etag} if etag is not None else None
    return house.served.ask("POST", BULK, body, token=token or house.viewer, headers=headers)


def of(tenant: str, **more: Any) -> dict[str, Any]:
    return {"context": {"targetingKey": tenant, **more}}


@pytest.mark.parametrize(
    ("row", "reason", "variant"),
    [
        ({"enabled": False, "percentage": 100, "enabled_tenants": ["a"]}, "DISABLED", "v1"),
        ({"disabled_tenants": ["a"], "percentage": 100}, "TARGETING_MATCH", "v1"),
        ({"enabled_tenants": ["a"]}, "TARGETING_MATCH", "v2"),
        ({"percentage": 100}, "SPLIT", "v2"),
        ({"percentage": 0}, "SPLIT", "v1"),
    ],
)
def test_each_of_the_four_steps_has_its_reason(house: House, row: dict[str, Any], reason: str, variant: str) -> None:
    flag = write(house, **row)
    answer = single(house, of("a"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    expected = {
        "key": FLAG,
        "value": variant == "v2",
        "variant": variant,
        "reason": reason,
        "metadata": {"flagVersion": flag.version},
    }
    assert answer.json == expected
    assert bulk(house, of("a")).json == {"flags": [expected]}


BAD = [
    (b"", 400, "PARSE_ERROR"),
    (b"{", 400, "PARSE_ERROR"),
    (b"null", 400, "PARSE_ERROR"),
    (b"[]", 400, "PARSE_ERROR"),
    (b"\xff", 400, "PARSE_ERROR"),
    (b'{"context": {"targetingKey": NaN}}', 400, "PARSE_ERROR"),
    (b'{"context": {"targetingKey": "\\ud800"}}', 400, "PARSE_ERROR"),
    (b'{"context": {"targetingKey": "a"}, "deep": ' + b"[" * 500_000 + b"}", 400, "PARSE_ERROR"),
    (b'{"context": {"targetingKey": "a\x00b"}}', 400, "PARSE_ERROR"),
    (b"{}", 400, "TARGETING_KEY_MISSING"),
    (b'{"context": null}', 400, "TARGETING_KEY_MISSING"),
    (b'{"context": {}}', 400, "TARGETING_KEY_MISSING"),
    (b'{"context": {"targetingKey": ""}}', 400, "TARGETING_KEY_MISSING"),
    (b'{"context": {"targetingKey": null}}', 400, "TARGETING_KEY_MISSING"),
    (b'{"context": []}', 400, "INVALID_CONTEXT"),
    (b'{"context": "a"}', 400, "INVALID_CONTEXT"),
    (b'{"context": {"targetingKey": 5}}', 400, "INVALID_CONTEXT"),
    (b'{"context": {"targetingKey": ["a"]}}', 400, "INVALID_CONTEXT"),
    (b'{"context": {"targetingKey": "' + b"x" * (LONGEST_ID + 1) + b'"}}', 400, "INVALID_CONTEXT"),
    (b'{"context": {"targetingKey": "' + b"x" * 1_000_000 + b'"}}', 400, "INVALID_CONTEXT"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD)
def test_a_bad_question_gets_its_error_code(house: House, body: bytes, status: int, code: str) -> None:
    answer = single(house, body)
    assert (answer.status, answer.json["key"], answer.json["errorCode"]) == (status, FLAG, code)
    assert answer.json["errorDetails"]
    answer = bulk(house, body)
    assert (answer.status, answer.json["errorCode"], "key" in answer.json) == (status, code, False)
    assert answer.json["errorDetails"]


def test_a_megabyte_and_more_is_too_large(house: House) -> None:
    for answer in (single(house, of("x" * LONGEST_BODY)), bulk(house, of("x" * LONGEST_BODY))):
        assert answer.status == 413
        assert answer.json["errorDetails"]


def test_any_text_is_a_tenant_id_even_one_that_postgresql_could_not_store(house: House) -> None:
    flag = write(house, percentage=50)
    for tenant in ("a\0b", "\0", " ", "x" * LONGEST_ID):
        assert house.served.evaluate(tenant, house.viewer)["value"] is evaluate(flag, tenant).value


@pytest.mark.parametrize("key", ["voice_agent_v3", "a/b", "%00", "%E2%82%AC", "x" * 2_000, FLAG.upper(), f"{FLAG}/"])
def test_an_unknown_flag_is_not_found(house: House, key: str) -> None:
    answer = single(house, of("a"), key)
    assert (answer.status, answer.json["errorCode"]) == (404, "FLAG_NOT_FOUND")
    assert answer.json["errorDetails"]


@pytest.mark.parametrize("path", [SINGLE, BULK])
@pytest.mark.parametrize("token", [None, "relevo_", "Bearer", f"relevo_{'0' * 10}_{'0' * 48}"])
def test_without_a_right_token_nothing_is_told(house: House, path: str, token: str | None) -> None:
    answer = house.served.ask("POST", path, of("a"), token=token)
    assert answer.status in {401, 429}  # 429 after many wrong ones
    assert "flags" not in answer.json


def test_both_headers_carry_a_token(house: House) -> None:
    for headers in ({"X-API-Key": house.viewer}, {"Authorization": f"bearer {house.viewer}"}):
        assert house.served.ask("POST", SINGLE, of("a"), headers=headers).status == 200


def test_nothing_changed_is_told_in_no_words(house: House) -> None:
    first = bulk(house, of("a", plan="x"))
    again = bulk(house, of("a", plan="x"), first.headers["etag"])
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert bulk(house, of("a", plan="x"), f'"other", W/{first.headers["etag"]}').status == 304
    assert bulk(house, of("a", plan="x"), '"other"').status == 200
    reordered = {"context": {"plan": "x", "targetingKey": "a"}}
    assert bulk(house, reordered, first.headers["etag"]).status == 304


@pytest.mark.parametrize("other", [of("b"), of("a", plan="y"), of("a", plan=None), of("a"), of("a", plan=["x"])])
def test_another_context_is_another_answer(house: House, other: Any) -> None:
    etag = bulk(house, of("a", plan="x")).headers["etag"]
    assert bulk(house, other, etag).status == 200


def test_another_version_is_another_answer(house: House) -> None:
    write(house, percentage=1)
    etag = bulk(house, of("a")).headers["etag"]
    write(house, percentage=2)
    assert bulk(house, of("a"), etag).status == 200


def test_another_caller_gets_an_answer_of_their_own(house: House) -> None:
    etag = bulk(house, of("a")).headers["etag"]
    assert bulk(house, of("a"), etag, house.secrets[Role.ADMIN]).status == 200


def openfeature_python(house: House, token: str) -> Ask:
    provider = OFREPProvider(house.served.address, headers_factory=lambda: {"Authorization": f"Bearer {token}"})
    api.set_provider(provider)
    return lambda tenant, key=FLAG: api.get_client().get_boolean_details(key, False, EvaluationContext(tenant))


def test_the_python_client_understands_us(house: House) -> None:
    flag = write(house, enabled_tenants=["a"])
    ask = openfeature_python(house, house.viewer)
    details = ask("a")
    assert (details.value, details.variant, details.reason) == (True, "v2", "TARGETING_MATCH")
    assert details.flag_metadata == {"flagVersion": flag.version}
    assert (ask("b").value, ask("b").variant) == (False, "v1")
    assert ask("a", "no_such_flag").error_code is ErrorCode.FLAG_NOT_FOUND
    assert ask("").error_code is ErrorCode.TARGETING_KEY_MISSING
    assert ask("x" * 1_001).error_code is ErrorCode.INVALID_CONTEXT
    write(house, enabled=False)
    assert ask("a").reason == "DISABLED"
    stranger = openfeature_python(house, "nonsense")
    assert (stranger("a").value, stranger("a").error_code) == (False, ErrorCode.GENERAL)


@contextmanager
def openfeature_javascript(house: House, kind: str) -> Iterator[Ask]:
    """A client of npm's, running in Node."""
    program = node()
    if program is None:
        pytest.skip("there is no node: make install")
    if not (NPM / "node_modules").exists():
        pytest.skip("OpenFeature's JavaScript clients are not installed: make test (npm's registry must answer)")
    command = [program, str(NPM / "ask.mjs"), kind, house.served.address]
    environment = {"TOKEN": house.viewer, "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def ask(context: Mapping[str, Any], key: str = FLAG) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps({"key": key, "context": context}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        try:
            yield ask
        finally:
            process.kill()


def test_the_javascript_client_for_servers_understands_us(house: House) -> None:
    flag = write(house, enabled_tenants=["a"])
    with openfeature_javascript(house, "server") as ask:
        details = ask({"targetingKey": "a"})
        assert (details["value"], details["variant"], details["reason"]) == (True, "v2", "TARGETING_MATCH")
        assert details["flagMetadata"] == {"flagVersion": flag.version}
        assert ask({"targetingKey": "b"})["variant"] == "v1"
        assert ask({"targetingKey": "a"}, "no_such_flag")["errorCode"] == "FLAG_NOT_FOUND"
        assert ask({})["errorCode"] == "TARGETING_KEY_MISSING"
        write(house, enabled=False)
        assert ask({"targetingKey": "a"})["reason"] == "DISABLED"


def test_the_javascript_client_for_browsers_understands_us(house: House) -> None:
    """It asks in bulk, keeps the ETag, and sends it again with whatever context it has by then."""
    flag = write(house, enabled_tenants=["a"])
    with openfeature_javascript(house, "web") as ask:
        details = ask({"targetingKey": "a"})
        assert (details["value"], details["variant"], details["reason"]) == (True, "v2", "TARGETING_MATCH")
        assert details["flagMetadata"] == {"flagVersion": flag.version}
        assert details["statuses"] == [200]
        other = ask({"targetingKey": "b"})
        assert (other["value"], other["statuses"]) == (False, [200])
        unchanged = ask({"targetingKey": "b"})
        assert (unchanged["value"], unchanged["statuses"]) == (False, [304])
        assert ask({"targetingKey": "a"})["value"] is True
