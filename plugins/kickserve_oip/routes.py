"""The calls of `/v2`: what the server is, what model it serves, and inference."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from litestar import Request, Response, Router, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath  # noqa: TC002  the framework reads the annotations when run

from kickserve.features import FEATURES, named
from kickserve.openapi import EXAMPLE, Open, takes
from kickserve.plugins import (
    KickserveError,
    Scope,
    ThePredictor,
    __version__,
    app_of,
    problems,
    read_body,
    requires,
)
from kickserve.schemas import Kick
from kickserve_oip.inputs import LENGTH_HEADER, Kicks, read
from kickserve_oip.messages import (
    PREFIX,
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
    ModelNotServed,
    ModelReady,
    ProblemWithError,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)
from kickserve_oip.outputs import OUTPUTS, columns_of, columns_of_batches, outputs_of, respond, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from kickserve.plugins import Model, Predictor, ServedModel
    from kickserve.schemas import ModelCard
    from kickserve_oip.outputs import Columns

P = ParamSpec("P")
T = TypeVar("T")

ALIAS: Final = "kickserve"
EXTENSIONS: Final = ["binary_tensor_data"]
_SMALL: Final = 100_000  # bytes of a request that take no longer to read than a thread takes to begin
_TAGS: Final = ["open inference protocol"]
_STATUS: Final = {True: 200, False: 503}
_ERROR: Final = ResponseSpec(ProblemWithError, generate_examples=False, media_type=problems.MEDIA_TYPE)
_EXAMPLE: Final[dict[str, Any]] = {
    "id": "1",
    "inputs": [
        {
            "name": "kicks",
            "shape": [1, len(EXAMPLE)],
            "datatype": "FP64",
            "data": [[float(value) for value in EXAMPLE.values()]],
        }
    ],
    "outputs": [{"name": "prediction"}, {"name": "id"}],
}
TakesInference: Final = takes(
    InferenceRequest,
    _EXAMPLE,
    **{"application/octet-stream": "The same JSON, followed by the values of tensors"},
)


def routers() -> list[Router]:
    """Make the routes: those of a model are behind the key, as in `/api/v1`; the others are open."""
    model = [
        *_of_model(get, "", model_metadata, guards=[requires(Scope.READ)]),
        *_of_model(get, "/ready", model_ready, guards=[requires(Scope.READ)]),
        *_of_model(
            post,
            "/infer",
            infer,
            status_code=200,
            operation_class=TakesInference,
            guards=[requires(Scope.PREDICT)],
        ),
    ]
    return [
        Router(PREFIX, route_handlers=[server_metadata, live, ready], tags=_TAGS),
        Router(
            f"{PREFIX}/models",
            route_handlers=model,
            tags=_TAGS,
            request_max_body_size=None,  # `read_body` has a limit of its own
        ),
    ]


def _of_model(method: Any, end: str, call: Any, **more: Any) -> list[Any]:
    """Register a call of a model, with and without a version.

    A model from the hub is called `owner/name`: with its slash not escaped, such a name has paths of its own,
    which the documentation need not show.
    """

    def paths(name: str) -> list[str]:
        return [f"/{name}{end}", f"/{name}/versions/{{version:str}}{end}"]

    return [
        method(paths("{name:str}"), responses={400: _ERROR, 404: _ERROR}, **more)(call),
        method(paths("{owner:str}/{name:str}"), include_in_schema=False, **more)(call),
    ]


@get("/", operation_class=Open)
async def server_metadata() -> ServerMetadata:
    """Say what this server is."""
    return ServerMetadata(name="kickserve", version=__version__, extensions=EXTENSIONS)


@get("/health/live", operation_class=Open)
async def live() -> ServerLive:
    """Answer as long as the process can."""
    return ServerLive(live=True)


@get("/health/ready", operation_class=Open)
async def ready(request: Request[Any, Any, Any]) -> Response[ServerReady]:
    """Say whether to send requests here: 200, or 503; `/api/v1/health/ready` says why."""
    is_ready = _is_ready(request)
    return Response(ServerReady(live=True, ready=is_ready), status_code=_STATUS[is_ready])


async def model_metadata(
    predictor: ThePredictor, name: FromPath[str], owner: FromPath[str] = "", version: FromPath[str] = ""
) -> ModelMetadata:
    """Say what a model takes and gives. The inputs, in their order, are the columns of a matrix, too."""
    card = _served(predictor.model, owner, name, version)
    return ModelMetadata(
        name=card.name,
        versions=[card.revision],
        platform="onnx_onnxv1" if card.kind == "onnx" else f"kickserve_{card.kind}",
        inputs=[
            TensorMetadata(name=each.name, datatype="BOOL" if each.kind == "flag" else "FP64", shape=[-1])
            for each in FEATURES
        ],
        outputs=[TensorMetadata(name=each, datatype=OUTPUTS[each], shape=[-1]) for each in outputs_of(card)],
    )


async def model_ready(
    request: Request[Any, Any, Any],
    predictor: ThePredictor,
    name: FromPath[str],
    owner: FromPath[str] = "",
    version: FromPath[str] = "",
) -> Response[ModelReady]:
    """Say whether a model can be asked: 200, or 503."""
    card, is_ready = _served(predictor.model, owner, name, version), _is_ready(request)
    return Response(ModelReady(name=card.name, ready=is_ready), status_code=_STATUS[is_ready])


async def infer(
    request: Request[Any, Any, Any],
    predictor: ThePredictor,
    name: FromPath[str],
    owner: FromPath[str] = "",
    version: FromPath[str] = "",
) -> Response[InferenceResponse]:
    """Predict up to 100,000 kicks, sent as eleven columns or as one matrix; all are answered or none.

    The columns have the features' names and the shape [n] or [n, 1]; the matrix has any other name and the
    shape [n, 11]. A tensor `kicker` of BYTES may name the kickers. Tensors may also be sent and asked for as
    Triton's extension `binary_tensor_data` has it.
    """
    body = await read_body(request)
    served = predictor.current  # held: it also answers where a reload changes the model meanwhile
    card = _served(served.model, owner, name, version)
    with predictor.counting_refusals():
        inference, kicks = await _aside(len(body), read, body, request.headers.get(LENGTH_HEADER))
        outputs = wanted(inference, card)
    app_of(request).authenticator.charge(request.scope, len(kicks.rows))
    columns = await _answer(predictor, served, kicks, {each.name for each in outputs})
    return await _aside(len(body), respond, inference, card, outputs, columns)


async def _aside(size: int, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call what takes the longer the larger a request is: in a thread, so that others get their turns."""
    return call(*arguments, **named) if size <= _SMALL else await asyncio.to_thread(call, *arguments, **named)


