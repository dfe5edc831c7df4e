"""The plugin `drift`: says when the kicks that come in have become unlike those that the model knows."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from kickserve.plugins import Metric, Plugin
from kickserve_drift.drift import Limits
from kickserve_drift.live import Live, figures
from kickserve_drift.runs import Runs
from kickserve_drift.watchman import Watchman

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from click import Group
    from litestar import Litestar
    from litestar.config.app import AppConfig

    from kickserve.schemas import DriftSummary
    from kickserve.settings import Settings

__all__ = ["DriftPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> DriftPlugin:
    """Make the plugin: what the entry point names."""
    return DriftPlugin(settings)


class DriftPlugin(Plugin):
    """Live figures of drift, full reports, and the command `evaluate`.

    Args:
        settings: limits, folder of the reports, schedule and webhook stand there.

    Attributes:
        on_predictions: notes predictions; see `Live.watch`.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._limits = Limits(settings.drift_psi, settings.drift_share)
        self._live = Live(settings.drift_window)
        self._runs = Runs(settings)
        self.on_predictions = self._live.watch  # type: ignore[method-assign]  # called for each prediction: nothing stands between

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the routes, and what works in the background."""
        from kickserve_drift.routes import router  # the command line need not wait for it

        app_config.route_handlers.append(router(self._runs))
        app_config.lifespan.append(self._running)
        return app_config

    def on_cli_init(self, cli: Group) -> None:
        """Add the command."""
        from kickserve_drift.evaluate import command

        cli.add_command(command)

    def share_memory(self, workers: int) -> None:
        """Make the memory that so many workers share."""
        self._live.share(workers)

    def join_worker(self, number: int) -> None:
        """Write as this worker from now on."""
        self._live.board.take_place(number)

    def drift(self) -> DriftSummary | None:
        """Return how far the newest kicks have drifted; None as long as there are too few."""
        summary = self._live.summary(self._limits)
        return None if summary is None else self._runs.with_link(summary)

    def metrics(self) -> Iterable[Metric]:
        """Return the same for `/metrics`."""
        summary = self._live.summary(self._limits)
        return [] if summary is None else figures(summary)

    @asynccontextmanager
    async def _running(self, app: Litestar) -> AsyncIterator[None]:
        watchman = Watchman(self._settings, self._live, self._runs)
        await watchman.start(app.state.service)
        yield
        await watchman.stop()
