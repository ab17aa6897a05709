"""E-mail to clients: the message as it goes out, and the server that takes it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, parseaddr
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

import aiosmtplib

from relevo.comms.message import Message
from relevo.comms.outcome import Delivered, Never, NotNow, Outcome
from relevo.comms.texts import Mail, Texts
from relevo.errors import ConfigurationError, TemplatesFaulty

ANSWERS_WITHIN_S = 10.0
CONNECTIONS = 4
"""To the server, at most, from each process: a mail waits for several answers from afar, one after the other."""
MAILS_PER_CONNECTION = 100
"""Servers hang up on those who never do."""
_PORTS = {"smtp": 25, "smtps": 465}


@dataclass(frozen=True, slots=True)
class Server:
    """Where mail is handed in."""

    host: str
    port: int
    user: str | None
    password: str | None
    tls: bool  # from the first byte on
    start_tls: bool | None  # None: where the server offers it


def server_of(url: str) -> Server:
    """``smtp://user:password@host:587`` or ``smtps://…``. A password goes over an encrypted connection only,
    but on this machine. Raises ConfigurationError, which does not show the URL."""
    try:
        parts = urlsplit(url.strip())
        port, host = parts.port or _PORTS[parts.scheme], parts.hostname or ""
        if not host:
            raise ValueError("no host")
    except (ValueError, KeyError):
        raise ConfigurationError(
            "setting smtp_url is no SMTP URL", fix="write RELEVO_SMTP_URL as smtp://user:password@host:587"
        ) from None
    user, password = (unquote(each) if each else None for each in (parts.username, parts.password))
    tls = parts.scheme == "smtps"
    secret = password is not None and not _is_here(host)
    return Server(host, port, user, password, tls, None if tls or not secret else True)


def sender_of(written: str) -> Address:
    """``TIS TIS <soporte@tistis.com>`` as an address. Raises ConfigurationError."""
    name, address = parseaddr(written)
    try:
        return Address(display_name=name, addr_spec=address)
    except (MessageError, ValueError, IndexError) as error:
        raise ConfigurationError(
            f"setting mail_from is no address: {written!r}", fix="write RELEVO_MAIL_FROM as Name <name@example.com>"
        ) from error


def recipient_of(written: str) -> Address:
    """A client's address, its domain in letters that every server takes. Raises ValueError for what is none."""
    try:
        found = Address(addr_spec=written.strip())
        found = Address(username=found.username, domain=found.domain.encode("idna").decode())
    except (MessageError, ValueError, IndexError) as error:
        raise ValueError(f"{written[:100]!r} is no e-mail address") from error
    if not found.username or "." not in found.domain.strip("."):
        raise ValueError(f"{written[:100]!r} is no e-mail address")
    return found


def letter(mail: Mail, sender: Address, recipient: Address, message: Message, reply_to: str) -> EmailMessage:
    """The message as it goes out: the same bytes however often it is made, but for what separates its parts.

    Its Message-ID follows from the message's key, so that a mailbox that got it twice shows it once.
    """
    made = EmailMessage(policy=SMTP_POLICY)
    made["From"] = sender
    made["To"] = recipient
    made["Reply-To"] = reply_to
    made["Subject"] = mail.subject
    made["Date"] = format_datetime(message.created_at)
    made["Message-ID"] = message_id(message.dedup_key, sender.domain)
    made["Auto-Submitted"] = "auto-generated"
    made["Content-Language"] = "es"
    made.set_content(mail.text)
    made.add_alternative(mail.html, subtype="html")
    return made


def message_id(dedup_key: str, domain: str) -> str:
    """By which mail servers and mailboxes know that two are one."""
    return f"<{hashlib.sha256(dedup_key.encode()).hexdigest()[:40]}@{domain}>"


class Email:
    """An SMTP server, on a few connections that are kept. Raises ConfigurationError."""

    name = "email"
    at_once = CONNECTIONS

    def __init__(self, url: str, mail_from: str, reply_to: str, texts: Texts) -> None:
        self._server = server_of(url)
        self._sender = sender_of(mail_from)
        self._reply_to = reply_to
        self._texts = texts
        self._idle: list[_Line] = []

    async def send(self, message: Message) -> Outcome:
        """Hand it in once. A refusal of this address or text is for good; of ourselves, or none at all, for now."""
        try:
            recipient = recipient_of(message.recipient or "")
            mail = self._texts.mail(message.notice, message.variables)
            made = letter(mail, self._sender, recipient, message, self._reply_to)
        except (TemplatesFaulty, ValueError) as error:
            return Never(str(error))
        line = None
        try:
            line = await self._connected()
            outcome = await self._handed_in(line.smtp, made, recipient)
        except aiosmtplib.SMTPResponseException as error:
            outcome = NotNow(f"{self._server.host} answered {error.code}: {_line(error.message)}")
        except (aiosmtplib.SMTPException, OSError) as error:
            outcome = NotNow(f"{self._server.host} could not be reached, or left ({type(error).__name__})")
        else:
            self._keep(line)
            return outcome
        finally:
            # What failed half way, or was cut short, is not used again: its late answer would be taken for another's.
            if line is not None and line not in self._idle:
                line.smtp.close()
        return outcome

    async def close(self) -> None:
        """Let go of the connections."""
        while self._idle:
            self._idle.pop().smtp.close()

    async def _handed_in(self, smtp: aiosmtplib.SMTP, made: EmailMessage, recipient: Address) -> Outcome:
        try:
            await smtp.send_message(made, sender=self._sender.addr_spec, recipients=[recipient.addr_spec])
        except aiosmtplib.SMTPRecipientsRefused as error:
            refused = error.recipients[0]
            return _judged(refused.code, refused.message, "this address")
        except aiosmtplib.SMTPDataError as error:
            return _judged(error.code, error.message, "the text")
        return Delivered()

    async def _connected(self) -> _Line:
        while self._idle:
            line = self._idle.pop()
            if line.smtp.is_connected:
                return line
        server = self._server
        smtp = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.tls,
            start_tls=server.start_tls,
            timeout=ANSWERS_WITHIN_S,
        )
        await smtp.connect()
        return _Line(smtp)

    def _keep(self, line: _Line) -> None:
        line.mails += 1
        if line.mails < MAILS_PER_CONNECTION:
            self._idle.append(line)


@dataclass(slots=True, eq=False)
class _Line:
    """A connection, and how many mails it has carried."""

    smtp: aiosmtplib.SMTP
    mails: int = 0


def _judged(code: int, told: str, what: str) -> Outcome:
    why = f"{what} was refused, {code}: {_line(told)}"
    return Never(why) if 500 <= code < 600 else NotNow(why, everybody=False)


def _line(text: str) -> str:
    return " ".join(text.split())[:200]


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
