"""Whom a call is for. Pure, given what is known of numbers and assistants.

In order: the number's id at Vapi, the number itself, the assistant that Vapi says the call has, the assistant that the
message describes. What a browser may have written (assistantOverrides, metadata, an assistant described in a web call)
proves nothing and is not looked at: our own assistants carry a signed pin instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
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
    stamp: str = ""  # changes whenever what is said may change


@dataclass(frozen=True, slots=True)
class Found:
    """Whom a call is for; ``entry`` None: nobody can tell, and ``why`` says in which way."""

    entry: Entry | None
    why: str  # by what it was found, or why it was not
    only_v2_has_it: bool = False  # the call's assistant is in v2's rows, and in none of v1's


@dataclass(frozen=True, slots=True)
class Directory:
    """What is known of all configurations."""

    by_number_id: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    by_number: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    by_v1_assistant: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    by_v2_assistant: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    by_tenant: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)


def directory(entries: Iterable[Entry]) -> Directory:
    """The entries by all that they are found by; where several are one tenant's, the first given comes first."""
    number_ids: dict[str, list[Entry]] = {}
    numbers: dict[str, list[Entry]] = {}
    v1: dict[str, list[Entry]] = {}
    v2: dict[str, list[Entry]] = {}
    tenants: dict[str, list[Entry]] = {}
    for entry in entries:
        tenants.setdefault(entry.tenant_id, []).append(entry)
        for each in dict.fromkeys(entry.number_ids):
            number_ids.setdefault(each, []).append(entry)
            if _PHONE.fullmatch(each):  # some platforms keep the number itself where its id belongs
                numbers.setdefault(dialled(each), []).append(entry)
        if entry.number:
            numbers.setdefault(dialled(entry.number), []).append(entry)
        if entry.v1_assistant:
            v1.setdefault(entry.v1_assistant, []).append(entry)
        if entry.v2_assistant:
            v2.setdefault(entry.v2_assistant, []).append(entry)
    return Directory(*(_frozen(each) for each in (number_ids, numbers, v1, v2, tenants)))


def identify(known: Directory, event: Event) -> Found:
    """Whom a call is for. Of what fits several tenants, the next evidence decides; if there is none, nobody can."""
    left: tuple[Entry, ...] = ()
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
            candidates = tuple(entry for entry in candidates if entry.tenant_id in tenants)
        active = tuple(entry for entry in candidates if entry.active) or candidates
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


def _evidence(known: Directory, event: Event, assistants: tuple[str, ...]) -> Iterator[tuple[str, tuple[Entry, ...]]]:
    """What the message says, the strongest first: in which words, and who fits."""
    if event.number_id:
        yield "number's id", known.by_number_id.get(event.number_id, ())
    if event.number:
        yield "number", known.by_number.get(dialled(event.number), ())
    for assistant in assistants:
        yield "assistant", known.by_v1_assistant.get(assistant) or known.by_v2_assistant.get(assistant, ())


def _frozen(found: dict[str, list[Entry]]) -> dict[str, tuple[Entry, ...]]:
    return {key: tuple(entries) for key, entries in found.items()}
