"""The calls of `/api/v1`: what each takes, and what it answers."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlencode

import msgspec
from litestar import MediaType, Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter, RawBody
from litestar.response import Stream

from kickserve import __version__
from kickserve.batching import yield_to_loop
from kickserve.errors import (
    BodyTooLarge,
    EncodedBody,
    Forbidden,
    InvalidInput,
    KickserveError,
    RecordNotFound,
)
from kickserve.ids import canonical, in_utc
from kickserve.keys import Scope
from kickserve.ndjson import Lines, answer_lines
from kickserve.openapi import (
    NDJSON,
    ListsRecords,
    Open,
    TakesKick,
    TakesKicks,
    TakesOutcome,
    TakesOutcomes,
    answers,
    refusals,
)
from kickserve.schemas import FieldError, Health, ModelCard, OutcomesKept, Prediction, Record
from kickserve.security_headers import SAFE
from kickserve.service import Service
from kickserve.validation import read_kicks_in_turns, read_outcome, read_outcomes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler

    from kickserve.settings import Settings

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 10_000

_INSTANT: Final = {"format": "date-time"}
_VERSION_7: Final = {
    "pattern": "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$"
}

TheService = NamedDependency[Service]
Limit = Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="How many records at most.")]
Before = Annotated[
    str | None,
    QueryParameter(description="Only records older than the one with this id.", schema_extra=_VERSION_7),
]
Since = Annotated[
    str | None,
    QueryParameter(description="Only records made at this instant or later.", schema_extra=_INSTANT),
]
Until = Annotated[
    str | None, QueryParameter(description="Only records made before this instant.", schema_extra=_INSTANT)
]

_TOGETHER: Final = 2_000  # answers that are encoded before others get their turn on the event loop: 1 ms
_encoder: Final = msgspec.json.Encoder()
_UNAVAILABLE: Final = 503
_IN_ORDER: Final = "The answers, in the order of the kicks."


def guards_of(settings: Settings, scope: Scope = Scope.ADMIN) -> list[Any]:
    """Return what guards the calls of a service.

    Args:
        settings: whether there are keys.
        scope: what a key must be good for where a call itself does not say so (`needs`).
    """

    # A coroutine: what is no coroutine the framework calls in a thread, out of the request's context.
    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        connection.app.state.gate.check(connection.scope, handler.opt.get("scope", scope))

    return [guard] if settings.guarded else [_no_foreign_page, guard]


def needs(scope: Scope) -> dict[str, Any]:
    """Return the option of a route that says what a key must be good for (see `access.keys.MEANINGS`)."""
    return {"scope": scope}


async def _no_foreign_page(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Let no page of another origin change anything: where no key is asked for, a browser needs none."""
    scope: Any = connection.scope
    if scope["method"] not in SAFE and not connection.app.state.shield.is_ours(dict(scope["headers"])):
        raise Forbidden(
            "a page of another origin asks: name its origin in KICKSERVE_CORS_ORIGINS to allow it"
        )


async def refuse_encoded(request: Request[Any, Any, Any]) -> None:
    """Refuse a compressed body before any of it is read."""
    # Async, as guards are, though nothing is awaited: for a plain function the framework takes a thread.
    encodings = request.headers.getall("content-encoding", [])
    encoding = ", ".join(encodings).strip().lower()
    if encodings and encoding != "identity":
        raise EncodedBody(
            f"the body is encoded ({encoding[:20]}): send it as it is, without Content-Encoding"
        )


@post(
    "/predict",
    status_code=200,
    operation_class=TakesKick,
    responses=refusals(500, 503),
    tags=["predictions"],
    opt=needs(Scope.PREDICT),
)
async def predict(body: RawBody, service: TheService) -> Prediction:
    """Predict one kick: the probability that it succeeds."""
    outcome = await service.ask(body)
    if isinstance(outcome, KickserveError):
        raise outcome
    return outcome


@post(
    "/predict/batch",
    status_code=200,
    operation_class=TakesKicks,
    responses={200: answers(list[Prediction], _IN_ORDER), **refusals(500, 503)},
    tags=["predictions"],
    opt=needs(Scope.PREDICT),
)
async def predict_batch(request: Request[Any, Any, Any], service: TheService) -> Response[bytes] | Lines:
    """Predict up to 100,000 kicks; the answers come in the order of the kicks, or all are refused.

    With `application/x-ndjson` as `Content-Type` and in `Accept`, any number of kicks is answered as they
    come, each with a prediction or a problem document on a line of its own: read while you send.
    """
    lines = _is_ndjson(request.headers.get("content-type", ""))
    if lines and NDJSON in request.headers.get("accept", ""):
        return Lines(answer_lines(request, service))
    body = await whole_body(request)
    with service.counting_refusals():
        kicks = await read_kicks_in_turns(body, lines=lines)
    request.app.state.gate.charge(request.scope, len(kicks))
    answered = await service.predictor.predict_batch(kicks)
    return Response(await _encode_in_turns(answered), media_type=MediaType.JSON)


async def _encode_in_turns(answered: Sequence[Prediction]) -> bytes:
    """Encode a JSON array, with turns for others in between."""
    parts: list[bytes] = []
    for start in range(0, len(answered), _TOGETHER):
        parts += b",", _encoder.encode(answered[start : start + _TOGETHER])[1:-1]
        await asyncio.sleep(0)
    return b"".join((b"[", *parts[1:], b"]"))


