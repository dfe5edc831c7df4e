"""The calls of the pages that work in the browser: maps and answers, which record nothing, and records."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np
from fastapi import Body, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import QueryParams

from kickserve.plugins import Forbidden, KickserveError, RecordNotFound, Scope, Unauthorized, canonical
from kickserve_scores.explain import explain
from kickserve_ui.app_page import NO_STORE
from kickserve_ui.backend import current_backend
from kickserve_ui.comparison import described
from kickserve_ui.heat_map import about, score
from kickserve_ui.layout import visitor_of
from kickserve_ui.page_state import read

if TYPE_CHECKING:
    from fastapi import FastAPI

    from kickserve.plugins import ServedModel
    from kickserve_ui.layout import Visitor
    from kickserve_ui.messages import Messages
    from kickserve_ui.page_state import PageState

_SMALLEST: Final = 0.5  # points of percent that get a bar
_EQUAL: Final = 1e-6  # log-odds
_NO_CONTENT: Final = 204


def add_calls(app: FastAPI) -> None:
    """Add the calls to the application of the pages."""
    app.get("/map", response_model=None)(_map)
    app.get("/maps", response_model=None)(_maps)
    app.get("/compare/map", response_model=None)(_compared_map)
    app.get("/compare/quality", response_model=None)(_compared_quality)
    app.get("/answer", response_model=None)(_answer)
    app.get("/status", response_model=None)(_status)
    app.post("/record", response_model=None)(_record)
    app.put("/record/{record_id}", response_model=None)(_set_outcome)
    app.delete("/record/{record_id}", response_model=None)(_delete)
    app.add_exception_handler(KickserveError, _refuse)


def rights_of(visitor: Visitor) -> dict[str, bool]:
    """Return what a visitor may do at present."""
    return {
        "record": visitor.may(Scope.PREDICT),
        "delete": visitor.may(Scope.ADMIN),
        "signed_in": visitor.signed_in,
    }


async def _map(request: Request) -> Response:
    backend = current_backend()
    state, learner = read(request.query_params), backend.app.predictor.learner
    found = await backend.maps.get(backend.served, state, learner)
    return Response(found, media_type="application/octet-stream", headers=NO_STORE)


async def _maps(request: Request) -> Response:
    """Return all maps of a match, for which the visitor's wind and rain count."""
    backend = current_backend()
    learner = backend.app.predictor.learner
    found = await backend.maps.of_match(backend.served, read(request.query_params), learner)
    return Response(found, media_type="application/octet-stream", headers=NO_STORE)


async def _compared_map(request: Request, model: str = "") -> Response:
    """Return the map of another model, or of the current one with nothing learned in it."""
    visitor_who_may(request, Scope.READ)
    backend, state = current_backend(), read(request.query_params)
    served = await backend.others.get(model) if model else backend.served
    found = await backend.maps.get(served, state, None)
    return Response(found, media_type="application/octet-stream", headers=NO_STORE)


async def _compared_quality(request: Request, model: str) -> Response:
    """Compare the current model with another one by what came of kicks."""
    visitor, backend = visitor_who_may(request, Scope.READ), current_backend()
    cards = backend.served.model.card, (await backend.others.get(model)).model.card
    await backend.app.recorder.flush()
    found = await backend.others.compare(model)
    names = [each.name for each in cards]
    if names[0] == names[1]:
        names = [f"{each.name} {each.revision}" for each in cards]
    return JSONResponse(described(visitor.messages, names, found), headers=NO_STORE)


async def _answer(request: Request) -> Response:
    """Answer a kick and say why, without a record."""
    backend, state = current_backend(), read(request.query_params)
    served, messages = backend.served, visitor_of(request).messages
    scores = await score(
        served, state.row[np.newaxis, :], backend.app.predictor.learner, state.kicker or None
    )
    probability, low, high = scores[0].tolist()
    interval = None if math.isnan(low) else (low, high)
    warnings = served.model.warnings(state.row.tolist())
    more = {"reasons": await _reasons(served, state), "kick": _features(state)}
    return _answered(messages, probability, interval, warnings, **more)


