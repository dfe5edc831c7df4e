"""Works in the background: counts, looks whether limits are crossed, starts reports when they are due."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kickserve.batching import cancel_task
from kickserve.errors import KickserveError
from kickserve_drift.alarm import Alarm
from kickserve_drift.drift import Limits
from kickserve_drift.live import EVERY
from kickserve_drift.webhook import Webhook

if TYPE_CHECKING:
    from kickserve.service import Service
    from kickserve.settings import Settings
    from kickserve_drift.live import Live
    from kickserve_drift.runs import Runs

_log = logging.getLogger(__name__)


class Watchman:
    """Every worker counts its own kicks; the first one looks at those of all.

    Args:
        settings: limits, schedule and webhook.
        live: the figures.
        runs: the full reports.
    """

    def __init__(self, settings: Settings, live: Live, runs: Runs) -> None:
        self._live = live
        self._runs = runs
        hook = settings.drift_webhook
        webhook = None if hook is None else Webhook(hook, settings.drift_secret)
        self._alarm = Alarm(live, Limits(settings.drift_psi, settings.drift_share), webhook)
        self._every = settings.drift_every
        self._last = runs.newest_at() or datetime.now(UTC)  # when a report was last made, or tried
        self._task: asyncio.Task[None] | None = None

    async def start(self, service: Service) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._go_on(service), name="drift")

    async def stop(self) -> None:
        """End, and with it what has been started."""
        await cancel_task(self._task)
        await self._alarm.stop()
        await self._runs.stop()

    async def _go_on(self, service: Service) -> None:
        while True:
            try:
                await self._live.begin(service)
                while True:
                    await self._step(service)
            except Exception:  # noqa: BLE001  what went wrong once must not leave the service blind
                _log.exception("the figures of drift begin anew")
                await asyncio.sleep(EVERY)

    async def _step(self, service: Service) -> None:
        await self._live.step(service)
        if self._live.board.number == 0:
            self._alarm.look()
            await self._report_when_due(service)

    async def _report_when_due(self, service: Service) -> None:
        now = datetime.now(UTC)
        if self._every is None or now - self._last < self._every:
            return
        newest = self._runs.newest_at()
        if newest is not None and newest > self._last:  # somebody has asked for one meanwhile
            self._last = newest
            return
        self._last = now
        try:
            await self._runs.start(service)
        except KickserveError as error:
            _log.warning("no report of drift was started: %s", error)
