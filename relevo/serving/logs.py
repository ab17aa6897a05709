"""Logs: one JSON object a line on standard error. No tenants, no tokens, no bodies, no client's address."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections import Counter
from typing import BinaryIO

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, WrappedLogger

from relevo.clock import system_clock

_log = structlog.get_logger()

_ERRORS = frozenset({"error", "critical"})
_LONGEST = 200


class Errors:
    """What was logged as an error and not yet fetched: how often, by its text."""

    def __init__(self) -> None:
        self._counted: Counter[str] = Counter()

    def count(self, _logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        """A step of logging: counts, and changes nothing."""
        if event.get("level") in _ERRORS:
            self._counted[str(event.get("event", "?"))[:_LONGEST]] += 1
        return event

    def fetch(self) -> dict[str, int]:
        """What was counted, which is then forgotten."""
        counted, self._counted = dict(self._counted), Counter()
        return counted

    def put_back(self, counted: dict[str, int]) -> None:
        """What was fetched and could not be stored."""
        self._counted.update(counted)


def configure(to: BinaryIO | None = None) -> Errors:
    """Send everything that this process logs, its libraries included, to standard error as JSON lines, or to ``to``;
    returns what counts the errors among it."""
    errors = Errors()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _stamp,
            errors.count,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=_Sheet(to or sys.stderr.buffer).handed_out,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Libraries()], level=logging.WARNING, force=True)
    logging.getLogger("relevo").setLevel(logging.INFO)
    # It repeats itself once a second while the database is away; that it is, and is back, the flag's reader says once.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    return errors


def where(error: BaseException) -> list[str]:
    """Where an error came from, as file:line function. Its message is left out: it may quote what a client sent."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename.rsplit('site-packages/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames]


def _stamp(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    event["timestamp"] = system_clock().isoformat().removesuffix("+00:00") + "Z"
    return event


def _render(_logger: WrappedLogger, _name: str, event: EventDict) -> bytes:
    return to_json(event, fallback=str)


class _Sheet:
    """Where lines are written, those of one turn of the loop together: writing each by itself cost more than to make
    it."""

    def __init__(self, to: BinaryIO) -> None:
        self._to = to
        self._lines: list[bytes] = []
        self._lost = 0

    def handed_out(self, *_names: str) -> _Sheet:
        """The logger that structlog's own loggers end in: this one, whoever asks."""
        return self

    def msg(self, line: bytes) -> None:
        """One line more."""
        self._lines.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write()
        else:
            if len(self._lines) == 1:
                loop.call_soon(self._write)

    debug = info = warning = error = critical = msg

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        try:
            self._to.write(b"".join([line + b"\n" for line in lines]))
            self._to.flush()
        except OSError:  # a full disk, or nobody reads any more: raised here, it would be logged, and so for ever
            self._lost += len(lines)
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            _log.error("lines of the log were lost", lines=lost)


class _Libraries(logging.Handler):
    """What libraries say through the standard library, in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line. The message of an exception is left out, as everywhere."""
        error = record.exc_info[1] if record.exc_info else None
        told = {"error": type(error).__name__, "where": where(error)} if error else {}
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name, **told)
