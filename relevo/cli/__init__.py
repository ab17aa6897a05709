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
from relevo.cli.frame import ERR, OUT, Answer
from relevo.cli.progress import end_drawing
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
# Where each command is. It is loaded when it is typed: all of them at once take seconds.
COMMANDS = {
    "db": "relevo.cli.db:app",
    "sample": "relevo.cli.sample:app",
    "preflight": "relevo.cli.move:preflight",
    "migrate": "relevo.cli.move:migrate",
    "verify": "relevo.cli.move:verify",
    "explain": "relevo.cli.move:explain",
    "mirror": "relevo.cli.mirror:app",
    "review": "relevo.cli.review:review",
    "quarantine": "relevo.cli.review:app",
    "status": "relevo.cli.status:status",
    "why": "relevo.cli.status:why",
    "answer": "relevo.cli.answer:answer",
    "templates": "relevo.cli.answer:app",
    "flags": "relevo.cli.flags:app",
    "backups": "relevo.cli.backups:app",
    "rollback": "relevo.cli.rollback:rollback",
    "rollout": "relevo.cli.rollout:app",
    "tokens": "relevo.cli.tokens:app",
    "sessions": "relevo.cli.sessions:app",
    "serve": "relevo.cli.serve:serve",
    "vapi": "relevo.cli.vapi:app",
    "breakers": "relevo.cli.breakers:app",
    "complaints": "relevo.cli.complaints:app",
    "metrics": "relevo.cli.metrics:app",
    "alerts": "relevo.cli.alerts:app",
    "notify": "relevo.cli.notify:app",
    "report": "relevo.cli.report:report",
    "nps": "relevo.cli.nps:app",
    "simulate": "relevo.cli.simulate:app",
    "checklist": "relevo.cli.checklist:app",
    "cleanup": "relevo.cli.cleanup:cleanup",
    "demo": "relevo.cli.demo:demo",
}
for name, place in COMMANDS.items():
    app.command(place, name=name)


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
    if words[:1] in ([], ["--help"], ["-h"]):
        for each in COMMANDS:
            app[each]  # the list shows what each says of itself
    try:
        answer = _answered(words)
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


def _answered(words: list[str]) -> Any:
    try:
        return app(words)
    finally:
        end_drawing()


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
