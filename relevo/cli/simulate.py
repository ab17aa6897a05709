"""``relevo simulate``: traffic as Vapi would send it, for rehearsals."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from relevo.cli.frame import ORDINARY, Answer, Common, WholeNumber
from relevo.clock import system_clock
from relevo.errors import UsageError
from relevo.metrics.record import Version
from relevo.settings import Settings
from relevo.simulator import lines
from relevo.simulator.lines import Line
from relevo.simulator.script import Manner
from relevo.simulator.tally import Tally
from relevo.simulator.traffic import Credentials, Flow, Manners, Traffic

app = App(name="simulate", help="Simulated Vapi traffic.")

_CALLS = 100
_USUAL = Manner()
_SHOWN = 10


def _says(text: str) -> Parameter:
    return Parameter(help=text)


@Parameter(name="*")
@dataclass(frozen=True)
class Called:
    """Who is called, and how much."""

    rate: Annotated[float, _says("Calls a second, in the mean.")] = 5.0
    calls: Annotated[WholeNumber | None, _says("How many; default: 100, or as many as come in the duration.")] = None
    duration: Annotated[float | None, _says("Seconds in which new calls come in.")] = None
    call_seconds: Annotated[float, _says("How long a call lasts, in the mean.")] = 3.0
    tenant_ids: Annotated[
        str | None, _says("Only these tenants, separated by commas; default: every active one with its own number.")
    ] = None
    numbers: Annotated[
        str | None, _says("Numbers, or their ids at Vapi, separated by commas: then no database is asked.")
    ] = None


@Parameter(name="*")
@dataclass(frozen=True)
class Going:
    """How the calls go, by who answers."""

    error_rate: Annotated[float, _says("Share (0 to 1) of calls that end by our fault.")] = 0.01
    latency: Annotated[float, _says("Median latency of a turn in ms, as reported.")] = 600.0
    v1_error_rate: Annotated[float | None, _says("The same share, of those that v1 answers.")] = None
    v1_latency: Annotated[float | None, _says("The same latency, of v1.")] = None
    v2_error_rate: Annotated[float | None, _says("The same share, of those that v2 answers.")] = None
    v2_latency: Annotated[float | None, _says("The same latency, of v2.")] = None


@Parameter(name="*")
@dataclass(frozen=True)
class Shown:
    """What messages are authenticated by."""

    secret: Annotated[str | None, _says("Goes in X-Vapi-Secret; default: RELEVO_VAPI_SECRET.")] = None
    bearer: Annotated[str | None, _says("Goes in Authorization; default: RELEVO_VAPI_BEARER.")] = None
    hmac_secret: Annotated[str | None, _says("Signs messages; default: RELEVO_VAPI_HMAC_SECRET.")] = None


@app.command
async def traffic(
    *,
    url: str = "http://127.0.0.1:8080",
    called: Called = Called(),
    going: Going = Going(),
    shown: Shown = Shown(),
    seed: WholeNumber = 7,
    common: Common = ORDINARY,
) -> Answer:
    """Play whole calls against a running ``relevo serve``: signed webhooks from the first ring to the report.

    Exit status 1 when a call was answered by no assistant, or a message was never taken. The calls are recorded like
    any others: rehearse on a database of your own.

    Parameters
    ----------
    url
        Where ``relevo serve`` is.
    seed
        The same seed draws calls that go the same.
    """
    _check(called)
    manners, proof = _manners(going), credentials(common.settings(), shown)
    who = await _lines(common, called)
    calls = _CALLS if called.calls is None and called.duration is None else called.calls
    rng = random.Random(seed)  # noqa: S311 - a rehearsal must repeat; nothing is secret
    async with Traffic(url, proof, manners, rng, system_clock, emit=common.sink()) as playing:
        tally = await playing.flow(who, Flow(called.rate, calls, called.duration, called.call_seconds))
    return Answer(tally.as_json(), told(tally), 0 if tally.all_answered else 1)


def told(tally: Tally) -> Group:
    """A tally for people."""
    right = [Column(name, justify="right") for name in ("calls", "fallbacks", "errors", "dropped", "p50", "p95")]
    table = Table("answered by", *right)
    data = tally.as_json()
    for version, each in data["versions"].items():
        figures = (each["calls"], each["fallbacks"], each["errors"], each["failed"])
        times = (each["reported_p50_ms"], each["reported_p95_ms"])
        table.add_row(version, *(f"{figure:,}" for figure in figures), *map(_ms, times))
    messages = sum(tally.sent.values())
    lines = [
        f"{tally.calls:,} calls, {messages:,} messages in {tally.seconds:.1f} s; {tally.unanswered:,} got no answer, "
        f"{tally.apologies:,} an apology, {tally.lost:,} messages were never taken",
        f"asked who answers: p50 {_ms(data['answer_p50_ms'])}, p95 {_ms(data['answer_p95_ms'])}; "
        f"all else: p50 {_ms(data['message_p50_ms'])}, p95 {_ms(data['message_p95_ms'])}",
    ]
    if tally.unserved:
        lines.append("no assistant for: " + ", ".join(f"{who} ({n}×)" for who, n in tally.unserved.most_common(_SHOWN)))
    if tally.refused:
        why = ", ".join(f"{what} {many:,}×" for what, many in tally.refused.most_common())
        lines.append(f"not taken: {why}; sent again {tally.resent:,}×")
    if tally.tool_faults:
        lines.append(f"{tally.tool_faults:,} tool calls got no result")
    return Group(table, *map(Text, lines))


def _ms(value: float | None) -> str:
    return "—" if value is None else f"{value:,.0f} ms"


def _check(called: Called) -> None:
    for name in ("rate", "calls", "duration", "call_seconds"):
        value = getattr(called, name)
        if value is not None and not 0 < value < 1e9:
            raise UsageError(f"--{name.replace('_', '-')} is {value:g}", fix="give more than 0")


def _manners(going: Going) -> Manners:
    both = _manner(going.error_rate, going.latency)
    by_version: dict[Version | None, Manner] = {
        "v1": _manner(going.v1_error_rate, going.v1_latency, both),
        "v2": _manner(going.v2_error_rate, going.v2_latency, both),
        None: both,
    }
    return lambda _line, version: by_version[version]


def _manner(error_rate: float | None, latency: float | None, otherwise: Manner = _USUAL) -> Manner:
    share = otherwise.error_rate if error_rate is None else error_rate
    median_ms = otherwise.latency_ms if latency is None else latency
    if not 0 <= share <= 1:
        raise UsageError(f"an error rate is a share from 0 to 1, not {share:g}", fix="8 % is 0.08")
    if not 0 < median_ms < 1e6:
        raise UsageError(f"a latency of {median_ms:g} ms cannot be", fix="give milliseconds, as 600")
    return Manner(share, median_ms)


def credentials(in_force: Settings, shown: Shown = Shown()) -> Credentials:
    """What was given, else the newest of what the settings accept."""

    def newest(given: str | None, accepted: str) -> str:
        return given if given is not None else next(iter(accepted.split()), "")

    return Credentials(
        newest(shown.secret, in_force.vapi_secret),
        newest(shown.bearer, in_force.vapi_bearer),
        newest(shown.hmac_secret, in_force.vapi_hmac_secret),
        in_force.vapi_hmac_algorithm,
        in_force.vapi_hmac_header.split()[0],
        in_force.vapi_hmac_timestamp_header,
        in_force.vapi_hmac_signs == "timestamp.body",
    )


async def _lines(common: Common, called: Called) -> list[Line]:
    written = called.tenant_ids if called.numbers is None else called.numbers
    named = None if written is None else [each.strip() for each in written.split(",") if each.strip()]
    if named == []:
        raise UsageError("nobody is named", fix="separate tenants or numbers by commas")
    if called.numbers is not None:
        return lines.named(named or ())
    async with common.database() as database:
        return await lines.of_tenants(database, system_clock, named)
