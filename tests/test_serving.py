"""relevo serve, as clients, attackers, load balancers and operators meet it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from relevo.access import tokens
from relevo.access.guesses import BURST
from relevo.access.roles import Role
from relevo.clock import system_clock
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.serving.envelope import LONGEST_BODY, SECURITY_HEADERS
from tests.conftest import OWNER, change, rows, value
from tests.servers import Server, free_port, running
from tests.serving import API, FLAG, SINGLE, Answer, House, Served, housed, secrets_of_each_role, serving

pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

WRITES = ("set-percentage", "enable", "disable", "on", "off")
NESTED = b'{"context":' * 100_000
PROBES = ("/healthz", "/readyz", "/metrics", "/api/openapi.json")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(server: Server, template: str) -> AsyncIterator[House]:
    async with housed(server, template) as house:
        yield house


async def flag_row(database: Database) -> dict[str, Any]:
    (row,) = await rows(database, "SELECT * FROM public.feature_flags")
    return row


def parsed(received: bytes) -> tuple[int, bytes]:
    """Status and body of an answer read from a bare socket."""
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def test_anybody_may_ask_whether_it_is_well(house: House) -> None:
    assert house.served.ask("GET", "/healthz").json == {"alive": True}
    ready = house.served.until("/readyz", 200).json
    assert (ready["status"], ready["reasons"], ready["draining"]) == ("ready", [], False)
    assert ready["database"] == {"ok": True, "why": None}
    assert (ready["flag"]["seen"], ready["flag"]["notified_by"]) == (True, "listen")


def test_the_openapi_document_is_public_and_names_the_roles(house: House) -> None:
    document = house.served.ask("GET", "/api/openapi.json").json
    operations = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if path.startswith("/api/")
    }
    assert len(operations) > 5
    for (method, path), operation in operations.items():
        assert operation["x-role"] == ("viewer" if method == "get" else "operator")
        assert operation["security"] == [{"bearer": []}, {"key": []}]
        done = "201" if path.endswith("/complaints") and method == "post" else "200"
        assert operation["responses"].keys() == {done, "4XX", "5XX"}
    assert document["components"]["securitySchemes"].keys() == {"bearer", "key"}
    assert house.served.ask("GET", "/docs").status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", path, 200) for path in PROBES),
        ("GET", "/nowhere", 404),
        ("DELETE", "/healthz", 405),
        ("PROPFIND", "/healthz", 405),
        ("GET", API, 401),
        ("POST", f"{API}/on", 401),
        ("POST", SINGLE, 401),
        ("GET", "/" + "x" * 5_000, 404),
        ("GET", "/%00", 404),
    ],
)
def test_every_answer_carries_the_security_headers(house: House, method: str, path: str, status: int) -> None:
    answer = house.served.ask(method, path)
    assert answer.status == status
    assert {name: answer.headers.get(name) for name, _ in SECURITY_HEADERS} == dict(SECURITY_HEADERS)
    assert answer.headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in answer.headers  # this is no https
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    "bent", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_what_is_no_http_gets_the_security_headers_too(house: House, bent: bytes) -> None:
    with house.served.raw(bent) as connection:
        received = read_all(connection).lower()
    assert parsed(received)[0] == 400
    assert b"content-security-policy:" in received


def test_metrics_tell_of_routes_and_of_no_tenant(house: House) -> None:
    house.served.evaluate("tenant-of-the-metrics", house.viewer)
    house.served.ask("GET", "/somebody/private")
    house.served.ask("PROPFIND", "/healthz")
    told = house.served.ask("GET", "/metrics").body.decode()
    assert re.search(
        r'relevo_http_requests_total\{method="POST",route="/ofrep/v1/evaluate/flags/\{key:path\}",status="200"\} \d',
        told,
    )
    assert 'route="unmatched",status="404"' in told
    assert 'method="other"' in told
    assert "tenant-of-the-metrics" not in told
    assert "private" not in told
    assert "PROPFIND" not in told
    assert re.search(r"^relevo_flag_version [1-9]", told, re.MULTILINE)
    assert "relevo_flag_stale_seconds 0.0" in told
    assert "relevo_build_info{" in told


def test_logs_name_the_route_and_nobody(house: House) -> None:
    secret = house.viewer.rsplit("_", 1)[1]
    answer = house.served.ask("POST", SINGLE, {"context": {"targetingKey": "señora-pérez"}}, token=house.viewer)
    house.served.ask("POST", "/ofrep/v1/evaluate/flags/flag-of-pérez".replace("é", "e"), {}, token=house.viewer)
    house.served.ask("GET", "/api/v1/flags/perez", token=house.viewer)
    (line,) = [each for each in house.served.log() if each.get("request_id") == answer.headers["x-request-id"]]
    assert (line["event"], line["method"], line["status"]) == ("request", "POST", 200)
    assert line["route"] == "/ofrep/v1/evaluate/flags/{key:path}"
    assert line["ms"] >= 0
    everything = json.dumps(house.served.log(), ensure_ascii=False)
    for private in (secret, house.viewer, "pérez", "perez", "127.0.0.1:", "targetingKey"):
        assert private not in everything.replace(house.served.address, "")


def test_a_request_id_is_ours_whatever_they_send(house: House) -> None:
    answer = house.served.ask("GET", "/healthz", headers={"x-request-id": "forged\\n"})
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(("token", "status"), [(None, 401), ("nonsense", 401), (Role.VIEWER, 403)])
async def test_who_may_not_write_is_told_before_the_body_is_read(
    house: House, write: str, token: str | Role | None, status: int
) -> None:
    before = await flag_row(house.database)
    presented = house.secrets[token] if isinstance(token, Role) else token
    header = f"X-API-Key: {presented}\r\n" if presented else ""
    head = f"POST {API}/{write} HTTP/1.1\r\nHost: x\r\n{header}Content-Length: 1000\r\nConnection: close\r\n\r\n"
    with house.served.raw(head.encode()) as connection:  # and the body never comes
        received = read_all(connection)
    assert parsed(received)[0] == status
    assert await flag_row(house.database) == before


@pytest.mark.parametrize("token", [None, "viewer"])
def test_a_promise_of_too_much_does_not_come_before_the_question_who_asks(house: House, token: str | None) -> None:
    header = f"X-API-Key: {house.viewer}\r\n" if token else ""
    head = f"POST {API}/on HTTP/1.1\r\nHost: x\r\n{header}Content-Length: 99999999999\r\nConnection: close\r\n\r\n"
    with house.served.raw(head.encode()) as connection:
        assert parsed(read_all(connection))[0] == (403 if token else 401)


def test_many_wrong_tokens_from_one_address_have_to_wait(house: House) -> None:
    """Behind a proxy that is trusted the address is the client's; here every request comes from the loopback."""
    with serving(house.database.url, env={"RELEVO_SERVE_TRUSTED_PROXIES": "127.0.0.1"}) as served:

        def guess(address: str, token: str | None = f"relevo_{'0' * 10}_{'0' * 48}") -> Answer:
            return served.ask("POST", SINGLE, {}, token=token, headers={"x-forwarded-for": address})

        assert [guess("192.0.2.1").status for _ in range(BURST)] == [401] * BURST
        waiting = guess("192.0.2.1")
        assert waiting.status == 429
        assert 1 <= int(waiting.headers["retry-after"]) <= 6
        assert waiting.json["errorDetails"]
        assert guess("192.0.2.2").status == 401
        assert guess("192.0.2.1", None).status == 401  # no token is no guess
        assert guess("192.0.2.1", house.viewer).status == 400  # and a right one never waits


