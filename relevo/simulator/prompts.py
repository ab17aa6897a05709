"""Prompts as a hundred different people would have written them. Pure: chance comes in as an argument."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from random import Random

from relevo.simulator import names, phrases
from relevo.simulator.phrases import Topic

HUGE_CHARACTERS = 60_000


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a prompt is about."""

    business: str  # its name
    trade: str  # a key of phrases.TOPICS
    phone: str  # the line a caller is transferred to


@dataclass(frozen=True, slots=True)
class Hand:
    """How somebody lays out a section. ``heading`` empty: this hand writes no headings."""

    heading: str
    item: str
    capitals: bool = False


MARKDOWN = Hand(heading="## {}\n", item="- {}\n")
CAPITALS = Hand(heading="{}:\n", item="{}\n", capitals=True)
PLAIN = Hand(heading="", item="{} ")


class Special(Enum):
    """Where the section of special instructions stands, if the prompt has one."""

    ABSENT = "absent"
    LAST = "last"
    FOLLOWED = "followed"  # by other sections
    LONG = "long"  # last, and more than 1,000 characters


def _with_emoji(text: str) -> str:
    """Every list item gets an emoji, in turn, instead of its dash."""
    head, *items = text.split("\n- ")
    marks = itertools.cycle(phrases.EMOJI)
    return head + "".join(f"\n{mark} {item}" for mark, item in zip(marks, items, strict=False))


_PLAIN_LETTERS = str.maketrans("áéíóúüÁÉÍÓÚÜñÑ", "aeiouuAEIOUUnN", "¿¡")


def _without_accents(text: str) -> str:
    return text.translate(_PLAIN_LETTERS)


def _decomposed(text: str) -> str:
    """Accents as separate code points, as text copied from a Mac's file name or PDF."""
    return unicodedata.normalize("NFD", text)


def _pasted(text: str) -> str:
    """Line ends and hard spaces of a word processor."""
    return text.replace(": ", ":\u00a0").replace(":\n", ":\u00a0\n").replace("\n", "\r\n")


def _as_is(text: str) -> str:
    return text


Slots = dict[str, str]
Compose = Callable[[Random, "Kind", Subject], str | None]


def _sentences(rng: Random, topic: Topic, count: int) -> Topic:
    return Topic(topic.heading, tuple(rng.sample(topic.sentences, min(count, len(topic.sentences)))))


def _instructions(rng: Random, special: Special) -> list[Topic]:
    if special is Special.ABSENT:
        return []
    count = rng.randint(11, 14) if special is Special.LONG else rng.randint(1, 5)
    heading = rng.choice(phrases.INSTRUCTION_HEADINGS)
    return [Topic(heading, tuple(rng.sample(phrases.INSTRUCTIONS, count)))]


def _body(rng: Random, trade: str) -> list[Topic]:
    """What the prompt speaks of: any part of the trade's topics, in any order, briefly or at length."""
    known = phrases.TOPICS[trade] + phrases.COMMON + phrases.NEUTRAL
    chosen = rng.sample(known, rng.randint(3, len(known)))
    length = rng.randint(1, 4)
    return [_sentences(rng, topic, length) for topic in chosen]


def _ordered(rng: Random, body: list[Topic], special: Special) -> list[Topic]:
    """The body with the special instructions at their place."""
    instructions = _instructions(rng, special)
    place = rng.randrange(len(body)) if special is Special.FOLLOWED else len(body)
    return body[:place] + instructions + body[place:]


def _section(hand: Hand, topic: Topic) -> str:
    """One topic in this hand; the instructions keep their heading, for that is how they are found."""
    heading = topic.heading.upper() if hand.capitals else topic.heading
    if not hand.heading and heading in phrases.INSTRUCTION_HEADINGS:
        return f"{heading}: {' '.join(topic.sentences)}"
    return hand.heading.format(heading) + "".join(map(hand.item.format, topic.sentences))


def _laid_out(hand: Hand, opening: str, topics: Iterable[Topic]) -> str:
    return "\n\n".join([opening, *(_section(hand, topic).rstrip() for topic in topics)])


