"""The calls of the API: what each sends, and how its answer is read. There is no input or output here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from kickserve.schemas import (
    DriftSummary,
    Health,
    ModelCard,
    OutcomeOf,
    OutcomesKept,
    Prediction,
    Record,
)
from kickserve_client.frames import KickLike, by_name, encode, rows_of
from kickserve_scores.explain import Explanation
from kickserve_scores.kickers import POINTS, KickerPage, KickerRow
from kickserve_scores.report import QualityReport

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
TOGETHER: Final = 10_000
"""Kicks, or outcomes, that go in one request at most: a service with its usual limits takes so many."""

_REPEATABLE: Final = frozenset({"GET", "PUT", "DELETE"})  # twice is as good as once


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call of the API.

    Attributes:
        method: as `POST`.
        path: below `/api/v1`.
        read: makes the result of a good answer.
        query: parameters; None is left out, instants are written as ISO 8601.
        content: the body, JSON.
        keeps_nothing: whether a POST may be repeated although the service may have heard the first one.
        first_row: of a batch that is sent in parts, the row with which the part begins.
        timeout: seconds that the service may be silent; None for the client's own.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    query: Mapping[str, Any] = field(default_factory=dict)
    content: bytes = b""
    keeps_nothing: bool = False
    first_row: int = 0
    timeout: float | None = None

    @property
    def repeatable(self) -> bool:
        """Whether nothing is done twice by a service that is asked twice."""
        return self.keeps_nothing or self.method in _REPEATABLE

    @property
    def params(self) -> dict[str, str]:
        """The query as it is sent."""
        return {name: _text(value) for name, value in self.query.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list.

    Attributes:
        records: in the order of the list.
        next: the query of the page that follows; None after the last.
    """

    records: list[T]
    next: Mapping[str, str] | None


def predict(kick: KickLike | None = None, /, **features: Any) -> Call[Prediction]:
    """Predict a kick.

    Args:
        kick: a `Kick`, or anything with its features by name, such as a row of pandas.
        features: the same as arguments; beside a kick they are put over its own.
    """
    return Call("POST", "/predict", _as(Prediction), content=encode(_whole(kick, features)))


def explain(kick: KickLike | None = None, /, **features: Any) -> Call[Explanation]:
    """Explain the prediction of a kick; nothing is kept. The arguments are those of `predict`."""
    content = encode(_whole(kick, features))
    return Call("POST", "/explain", _as(Explanation), content=content, keeps_nothing=True)


def get(record_id: str) -> Call[Record]:
    """Return one kept prediction; `RemoteError` with the status 404 for an unknown id."""
    return Call("GET", _record(record_id), _as(Record))


def delete(record_id: str) -> Call[None]:
    """Remove one kept prediction for good; `RemoteError` with the status 404 for an unknown id."""
    return Call("DELETE", _record(record_id), _nothing)


def tell_outcome(record_id: str, *, success: bool) -> Call[None]:
    """Set the outcome of a kick, by the id of its prediction; a newer one replaces it."""
    return Call("PUT", f"{_record(record_id)}/outcome", _nothing, content=_encode({"success": success}))


def quality(
    *, model: str | None = None, since: datetime | None = None, until: datetime | None = None
) -> Call[QualityReport]:
    """Return the quality of the predictions whose outcome is known."""
    query = {"model": model, "since": since, "until": until}
    return Call("GET", "/quality", _as(QualityReport), query)


def kicker(name: str, *, points: float = POINTS) -> Call[KickerPage]:
    """Return a kicker and the newest predictions of the kicks; `RemoteError` with 404 for an unknown one.

    Args:
        name: label of the kicker.
        points: of a kick: 3 for penalties, 2 for conversions.
    """
    return Call("GET", _kicker(name), _as(KickerPage), {"points": points})


def forget_kicker(name: str) -> Call[None]:
    """Take a name off all records; `RemoteError` with 404 where no record has it."""
    return Call("DELETE", _kicker(name), _nothing)


