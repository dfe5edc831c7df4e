"""Counters of requests, predictions and faults, and the state of workers, in memory that workers share."""

from __future__ import annotations

from bisect import bisect_left
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

import numpy as np

from kickserve.features import COUNT
from kickserve.record import WIDTH, numbers_of
from kickserve.shared import OTHER, encode_label, find_slot, floats, shared_array, sum_by_label

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from kickserve.record import RecordBatch

BOUNDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the buckets of durations, in seconds; the last bucket has none."""

STATUSES: Final = (
    *(200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308),
    *(400, 401, 403, 404, 405, 406, 408, 409, 410, 413, 415, 422, 429, 431, 500, 501, 503, 504),
)
BINS: Final = 20  # of probabilities
ROUTES: Final = 128  # pairs of route and method; the first counts for all others
MODELS: Final = 8  # names of models; the last counts for all others

Counter = Literal["starts", "refused_kicks", "failed_kicks", "store_errors", "dead_letters"]

_DURATIONS: Final = len(BOUNDS) + 1
_LABEL: Final = np.dtype("S96")
_MODEL: Final = np.dtype([("label", _LABEL), ("values", "f8", 1 + BINS)])  # sum of probabilities, then bins
_COUNTERS: Final[tuple[Counter, ...]] = get_args(Counter)
_STATE: Final = ("memory", "cpu", "journal", "lag", "age", "store_up")
_WORKER: Final = np.dtype(
    [
        *((name, "f8") for name in (*_STATE, *_COUNTERS)),
        *((name, _LABEL) for name in ("model", "revision")),
        ("models", _MODEL, MODELS),
        # Of each route: sum of seconds, then requests by status and duration.
        ("routes", "f8", (ROUTES, 1 + (len(STATUSES) + 1) * _DURATIONS)),
    ]
)
# By status: where its durations begin in the cells of a route.
_COLUMNS: Final = [1 + len(STATUSES) * _DURATIONS] * 1000
for _at, _status in enumerate(STATUSES):
    _COLUMNS[_status] = 1 + _at * _DURATIONS
_FEW: Final = 12  # kicks up to which a loop is quicker than arrays
# The probability out of each row of a record (`kickserve.record`).
_probabilities: Final = Struct(f"<{COUNT * 8}xd{(WIDTH - COUNT - 1) * 8}x").iter_unpack


class RouteMetrics:
    """Counts the requests of one route and method in one worker.

    Args:
        cells: of that route in the row of the worker.
    """

    __slots__ = ("_cells",)

    def __init__(self, cells: memoryview[float]) -> None:
        self._cells = cells

    def add(self, status: int, seconds: float) -> None:
        """Count a request: 0.15 µs.

        Args:
            status: of the answer, from 0 to 999.
            seconds: from the head of the request to the end of the answer.
        """
        cells = self._cells
        cells[0] += seconds
        cells[_COLUMNS[status] + bisect_left(BOUNDS, seconds)] += 1


class RouteReading(NamedTuple):
    """Requests of one route and method, over all workers.

    Attributes:
        route: template of the path, or "other".
        method: of HTTP, or "other".
        statuses: number of requests by status, without zeros; statuses outside `STATUSES` are "other".
        times: number of requests by duration, not cumulated: one for each of `BOUNDS`, and one for longer.
        seconds: sum of the durations.
    """

    route: str
    method: str
    statuses: dict[str, int]
    times: list[int]
    seconds: float


class WorkerReading(NamedTuple):
    """State of a worker, as its last sample found it.

    Attributes:
        starts: number of processes that have been this worker, from 1.
        memory: resident, in bytes.
        cpu: processor time by time; 1 is one core.
        journal: bytes in the journal that wait for the store.
        lag: seconds for which the journal has not been empty and nothing has drained.
        age: seconds for which the oldest entry of the journal has waited, to about a second.
        store_up: 1 where the last write to the store succeeded or none was tried, else 0.
        model: name and revision of the current model; empty before it is loaded.
    """

    starts: int
    memory: float
    cpu: float
    journal: float
    lag: float
    age: float
    store_up: float
    model: tuple[str, str]


class ModelReading(NamedTuple):
    """Predictions of the models of one name, over all workers.

    Attributes:
        name: of the model, or "other".
        bins: number of predictions by probability, in 20 steps of 0.05, not cumulated; the last includes 1.
        total: sum of the probabilities.
    """

    name: str
    bins: list[int]
    total: float

    @property
    def predictions(self) -> int:
        """Number of predictions."""
        return sum(self.bins)


class Reading(NamedTuple):
    """Sums over all workers.

    Attributes:
        routes: with at least one request.
        workers: by their number.
        models: by their name.
        counts: refused kicks (invalid), failed kicks (the model raised), failed writes to the store, dead
            letters (refused by the store for good).
    """

    routes: list[RouteReading]
    workers: list[WorkerReading]
    models: list[ModelReading]
    counts: dict[Counter, int]

    @property
    def predictions(self) -> int:
        """Number of predictions."""
        return sum(model.predictions for model in self.models)


class Metrics:
    """The counters of a service.

    Args:
        workers: number of processes that count. Where there are several, create this before they are forked,
            and call `join_worker` in each.
    """

    def __init__(self, workers: int = 1) -> None:
        self._all = shared_array(_WORKER, workers)
        self._names = [(OTHER, OTHER)]
        self.join_worker(0)

    def join_worker(self, number: int) -> None:
        """Write to row `number` from now on: that of a worker, from 0."""
        self._own = self._all[number]
        self._models: dict[str, memoryview[float]] = {}
        self.set_state(memory=0, cpu=0, journal=0, lag=0, age=0, store_up=True)
        self._set_names(self._names)

    def set_routes(self, routes: Iterable[tuple[str, str]]) -> None:
        """Set the routes to count apart, each by template of the path and method; the same in all workers."""
        self._set_names([(OTHER, OTHER), *sorted(set(routes))[: ROUTES - 1]])

    def route(self, template: str, method: str) -> RouteMetrics:
        """Return the counters of a route in this worker; those of "other" for a route that was not set."""
        return self._routes.get((template, method), self._other)

    def count(self, counter: Counter, by: int = 1) -> None:
        """Add to a counter."""
        self._own[counter] += by

    def count_predictions(self, batch: RecordBatch) -> None:
        """Count predictions of one model, by probability."""
        cells = self._models.get(batch.model)
        if cells is None:
            models = self._own["models"]
            slot = find_slot(models["label"], batch.model)
            cells = self._models[batch.model] = floats(models["values"][slot])
        if len(batch) <= _FEW:
            for (probability,) in _probabilities(batch.numbers):
                cells[0] += probability
                cells[1 + min(int(probability * BINS), BINS - 1)] += 1
            return
        found = numbers_of([batch])[:, COUNT]
        sums = np.asarray(cells)
        sums[0] += found.sum()
        sums[1:] += np.bincount(np.minimum((found * BINS).astype(int), BINS - 1), minlength=BINS)

    def set_model(self, name: str, revision: str) -> None:
        """Set the current model of this worker."""
        for field, text in (("model", name), ("revision", revision)):
            self._own[field] = encode_label(text, _LABEL.itemsize)

    def set_state(
        self, *, memory: float, cpu: float, journal: float, lag: float, age: float, store_up: bool
    ) -> None:
        """Set the state of this worker; the units are those of `WorkerReading`."""
        for field, value in zip(_STATE, (memory, cpu, journal, lag, age, store_up), strict=True):
            self._own[field] = value

    def read(self) -> Reading:
        """Add up the counters of all workers."""
        routes = zip(self._names, self._all["routes"].sum(axis=0), strict=False)
        models = sum_by_label(self._all["models"], "values").items()
        return Reading(
            routes=[_route(*name, cells) for name, cells in routes if cells.any()],
            workers=[_worker(row) for row in self._all],
            models=[
                ModelReading(name, cells[1:].astype(int).tolist(), float(cells[0])) for name, cells in models
            ],
            counts={counter: int(self._all[counter].sum()) for counter in _COUNTERS},
        )

    def _set_names(self, names: list[tuple[str, str]]) -> None:
        self._names = names
        counters = [RouteMetrics(floats(cells)) for cells in self._own["routes"][: len(names)]]
        self._other = counters[0]
        self._routes = dict(zip(names, counters, strict=True))


def _route(route: str, method: str, cells: NDArray[np.float64]) -> RouteReading:
    counts = cells[1:].reshape(-1, _DURATIONS).astype(int)
    by_status = zip([*map(str, STATUSES), OTHER], counts.sum(axis=1).tolist(), strict=True)
    statuses = {status: count for status, count in by_status if count}
    return RouteReading(route, method, statuses, counts.sum(axis=0).tolist(), float(cells[0]))


def _worker(row: Any) -> WorkerReading:
    state = {field: float(row[field]) for field in _STATE}
    model = (row["model"].decode(), row["revision"].decode())
    return WorkerReading(starts=int(row["starts"]), model=model, **state)
