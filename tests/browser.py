"""A real browser, driven by its own protocol: Debian's chromium, with a profile that is thrown away."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium")
PATIENCE_S = 30
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-port=0"
)


class Tab:
    """One tab; ``complaints`` is what its console said of errors, those of the content security policy among them."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result."""
        self._number += 1
        waiting: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = waiting
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE_S):
            return await waiting

    async def open(self, address: str) -> None:
        """Go there, and wait until it has loaded."""
        self._loaded.clear()
        await self.send("Page.navigate", url=address)
        await self.loaded()

    async def loaded(self) -> None:
        """Wait for the page that is on its way."""
        async with asyncio.timeout(PATIENCE_S):
            await self._loaded.wait()

    async def click(self, selector: str) -> None:
        """Press something that leads to another page, and wait for that."""
        self._loaded.clear()
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")
        await self.loaded()

    async def run(self, script: str) -> Any:
        """What a script comes to. (The protocol's own evaluation is not bound by the page's policy.)"""
        told = await self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until a script comes to something true."""
        async with asyncio.timeout(PATIENCE_S):
            while not await self.run(script):  # noqa: ASYNC110 -- what happens in a page has no event here
                await asyncio.sleep(0.05)

    async def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """The window, and what the system prefers."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, file: Path, *, whole: bool = True) -> None:
        """All of the page, or what the window shows of it: a PNG, or a WebP at a fifth of the size."""
        form = {"format": "webp", "quality": 80} if file.suffix == ".webp" else {"format": "png"}
        taken = await self.send("Page.captureScreenshot", captureBeyondViewport=whole, **form)
        await asyncio.to_thread(file.write_bytes, base64.b64decode(taken["data"]))

    async def close(self) -> None:
        """No longer listen."""
        self._reading.cancel()
        await asyncio.wait({self._reading})

    async def _read(self) -> None:
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                waiting = self._answers.pop(told["id"])
                if "error" in told:
                    waiting.set_exception(AssertionError(told["error"]))
                else:
                    waiting.set_result(told["result"])
            elif told["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif told["method"] == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                entry = told["params"]["entry"]
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
            elif told["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(told["params"]["exceptionDetails"])[:500])


@asynccontextmanager
async def browsing() -> AsyncIterator[Tab]:
    """A tab of a browser of its own."""
    with tempfile.TemporaryDirectory(prefix="relevo-chromium-", ignore_cleanup_errors=True) as profile:
        command = [str(CHROMIUM), *_FLAGS.split(), f"--user-data-dir={profile}", "about:blank"]
        process = await asyncio.to_thread(_start, command)
        try:
            port = await asyncio.to_thread(_port, process)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    (page,) = [each for each in await answer.json() if each["type"] == "page"]
                async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    tab = Tab(socket)
                    for domain in ("Page", "Runtime", "Log", "Network"):
                        await tab.send(f"{domain}.enable")
                    yield tab
                    await tab.close()
        finally:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"DevTools listening on ws://[^:]+:(\d+)/", line):
            return int(found[1])
    raise AssertionError("chromium does not start")
