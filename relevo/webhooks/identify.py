"""Whom a call is for. Pure, given what is known of numbers and assistants.

In order: the number's id at Vapi, the number itself, the assistant that Vapi says the call has, the assistant that the
message describes. What a browser may have written (assistantOverrides, metadata, an assistant described in a web call)
proves nothing and is not looked at: our own assistants carry a signed pin instead.
"""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from relevo.webhooks.message import Event

_PHONE = re.compile(r"\+?[\d ()-]{6,20}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """One configuration, and what calls are told by that it is meant."""

    config_id: str
    tenant_id: str
    active: bool
    in_v1: bool
    in_v2: bool  # there, and not set aside
    number_ids: tuple[str, ...] = ()  # at Vapi
    number: str | None = None  # of the business
    v1_assistant: str | None = None
    v2_assistant: str | None = None
    human_line: str | None = None  # where a person of the business answers
    minutes_from_utc: int = 0
    since: float | None = None  # when it was made, seconds since 1970
    stamp: str = ""  # changes whenever what is said may change
    bucket: int = 0  # of those that are read together


@dataclass(frozen=True, slots=True)
class Found:
    """Whom a call is for; ``entry`` None: nobody can tell, and ``why`` says in which way."""

    entry: Entry | None
    why: str  # by what it was found, or why it was not
    only_v2_has_it: bool = False  # the call's assistant is in v2's rows, and in none of v1's


_By = dict[str, list[Entry]]


@dataclass(frozen=True, slots=True)
class Directory:
    """What is known of all configurations."""

    by_number_id: _By = field(default_factory=dict)
    by_number: _By = field(default_factory=dict)
    by_v1_assistant: _By = field(default_factory=dict)
    by_v2_assistant: _By = field(default_factory=dict)
    by_tenant: _By = field(default_factory=dict)

    def add(self, entries: Iterable[Entry]) -> None:
        """More of them, while nobody looks yet."""
        for entry in entries:
            _put(self.by_tenant, entry.tenant_id, entry)
            numbers = [dialled(entry.number)] if entry.number else []
            for each in dict.fromkeys(entry.number_ids):
                _put(self.by_number_id, each, entry)
                if _PHONE.fullmatch(each):  # some platforms keep the number itself where its id belongs
                    numbers.append(dialled(each))
            for each in dict.fromkeys(numbers):
                _put(self.by_number, each, entry)
            if entry.v1_assistant:
                _put(self.by_v1_assistant, entry.v1_assistant, entry)
            if entry.v2_assistant:
                _put(self.by_v2_assistant, entry.v2_assistant, entry)


def directory(entries: Iterable[Entry]) -> Directory:
    """The entries by all that they are found by; of several, those that answer first come first."""
    found = Directory()
    found.add(entries)
    return found


def identify(known: Directory, event: Event) -> Found:
    """Whom a call is for. Of what fits several tenants, the next evidence decides; if there is none, nobody can."""
    left: Sequence[Entry] = ()
    why = "nothing in the message tells whom it is for"
    fits = known.by_number_id.get(event.number_id or "", ())
    assistants = _assistants(event)
    if len(fits) == 1 and not assistants:  # as nearly always
        return Found(fits[0], "number's id")
    only_v2 = any(a in known.by_v2_assistant for a in assistants) and not any(
        a in known.by_v1_assistant for a in assistants
    )
    for word, candidates in _evidence(known, event, assistants):
        if not candidates:
            why = why if left else f"the {word} is not known"
            continue
        if left:
            tenants = {entry.tenant_id for entry in left}
            candidates = [entry for entry in candidates if entry.tenant_id in tenants]
        active = [entry for entry in candidates if entry.active] or candidates
        if len({entry.tenant_id for entry in active}) == 1:
            return Found(active[0], word, only_v2)
        if active:
            left, why = active, f"the {word} belongs to {len(active)} tenants"
    return Found(None, why)


def dialled(number: str) -> str:
    """A number as it is compared: digits alone, after a plus where there is one."""
    return "".join(sign for sign in number if sign.isdigit() or sign == "+") or number


def _assistants(event: Event) -> tuple[str, ...]:
    """The call's assistant; the one described in the message too, unless a browser may have described it."""
    if event.call_assistant_id is None and event.assistant_id is None:
        return ()
    described = event.assistant_id if event.direction != "web" else None
    return tuple(dict.fromkeys(each for each in (event.call_assistant_id, described) if each))


def _evidence(known: Directory, event: Event, assistants: tuple[str, ...]) -> Iterator[tuple[str, Sequence[Entry]]]:
    """What the message says, the strongest first: in which words, and who fits."""
    if event.number_id:
        yield "number's id", known.by_number_id.get(event.number_id, ())
    if event.number:
        yield "number", known.by_number.get(dialled(event.number), ())
    for assistant in assistants:
        yield "assistant", known.by_v1_assistant.get(assistant) or known.by_v2_assistant.get(assistant) or ()


def _put(found: _By, key: str, entry: Entry) -> None:
    insort(found.setdefault(key, []), entry, key=_who_answers_first)


def _who_answers_first(entry: Entry) -> tuple[bool, bool, float, str]:
    return not entry.active, entry.since is None, entry.since or 0.0, entry.config_id