def _features(state: PageState) -> dict[str, Any]:
    """Return the kick as the API takes it; its kicker only where it has one."""
    kick = msgspec.to_builtins(state.kick)
    return {name: value for name, value in kick.items() if name != "source" and value is not None}


async def _reasons(served: ServedModel, state: PageState) -> dict[str, Any] | None:
    """Divide the difference to the average kick among the features, in points of percent."""
    try:
        found = await explain(served, state.row.tolist())
    except KickserveError:
        return None
    probability, average = found.prediction, found.average_prediction
    odds = found.log_odds - found.average_log_odds
    # Points of percent for a unit of log-odds, between the two kicks; where they are equal, at their place.
    slope = 100 * ((probability - average) / odds if abs(odds) > _EQUAL else probability * (1 - probability))
    points = [(each, slope * each.share) for each in found.shares]
    shares = [
        {"feature": each.feature, "points": value, "assumed": each.assumed}
        for each, value in points
        if abs(value) >= _SMALLEST
    ]
    return {"average": average, "mean": found.mean_prediction, "shares": shares}


def _answered(
    messages: Messages,
    probability: float,
    interval: tuple[float, float] | None,
    warnings: Any,
    **more: Any,
) -> Response:
    found = {
        "probability": probability,
        "interval": interval,
        "warned": bool(warnings),
        "warnings": [*map(messages.warning, warnings)],
    }
    return JSONResponse({**found, **more}, headers=NO_STORE)


async def _status(request: Request) -> Response:
    """Say what model is served, and what the visitor may do: an open page asks every few seconds."""
    model = about(current_backend().served.model.card)
    return JSONResponse({"rights": rights_of(visitor_of(request)), **model}, headers=NO_STORE)


async def _record(
    request: Request,
    query: Annotated[str, Body()],
    record_id: Annotated[str | None, Body(alias="id")] = None,
    success: Annotated[bool | None, Body(strict=True)] = None,
) -> Response:
    """Have a kick predicted and recorded, as one that came over the API.

    Args:
        request: the visitor's.
        query: of the kick's link.
        record_id: that the visitor's browser made: sent again, the kick still has a single record.
        success: the outcome; None where it is not known.
    """
    visitor = visitor_who_may(request, Scope.PREDICT)
    app, state = current_backend().app, read(QueryParams(query))
    if record_id is not None:
        found = await app.predictor.predict_once(state.kick, record_id)
    elif isinstance(outcome := await app.predictor.predict(state.kick), KickserveError):
        raise outcome
    else:
        found = outcome
    if success is not None:
        await app.recorder.set_outcome(found.id, success=success)
    more = {"id": found.id, "kick": _features(state)}
    return _answered(visitor.messages, found.prediction, found.interval, found.warnings, **more)


async def _set_outcome(
    request: Request, record_id: str, success: Annotated[bool | None, Body(embed=True, strict=True)]
) -> Response:
    """Set the outcome of a record; None takes it back."""
    visitor_who_may(request, Scope.PREDICT)
    await current_backend().app.recorder.set_outcome(_id(record_id), success=success)
    return Response(status_code=_NO_CONTENT)


async def _delete(request: Request, record_id: str) -> Response:
    visitor_who_may(request, Scope.ADMIN)
    await current_backend().app.recorder.delete(_id(record_id))
    return Response(status_code=_NO_CONTENT)


def visitor_who_may(request: Request, scope: Scope) -> Visitor:
    """Return the visitor.

    Raises:
        Unauthorized: the visitor is not signed in.
        Forbidden: the visitor's key has not this scope.
    """
    visitor = visitor_of(request)
    if not visitor.signed_in:
        raise Unauthorized(visitor.messages("not_stored_key"))
    if not visitor.may(scope):
        raise Forbidden(visitor.messages("not_allowed"))
    return visitor


def _id(text: str) -> str:
    if record_id := canonical(text):
        return record_id
    raise RecordNotFound(text)


async def _refuse(_: Request, error: Any) -> Response:
    headers = dict(NO_STORE)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return JSONResponse({"title": error.title, "detail": str(error)}, error.status, headers)
