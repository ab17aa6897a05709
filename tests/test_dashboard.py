"""The dashboard: who comes in, what they see, and what they can do about it."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import AsyncIterator
from typing import get_args
from uuid import uuid4

import pytest
import pytest_asyncio

from relevo.access import tokens
from relevo.access.guesses import BURST
from relevo.access.roles import Role
from relevo.clock import system_clock
from relevo.db.pool import Database
from relevo.flags.writing import get
from relevo.migration import runner, states
from relevo.migration.mapping import DEFAULT
from relevo.migration.run import Options
from tests.conftest import behind, change, copied, rows, value
from tests.dashboard import Visitor, visible
from tests.recorded import reported, say
from tests.servers import Server
from tests.serving import API, House, housed, secrets_of_each_role, serving
from tests.test_dashboard_rules import NEEDED

pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

SCRIPT = '<script>alert("x")</script>'


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(server: Server, template: str) -> AsyncIterator[House]:
    """A server whose tenants have been moved."""
    async with housed(server, template, moved=True) as house:
        yield house


@pytest.fixture
def visitor(house: House) -> Visitor:
    """Somebody who is not signed in."""
    return Visitor(house.served)


@pytest.fixture
def operator(house: House) -> Visitor:
    """Somebody who may act."""
    return Visitor(house.served).sign_in(house.operator)


async def verified(database: Database, most: int = 3) -> list[str]:
    """Some tenants that may live on v2."""
    found = await states.all_tenants(database, DEFAULT)
    return [str(each.tenant_id) for each in found if each.state in ("verified", "live") and each.active][:most]


async def put(database: Database, enabled: bool, percentage: int, listed: list[str]) -> int:
    """The flag as a test needs it; returns its version."""
    written = "enabled = %s, percentage = %s, enabled_tenants = %s, disabled_tenants = '{}'"
    await change(database, f"UPDATE public.feature_flags SET {written}", (enabled, percentage, listed))
    return (await get(database)).version


# Coming in ---------------------------------------------------------------------------------------------------------


def test_whoever_is_not_signed_in_ends_at_the_sign_in_page(visitor: Visitor) -> None:
    first = visitor.ask("GET", "/")
    assert (first.status, first.headers["location"]) == (303, "/sign-in")
    page = visitor.page("/sign-in")
    assert 'type="password"' in page
    assert 'lang="en"' in page


@pytest.mark.parametrize(("method", "path"), NEEDED)
async def test_each_role_gets_where_it_may_and_no_further(house: House, method: str, path: str) -> None:
    needed = NEEDED[method, path]
    if needed is None or path == "/live":
        return
    (tenant,) = await verified(house.database, 1)
    address = (
        path.replace("{tenant}", tenant)
        .replace("{version}", "v9")
        .replace("{call_id:path}", "none")
        .replace("{action}", "pause")
    )
    before = await get(house.database)
    assert Visitor(house.served).ask(method, address, {} if method == "POST" else None).status == 303
    for role, secret in house.secrets.items():
        visitor = Visitor(house.served).sign_in(secret)
        answer = visitor.ask(method, address, {} if method == "POST" else None)
        if role < needed:
            assert answer.status == 403, (role, answer.body)
        elif method == "GET":
            assert answer.status not in (303, 401, 403, 500), (role, answer.body)
    assert (await get(house.database)).version >= before.version


async def test_a_viewer_changes_nothing(house: House) -> None:
    version = await put(house.database, False, 0, [])
    viewer = Visitor(house.served).sign_in(house.viewer)
    (tenant,) = await verified(house.database, 1)
    for path in ("/extend", "/rollback", f"/tenants/{tenant}/to/v2"):
        assert viewer.ask("POST", path, {"points": "10", "seen": f"v{version}"}).status == 403
    assert (await get(house.database)).version == version
    assert "/rollback" not in viewer.page("/")


async def test_a_wrong_token_opens_nothing_and_many_have_to_wait(server: Server, template: str) -> None:
    with copied(server, template) as url:
        async with Database(url) as database:
            secrets = await secrets_of_each_role(database)
            with serving(url) as served:
                visitor = Visitor(served)
                wrong = f"relevo_{'0' * 10}_{'0' * 48}"
                seen = [visitor.ask("POST", "/sign-in", {"token": wrong}).status for _ in range(BURST + 1)]
                assert seen == [401] * BURST + [429]
                assert visitor.cookies == {}
                visitor.sign_in(secrets[Role.VIEWER])  # a right token never waits


async def test_a_session_is_kept_as_a_fingerprint_and_its_cookie_is_for_us_alone(house: House) -> None:
    visitor = Visitor(house.served)
    answer = visitor.ask("POST", "/sign-in", {"token": house.viewer})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie  # it came by plain http
    secret = visitor.cookies["relevo_session"]
    kept = "SELECT count(*) FROM relevo.sessions WHERE fingerprint = %s"
    assert await value(house.database, kept, (hashlib.sha256(secret.encode()).digest(),)) == 1
    assert await value(house.database, "SELECT count(*) FROM relevo.sessions WHERE id = %s", (secret,)) == 0


async def test_a_session_ends_with_its_token_and_by_signing_out(house: House) -> None:
    made = await tokens.create(
        house.database, Role.VIEWER, name="leaver", expires_at=None, clock=system_clock, actor="tests", reason=None
    )
    house.served.until(API, 200, made.secret)  # a server hears of a new token within a moment
    visitor = Visitor(house.served).sign_in(made.secret)
    visitor.page("/settings")
    await tokens.revoke(house.database, made.id, clock=system_clock, actor="tests", reason=None)
    assert visitor.ask("GET", "/settings").status == 303
    other = Visitor(house.served).sign_in(house.viewer)
    kept = dict(other.cookies)
    assert other.ask("POST", "/sign-out", {}).headers["location"] == "/sign-in"
    assert Visitor(house.served, kept).ask("GET", "/settings").status == 303


async def test_an_admin_ends_somebodys_session(house: House) -> None:
    viewer = Visitor(house.served).sign_in(house.viewer)
    admin = Visitor(house.served).sign_in(house.secrets[Role.ADMIN])
    fingerprint = hashlib.sha256(viewer.cookies["relevo_session"].encode()).digest()
    session = await value(house.database, "SELECT id FROM relevo.sessions WHERE fingerprint = %s", (fingerprint,))
    assert session in admin.page("/settings")
    assert admin.ask("POST", "/sessions/end", {"session": session}).status == 303
    assert viewer.ask("GET", "/settings").status == 303
    assert admin.ask("POST", "/sessions/end", {"session": session}).status == 404


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "https://evil.example"}],
)
async def test_another_site_does_nothing_in_somebodys_name(
    house: House, operator: Visitor, headers: dict[str, str]
) -> None:
    listed = await verified(house.database)
    version = await put(house.database, True, 0, listed)
    answer = operator.ask("POST", "/rollback", {"seen": f"v{version}"}, headers)
    assert answer.status == 403
    assert (await get(house.database)).version == version


@pytest.mark.parametrize("where", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_signing_in_leads_to_our_own_pages_alone(house: House, visitor: Visitor, where: str) -> None:
    assert visitor.ask("POST", "/sign-in", {"token": house.viewer, "to": where}).headers["location"] == "/"


# Looking -----------------------------------------------------------------------------------------------------------


async def test_the_overview_shows_what_was_counted(house: House, operator: Visitor) -> None:
    listed = await verified(house.database)
    await put(house.database, True, 0, listed)
    now = system_clock()
    bad = "call.in-progress.error-assistant-did-not-receive-customer-audio"
    messages = [
        reported(f"seen-{n}", "customer-ended-call" if n else bad, tenant_id=listed[0], decided_at=now, at=now)
        for n in range(40)
    ]
    await say(house.database, *messages)
    page = visible(operator.page("/?window=1h"))
    total = await value(house.database, "SELECT count(*) FROM relevo.active_tenants()")
    assert f"3 / {total} tenants" in page
    assert "V2 (New) Total calls 40" in page
    assert "p95 latency" in page
    assert re.search(r"The same numbers as a table .* 0 40 ", page)
    assert "Go: < 2 % · No-Go: > 5 %" in page


async def test_a_page_of_tenants_shows_the_states_that_status_shows(house: House, operator: Visitor) -> None:
    await put(house.database, True, 0, await verified(house.database))
    found = {str(each.tenant_id): each for each in await states.all_tenants(house.database, DEFAULT)}
    page = operator.page("/tenants")
    assert set(re.findall(r'/tenants/([0-9a-f-]{36})"', page)) == found.keys()
    for state in get_args(states.State):
        shown = re.findall(r'/tenants/([0-9a-f-]{36})"', operator.page(f"/tenants?state={state}"))
        assert set(shown) == {key for key, each in found.items() if each.state == state}, state
    for version in ("v1", "v2"):
        shown = re.findall(r'/tenants/([0-9a-f-]{36})"', operator.page(f"/tenants?version={version}"))
        assert set(shown) == {key for key, each in found.items() if each.version == version}


async def test_states_and_filters_agree_on_tenants_in_trouble(server: Server, template: str) -> None:
    with copied(server, template) as url:
        async with Database(url) as database:
            await runner.migrate(database, Options(), actor="tests", clock=system_clock)
            good = await verified(database, 6)
            drifted = "UPDATE relevo.verifications SET state = 'drifted', fields = '{voice_id}' WHERE business_id = %s"
            await behind(database, drifted, (good[0],))
            await behind(database, "DELETE FROM relevo.verifications WHERE business_id = %s", (good[1],))
            await behind(database, "DELETE FROM public.voice_assistant_configs WHERE business_id = %s", (good[2],))
            await put(database, True, 40, good[3:5])
            found = {str(each.tenant_id): each for each in await states.all_tenants(database, DEFAULT)}
            assert {"drifted", "copied", "pending", "live"} <= {each.state for each in found.values()}
            secrets = await secrets_of_each_role(database)
            with serving(url) as served:
                visitor = Visitor(served).sign_in(secrets[Role.VIEWER])
                for state in get_args(states.State):
                    shown = re.findall(r'/tenants/([0-9a-f-]{36})"', visitor.page(f"/tenants?state={state}"))
                    assert set(shown) == {key for key, each in found.items() if each.state == state}, state


async def test_a_tenant_is_found_by_part_of_its_name_without_accents(house: House, operator: Visitor) -> None:
    tenant = str(uuid4())
    add = "INSERT INTO public.businesses (id, name, vertical) VALUES (%s, 'Jardín de Ñandú', 'dental')"
    await change(house.database, add, (tenant,))
    assert tenant in operator.page("/tenants?q=jardin+de+nan")
    assert tenant in operator.page(f"/tenants?q={tenant[:13].upper()}")
    assert tenant not in operator.page("/tenants?q=jardin&state=live")


async def test_what_looks_like_a_script_is_shown_as_text(house: House, operator: Visitor) -> None:
    (tenant,) = await verified(house.database, 1)
    await change(house.database, "UPDATE public.businesses SET name = %s WHERE id = %s", (SCRIPT, tenant))
    prompt = "UPDATE public.voice_agent_config SET system_prompt = %s, first_message = %s WHERE business_id = %s"
    await change(house.database, prompt, (SCRIPT, SCRIPT, tenant))
    for path in (f"/tenants/{tenant}", f"/tenants?q={tenant[:13]}", f"/tenants/{tenant}/to/v2"):
        page = operator.page(path)
        assert SCRIPT not in page
        assert SCRIPT in visible(page).replace("  ", " ") or "&lt;script&gt;" in page


def test_one_tenant_shows_both_answers(operator: Visitor) -> None:
    tenant = re.findall(r'/tenants/([0-9a-f-]{36})"', operator.page("/tenants?state=verified"))[-1]
    page = visible(operator.page(f"/tenants/{tenant}"))
    assert "v1 beside v2" in page
    assert "What a caller hears" in page
    assert "Decided by the word" in page


@pytest.mark.parametrize("path", ["/tenants/nobody-at-all", "/tenants?state=happy", "/?window=1y", "/calls/none"])
def test_an_unknown_name_is_told_as_such(operator: Visitor, path: str) -> None:
    assert "What to do:" in operator.page(path, 404)


@pytest.mark.parametrize("path", ["/tenants?page=0", "/tenants?page=x", "/calls?before=x", "/audit?before=x"])
def test_what_makes_no_sense_is_refused(operator: Visitor, path: str) -> None:
    assert "What to do:" in operator.page(path, 400)


@pytest.mark.parametrize("path", ["/", "/tenants", "/migration", "/calls", "/audit", "/settings"])
@pytest.mark.parametrize("language", ["en", "es"])
def test_every_page_is_whole_in_both_languages(operator: Visitor, path: str, language: str) -> None:
    operator.ask("POST", "/preferences", {"language": language})
    page = operator.page(path)
    assert f'lang="{language}"' in page
    assert page.count("<h1") == 1
    assert "style=" not in page
    assert not re.search(r"\son\w+=", page)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)


# Acting ------------------------------------------------------------------------------------------------------------


async def test_rollback_to_zero_shows_who_goes_back_and_leaves_nobody_on_v2(house: House, operator: Visitor) -> None:
    listed = await verified(house.database)
    version = await put(house.database, True, 5, listed)
    asked = visible(operator.page("/rollback"))
    assert "go back to v1" in asked
    answer = operator.ask("POST", "/rollback", {"seen": f"v{version}", "reason": "3 in the morning"})
    assert answer.status == 303, answer.body
    flag = await get(house.database)
    assert (flag.enabled, flag.percentage, flag.enabled_tenants) == (False, 0, frozenset())
    (entry,) = await rows(house.database, "SELECT actor, action, reason FROM relevo.audit_log ORDER BY id DESC LIMIT 1")
    assert entry["action"] == "rollback.total"
    assert entry["reason"] == "3 in the morning"
    assert entry["actor"].endswith("(operator)")
    assert "3 in the morning" in operator.page("/audit?q=morning")


async def test_extending_does_what_was_shown(house: House, operator: Visitor) -> None:
    version = await put(house.database, False, 0, [])
    asked = visible(operator.page("/extend?points=25"))
    then = re.search(r"Tenants on v2 0 / \d+ (\d+) / (\d+)", asked)
    assert then
    answer = operator.ask("POST", "/extend", {"points": "25", "seen": f"v{version}"})
    assert answer.status == 303, answer.body
    flag = await get(house.database)
    assert (flag.enabled, flag.percentage) == (True, 25)
    assert f"{then[1]} / {then[2]} tenants" in visible(operator.page("/"))


async def test_extending_a_flag_that_was_changed_meanwhile_is_refused(house: House, operator: Visitor) -> None:
    seen = await put(house.database, False, 0, [])
    version = await put(house.database, True, 3, [])
    answer = operator.ask("POST", "/extend", {"points": "10", "seen": f"v{seen}"})
    assert answer.status == 409
    assert (await get(house.database)).version == version


@pytest.mark.parametrize("points", ["", "11", "-10", "1e1", "99999999999999999999"])
async def test_a_step_of_another_size_is_refused(house: House, operator: Visitor, points: str) -> None:
    version = (await get(house.database)).version
    assert operator.ask("POST", "/extend", {"points": points, "seen": f"v{version}"}).status == 400
    assert (await get(house.database)).version == version


async def test_a_tenant_is_sent_to_v2_and_back(house: House, operator: Visitor) -> None:
    await put(house.database, True, 0, [])
    (tenant,) = await verified(house.database, 1)
    assert "Send to v2" in operator.page(f"/tenants/{tenant}/to/v2")
    assert operator.ask("POST", f"/tenants/{tenant}/to/v2", {"reason": "canary"}).status == 303
    assert tenant in (await get(house.database)).enabled_tenants
    assert operator.ask("POST", f"/tenants/{tenant}/to/v1", {"reason": "canary"}).status == 303
    flag = await get(house.database)
    assert tenant not in flag.enabled_tenants
    assert tenant in flag.disabled_tenants


async def test_a_tenant_that_is_not_verified_is_not_sent(house: House, operator: Visitor) -> None:
    found = await states.all_tenants(house.database, DEFAULT)
    tenant = next(str(each.tenant_id) for each in found if each.state == "quarantined" and each.name)
    assert "This will be refused" in operator.page(f"/tenants/{tenant}/to/v2")
    assert operator.ask("POST", f"/tenants/{tenant}/to/v2", {}).status == 409
    assert tenant not in (await get(house.database)).enabled_tenants


async def test_an_exported_cell_is_no_formula(house: House, operator: Visitor) -> None:
    add = "INSERT INTO relevo.audit_log (actor, action, reason) VALUES ('=1+1', 'test.formula', '@SUM(A1)')"
    await change(house.database, add)
    told = operator.ask("GET", "/audit.csv?q=test.formula")
    assert told.headers["content-type"].startswith("text/csv")
    assert b"'=1+1" in told.body
    assert b"'@SUM" in told.body


# Being up to date --------------------------------------------------------------------------------------------------


async def test_news_of_the_flag_comes_and_the_stream_ends_with_the_server(server: Server, template: str) -> None:
    with copied(server, template) as url:
        async with Database(url) as database:
            secrets = await secrets_of_each_role(database)
            with serving(url) as served:
                visitor = Visitor(served).sign_in(secrets[Role.VIEWER])
                cookie = f"relevo_session={visitor.cookies['relevo_session']}"
                request = f"GET /live HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\n\r\n"
                with served.raw(request.encode()) as stream:
                    _read_until(stream, "figures")
                    await change(database, "UPDATE public.feature_flags SET percentage = 1, enabled = true")
                    assert '"flag"' in _read_until(stream, '"flag"')
                    assert served.stop() == 0
                    while stream.recv(65_536):
                        pass


def _read_until(stream: socket.socket, word: str) -> str:
    received = ""
    while word not in received:
        part = stream.recv(65_536)
        assert part, received
        received += part.decode()
    return received


# What it is made of ------------------------------------------------------------------------------------------------


def test_files_are_compressed_and_kept(house: House) -> None:
    page = Visitor(house.served).page("/sign-in")
    for address in set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page)):
        answer = house.served.ask("GET", address, headers={"accept-encoding": "gzip"})
        assert (answer.status, answer.headers["content-encoding"]) == (200, "gzip")
        assert "immutable" in answer.headers["cache-control"]
    assert house.served.ask("GET", "/static/..%2f..%2fes.toml").status == 404
