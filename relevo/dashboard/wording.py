"""What pages say, in English and Spanish, and how they write numbers and moments. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any

LANGUAGES = {"en": "English", "es": "Español"}
NOTHING = "—"
UNBROKEN = "\N{NO-BREAK SPACE}"

_STEPS = ((86_400, "{n} d"), (3_600, "{n} h"), (60, "{n} min"), (1, "{n} s"))


@cache
def spanish() -> Mapping[str, str]:
    """English to Spanish, sentence by sentence."""
    text = (resources.files("relevo") / "dashboard" / "es.toml").read_text(encoding="utf-8")
    return {english: said for english, said in tomllib.loads(text).items() if isinstance(said, str)}


def say(language: str, english: str, **values: Any) -> str:
    """A sentence in a language; one that nobody has translated is said in English."""
    told = spanish().get(english, english) if language == "es" else english
    return told.format(**values) if values else told


TOLD_AGAIN = (
    "what",
    "why",
    "metric",
    "value",
    "span",
    "state",
    "verdict",
    "role",
    "kind",
    "action",
    "quarantined_because",
)
"""Gaps of sentences in which words of ours stand, and no names or numbers of others."""


def retold(language: str, told: str) -> str:
    """A sentence that the server wrote in English, in a language; as it is where nobody has translated it."""
    if language == "en":
        return told
    if told in spanish():
        return spanish()[told]
    for english, said in sentences().items():
        if found := _pattern(english).fullmatch(told):
            gaps = found.groupdict()
            again = {name: retold(language, gaps[name]) for name in TOLD_AGAIN if name in gaps}
            return said.format(**{**gaps, **again})
    return told


@cache
def sentences() -> Mapping[str, str]:
    """What the server writes in English, to Spanish; in the order in which they are tried."""
    text = (resources.files("relevo") / "dashboard" / "es_sentences.toml").read_text(encoding="utf-8")
    return {english: said for english, said in tomllib.loads(text).items() if isinstance(said, str)}


@cache
def _pattern(english: str) -> re.Pattern[str]:
    words = re.sub(r"\\{(metric|kind)\\}", r"(?P<\1>\\w+)", re.escape(english))  # those are one word
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.*)", words), re.DOTALL)


def whole(number: int | float | None) -> str:
    """1,234: the separators are those of Mexico, too."""
    return NOTHING if number is None else f"{number:,.0f}"


def percent(share: float | None, digits: int = 2) -> str:
    """A rate of 0..1 as 1.25 %."""
    return NOTHING if share is None else f"{share * 100:.{digits}f}{UNBROKEN}%"


def milliseconds(number: float | None) -> str:
    """812 ms."""
    return NOTHING if number is None else f"{number:,.0f}{UNBROKEN}ms"


def moment(at: datetime | None) -> str:
    """A moment to the second, in UTC and saying so."""
    return NOTHING if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def ago(language: str, at: datetime | None, now: datetime) -> str:
    """How long ago, in its largest unit."""
    if at is None:
        return say(language, "never")
    seconds = max(0, int((now - at).total_seconds()))
    for size, words in _STEPS:
        if seconds >= size:
            return say(language, "{span} ago", span=words.format(n=seconds // size))
    return say(language, "just now")


def ahead(language: str, at: datetime, now: datetime) -> str:
    """How long until then, in its largest unit."""
    seconds = max(0, int((at - now).total_seconds()))
    for size, words in _STEPS:
        if seconds >= size:
            return say(language, "in {span}", span=words.format(n=seconds // size))
    return say(language, "just now")