def test_strangers_cannot_say_where_they_come_from(house: House) -> None:
    forged = {"x-forwarded-for": "192.0.2.9", "x-forwarded-proto": "https"}
    assert "strict-transport-security" not in house.served.ask("GET", "/healthz", headers=forged).headers


def test_behind_https_browsers_are_told_to_stay_there(house: House) -> None:
    with serving(house.database.url, env={"RELEVO_SERVE_TRUSTED_PROXIES": "10.0.0.0/8, 127.0.0.1"}) as served:
        answer = served.ask("GET", "/healthz", headers={"x-forwarded-proto": "https"})
        assert answer.headers["strict-transport-security"].startswith("max-age=")


def too_large(served: Served, token: str) -> dict[str, Callable[[], int]]:
    """Ways to send more than is taken, and what each is answered."""
    key = f"X-API-Key: {token}\r\n"
    head = f"POST {SINGLE} HTTP/1.1\r\nHost: x\r\n{key}Connection: close\r\n"

    def raw(*parts: bytes) -> int:
        with served.raw(*parts) as connection:
            return parsed(connection.recv(65536))[0]

    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    return {
        "as promised": lambda: served.ask("POST", SINGLE, b"x" * (LONGEST_BODY + 1), token=token).status,
        "promised only": lambda: raw(f"{head}Content-Length: {LONGEST_BODY + 1}\r\n\r\n".encode()),
        "promised absurdly": lambda: raw(f"{head}Content-Length: {'9' * 18}\r\n\r\n".encode()),
        "in pieces without end": lambda: raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), piece * 17),
    }


