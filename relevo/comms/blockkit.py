"""Slack's Block Kit: what a text becomes as blocks, within Slack's limits. Pure functions.

A text is written as people write: ``# `` begins the title, ``---`` on a line of its own separates sections, and a
section that begins with ``~ `` is small print.
"""

from __future__ import annotations

import re
from typing import Any

HEADER, SECTION, CONTEXT, BLOCKS, FALLBACK = 150, 3000, 2000, 50, 3000
"""The longest of each in characters, and the most blocks."""


def blocks(text: str) -> list[dict[str, Any]]:
    """A text as Block Kit blocks; what is too long is cut, and ends in …."""
    first, _, rest = text.strip().partition("\n")
    made: list[dict[str, Any]] = []
    if first.startswith("# "):
        made.append({"type": "header", "text": {"type": "plain_text", "text": cut(plain(first[2:]), HEADER)}})
    else:
        rest = text
    for part in re.split(r"^---\s*$", rest, flags=re.MULTILINE):
        written = part.strip()
        if written.startswith("~ "):
            made.append(_small(written[2:].strip()))
        elif written:
            made.append({"type": "section", "text": {"type": "mrkdwn", "text": cut(written, SECTION)}})
    return made[:BLOCKS]


def payload(text: str, channel: str, number: int | None = None) -> dict[str, Any]:
    """The body for the webhook: blocks, the channel, and the same in one text for notifications. ``number``: the
    message's own, in small print, by which people know one that came twice; None: it has none yet."""
    whole = re.sub(r"^(# |~ |---\s*$)", "", text.strip(), flags=re.MULTILINE)
    made = blocks(text)
    if number is not None:
        made = [*made[: BLOCKS - 1], _small(f"message {number}")]
    return {"channel": channel, "text": cut(whole, FALLBACK), "blocks": made}


def _small(text: str) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": cut(text, CONTEXT)}]}


def escaped(value: str) -> str:
    """Text that Slack shows as it is: no mention, link or command can hide in it."""
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def plain(value: str) -> str:
    """The opposite of ``escaped``: a title knows no mark-up, and shows what it gets."""
    return value.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def cut(text: str, longest: int) -> str:
    """At most ``longest`` characters; an escape at the end is not halved."""
    if len(text) <= longest:
        return text
    return re.sub(r"&[a-z]{0,3}$", "", text[: longest - 1]) + "…"


def faults(text: str) -> list[str]:
    """What would have to be cut from a text, in words; empty when nothing."""
    found = []
    first, _, rest = text.strip().partition("\n")
    if not first.startswith("# "):
        rest = text
    elif len(plain(first[2:])) > HEADER:
        found.append(f"a title of over {HEADER} characters")
    parts = [part.strip() for part in re.split(r"^---\s*$", rest, flags=re.MULTILINE)]
    if any(len(part) > (CONTEXT + 2 if part.startswith("~ ") else SECTION) for part in parts):
        found.append(f"a section of over {SECTION:,} characters, or small print of over {CONTEXT:,}")
    if len(parts) > BLOCKS - 2:  # the title and the small print take one each
        found.append(f"over {BLOCKS} blocks")
    return found
