"""The texts of notices: files that a team edits, tried as a whole before any of them is used.

An e-mail is three files, ``NAME.subject``, ``NAME.txt`` and ``NAME.mjml``; a message to the team is ``NAME.slack``. A
file in the team's own folder stands in for the one of the same name that comes with Relevo.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import mjml
from jinja2 import BaseLoader, Environment, StrictUndefined, Template, TemplateError, TemplateNotFound, meta
from markupsafe import Markup

from relevo.comms import wording
from relevo.comms.blockkit import escaped, faults
from relevo.comms.notices import NOTICES, Notice
from relevo.errors import TemplatesFaulty, UsageError, nearest

SHIPPED = Path(__file__).parent / "templates"
"""The folder of the texts that come with Relevo."""

KINDS = {"client": ("subject", "txt", "mjml"), "team": ("slack",)}
_FILES = tuple(f"{notice.name}.{kind}" for notice in NOTICES.values() for kind in KINDS[notice.audience])
_SHARED = ("layout.mjml",)  # included by others
_CLIENT_WORDS = frozenset({"bookings", "date", "time"})
_LONGEST_SUBJECT = 150


@dataclass(frozen=True, slots=True)
class House:
    """Who speaks: the same in all texts."""

    brand: str = "TIS TIS"
    support: str = "soporte@tistis.com"
    mentions: str = "@oncall-eng"
    urgent_mentions: str = "@voice-agent-team @engineering-leads"


@dataclass(frozen=True, slots=True)
class Mail:
    """An e-mail's text in full."""

    subject: str
    text: str
    html: str


class Texts:
    """The texts in force. Made by ``load``."""

    def __init__(self, templates: Mapping[str, Template], house: House) -> None:
        self._templates = templates
        self._house: dict[str, Any] = {
            "brand": house.brand,
            "support": house.support,
            "mentions": Markup(house.mentions),  # noqa: S704  # ours, and meant to be links
            "urgent_mentions": Markup(house.urgent_mentions),  # noqa: S704
        }

    def mail(self, notice: str, variables: Mapping[str, Any]) -> Mail:
        """What a client reads. Raises TemplatesFaulty where variables do not fill the text."""
        subject = " ".join(self._render(f"{notice}.subject", variables).split())
        text = self._render(f"{notice}.txt", variables).strip() + "\n"
        source = self._render(f"{notice}.mjml", variables)
        try:
            html = mjml.mjml2html(source, disable_comments=True, fonts={})
        except ValueError as error:
            raise _faulty(f"{notice}.mjml", str(error)) from error
        return Mail(subject, text, html)

    def slack(self, notice: str, variables: Mapping[str, Any]) -> str:
        """What the team reads, as ``relevo.comms.blockkit`` takes it. Raises TemplatesFaulty."""
        return self._render(f"{notice}.slack", variables)

    def _render(self, file: str, variables: Mapping[str, Any]) -> str:
        try:
            return self._templates[file].render(self._house | _filled(variables))
        except KeyError as error:
            raise _faulty(file, "there is no such text") from error
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise _faulty(file, str(error)) from error


def load(house: House, own: Path | None = None) -> Texts:
    """The texts, each tried with a sample. ``own``: the team's folder; None: those that come with Relevo.

    Raises TemplatesFaulty, naming file and mistake, for a text that asks for what there is not, is no MJML, or is too
    long for Slack; UsageError for a folder that cannot be read.
    """
    sources = _read(SHIPPED) | ({} if own is None else _read(own))
    for name in sources:
        if name not in _FILES and name not in _SHARED:
            raise TemplatesFaulty(
                f"{own}/{name} is no text of a notice.{nearest(name, _FILES)}", fix="rename or remove it"
            )
    environments = {kind: _environment(kind, sources) for kind in ("plain", "mjml", "slack")}
    templates = {}
    for notice in NOTICES.values():
        for kind in KINDS[notice.audience]:
            file = f"{notice.name}.{kind}"
            environment = environments.get(kind, environments["plain"])
            templates[file] = _checked(environment, file, sources, notice)
    texts = Texts(templates, house)
    for notice in NOTICES.values():
        _try(texts, notice)
    return texts


def _try(texts: Texts, notice: Notice) -> None:
    if notice.audience == "team":
        if found := faults(texts.slack(notice.name, notice.sample)):
            raise _faulty(f"{notice.name}.slack", "has " + ", ".join(found))
        return
    made = texts.mail(notice.name, notice.sample)
    if not made.subject or len(made.subject) > _LONGEST_SUBJECT:
        raise _faulty(f"{notice.name}.subject", f"is empty, or over {_LONGEST_SUBJECT} characters")


def _checked(environment: Environment, file: str, sources: Mapping[str, str], notice: Notice) -> Template:
    """The template, which asks for nothing that its notice does not have."""
    known = {*notice.sample, *(_CLIENT_WORDS if notice.audience == "client" else ())}
    known |= {"brand", "support", "mentions", "urgent_mentions"}
    try:
        asked: set[str] = set()
        for each in (file, *_SHARED) if file.endswith(".mjml") else (file,):
            asked |= meta.find_undeclared_variables(environment.parse(sources[each]))
        template = environment.get_template(file)
    except TemplateError as error:
        raise _faulty(file, str(error)) from error
    if strange := sorted(asked - known):
        raise TemplatesFaulty(
            f"{file} asks for {strange[0]!r}, which there is not.{nearest(strange[0], known)}",
            fix=f"it may ask for: {', '.join(sorted(known))}",
        )
    return template


class _Sources(BaseLoader):
    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, None]:  # noqa: ARG002
        if template not in self._sources:
            raise TemplateNotFound(template)
        return self._sources[template], None, None


def _environment(kind: str, sources: Mapping[str, str]) -> Environment:
    """Values are made harmless where they come in: for HTML by autoescape, for Slack by its three characters."""
    environment = Environment(
        loader=_Sources(sources),
        undefined=StrictUndefined,
        autoescape=kind == "mjml",  # noqa: S701  # plain text is shown as it is
        finalize=_for_slack if kind == "slack" else None,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    environment.filters |= {
        "percent": wording.percent,
        "ms": wording.milliseconds,
        "length": wording.length,
        "utc": lambda at: wording.utc(datetime.fromisoformat(at)),
        "thousands": lambda number: f"{number:,}",
    }
    return environment


def _for_slack(value: Any) -> Any:
    return str(value) if isinstance(value, Markup) else escaped(value) if isinstance(value, str) else value


def _filled(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables, and what is said of them in a client's own words. Control characters have no place in any text."""
    told = {name: _printable(value) if isinstance(value, str) else value for name, value in variables.items()}
    if "client_name" in told:
        at = datetime.fromisoformat(told["at"]) if told["at"] else None
        told["bookings"] = wording.bookings(told["vertical"])
        told["date"] = wording.spanish_date(at, told["time_zone"]) if at else None
        told["time"] = wording.spanish_time(at, told["time_zone"]) if at else None
    return told


def _printable(value: str) -> str:
    return "".join(each if each.isprintable() else " " for each in value).strip()


def _read(folder: Path) -> dict[str, str]:
    try:
        files: Iterable[Path] = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
        return {file.name: file.read_text(encoding="utf-8") for file in files}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read {folder}: {error}", fix="name a folder of UTF-8 files NAME.subject, …"
        ) from error


def _faulty(file: str, why: str) -> TemplatesFaulty:
    return TemplatesFaulty(f"{file}: {' '.join(why.split())}", fix="correct this text; nothing was sent")


@functools.cache
def shipped() -> Texts:
    """The texts that come with Relevo, for the specification's own house."""
    return load(House())
