"""What the flag's row says of a tenant: the specification's four steps (section 4.1), and nothing else.

Off → the disabled list → the enabled list → the percentile of a hash. The row alone decides, so that any reader who
follows the steps, in whichever language, gets the same answer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import mul
from typing import Literal, NamedTuple

VOICE_AGENT_V2 = "voice_agent_v2"
LONGEST_ID = 1_000  # code points of a tenant id

Variant = Literal["v1", "v2"]
Reason = Literal["DISABLED", "TARGETING_MATCH", "SPLIT", "DEFAULT", "ERROR"]

# Answers are remembered per flag version. Long ids are not: strangers can send those, and fill the memory.
_REMEMBERED = 50_000
_REMEMBERED_LENGTH = 100

_POWERS: tuple[int, ...] = tuple(pow(31, units_after, 2**32) for units_after in range(2 * LONGEST_ID))


class Evaluation(NamedTuple):
    """The flag's answer for one tenant. (A named tuple, because making one costs a third of a frozen dataclass.)"""

    tenant_id: str
    value: bool  # True: v2
    variant: Variant
    reason: Reason  # DEFAULT: no row was ever seen; ERROR: this text is no tenant id
    percentile: int | None  # 0..99; None with ERROR
    flag_version: int  # 0: no row was ever seen


@dataclass(frozen=True, slots=True)
class Flag:
    """One version of a flag's row."""

    name: str
    enabled: bool
    percentage: int  # 0..100
    enabled_tenants: frozenset[str]
    disabled_tenants: frozenset[str]
    version: int  # from 1, rises with every change; 0: no row was ever seen
    _seen: dict[str, Evaluation] = field(default_factory=dict, init=False, repr=False, compare=False)


def unseen(name: str = VOICE_AGENT_V2) -> Flag:
    """The flag as long as nobody has seen its row: v1 for everybody."""
    return Flag(name, False, 0, frozenset(), frozenset(), 0)


def evaluate(flag: Flag, tenant_id: str) -> Evaluation:
    """v1 or v2 for a tenant, and why.

    Any text of 1 to 1,000 code points is a tenant id; for any other the answer is v1 with reason ERROR.
    """
    found = flag._seen.get(tenant_id)
    return found if found is not None else _first_time(flag, tenant_id)


def evaluate_all(flag: Flag, tenant_ids: Iterable[str]) -> list[Evaluation]:
    """The answers in the order asked."""
    return [evaluate(flag, tenant_id) for tenant_id in tenant_ids]


def percentile(tenant_id: str) -> int:
    """0..99: the specification's hash of a tenant id, modulo 100."""
    return hash_string(tenant_id) % 100


def hash_string(text: str) -> int:
    """The specification's JavaScript hash of a tenant id, bit for bit: 0..2³¹.

    JavaScript counts UTF-16 code units and wraps to 32 signed bits; its absolute value of −2³¹ is 2³¹. Its loop
    ``hash · 31 + unit`` is the sum of unit · 31^(units after it), which Python adds up twice as fast.
    """
    units = text.encode("ascii") if text.isascii() else _code_units(text)
    wrapped: int = sum(map(mul, units[::-1], _POWERS)) & 0xFFFFFFFF
    return wrapped if wrapped < 0x80000000 else 0x100000000 - wrapped


def _code_units(text: str) -> tuple[int, ...]:
    """UTF-16 code units; lone surrogates, which JavaScript allows, stand for themselves."""
    encoded = text.encode("utf-16-le", "surrogatepass")
    return struct.unpack(f"<{len(encoded) // 2}H", encoded)


def _first_time(flag: Flag, tenant_id: str) -> Evaluation:
    if not 1 <= len(tenant_id) <= LONGEST_ID:
        return Evaluation(tenant_id, False, "v1", "ERROR", None, flag.version)
    place = percentile(tenant_id)
    value, reason = decide(flag, tenant_id, place)
    answer = Evaluation(tenant_id, value, "v2" if value else "v1", reason, place, flag.version)
    if len(tenant_id) <= _REMEMBERED_LENGTH:
        if len(flag._seen) >= _REMEMBERED:
            flag._seen.clear()
        flag._seen[tenant_id] = answer
    return answer


def decide(flag: Flag, tenant_id: str, place: int) -> tuple[bool, Reason]:
    """The four steps, for a tenant whose percentile is known already."""
    if not flag.enabled:
        return False, "DISABLED" if flag.version else "DEFAULT"
    if tenant_id in flag.disabled_tenants:
        return False, "TARGETING_MATCH"
    if tenant_id in flag.enabled_tenants:
        return True, "TARGETING_MATCH"
    return place < flag.percentage, "SPLIT"
