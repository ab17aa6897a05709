"""What is told of each request once it is answered: a line in the log, and the figures of /metrics."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping
from typing import Any

import structlog

from relevo.serving import logs
from relevo.serving.measures import Measures

QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # asked all day long; logged only when they say no
HUNG_UP = 499
"""The status that is told, and never sent, where they hung up before the answer."""

_log = structlog.get_logger()


class Told:
    """Of the requests of one process."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures
        self._process, self._numbers = secrets.token_hex(4), itertools.count()

    def new_id(self) -> str:
        """What tells a request from all others, of other processes too: 16 hexadecimal digits."""
        return f"{self._process}{next(self._numbers) & 0xFFFFFFFF:08x}"

    def tell(
        self, request_id: str, method: str, route: str, status: int, seconds: float, fault: Mapping[str, Any]
    ) -> None:
        """``route`` as it is written, without the values in it. ``fault``: what went wrong here; empty: nothing."""
        self._measures.count(method, route, status, seconds)
        if route in QUIET and status < 400:
            return
        said = {"request_id": request_id, "method": method, "route": route, "status": status}
        say = _log.error if fault else _log.info
        say("request", **said, ms=round(seconds * 1000, 2), **fault)


def fault_of(error: BaseException) -> dict[str, Any]:
    """An error as the log has it: without its message, which may quote what a client sent."""
    return {"error": type(error).__name__, "where": logs.where(error)}