def _slots(rng: Random, subject: Subject) -> Slots:
    """What the braces of phrases stand for in one prompt."""
    return {
        "business": subject.business,
        "phone": subject.phone,
        "assistant": rng.choice(names.FIRST_NAMES),
        "street": rng.choice(names.STREETS),
        "price": str(rng.randrange(80, 950, 10)),
        "minutes": str(rng.randrange(10, 60, 5)),
        "people": str(rng.randint(8, 30)),
        "hours": rng.choice(("dos", "tres", "24", "48")),
        "open": rng.choice(("8", "9:00", "nueve", "10 am")),
        "close": rng.choice(("18:00", "siete", "20:00", "9 pm")),
        "last": rng.choice(("21:30", "diez", "10:30 pm")),
    }


def _composed(rng: Random, kind: Kind, subject: Subject) -> str:
    opening = rng.choice(phrases.OPENINGS)
    if rng.random() < 0.25:
        opening = f"{opening} {rng.choice(phrases.ASIDES)}"
    topics = _ordered(rng, _body(rng, subject.trade), kind.special)
    return kind.retouch(_laid_out(kind.hand, opening, topics).format_map(_slots(rng, subject)))


def _figurative(rng: Random, kind: Kind, subject: Subject) -> str:
    """A prompt that names no capability: every keyword in it means something else."""
    topics = [_sentences(rng, topic, 4) for topic in phrases.FIGURATIVE + phrases.NEUTRAL]
    text = _laid_out(kind.hand, rng.choice(phrases.OPENINGS), topics)
    return text.format_map(_slots(rng, subject))


def _huge(rng: Random, kind: Kind, subject: Subject) -> str:
    """A prompt into which somebody pasted the same price list over and over."""
    prices = [f"- {each}: ${rng.randrange(50, 9_000, 5)}" for each in phrases.PRICE_LIST]
    block = "\n".join(["## Lista de precios", *prices, "", ""])
    return f"{_composed(rng, kind, subject)}\n\n{block * (HUGE_CHARACTERS // len(block) + 1)}"


def _empty(rng: Random, _kind: Kind, _subject: Subject) -> str:
    return rng.choice(("", "  \n"))


def _absent(_rng: Random, _kind: Kind, _subject: Subject) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Kind:
    """One way in which prompts are written, and how many cards of the deck carry it."""

    name: str
    cards: int
    hand: Hand = MARKDOWN
    special: Special = Special.ABSENT
    retouch: Callable[[str], str] = _as_is
    compose: Compose = _composed


CLEAN = Kind("markdown with special instructions", 11, special=Special.LAST)

KINDS = (
    CLEAN,
    Kind("markdown", 12),
    Kind("markdown with special instructions amid others", 10, special=Special.FOLLOWED),
    Kind("capitals", 7, hand=CAPITALS),
    Kind("capitals with special instructions", 5, hand=CAPITALS, special=Special.LAST),
    Kind("plain", 8, hand=PLAIN),
    Kind("plain with special instructions", 5, hand=PLAIN, special=Special.LAST),
    Kind("without accents", 4, special=Special.FOLLOWED, retouch=_without_accents),
    Kind("plain without accents", 4, hand=PLAIN, retouch=_without_accents),
    Kind("decomposed accents", 2, special=Special.LAST, retouch=_decomposed),
    Kind("emoji", 3, special=Special.FOLLOWED, retouch=_with_emoji),
    Kind("pasted from a word processor", 2, hand=CAPITALS, special=Special.FOLLOWED, retouch=_pasted),
    Kind("long special instructions", 2, special=Special.LONG),
    Kind("figurative keywords only", 1, compose=_figurative),
    Kind("empty", 2, compose=_empty),
    Kind("absent", 1, compose=_absent),
    Kind("huge", 1, compose=_huge),
)

# Eighty cards: dealt without return, so every kind occurs among any ninety tenants.
DECK = tuple(kind for kind in KINDS for _ in range(kind.cards))


def write(rng: Random, kind: Kind, subject: Subject) -> str | None:
    """The prompt that this kind of hand writes about ``subject``; None when it wrote none at all."""
    return kind.compose(rng, kind, subject)