@pytest.mark.parametrize("way", ["as promised", "promised only", "promised absurdly", "in pieces without end"])
def test_a_body_too_large_is_refused_however_it_comes(house: House, way: str) -> None:
    assert too_large(house.served, house.viewer)[way]() == 413
    assert house.served.ask("GET", "/healthz").status == 200


async def test_more_than_was_promised_is_not_read_as_more_body(house: House) -> None:
    before = await flag_row(house.database)
    head = f"POST {API}/set-percentage HTTP/1.1\r\nHost: x\r\nX-API-Key: {house.operator}\r\nContent-Length: 15\r\n\r\n"
    with house.served.raw(head.encode() + b'{"percentage": 99}') as connection:
        assert parsed(read_all(connection))[0] == 400
    assert await flag_row(house.database) == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (NESTED[: LONGEST_BODY - 1], 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"percentage": "ten"}', 422),
        (b'{"percentage": 12.5}', 422),
        (b'{"percentage": true}', 422),
        (b'{"percentage": 101}', 400),
        (b'{"percentage": -1}', 400),
        (b'{"percentage": 1' + b"0" * 400 + b"}", 400),
        (b'{"percentage": 10, "percent": 1}', 422),
        (b'{"percentage": 10, "reason": "a\\u0000b"}', 422),
        (b'{"percentage": 10, "reason": "' + b"x" * 1_001 + b'"}', 422),
    ],
)
async def test_a_bad_percentage_is_refused_with_a_fix_and_changes_nothing(
    house: House, body: bytes, status: int
) -> None:
    before = await flag_row(house.database)
    answer = house.served.ask("POST", f"{API}/set-percentage", body, token=house.operator)
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["what"]
    assert answer.json["fix"]
    assert await flag_row(house.database) == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"tenants": []}, 422),
        ({"tenants": "a"}, 422),
        ({"tenants": [5]}, 422),
        ({"tenants": ["a\0b"]}, 422),
        ({"tenants": ["x" * 1_001]}, 422),
        ({"tenants": ["nobody"]}, 404),
        ({"tenants": [""]}, 400),
        ({"tenants": ["x" * LONGEST_BODY]}, 413),
        ({"tenants": ["00000000-0000-4000-8000-000000000000"], "force": True}, 404),
        ({"tenants": ["nobody"], "force": "yes"}, 422),
    ],
)
async def test_bad_tenants_are_refused_and_change_nothing(house: House, body: Any, status: int) -> None:
    before = await flag_row(house.database)
    answer = house.served.ask("POST", f"{API}/enable", body, token=house.operator)
    assert answer.status == status, answer.body
    assert answer.json["fix"]
    assert await flag_row(house.database) == before


