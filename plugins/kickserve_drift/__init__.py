"""The plugin `drift`: finds out when kicks are no longer those of the training, or outcomes as predicted."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from kickserve.plugins import Plugin
from kickserve_drift.monitor import Monitor
from kickserve_drift.outcomes import OutcomeTest
from kickserve_drift.psi import Limits, with_outcomes
from kickserve_drift.reports import ReportFolder, need_reports
from kickserve_drift.settings import DriftSettings
from kickserve_drift.window import LiveDrift, metrics_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from click import Group
    from litestar.config.app import AppConfig

    from kickserve.plugins import Metric, Settings
    from kickserve.schemas import DriftSummary

__all__ = ["DriftPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> DriftPlugin:
    """Make the plugin: the entry point names this function."""
    return DriftPlugin(settings)


class DriftPlugin(Plugin):
    """Live figures of drift, full reports, and the command `evaluate`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.table: DriftSettings = DriftSettings.load(settings.environ)
        self._limits = Limits(self.table.psi, self.table.share)
        self._live = LiveDrift(self.table.window)
        self._outcomes = OutcomeTest()
        self._reports = ReportFolder(self.table.reports)
        if self.table.window:  # on the way of each prediction: no call between
            self.on_predictions = self._live.add  # type: ignore[method-assign]
        if self.table.every is not None:
            need_reports("KICKSERVE_DRIFT_EVERY")

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the routes, and the monitor in the background."""
        from kickserve_drift.routes import router  # the command line need not wait for it

        app_config.route_handlers.append(router(self._reports, self.table.window))
        app_config.lifespan.append(self._running)
        return app_config

    def on_cli_init(self, cli: Group) -> None:
        """Add `kickserve evaluate`."""
        from kickserve_drift.evaluate import command

        cli.add_command(command)

    def share_memory(self, workers: int) -> None:
        """Create the memory that workers share."""
        self._live.share_memory(workers)

    def join_worker(self, number: int) -> None:
        """Count as this worker from now on."""
        self._live.window.join_worker(number)

    def drift(self) -> DriftSummary | None:
        """Return how far the newest kicks have drifted; None with too few of them."""
        summary = self._live.summary(self._limits)
        if summary is None:
            return None
        return self._reports.with_link(with_outcomes(summary, self._outcomes.result))

    def drift_reports(self) -> Path:
        """Return the folder of full reports."""
        return self.table.reports

    def metrics(self) -> Iterable[Metric]:
        """Return how far the newest kicks have drifted, and what outcomes say, for `/metrics`."""
        if (summary := self._live.summary(self._limits)) is not None:
            yield from metrics_of(with_outcomes(summary, self._outcomes.result))
        yield from self._outcomes.metrics()

    @asynccontextmanager
    async def _running(self, app: Any) -> AsyncIterator[None]:
        monitor = Monitor(self.table, self._live, self._outcomes, self._reports)
        await monitor.start(app)
        yield
        await monitor.stop()
