"""Every fault Relevo can name: one class per cause, each saying whose fault it is and how to mend it.

The exit status follows the cause: 1 it ran and the answer is no, 2 wrong usage or configuration,
3 refused because a precondition does not hold, 130 interrupted and resumable.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class RelevoError(Exception):
    """Something Relevo can name went wrong.

    ``str(error)`` is one line: what happened and where. ``fix`` is one line: what to do about it.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, what: str, *, fix: str) -> None:
        super().__init__(what)
        self.fix = fix

    @property
    def code(self) -> str:
        """The cause as a stable name for machines: the class name."""
        return type(self).__name__


class UsageError(RelevoError):
    """The command was called with words or values that make no sense."""

    exit_status = 2


class ConfigurationError(RelevoError):
    """A setting, in the environment or in relevo.toml, is wrong."""

    exit_status = 2


class UnknownName(UsageError):
    """A tenant, type, vertical, backup or run was named that does not exist."""


class TemplatesFaulty(UsageError):
    """Texts that v2 should speak by cannot be published as they are."""


class Refused(RelevoError):
    """A precondition does not hold, so nothing was done."""

    exit_status = 3


class UnverifiedTenants(Refused):
    """Tenants were to go to v2 whose data nobody has verified there."""


class DatabaseUnreachable(RelevoError):
    """No PostgreSQL answers at the address given."""

    exit_status = 3


class DatabaseRefused(RelevoError):
    """PostgreSQL answers but does not let us in: wrong password, role or database."""

    exit_status = 3


class MissingPrivilege(RelevoError):
    """The database role lacks a right that the command needs."""

    exit_status = 3


class DiskFull(RelevoError):
    """The database has no room left; what was committed stays."""


class SchemaChanged(RelevoError):
    """A schema file that was already applied reads differently now."""

    exit_status = 3


class SchemaMissing(RelevoError):
    """Relevo's schema, or part of it, has not been applied to this database."""

    exit_status = 3


class EmbeddedServerFailed(RelevoError):
    """The embedded PostgreSQL did not start, or did not stop."""


class Interrupted(RelevoError):
    """Somebody ended a command of which nothing stays, so that there is nothing to go on with."""

    exit_status = 130


class LeaseHeld(Refused):
    """Another process is doing the same work right now."""


class LeaseLost(RelevoError):
    """Another process took over the work while this one was away."""


class SomebodyWasFaster(Refused):
    """What was to be changed is not any more as it was when that was decided."""


class Unauthorized(RelevoError):
    """A request came without a token, or with one that opens nothing."""


class Forbidden(RelevoError):
    """A token was presented whose role may not do this."""


class TooManyGuesses(RelevoError):
    """An address presented many wrong tokens, or came back many times from the identity provider with nothing that
    opens; ``wait_s`` says for how many seconds its next are not looked at."""

    def __init__(self, wait_s: int) -> None:
        super().__init__("too many wrong attempts from this address", fix=f"wait {wait_s} s before the next")
        self.wait_s = wait_s


class SignInFailed(Unauthorized):
    """What came back from the identity provider opens nothing: it is forged, spent, late, or for somebody else."""


class NoRole(Forbidden):
    """The identity provider vouches for ``who``, to whom it gives no role here."""

    def __init__(self, what: str, *, fix: str, who: str) -> None:
        super().__init__(what, fix=fix)
        self.who = who


class IssuerUnreachable(RelevoError):
    """The identity provider does not answer."""


class IssuerFaulty(RelevoError):
    """The identity provider answers, but with nothing that Relevo can use."""


class PortTaken(Refused):
    """The address to serve at cannot be had: another program has it, or the machine has no such address."""


class NoMessage(UsageError):
    """The body of a webhook is no message of Vapi."""


class VapiUnreachable(RelevoError):
    """Vapi's own API does not answer."""


class VapiRefused(Refused):
    """Vapi's own API answers, and says no."""


class VapiKeyRefused(VapiRefused):
    """Vapi's own API says no to the key, and so to whatever else is asked with it."""


class MoveFailed(RelevoError):
    """The move ended without success; what it wrote is either undone or resumable, as said."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """The known names closest to ``name``, as the end of a sentence; empty when none is close."""
    close = difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(each) for each in close)}?" if close else ""
