"""A process that reads the flag: ``python -m bench.flag_reader URL`` prints each version and when it answers by it."""

from __future__ import annotations

import asyncio
import sys
import time

from relevo import Flags


async def main(url: str) -> None:
    """One line per change: version, and nanoseconds of the machine's clock."""
    async with Flags(url) as flags:
        async for state in flags.changes():
            print(state.version, time.monotonic_ns(), state.mode, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
