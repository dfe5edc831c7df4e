"""What routes take: dependencies, parameters of paths and queries, and bodies of any length."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlencode

from litestar.di import NamedDependency
from litestar.params import QueryParameter

from kickserve import kinds
from kickserve.errors import BodyTooLarge, InvalidInput, RecordNotFound
from kickserve.ids import canonical
from kickserve.middleware import app_of
from kickserve.openapi import NDJSON
from kickserve.predictor import Predictor
from kickserve.recorder import Recorder
from kickserve.schemas import FieldError, kicker_of
from kickserve.validation import kicker_fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from litestar import Request

ThePredictor = NamedDependency[Predictor]
TheRecorder = NamedDependency[Recorder]

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 10_000

JSON: Final = "application/json"
LINES: Final = (
    NDJSON,
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/json-lines",
    "text/x-ndjson",
    "text/ndjson",
    "text/jsonl",
)
"""Names of NDJSON: none is registered."""

_OBJECT: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_INSTANT: Final = "a date, with or without a time, or an age such as 7d; UTC unless it says otherwise."
_INSTANTS: Final = {
    "anyOf": [{"format": "date-time"}, {"format": "date"}, {"pattern": "^[1-9][0-9]{0,4}[wdhm]$"}]
}
_VERSION_7: Final = {
    "pattern": "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$"
}

Limit = Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="Largest number of records.")]
Before = Annotated[
    str | None,
    QueryParameter(description="Only records older than the record with this id.", schema_extra=_VERSION_7),
]
Since = Annotated[
    str | None,
    QueryParameter(
        description=f"Only records made at this instant or later: {_INSTANT}", schema_extra=_INSTANTS
    ),
]
Until = Annotated[
    str | None,
    QueryParameter(description=f"Only records made before this instant: {_INSTANT}", schema_extra=_INSTANTS),
]

OfKicker = Annotated[str | None, QueryParameter(description="Only records with this label of the kicker.")]


def refuse_unknown_parameters(request: Request[Any, Any, Any]) -> None:
    """Refuse parameters of a query that a call does not know, where it knows any.

    Raises:
        InvalidInput: there is one.
    """
    parameters = request.route_handler.parsed_fn_signature.parameters.items()
    found = ((name, each.kwarg_definition) for name, each in parameters)
    known = [each.name or name for name, each in found if isinstance(each, QueryParameter)]
    for name in request.query_params if known else ():
        if name not in known:
            raise _invalid(name[:60], f"is no parameter of this call: it takes {', '.join(known)}", "")


def parse_id(text: str) -> str:
    """Return the id of a record in its stored spelling.

    Raises:
        RecordNotFound: the text is no id.
    """
    found = canonical(text)
    if found is None:
        raise RecordNotFound(f"'{text[:60]}' is not the id of a prediction")
    return found


def parse_cursor(text: str | None) -> str | None:
    """Return the id in the parameter `before`; None without one.

    Raises:
        InvalidInput: the text is no id.
    """
    found = None if text is None else canonical(text)
    if text is not None and found is None:
        raise _invalid("before", "must be the id of a prediction", text)
    return found


def parse_kicker(text: str | None) -> str | None:
    """Return the label in the parameter `kicker` as it is stored; None without one.

    Raises:
        InvalidInput: the text is no label.
    """
    if fault := kicker_fault(text):
        raise _invalid("kicker", fault, text or "")
    return kicker_of(text)


def parse_instant(name: str, text: str | None) -> datetime | None:
    """Return the instant in a parameter (`kinds.instant`), in UTC; None without one.

    Raises:
        InvalidInput: the text is no instant.
    """
    if text is None:
        return None
    try:
        return kinds.instant(text)
    except ValueError as error:
        raise _invalid(name, str(error), text) from None


def format_query(**values: int | str | datetime | None) -> str:
    """Return a query string, without the parameters that are None."""
    texts = {
        name: value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in values.items()
        if value is not None
    }
    return urlencode(texts)


async def read_body(request: Request[Any, Any, Any]) -> bytes:
    """Read the body of many kicks, on a route without a limit of its own.

    Raises:
        BodyTooLarge: it is larger than `KICKSERVE_BATCH_BODY_MAX`.
    """
    return b"".join([chunk async for chunk in stream_body(request)])


async def stream_body(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    """Yield the body of many kicks as it comes; raises as `read_body`."""
    limit, size = app_of(request).settings.batch_body_max, 0
    too_large = BodyTooLarge("KICKSERVE_BATCH_BODY_MAX")
    if (request.content_length or 0) > limit:
        raise too_large
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        yield chunk


def sends_lines(request: Request[Any, Any, Any]) -> bool | None:
    """Return whether `Content-Type` says that a body is NDJSON; None where it says neither that nor JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return True if kind in LINES else False if kind == JSON else None


def is_lines(body: bytes) -> bool:
    """Return whether a body is NDJSON by its content: it begins with an object. curl sends it as a form."""
    return _OBJECT.match(body) is not None


def wanted_lines(request: Request[Any, Any, Any]) -> str | None:
    """Return the name of NDJSON that a client prefers to JSON, or None."""
    return preferred(request, LINES)


def preferred(request: Request[Any, Any, Any], kinds: Sequence[str]) -> str | None:
    """Return the media type of some that a client prefers to JSON by `Accept` (RFC 9110, 12.5.1), or None."""
    ranges = list(map(_media_range, ",".join(request.headers.getall("accept", [])).lower().split(",")))

    def rank(kind: str) -> tuple[float, int, int]:
        main = kind.partition("/")[0]
        matching = [
            (specificity, quality, -at)
            for at, (name, quality) in enumerate(ranges)
            for specificity, pattern in enumerate(("*/*", f"{main}/*", kind))
            if name == pattern
        ]
        specificity, quality, at = max(matching, default=(0, 0.0, 0))
        return quality, specificity, at

    best = max(kinds, key=rank)
    return best if rank(best)[0] > 0 and rank(best) > rank(JSON) else None


def _media_range(text: str) -> tuple[str, float]:
    name, *parameters = (each.strip() for each in text.split(";"))
    quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
    try:
        return name, float(quality)
    except ValueError:
        return name, 0.0


def _invalid(name: str, detail: str, text: str) -> InvalidInput:
    return InvalidInput(f"{name} {detail}", [FieldError(field=name, detail=detail, value=text[:60])])