def _is_ready(request: Request[Any, Any, Any]) -> bool:
    return all(state == "ok" for state in app_of(request).parts().values())


async def _answer(predictor: Predictor, served: ServedModel, kicks: Kicks, names: Collection[str]) -> Columns:
    rows, kickers = kicks
    if len(rows) > 1:
        batches = await predictor.predict_matrix(rows, served, kickers)
        return await columns_of_batches(batches, served.model, names)
    # One goes to the model together with all others that have come in, from wherever.
    kick = Kick(**named(rows[0].tolist()), kicker=kickers[0] if kickers else None, source="api")
    outcome = await predictor.predict(kick, served)
    if isinstance(outcome, KickserveError):
        raise outcome
    return columns_of(outcome)


def _served(model: Model, owner: str, name: str, version: str) -> ModelCard:
    """Return the card of the model that is meant.

    Raises:
        ModelNotServed: it is not the one that is served.
    """
    card = model.card
    asked = f"{owner}/{name}" if owner else name.replace("%2F", "/")
    if asked not in {card.name, ALIAS}:
        what = f"no model {asked[:100]!r}"
    elif version not in {"", card.revision}:
        what = f"no version {version[:100]!r} of the model {asked!r}"
    else:
        return card
    raise ModelNotServed(
        f"{what} is served: the service has {card.name!r}, also called {ALIAS!r}, in version"
        f" {card.revision!r}"
    )
