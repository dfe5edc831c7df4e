"""Ends what runs in the background of the event loop."""

from __future__ import annotations

import asyncio
import logging

_log = logging.getLogger(__name__)


async def end(task: asyncio.Task[None] | None) -> None:
    """Cancel a task, where there is one, and wait until it has ended.

    One that has failed is no reason to leave anything else open: its error goes to the log.
    """
    if task is None:
        return
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("what ran in the background failed: %s", task.get_name(), exc_info=error)
