"""What the service counts of itself, in memory that workers share: each writes its own part, any reads all.

A block of 64-bit floats, made before the fork. No locks: a cell has one writer, and a store of 8 bytes is
whole. A worker that takes another's place goes on with its cells, so that no count ever falls.

    worker 0                                                              worker 1
    [gauges | counts | model 0 | … | route 0 | route 1 | …]               [gauges | …
                       `kickserve.model_meters`
                                     [seconds | status by time taken]
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from kickserve import model_meters
from kickserve.model_meters import ModelMeters, ModelReading
from kickserve.slots import CELL, OTHER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from kickserve.record import RecordBatch

# Upper bounds of the times that are told apart, in seconds; what takes longer counts as infinite.
BOUNDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
STATUSES: Final = (
    *(200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308),
    *(400, 401, 403, 404, 405, 406, 408, 409, 410, 413, 415, 422, 429, 431, 500, 501, 503, 504),
)
ROUTES: Final = 128  # pairs of route and method that are told apart, "other" being the first

_TIMES: Final = len(BOUNDS) + 1
_ROUTE: Final = 1 + (len(STATUSES) + 1) * _TIMES
_MEMORY, _CPU, _JOURNAL, _LAG, _AGE, _STORE_UP, _STARTS, _REFUSED, _FAILED, _STORE_ERRORS, _ASIDE = range(11)
_HEAD: Final = 11
_ROUTES: Final = _HEAD + model_meters.SIZE
_WORKER: Final = _ROUTES + ROUTES * _ROUTE
# By status: where its times begin in the cells of a route.
_COLUMNS: Final = [1 + len(STATUSES) * _TIMES] * 1000
for _at, _status in enumerate(STATUSES):
    _COLUMNS[_status] = 1 + _at * _TIMES


class RouteMeter:
    """Counts the requests of one route and method in the part of one worker."""

    __slots__ = ("_base", "_cells")

    def __init__(self, cells: memoryview[float], base: int) -> None:
        self._cells = cells
        self._base = base

    def add(self, status: int, seconds: float) -> None:
        """Count a request: 0.15 µs.

        Args:
            status: that of the answer, from 0 to 999.
            seconds: how long it took.
        """
        cells, base = self._cells, self._base
        cells[base] += seconds
        cells[base + _COLUMNS[status] + bisect_left(BOUNDS, seconds)] += 1


class RouteReading(NamedTuple):
    """What all workers counted for one route and method.

    Attributes:
        route: template of the path, or "other".
        method: of HTTP, or "other".
        statuses: requests by status, those that there were; codes that are not told apart as "other".
        times: requests by time taken: of each of `BOUNDS`, and of what took longer, not cumulated.
        seconds: that all of them took together.
    """

    route: str
    method: str
    statuses: dict[str, int]
    times: list[int]
    seconds: float


class WorkerReading(NamedTuple):
    """What a worker last told of itself.

    Attributes:
        starts: of workers in its place, from 1.
        memory: resident, in bytes.
        cpu: processor time by time; 1 is one core.
        journal: bytes that wait there for the store.
        lag: seconds for which something has waited there and nothing has drained.
        age: seconds for which the oldest of it has waited, to about a second.
        store_up: 1 where the store took what it was last given, or has not been given anything; 0 otherwise.
        model: name and revision of the model that it answers with.
    """

    starts: int
    memory: float
    cpu: float
    journal: float
    lag: float
    age: float
    store_up: float
    model: tuple[str, str]


class Reading(NamedTuple):
    """What all workers counted up to now.

    Attributes:
        routes: those that had a request.
        workers: by their number.
        models: what was answered, by model.
        refusals: kicks that were refused because they did not fit.
        failures: kicks that the model could not answer.
        store_errors: attempts to bring predictions to the store that failed.
        put_aside: what the store refused for good (`kickserve.dead_letters`).
    """

    routes: list[RouteReading]
    workers: list[WorkerReading]
    models: list[ModelReading]
    refusals: int
    failures: int
    store_errors: int
    put_aside: int

    @property
    def predictions(self) -> int:
        """Kicks that were answered."""
        return sum(model.answers for model in self.models)


class Meters:
    """The counters of a service.

    Args:
        workers: how many processes write. Where there are several, make it before they are forked, and call
            `take_place` in each.
    """

    def __init__(self, workers: int = 1) -> None:
        block = mmap.mmap(-1, workers * _WORKER * CELL)
        self._all: NDArray[np.float64] = np.frombuffer(block, np.float64).reshape(workers, _WORKER)
        self._block = memoryview(block).cast("d")
        self._names = [(OTHER, OTHER)]
        self.take_place(0)

    def take_place(self, number: int) -> None:
        """Write as this worker from now on.

        Args:
            number: from 0.
        """
        self._cells = self._block[number * _WORKER : (number + 1) * _WORKER]
        self._models = ModelMeters(self._cells[_HEAD:_ROUTES])
        self.tell(memory=0, cpu=0, journal=0, lag=0, age=0, store_up=True)
        self._name(self._names)

    def begin(self) -> None:
        """Count that a worker has begun here."""
        self._cells[_STARTS] += 1

    def know(self, routes: Iterable[tuple[str, str]]) -> None:
        """Tell these routes apart from now on: template of the path, and method.

        All workers must know the same ones: call it where the app is made, which is the same in each.
        """
        self._name([(OTHER, OTHER), *sorted(set(routes))[: ROUTES - 1]])

    def route(self, template: str, method: str) -> RouteMeter:
        """Return what counts requests of a route; that of "other" where it is not known.

        It writes for the worker that this process is: ask in the worker, when the app has been made.
        """
        return self._routes.get((template, method), self._other)

    def predicted(self, batch: RecordBatch) -> None:
        """Count kicks that were answered, and their probabilities."""
        self._models.add(batch)

    def serves(self, name: str, revision: str) -> None:
        """Tell the model that this worker answers with from now on."""
        self._models.serves(name, revision)

    def failed(self, count: int) -> None:
        """Count kicks that the model could not answer."""
        self._cells[_FAILED] += count

    def store_failed(self) -> None:
        """Count an attempt to bring predictions to the store that failed."""
        self._cells[_STORE_ERRORS] += 1

    def put_aside(self) -> None:
        """Count something that the store refused for good."""
        self._cells[_ASIDE] += 1

    def refused(self, count: int) -> None:
        """Count kicks that did not fit."""
        self._cells[_REFUSED] += count

    def tell(
        self, *, memory: float, cpu: float, journal: float, lag: float, age: float, store_up: bool
    ) -> None:
        """Tell how this worker is; see `WorkerReading`."""
        for at, value in enumerate((memory, cpu, journal, lag, age, float(store_up))):
            self._cells[at] = value

    def read(self) -> Reading:
        """Add up what all workers have counted."""
        total = self._all.sum(axis=0)
        routes = total[_ROUTES:].reshape(ROUTES, _ROUTE)
        return Reading(
            routes=[_route(*each) for each in zip(self._names, routes, strict=False) if each[1].any()],
            workers=[_worker(cells) for cells in self._all[:, :_ROUTES]],
            models=model_meters.read([cells[_HEAD:_ROUTES] for cells in self._all]),
            refusals=int(total[_REFUSED]),
            failures=int(total[_FAILED]),
            store_errors=int(total[_STORE_ERRORS]),
            put_aside=int(total[_ASIDE]),
        )

    def _name(self, names: list[tuple[str, str]]) -> None:
        self._names = names
        meters = [RouteMeter(self._cells, _ROUTES + at * _ROUTE) for at in range(len(names))]
        self._other = meters[0]
        self._routes = dict(zip(names, meters, strict=True))


def _route(name: tuple[str, str], cells: NDArray[np.float64]) -> RouteReading:
    counts = cells[1:].reshape(-1, _TIMES).astype(int)
    by_status = zip([*map(str, STATUSES), OTHER], counts.sum(axis=1).tolist(), strict=True)
    statuses = {status: count for status, count in by_status if count}
    return RouteReading(*name, statuses, counts.sum(axis=0).tolist(), float(cells[0]))


def _worker(cells: NDArray[np.float64]) -> WorkerReading:
    head = cells[:_HEAD].tolist()
    memory, cpu, journal, lag, age, store_up = head[: _STORE_UP + 1]
    model = model_meters.served(cells[_HEAD:])
    return WorkerReading(int(head[_STARTS]), memory, cpu, journal, lag, age, store_up, model)