async def test_an_unverified_tenant_is_refused_as_on_the_command_line(house: House) -> None:
    tenant = await value(
        house.database, "SELECT business_id::text FROM public.voice_agent_config WHERE is_active LIMIT 1"
    )
    answer = house.served.ask("POST", f"{API}/enable", {"tenants": [tenant]}, token=house.operator)
    assert (answer.status, answer.json["code"]) == (409, "UnverifiedTenants")
    forced = {"tenants": [tenant], "force": True, "reason": "a trial"}
    answer = house.served.ask("POST", f"{API}/enable", forced, token=house.operator)
    assert answer.status == 200, answer.body
    assert answer.json["flag"]["enabled_tenants"] == [tenant]
    assert [each["tenant_id"] for each in answer.json["unverified"]] == [tenant]
    answer = house.served.ask("POST", f"{API}/disable", {"tenants": [tenant]}, token=house.operator)
    assert (answer.json["flag"]["enabled_tenants"], answer.json["flag"]["disabled_tenants"]) == ([], [tenant])


@pytest.mark.parametrize("path", ["/api/v1/flags/voice_agent_v3", "/api/v1/flags/%00", "/api/v1/flags/" + "x" * 3_000])
def test_an_unknown_flag_is_no_flag(house: House, path: str) -> None:
    answer = house.served.ask("GET", path, token=house.viewer)
    assert (answer.status, answer.json["code"]) == (404, "UnknownName")
    assert FLAG in answer.json["fix"]


async def test_a_change_over_http_is_audited_with_its_token(house: House) -> None:
    answer = house.served.ask("POST", f"{API}/on", {"reason": "go"}, token=house.operator)
    assert answer.json["flag"]["enabled"] is True
    last = "SELECT actor, reason FROM relevo.audit_log WHERE action LIKE 'flag.%%' ORDER BY id DESC LIMIT 1"
    (audit,) = await rows(house.database, last)
    token_id = tokens.parts(house.operator)
    assert token_id is not None
    assert audit == {"actor": f"token {token_id[0]} (operator)", "reason": "go"}
    assert house.served.ask("GET", API, token=house.viewer).json == answer.json["flag"]
    assert house.served.ask("POST", f"{API}/off", token=house.operator).json["flag"]["enabled"] is False


async def test_a_revoked_token_stops_working_within_moments(house: House) -> None:
    made = await tokens.create(
        house.database, Role.VIEWER, name=None, expires_at=None, clock=system_clock, actor="tests", reason=None
    )
    house.served.until(API, 200, token=made.secret)
    await tokens.revoke(house.database, made.id, clock=system_clock, actor="tests", reason=None)
    house.served.until(API, 401, token=made.secret)


def test_a_change_reaches_every_process(house: House) -> None:
    with serving(house.database.url) as second, serving(house.database.url) as third:
        changed = house.served.ask("POST", f"{API}/set-percentage", {"percentage": 37}, token=house.operator)
        assert changed.status == 200, changed.body
        for each in (house.served, second, third):
            while each.evaluate("anybody", house.viewer)["metadata"]["flagVersion"] < changed.json["flag"]["version"]:
                pass
        answers = [each.evaluate("anybody", house.viewer) for each in (house.served, second, third)]
        assert answers[0] == answers[1] == answers[2]
        assert second.ask("GET", API, token=house.viewer).json["percentage"] == 37


def test_a_stopping_server_says_so_first_and_finishes_what_it_began(house: House) -> None:
    body = b'{"context":{"targetingKey":"a"}}'
    head = f"POST {SINGLE} HTTP/1.1\r\nHost: x\r\nX-API-Key: {house.viewer}\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving(house.database.url) as served, served.raw(head.encode(), body[:10]) as slow:
        served.until("/readyz", 200)
        served.process.send_signal(signal.SIGTERM)
        stopping = served.until("/readyz", 503).json
        assert stopping["draining"] is True
        assert served.evaluate("a", house.viewer)  # it still answers
        while True:  # until nobody new is let in
            try:
                socket.create_connection(("127.0.0.1", served.port), timeout=5).close()
            except OSError:
                break
        slow.sendall(body[10:])
        assert parsed(read_all(slow))[0] == 200
        assert served.process.wait(30) == 0


