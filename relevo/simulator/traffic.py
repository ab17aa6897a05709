"""Plays whole calls against a webhook, as Vapi does: it asks who answers, and tells how the call goes.

The messages go where the answer says, with what authenticates them there: the signed pin in the URL, and the credential
only where the answer names one. What is not taken comes again by the answer's own back-off plan.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
from pydantic_core import from_json, to_json

from relevo.clock import Clock
from relevo.errors import UsageError
from relevo.events import Progress, Sink, silent
from relevo.metrics.record import Version
from relevo.simulator.lines import Line
from relevo.simulator.script import CARRIER, FAULT, Heard, Manner, Script, draw, understood
from relevo.simulator.tally import Tally
from relevo.webhooks.authentication import Algorithm, sign
from relevo.webhooks.routes import PATHS

ANSWER_WITHIN_S = 7.5
MESSAGE_WITHIN_S = 20.0
_LONGEST_RETRY_S = 10.0
_FIRST_WORDS_S = 1.0  # from the answer to the call being in progress

Manners = Callable[[Line, Version | None], Manner]


@dataclass(frozen=True, slots=True)
class Credentials:
    """How Vapi shows who it is; what is empty is not shown."""

    secret: str = ""
    bearer: str = ""
    hmac_secret: str = ""
    hmac_algorithm: Algorithm = "sha256"
    hmac_header: str = "x-signature"
    hmac_timestamp_header: str = "x-timestamp"
    hmac_signs_time: bool = True

    def headers(self, body: bytes, clock: Clock) -> Mapping[str, str]:
        """What goes with a message."""
        shown = {"content-type": "application/json"}
        if self.secret:
            shown["x-vapi-secret"] = self.secret
        if self.bearer:
            shown["authorization"] = f"Bearer {self.bearer}"
        if self.hmac_secret:
            stamp = str(int(clock().timestamp() * 1000))
            text = stamp.encode() + b"." + body if self.hmac_signs_time else body
            shown[self.hmac_timestamp_header] = stamp
            shown[self.hmac_header] = sign(self.hmac_secret, text, self.hmac_algorithm)
        return shown


@dataclass(frozen=True, slots=True)
class Flow:
    """How much is called, by the clock that is handed in."""

    rate: float  # calls a second, in the mean
    calls: int | None = None  # how many; None: until the time is over
    duration_s: float | None = None  # how long; None: until the calls are
    call_s: float = 3.0  # how long a call lasts in the mean
    at_once: int = 500


class Traffic:
    """Vapi with callers, for the length of an ``async with``."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        manners: Manners,
        rng: Random,
        clock: Clock,
        *,
        real_s: Callable[[float], float] = float,
        emit: Sink = silent,
    ) -> None:
        """``url``: of a server, or whole. ``real_s``: how many real seconds so many of the clock's take."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is no http or https URL", fix="write --url http://127.0.0.1:8080")
        self._url = url if parts.path.strip("/") else url.rstrip("/") + PATHS[0]
        self._origin = (parts.scheme, parts.netloc)
        self._credentials, self._manners, self._rng = credentials, manners, rng
        self._clock, self._real_s, self._emit = clock, real_s, emit
        self._session: aiohttp.ClientSession | None = None
        self._stopped = False
        self.tally = Tally()

    async def __aenter__(self) -> Self:
        """Opens the connections."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes them."""
        if self._session is not None:
            await self._session.close()

    def stop(self) -> None:
        """No call comes in any more; those that go on end by themselves."""
        self._stopped = True

    async def flow(self, lines: Sequence[Line], flow: Flow) -> Tally:
        """Calls come in by chance, at the flow's rate, until it is over and they are. Cancelled, it drops them."""
        edges = list(accumulate(line.weight for line in lines))
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        ends_s = None if flow.duration_s is None else began_s + self._real_s(flow.duration_s)
        next_s = began_s
        async with asyncio.TaskGroup() as playing:
            free = asyncio.Semaphore(flow.at_once)
            while not self._stopped and (flow.calls is None or self.tally.calls < flow.calls):
                next_s += self._real_s(self._rng.expovariate(flow.rate))
                if ends_s is not None and next_s >= ends_s:
                    break
                if next_s > loop.time():
                    await asyncio.sleep(next_s - loop.time())
                else:
                    next_s = loop.time()  # who cannot keep up does not catch up in a burst
                    await asyncio.sleep(0)
                await free.acquire()
                (line,) = self._rng.choices(lines, cum_weights=edges)
                self.tally.calls += 1
                script = draw(self._rng, line, self._clock(), flow.call_s)
                playing.create_task(self.play(script)).add_done_callback(lambda _task: free.release())
                self._emit(Progress(self.tally.over, flow.calls, "calls"))
        self.tally.seconds = loop.time() - began_s
        self._emit(Progress(self.tally.over, flow.calls, "calls"))
        return self.tally

    async def play(self, script: Script) -> Version | None:
        """One call to its end; which version answered, as far as the answer says."""
        answer = await self._ask(script)
        heard = understood(answer)
        if heard is None:
            await self._unheard(script, answer)
        else:
            await self._talk(script, heard)
        self.tally.over += 1
        return heard.version if heard else None

    async def _ask(self, script: Script) -> Any:
        """The answer to assistant-request; None for none that Vapi could use."""
        status, body = await self._post(self._url, script.asked(), within_s=ANSWER_WITHIN_S, shown=True)
        if status != 200:
            return None
        with contextlib.suppress(ValueError):
            return from_json(body)
        return None

    async def _unheard(self, script: Script, answer: Any) -> None:
        """No assistant: Vapi says or transfers what it was told, and reports that."""
        line = script.line
        self.tally.unserved[line.tenant_id or line.number or line.number_id or ""] += 1
        if isinstance(answer, dict) and (answer.get("error") or answer.get("destination")):
            self.tally.apologies += 1
            reason = "assistant-forwarded-call" if answer.get("destination") else "assistant-request-returned-error"
        else:
            self.tally.unanswered += 1
            reason = "assistant-request-failed"
        report = script.report(Manner())
        report["message"] |= {"endedReason": reason, "artifact": {}}
        await self._post(self._url, report, within_s=MESSAGE_WITHIN_S, shown=True)

    async def _talk(self, script: Script, heard: Heard) -> None:
        counted, manner = self.tally.of(heard.version), self._manners(script.line, heard.version)
        counted.calls += 1
        counted.fallbacks += heard.version != heard.decided
        first_s = min(_FIRST_WORDS_S, script.lasts_s / 4)
        await self._until(script, first_s)
        await self._tell(heard, script.status("in-progress", first_s))
        reason = script.reason(manner)
        if reason == FAULT:
            counted.errors += 1
        elif reason == CARRIER:
            counted.failed += 1
        else:
            counted.latencies_ms.append(manner.latency_ms * script.latency_factor)
            if (tool := script.tool(heard)) is not None:
                await self._until(script, script.lasts_s / 2)
                counted.tool_calls += 1
                await self._call_tool(script, heard, tool)
        await self._until(script, script.lasts_s)
        await self._tell(heard, script.status("ended", script.lasts_s, endedReason=reason))
        await self._tell(heard, script.report(manner))

    async def _call_tool(self, script: Script, heard: Heard, tool: str) -> None:
        message = script.tool_call(tool, script.lasts_s / 2)
        body = await self._tell(heard, message)
        wanted = message["message"]["toolCallList"][0]["id"]
        try:
            results = from_json(body or b"{}").get("results") or []
            done = any(each.get("toolCallId") == wanted and each.get("result") for each in results)
        except (ValueError, AttributeError):
            done = False
        self.tally.tool_faults += not done

    async def _tell(self, heard: Heard, said: dict[str, Any]) -> bytes | None:
        """Send a message of a call, again and again by the answer's own plan; what was answered, None: not taken."""
        if heard.wanted is not None and said["message"]["type"] not in heard.wanted:
            return None
        url = heard.url or self._url
        # The secret goes to nobody but whom it was given for.
        known = urlsplit(url)[:2] == self._origin
        shown = heard.url is None or (heard.with_credential and known)
        for attempt in range(heard.retries + 1):
            status, body = await self._post(url, said, within_s=MESSAGE_WITHIN_S, shown=shown)
            if status is not None and 200 <= status < 300:
                return body
            if attempt < heard.retries:
                self.tally.resent += 1
                # Real seconds: what does not take a message takes real time to come back.
                await asyncio.sleep(min(heard.first_retry_s * 2**attempt, _LONGEST_RETRY_S))
        self.tally.lost += 1
        return None

    async def _post(self, url: str, said: dict[str, Any], *, within_s: float, shown: bool) -> tuple[int | None, bytes]:
        """Status and body; None for no answer."""
        if self._session is None:
            raise RuntimeError("use Traffic in an async with")
        body, loop = to_json(said), asyncio.get_running_loop()
        kind = said["message"]["type"]
        self.tally.sent[kind] += 1
        headers = (self._credentials if shown else Credentials()).headers(body, self._clock)
        began_s = loop.time()
        try:
            async with self._session.post(
                url,
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=within_s),
                allow_redirects=False,
            ) as answer:
                told = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.tally.refused[type(error).__name__] += 1
            return None, b""
        times = self.tally.answer_ms if kind == "assistant-request" else self.tally.message_ms
        times.append((loop.time() - began_s) * 1000)
        if not 200 <= answer.status < 300:
            self.tally.refused[str(answer.status)] += 1
        return answer.status, told

    async def _until(self, script: Script, after_s: float) -> None:
        """Until so much of the clock's time has gone by since the call began."""
        passed_s = (self._clock() - script.begins).total_seconds()
        if passed_s < after_s:
            await asyncio.sleep(self._real_s(after_s - passed_s))
