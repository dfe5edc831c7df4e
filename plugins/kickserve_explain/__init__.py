"""The plugin `explain`: what drives the answer to a kick, at `POST /api/v1/explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestar import Router, post
from litestar.params import RawBody

from kickserve.plugins import API, Plugin, Scope, TakesKick, ThePredictor, read_kick, refusals, requires
from kickserve.schemas import row_of
from kickserve_scores.explain import Explanation
from kickserve_scores.explain import explain as explain_kick

if TYPE_CHECKING:
    from litestar.config.app import AppConfig

    from kickserve.plugins import Settings

__all__ = ["ExplainPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> ExplainPlugin:
    """Make the plugin: the entry point names this function."""
    return ExplainPlugin(settings)


class ExplainPlugin(Plugin):
    """Brings `POST /api/v1/explain`."""

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the route."""
        app_config.route_handlers.append(Router(API, route_handlers=[explain]))
        return app_config


@post(
    "/explain",
    status_code=200,
    operation_class=TakesKick,
    responses=refusals(500, 503),
    tags=["predictions"],
    guards=[requires(Scope.PREDICT)],
)
async def explain(body: RawBody, predictor: ThePredictor) -> Explanation:
    """Say what drives the answer to a kick: each feature's share on the log-odds, against the average kick.

    Nothing is recorded. The shares are exact Shapley values, whatever the kind of the model.
    """
    return await explain_kick(predictor.current, row_of(read_kick(body)))
