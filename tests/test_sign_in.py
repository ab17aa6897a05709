"""Signing in through an identity provider: what opens nothing, and why; then who comes in."""

from __future__ import annotations

import base64
import hmac
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import RSAKey

from relevo.access.guesses import BURST
from relevo.access.roles import Role
from relevo.db.pool import Database
from tests.conftest import copied, rows
from tests.dashboard import OURS, Visitor, visible
from tests.issuers import CALLBACK, CLIENT, EMAIL, SECRET, SUBJECT, Claims, Issuer, issuing, key
from tests.servers import Server
from tests.serving import Answer, House, Served, housed, secrets_of_each_role, serving
from tests.standins import Reply
from tests.test_dashboard_rules import NEEDED

pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])

_addresses = (f"10.1.{number >> 8}.{number & 255}" for number in itertools.count())


@dataclass(frozen=True, slots=True)
class Place:
    """A server whose people come from an issuer, and somebody's address."""

    served: Served
    database: Database
    issuer: Issuer
    secrets: Mapping[Role, str]
    address: str = ""

    @property
    def navigating(self) -> dict[str, str]:
        """What a browser says that another site sends to us."""
        return {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "x-forwarded-for": self.address}

    def begin(self, to: str = "/", **more: str) -> tuple[Visitor, str]:
        """Somebody at the issuer, and the way back to us that they were given there."""
        visitor = Visitor(self.served)
        answer = visitor.ask("GET", f"/sign-in/provider?{urlencode({'to': to})}", headers={**OURS, **more})
        assert answer.status == 303, answer.body
        assert answer.headers["location"].startswith(f"{self.issuer.url}/authorize?")
        return visitor, self.issuer.back(answer.headers["location"])

    def come_back(self, visitor: Visitor, back: str) -> Answer:
        """The end of it."""
        return visitor.ask("GET", back, headers=self.navigating)

    def sign_in(self) -> tuple[Visitor, Answer]:
        """All of it; how it ended."""
        visitor, back = self.begin()
        return visitor, self.come_back(visitor, back)

    async def audited(self, action: str) -> dict[str, Any]:
        """The newest entry of one kind."""
        asked = "SELECT id, actor, subject, details FROM relevo.audit_log WHERE action = %s ORDER BY id DESC LIMIT 1"
        (entry,) = await rows(self.database, asked, (action,))
        return entry


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(server: Server, template: str) -> AsyncIterator[Place]:
    with copied(server, template) as url, issuing() as issuer:
        async with Database(url) as database:
            secrets = await secrets_of_each_role(database)
            with serving(url, env={**issuer.settings, "RELEVO_SERVE_TRUSTED_PROXIES": "127.0.0.1"}) as served:
                yield Place(served, database, issuer, secrets)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plain(server: Server, template: str) -> AsyncIterator[House]:
    """A server without an issuer."""
    async with housed(server, template) as house:
        yield house


@pytest.fixture
def place(house: Place) -> Place:
    """The house, with an issuer that makes no mistakes, for somebody from an address of their own."""
    fresh = Issuer(house.issuer.server)
    for name in ("identity", "access", "signed", "role", "published", "discovery", "refuses", "codes_last"):
        setattr(house.issuer, name, getattr(fresh, name))
    return replace(house, address=next(_addresses))


def signed_in(visitor: Visitor) -> bool:
    return visitor.ask("GET", "/settings").status == 200


def refused(visitor: Visitor, answer: Answer, status: int, *words: str) -> None:
    """The answer says so on the sign-in page, and opened nothing."""
    told = visible(answer.body.decode())
    assert answer.status == status, told
    assert [each for each in words if each not in told] == [], told
    assert 'name="token"' in answer.body.decode()  # the other way in stays open
    assert not signed_in(visitor)


# Refused -----------------------------------------------------------------------------------------------------------


def changed(**claims: Any) -> Callable[[Claims], Claims]:
    return lambda told: {name: value for name, value in {**told, **claims}.items() if value is not None}


