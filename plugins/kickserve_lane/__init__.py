"""The plugin `lane`: `POST /api/v1/predict` around the router, and the limits of connections (standard)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from kickserve.plugins import API, Plugin, SettingsTable, kinds, setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.types import ASGIApp, Receive, Scope, Send

    from kickserve.plugins import App, Settings
    from kickserve_lane.lane import Lane

__all__ = ["LanePlugin", "LaneSettings", "create_plugin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSettings(SettingsTable):
    """The settings of the lane and of connections."""

    client_timeout: float = setting(
        "KICKSERVE_CLIENT_TIMEOUT",
        "30",
        kinds.seconds,
        "Seconds that a client has for the head of a request, for its body (and one more for each 500 bytes)"
        " and for taking the answer (likewise). 0: no limit.",
    )
    connections_max: int = setting(
        "KICKSERVE_CONNECTIONS_MAX",
        "10000",
        kinds.count,
        "Open connections of a process, at most; fewer where the system allows fewer open files. Others are"
        " answered 503.",
    )
    fastlane: bool = setting(
        "KICKSERVE_FASTLANE",
        "1",
        kinds.switch,
        "Whether `/predict` goes around the framework's router. It answers the same either way.",
    )


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

        lane = self._lane = Lane(app, f"{API}/predict")

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            await (lane if lane.takes(scope) else router)(scope, receive, send)

        return serve

    def create_protocol(self, app: App) -> Callable[..., Any] | None:
        """Return connections with limits, and with the lane where no plugin wraps requests."""
        from kickserve_lane.connection import LaneConnection
        from kickserve_lane.limits import ConnectionLimits, LimitedConnection

        limits = ConnectionLimits(self.table)
        if self._lane is None or app.wrapped or self.settings.debug:
            return partial(LimitedConnection, app, limits)
        return partial(LaneConnection, app, limits, self._lane)
