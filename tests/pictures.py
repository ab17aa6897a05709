"""The pictures of the documentation, taken of a rehearsal whose one sick tenant went back: ``make pictures``.

``python -m tests.pictures FOLDER`` writes the pages of the dashboard as WebP, and what ``relevo demo`` shows as SVG.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console, Group
from rich.text import Text

from relevo.cli.frame import Common
from relevo.cli.rehearsing import View, claims_text
from relevo.cli.serve import assembled
from relevo.db.embedded import EmbeddedServer
from relevo.migration.mapping import CONTACT_FIELDS
from relevo.rehearsal import scenario as scenarios
from relevo.rehearsal.scenario import SCENARIOS
from relevo.rehearsal.stage import Stage, staged
from tests.browser import Tab, browsing
from tests.commands import succeeds

PLAYED = SCENARIOS["sick-tenant"]
WIDE, HIGH = 1200, 900
LINES, COLUMNS = 36, 110
TALLEST = {"overview": 1800, "overview-es": 1800, "tenant": 1520}  # pixels
_FONTS_FROM_AFAR = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
CUT_AT = 1000  # the others: what is further down says the same again


async def of_the_dashboard(stage: Stage, folder: Path) -> None:
    """Each page that the documentation shows; the overview in Spanish, too."""
    pages = {
        "overview": "/?window=24h",
        "tenants": "/tenants?version=v2",
        "tenant": f"/tenants/{stage.canary[0]}",
        "calls": "/calls?version=v2",
        "rollback": "/rollback",
    }
    async with browsing() as tab:
        await tab.size(WIDE, HIGH)
        await tab.send("Emulation.setScrollbarsHidden", hidden=True)
        await tab.open(f"{stage.address}/")
        await tab.run(f"document.querySelector('#token').value = {json.dumps(stage.token)}")
        await tab.click("form[action='/sign-in'] button")
        for name, path in pages.items():
            await shoot(tab, stage.address + path, folder / f"{name}.webp")
        await tab.click("button[name='language'][value='es']")
        await shoot(tab, stage.address + pages["overview"], folder / "overview-es.webp")


async def shoot(tab: Tab, address: str, file: Path) -> None:
    """The page, once its charts are drawn, from its top."""
    await tab.open(address)
    await tab.until("[...document.querySelectorAll('.chart')].every((each) => each.querySelector('svg'))")
    await tab.until("document.querySelector('#live').dataset.state === 'live'")
    high = await tab.run("document.documentElement.scrollHeight")
    await tab.size(WIDE, min(high, TALLEST.get(file.stem, CUT_AT)))
    await tab.picture(file, whole=False)
    await tab.size(WIDE, HIGH)


async def of_the_terminal(view: View, checked: list[scenarios.Checked], file: Path) -> None:
    """What the rehearsal looks like at its end, and what was asked of the database."""
    console = Console(record=True, width=COLUMNS, height=LINES, file=io.StringIO(), color_system="truecolor")
    heading = Text("What must be true at the end, asked of the database", "bold")
    console.print(Group(view.drawn(), Text(""), heading, claims_text(checked)))
    drawn = console.export_svg(title="relevo demo --scenario sick-tenant")
    await asyncio.to_thread(file.write_text, _FONTS_FROM_AFAR.sub("", drawn), encoding="utf-8")


async def main(folder: Path) -> None:
    """Move a sample, play the scenario, take the pictures."""
    home = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="relevo-pictures-"))
    server = EmbeddedServer(home)
    try:
        url = (await asyncio.to_thread(server.keep)).url
        config = home / "relevo.toml"
        contacts = "".join(f'{name} = "{name}"\n' for name in CONTACT_FIELDS)
        await asyncio.to_thread(config.write_text, f"[source.tenants.fields]\n{contacts}", encoding="utf-8")
        for words in (["sample", "load", "--calls", "8000"], ["migrate"]):
            await asyncio.to_thread(succeeds, *words, url=url, config=config)
        view = View(Console(width=COLUMNS, height=LINES, file=io.StringIO()))
        mapping = Common(database_url=url, config=config).mapping()
        async with staged(url, home, mapping, assembled, view.told, PLAYED.times, PLAYED.calls_a_day) as stage:
            view.stage = stage
            checked = await scenarios.play(stage, PLAYED)
            await of_the_terminal(view, checked, folder / "demo.svg")
            await stage.set_pace(1)
            await of_the_dashboard(stage, folder)
    finally:
        await asyncio.to_thread(server.destroy)
        await asyncio.to_thread(shutil.rmtree, home)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
