"""Signing in, with a token here, signing out, and what people prefer."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from starlette.responses import Response

from relevo.access import sessions
from relevo.access.keyring import Caller
from relevo.access.roles import Role
from relevo.dashboard import wording
from relevo.dashboard.house import LANGUAGE, THEME, THEMES, Visit, local, to
from relevo.dashboard.places import COOKIE, Place, status_of
from relevo.errors import (
    IssuerFaulty,
    IssuerUnreachable,
    NoRole,
    RelevoError,
    SignInFailed,
    TooManyGuesses,
    Unauthorized,
    UnknownName,
)

_YEAR = timedelta(days=365)


async def ask(visit: Visit) -> Response:
    """The page on which people sign in."""
    where = local(visit.asked("to", "/"))
    return to(where) if visit.session is not None else page(visit, where)


async def begin(visit: Visit) -> Response:
    """Sign in with a token. A wrong one is a guess, and an address that makes many has to wait."""
    sent = await visit.form()
    where = local(sent.get("to", "/"))
    token = "".join(sent.get("token", "").split())  # copied from a terminal, it may have been wrapped
    presented = [(b"authorization", b"Bearer " + token.encode("utf-8", "replace"))]
    try:
        caller = await visit.house.door.admit(presented, visit.address, Role.VIEWER)
    except (Unauthorized, TooManyGuesses) as error:
        return page(visit, where, error)
    answer = to(where)
    await let_in(visit, answer, caller)
    return answer


async def let_in(visit: Visit, answer: Response, caller: Caller, sign_in: bytes | None = None) -> None:
    """Begin a session, and give its cookie to an answer. Raises as ``sessions.begin``."""
    secret = await sessions.begin(visit.house.database, caller, visit.house.wall(), sign_in=sign_in)
    remember(visit, answer, COOKIE, secret, sessions.LASTS)


def page(visit: Visit, where: str, error: RelevoError | None = None) -> Response:
    """The page, with what was in the way."""
    provider = visit.house.provider
    told = error and _sentence(wording.retold(visit.language, str(error)))
    return visit.page(
        "sign_in.html",
        status_of(error) if error else 200,
        to=where,
        refused=told,
        fix=error and _fix(visit, error),
        provider=provider.host if provider else None,
    )


def _fix(visit: Visit, error: RelevoError) -> str | None:
    """What a person can do about it; None: what is said of a token is meant for programs."""
    if isinstance(error, TooManyGuesses):
        return visit.say("Wait {seconds} s before the next.", seconds=error.wait_s)
    through_provider = isinstance(error, SignInFailed | NoRole | IssuerUnreachable | IssuerFaulty)
    return _sentence(wording.retold(visit.language, error.fix)) if through_provider else None


def _sentence(told: str) -> str:
    return f"{told[:1].upper()}{told[1:]}."


async def end(visit: Visit) -> Response:
    """Sign out."""
    if visit.session is not None:
        await sessions.end(visit.house.database, visit.session.id, visit.house.wall(), actor=visit.caller.actor)
    answer = to("/sign-in")
    answer.delete_cookie(COOKIE, path="/")
    return answer


async def end_other(visit: Visit) -> Response:
    """End somebody's session."""
    session_id = (await visit.form()).get("session", "")
    if not await sessions.end(visit.house.database, session_id, visit.house.wall(), actor=visit.caller.actor):
        raise UnknownName("there is no such session any more", fix="see the list again")
    return to("/settings")


async def prefer(visit: Visit) -> Response:
    """Remember a language or a theme in this browser."""
    sent = await visit.form()
    answer = to(local(sent.get("to", "/")))
    for field, name, known in (("language", LANGUAGE, tuple(wording.LANGUAGES)), ("theme", THEME, THEMES)):
        if sent.get(field) in known:
            remember(visit, answer, name, sent[field], _YEAR)
    return answer


def remember(
    visit: Visit,
    answer: Response,
    name: str,
    value: str,
    lasts: timedelta,
    samesite: Literal["strict", "lax"] = "strict",
) -> None:
    """A cookie that no script reads and no other site sends; behind https it never travels without."""
    lasts_s, secure = int(lasts.total_seconds()), visit.request.url.scheme == "https"
    answer.set_cookie(name, value, max_age=lasts_s, path="/", httponly=True, samesite=samesite, secure=secure)


PLACES = (
    Place("GET", "/sign-in", None, ask),
    Place("POST", "/sign-in", None, begin),
    Place("POST", "/sign-out", None, end),
    Place("POST", "/preferences", None, prefer),
    Place("POST", "/sessions/end", Role.ADMIN, end_other),
)