def test_an_impatient_second_signal_ends_it_sooner_with_the_same_status(house: House) -> None:
    with serving(house.database.url) as served:
        served.process.send_signal(signal.SIGINT)
        served.until("/readyz", 503)
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(30) == 0


def test_a_killed_server_leaves_nothing_that_keeps_the_next_from_its_port(house: House) -> None:
    port = free_port()
    with serving(house.database.url, port=port) as first:
        assert first.evaluate("a", house.viewer)
        first.process.kill()
        first.process.wait()
    with serving(house.database.url, port=port) as second:
        assert second.evaluate("a", house.viewer)


def test_a_port_that_is_taken_is_one_clear_line(house: House) -> None:
    words = [sys.executable, "-m", "relevo", "serve", "--database-url", house.database.url]
    done = subprocess.run([*words, "--port", str(house.served.port)], capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stdout == ""
    assert re.fullmatch(rf"relevo: port {house.served.port} of 127\.0\.0\.1 is in use — stop .*\n", done.stderr)


def test_without_json_it_prints_one_line_for_people(house: House) -> None:
    words = [sys.executable, "-m", "relevo", "serve", "--database-url", house.database.url, "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert re.fullmatch(r"relevo serves at http://127\.0\.0\.1:\d+\n", process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""
        assert process.wait(30) == 0


async def test_the_database_may_go_and_come_back(server: Server) -> None:
    with running(18, server.programs) as own:
        with psycopg.connect(own.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {OWNER} LOGIN".encode())
            connection.execute(f"CREATE DATABASE comes_and_goes OWNER {OWNER}".encode())
        url = own.url("comes_and_goes", OWNER)
        async with Database(url) as database:
            await migrations.up(database)
            secrets = await secrets_of_each_role(database)
            await change(database, "UPDATE public.feature_flags SET enabled = true, enabled_tenants = '{a}'")
        with serving(url) as served:
            before = served.evaluate("a", secrets[Role.VIEWER])
            assert before["variant"] == "v2"
            own.control("-m", "immediate", "stop")
            stale = served.until("/readyz", 200, says="the flag is stale since").json
            assert (stale["status"], stale["flag"]["seen"]) == ("stale", True)
            assert stale["flag"]["stale_seconds"] > 0
            served.until("/readyz", 200, says='"database":{"ok":false')
            assert served.evaluate("a", secrets[Role.VIEWER]) == before
            write = served.ask("POST", f"{API}/off", token=secrets[Role.OPERATOR])
            assert (write.status, write.headers["retry-after"]) == (503, "1")
            assert write.json["fix"]
            with serving(url) as late:  # another starts while nobody is there to tell it anything
                assert late.ask("GET", "/healthz").status == 200
                missing = late.ask("GET", "/readyz")
                assert (missing.status, missing.json["status"]) == (503, "not ready")
                assert missing.json["flag"]["seen"] is False
                assert late.ask("POST", SINGLE, {}, token=secrets[Role.VIEWER]).status == 503  # not: a wrong token
                assert late.ask("POST", SINGLE, {}).status == 401
                own.control("-l", str(own.data / "server.log"), "restart")
                async with Database(url) as database:
                    await change(database, "UPDATE public.feature_flags SET enabled = false")
                for each in (served, late):
                    each.until("/readyz", 200, says='"status":"ready"')
                    while each.evaluate("a", secrets[Role.VIEWER])["variant"] != "v1":
                        pass
                assert served.ask("POST", f"{API}/on", token=secrets[Role.OPERATOR]).status == 200
            said = [each["event"] for each in served.log() if each.get("logger") == "relevo.flags"]
            assert any("fresh again" in each for each in said)
            assert len(served.log()) < 100  # an outage is told, not counted
