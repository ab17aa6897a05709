"""The dashboard's pages on a large platform: the server's own time for each, what it weighs, and its first paint.

100,000 tenants, their configurations on both sides, verified; 10 million calls of 30 days, the sums they come to (by
minute and ten of them, by hour and day, by tenant and hour), and differences not yet folded.
"""

from __future__ import annotations

import gzip
import json
import re
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import psycopg

from bench.figures import Figure
from bench.place import Place
from relevo.access.roles import Role
from relevo.clock import system_clock
from relevo.dashboard.assets import assets
from relevo.db import migrations
from relevo.db.pool import Database
from relevo.migration import mirror
from relevo.migration.mapping import DEFAULT as MAPPING
from relevo.migration.runs import Who
from relevo.rollout import plan as plans
from tests.browser import CHROMIUM, browsing
from tests.dashboard import Visitor
from tests.serving import Served, secrets_of_each_role, serving

TENANTS = 100_000
CALLS = 10_000_000
DAYS = 30
ASKED = 20
FILL, ROLLOUT = (Path(__file__).with_name(name) for name in ("dashboard.sql", "dashboard_rollout.sql"))

OVERVIEW_MS, TENANTS_MS, CALLS_MS, PAINT_MS = 20.0, 50.0, 50.0, 1_000.0
FIRST_VISIT_KB = 500.0  # a second of a poor mobile line
PAGES = {
    "overview, 24 h": ("/", OVERVIEW_MS),
    "overview, 1 h": ("/?window=1h", OVERVIEW_MS),
    "overview, 7 d": ("/?window=7d", OVERVIEW_MS),
    "a page of tenants": ("/tenants", TENANTS_MS),
    "the 1,000th page": ("/tenants?page=1000", TENANTS_MS),
    "by part of a name": ("/tenants?q=99", TENANTS_MS),
    "by beginning of an id": ("/tenants?q=0f8", TENANTS_MS),
    "of one state": ("/tenants?state=drifted", TENANTS_MS),
    "verified ones": ("/tenants?state=verified", TENANTS_MS),
    "on v2": ("/tenants?version=v2", TENANTS_MS),
    "one tenant": ("/tenants/{tenant}", TENANTS_MS),
    "calls": ("/calls", CALLS_MS),
    "calls of v2": ("/calls?version=v2", CALLS_MS),
    "failed calls": ("/calls?outcome=failed", CALLS_MS),
    "calls with our fault": ("/calls?fault=ours&version=v2", CALLS_MS),
    "a kind of one in 50,000": ("/calls?outcome=order_created", CALLS_MS),
    "a kind that there is none of": ("/calls?outcome=voicemail", CALLS_MS),
    "calls of one tenant": ("/calls?tenant={tenant}", CALLS_MS),
    "calls three weeks ago": ("/calls?before={long_ago}", CALLS_MS),
}


async def compare(place: Place, rounds: int) -> list[Figure]:
    """The median of requests to each page, as the server logs them."""
    with place.empty() as name:
        url = place.url(name)
        async with Database(url) as database:
            await fill(database, url)
            token = (await secrets_of_each_role(database))[Role.OPERATOR]
            with serving(url, starts_within_s=300) as served:
                served.until("/readyz", 200)
                visitor = Visitor(served).sign_in(token)
                named = {
                    "tenant": re.findall(r"/tenants/([0-9a-f-]{36})", visitor.page("/tenants?page=500"))[0],
                    "long_ago": quote((system_clock() - timedelta(days=21)).isoformat()),
                }
                figures = []
                for what, (path, most) in PAGES.items():
                    took = _median_ms(served, visitor, path.format(**named), rounds)
                    figures.append(Figure(f"{what}: server time", took, "asked", most, "ms", most=1))
                figures += _weights(visitor)
                if CHROMIUM:
                    paint = await _first_paint_ms(served, token)
                    figures.append(Figure("overview: first paint", paint, "asked", PAINT_MS, "ms", most=1))
    return figures


async def fill(database: Database, url: str, *, tenants: int = TENANTS) -> None:
    """The platform, and a rollout in its second phase."""
    await migrations.up(database)
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(files("relevo.sql").joinpath("sample.sql").read_bytes())
        connection.execute(FILL.read_text(), {"tenants": tenants, "calls": CALLS, "days": DAYS})
    await mirror.install(database, MAPPING, Who("bench", None), system_clock)
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute("VACUUM (FREEZE, ANALYZE)")
        connection.execute(ROLLOUT.read_text(), {"plan": plans.written(plans.DEFAULT), "tenants": tenants})


def _median_ms(served: Served, visitor: Visitor, path: str, rounds: int) -> float:
    """Of the best round, as the server's own log has it: to the beginning of the answer, rendered whole before."""
    visitor.page(path)
    route, medians = re.sub("/tenants/.+", "/tenants/{tenant}", path.split("?")[0]), []
    for _ in range(rounds):
        seen = len(served.log())
        for _ in range(ASKED):
            visitor.page(path)
        took = sorted(line["ms"] for line in served.log()[seen:] if line.get("route") == route)
        medians.append(float(took[len(took) // 2]))
    return min(medians)


def _weights(visitor: Visitor) -> list[Figure]:
    """What a first visit fetches, gzipped where the server does that, and a further one."""
    page = visitor.page("/").encode()
    addresses = set(re.findall(rb'(?:src|href)="/static/([^"?]+)\?', page))
    first = len(page) + sum(len(assets()[name.decode()].packed) for name in addresses)
    packed = len(gzip.compress(page))
    return [
        Figure("overview: weight of the first visit", first / 1000, "asked", FIRST_VISIT_KB, "kB", most=1),
        Figure("overview: weight of each further one", len(page) / 1000, "gzipped it would be", packed / 1000, "kB"),
    ]


async def _first_paint_ms(served: Served, token: str) -> float:
    async with browsing() as tab:
        await tab.open(f"{served.address}/")
        await tab.run(f"document.querySelector('#token').value = {json.dumps(token)}")
        await tab.click("form[action='/sign-in'] button")
        found = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        await tab.until(found)
        return float(await tab.run(found))
