"""The plugin `metrics`: what the service counts of itself, at `/metrics`, in the words of Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Request, Response, get
from prometheus_client.exposition import choose_encoder

from kickserve.plugins import Plugin, Scope, requires
from kickserve_metrics.collector import Collector

if TYPE_CHECKING:
    from litestar.config.app import AppConfig

    from kickserve.settings import Settings

__all__ = ["MetricsPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> MetricsPlugin:
    """Make the plugin: what the entry point names."""
    return MetricsPlugin(settings)


class MetricsPlugin(Plugin):
    """Brings `GET /metrics`. Where the service has keys, Prometheus needs one that may read.

    Args:
        settings: whether there are keys.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the route."""
        guards = [requires(Scope.READ)]
        app_config.route_handlers.append(get("/metrics", guards=guards, include_in_schema=False)(_metrics))
        return app_config


async def _metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer in the format that is asked for: the text of Prometheus, or OpenMetrics."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(Collector(request.app.state.service)), media_type=content_type)
