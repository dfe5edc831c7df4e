"""The routes of `/api/v1/kickers`."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, unquote

from litestar import Request, Response, Router, delete, get
from litestar.di import NamedDependency, Provide
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, Schema
from litestar.params import FromPath, QueryParameter
from msgspec.structs import asdict, astuple

from kickserve.plugins import (
    API,
    Before,
    InvalidInput,
    Limit,
    RequestError,
    Scope,
    TheRecorder,
    app_of,
    format_query,
    kicker_fault,
    parse_cursor,
    preferred,
    refusals,
    requires,
)
from kickserve.schemas import FieldError, kicker_of
from kickserve_scores.follower import Follower
from kickserve_scores.kickers import COLUMNS, POINTS, KickerPage, KickerRow, Place, Tally

_PATH: Final = f"{API}/kickers"
_CSV: Final = "text/csv"
_PAGE: Final = 100
_PLACE: Final = r"^-?[0-9]{1,12}(\.[0-9]+)?(e-?[0-9]{1,2})?,"  # of a kicker: a number, and the label

TheTally = NamedDependency[Tally]
Sort = Annotated[
    Literal["points", "above", "kicks", "made", "expected", "ability", "kicker"],
    QueryParameter(description="What to sort by; `kicker` rises, the others fall."),
]
Points = Annotated[
    float,
    QueryParameter(gt=0, le=1_000, description="Points of a kick: 3 for penalties, 2 for conversions."),
]
After = Annotated[
    str | None,
    QueryParameter(
        description="Only kickers after this place, as `Link` has it.", schema_extra={"pattern": _PLACE}
    ),
]


class KickerNotFound(RequestError):
    """No stored prediction names this kicker."""

    status = 404
    title = "Kicker not found"


@dataclass
class _ListsKickers(Operation):
    """Documents an answer that is JSON or CSV."""

    def __post_init__(self) -> None:
        """Describe the table."""
        answer: Any = (self.responses or {})["200"]
        answer.content[_CSV] = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))


def router(*, level: bool) -> Router:
    """Make the routes.

    Args:
        level: whether abilities are those above a level that is learned too.
    """
    follower: Follower[Tally] | None = None

    async def tally(request: Request[Any, Any, Any], recorder: TheRecorder) -> Tally:
        """Return the tally of all outcomes that became known before this request."""
        nonlocal follower
        if follower is None:
            follower = Follower(app_of(request).store, lambda: Tally(level=level))
        await recorder.flush()
        return await follower.look()

    return Router(
        _PATH,
        route_handlers=[list_kickers, get_kicker, forget_kicker],
        dependencies={"tally": Provide(tally)},
        tags=["kickers"],
    )


@get("/", operation_class=_ListsKickers, responses=refusals(503), guards=[requires(Scope.READ)])
async def list_kickers(
    request: Request[Any, Any, Any],
    tally: TheTally,
    sort: Sort = "points",
    limit: Limit = _PAGE,
    after: After = None,
    points: Points = POINTS,
) -> Response[list[KickerRow]] | Response[str]:
    """List the kickers: kicks, made, expected, points above expected, ability.

    Of kicks whose outcome is known, by any model. Expected is what a kicker of unknown ability would make;
    `above` is made - expected, and `points` that times `points` of the query, because a kick does not say
    whether it is a penalty or a conversion. Intervals are 95 %. With `Accept: text/csv` a table; the header
    `Link` leads to the next page.
    """
    start = None if after is None else _place_in(after)
    # In a thread: thousands of kickers take some milliseconds to sort.
    page, last = await asyncio.to_thread(tally.page, sort, points, after=start, limit=limit)
    headers = {}
    if last is not None:
        value, kicker = last
        query = format_query(sort=sort, limit=limit, points=f"{points:g}", after=f"{value!r},{kicker}")
        headers["Link"] = f'<{_PATH}?{query}>; rel="next"'
    if preferred(request, [_CSV]):
        return Response(_csv(page), media_type=_CSV, headers=headers)
    return Response(page, headers=headers)


@get("/{kicker:path}", responses=refusals(503), guards=[requires(Scope.READ)])
async def get_kicker(  # noqa: PLR0913, PLR0917 - the query
    request: Request[Any, Any, Any],
    kicker: FromPath[str],  # noqa: ARG001 - `_kicker_in` has it as it was sent
    recorder: TheRecorder,
    tally: TheTally,
    limit: Limit = _PAGE,
    before: Before = None,
    points: Points = POINTS,
) -> Response[KickerPage]:
    """Return a kicker, and the predictions of the kicks, newest first, page by page as `Link` leads."""
    name, cursor = _kicker_in(request), parse_cursor(before)
    records = await recorder.store.page(limit + 1, before=cursor, kicker=name)
    if not records and cursor is None:
        raise _not_found(name)
    headers = {}
    if len(records) > limit:
        records.pop()
        query = format_query(limit=limit, before=records[-1].id, points=f"{points:g}")
        headers["Link"] = f'<{_PATH}/{_as_sent(request)}?{query}>; rel="next"'
    return Response(KickerPage(**asdict(tally.row(name, points)), predictions=records), headers=headers)


@delete("/{kicker:path}", responses=refusals(503), guards=[requires(Scope.ADMIN)])
async def forget_kicker(
    request: Request[Any, Any, Any],
    kicker: FromPath[str],  # noqa: ARG001 - `_kicker_in` has it as it was sent
    recorder: TheRecorder,
) -> None:
    """Forget a kicker: the label is taken off all records that were made until now, and the kicks stay."""
    name = _kicker_in(request)
    if await recorder.forget(name) == 0:
        raise _not_found(name)


def _kicker_in(request: Request[Any, Any, Any]) -> str:
    """Return the label at the end of a path, in its stored spelling; it may hold any sign, also a slash.

    Raises:
        KickerNotFound: no kicker can have it.
    """
    name = unquote(_as_sent(request))
    if kicker_fault(name):
        raise _not_found(name)
    return str(kicker_of(name))


def _as_sent(request: Request[Any, Any, Any]) -> str:
    raw: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    return raw.decode("latin-1").partition(f"{_PATH}/")[2]


def _not_found(name: str) -> KickerNotFound:
    return KickerNotFound(f"no stored prediction names the kicker '{name[:64]}'")


def _place_in(text: str) -> Place:
    """Return the place in the parameter `after`.

    Raises:
        InvalidInput: it is none.
    """
    if re.match(_PLACE, text, re.ASCII) is None:
        detail = "must be a place as the header Link has it"
        raise InvalidInput(f"after {detail}", [FieldError(field="after", detail=detail, value=text[:60])])
    value, _, kicker = text.partition(",")
    return float(value), kicker


def _csv(rows: list[KickerRow]) -> str:
    from kickserve_data.writer import csv_cell  # a start need not wait for what reads and writes files

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([csv_cell(value) for value in astuple(row)] for row in rows)
    return text.getvalue()
