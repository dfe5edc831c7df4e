"""The plugin `metrics`: the counters of the service and of its plugins at `/metrics`, for Prometheus.

Counters become families of Prometheus when `/metrics` is read: a request costs none of this.
"""

from __future__ import annotations

import logging
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from litestar import Request, Response, get
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from kickserve.plugins import BINS, BOUNDS, Plugin, Scope, __version__, app_of, plugins_of, requires

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from litestar.config.app import AppConfig
    from prometheus_client import Metric as Family

    from kickserve.metrics import Counter, ModelReading, RouteReading, WorkerReading
    from kickserve.plugins import App, Metric, Settings

__all__ = ["MetricsPlugin", "create_plugin"]

_PROBABILITIES: Final = [*(f"{edge / BINS:g}" for edge in range(1, BINS)), "+Inf"]
_DURATIONS: Final = [*map(str, BOUNDS), "+Inf"]
_TOTALS: Final[dict[Counter, tuple[str, str]]] = {
    "refused_kicks": (
        "kickserve_refused_kicks",
        "Refused kicks; of a batch, the kicks that the answer names.",
    ),
    "failed_kicks": ("kickserve_failed_kicks", "Kicks for which the model failed."),
    "store_errors": ("kickserve_store_errors", "Failed attempts to write predictions to the store."),
    "dead_letters": (
        "kickserve_put_aside",
        "Dead letters: operations that the store refused for good, in refused.jsonl.",
    ),
}
# By field of `WorkerReading`.
_GAUGES: Final = {
    "memory": ("kickserve_worker_memory_bytes", "Resident memory."),
    "cpu": ("kickserve_worker_cpu_cores", "Processor time per second: 1 is one core."),
    "journal": ("kickserve_journal_bytes", "Bytes in the journal that wait for the store."),
    "lag": ("kickserve_journal_lag_seconds", "Time since predictions last left a filled journal."),
    "age": ("kickserve_journal_age_seconds", "Age of the oldest prediction in the journal."),
    "store_up": ("kickserve_store_up", "Whether the store accepted the last write: 1 or 0."),
}

_log = logging.getLogger(__name__)


def create_plugin(settings: Settings) -> MetricsPlugin:
    """Make the plugin: the entry point names this function."""
    return MetricsPlugin(settings)


class MetricsPlugin(Plugin):
    """Brings `GET /metrics`; where the service has keys, Prometheus needs one with the scope `read`."""

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the route."""
        route = get("/metrics", guards=[requires(Scope.READ)], include_in_schema=False)(_metrics)
        app_config.route_handlers.append(route)
        return app_config


async def _metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer in the accepted format: the text of Prometheus, or OpenMetrics."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    # As a header: to a media type the framework adds its own charset.
    return Response(encode(_ServiceCollector(app_of(request))), headers={"Content-Type": content_type})


class _ServiceCollector(Collector):
    """The metrics of a service, over all its workers."""

    def __init__(self, app: App) -> None:
        self._app = app

    def collect(self) -> Iterator[Family]:
        """Yield the families, from one reading."""
        reading = self._app.metrics.read()
        card = self._app.predictor.model.card
        info = GaugeMetricFamily(
            "kickserve_info",
            "Version of kickserve and the served model.",
            labels=("version", "model", "revision"),
        )
        info.add_metric((__version__, card.name, card.revision), 1)
        yield info
        yield from _requests(reading.routes)
        yield from _predictions(reading.models)
        for counter, (name, help_text) in _TOTALS.items():
            yield CounterMetricFamily(name, help_text, value=reading.counts[counter])
        yield from _workers(reading.workers)
        yield from _of_plugins(metric for plugin in plugins_of(self._app) for metric in _metrics_of(plugin))


def _requests(routes: Iterable[RouteReading]) -> Iterator[Family]:
    counts = CounterMetricFamily(
        "kickserve_requests", "Requests by method, route and status.", labels=("method", "route", "status")
    )
    durations = HistogramMetricFamily(
        "kickserve_request_duration_seconds",
        "From a request's head to the end of its answer.",
        labels=("method", "route"),
    )
    for each in routes:
        for status, count in each.statuses.items():
            counts.add_metric((each.method, each.route, status), count)
        durations.add_metric((each.method, each.route), _buckets(_DURATIONS, each.times), each.seconds)
    yield counts
    yield durations


def _predictions(models: Iterable[ModelReading]) -> Iterator[Family]:
    counts = CounterMetricFamily("kickserve_predictions", "Predicted kicks.", labels=("model",))
    probabilities = HistogramMetricFamily(
        "kickserve_prediction_probability", "Predicted probabilities.", labels=("model",)
    )
    for each in models:
        counts.add_metric((each.name,), each.predictions)
        probabilities.add_metric((each.name,), _buckets(_PROBABILITIES, each.bins), each.total)
    yield counts
    yield probabilities


def _buckets(edges: Sequence[str], counts: Iterable[int]) -> list[tuple[str, float]]:
    return list(zip(edges, map(float, accumulate(counts)), strict=True))


def _workers(workers: Sequence[WorkerReading]) -> Iterator[Family]:
    starts = CounterMetricFamily(
        "kickserve_worker_starts", "Starts of the worker with this number.", labels=("worker",)
    )
    models = GaugeMetricFamily(
        "kickserve_model_info",
        "Model of a worker.",
        labels=("worker", "model", "revision"),
    )
    gauges = {field: GaugeMetricFamily(*names, labels=("worker",)) for field, names in _GAUGES.items()}
    for number, reading in enumerate(workers, 1):
        starts.add_metric((str(number),), reading.starts)
        if any(reading.model):
            models.add_metric((str(number), *reading.model), 1)
        for field, family in gauges.items():
            family.add_metric((str(number),), getattr(reading, field))
    yield starts
    yield models
    yield from gauges.values()


def _metrics_of(plugin: Plugin) -> list[Metric]:
    try:
        return list(plugin.metrics())
    except Exception:  # noqa: BLE001  a plugin may be anyone's code
        _log.exception("the metrics of %s are missing", type(plugin).__name__)
        return []


def _of_plugins(metrics: Iterable[Metric]) -> Iterator[Family]:
    """Group the metrics of plugins by name."""
    by_name: dict[str, list[Metric]] = {}
    for each in metrics:
        by_name.setdefault(each.name, []).append(each)
    for name, group in sorted(by_name.items()):
        labels = sorted({label for each in group for label in each.labels})
        kind = GaugeMetricFamily if group[0].kind == "gauge" else CounterMetricFamily
        family = kind(name.removesuffix("_total"), group[0].help, labels=labels)
        for each in group:
            family.add_metric([each.labels.get(label, "") for label in labels], each.value)
        yield family
