"""The channels that the settings open."""

from __future__ import annotations

from relevo.clock import Clock
from relevo.comms import texts
from relevo.comms.email import Email, sender_of
from relevo.comms.outcome import Channel
from relevo.comms.pagerduty import PagerDuty
from relevo.comms.slack import Slack
from relevo.comms.texts import House, Texts
from relevo.settings import Settings


def texts_of(settings: Settings) -> Texts:
    """The texts in force, each tried. Raises TemplatesFaulty, UsageError."""
    house = House(
        settings.notify_brand, settings.notify_support, settings.slack_mentions, settings.slack_urgent_mentions
    )
    return texts.load(house, settings.notify_texts)


def channels(settings: Settings, written: Texts, clock: Clock) -> list[Channel]:
    """Those that are configured; none where nothing is. Raises ConfigurationError for what cannot be used."""
    sender_of(settings.mail_from)
    found: list[Channel] = []
    if settings.slack_webhook_url is not None:
        found.append(Slack(settings.slack_webhook_url.get_secret_value(), settings.slack_channel, written, clock))
    if settings.pagerduty_routing_key is not None:
        found.append(PagerDuty(settings.pagerduty_routing_key.get_secret_value(), settings.pagerduty_url, clock))
    if settings.smtp_url is not None:
        found.append(Email(settings.smtp_url.get_secret_value(), settings.mail_from, settings.notify_support, written))
    return found
