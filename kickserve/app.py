"""The service on one page: what is wired to what, and which calls there are.

A kick comes in through `edge` (request id) and `gate` (key, limits), is read by `validation`, answered by
`predictor` (model), written to disk by `recorder` and `journal`, and answered as `schemas.Prediction`.
Plugins bring the store, and whatever else is installed. Start reading here, then in `routes`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from litestar import Request, Router, get
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.response import Redirect

from kickserve import openapi as documentation
from kickserve import problems, routes
from kickserve.auth import Gate
from kickserve.errors import KickserveError
from kickserve.journal import Journal
from kickserve.loading import load_model, load_shadow
from kickserve.middleware import KickserveApp
from kickserve.plugins import create_store, load_plugins
from kickserve.recorder import Recorder
from kickserve.security_headers import Shield
from kickserve.service import Service
from kickserve.settings import Settings
from kickserve_lane.fastlane import FastLane
from kickserve_shadow.shadow import Shadow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from litestar import Litestar

    from kickserve.metrics import Metrics
    from kickserve.model import Model
    from kickserve.plugins import Plugin

API: Final = "/api/v1"


def create_app(
    settings: Settings | None = None,
    *,
    model: Model | None = None,
    metrics: Metrics | None = None,
    plugins: Sequence[Plugin] | None = None,
    gate: Gate | None = None,
) -> KickserveApp:
    """Make the application: any ASGI server can serve it.

    Args:
        settings: read from the environment and `.env` where not given.
        model: a model to serve instead of the one that the settings name.
        metrics: where to count; those that several workers share, or else new ones.
        plugins: those that were made before workers were forked; made now where not given.
        gate: lets requests in; one that several workers share, or else a new one.

    Raises:
        ConfigurationError: a setting or plugin that can't be used.
        ModelUnusable: the model can't be found or read.
        StoreMisconfigured: no plugin knows the database URL.
    """
    settings = Settings.from_environment() if settings is None else settings
    plugins = load_plugins(settings) if plugins is None else plugins
    store = create_store(plugins, settings.database_url)
    journal = Journal.from_settings(settings, store.label)
    shadow = Shadow(lambda: load_shadow(settings))
    recorder = Recorder(store, journal, shadow, patience=settings.shutdown_timeout)
    service = Service(lambda: model or load_model(settings), recorder, store, settings, metrics, plugins)
    gate = Gate(settings) if gate is None else gate
    app = KickserveApp(
        route_handlers=[home, documentation.assets(), _open_calls(), _guarded_calls(settings)],
        plugins=plugins,
        lifespan=[_running(service, gate)],
        dependencies={"service": Provide(lambda: service, sync_to_thread=False)},
        state=State({"service": service, "settings": settings, "gate": gate, "shield": Shield(settings)}),
        before_request=routes.refuse_encoded,
        exception_handlers=problems.HANDLERS,
        openapi_config=documentation.openapi_config(with_key=settings.guarded),
        cors_config=_cors(settings),
        request_max_body_size=settings.body_max,
        logging_config=None,  # the command line sets logging up; embedded elsewhere, that place does
    )
    if settings.fastlane:
        app.lane = FastLane(service, gate, settings, f"{API}/predict")
    return app


@get("/", include_in_schema=False)
async def home(request: Request[Any, Any, Any]) -> Redirect:
    """Lead to the page, or to the documentation where no plugin brings one (`state.home`)."""
    return Redirect(request.app.state.get("home", documentation.PATH))


def _open_calls() -> Router:
    return Router(API, route_handlers=[routes.health, routes.live, routes.ready])


def _guarded_calls(settings: Settings) -> Router:
    batch = Router("/", route_handlers=[routes.predict_batch], request_max_body_size=None)
    return Router(
        API,
        route_handlers=[
            routes.predict,
            batch,
            routes.list_predictions,
            routes.get_prediction,
            routes.delete_prediction,
            routes.put_outcome,
            routes.put_outcomes,
            routes.model,
            routes.reload_model,
        ],
        guards=routes.guards_of(settings),
    )


def _cors(settings: Settings) -> CORSConfig | None:
    if settings.cors_origins is None:
        return None
    return CORSConfig(
        allow_origins=list(settings.cors_origins),
        allow_headers=["authorization", "content-type", "x-api-key", "x-request-id"],
        expose_headers=["link", "x-request-id", "retry-after", "ratelimit", "ratelimit-policy"],
    )


def _running(service: Service, gate: Gate) -> Callable[[Litestar], Any]:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        try:
            await service.start()
        except KickserveError as error:
            app.state.failure = error  # for who started the server: the framework buries it in a traceback
            raise
        await gate.start()
        try:
            yield
        finally:
            await gate.stop()
            await service.stop()

    return lifespan
