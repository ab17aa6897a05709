"""What a check can find, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from relevo.errors import Refused

Severity = Literal["blocker", "warning", "notice"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found."""

    severity: Severity
    code: str
    message: str
    fix: str
    count: int = 1
    examples: tuple[str, ...] = ()  # the first ten


def blockers(findings: Sequence[Finding]) -> list[Finding]:
    """Those that stop the move."""
    return [finding for finding in findings if finding.severity == "blocker"]


def refuse_blocked(findings: Sequence[Finding]) -> None:
    """Raises Refused, naming the first blocker and how to mend it."""
    if found := blockers(findings):
        more = f" (and {len(found) - 1} more: relevo preflight lists them)" if len(found) > 1 else ""
        raise Refused(f"{found[0].message}{more}", fix=found[0].fix)
