"""The plugin `quality`: how good predictions with a known outcome were, at `GET /api/v1/quality`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from litestar import Router, get
from litestar.params import QueryParameter

from kickserve.openapi import refusals
from kickserve.plugins import API, Plugin, Scope, Since, TheRecorder, Until, parse_instant, requires
from kickserve_scores.report import QualityReport, report

if TYPE_CHECKING:
    from litestar.config.app import AppConfig

    from kickserve.plugins import Settings

__all__ = ["QualityPlugin", "create_plugin"]

ModelName = Annotated[str | None, QueryParameter(description="Only predictions of the model with this name.")]


def create_plugin(settings: Settings) -> QualityPlugin:
    """Make the plugin: the entry point names this function."""
    return QualityPlugin(settings)


class QualityPlugin(Plugin):
    """Brings `GET /api/v1/quality`."""

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the route."""
        app_config.route_handlers.append(Router(API, route_handlers=[quality]))
        return app_config


@get("/quality", responses=refusals(503), tags=["outcomes"], guards=[requires(Scope.READ)])
async def quality(
    recorder: TheRecorder, model: ModelName = None, since: Since = None, until: Until = None
) -> QualityReport:
    """Say how good the predictions were whose outcome is known: all, by model, and by month."""
    begin, end = parse_instant("since", since), parse_instant("until", until)
    await recorder.flush()
    return await report(recorder.store.labelled(model=model, since=begin, until=end))
