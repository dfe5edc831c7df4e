"""Spreads work over time: so much a second, at some hours of the day."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from datetime import time as clock_time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Hours(NamedTuple):
    """Hours of the day, UTC; from 22:00 to 02:00 they go over midnight.

    Attributes:
        begin: when they begin.
        end: when they end.
    """

    begin: clock_time
    end: clock_time

    def until_open(self, now: datetime) -> timedelta:
        """Say how long it takes until they begin; nothing while they last."""
        at = now.time()
        inside = self.begin <= at < self.end if self.begin < self.end else at >= self.begin or at < self.end
        if inside:
            return timedelta()
        opens = now.replace(
            hour=self.begin.hour, minute=self.begin.minute, second=self.begin.second, microsecond=0
        )
        return (opens - now) % timedelta(days=1)


class Pace:
    """Holds work back until its time has come.

    Args:
        rate: how much a second; None for as much as can be.
        hours: of the day; None for all of them.
        now: the time of the day, UTC.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        rate: float | None = None,
        hours: Hours | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = rate
        self._hours = hours
        self._now = now
        self._sleep = sleep
        self._next = time.monotonic()

    async def wait(self, count: int) -> None:
        """Return when so much more may be done."""
        if self._hours is not None:
            await self._sleep(self._hours.until_open(self._now()).total_seconds())
        if self._rate is not None:
            await self._sleep(max(self._next - time.monotonic(), 0.0))
            # From now, not from when it was due: a pause is not made up for.
            self._next = max(self._next, time.monotonic()) + count / self._rate
