"""The plugin `otel`: traces of requests for OpenTelemetry, where the usual variables `OTEL_*` ask for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kickserve.plugins import Plugin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar.config.app import AppConfig
    from litestar.types import ASGIApp

    from kickserve.settings import Settings
    from kickserve_otel.tracing import Tracing

__all__ = ["OtelPlugin", "TracingPlugin", "create_plugin", "is_wanted"]


def create_plugin(settings: Settings) -> OtelPlugin:
    """Make the plugin: what the entry point names.

    Only where traces are asked for does it wrap requests: otherwise they take their shortest way.
    """
    return TracingPlugin(settings) if is_wanted(os.environ) else OtelPlugin(settings)


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Say whether these variables ask for traces: by naming where they go, or an exporter."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter != "none"
    places = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return any(environment.get(each, "").strip() for each in places)


class OtelPlugin(Plugin):
    """Does nothing: nobody asks for traces."""


class TracingPlugin(OtelPlugin):
    """Traces every request.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._tracing: Tracing | None = None

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """See to it that what has not been sent is sent at the end."""
        app_config.on_shutdown.append(self._end)
        return app_config

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Trace requests on their way to `app`."""
        from kickserve_otel.tracing import Tracing

        self._tracing = Tracing(self._settings)
        return self._tracing.around(app)

    async def _end(self) -> None:
        if self._tracing is not None:
            await self._tracing.end()
