"""Turns what the meters hold into families of Prometheus, when asked: a request costs none of this."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector as BaseCollector

from kickserve import __version__
from kickserve.metrics import BINS, BOUNDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric

    from kickserve.metrics import Counter, ModelReading, RouteReading, WorkerReading
    from kickserve.plugins import Metric as Reported
    from kickserve.service import Service

_PROBABILITIES: Final = [*(f"{edge / BINS:g}" for edge in range(1, BINS)), "+Inf"]
_EDGES: Final = [*map(str, BOUNDS), "+Inf"]
_ROUTE: Final = ("method", "route")
_TOTALS: Final[dict[Counter, tuple[str, str]]] = {
    "refused_kicks": (
        "kickserve_refused_kicks",
        "Kicks that did not fit; of a batch, those that its answer names.",
    ),
    "failed_kicks": ("kickserve_failed_kicks", "Kicks that the model could not answer."),
    "store_errors": (
        "kickserve_store_errors",
        "Attempts to bring predictions to the store that failed.",
    ),
    "dead_letters": ("kickserve_put_aside", "What the store refused for good: in refused.jsonl."),
}


class Collector(BaseCollector):
    """Everything that a service has counted, over all its workers.

    Args:
        service: whose meters are read.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Yield the families, from one reading."""
        reading = self._service.metrics.read()
        yield self._info()
        yield _requests(reading.routes)
        yield _times(reading.routes)
        yield from _predictions(reading.models)
        yield from _totals(reading.counts)
        yield from _workers(reading.workers)
        yield from _of_plugins(self._service.plugin_metrics())

    def _info(self) -> Metric:
        card = self._service.predictor.model.card
        family = GaugeMetricFamily(
            "kickserve_info", "What is served.", labels=("version", "model", "revision")
        )
        family.add_metric((__version__, card.name, card.revision), 1)
        return family


def _predictions(models: Iterable[ModelReading]) -> Iterator[Metric]:
    counts = CounterMetricFamily("kickserve_predictions", "Kicks that were answered.", labels=("model",))
    probabilities = HistogramMetricFamily(
        "kickserve_prediction_probability", "The probabilities that were answered.", labels=("model",)
    )
    for each in models:
        counts.add_metric((each.name,), each.predictions)
        buckets = list(zip(_PROBABILITIES, map(float, accumulate(each.bins)), strict=True))
        probabilities.add_metric((each.name,), buckets, each.total)
    yield counts
    yield probabilities


def _totals(counts: Mapping[Counter, int]) -> Iterator[Metric]:
    for counter, (name, help_text) in _TOTALS.items():
        yield CounterMetricFamily(name, help_text, value=counts[counter])


def _of_plugins(figures: Iterable[Reported]) -> Iterator[Metric]:
    """Show the figures that plugins tell: those of one name together."""
    by_name: dict[str, list[Reported]] = {}
    for each in figures:
        by_name.setdefault(each.name, []).append(each)
    for name, group in sorted(by_name.items()):
        labels = sorted({label for each in group for label in each.labels})
        kind = GaugeMetricFamily if group[0].kind == "gauge" else CounterMetricFamily
        family = kind(name.removesuffix("_total"), group[0].help, labels=labels)
        for each in group:
            family.add_metric([each.labels.get(label, "") for label in labels], each.value)
        yield family


def _requests(routes: Iterable[RouteReading]) -> Metric:
    family = CounterMetricFamily(
        "kickserve_requests", "Requests by what came of them.", labels=(*_ROUTE, "status")
    )
    for each in routes:
        for status, count in each.statuses.items():
            family.add_metric((each.method, each.route, status), count)
    return family


def _times(routes: Iterable[RouteReading]) -> Metric:
    family = HistogramMetricFamily(
        "kickserve_request_duration_seconds", "From a request's head to the end of its answer.", labels=_ROUTE
    )
    for each in routes:
        buckets = list(zip(_EDGES, map(float, accumulate(each.times)), strict=True))
        family.add_metric((each.method, each.route), buckets, each.seconds)
    return family


def _workers(workers: Sequence[WorkerReading]) -> Iterator[Metric]:
    starts = CounterMetricFamily(
        "kickserve_worker_starts", "Workers that have begun in this place.", labels=("worker",)
    )
    gauges = {
        "memory": _gauge("kickserve_worker_memory_bytes", "Resident memory."),
        "cpu": _gauge("kickserve_worker_cpu_cores", "Processor time by time: 1 is one core."),
        "journal": _gauge("kickserve_journal_bytes", "What waits in the journal for the store."),
        "lag": _gauge(
            "kickserve_journal_lag_seconds", "For how long nothing has left a journal that is filled."
        ),
        "age": _gauge("kickserve_journal_age_seconds", "For how long the oldest in the journal has waited."),
        "store_up": _gauge("kickserve_store_up", "Whether the store took what it was last given: 1 or 0."),
    }
    models = GaugeMetricFamily(
        "kickserve_model_info",
        "The model that a worker answers with.",
        labels=("worker", "model", "revision"),
    )
    for number, reading in enumerate(workers, 1):
        starts.add_metric((str(number),), reading.starts)
        if any(reading.model):
            models.add_metric((str(number), *reading.model), 1)
        for name, family in gauges.items():
            family.add_metric((str(number),), getattr(reading, name))
    yield starts
    yield models
    yield from gauges.values()


def _gauge(name: str, help_text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, labels=("worker",))
