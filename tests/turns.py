"""Counts the turns that others get on the event loop while something goes on."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def counted_turns():
    """Give a list that grows by one for each turn of the event loop."""
    turns = []

    async def go_on():
        while True:
            turns.append(None)
            await asyncio.sleep(0)

    other = asyncio.create_task(go_on())
    try:
        yield turns
    finally:
        other.cancel()
        with suppress(asyncio.CancelledError):
            await other
