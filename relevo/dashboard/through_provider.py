"""Signing in through an identity provider: there, and back again.

The way there is a link, for browsers hold the redirects of a form against our ``form-action``. The way back is a
request that another site began, so that browsers keep our strict cookies from it and from whatever it redirects to:
its answer is a page, which goes on by itself.
"""

from __future__ import annotations

import base64

from starlette.responses import Response

from relevo.access import provider, sessions
from relevo.access.provider import Provider, SignIn
from relevo.dashboard.house import Visit, local, to
from relevo.dashboard.places import Place, refuse_foreign
from relevo.dashboard.signing_in import let_in, page, remember
from relevo.errors import (
    IssuerFaulty,
    IssuerUnreachable,
    NoRole,
    SignInFailed,
    TooManyGuesses,
    UnknownName,
)

_BACK = "/sign-in/callback"
_LONGEST = 1_500  # characters of where to go afterwards; a cookie has 4,096


async def leave(visit: Visit) -> Response:
    """Send somebody to the provider; the browser remembers that it went, and where to afterwards."""
    through = _provider(visit)
    refuse_foreign(visit.request)
    where, sign_in = local(visit.asked("to", "/")), SignIn.new()
    try:
        answer = to(await through.address(sign_in, _redirect(visit)))
    except (IssuerUnreachable, IssuerFaulty) as error:
        return page(visit, where, error)
    kept = base64.urlsafe_b64encode(where.encode()).decode().rstrip("=") if len(where) <= _LONGEST else ""
    remember(visit, answer, _cookie(visit), f"{sign_in.secret}.{kept}", provider.LASTS, samesite="lax")
    return answer


async def arrive(visit: Visit) -> Response:
    """Let in whom the provider vouches for. Whatever comes of it, the attempt is over. Whoever began it in this browser
    never has to wait for what others at their address do."""
    through = _provider(visit)
    sign_in, where = _begun(visit)
    is_stranger = through.is_stranger(sign_in, visit.request.query_params)
    try:
        if is_stranger:
            visit.house.door.refuse_stranger(visit.address)
        caller = await through.person(sign_in, visit.request.query_params, _redirect(visit), visit.house.wall())
        answer = visit.page("signed_in.html", to=where)
        await let_in(visit, answer, caller, sign_in.fingerprint if sign_in else None)
    except (SignInFailed, NoRole, IssuerUnreachable, IssuerFaulty) as error:
        # Of strangers only so many come this far, and whom the provider names is always written down.
        if is_stranger or isinstance(error, NoRole) or visit.house.door.is_worth_a_line(visit.address):
            await sessions.refuse(visit.house.database, through.issuer, error)
        answer = page(visit, where, error)
    except TooManyGuesses as error:
        answer = page(visit, where, error)
    if not is_stranger:  # one that this browser began goes on, whatever another page makes it bring meanwhile
        answer.delete_cookie(_cookie(visit), path="/", secure=_https(visit), httponly=True, samesite="lax")
    return answer


def _begun(visit: Visit) -> tuple[SignIn | None, str]:
    """The sign-in that this browser began, and where it was to lead."""
    secret, _, kept = visit.request.cookies.get(_cookie(visit), "").partition(".")
    try:
        where = local(base64.urlsafe_b64decode(kept + "=" * (-len(kept) % 4)).decode())
    except ValueError:
        where = "/"
    return (SignIn(secret) if secret else None), where


def _cookie(visit: Visit) -> str:
    """Behind https by a name that no neighbouring host can give a cookie."""
    return "__Host-relevo_sign_in" if _https(visit) else "relevo_sign_in"


def _https(visit: Visit) -> bool:
    return visit.request.url.scheme == "https"


def _redirect(visit: Visit) -> str:
    """Our own address, as it is registered with the provider."""
    return f"{visit.request.url.scheme}://{visit.request.headers.get('host', '')}{_BACK}"


def _provider(visit: Visit) -> Provider:
    if visit.house.provider is None:
        raise UnknownName("no identity provider is configured", fix="sign in with a token, or set RELEVO_OIDC_ISSUER")
    return visit.house.provider


PLACES = (
    Place("GET", "/sign-in/provider", None, leave),
    Place("GET", _BACK, None, arrive),
)
