"""How messages look: Slack's Block Kit and PagerDuty's Events API v2, within their lengths. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

HEADER, TEXT, SUMMARY = 150, 3000, 1024
"""The longest header and text of a Slack block, and summary of a PagerDuty event, in characters."""

Facts = Mapping[str, Any]
_EMOJI = {"warning": ":warning:", "critical": ":rotating_light:"}
_BACK = {"roll_back": "Rolled back to 0%", "abort": "Ended, everybody on V1", "shrink": "Reduced to the phase before"}


def slack(kind: str, data: Facts) -> dict[str, Any]:
    """The body of an incoming webhook: blocks, and a line for notifications."""
    noun, _, verb = kind.partition(".")
    title, text = _incident(verb, data) if noun == "incident" else _rollout(verb, data)
    return {
        "text": _cut(title, HEADER),
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": _cut(title, HEADER), "emoji": True}},
            {"type": "section", "text": {"type": "mrkdwn", "text": _cut(text, TEXT)}},
        ],
    }


def pagerduty(routing_key: str) -> Callable[[str, Facts], dict[str, Any]]:
    """What makes the event of an incident: trigger, and resolve with the same dedup key. The key is a secret."""

    def event(kind: str, data: Facts) -> dict[str, Any]:
        body: dict[str, Any] = {
            "routing_key": routing_key,
            "event_action": "resolve" if kind == "incident.resolve" else "trigger",
            "dedup_key": f"relevo-incident-{data['incident']}",
        }
        if body["event_action"] == "trigger":
            body["payload"] = {
                "summary": _cut(f"{data['title']}: {data['message']}", SUMMARY),
                "source": "relevo",
                "severity": data["severity"],
                "timestamp": data["at"],
                "component": "voice_agent_v2",
                "class": data["cause"],
                "custom_details": {"action": data.get("action")},
            }
        return body

    return event


def _incident(verb: str, data: Facts) -> tuple[str, str]:
    if verb == "resolve":
        return f":white_check_mark: Resolved: {data['title']}", f"*Last seen as:* {_plain(data['message'])}"
    lines = [f"*{_plain(data['message'])}*", f"*Time:* {_time(data['at'])}"]
    lines += [f"*Action:* {data['action']}"] if data.get("action") else []
    return f"{_EMOJI[data['severity']]} {data['title']}", "\n".join(lines)


def _rollout(verb: str, data: Facts) -> tuple[str, str]:
    """The specification's rollback alert (section 7.1) where tenants go back; a line where not."""
    facts = [f"*Trigger:* {_plain(data.get('why') or 'no reason given')}", f"*By:* {_plain(data['actor'])}"]
    facts += [f"*Time:* {_time(data['at'])}", f"*State:* {data['target']}, phase {data.get('phase')}"]
    if verb in _BACK or verb == "single_out":
        action = _BACK.get(verb, f"Tenant {data.get('tenant')} back on V1")
        on_v2 = data.get("tenants_on_v2") or 0
        facts.insert(1, f"*Action:* {action}")
        facts += ["*Impact:*", f"• {on_v2 or 'No'} tenants stay on V2", "• Calls in progress end with V2"]
        facts += ["*Next Steps:*", "1. Investigate root cause", "2. Fix identified issues", "3. Plan re-rollout"]
        return ":rotating_light: URGENT: Voice Agent V2 Rollback Initiated", "\n".join(facts)
    return f":rocket: Voice Agent V2 Rollout: {verb.replace('_', ' ')}", "\n".join(facts)


def _plain(text: str) -> str:
    """Nobody's words become a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(written: str) -> str:
    return f"{written[:16].replace('T', ' ')} UTC"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
