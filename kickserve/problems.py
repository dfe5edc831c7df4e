"""Turns every error into one shape: a problem document (RFC 9457)."""

from __future__ import annotations

import logging
import math
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from kickserve.errors import BodyTooLarge, EncodedBody, Forbidden, InvalidInput, KickserveError, Unauthorized
from kickserve.schemas import FieldError, Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from litestar import Request

MEDIA_TYPE: Final = "application/problem+json"
# Of the two ways to send a key the one that has a name in the register of schemes (RFC 6750).
_CHALLENGE: Final = 'Bearer realm="kickserve"'
_LONGEST: Final = 240  # characters of a message
_NOT_FOUND: Final = "no resource has this path: /docs lists all calls"
# By the plugin that brings them, paths that documents name; a service may be without the plugin.
_BROUGHT: Final = {
    "metrics": "/metrics",
    "oip": "/v2",
    "profiling": "/api/v1/profile",
    "ui": "/ui",
}
_EXPECTED: Final = re.compile("Expected `(int|float|bool)`(?: (>=|<=|>|<) ([0-9.]+))?")
_KINDS: Final = {"int": "a whole number", "float": "a number", "bool": "true or false"}

_log = logging.getLogger(__name__)
_EVERY: Final = 1.0  # seconds between two lines of one kind of refusal
_logged: dict[str, float] = {}  # when the last one was logged, by title
_encode = msgspec.json.Encoder().encode


def allow(methods: Collection[str]) -> str:
    """Return the header `Allow` of a path with handlers for some methods: GET also answers HEAD."""
    return ", ".join(sorted({*methods, *(("HEAD",) if "GET" in methods else ())}))


def problem_of(scope: Mapping[str, Any], error: KickserveError) -> Problem:
    """Return the problem document of an error of kickserve."""
    return _problem(scope, error.status, error.title, str(error), error.errors)


def from_kickserve(request: Request[Any, Any, Any], error: KickserveError) -> Response[bytes]:
    """Answer an error of kickserve."""
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log_seldom(error)
    elif error.status == HTTPStatus.UNAUTHORIZED:
        _log_seldom(error, f", from {request.client.host}" if request.client else "")
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = _CHALLENGE
    elif isinstance(error, Forbidden) and error.scope:
        headers["WWW-Authenticate"] = f'{_CHALLENGE}, error="insufficient_scope", scope="{error.scope}"'
    elif isinstance(error, EncodedBody):
        headers["Accept-Encoding"] = "identity"
    return _response(problem_of(request.scope, error), headers)


def _log_seldom(error: KickserveError, who: str = "") -> None:
    """Log an error, once a second for each kind: under load a store that is away refuses thousands."""
    now = time.monotonic()
    if now - _logged.get(error.title, -math.inf) >= _EVERY:
        _logged[error.title] = now
        _log.warning("%s%s: %s", error.title, who, error)


def from_litestar(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer an error of the framework: no such path, a body that is too large, ..."""
    if isinstance(error, ValidationException) and error.extra:
        return from_kickserve(request, _unfitting(error))
    if isinstance(error, RequestEntityTooLarge):
        return from_kickserve(request, BodyTooLarge("KICKSERVE_BODY_MAX"))
    detail = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = _missing_plugin(request) or _NOT_FOUND
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and error.headers:
        methods = allow(error.headers["allow"].split(", "))
        detail, error.headers = f"this path takes other methods: {methods}", {"Allow": methods}
    problem = _problem(request.scope, error.status_code, HTTPStatus(error.status_code).phrase, detail)
    return _response(problem, error.headers or {})


def from_bug(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer a bug with 500: the log has the traceback, under the id that the client gets."""
    _log.error("request %s failed", request_id(request.scope), exc_info=error)
    detail = "an internal error occurred; the service's log has details under this request_id"
    return _response(_problem(request.scope, 500, KickserveError.title, detail), {})


def refused_early(status: int, detail: str, request_id: bytes) -> bytes:
    """Return the body of the answer to a request that is refused before it is whole."""
    scope = {"path": "", "state": {"request_id": request_id}}
    return _encode(_problem(scope, status, HTTPStatus(status).phrase, detail))


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer any error."""
    handler = next(HANDLERS[kind] for kind in type(error).__mro__ if kind in HANDLERS)
    response: Response[bytes] = handler(request, error)
    return response


HANDLERS: Final[dict[int | type[Exception], Any]] = {
    KickserveError: from_kickserve,
    HTTPException: from_litestar,
    Exception: from_bug,
}


def request_id(scope: Mapping[str, Any]) -> str:
    """Return the id that this request carries in the log and in its answer."""
    sent: bytes = scope["state"]["request_id"]
    return sent.decode()


def _missing_plugin(request: Request[Any, Any, Any]) -> str:
    """Say which plugin would answer a path, where the service is without it; empty where none would."""
    app: Any = request.app
    path = f"{request.scope['path']}/"
    for name, brought in _BROUGHT.items():
        if path.startswith(f"{brought}/") and not any(each.path.startswith(brought) for each in app.routes):
            way = (
                f"install it with pip install 'kickserve[{name}]'"
                if app.settings.plugins is None
                else "add it to KICKSERVE_PLUGINS"
            )
            return f"the plugin {name} answers at {brought}, and this service is without it: {way}"
    return ""


def _problem(
    scope: Mapping[str, Any], status: int, title: str, detail: str, errors: Sequence[FieldError] = ()
) -> Problem:
    return Problem(
        type="urn:problem:kickserve:" + title.lower().replace(" ", "-"),
        title=title,
        status=status,
        detail=detail,
        instance=scope["path"],
        request_id=request_id(scope),
        errors=list(errors),
    )


def _response(problem: Problem, headers: Mapping[str, str]) -> Response[bytes]:
    body = _encode(problem)
    return Response(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=dict(headers))


def _unfitting(error: ValidationException) -> InvalidInput:
    extra: Any = error.extra
    faults = [
        FieldError(field=str(each.get("key", "query")), detail=_in_words(each.get("message", "it is wrong")))
        for each in extra
    ]
    first = faults[0]
    return InvalidInput(f"{first.field} {first.detail}"[:_LONGEST], faults)


def _in_words(message: str) -> str:
    """Say what msgspec expects of a parameter as a sentence about it."""
    found = _EXPECTED.match(message)
    if found is None:
        return f"can't be used: {message}"
    kind, bound, limit = found.groups()
    side = {
        None: "",
        ">=": f" of {limit} or more",
        "<=": f" of {limit} or less",
        ">": f" above {limit}",
        "<": f" below {limit}",
    }[bound]
    return f"must be {_KINDS[kind]}{side}"
