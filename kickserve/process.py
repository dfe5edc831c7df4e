"""Samples what the process uses, once a second: a reading a request would cost more than the prediction."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import psutil

from kickserve.background import end

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL: Final = 1.0
_MEGABYTE: Final = 1_000_000


class Gauge:
    """The newest reading of this process.

    Attributes:
        cpu_percent: processor time since the reading before; 100 is one core.
        memory_mb: resident memory in MB (10⁶ bytes).
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._task: asyncio.Task[None] | None = None
        self.cpu_percent = 0.0
        self.memory_mb = 0.0
        self.read()  # the first reading only sets the clock of the processor's share: it gives 0

    def read(self) -> None:
        """Take a reading now."""
        with self._process.oneshot():
            self.cpu_percent = self._process.cpu_percent()
            self.memory_mb = round(self._process.memory_info().rss / _MEGABYTE, 1)

    async def start(self, tell: Callable[[], None] = lambda: None) -> None:
        """Read once a second from now on.

        Args:
            tell: called now and after each reading.
        """
        tell()
        self._task = asyncio.create_task(self._sample(tell), name="gauge")

    async def stop(self) -> None:
        """Stop reading."""
        await end(self._task)
        self._task = None

    async def _sample(self, tell: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            self.read()
            tell()
