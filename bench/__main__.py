"""``python -m bench``: every figure beside what it is compared with, measured in turn in one run."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from bench import (
    calls,
    dashboard,
    flags,
    memory,
    mirror,
    move,
    notices,
    profile,
    record,
    restore,
    rollout,
    router,
    serve,
)
from bench.figures import Figure, table
from bench.place import place

ROUNDS = 3
PARTS = (
    "move", "mirror", "memory", "calls", "profile", "flags", "serve", "restore", "record", "router", "tick", "rollback",
    "dashboard", "notices",
)  # fmt: skip


def main() -> None:
    """Measure, print, store."""
    options = _options()
    load = os.getloadavg()[0]
    figures, shares = asyncio.run(_measured(options))
    print(f"\nBest of {ROUNDS}, in turn; {os.cpu_count()} cores, load {load:.1f} before it began\n")
    if figures:
        print(table(figures))
    if shares:
        print(f"\nWhere the copy's time goes\n\n{profile.told(shares)}")
    if options.json:
        stored = [{**asdict(each), "ratio": each.ratio, "reached": each.reached} for each in figures]
        document = {"load": load, "figures": stored, "profile": [asdict(share) for share in shares]}
        options.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="configurations to copy")
    parser.add_argument("--calls", type=int, help="calls; 300,000, or 3,000,000 with --full")
    parser.add_argument("--full", action="store_true", help="a million configurations, three million calls")
    parser.add_argument(
        "--only",
        choices=PARTS,
        help="one part alone",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="store the figures")
    return parser.parse_args()


async def _measured(options: argparse.Namespace) -> tuple[list[Figure], list[profile.Share]]:
    figures: list[Figure] = []
    shares: list[profile.Share] = []
    sizes = (10_000, 100_000, 1_000_000) if options.full else (10_000, 100_000)
    many = options.calls or (3_000_000 if options.full else 300_000)
    with place() as server:
        for part in (options.only,) if options.only else PARTS:
            print(f"measuring: {part} …", file=sys.stderr)
            match part:
                case "move":
                    figures += await move.compare(server, options.rows, ROUNDS)
                case "mirror":
                    figures += await mirror.compare(server, options.rows // 2, ROUNDS)
                case "memory":
                    figures += await memory.compare(server, sizes)
                case "calls":
                    figures += await calls.compare(server, many, ROUNDS)
                case "flags":
                    figures += await flags.compare(server, ROUNDS)
                case "restore":
                    figures += await restore.compare(
                        server, options.calls or (1_000_000 if options.full else 100_000), ROUNDS
                    )
                case "router":
                    figures += await router.compare(server, ROUNDS)
                case "tick":
                    figures += await rollout.ticks(server)
                case "rollback":
                    figures += await rollout.rollbacks(server)
                case "serve":
                    figures += await serve.compare(server, ROUNDS)
                case "record":
                    figures += await record.compare(server, options.calls or 5_000, ROUNDS)
                case "dashboard":
                    figures += await dashboard.compare(server, ROUNDS)
                case "notices":
                    figures += await notices.compare(server)
                case "profile":
                    shares = await profile.profile(server, options.rows // 4)
    return figures, shares


main()
