"""A process that answers by the flag: ``python -m tests.flag_reader URL TENANT`` prints each answer that is new."""

from __future__ import annotations

import asyncio
import sys

from relevo import Flags


async def main(url: str, tenant: str) -> None:
    """One line per state: version and variant."""
    async with Flags(url) as flags:
        async for state in flags.changes():
            print(state.version, flags.evaluate(tenant).variant, state.mode, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