WRONG_CLAIMS = {
    "another audience": (changed(aud="another-client"), "aud"),
    "no audience": (changed(aud=None), "aud"),
    "several audiences, made for another": (changed(aud=[CLIENT, "other"], azp="other"), "azp"),
    "several audiences, made for nobody": (changed(aud=[CLIENT, "other"]), "azp"),
    "made for another": (changed(azp="other"), "azp"),
    "another issuer": (changed(iss="https://evil.example"), "iss"),
    "no issuer": (changed(iss=None), "iss"),
    "the issuer with a slash": (lambda told: {**told, "iss": told["iss"] + "/"}, "iss"),
    "expired": (changed(exp=1_700_000_000), "exp"),
    "never expires": (changed(exp=None), "exp"),
    "expires at no number": (changed(exp="tomorrow"), "exp"),
    "not yet good": (changed(nbf=4_000_000_000), "nbf"),
    "from the future": (changed(iat=4_000_000_000), "iat"),
    "made at no time": (changed(iat=None), "iat"),
    "another nonce": (changed(nonce="of another sign-in"), "nonce"),
    "no nonce": (changed(nonce=None), "nonce"),
    "a nonce that is no text": (changed(nonce=["x"]), "nonce"),
    "nobody": (changed(sub=None), "sub"),
    "nobody at all": (changed(sub=""), "sub"),
    "a number": (changed(sub=7), "sub"),
    "a name with a line break": (changed(sub="ana\nadmin"), "sub"),
    "a name without end": (changed(sub="x" * 256), "sub"),
}


@pytest.mark.parametrize("case", WRONG_CLAIMS)
async def test_an_id_token_that_is_not_for_this_sign_in_opens_nothing(place: Place, case: str) -> None:
    place.issuer.identity, why = WRONG_CLAIMS[case]
    visitor, answer = place.sign_in()
    refused(visitor, answer, 401, f"does not hold: {why}.", "Sign in again")
    entry = await place.audited("session.refuse")
    told = f"SignInFailed: the proof from {urlsplit(place.issuer.url).netloc} does not hold: {why}"
    assert (entry["actor"], entry["details"]) == ("unknown", {"issuer": place.issuer.url, "why": told})


