"""API tokens: shown once, kept as fingerprints, ended within a second, and every change in the audit log."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.access import tokens
from relevo.access.door import Door
from relevo.access.guesses import BURST, EVERY_S, Guesses
from relevo.access.keyring import Keyring
from relevo.access.roles import Role, role
from relevo.db.pool import Database
from relevo.errors import (
    DatabaseUnreachable,
    Forbidden,
    SchemaMissing,
    TooManyGuesses,
    Unauthorized,
    UnknownName,
    UsageError,
)
from tests.commands import relevo, succeeds
from tests.conftest import NOW, change, rows, value

ADDRESS = "203.0.113.7"
WRONG = f"relevo_{'0' * 10}_{'0' * 48}"


class Times:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> Any:
        return self.now


@pytest.fixture
def clock() -> Times:
    return Times()


async def made(database: Database, granted: Role = Role.VIEWER, **more: Any) -> tokens.Created:
    wanted: dict[str, Any] = {"name": None, "expires_at": None, "clock": Times(), "actor": "ana", "reason": None}
    return await tokens.create(database, granted, **(wanted | more))


async def ended(database: Database, named: str) -> tuple[tokens.Token, bool]:
    return await tokens.revoke(database, named, clock=Times(), actor="ana", reason="left")


@pytest.fixture
async def keyring(ready: Database, clock: Times) -> Keyring:
    opened = Keyring(ready, clock)
    await opened.refresh()
    return opened


def bearer(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {token}".encode())]


async def test_only_the_fingerprint_of_a_token_is_kept(ready: Database) -> None:
    created = await made(ready)
    assert re.fullmatch(r"relevo_[0-9a-f]{10}_[0-9a-f]{48}", created.secret)
    (row,) = await rows(ready, "SELECT * FROM relevo.api_tokens")
    secret = created.secret.rsplit("_", 1)[1]
    assert row["secret_hash"] == hashlib.sha256(secret.encode()).digest()
    everything = await rows(
        ready, "SELECT to_jsonb(t) || to_jsonb(a) AS it FROM relevo.api_tokens t, relevo.audit_log a"
    )
    assert secret not in str(everything)


async def test_making_and_ending_a_token_is_audited(ready: Database) -> None:
    created = await made(ready, Role.OPERATOR, name="ci", reason="deploys")
    assert (await ended(ready, created.id))[1]
    audit = await rows(ready, "SELECT actor, action, subject, reason, details FROM relevo.audit_log ORDER BY id")
    details = {"role": "operator", "name": "ci"}
    assert audit == [
        {
            "actor": "ana",
            "action": "token.create",
            "subject": created.id,
            "reason": "deploys",
            "details": details | {"expires_at": None},
        },
        {"actor": "ana", "action": "token.revoke", "subject": created.id, "reason": "left", "details": details},
    ]


async def test_a_token_opens_what_its_role_may_do_and_nothing_above(ready: Database, keyring: Keyring) -> None:
    door = Door(keyring)
    for granted in Role:
        headers = bearer((await made(ready, granted)).secret)
        await keyring.refresh()
        for needed in Role:
            if needed <= granted:
                assert (await door.admit(headers, ADDRESS, needed)).role is granted
            else:
                with pytest.raises(Forbidden, match=f"role {granted.label} may not"):
                    await door.admit(headers, ADDRESS, needed)


async def test_a_new_token_opens_at_once(ready: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relevo.access.keyring._AGAIN_AFTER_S", 0)
    created = await made(ready)
    assert await keyring.caller(created.secret) is not None


async def test_a_revoked_token_opens_nothing_after_the_next_reading(ready: Database, keyring: Keyring) -> None:
    created = await made(ready)
    await keyring.refresh()
    assert await keyring.caller(created.secret) is not None
    await ended(ready, created.id)
    await keyring.refresh()
    assert await keyring.caller(created.secret) is None


async def test_an_expired_token_opens_nothing_from_that_moment(ready: Database, keyring: Keyring, clock: Times) -> None:
    created = await made(ready, expires_at=NOW + timedelta(hours=1))
    await keyring.refresh()
    clock.now = NOW + timedelta(minutes=59, seconds=59)
    assert await keyring.caller(created.secret) is not None
    clock.now = NOW + timedelta(hours=1)
    assert await keyring.caller(created.secret) is None


async def test_the_right_id_with_a_wrong_secret_opens_nothing(ready: Database, keyring: Keyring) -> None:
    created = await made(ready)
    await keyring.refresh()
    assert await keyring.caller(created.secret[:-1] + ("0" if created.secret[-1] != "0" else "1")) is None


async def test_a_request_costs_no_query(ready: Database, keyring: Keyring) -> None:
    created = await made(ready)
    await keyring.refresh()
    await change(ready, "ALTER TABLE relevo.api_tokens RENAME TO out_of_reach")
    assert await keyring.caller(created.secret) is not None


async def test_tokens_known_last_stay_good_while_the_database_is_gone(ready: Database, keyring: Keyring) -> None:
    created = await made(ready)
    await keyring.refresh()
    await change(ready, "ALTER TABLE relevo.api_tokens RENAME TO gone")
    await keyring.refresh()
    assert isinstance(keyring.failure, SchemaMissing)
    assert await keyring.caller(created.secret) is not None
    assert await keyring.caller(WRONG) is None
    await change(ready, "ALTER TABLE relevo.gone RENAME TO api_tokens")
    await keyring.refresh()
    assert keyring.failure is None


async def test_nobody_is_called_a_stranger_before_tokens_could_be_read(clock: Times) -> None:
    async with Database("postgresql://u@127.0.0.1:1/nowhere", wait_s=0.2, must_answer=False) as nowhere:
        with pytest.raises(DatabaseUnreachable):
            await Keyring(nowhere, clock).caller(WRONG)


async def test_use_is_noted_once_a_minute(ready: Database, keyring: Keyring, clock: Times) -> None:
    created = await made(ready)
    await keyring.refresh()
    last = "SELECT last_used_at FROM relevo.api_tokens"
    await keyring.note_use()
    assert await value(ready, last) is None
    await keyring.caller(created.secret)
    await keyring.note_use()
    assert await value(ready, last) == NOW
    clock.now = NOW + timedelta(seconds=30)
    other = Keyring(ready, clock)  # another process
    for each in (keyring, other):
        await each.caller(created.secret)
        await each.note_use()
    assert await value(ready, last) == NOW


@pytest.mark.parametrize(
    "headers",
    [[], [(b"authorization", b"Basic dXNlcjpwYXNz")], [(b"authorization", b"Bearer ")], [(b"x-api-key", b" ")]],
)
async def test_no_credentials_are_no_guess(keyring: Keyring, headers: list[tuple[bytes, bytes]]) -> None:
    door = Door(keyring)
    for _ in range(3 * BURST):
        with pytest.raises(Unauthorized, match="needs a token"):
            await door.admit(headers, ADDRESS, Role.VIEWER)


async def test_many_wrong_tokens_have_to_wait_and_right_ones_never(ready: Database, keyring: Keyring) -> None:
    created = await made(ready)
    await keyring.refresh()
    door = Door(keyring)
    for _ in range(BURST):
        with pytest.raises(Unauthorized, match="unknown, revoked or expired"):
            await door.admit(bearer(WRONG), ADDRESS, Role.VIEWER)
    with pytest.raises(TooManyGuesses) as refusal:
        await door.admit(bearer(WRONG), ADDRESS, Role.VIEWER)
    assert 0 < refusal.value.wait_s <= EVERY_S
    assert await door.admit(bearer(created.secret), ADDRESS, Role.VIEWER)
    assert await door.admit([(b"x-api-key", created.secret.encode())], ADDRESS, Role.VIEWER)
    with pytest.raises(Unauthorized):
        await door.admit(bearer(WRONG), "198.51.100.1", Role.VIEWER)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_no_address_gets_more_guesses_than_its_share(gaps: list[float]) -> None:
    guesses, now_s, allowed = Guesses(), 0.0, 0
    for gap in gaps:
        now_s += gap
        allowed += guesses.wrong(ADDRESS, now_s) is None
    assert allowed <= BURST + sum(gaps) / EVERY_S + 1e-6


def test_after_the_wait_there_is_room_again() -> None:
    guesses = Guesses()
    while (wait_s := guesses.wrong(ADDRESS, 0)) is None:
        pass
    assert guesses.wrong(ADDRESS, wait_s) is None


def test_whoever_owns_an_ipv6_address_owns_its_neighbours() -> None:
    guesses = Guesses()
    answers = [guesses.wrong(f"2001:db8::{n:x}", 0) for n in range(BURST + 1)]
    assert answers[:BURST] == [None] * BURST
    assert answers[BURST] is not None
    assert guesses.wrong("2001:db8:0:1::1", 0) is None


@pytest.mark.parametrize(
    "written",
    ["", "relevo_", WRONG[:-1], WRONG + "0", WRONG.upper(), f" {WRONG}", WRONG.replace("0", "é"), "x" * 100_000],
)
def test_what_is_no_token_is_not_even_looked_up(written: str) -> None:
    assert tokens.parts(written) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE relevo.api_tokens SET role = 'admin'",
        "UPDATE relevo.api_tokens SET expires_at = NULL",
        "UPDATE relevo.api_tokens SET expires_at = 'infinity'",
        "UPDATE relevo.api_tokens SET secret_hash = sha256('x')",
        "UPDATE relevo.api_tokens SET revoked_at = NULL",
        "INSERT INTO relevo.api_tokens (id, secret_hash, role, created_at, created_by)"
        " VALUES ('0123456789', 'short', 'viewer', now(), 'x')",
        "INSERT INTO relevo.api_tokens (id, secret_hash, role, created_at, created_by)"
        " VALUES ('0123456789', sha256('x'), 'root', now(), 'x')",
        "INSERT INTO relevo.api_tokens (id, secret_hash, role, created_at, created_by)"
        " VALUES ('relevo_id', sha256('x'), 'viewer', now(), 'x')",
        "INSERT INTO relevo.api_tokens (id, secret_hash, role, created_at, created_by, expires_at)"
        " VALUES ('0123456789', sha256('x'), 'viewer', now(), 'x', '2000-01-01')",
    ],
)
async def test_the_database_itself_keeps_tokens_what_they_are(ready: Database, statement: str) -> None:
    created = await made(ready, expires_at=NOW + timedelta(days=1))
    await ended(ready, created.id)
    with pytest.raises(psycopg.IntegrityError):
        await change(ready, statement)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb", "a\0b"])
async def test_a_name_nobody_can_read_is_refused(ready: Database, name: str) -> None:
    with pytest.raises(UsageError, match="printable"):
        await made(ready, name=name)
    assert await value(ready, "SELECT count(*) FROM relevo.api_tokens") == 0


async def test_an_expiry_that_has_passed_is_refused(ready: Database) -> None:
    with pytest.raises(UsageError, match="has passed"):
        await made(ready, expires_at=NOW)


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(UsageError, match="no role 'root'"):
        role("root")


async def test_ending_a_token_twice_ends_it_once(ready: Database) -> None:
    created = await made(ready)
    assert [(await ended(ready, created.id))[1] for _ in range(2)] == [True, False]
    assert await value(ready, "SELECT count(*) FROM relevo.audit_log WHERE action = 'token.revoke'") == 1


async def test_a_leaked_token_ends_itself(ready: Database) -> None:
    created = await made(ready)
    assert (await ended(ready, created.secret))[0].id == created.id


async def test_an_unknown_token_is_named_by_its_neighbours_and_never_by_its_secret(ready: Database) -> None:
    created = await made(ready)
    with pytest.raises(UnknownName, match=f"Did you mean '{created.id}'"):
        await ended(ready, created.id[:-1])
    mistyped = created.secret[:-1]
    with pytest.raises(UnknownName) as unknown:
        await ended(ready, mistyped)
    assert mistyped[18:] not in str(unknown.value)


async def test_tokens_from_the_command_line(ready: Database) -> None:
    url = ready.url
    assert relevo("tokens", "create", "--role", "root", url=url).status == 2
    assert relevo("tokens", "create", "--role", "viewer", "--expires", "soon", url=url).status == 2
    assert relevo("tokens", "create", "--role", "viewer", "--expires", "2001-01-01", url=url).status == 2
    created = succeeds("tokens", "create", "--role", "viewer", "--name", "panel", "--expires", "90d", url=url)
    assert created["token"].startswith(f"relevo_{created['id']}_")
    (listed,) = succeeds("tokens", "list", url=url)
    assert (listed["id"], listed["role"], listed["name"]) == (created["id"], "viewer", "panel")
    assert created["token"].rsplit("_", 1)[1] not in str(listed)
    assert relevo("tokens", "revoke", "0000000000", url=url).status == 2
    assert succeeds("tokens", "revoke", created["id"], url=url)["revoked"] is True
    assert succeeds("tokens", "revoke", created["id"], url=url)["revoked"] is False


async def test_without_the_schema_no_token_is_made(database: Database) -> None:
    answered = relevo("tokens", "create", "--role", "viewer", url=database.url)
    assert (answered.status, answered.data["error"]["code"]) == (3, "SchemaMissing")
