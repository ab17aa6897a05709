"""What somebody may do: three roles, each including the ones below it."""

from __future__ import annotations

from enum import IntEnum

from relevo.errors import UsageError


class Role(IntEnum):
    """Ordered: whoever may more may less."""

    VIEWER = 1  # reads, evaluates flags
    OPERATOR = 2  # changes flags, rollouts, alerts
    ADMIN = 3  # what cannot be taken back

    @property
    def label(self) -> str:
        """The role as people write it, and as it is stored."""
        return self.name.lower()


LABELS = {role.label: role for role in Role}


def role(label: str) -> Role:
    """The role of that name. Raises UsageError for any other word."""
    try:
        return LABELS[label]
    except KeyError:
        raise UsageError(f"there is no role {label!r}", fix=f"write {', '.join(LABELS)}") from None
