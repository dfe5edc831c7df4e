"""The plugin `otel`: OpenTelemetry traces of requests, where the usual variables `OTEL_*` ask for them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from kickserve.plugins import ConfigurationError, Plugin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar.config.app import AppConfig
    from litestar.types import ASGIApp

    from kickserve.plugins import Settings
    from kickserve_otel.tracing import Tracing

__all__ = ["OtelPlugin", "create_plugin", "is_wanted"]

_log = logging.getLogger(__name__)


def create_plugin(settings: Settings) -> OtelPlugin:
    """Make the plugin: the entry point names this function."""
    return OtelPlugin(settings)


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Return whether these variables ask for traces: by an exporter, or by its address."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter != "none"
    addresses = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return any(environment.get(each, "").strip() for each in addresses)


class OtelPlugin(Plugin):
    """Traces every request, where traces are wanted."""

    _tracing: Tracing | None = None

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Have the last spans sent when the service stops."""
        app_config.on_shutdown.append(self._stop)
        return app_config

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Trace requests on their way to `app`; return `app` itself where no traces are wanted."""
        if not is_wanted(os.environ):
            return app
        try:
            from kickserve_otel.tracing import Tracing  # with it OpenTelemetry reads its variables

            self._tracing = Tracing(self.settings.shutdown_timeout)
        except Exception as error:  # noqa: BLE001  whatever the variables hold, predictions need no traces
            _log.error("requests are not traced: %s", _reason(error))
            return app
        return self._tracing.wrap(app)

    async def _stop(self) -> None:
        if self._tracing is not None:
            await self._tracing.stop()


def _reason(error: Exception) -> str:
    """Name the variables that an error is about: those whose values it quotes, or else all that are set."""
    if isinstance(error, ConfigurationError):
        return str(error)
    ours = {name: value for name, value in sorted(os.environ.items()) if name.startswith("OTEL_")}
    quoted = [name for name, value in ours.items() if any(each in str(error) for each in value.split(","))]
    return f"{error}. Check {', '.join(quoted or ours)}"
