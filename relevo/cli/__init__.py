"""The command line: wiring only. Each command returns an Answer; here it is printed and becomes a status."""

from __future__ import annotations

import json
import os
import sys
from typing import Any
from uuid import UUID

import structlog
from cyclopts import App, CycloptsError
from psycopg import Error as PostgresError

from relevo import __version__
from relevo.cli import (
    alerts,
    answer,
    backups,
    breakers,
    checklist,
    cleanup,
    complaints,
    db,
    demo,
    flags,
    metrics,
    mirror,
    move,
    notify,
    nps,
    report,
    review,
    rollback,
    rollout,
    sample,
    serve,
    simulate,
    status,
    tokens,
    vapi,
)
from relevo.cli.frame import ERR, OUT, Answer
from relevo.errors import RelevoError

INTERRUPTED = 130

app = App(
    name="relevo",
    help="Moves a multi-tenant voice platform from v1 to v2, tenant by tenant, with a way back at every step.",
    version=__version__,
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)
for module in (
    db,
    sample,
    move,
    mirror,
    review,
    status,
    answer,
    flags,
    backups,
    rollback,
    rollout,
    tokens,
    serve,
    vapi,
    breakers,
    complaints,
    metrics,
    alerts,
    notify,
    report,
    nps,
    simulate,
    checklist,
    cleanup,
    demo,
):
    module.register(app)


def main(arguments: list[str] | None = None) -> None:
    """The entry point of ``relevo`` and ``python -m relevo``."""
    words = sys.argv[1:] if arguments is None else arguments
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is the answer's
    try:
        status = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def _run(words: list[str]) -> int:
    as_json = "--json" in words
    if not _is_text(" ".join(words)):
        return _fail(as_json, "UsageError", "an argument is not UTF-8", "write it as UTF-8", 2)
    try:
        answer = app(words)
    except RelevoError as error:
        return _fail(as_json, error.code, str(error), error.fix, error.exit_status)
    except CycloptsError as error:
        return _fail(as_json, "UsageError", _one_line(error), "see: relevo --help", 2)
    except PostgresError as error:
        message = error.diag.message_primary or _one_line(error)
        return _fail(as_json, type(error).__name__, f"PostgreSQL: {message}", _hint(error), 1)
    except KeyboardInterrupt:
        return _fail(as_json, "Interrupted", "interrupted", "run the command again to go on", INTERRUPTED)
    if isinstance(answer, Answer):
        _print(answer, as_json)
        return answer.status
    return 0


def _print(answer: Answer, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer.data, default=_plain, ensure_ascii=False, indent=2))
    elif isinstance(answer.text, str):
        print(answer.text)  # as it is: no wrapping, no markup
    else:
        OUT.print(answer.text)


def _fail(as_json: bool, code: str, message: str, fix: str, status: int) -> int:
    if as_json:
        error = {"code": code, "message": message, "fix": fix}
        print(json.dumps({"success": False, "error": error}, ensure_ascii=False))
    ERR.print(f"relevo: {message} — {fix}", markup=False, soft_wrap=True)
    return status


def _is_text(argument: str) -> bool:
    """Whether it can be stored and printed; bytes that are no UTF-8 arrive as lone surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _hint(error: PostgresError) -> str:
    return error.diag.message_hint or "nothing was committed; see the database's log if this is not expected"


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "as_integer_ratio"):
        return float(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
