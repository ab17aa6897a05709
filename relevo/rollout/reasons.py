"""What the gate says beside its guardrails' words, as a table: so that it can be told in another language."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

REASONS: Mapping[str, str] = MappingProxyType(
    {
        # What is added to a guardrail's words.
        "phase": "{what} (this phase)",
        "hour": "{what} (the last hour)",
        "v1_too": "{what}; v2 is not shown to be worse than v1, so nobody is moved",
        "one_tenant": "{what}; without tenant {tenant} it holds",
        # Why it cannot tell yet.
        "few": "{calls} of at least {least} calls so far",
        "unmeasured": "{metric} was not measured",
        "not_at_most": "{metric} {value} is not at most {limit}",
        "not_below": "{metric} {value} is not below {limit}",
        "no_go": "{metric} {value} is No-Go, with too few calls to tell",
        "unshown": "{metric}: {bad} of {of} calls do not yet show that it is below No-Go {no_go}",
        "unstable": "{metric} is worse in the later half of the phase than in the earlier",
        "unread": "the figures could not be read: {told}",
        "pass": "every criterion of {phase} holds over {calls} calls",
    }
)