def part(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def unsigned(_: Issuer, claims: Claims) -> str:
    return f"{part({'alg': 'none', 'kid': 'first'})}.{part(claims)}."


def by_somebody_else(_: Issuer, claims: Claims) -> str:
    return jwt.encode({"alg": "ES256", "kid": "first"}, claims, key("first"), algorithms=["ES256"])


def with_a_key_of_its_own(_: Issuer, claims: Claims) -> str:
    mine = key("first")
    header = {"alg": "ES256", "kid": "first", "jwk": mine.as_dict(private=False)}
    return jwt.encode(header, claims, mine, algorithms=["ES256"])


def by_the_public_key_as_a_secret(issuer: Issuer, claims: Claims) -> str:
    signed = f"{part({'alg': 'HS256', 'kid': 'first'})}.{part(claims)}"  # by hand: the library refuses to
    mac = hmac.digest(issuer.pair.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def by_an_unpublished_key(_: Issuer, claims: Claims) -> str:
    return jwt.encode({"alg": "ES256", "kid": "unheard of"}, claims, key("unheard of"), algorithms=["ES256"])


def by_another_algorithm(_: Issuer, claims: Claims) -> str:
    pair = RSAKey.generate_key(2048, {"kid": "first"})
    return jwt.encode({"alg": "PS512", "kid": "first"}, claims, pair, algorithms=["PS512"])


def altered(issuer: Issuer, claims: Claims) -> str:
    header, _, signature = issuer.sign(claims).split(".")
    return f"{header}.{part({**claims, 'email': 'boss@example.com'})}.{signature}"


def no_token(_: Issuer, _claims: Claims) -> str:
    return "no token at all"


def a_list(issuer: Issuer, _claims: Claims) -> str:
    return f"{issuer.sign({}).split('.')[0]}.{part([1])}.AA"


FORGED = {
    unsigned: "algorithm",
    by_somebody_else: "signature",
    with_a_key_of_its_own: "signature",
    by_the_public_key_as_a_secret: "algorithm",
    by_an_unpublished_key: "key",
    by_another_algorithm: "algorithm",
    altered: "signature",
    no_token: "form",
    a_list: "signature",
}


@pytest.mark.parametrize("forge", FORGED)
def test_a_forged_id_token_opens_nothing(place: Place, forge: Callable[[Issuer, Claims], str]) -> None:
    place.issuer.signed = lambda claims: forge(place.issuer, claims)
    visitor, answer = place.sign_in()
    refused(visitor, answer, 401, f"does not hold: {FORGED[forge]}.")


def test_an_answer_is_good_in_the_browser_that_asked_and_once(place: Place) -> None:
    visitor, back = place.begin()
    stranger = Visitor(place.served)
    refused(stranger, place.come_back(stranger, back), 401, "no sign-in that was begun in this browser")
    other, _ = place.begin()  # a sign-in of their own does not help with somebody else's answer
    refused(other, place.come_back(other, back), 401, "no sign-in that was begun in this browser")
    begun = dict(visitor.cookies)
    assert place.come_back(visitor, back).status == 200
    assert signed_in(visitor)
    again = Visitor(place.served, {name: held for name, held in visitor.cookies.items() if name == "relevo_sign_in"})
    refused(again, place.come_back(again, back), 401, "no sign-in that was begun in this browser")
    thief = Visitor(place.served, begun)
    refused(thief, place.come_back(thief, back), 401, "was used before")


async def test_a_sign_in_begins_one_session_even_where_the_issuer_takes_codes_twice(place: Place) -> None:
    place.issuer.codes_last = True
    visitor, back = place.begin()
    thief = Visitor(place.served, dict(visitor.cookies))
    assert place.come_back(visitor, back).status == 200
    refused(thief, place.come_back(thief, back), 401, "was used before")
    assert signed_in(visitor)


@pytest.mark.parametrize(
    "query", ["", "code=x", "state=x", "code=x&state=x", "error=access_denied", "state=%00&code=%ff"]
)
def test_an_answer_to_nothing_asks_the_issuer_nothing(place: Place, query: str) -> None:
    asked = place.issuer.asked("/token")
    visitor, _ = place.begin()
    refused(visitor, place.come_back(visitor, f"{CALLBACK}?{query}"), 401, "no sign-in that was begun")
    assert place.issuer.asked("/token") == asked


def test_a_code_of_somebody_elses_sign_in_is_worth_nothing(place: Place) -> None:
    _, theirs = place.begin()
    visitor, ours = place.begin()
    code = parse_qs(urlsplit(theirs).query)["code"][0]
    state = parse_qs(urlsplit(ours).query)["state"][0]
    refused(visitor, place.come_back(visitor, f"{CALLBACK}?{urlencode({'code': code, 'state': state})}"), 401)


def test_an_answer_that_names_another_issuer_is_refused(place: Place) -> None:
    visitor, back = place.begin()
    asked = place.issuer.asked("/token")
    refused(visitor, place.come_back(visitor, f"{back}&iss=https://evil.example"), 401, "does not hold: iss")
    assert place.issuer.asked("/token") == asked


@pytest.mark.parametrize(("said", "shown"), [("access_denied", "access_denied"), ("<b>call 555</b>", "?")])
def test_what_the_issuer_says_no_with_is_shown_if_it_is_a_known_word(place: Place, said: str, shown: str) -> None:
    place.issuer.refuses = said
    visitor, answer = place.sign_in()
    refused(visitor, answer, 401, f"did not sign you in: {shown}.")


@pytest.mark.parametrize(
    ("role", "words"),
    [
        (
            None,
            (f"Your account {EMAIL} has no role in Relevo.", "app_metadata.relevo_role", "viewer / operator / admin"),
        ),
        ("", (f"Your account {EMAIL} has no role in Relevo.",)),
        ([], (f"Your account {EMAIL} has no role in Relevo.",)),
        ("root", ("its app_metadata.relevo_role is 'root'.",)),
        ("Admin", ("its app_metadata.relevo_role is 'Admin'.",)),
        (["root", 3], ("its app_metadata.relevo_role is 'root'.",)),
        ({"admin": True}, ("has no role in Relevo: its app_metadata.relevo_role is no text.",)),
        (True, ("is no text.",)),
    ],
)
async def test_without_a_role_one_is_told_who_can_give_it(place: Place, role: Any, words: tuple[str, ...]) -> None:
    place.issuer.role = role
    visitor, answer = place.sign_in()
    refused(visitor, answer, 403, *words)
    entry = await place.audited("session.refuse")
    assert entry["actor"] == f"person {SUBJECT} ({EMAIL})"
    assert entry["details"]["why"].startswith("NoRole: ")


def test_it_is_told_in_spanish(place: Place) -> None:
    place.issuer.role = "root"
    visitor, back = place.begin()
    visitor.cookies["relevo_language"] = "es"
    told = (
        f"Su cuenta {EMAIL} no tiene rol en Relevo: su app_metadata.relevo_role es 'root'.",
        "Pida a quien administra",
    )
    refused(visitor, place.come_back(visitor, back), 403, *told)
    assert "Entrar por localhost" in visible(visitor.page("/sign-in"))


@pytest.mark.parametrize(
    "access",
    [
        changed(sub="somebody else"),
        changed(iss="https://evil.example"),
        changed(exp=1_700_000_000),
        changed(client_id="another-client"),
        changed(aud=None),
    ],
)
def test_a_role_in_an_access_token_that_is_not_ours_counts_for_nothing(
    place: Place, access: Callable[[Claims], Claims]
) -> None:
    place.issuer.access = access
    visitor, answer = place.sign_in()
    refused(visitor, answer, 403, "has no role in Relevo")


def test_a_role_that_somebody_wrote_themselves_counts_for_nothing(place: Place) -> None:
    """The stand-in's user_metadata says admin."""
    place.issuer.role = "viewer"
    visitor, answer = place.sign_in()
    assert answer.status == 200
    assert "viewer" in visible(visitor.page("/"))
    assert visitor.ask("POST", "/sessions/end", {"session": "x"}).status == 403


async def refusals(place: Place) -> int:
    (counted,) = await rows(
        place.database, "SELECT count(*) AS n FROM relevo.audit_log WHERE action = 'session.refuse'"
    )
    return int(counted["n"])


async def test_strangers_have_to_wait_and_keep_nobody_from_signing_in(place: Place) -> None:
    """Anybody at an address, and any page that one of them looks at, can have the way back asked for."""
    visitor, back = place.begin()
    elsewhere, before = back.split("&state=")[0] + "&state=another", await refusals(place)
    for number in range(3 * BURST):
        stranger = Visitor(place.served, dict(visitor.cookies) if number % 2 else {})
        answer = place.come_back(stranger, elsewhere)
        words = ("no sign-in that was begun",) if number < BURST else ("Too many wrong attempts", "Wait")
        refused(stranger, answer, 401 if number < BURST else 429, *words)
        assert "set-cookie" not in answer.headers  # nor ends what was begun
    assert await refusals(place) == before + BURST
    assert wrong_token(place).status == 401  # an allowance of its own
    assert place.come_back(visitor, back).status == 200
    assert signed_in(visitor)


def wrong_token(place: Place) -> Answer:
    sent = {"token": f"relevo_{'0' * 48}"}
    return Visitor(place.served).ask("POST", "/sign-in", sent, headers={**OURS, "x-forwarded-for": place.address})


def test_wrong_tokens_keep_nobody_from_signing_in_through_the_provider(place: Place) -> None:
    assert [wrong_token(place).status for _ in range(BURST + 1)] == [401] * BURST + [429]
    assert signed_in(place.sign_in()[0])


async def test_whoever_fails_often_may_try_again_and_fills_no_log(place: Place) -> None:
    place.issuer.identity, before = changed(aud="another-client"), await refusals(place)
    assert {place.sign_in()[1].status for _ in range(2 * BURST)} == {401}
    assert await refusals(place) in (before + BURST, before + BURST + 1)  # the slow get one more
    place.issuer.identity = Issuer(place.issuer.server).identity
    place.issuer.role = None
    assert place.sign_in()[1].status == 403
    assert (await place.audited("session.refuse"))["actor"] == f"person {SUBJECT} ({EMAIL})"
    place.issuer.role = "operator"
    assert signed_in(place.sign_in()[0])


async def test_a_provider_that_was_away_is_nobodys_wrong_attempt(place: Place) -> None:
    begun = [place.begin() for _ in range(BURST + 2)]
    usual = place.issuer.server.answering
    place.issuer.server.answering = lambda _request: Reply(500)
    try:
        assert {place.come_back(visitor, back).status for visitor, back in begun} == {503}
    finally:
        place.issuer.server.answering = usual
    assert signed_in(place.sign_in()[0])
    assert wrong_token(place).status == 401


@pytest.mark.parametrize("to", ["https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example"])
def test_signing_in_leads_to_our_own_pages_alone(place: Place, to: str) -> None:
    visitor, back = place.begin(to)
    assert 'content="0; url=/"' in place.come_back(visitor, back).body.decode()
    visitor, back = place.begin()
    planted = base64.urlsafe_b64encode(to.encode()).decode().rstrip("=")
    visitor.cookies["relevo_sign_in"] = f"{visitor.cookies['relevo_sign_in'].split('.')[0]}.{planted}"
    assert 'content="0; url=/"' in place.come_back(visitor, back).body.decode()


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_begins_no_sign_in(place: Place, site: str) -> None:
    visitor = Visitor(place.served)
    assert visitor.ask("GET", "/sign-in/provider", headers={"sec-fetch-site": site}).status == 403
    assert visitor.cookies == {}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_no_form_is_taken_from_another_site(plain: House, site: str) -> None:
    admin = Visitor(plain.served).sign_in(plain.secrets[Role.ADMIN])
    forms = [path for method, path in NEEDED if method == "POST"]
    assert len(forms) > 8
    for path in forms:
        answer = admin.ask("POST", path, {"language": "es"}, {"sec-fetch-site": site})
        assert (answer.status, "another site" in visible(answer.body.decode())) == (403, True), path
    assert admin.cookies.keys() == {"relevo_session"}
    assert signed_in(admin)


# Let in ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
async def test_a_person_comes_in_with_the_role_that_the_issuer_gives(place: Place, role: Role) -> None:
    place.issuer.role = role.label
    visitor, back = place.begin("/tenants?q=caf%C3%A9")
    answer = place.come_back(visitor, back)
    assert answer.status == 200
    assert 'content="0; url=/tenants?q=caf%C3%A9"' in answer.body.decode()
    assert f"{EMAIL} {role.label}" in visible(visitor.page("/settings"))
    session = await place.audited("session.begin")
    assert session["actor"] == f"person {SUBJECT} ({EMAIL})"
    assert session["details"] == {"role": role.label, "issuer": place.issuer.url}
    assert visitor.ask("POST", "/sign-out", {}).headers["location"] == "/sign-in"
    assert (await place.audited("session.end"))["subject"] == session["subject"]
    assert not signed_in(visitor)


def test_the_cookies_are_for_us_alone(place: Place) -> None:
    began = Visitor(place.served).ask("GET", "/sign-in/provider")
    assert re.fullmatch(
        r"relevo_sign_in=[\w.-]+; HttpOnly; Max-Age=600; Path=/; SameSite=lax", began.headers["set-cookie"]
    )
    visitor = Visitor(place.served)
    https = visitor.ask(
        "GET", "/sign-in/provider", headers={**OURS, "x-forwarded-proto": "https", "x-forwarded-for": "10.9.9.9"}
    )
    assert https.headers["set-cookie"].startswith("__Host-relevo_sign_in=")
    assert https.headers["set-cookie"].endswith("; Path=/; SameSite=lax; Secure")
    assert parse_qs(urlsplit(https.headers["location"]).query)["redirect_uri"] == [
        f"https://127.0.0.1:{place.served.port}{CALLBACK}"
    ]


def test_the_issuer_is_shown_nothing_of_what_the_browser_keeps(place: Place) -> None:
    visitor = Visitor(place.served)
    sent = visitor.ask("GET", "/sign-in/provider").headers["location"]
    secret = visitor.cookies["relevo_sign_in"].split(".")[0]
    assert secret not in sent
    asked = {name: values[0] for name, values in parse_qs(urlsplit(sent).query).items()}
    assert len({asked["state"], asked["nonce"], asked["code_challenge"], secret}) == 4
    assert asked["scope"] == "openid email"


def test_a_role_in_the_id_token_wins(place: Place) -> None:
    place.issuer.identity = changed(app_metadata={"relevo_role": ["viewer", "unheard of"]})
    place.issuer.role = "admin"
    visitor, answer = place.sign_in()
    assert answer.status == 200
    assert f"{EMAIL} viewer" in visible(visitor.page("/"))


@pytest.mark.parametrize("email", [{"email_verified": False}, {"email": "ana\n@x"}, {"email": 7}, {"email": None}])
async def test_an_address_that_proves_nothing_is_not_shown(place: Place, email: Claims) -> None:
    place.issuer.identity = changed(**email)
    _, answer = place.sign_in()
    assert answer.status == 200
    assert (await place.audited("session.begin"))["actor"] == f"person {SUBJECT}"


async def test_an_admin_ends_the_session_of_a_person(place: Place) -> None:
    person, answer = place.sign_in()
    assert answer.status == 200
    session = (await place.audited("session.begin"))["subject"]
    admin = Visitor(place.served).sign_in(place.secrets[Role.ADMIN])
    assert f"person {SUBJECT} ({EMAIL})" in admin.page("/settings")
    assert admin.ask("POST", "/sessions/end", {"session": session}).status == 303
    assert not signed_in(person)
    assert (await place.audited("session.end"))["details"] == {"issuer": place.issuer.url, "subject": SUBJECT}


def test_nothing_secret_is_in_the_log(place: Place) -> None:
    visitor, back = place.begin()
    asked = parse_qs(urlsplit(back).query)
    assert place.come_back(visitor, back).status == 200
    log = json.dumps(place.served.log())
    assert "/sign-in/callback" in log
    for secret in (SECRET, asked["code"][0], asked["state"][0], visitor.cookies["relevo_session"], EMAIL, SUBJECT):
        assert secret not in log


# The issuer in trouble ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("discovery", "words"),
    [
        ({"issuer": "https://evil.example"}, "it names another issuer"),
        ({"token_endpoint": "http://evil.example/token"}, "its endpoints are no https addresses"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "its endpoints are no https addresses"),
        ({"jwks_uri": None}, "its endpoints are no https addresses"),
    ],
)
def test_an_issuer_that_describes_itself_wrongly_is_not_used(
    server: Server, template: str, discovery: Claims, words: str
) -> None:
    with copied(server, template) as url, issuing() as issuer:
        issuer.discovery = discovery
        with serving(url, env=issuer.settings) as served:
            visitor = Visitor(served)
            refused(visitor, visitor.ask("GET", "/sign-in/provider"), 503, words, "check RELEVO_OIDC_ISSUER")


def test_without_an_issuer_there_is_no_way_there_and_back(plain: House) -> None:
    visitor = Visitor(plain.served)
    assert "through-provider" not in visitor.page("/sign-in")
    for path in ("/sign-in/provider", f"{CALLBACK}?code=x&state=x"):
        assert "no identity provider is configured" in visitor.page(path, 404)


async def test_while_the_issuer_is_away_tokens_open_and_it_is_found_again(server: Server, template: str) -> None:
    with copied(server, template) as url:
        async with Database(url) as database:
            secrets = await secrets_of_each_role(database)
            with issuing() as issuer:
                env = issuer.settings
            with serving(url, env=env) as served:
                visitor = Visitor(served)
                refused(
                    visitor, visitor.ask("GET", "/sign-in/provider"), 503, "does not answer", "sign in with a token"
                )
                visitor.sign_in(secrets[Role.VIEWER])
                assert signed_in(visitor)


def test_an_issuer_that_hangs_is_given_up(place: Place) -> None:
    visitor, back = place.begin()
    place.issuer.server.hang()
    try:
        refused(visitor, place.come_back(visitor, back), 503, "does not answer: not within 5 s")
    finally:
        place.issuer.server.go_on()
    assert place.sign_in()[1].status == 200


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b"x" * 2_000_000, b"[" * 100_000, b"{}", b'{"id_token": 7}'])
def test_an_issuer_that_talks_nonsense_is_told_of(place: Place, body: bytes) -> None:
    visitor, back = place.begin()
    usual = place.issuer.server.answering
    place.issuer.server.answering = lambda _request: Reply(200, body)
    try:
        refused(visitor, place.come_back(visitor, back), 503, "no OpenID provider that Relevo can use")
    finally:
        place.issuer.server.answering = usual


@pytest.mark.parametrize("status", [301, 302, 307, 401, 429, 500])
def test_an_issuer_that_sends_us_elsewhere_or_away_is_told_of(place: Place, status: int) -> None:
    visitor, back = place.begin()
    usual = place.issuer.server.answering
    there = {"location": f"{place.issuer.url}/elsewhere"}
    place.issuer.server.answering = lambda _request: Reply(status, {"error": "invalid_client"}, there)
    try:
        refused(visitor, place.come_back(visitor, back), 503)
    finally:
        place.issuer.server.answering = usual
    assert place.issuer.asked("/elsewhere") == 0
