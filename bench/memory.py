"""Memory of the migrating process, which should not depend on how much there is to move.

``python -m bench.memory URL`` moves everything and prints the most memory it ever held, in bytes. (The kernel counts a
new process's parent into getrusage; what the process itself held stands in its status.)
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.figures import Figure
from bench.place import Place
from relevo.db.pool import Database
from relevo.migration import runner
from relevo.migration.run import Options

MEGABYTE = 1_000_000


async def compare(place: Place, sizes: Sequence[int]) -> list[Figure]:
    """Peak memory of a whole run, backup and verification included, at some sizes beside the first of them."""
    peaks = [await _peak(place, size) for size in sizes]
    return [
        Figure(
            f"memory, {size:,} configurations",
            peak / MEGABYTE,
            f"{sizes[0]:,} configurations",
            peaks[0] / MEGABYTE,
            "MB",
            least=0.9,
            most=1.1,
        )
        for size, peak in zip(sizes[1:], peaks[1:], strict=True)
    ]


async def _peak(place: Place, configurations: int) -> int:
    async with place.v1(configurations) as v1:
        moved = subprocess.run(  # noqa: ASYNC221 (nothing else runs here)
            [sys.executable, "-m", "bench.memory", place.url(v1)], check=True, stdout=subprocess.PIPE, text=True
        )
    return int(moved.stdout)


async def _move(url: str) -> None:
    async with Database(url) as database:
        result = await runner.migrate(database, Options(batch_size=1_000), actor="bench")
    if not result.success:
        raise SystemExit("\n".join(result.errors))


if __name__ == "__main__":
    asyncio.run(_move(sys.argv[1]))
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024)
