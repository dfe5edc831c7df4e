"""The service in one file: `create_app`, every route of /api/v1, and the lifespan.

The way of a kick: connection (`kickserve_lane`, or uvicorn and `middleware`) → key (`auth`) → decode
(`validation`) → vector and model (`predictor`) → record (`record`) → journal (`recorder`, `journal`) →
answer. Behind the answer the recorder brings the journal to the store. Plugins (`plugins`) bring the store,
other kinds of models, and more routes.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from litestar import MediaType, Request, Response, Router, delete, get, post, put
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.params import FromPath, RawBody
from litestar.response import Redirect, Stream

from kickserve import __version__, openapi, problems
from kickserve.auth import Scope, requires
from kickserve.batching import yield_to_loop
from kickserve.errors import ConfigurationError, EncodedBody, KickserveError, MissingExtra, ModelUnusable
from kickserve.journal import Journal
from kickserve.loading import load_model
from kickserve.metrics import Metrics
from kickserve.middleware import App, app_of
from kickserve.ndjson import Streamed, answer_lines
from kickserve.openapi import (
    ListsRecords,
    Open,
    TakesKick,
    TakesKicks,
    TakesOutcome,
    TakesOutcomes,
    answers,
    refusals,
)
from kickserve.parameters import (
    PAGE_DEFAULT,
    Before,
    Limit,
    OfKicker,
    Since,
    ThePredictor,
    TheRecorder,
    Until,
    format_query,
    is_lines,
    parse_cursor,
    parse_id,
    parse_instant,
    parse_kicker,
    read_body,
    refuse_unknown_parameters,
    sends_lines,
    stream_body,
    wanted_lines,
)
from kickserve.plugins import (
    API,
    create_authenticator,
    create_learner,
    create_store,
    discover,
    overridden,
    plugins_of,
)
from kickserve.predictor import Predictor
from kickserve.process import ProcessSampler
from kickserve.recorder import Recorder
from kickserve.schemas import Health, ModelCard, OutcomesKept, Prediction, Record
from kickserve.settings import Settings
from kickserve.store import Retention
from kickserve.validation import read_kicks_in_turns, read_outcome, read_outcomes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from litestar import Litestar
    from litestar.config.app import AppConfig

    from kickserve.model import Model
    from kickserve.plugins import Plugin
    from kickserve.predictor import Answers


_encoder: Final = msgspec.json.Encoder()


def create_app(
    settings: Settings | None = None,
    *,
    model: Model | None = None,
    metrics: Metrics | None = None,
    plugins: Sequence[Plugin] | None = None,
) -> App:
    """Make the application: any ASGI server can serve it.

    Args:
        settings: read from the environment and `.env` by default.
        model: a model to serve instead of the one that the settings name.
        metrics: counters that workers share; new ones by default.
        plugins: plugins made before workers were forked; discovered by default.

    Raises:
        ConfigurationError: a setting or plugin can't be used.
        ModelUnusable: the model can't be found or read.
        StoreMisconfigured: no plugin knows the database URL.
    """
    settings = Settings.load() if settings is None else settings
    if plugins is None:
        plugins = discover(settings)
        for plugin in plugins:
            plugin.share_memory(1)
    authenticator = create_authenticator(plugins, settings)
    store = create_store(plugins, settings.database_url)
    journal = Journal.from_settings(settings, store.label)
    recorder = Recorder(store, journal, overridden(plugins, "complete"))
    metrics, sampler = metrics or Metrics(), ProcessSampler()
    recorder.on_failure = partial(metrics.count, "store_errors")
    recorder.on_refusal = partial(metrics.count, "dead_letters")
    predictor = Predictor(
        lambda: model or load_model(settings, plugins),
        recorder,
        metrics=metrics,
        sampler=sampler,
        settings=settings,
        on_predictions=overridden(plugins, "on_predictions"),
        learner=create_learner(plugins),
    )
    for plugin in plugins:
        plugin.on_app_init = partial(_init, plugin.on_app_init)  # type: ignore[method-assign]
    return App(
        settings=settings,
        authenticator=authenticator,
        metrics=metrics,
        predictor=predictor,
        recorder=recorder,
        store=store,
        plugins=plugins,
        wrappers=[plugin.wrap for plugin in plugins],
        router_wrappers=[plugin.wrap_router for plugin in plugins],
        route_handlers=[home, openapi.assets(), Router(API, route_handlers=ROUTES)],
        lifespan=[_running(sampler)],
        dependencies={
            "predictor": Provide(lambda: predictor, sync_to_thread=False),
            "recorder": Provide(lambda: recorder, sync_to_thread=False),
        },
        before_request=check_request,
        exception_handlers=problems.HANDLERS,
        openapi_config=openapi.openapi_config(with_key=authenticator.guarded),
        cors_config=_cors(settings),
        request_max_body_size=settings.body_max,
        logging_config=None,  # the command line sets logging up; a host application has its own
    )


def _init(hook: Any, config: AppConfig) -> AppConfig:
    """Call `on_app_init`; without its result the framework would blame the next plugin."""
    changed: AppConfig | None = hook(config)
    if changed is None:
        owner = type(hook.__self__)
        raise ConfigurationError(
            f"on_app_init of the plugin {owner.__module__}.{owner.__qualname__} must return app_config"
        )
    return changed


def _running(sampler: ProcessSampler) -> Callable[[Litestar], Any]:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        try:
            await app.recorder.start()
        except KickserveError as error:
            app.state.failure = error  # for `server.run`: the framework buries it in a traceback
            raise
        app.metrics.count("starts")
        card = app.predictor.model.card
        app.metrics.set_model(card.name, card.revision)
        retention = Retention(app.store, app.settings.retention)
        await sampler.start(partial(_set_state, app, sampler))
        await retention.start()
        try:
            yield
        finally:
            app.drain()
            await retention.stop()
            await sampler.stop()
            await app.recorder.stop(max(0.0, app.ends_at - time.monotonic()))
            app.predictor.close()

    return cast("Callable[[Litestar], Any]", lifespan)


def _set_state(app: App, sampler: ProcessSampler) -> None:
    """Copy the newest sample of the process and of the journal to the metrics."""
    waiting = app.recorder.backlog()
    app.metrics.set_state(
        memory=sampler.memory_mb * 1e6,
        cpu=sampler.cpu_percent / 100,
        journal=waiting.size,
        lag=waiting.lag,
        age=waiting.age,
        store_up=app.recorder.store_works,
    )


async def reload(app: App) -> ModelCard:
    """Load the models of the settings again, those of plugins included, and put them in place: all or none.

    Raises:
        ModelUnusable: one can't be loaded or does not predict; the current models stay.
    """
    try:
        found = [await asyncio.to_thread(plugin.reload) for plugin in plugins_of(app)]
        card = await app.predictor.reload()
    except MissingExtra as error:
        raise ModelUnusable(f"{error}: the current model stays") from error
    for put_in_place in found:
        if put_in_place is not None:
            put_in_place()
    return card


def _cors(settings: Settings) -> CORSConfig | None:
    if settings.cors_origins is None:
        return None
    return CORSConfig(
        allow_origins=list(settings.cors_origins),
        expose_headers=["link", "x-request-id", "retry-after", "ratelimit", "ratelimit-policy"],
    )


async def check_request(request: Request[Any, Any, Any]) -> None:
    """Refuse a compressed body before any of it is read, and parameters that a call with some does not know.

    Raises:
        EncodedBody: the body is compressed.
        InvalidInput: a parameter is unknown, misspelt perhaps.
    """
    # A coroutine, as guards are: the framework calls a plain function in a thread.
    encodings = request.headers.getall("content-encoding", [])
    encoding = ", ".join(encodings).strip().lower()
    if encodings and encoding != "identity":
        raise EncodedBody(
            f"the body is compressed ({encoding[:20]}): send the plain body, without Content-Encoding"
        )
    if request.scope["query_string"]:
        refuse_unknown_parameters(request)


@get("/", include_in_schema=False)
async def home(request: Request[Any, Any, Any]) -> Redirect:
    """Lead to the page, or to the documentation where no plugin brings one (`state.home`)."""
    return Redirect(request.app.state.get("home", openapi.PATH))


@post(
    "/predict",
    status_code=200,
    operation_class=TakesKick,
    responses=refusals(500, 503),
    tags=["predictions"],
    guards=[requires(Scope.PREDICT)],
)
async def predict(body: RawBody, predictor: ThePredictor) -> Prediction:
    """Predict one kick: the probability that it succeeds."""
    # The plugin `lane` answers most requests ahead of the router, by the same `predict_json`.
    outcome = await predictor.predict_json(body)
    if isinstance(outcome, KickserveError):
        raise outcome
    return outcome


@post(
    "/predict/batch",
    status_code=200,
    operation_class=TakesKicks,
    responses={
        200: answers(list[Prediction], "The predictions, in the order of the kicks."),
        **refusals(500, 503),
    },
    tags=["predictions"],
    guards=[requires(Scope.PREDICT)],
    request_max_body_size=None,  # `stream_body` has a limit of its own
)
async def predict_batch(
    request: Request[Any, Any, Any], predictor: ThePredictor
) -> Response[bytes] | Streamed:
    """Predict up to 100,000 kicks; the answers come in the order of the kicks, or all are refused.

    With `application/x-ndjson` as `Content-Type` and in `Accept`, any number of kicks is answered as they
    come, each with a prediction or a problem document on a line of its own: read while you send.
    """
    lines, wanted = sends_lines(request), wanted_lines(request)
    if lines and wanted:
        return Streamed(answer_lines(request, predictor), media_type=wanted)
    if lines is None:  # its beginning has to say so
        whole = await read_body(request)
        lines, body = is_lines(whole), _once(whole)
    else:
        body = stream_body(request)
    charge = partial(app_of(request).authenticator.charge, request.scope)
    answers = await predictor.answer_batch(read_kicks_in_turns(body, lines=lines), charge)
    encoded = _encode_in_turns(answers, lines=wanted is not None)
    media_type = wanted or MediaType.JSON
    if len(answers) == 1:  # with its length, which clients of HTTP/1.0 want
        return Response(b"".join([each async for each in encoded]), media_type=media_type)
    return Streamed(encoded, media_type=media_type)


@get(
    "/predictions",
    operation_class=ListsRecords,
    responses={200: answers(list[Record], "Newest first."), **refusals(503)},
    tags=["predictions"],
    guards=[requires(Scope.READ)],
)
async def list_predictions(  # noqa: PLR0913, PLR0917 - the query
    request: Request[Any, Any, Any],
    recorder: TheRecorder,
    limit: Limit = PAGE_DEFAULT,
    before: Before = None,
    since: Since = None,
    until: Until = None,
    kicker: OfKicker = None,
) -> Response[list[Record]] | Stream:
    """List predictions, newest first.

    The header `Link` leads to the next page. With `Accept: application/x-ndjson` all of it is streamed,
    oldest first, one record a line.
    """
    begin, end, cursor = parse_instant("since", since), parse_instant("until", until), parse_cursor(before)
    label = parse_kicker(kicker)
    await recorder.flush()
    if wanted := wanted_lines(request):
        found = recorder.store.stream(since=begin, until=end, kicker=label)
        return Stream(_lines_of(found), media_type=wanted)
    records = await recorder.store.page(limit + 1, before=cursor, since=begin, until=end, kicker=label)
    headers = {}
    if len(records) > limit:
        records.pop()
        query = format_query(limit=limit, before=records[-1].id, since=begin, until=end, kicker=label)
        headers["Link"] = f'<{request.scope["path"]}?{query}>; rel="next"'
    return Response(records, headers=headers)


@get(
    "/predictions/{record_id:str}",
    responses=refusals(503),
    tags=["predictions"],
    guards=[requires(Scope.READ)],
)
async def get_prediction(record_id: FromPath[str], recorder: TheRecorder) -> Record:
    """Return one stored prediction."""
    return await recorder.find(parse_id(record_id))


@delete(
    "/predictions/{record_id:str}",
    responses=refusals(503),
    tags=["predictions"],
    guards=[requires(Scope.ADMIN)],
)
async def delete_prediction(record_id: FromPath[str], recorder: TheRecorder) -> None:
    """Remove one prediction for good."""
    await recorder.delete(parse_id(record_id))


@put(
    "/predictions/{record_id:str}/outcome",
    status_code=204,
    operation_class=TakesOutcome,
    responses=refusals(503),
    tags=["outcomes"],
    guards=[requires(Scope.PREDICT)],
)
async def put_outcome(record_id: FromPath[str], body: RawBody, recorder: TheRecorder) -> None:
    """Record the outcome of a kick; a later one replaces it."""
    await recorder.set_outcome(parse_id(record_id), success=bool(read_outcome(body).success))


@delete(
    "/predictions/{record_id:str}/outcome",
    responses=refusals(503),
    tags=["outcomes"],
    guards=[requires(Scope.PREDICT)],
)
async def delete_outcome(record_id: FromPath[str], recorder: TheRecorder) -> None:
    """Take the outcome of a kick back, as if it had never been set."""
    await recorder.set_outcome(parse_id(record_id), success=None)


@put(
    "/predictions/outcomes",
    operation_class=TakesOutcomes,
    responses=refusals(503),
    tags=["outcomes"],
    guards=[requires(Scope.PREDICT)],
)
async def put_outcomes(body: RawBody, recorder: TheRecorder) -> OutcomesKept:
    """Record the outcomes of many kicks; the answer lists unknown ids."""
    return await recorder.set_outcomes(read_outcomes(body))


@get("/model", tags=["service"], guards=[requires(Scope.READ)])
async def model(predictor: ThePredictor) -> ModelCard:
    """Return the card of the current model: name, revision, provenance and metrics."""
    return predictor.model.card


@post(
    "/model/reload",
    status_code=200,
    responses=refusals(409),
    tags=["service"],
    guards=[requires(Scope.ADMIN)],
)
async def reload_model(request: Request[Any, Any, Any]) -> ModelCard:
    """Load the model of the settings again, and serve it from the next request on.

    A model that can't be used is refused with the reason (409), and the current one stays. Other workers
    follow at once.
    """
    card = await reload(app_of(request))
    if "reloaded" in request.app.state:
        request.app.state.reloaded()
    return card


@get("/health", operation_class=Open, tags=["service"])
async def health(request: Request[Any, Any, Any]) -> Health:
    """Return the health of the service in one word, for a person, and the state of each part."""
    app = app_of(request)
    parts = {**app.parts(), "model": app.predictor.current.state, "store": await app.recorder.store_state()}
    for plugin in plugins_of(app):
        parts = {**_health_of(plugin), **parts}
    healthy = all(state == "ok" for state in parts.values())
    return Health(status="ok" if healthy else "degraded", version=__version__, parts=parts)


def _health_of(plugin: Plugin) -> Mapping[str, str]:
    try:
        return plugin.health()
    except Exception as error:  # noqa: BLE001  a plugin may be anyone's code
        return {type(plugin).__name__: f"its health failed: {type(error).__name__}: {error}"}


@get("/health/live", operation_class=Open, tags=["service"])
async def live() -> Health:
    """Answer 200 while the process lives: where this fails, restart it."""
    return Health(status="live", version=__version__)


@get(
    "/health/ready",
    operation_class=Open,
    responses={503: answers(Health, "Not ready; `parts` names the part and the reason.")},
    tags=["service"],
)
async def ready(request: Request[Any, Any, Any]) -> Response[Health]:
    """Answer 200 where the service takes predictions, else 503 with the part that is not ready."""
    parts = app_of(request).parts()
    is_ready = all(state == "ok" for state in parts.values())
    health = Health(status="ready" if is_ready else "not ready", version=__version__, parts=parts)
    return Response(health, status_code=200 if is_ready else 503)


ROUTES: Final = [
    predict,
    predict_batch,
    list_predictions,
    get_prediction,
    delete_prediction,
    put_outcome,
    delete_outcome,
    put_outcomes,
    model,
    reload_model,
    health,
    live,
    ready,
]


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _encode_in_turns(answers: Iterable[Answers], *, lines: bool) -> AsyncIterator[bytes]:
    """Encode NDJSON, or a JSON array, with turns of the event loop for others in between."""
    before, rest = b"" if lines else b"[", b""
    for some in answers:
        if rest:
            yield rest
            await asyncio.sleep(0)
        rest = before + some.encode(lines=lines)
        before = b""
    yield rest if lines else rest[:-1] + b"]"


async def _lines_of(groups: AsyncIterator[list[Record]]) -> AsyncIterator[bytes]:
    async for records in groups:
        yield _encoder.encode_lines(records)
        await yield_to_loop()
