"""Samples the process's use of processor and memory once a second: once a request would cost too much."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import psutil

from kickserve.batching import cancel_task

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL: Final = 1.0  # seconds


class ProcessSampler:
    """The newest sample of this process.

    Attributes:
        cpu_percent: processor time since the sample before; 100 is one core.
        memory_mb: resident memory in MB (10⁶ bytes).
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._task: asyncio.Task[None] | None = None
        self.sample()  # psutil gives 0 at first: processor time is counted from here

    def sample(self) -> None:
        """Take a sample now."""
        with self._process.oneshot():
            self.cpu_percent = self._process.cpu_percent()
            self.memory_mb = round(self._process.memory_info().rss / 1e6, 1)

    async def start(self, on_sample: Callable[[], None]) -> None:
        """Take a sample once a second from now on, and call `on_sample` now and after each."""
        on_sample()
        self._task = asyncio.create_task(self._run(on_sample), name="process sampler")

    async def stop(self) -> None:
        """Stop sampling."""
        await cancel_task(self._task)
        self._task = None

    async def _run(self, on_sample: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            self.sample()
            on_sample()
