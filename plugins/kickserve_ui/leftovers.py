"""Clears away what is left of pages: cycles of NiceGUI's and Starlette's, which no count of references ends.

Some 1,700 objects a page. Left to Python's own collections they would wait for hours, in memory by the tens
of megabytes, and hold the event loop for a tenth of a second when their time comes.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Final

_SOON: Final = 2.0  # seconds after a page was left: its connection has ended, and others may leave meanwhile


def set_apart() -> None:
    """Keep what stands now, NiceGUI above all, out of collections: to walk over it takes 50 ms each time.

    To be called before there is any page. Where the server has not done so with its own (in tests), nothing
    is done.
    """
    if gc.get_freeze_count():
        gc.freeze()


class Leftovers:
    """What is left of the pages of a site."""

    def __init__(self) -> None:
        self._waiting = False

    def clear_soon(self) -> None:
        """Collect what is left of a page, and of those that are left until then: 2 ms, and 3 a page."""
        if not self._waiting:
            self._waiting = True
            asyncio.get_running_loop().call_later(_SOON, self._clear)

    def _clear(self) -> None:
        self._waiting = False
        gc.collect()
