"""The plugin `oip`: the Open Inference Protocol (V2, over HTTP) at `/v2`, for clients that speak it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kickserve.plugins import Plugin

if TYPE_CHECKING:
    from litestar.config.app import AppConfig

    from kickserve.settings import Settings

__all__ = ["OipPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> OipPlugin:
    """Make the plugin: what the entry point names."""
    return OipPlugin(settings)


class OipPlugin(Plugin):
    """Brings `/v2`: what it answers is predicted, checked and kept as what comes over `/api/v1/predict`.

    Args:
        settings: the key stands there.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the routes, and to errors under `/v2` what the protocol wants in them."""
        from kickserve_oip.problems import with_error
        from kickserve_oip.routes import routers

        app_config.route_handlers += routers()
        handlers = app_config.exception_handlers.items()
        app_config.exception_handlers = {kind: with_error(handler) for kind, handler in handlers}
        return app_config
