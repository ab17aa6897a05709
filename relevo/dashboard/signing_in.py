"""Signing in with a token, signing out, and what people prefer."""

from __future__ import annotations

from datetime import timedelta

from starlette.responses import Response

from relevo.access import sessions
from relevo.access.roles import Role
from relevo.dashboard import wording
from relevo.dashboard.house import LANGUAGE, THEME, THEMES, Visit, local, to
from relevo.dashboard.places import COOKIE, Place
from relevo.errors import TooManyGuesses, Unauthorized, UnknownName

_YEAR_S = int(timedelta(days=365).total_seconds())


async def ask(visit: Visit) -> Response:
    """The page that asks for a token."""
    if visit.session is not None:
        return to(local(visit.asked("to", "/")))
    return visit.page("sign_in.html", to=local(visit.asked("to", "/")), refused=None)


async def begin(visit: Visit) -> Response:
    """Sign in. A wrong token is a guess, and an address that makes many has to wait."""
    sent = await visit.form()
    where = local(sent.get("to", "/"))
    address = visit.request.client.host if visit.request.client else ""
    token = "".join(sent.get("token", "").split())  # copied from a terminal, it may have been wrapped
    presented = [(b"authorization", b"Bearer " + token.encode("utf-8", "replace"))]
    try:
        caller = await visit.house.door.admit(presented, address, Role.VIEWER)
    except (Unauthorized, TooManyGuesses) as error:
        status = 429 if isinstance(error, TooManyGuesses) else 401
        return visit.page("sign_in.html", status, to=where, refused=error)
    secret = await sessions.begin(visit.house.database, caller, visit.house.wall())
    answer = to(where)
    lasts_s = int(sessions.LASTS.total_seconds())
    _set(visit, answer, COOKIE, secret, lasts_s)
    return answer


async def end(visit: Visit) -> Response:
    """Sign out."""
    if visit.session is not None:
        await sessions.end(visit.house.database, visit.session.id, visit.session.caller, visit.house.wall())
    answer = to("/sign-in")
    answer.delete_cookie(COOKIE, path="/")
    return answer


async def end_other(visit: Visit) -> Response:
    """End somebody's session."""
    session_id = (await visit.form()).get("session", "")
    if not await sessions.end(visit.house.database, session_id, visit.caller, visit.house.wall()):
        raise UnknownName("there is no such session any more", fix="see the list again")
    return to("/settings")


async def prefer(visit: Visit) -> Response:
    """Remember a language or a theme in this browser."""
    sent = await visit.form()
    answer = to(local(sent.get("to", "/")))
    for field, name, known in (("language", LANGUAGE, tuple(wording.LANGUAGES)), ("theme", THEME, THEMES)):
        if sent.get(field) in known:
            _set(visit, answer, name, sent[field], _YEAR_S)
    return answer


def _set(visit: Visit, answer: Response, name: str, value: str, lasts_s: int) -> None:
    """A cookie that no script reads and no other site sends; behind https it never travels without."""
    secure = visit.request.url.scheme == "https"
    answer.set_cookie(name, value, max_age=lasts_s, path="/", httponly=True, samesite="strict", secure=secure)


PLACES = (
    Place("GET", "/sign-in", None, ask),
    Place("POST", "/sign-in", None, begin),
    Place("POST", "/sign-out", None, end),
    Place("POST", "/preferences", None, prefer),
    Place("POST", "/sessions/end", Role.ADMIN, end_other),
)
