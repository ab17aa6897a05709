"""The parts of signing in through an identity provider: settings, keys that rotate, roles, what the database keeps."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from relevo.access import issuer as issuers
from relevo.access import proofs, sessions
from relevo.access.keyring import Caller
from relevo.access.proofs import Unproven
from relevo.access.provider import Provider, SignIn
from relevo.access.roles import LABELS, Role
from relevo.access.terms import Terms, terms_of
from relevo.clock import system_clock
from relevo.db.pool import Database
from relevo.errors import ConfigurationError, IssuerFaulty, IssuerUnreachable, NoRole, SignInFailed
from relevo.settings import Settings
from tests.commands import relevo
from tests.conftest import NOW, change, rows, value
from tests.issuers import CLIENT, EMAIL, SECRET, SUBJECT, Issuer, issuing, key

OURS = "https://relevo.example/sign-in/callback"
WHOLE: dict[str, Any] = {"oidc_issuer": "https://login.example", "oidc_client_id": "relevo"}
TERMS = Terms("https://login.example", CLIENT, None, "openid", ("ES256",), "groups", LABELS)


# Settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"oidc_client_id": None}, "setting oidc_client_id is empty"),
        ({"oidc_client_id": " "}, "setting oidc_client_id is empty"),
        ({"oidc_client_secret": " "}, "setting oidc_client_secret is empty"),
        ({"oidc_issuer": None}, "setting oidc_client_id is there, but oidc_issuer is not"),
        (
            {"oidc_issuer": None, "oidc_client_id": None, "oidc_client_secret": "x"},
            "setting oidc_client_secret is there",
        ),
        ({"oidc_issuer": "login.example"}, "setting oidc_issuer is no https address"),
        ({"oidc_issuer": "http://login.example"}, "setting oidc_issuer is no https address"),
        ({"oidc_issuer": "http://localhost.evil.example"}, "setting oidc_issuer is no https address"),
        ({"oidc_issuer": "https://u:p@login.example"}, "setting oidc_issuer is no https address"),
        ({"oidc_issuer": "https://login.example?x=1"}, "setting oidc_issuer is no https address"),
        ({"oidc_issuer": "https://login.example:x"}, "setting oidc_issuer is no https address"),
        ({"oidc_scopes": "email"}, "setting oidc_scopes lacks openid"),
        ({"oidc_algorithms": ""}, "setting oidc_algorithms names nothing, by which nobody can be believed."),
        ({"oidc_algorithms": "none"}, "setting oidc_algorithms names none"),
        ({"oidc_algorithms": "ES256 HS256"}, "setting oidc_algorithms names HS256.*'(ES|RS|PS)256'"),
        ({"oidc_role_claim": ""}, "setting oidc_role_claim is empty"),
        ({"oidc_role_claim": "user_metadata.role"}, "user_metadata.role, which people write themselves"),
        ({"oidc_roles": {"staff": "amdin"}}, "'staff' the role 'amdin', which there is not. Did you mean 'admin'"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as mistake:
        terms_of(Settings(**{**WHOLE, **wrong}))
    assert mistake.value.fix
    assert "\n" not in str(mistake.value) + mistake.value.fix


def test_nothing_is_started_on_wrong_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELEVO_OIDC_ISSUER", "http://login.example")
    monkeypatch.setenv("RELEVO_OIDC_CLIENT_SECRET", SECRET)
    answered = relevo("serve", "--port", "0", url="postgresql://nobody@127.0.0.1:1/x")
    assert (answered.status, answered.data["error"]["code"]) == (2, "ConfigurationError")
    assert "setting oidc_issuer is no https address" in answered.data["error"]["message"]
    assert SECRET not in answered.told + json.dumps(answered.data)


def test_without_an_issuer_there_is_nothing_to_check() -> None:
    assert terms_of(Settings()) is None


def test_the_secret_shows_nowhere() -> None:
    settings = Settings(**WHOLE, oidc_client_secret=SecretStr(SECRET))
    terms = terms_of(settings)
    assert terms is not None
    assert terms.client_secret == SECRET
    assert SECRET not in f"{settings!r} {settings} {terms!r} {terms} {settings.model_dump_json()}"
    assert SignIn("hidden").secret not in repr(SignIn("hidden"))


@pytest.mark.parametrize("near", ["http://localhost:9", "http://127.0.0.1:9/realms/x", "http://[::1]:9"])
def test_an_issuer_on_this_machine_needs_no_https(near: str) -> None:
    assert terms_of(Settings(**{**WHOLE, "oidc_issuer": near})) is not None


# The issuer --------------------------------------------------------------------------------------------------------


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


def terms_for(issuer: Issuer, **more: Any) -> Terms:
    made = terms_of(
        Settings(**{"oidc_issuer": issuer.url, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET, **more})
    )
    assert made is not None
    return made


async def sign_in(provider: Provider, issuer: Issuer) -> Caller:
    begun = SignIn.new()
    back = issuer.back(await provider.address(begun, OURS))
    answer = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    return await provider.person(begun, answer, OURS, system_clock())


async def test_a_new_key_is_fetched_and_one_that_was_withdrawn_opens_nothing(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = Provider(terms_for(issuer))
    await sign_in(provider, issuer)
    await sign_in(provider, issuer)
    assert (issuer.asked("/keys"), issuer.asked("/.well-known/openid-configuration")) == (1, 1)
    monkeypatch.setattr(issuers, "NEW_KEYS_EVERY_S", 0.0)
    old, issuer.pair = issuer.pair, key("second")
    await sign_in(provider, issuer)
    assert issuer.asked("/keys") == 2
    issuer.published, issuer.pair = [issuer.pair.as_dict(private=False)], old
    with pytest.raises(SignInFailed, match="does not hold: key"):
        await sign_in(provider, issuer)


async def test_made_up_keys_do_not_make_us_ask_again_and_again(issuer: Issuer) -> None:
    provider = Provider(terms_for(issuer))
    await sign_in(provider, issuer)
    issuer.published, issuer.pair = [issuer.pair.as_dict(private=False)], key("made up")
    for _ in range(5):
        with pytest.raises(SignInFailed, match="does not hold: key"):
            await sign_in(provider, issuer)
    assert issuer.asked("/keys") == 1


async def test_what_an_issuer_published_long_ago_is_asked_for_again(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "KEPT_S", 0.0)
    provider = Provider(terms_for(issuer))
    await sign_in(provider, issuer)
    before = issuer.asked("/keys")
    await sign_in(provider, issuer)
    assert issuer.asked("/keys") == before + 1


async def test_an_issuer_that_fails_is_not_asked_by_everybody_at_once(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.discovery = {"issuer": "https://evil.example"}
    provider = Provider(terms_for(issuer))
    for _ in range(5):
        with pytest.raises(IssuerFaulty, match="it names another issuer"):
            await provider.address(SignIn.new(), OURS)
    assert issuer.asked("/.well-known/openid-configuration") == 1
    issuer.discovery = {}
    monkeypatch.setattr(issuers, "FAILED_FOR_S", 0.0)
    await sign_in(provider, issuer)


@pytest.mark.parametrize(
    "strange",
    [
        [],
        [{"kty": "AKP", "kid": "first", "alg": "ML-DSA-44", "pub": "AA"}],
        [7, None, {}, {"kty": "EC"}, {"kty": "EC", "crv": "P-256", "x": "!", "y": "!", "kid": "first"}],
        [{"kty": "oct", "kid": "first", "k": "c2VjcmV0"}],
        [{"kty": "RSA", "kid": "first", "n": "AQAB" * 30, "e": "AQAB"}],
    ],
)
async def test_keys_that_make_no_sense_are_passed_over(issuer: Issuer, strange: list[Any]) -> None:
    issuer.published = strange
    with pytest.raises(SignInFailed, match="does not hold: "):
        await sign_in(Provider(terms_for(issuer)), issuer)
    issuer.published = [*strange[:3], issuer.pair.as_dict(private=False)]
    assert (await sign_in(Provider(terms_for(issuer)), issuer)).role == Role.OPERATOR


@pytest.mark.parametrize("methods", [["client_secret_basic"], ["client_secret_post"], None])
async def test_the_client_shows_its_secret_as_the_issuer_wants_it(issuer: Issuer, methods: list[str] | None) -> None:
    issuer.discovery = {"token_endpoint_auth_methods_supported": methods}
    assert (await sign_in(Provider(terms_for(issuer)), issuer)).id == SUBJECT
    (exchange,) = [each for each in issuer.server.received if each.path == "/token"]
    assert ("authorization" in exchange.headers) == (methods != ["client_secret_post"])


async def test_a_public_client_has_no_secret_to_show(issuer: Issuer) -> None:
    issuer.secret = ""
    assert (await sign_in(Provider(terms_for(issuer, oidc_client_secret=None)), issuer)).id == SUBJECT


async def test_a_wrong_secret_is_our_fault_and_said_so(issuer: Issuer) -> None:
    with pytest.raises(IssuerFaulty, match="does not know Relevo: invalid_client") as refusal:
        await sign_in(Provider(terms_for(issuer, oidc_client_secret="old")), issuer)
    assert OURS in refusal.value.fix


async def test_an_issuer_that_signs_its_answers_has_to(issuer: Issuer) -> None:
    issuer.discovery = {"authorization_response_iss_parameter_supported": True}
    with pytest.raises(SignInFailed, match="does not hold: iss"):
        await sign_in(Provider(terms_for(issuer)), issuer)


async def test_an_issuer_that_is_away_is_told_of() -> None:
    with issuing() as other:
        provider = Provider(terms_for(other))
    with pytest.raises(IssuerUnreachable, match="does not answer: ClientConnectorError"):
        await provider.address(SignIn.new(), OURS)


# Sign-ins and proofs -----------------------------------------------------------------------------------------------


@given(st.text())
def test_what_is_derived_of_a_sign_in_is_always_the_same_and_tells_nothing(secret: str) -> None:
    begun = SignIn(secret)
    derived = {begun.state, begun.nonce, begun.verifier}
    assert derived == {SignIn(secret).state, SignIn(secret).nonce, SignIn(secret).verifier}
    assert len(derived) == 3
    assert all(43 <= len(each) <= 128 for each in derived)  # as PKCE has it (RFC 7636, 4.1)
    assert secret not in derived


@given(st.text() | st.binary().map(lambda told: told.decode("latin-1")) | st.from_regex(r"\A[\w-]*\.[\w-]*\.[\w-]*\Z"))
def test_whatever_is_sent_as_a_token_is_no_more_than_unproven(told: str) -> None:
    with pytest.raises(Unproven):
        proofs.identity(told, [_PAIR], TERMS, "nonce", NOW)


@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "crit", "b64", "jwk", "jku", "x5c", "typ", "zip", "enc"]),
        st.sampled_from(["ES256", "none", "HS256", "", None, 7, ["b64"], {}, True, False, "first"]),
    ),
    st.sampled_from(["{}", "[]", "null", "[" * 5_000, '{"exp": NaN}', '{"exp": 1e999}', "\udcff"]),
)
def test_no_header_makes_a_proof_of_anything(header: Mapping[str, Any], payload: str) -> None:
    parts = [json.dumps(header).encode(), payload.encode("utf-8", "surrogateescape"), b"x" * 64]
    told = ".".join(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts)
    with pytest.raises(Unproven):
        proofs.identity(told, [_PAIR], TERMS, "nonce", NOW)


_PAIR = key("first")
GROUPS = {"relevo-readers": Role.VIEWER, "sre": Role.ADMIN}


@pytest.mark.parametrize(
    ("claim", "said", "roles", "role"),
    [
        ("groups", {"groups": ["everybody", "relevo-readers", "sre"]}, GROUPS, Role.ADMIN),
        ("groups", {"groups": ["relevo-readers"]}, GROUPS, Role.VIEWER),
        ("groups", {"groups": "sre"}, GROUPS, Role.ADMIN),
        ("groups", {"groups": ["admin"]}, GROUPS, None),  # only what is mapped counts
        ("realm_access.roles", {"realm_access": {"roles": ["operator"]}}, LABELS, Role.OPERATOR),
        ("realm_access.roles", {"realm_access": ["operator"]}, LABELS, None),
        ("https://relevo.example/role", {"https://relevo.example/role": "viewer"}, LABELS, Role.VIEWER),
        ("email", {"email": EMAIL, "email_verified": True}, {EMAIL: Role.ADMIN}, Role.ADMIN),
        ("email", {"email": EMAIL, "email_verified": "true"}, {EMAIL: Role.ADMIN}, None),
        ("email", {"email": EMAIL}, {EMAIL: Role.ADMIN}, None),
        ("email", {"email": EMAIL.upper(), "email_verified": True}, {EMAIL: Role.ADMIN}, None),
    ],
)
def test_the_highest_role_that_a_claim_gives_is_theirs(
    claim: str, said: dict[str, Any], roles: dict[str, Role], role: Role | None
) -> None:
    terms = replace(TERMS, role_claim=claim, roles=roles)
    granted = proofs.Granted("", None)
    if role is not None:
        assert proofs.person(granted, {"sub": "s", **said}, [], terms, NOW).role == role
        return
    with pytest.raises(NoRole) as refusal:
        proofs.person(granted, {"sub": "s", **said}, [], terms, NOW)
    others = [each for each in roles if each != EMAIL and roles is not LABELS]
    assert [each for each in others if each in f"{refusal.value} {refusal.value.fix}"] == []


# What the database keeps -------------------------------------------------------------------------------------------


SESSION: dict[str, Any] = {
    "fingerprint": b"f" * 32,
    "id": "0123456789",
    "token_id": None,
    "issuer": "https://login.example",
    "subject": "s",
    "name": None,
    "role": "viewer",
    "sign_in": b"s" * 32,
    "began_at": NOW,
    "expires_at": NOW + timedelta(hours=1),
}


async def insert(database: Database, **changed: Any) -> None:
    row = SESSION | changed
    columns = f"({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})"
    await change(database, f"INSERT INTO relevo.sessions {columns}", tuple(row.values()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": None},
        {"subject": None},
        {"subject": ""},
        {"role": None},
        {"role": "root"},
        {"sign_in": None},
        {"sign_in": b"short"},
        {"name": ""},
        {"token_id": "0000000000"},
        {"issuer": None, "subject": None, "role": None, "sign_in": None},
        {"token_id": "0000000000", "issuer": None},
        {"token_id": "0000000000", "issuer": None, "subject": None, "role": None, "sign_in": None, "name": "x"},
    ],
)
async def test_a_session_is_of_a_token_or_of_a_person_and_never_half(ready: Database, wrong: dict[str, Any]) -> None:
    await change(
        ready,
        """INSERT INTO relevo.api_tokens (id, secret_hash, role, created_at, created_by)
        VALUES ('0000000000', %s, 'viewer', now(), 'tests')""",
        (b"h" * 32,),
    )
    with pytest.raises(psycopg.errors.CheckViolation):
        await insert(ready, **wrong)


async def test_a_session_never_gets_another_role_or_person(ready: Database) -> None:
    await insert(ready)
    for column, other in {"role": "admin", "subject": "x", "issuer": "x", "name": "x", "sign_in": b"x" * 32}.items():
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            await change(ready, f"UPDATE relevo.sessions SET {column} = %s", (other,))


async def test_a_sign_in_begins_one_session(ready: Database) -> None:
    ana = Caller(SUBJECT, EMAIL, Role.OPERATOR, "https://login.example")
    secret = await sessions.begin(ready, ana, NOW, sign_in=b"s" * 32)
    with pytest.raises(SignInFailed, match="was used before"):
        await sessions.begin(ready, ana, NOW, sign_in=b"s" * 32)
    found = await sessions.of(ready, secret, NOW)
    assert found is not None
    assert found.caller == ana
    assert await sessions.listed(ready, NOW) == [found]
    assert await value(ready, "SELECT count(*) FROM relevo.audit_log WHERE action = 'session.begin'") == 1
    assert await sessions.of(ready, secret, NOW + sessions.LASTS) is None


@pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])
async def test_whoever_is_signed_in_is_shown_and_put_out_by_command(ready: Database) -> None:
    now = system_clock()
    ana = Caller(SUBJECT, EMAIL, Role.ADMIN, "https://login.example")
    secrets = [await sessions.begin(ready, ana, now, sign_in=bytes([n]) * 32) for n in range(2)]
    listed = await asyncio.to_thread(relevo, "sessions", "list", url=ready.url)
    assert {each["who"] for each in listed.data} == {f"person {SUBJECT} ({EMAIL})"}
    assert {(each["role"], each["issuer"]) for each in listed.data} == {("admin", "https://login.example")}
    gone = listed.data[0]["id"]
    ended = await asyncio.to_thread(
        relevo, "sessions", "end", gone, "--actor", "ops", "--reason", "she left", url=ready.url
    )
    assert (ended.status, ended.data) == (0, {"success": True, "ended": [gone]})
    left = [await sessions.of(ready, secret, now) for secret in secrets]
    assert [each.id for each in left if each] == [listed.data[1]["id"]]
    (entry,) = await rows(ready, "SELECT actor, subject, reason FROM relevo.audit_log WHERE action = 'session.end'")
    assert entry == {"actor": "ops", "subject": gone, "reason": "she left"}
    for unknown in ((gone,), ("nobody",), ()):
        refused = await asyncio.to_thread(relevo, "sessions", "end", *unknown, url=ready.url)
        assert (refused.status, refused.data["error"]["code"]) == (2, "UnknownName")
