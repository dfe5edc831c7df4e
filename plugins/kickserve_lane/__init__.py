"""The plugin `lane`: `POST /api/v1/predict` around the router, and the limits of connections (standard)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from kickserve.plugins import API, Plugin
from kickserve_lane.settings import LaneSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.types import ASGIApp

    from kickserve.plugins import App, Settings
    from kickserve_lane.lane import Lane

__all__ = ["LanePlugin", "create_plugin"]


def create_plugin(settings: Settings) -> LanePlugin:
    """Make the plugin: the entry point names this function."""
    return LanePlugin(settings)


class LanePlugin(Plugin):
    """Answers predictions ahead of the router, and limits connections."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.table: LaneSettings = LaneSettings.load(settings.environ)
        self._lane: Lane | None = None

    def wrap_router(self, router: ASGIApp, app: App) -> ASGIApp:
        """Answer predictions that `Lane.takes`, and leave the others to the router."""
        if not self.table.fastlane:
            return router
        from kickserve_lane.lane import Lane

        self._lane = Lane(app, router, f"{API}/predict")
        return self._lane

    def create_protocol(self, app: App) -> Callable[..., Any] | None:
        """Return connections with limits, and with the lane where no plugin wraps requests."""
        from kickserve_lane.connection import LaneConnection
        from kickserve_lane.limits import ConnectionLimits, LimitedConnection

        limits = ConnectionLimits(self.table)
        if self._lane is None or app.wrapped or self.settings.debug or self.settings.access_log:
            return partial(LimitedConnection, app, limits)
        return partial(LaneConnection, app, limits, self._lane)
