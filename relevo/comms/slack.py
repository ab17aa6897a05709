"""Slack, by an incoming webhook."""

from __future__ import annotations

from urllib.parse import urlsplit

from relevo.clock import Clock
from relevo.comms.blockkit import payload
from relevo.comms.message import Message
from relevo.comms.outcome import Never, Outcome
from relevo.comms.texts import Texts
from relevo.comms.wire import Poster, checked_url
from relevo.errors import TemplatesFaulty

# invalid_payload, too large. A webhook that is gone (403, 404, 410) is the settings' fault: the message may yet go.
_REFUSED = frozenset({400, 413, 422})


class Slack:
    """An incoming webhook. Raises ConfigurationError for what is no URL."""

    name = "slack"
    at_once = 1

    def __init__(self, url: str, channel: str, texts: Texts, clock: Clock) -> None:
        checked = checked_url("slack_webhook_url", url)
        self._channel = channel
        self._texts = texts
        self._poster = Poster(checked, clock, refused=_REFUSED, secrets=(checked, *urlsplit(checked).path.split("/")))

    async def send(self, message: Message) -> Outcome:
        """Post it once."""
        try:
            told = payload(self._texts.slack(message.notice, message.variables), self._channel, message.id)
        except TemplatesFaulty as error:
            return Never(str(error))
        return await self._poster.post(told)

    async def close(self) -> None:
        """Let go of connections."""
        await self._poster.close()
