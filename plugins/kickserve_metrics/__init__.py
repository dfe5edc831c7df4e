"""The plugin `metrics`: what the service counts of itself, at `/metrics`, in the words of Prometheus."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from litestar import Request, Response, get
from litestar.plugins import InitPlugin
from prometheus_client.exposition import choose_encoder

from kickserve.errors import Unauthorized
from kickserve_metrics.collector import Collector

if TYPE_CHECKING:
    from litestar.config.app import AppConfig
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler

    from kickserve.settings import Settings

__all__ = ["MetricsPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> MetricsPlugin:
    """Make the plugin: what the entry point names."""
    return MetricsPlugin(settings)


class MetricsPlugin(InitPlugin):
    """Brings `GET /metrics`. Where the service has a key, Prometheus needs it too.

    Args:
        settings: the key stands there.
    """

    def __init__(self, settings: Settings) -> None:
        self._key = settings.api_key

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the route."""
        guards = [] if self._key is None else [_guard_with(self._key)]
        app_config.route_handlers.append(get("/metrics", guards=guards, include_in_schema=False)(_metrics))
        return app_config


async def _metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer in the format that is asked for: the text of Prometheus, or OpenMetrics."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(Collector(request.app.state.service)), media_type=content_type)


def _guard_with(key: str) -> Any:
    """Make a guard that takes the key as clients send it, or as Prometheus can: `Authorization: Bearer`."""
    expected = key.encode()

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        scheme, _space, token = connection.headers.get("authorization", "").partition(" ")
        sent = token.strip() if scheme.lower() == "bearer" else connection.headers.get("x-api-key", "")
        # Constant time: how long a refusal takes says nothing about the key.
        if not secrets.compare_digest(sent.encode(), expected):
            raise Unauthorized("send the key of this service as Authorization: Bearer, or as X-API-Key")

    return guard
