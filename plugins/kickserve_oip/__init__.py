"""The plugin `oip`: the Open Inference Protocol (V2, over HTTP) at `/v2`, for clients that speak it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from kickserve.plugins import Plugin
from kickserve_oip.messages import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar import Request, Response
    from litestar.config.app import AppConfig

    from kickserve.plugins import Settings

    Handler = Callable[[Request[Any, Any, Any], Any], Response[Any]]

__all__ = ["OipPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> OipPlugin:
    """Make the plugin: the entry point names this function."""
    return OipPlugin(settings)


class OipPlugin(Plugin):
    """Brings `/v2`: its kicks are validated, predicted and recorded as those of `/api/v1/predict`."""

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the routes, and to errors under `/v2` the member that the protocol wants in them."""
        from kickserve_oip.routes import routers

        app_config.route_handlers += routers()
        handlers = app_config.exception_handlers.items()
        app_config.exception_handlers = {kind: _with_error(handler) for kind, handler in handlers}
        return app_config


def _with_error(handler: Handler) -> Handler:
    """Make a handler of errors whose answers under `/v2` also satisfy the protocol.

    The protocol asks for `{"error": "what happened"}`. RFC 9457 lets a problem document have further members,
    which readers that don't know them pass over: so one document serves both kinds of clients.
    """

    def handle(request: Request[Any, Any, Any], error: Any) -> Response[Any]:
        response = handler(request, error)
        if response.content and f"{request.scope['path']}/".startswith(f"{PREFIX}/"):
            problem = msgspec.json.decode(response.content)
            response.content = msgspec.json.encode({**problem, "error": problem["detail"]})
        return response

    return handle
