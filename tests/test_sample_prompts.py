"""Prompts of the sample: every way of writing one occurs, and each is what it says."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache

import pytest

from relevo.simulator import phrases, prompts
from relevo.simulator.rows import Configuration
from relevo.simulator.world import World

NOW = datetime(2025, 11, 22, 14, tzinfo=UTC)


@cache
def configurations(tenants: int = 90, seed: int = 7) -> tuple[Configuration, ...]:
    return tuple(World(tenants, 0, seed, NOW).configurations())


def folded(text: str) -> str:
    """Lower case, no accents."""
    letters = unicodedata.normalize("NFD", text.lower())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


HEADING = re.compile(r"^## ", re.MULTILINE)
INSTRUCTIONS = re.compile("instrucciones especiales|notas importantes|reglas especiales", re.IGNORECASE)
CAPITALS = re.compile(r"^[A-ZÁÉÍÓÚÑ ]{7,}:", re.MULTILINE)
KEYWORDS = re.compile(
    "reserv|pedido|orden|menu|promo|horario|transferir|humano|faq|pregunta|cita|servicio|tratamiento|doctor|seguro"
)


def after_instructions(prompt: str) -> str:
    """From the end of the instructions' heading on; empty when there is none."""
    found = INSTRUCTIONS.search(prompt)
    return prompt[found.end() :] if found else ""


def is_figurative(prompt: str) -> bool:
    """Keywords occur, but none is left once the phrases that mean something else are gone."""
    rest = prompt
    for sentence in phrases.FIGURATIVE[0].sentences:
        rest = rest.replace(sentence, "")
    return bool(KEYWORDS.search(folded(prompt))) and not KEYWORDS.search(folded(rest))


KINDS: dict[str, Callable[[str], bool]] = {
    "markdown": lambda text: bool(HEADING.search(text)),
    "capitals": lambda text: bool(CAPITALS.search(text)),
    "plain": lambda text: bool(text.strip()) and not HEADING.search(text) and not CAPITALS.search(text),
    "instructions last": lambda text: bool(INSTRUCTIONS.search(HEADING.split(text)[-1])),
    "instructions amid others": lambda text: "##" in after_instructions(text),
    "instructions without heading": lambda text: bool(INSTRUCTIONS.search(text)) and not HEADING.search(text),
    "no instructions": lambda text: bool(text.strip()) and not INSTRUCTIONS.search(text),
    "long instructions": lambda text: 1_000 < len(after_instructions(text).split("##")[0]) < 3_000,
    "accents": lambda text: bool(re.search("[áéíóú]", text)),
    "no accents": lambda text: bool(text.strip()) and text.isascii(),
    "decomposed accents": lambda text: not unicodedata.is_normalized("NFC", text),
    "emoji": lambda text: any(unicodedata.category(letter) == "So" for letter in text),
    "hard spaces and foreign line ends": lambda text: "\u00a0" in text and "\r\n" in text,
    "figurative": is_figurative,
    "empty": lambda text: not text.strip(),
    "huge": lambda text: len(text) >= 60_000,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [7, 8, 9])
def test_every_kind_of_prompt_occurs_among_ninety_tenants(kind: str, seed: int) -> None:
    texts = [row.system_prompt for row in configurations(seed=seed) if row.system_prompt is not None]
    assert any(map(KINDS[kind], texts))


def test_some_configurations_have_no_prompt() -> None:
    assert any(row.system_prompt is None for row in configurations())


def test_ordinary_prompts_have_between_three_hundred_bytes_and_six_kilobytes() -> None:
    sizes = [len(row.system_prompt.encode()) for row in configurations(2_000) if row.system_prompt]
    ordinary = [size for size in sizes if 10 < size < 50_000]
    assert min(ordinary) >= 300
    assert max(ordinary) <= 6_144
    assert max(ordinary) > 4_000


@pytest.mark.parametrize("keyword", KEYWORDS.pattern.split("|"))
def test_each_keyword_is_in_some_prompts_and_missing_in_others(keyword: str) -> None:
    texts = [folded(row.system_prompt) for row in configurations() if row.system_prompt]
    assert 0 < sum(keyword in text for text in texts) < len(texts)


@pytest.mark.parametrize("topic", phrases.NEUTRAL, ids=lambda topic: topic.heading)
def test_neutral_topics_name_no_capability(topic: phrases.Topic) -> None:
    assert not KEYWORDS.search(folded(" ".join([topic.heading, *topic.sentences])))


@pytest.mark.parametrize("sentence", phrases.FIGURATIVE[0].sentences)
def test_each_figurative_sentence_holds_a_keyword(sentence: str) -> None:
    assert KEYWORDS.search(folded(sentence))


def test_no_brace_is_left_unfilled() -> None:
    assert not any("{" in (row.system_prompt or "") for row in configurations(2_000))


def test_the_deck_is_small_enough_for_ninety_tenants_to_see_every_card() -> None:
    assert len(prompts.DECK) == 80
