"""What routes take: dependencies, parameters of paths and queries, and bodies of any length."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlencode

from litestar.di import NamedDependency
from litestar.params import QueryParameter

from kickserve import kinds
from kickserve.errors import BodyTooLarge, InvalidInput, RecordNotFound
from kickserve.ids import canonical
from kickserve.middleware import app_of
from kickserve.predictor import Predictor
from kickserve.recorder import Recorder
from kickserve.schemas import FieldError

if TYPE_CHECKING:
    from litestar import Request

ThePredictor = NamedDependency[Predictor]
TheRecorder = NamedDependency[Recorder]

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 10_000

_INSTANT: Final = "a date, with or without a time, or an age such as 7d; UTC unless it says otherwise."
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
    QueryParameter(description=f"Only records made at this instant or later: {_INSTANT}"),
]
Until = Annotated[
    str | None, QueryParameter(description=f"Only records made before this instant: {_INSTANT}")
]


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
    limit = app_of(request).settings.batch_body_max
    too_large = BodyTooLarge("KICKSERVE_BATCH_BODY_MAX")
    if (request.content_length or 0) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def media_type(header: str) -> str:
    """Return the media type in a header such as `Content-Type`, without its parameters, in small letters."""
    return header.partition(";")[0].strip().lower()


def _invalid(name: str, detail: str, text: str) -> InvalidInput:
    return InvalidInput(f"{name} {detail}", [FieldError(field=name, detail=detail, value=text[:60])])
