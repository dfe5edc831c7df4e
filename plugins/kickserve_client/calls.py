"""The calls of the API as a client makes them: what each sends, and how its answer is read.

There is no input or output here: a client adds that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from kickserve.errors import InvalidInput
from kickserve.schemas import (
    DriftSummary,
    Health,
    Kick,
    ModelCard,
    OutcomeOf,
    OutcomesKept,
    Prediction,
    Record,
)
from kickserve_scores.explain import Explanation
from kickserve_scores.report import QualityReport

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
KickLike = Kick | Mapping[str, float | bool]
"""A kick: a `Kick`, or the eleven features by name (numbers of numpy's are taken too)."""

TOGETHER: Final = 10_000
"""Kicks, or outcomes, that go in one request at most: what a service with its usual limits takes."""

_SAFE: Final = frozenset({"GET", "PUT", "DELETE"})  # twice is as good as once


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call of the API.

    Attributes:
        method: as `POST`.
        path: below `/api/v1`.
        read: makes the result of the answer, once that is a good one.
        query: parameters; those that are None are left out, instants are written as ISO 8601.
        content: the body, JSON.
        safe: whether the service may be asked again although it may have heard the first time.
        first_row: of a batch that is sent in parts, which row the part begins with.
        timeout: seconds that the service may be silent; None for what the client has.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    query: Mapping[str, Any] = field(default_factory=dict)
    content: bytes = b""
    safe: bool | None = None
    first_row: int = 0
    timeout: float | None = None

    @property
    def repeatable(self) -> bool:
        """Whether nothing is done twice where the service is asked twice."""
        return self.method in _SAFE if self.safe is None else self.safe

    @property
    def params(self) -> dict[str, str]:
        """The query as it is sent."""
        return {name: _text(value) for name, value in self.query.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the kept predictions.

    Attributes:
        records: newest first.
        next: the query of the page that follows; None after the last.
    """

    records: list[Record]
    next: Mapping[str, str] | None


def predict(kick: KickLike | None, features: Mapping[str, float | bool]) -> Call[Prediction]:
    """Predict a kick: those features are put over its own."""
    return Call("POST", "/predict", _as(Prediction), content=_encode(_whole(kick, features)))


def explain(kick: KickLike | None, features: Mapping[str, float | bool]) -> Call[Explanation]:
    """Explain a kick: nothing is kept of it, so it may be asked twice."""
    return Call("POST", "/explain", _as(Explanation), content=_encode(_whole(kick, features)), safe=True)


def predict_parts(kicks: Iterable[KickLike], size: int) -> Iterator[Call[list[Prediction]]]:
    """Predict any number of kicks, `size` a call."""
    for first, part in _parts(kicks, size):
        yield Call("POST", "/predict/batch", _as(list[Prediction]), content=_encode(part), first_row=first)


def outcome(record_id: str, *, success: bool) -> Call[None]:
    """Tell what came of a kick."""
    return Call("PUT", f"{_record(record_id)}/outcome", _nothing, content=_encode({"success": success}))


def outcome_parts(outcomes: Mapping[str, bool] | Iterable[OutcomeOf]) -> Iterator[Call[OutcomesKept]]:
    """Tell what came of many kicks, by id."""
    if isinstance(outcomes, Mapping):
        outcomes = (OutcomeOf(id=each, success=bool(success)) for each, success in outcomes.items())
    for first, part in _parts(outcomes, TOGETHER):
        yield Call("PUT", "/predictions/outcomes", _as(OutcomesKept), content=_encode(part), first_row=first)


def together(kept: Iterable[OutcomesKept]) -> OutcomesKept:
    """Add up what became of outcomes that were told in parts."""
    answers = list(kept)
    unknown = [each for answer in answers for each in answer.unknown]
    return OutcomesKept(kept=sum(answer.kept for answer in answers), unknown=unknown)


def page(query: Mapping[str, Any]) -> Call[Page]:
    """List kept predictions; the query is as the API has it."""
    return Call("GET", "/predictions", _page, query)


def get(record_id: str) -> Call[Record]:
    """Find one kept prediction."""
    return Call("GET", _record(record_id), _as(Record))


def delete(record_id: str) -> Call[None]:
    """Remove one kept prediction."""
    return Call("DELETE", _record(record_id), _nothing)


def quality(query: Mapping[str, Any]) -> Call[QualityReport]:
    """Say how good predictions were."""
    return Call("GET", "/quality", _as(QualityReport), query)


def drift() -> Call[DriftSummary]:
    """Say how far the kicks have drifted."""
    return Call("GET", "/drift", _as(DriftSummary))


def model() -> Call[ModelCard]:
    """Say what model is served."""
    return Call("GET", "/model", _as(ModelCard))


def reload() -> Call[ModelCard]:
    """Load the model anew."""
    return Call("POST", "/model/reload", _as(ModelCard))


def health() -> Call[Health]:
    """Say how the service is."""
    return Call("GET", "/health", _as(Health))


def live() -> Call[Health]:
    """Ask whether the service is there; it looks at nothing else."""
    return Call("GET", "/health/live", _as(Health))


def raw(method: str, path: str, query: Mapping[str, Any], timeout: float) -> Call[bytes]:
    """Call what has no method of its own: the answer is taken as it is."""
    return Call(method, path, _content, query, timeout=timeout)


def _as(kind: type[T]) -> Callable[[httpx.Response], T]:
    decode = msgspec.json.Decoder(kind).decode

    def read(response: httpx.Response) -> T:
        return decode(response.content)

    return read


def _nothing(_: httpx.Response) -> None:
    return None


def _content(response: httpx.Response) -> bytes:
    return response.content


def _page(response: httpx.Response) -> Page:
    # Of the link only the query is taken: the key goes nowhere but to the service that the client is of.
    link = response.links.get("next")
    following = None if link is None else dict(parse_qsl(urlsplit(link["url"]).query))
    return Page(_records(response), following)


def _record(record_id: str) -> str:
    return f"/predictions/{quote(record_id, safe='')}"


def _whole(kick: KickLike | None, features: Mapping[str, float | bool]) -> Mapping[str, float | bool] | Kick:
    if kick is None or not features:
        return features if kick is None else kick
    return {**(msgspec.structs.asdict(kick) if isinstance(kick, Kick) else kick), **features}


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


def _plain(value: Any) -> Any:
    """Make a number of numpy's, or of pandas', one of Python's."""
    if callable(item := getattr(value, "item", None)):
        return item()
    raise InvalidInput(f"{value!r} is neither a number nor a flag: it can't be a feature of a kick")


_encode: Final = msgspec.json.Encoder(enc_hook=_plain).encode
_records: Final = _as(list[Record])
