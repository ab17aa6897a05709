"""Why somebody who comes from the identity provider is not let in: each cause with what is said, and how to mend it.

Their gaps are filled by our own settings and by what the provider signed; of anything else only its shape is shown.
"""

from __future__ import annotations

from relevo.errors import IssuerFaulty, IssuerUnreachable, NoRole, RelevoError, SignInFailed

REFUSALS: dict[str, tuple[type[RelevoError], str, str]] = {
    "stranger": (
        SignInFailed,
        "this answers no sign-in that was begun in this browser",
        "sign in again, with cookies allowed, within ten minutes",
    ),
    "declined": (SignInFailed, "{issuer} did not sign you in: {why}", "sign in again, or ask an admin of {issuer}"),
    "spent": (SignInFailed, "this sign-in was used before, or took too long", "sign in again"),
    "unproven": (
        SignInFailed,
        "the proof from {issuer} does not hold: {why}",
        "sign in again; if it happens again, tell an admin of Relevo",
    ),
    "no_role": (
        NoRole,
        "your account {who} has no role in Relevo",
        "ask an admin of {issuer} to set {claim} to {known}, and sign in again",
    ),
    "unknown_role": (
        NoRole,
        "your account {who} has no role in Relevo: its {claim} is {value}",
        "ask an admin of {issuer} to set {claim} to {known}, and sign in again",
    ),
    "unverified": (
        NoRole,
        "your account {who} has no role in Relevo: its e-mail address is not verified",
        "verify the address at {issuer}, and sign in again",
    ),
    "unreachable": (
        IssuerUnreachable,
        "{issuer} does not answer: {why}",
        "try again in a moment, or sign in with a token",
    ),
    "senseless": (
        IssuerFaulty,
        "{issuer} is no OpenID provider that Relevo can use: {why}",
        "sign in with a token, and check RELEVO_OIDC_ISSUER",
    ),
    "unknown_client": (
        IssuerFaulty,
        "{issuer} does not know Relevo: {why}",
        "sign in with a token, and check RELEVO_OIDC_CLIENT_ID, RELEVO_OIDC_CLIENT_SECRET and the address registered"
        " at {issuer}: {redirect}",
    ),
}


def refused(cause: str, **gaps: str) -> RelevoError:
    """The error to raise. ``who``, where the provider named somebody, goes to the audit log."""
    kind, what, fix = REFUSALS[cause]
    told = {"what": what.format(**gaps), "fix": fix.format(**gaps)}
    return NoRole(told["what"], fix=told["fix"], who=gaps["actor"]) if kind is NoRole else kind(**told)
