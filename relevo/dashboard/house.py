"""What every page stands on: the parts it reads and acts through, and a visit to one of its places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from relevo.access.door import Door
from relevo.access.keyring import Caller
from relevo.access.provider import Provider
from relevo.access.roles import Role
from relevo.access.sessions import Session
from relevo.clock import Clock, system_clock
from relevo.dashboard import assets, wording
from relevo.dashboard.remembering import Remembered
from relevo.db.pool import Database
from relevo.errors import Unauthorized, UsageError
from relevo.flags.store import Flags
from relevo.migration.mapping import SourceMapping

LANGUAGE, THEME = "relevo_language", "relevo_theme"
THEMES = ("auto", "light", "dark")
_MOST_FIELDS = 50

_TEMPLATES = Environment(
    loader=PackageLoader("relevo.dashboard"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class House:
    """The parts."""

    database: Database
    flags: Flags
    door: Door
    mapping: SourceMapping
    clock: Clock
    version: str
    leaving: Callable[[], bool]
    """Whether the server is about to stop: then streams end by themselves."""
    remembered: Remembered
    provider: Provider | None = None
    """Whom people sign in with who have no token; None: nobody."""
    wall: Clock = system_clock
    """By which people are signed in, also while a rehearsal's ``clock`` runs faster."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody asks for a page."""

    house: House
    request: Request
    session: Session | None  # None: nobody is signed in
    now: datetime

    @property
    def caller(self) -> Caller:
        """Who acts. Raises Unauthorized where nobody is signed in."""
        if self.session is None:
            raise Unauthorized("nobody is signed in", fix="sign in first")
        return self.session.caller

    @property
    def language(self) -> str:
        """Theirs, if they ever chose one; else English."""
        chosen = self.request.cookies.get(LANGUAGE, "en")
        return chosen if chosen in wording.LANGUAGES else "en"

    @property
    def theme(self) -> str:
        """Theirs; auto follows the system."""
        chosen = self.request.cookies.get(THEME, "auto")
        return chosen if chosen in THEMES else "auto"

    @property
    def address(self) -> str:
        """From where they ask; "" where that is not known."""
        return self.request.client.host if self.request.client else ""

    def may(self, needed: Role) -> bool:
        """Whether they may do what a role may."""
        return self.session is not None and self.session.caller.role >= needed

    def say(self, english: str, **values: Any) -> str:
        """A sentence in their language."""
        return wording.say(self.language, english, **values)

    def asked(self, name: str, default: str = "") -> str:
        """A parameter of the address, trimmed."""
        return self.request.query_params.get(name, default).strip()

    async def form(self) -> Mapping[str, str]:
        """The fields that were sent, trimmed. Raises UsageError for what is no form."""
        try:
            text = (await self.request.body()).decode()
            sent = parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
        except ValueError as error:
            raise UsageError("this is no form", fix="go back and send it again") from error
        if any("\0" in value for values in sent.values() for value in values):
            raise UsageError("a text holds the character NUL, which cannot be stored", fix="leave it out")
        return {name: values[-1].strip() for name, values in sent.items()}

    async def chosen(self, name: str) -> list[str]:
        """All values of a field that may be sent several times."""
        await self.form()  # which refuses what is none
        return parse_qs((await self.request.body()).decode(), max_num_fields=_MOST_FIELDS).get(name, [])

    def page(self, template: str, status_code: int = 200, /, **values: Any) -> Response:
        """A page of a template."""
        told = {
            "visit": self,
            "t": self.say,
            "now": self.now,
            "asset": assets.address,
            "ago": lambda at: wording.ago(self.language, at, self.now),
            "retold": lambda told: wording.retold(self.language, told),
            "ahead": lambda at: wording.ahead(self.language, at, self.now),
            "moment": wording.moment,
            "whole": wording.whole,
            "percent": wording.percent,
            "milliseconds": wording.milliseconds,
            "languages": wording.LANGUAGES,
            "themes": THEMES,
            "here": self.request.url.path,
            "Role": Role,
            "link": partial(_link, self.request),
        }
        return HTMLResponse(_TEMPLATES.get_template(template).render({**told, **values}), status_code)


def _link(request: Request, **changed: str | int | None) -> str:
    """This page with some parameters changed; None takes one away."""
    kept = {name: value for name, value in request.query_params.items() if name not in changed}
    query = urlencode({**kept, **{name: value for name, value in changed.items() if value is not None}})
    return f"{request.url.path}?{query}" if query else request.url.path


def to(address: str) -> Response:
    """Go there, by GET."""
    return RedirectResponse(address, 303)


def local(address: str) -> str:
    """The address if it leads to a page of ours, else the overview: nobody is sent elsewhere after signing in."""
    return address if address.startswith("/") and address[1:2] not in ("/", "\\") and address.isprintable() else "/"