def drift() -> Call[DriftSummary]:
    """Return the drift of the newest kicks; `RemoteError` with 409 for too few kicks."""
    return Call("GET", "/drift", _as(DriftSummary))


def model() -> Call[ModelCard]:
    """Return the card of the model that is served."""
    return Call("GET", "/model", _as(ModelCard))


def reload() -> Call[ModelCard]:
    """Load the model anew; `RemoteError` with 409 for one that can't be used."""
    return Call("POST", "/model/reload", _as(ModelCard))


def health() -> Call[Health]:
    """Return the health of the service in one word, and of its parts."""
    return Call("GET", "/health", _as(Health))


# Calls that a client makes several of, or that have no method of their own.


def predict_parts(kicks: Iterable[KickLike], size: int) -> Iterator[Call[list[Prediction]]]:
    """Predict any number of kicks, `size` a call; a DataFrame counts as its rows.

    Raises:
        InvalidInput: a value is no number, or a column is missing.
    """
    for first, part in _parts(rows_of(kicks), size):
        content = encode([*map(by_name, part)], first)
        yield Call("POST", "/predict/batch", _as(list[Prediction]), content=content, first_row=first)


def outcome_parts(outcomes: Mapping[str, bool] | Iterable[OutcomeOf]) -> Iterator[Call[OutcomesKept]]:
    """Set the outcomes of many kicks, by id."""
    if isinstance(outcomes, Mapping):
        outcomes = (OutcomeOf(id=each, success=bool(success)) for each, success in outcomes.items())
    for first, part in _parts(outcomes, TOGETHER):
        yield Call("PUT", "/predictions/outcomes", _as(OutcomesKept), content=_encode(part), first_row=first)


def page(query: Mapping[str, Any]) -> Call[Page[Record]]:
    """List kept predictions, newest first; the query is as the API has it."""
    return Call("GET", "/predictions", _page(Record), query)


def kickers_page(query: Mapping[str, Any]) -> Call[Page[KickerRow]]:
    """List kickers; the query is as the API has it."""
    return Call("GET", "/kickers", _page(KickerRow), query)


def live() -> Call[Health]:
    """Ask whether the service is there; it looks at nothing else."""
    return Call("GET", "/health/live", _as(Health))


def raw(method: str, path: str, query: Mapping[str, Any], timeout: float) -> Call[bytes]:
    """Call any route: the answer is taken as it is."""
    return Call(method, path, lambda response: response.content, query, timeout=timeout)


def _as(kind: type[T]) -> Callable[[httpx.Response], T]:
    decode = msgspec.json.Decoder(kind).decode
    return lambda response: decode(response.content)


def _nothing(_: httpx.Response) -> None:
    return None


def _page(kind: type[T]) -> Callable[[httpx.Response], Page[T]]:
    decode = msgspec.json.Decoder(list[kind]).decode  # type: ignore[valid-type] # it is a type at run time

    def read(response: httpx.Response) -> Page[T]:
        # Of the link only the query is taken: the key goes nowhere but to the service that the client is of.
        link = response.links.get("next")
        following = None if link is None else dict(parse_qsl(urlsplit(link["url"]).query))
        return Page(decode(response.content), following)

    return read


def _kicker(name: str) -> str:
    return f"/kickers/{quote(name, safe='').replace('.', '%2E')}"  # two dots would lead to another path


def _record(record_id: str) -> str:
    return f"/predictions/{quote(record_id, safe='')}"


def _whole(kick: KickLike | None, features: Mapping[str, Any]) -> KickLike:
    if kick is None or not features:
        return features if kick is None else by_name(kick)
    return {**by_name(kick), **features}


def _parts(things: Iterable[T], size: int) -> Iterator[tuple[int, list[T]]]:
    """Yield things in parts of so many, each with the number of its first."""
    if size < 1:
        raise ValueError(f"a part holds one or more, not {size}")
    first, rest = 0, iter(things)
    while part := list(islice(rest, size)):
        yield first, part
        first += len(part)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


_encode: Final = msgspec.json.encode
