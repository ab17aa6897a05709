"""What pages say, in English and Spanish, and how they write numbers and moments. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
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


def retold(language: str, told: str, words: Sequence[str]) -> str:
    """A sentence that was written from one of these in English, in a language; as it is where it was not."""
    if language == "en":
        return told
    for english in words:
        if found := _pattern(english).fullmatch(told):
            return say(language, english, **found.groupdict())
    return told


@cache
def _pattern(english: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.*)", re.escape(english)), re.DOTALL)


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