def _is_ndjson(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == NDJSON


async def whole_body(request: Request[Any, Any, Any]) -> bytes:
    """Read the body of many kicks, of a route that has no limit itself.

    Raises:
        BodyTooLarge: it is larger than `KICKSERVE_BATCH_BODY_MAX`.
    """
    limit = request.app.state.settings.batch_body_max
    too_large = BodyTooLarge("KICKSERVE_BATCH_BODY_MAX")
    if (request.content_length or 0) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


@get(
    "/predictions",
    operation_class=ListsRecords,
    responses={200: answers(list[Record], "Newest first."), **refusals(503)},
    tags=["predictions"],
    opt=needs(Scope.READ),
)
async def list_predictions(
    request: Request[Any, Any, Any],
    service: TheService,
    limit: Limit = PAGE_DEFAULT,
    before: Before = None,
    since: Since = None,
    until: Until = None,
) -> Response[list[Record]] | Stream:
    """List what was predicted, newest first.

    The header `Link` leads to the next page. With `Accept: application/x-ndjson` all of it is streamed,
    oldest first, one record a line.
    """
    begin, end, cursor = instant("since", since), instant("until", until), _cursor(before)
    await service.recorder.flush()
    if NDJSON in request.headers.get("accept", ""):
        return Stream(_lines(service, begin, end), media_type=NDJSON)
    records = await service.store.page(limit + 1, before=cursor, since=begin, until=end)
    headers = {}
    if len(records) > limit:
        records.pop()
        query = {"limit": limit, "before": records[-1].id, "since": begin, "until": end}
        headers["Link"] = f'<{request.url.path}?{_query(query)}>; rel="next"'
    return Response(records, headers=headers)


@get("/predictions/{record_id:str}", responses=refusals(503), tags=["predictions"], opt=needs(Scope.READ))
async def get_prediction(record_id: FromPath[str], service: TheService) -> Record:
    """Return one prediction as it is kept."""
    return await service.recorder.find(_id(record_id))


@delete("/predictions/{record_id:str}", responses=refusals(503), tags=["predictions"], opt=needs(Scope.ADMIN))
async def delete_prediction(record_id: FromPath[str], service: TheService) -> None:
    """Remove one prediction for good."""
    await service.recorder.delete(_id(record_id))


@put(
    "/predictions/{record_id:str}/outcome",
    status_code=204,
    operation_class=TakesOutcome,
    responses=refusals(503),
    tags=["outcomes"],
    opt=needs(Scope.PREDICT),
)
async def put_outcome(record_id: FromPath[str], body: RawBody, service: TheService) -> None:
    """Tell what came of a kick. Told again, the newer word holds."""
    await service.recorder.set_outcome(_id(record_id), success=read_outcome(body).success)


@put(
    "/predictions/outcomes",
    operation_class=TakesOutcomes,
    responses=refusals(503),
    tags=["outcomes"],
    opt=needs(Scope.PREDICT),
)
async def put_outcomes(body: RawBody, service: TheService) -> OutcomesKept:
    """Tell what came of many kicks; says which ids are unknown."""
    return await service.recorder.set_outcomes(read_outcomes(body))


@get("/model", tags=["service"], opt=needs(Scope.READ))
async def model(service: TheService) -> ModelCard:
    """Say what model is loaded, what it was trained on, and how well it does."""
    return service.predictor.model.card


@post("/model/reload", status_code=200, responses=refusals(409), tags=["service"], opt=needs(Scope.ADMIN))
async def reload_model(request: Request[Any, Any, Any], service: TheService) -> ModelCard:
    """Load the model anew, from where the settings say, and serve it from the next request on.

    Where it can't be used, the answer says why (409), and the one before stays. Of several workers, the
    others follow at once.
    """
    card = await service.reload()
    request.app.state.get("reloaded", _nobody_to_tell)()
    return card


def _nobody_to_tell() -> None:
    pass


@get("/health", operation_class=Open, tags=["service"])
async def health(service: TheService) -> Health:
    """Say in one word how the service is, for a person; `parts` says of what."""
    return await service.health()


@get("/health/live", operation_class=Open, tags=["service"])
async def live() -> Health:
    """Answer as long as the process can: where this fails, restart it."""
    return Health(status="live", version=__version__)


@get(
    "/health/ready",
    operation_class=Open,
    responses={503: answers(Health, "Not ready; `parts` says which part is not.")},
    tags=["service"],
)
async def ready(service: TheService) -> Response[Health]:
    """Say whether to send requests here: 200, or 503 with the part that is not ready."""
    readiness = service.readiness()
    return Response(readiness, status_code=200 if readiness.status == "ready" else _UNAVAILABLE)


async def _lines(service: Service, since: datetime | None, until: datetime | None) -> AsyncIterator[bytes]:
    async for records in service.store.stream(since=since, until=until):
        yield _encoder.encode_lines(records)
        await yield_to_loop()


def _id(text: str) -> str:
    found = canonical(text)
    if found is None:
        raise RecordNotFound(f"'{text[:60]}' is no id of a prediction")
    return found


def _cursor(text: str | None) -> str | None:
    """Read the parameter `before`."""
    found = None if text is None else canonical(text)
    if text is not None and found is None:
        raise _unfit("before", "must be the id of a prediction", text)
    return found


def _unfit(name: str, detail: str, text: str) -> InvalidInput:
    return InvalidInput(f"{name} {detail}", [FieldError(field=name, detail=detail, value=text[:60])])


def instant(name: str, text: str | None) -> datetime | None:
    """Read a parameter that is an instant: strictly, or a number would be one too."""
    if text is None:
        return None
    try:
        return in_utc(msgspec.convert(text, datetime))
    except msgspec.ValidationError:
        raise _unfit(name, "must be an instant such as 2026-11-25T10:00:00Z", text) from None


def _query(values: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return value.isoformat() if isinstance(value, datetime) else str(value)

    return urlencode({name: text(value) for name, value in values.items() if value is not None})
