"""The model page: card, reliability, scores, drift, and the state of the service."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from nicegui import ui

from kickserve.plugins import BOUNDS, Scope, StoreError, newest_drift
from kickserve_ui.backend import current_backend
from kickserve_ui.layout import card
from kickserve_ui.rendering import hint, render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kickserve.plugins import Reading
    from kickserve.schemas import DriftSummary, ModelCard
    from kickserve_scores.quality import Quality
    from kickserve_scores.report import QualityReport
    from kickserve_ui.layout import Visitor
    from kickserve_ui.messages import Messages

_POLL: Final = 2.0  # seconds between looks at the metrics
_PREDICT: Final = "/api/v1/predict"


class ModelPage:
    """A visitor's view of the model."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._messages = visitor.messages
        self._backend = current_backend()
        self._before: tuple[float, int] | None = None  # time of the last look, and predictions by then

    def build(self) -> None:
        """Make the page; the quality follows when it has been assessed."""
        messages = self._messages
        with ui.element("div").classes("page").props("id=content"):
            ui.html(escape(messages("title_model")), tag="h1", sanitize=False)
            with ui.element("div").classes("columns"):
                with card(messages("card")):
                    ui.html(_card(messages, self._backend.served.model.card), sanitize=False)
                with card(messages("reliability")):
                    self._reliability = ui.html("…", sanitize=False)
                with card(messages("by_model")):
                    self._scores = ui.html("…", sanitize=False)
                with card(messages("drift")):
                    ui.html(_drift(messages, newest_drift(self._backend.app)), sanitize=False)
                with card(messages("service")):
                    self._facts = ui.html(sanitize=False)
        ui.timer(0.01, self._show_quality, once=True)
        ui.timer(_POLL, self._show_metrics, immediate=True)

    async def _show_quality(self) -> None:
        try:
            found = await self._backend.quality()
        except StoreError:
            self._reliability.content = f"<p class='warning'>{escape(self._messages('store_away'))}</p>"
            self._scores.content = ""
        else:
            self._reliability.content = _reliability(self._messages, found)
            self._scores.content = _scores(self._messages, found)

    async def _show_metrics(self) -> None:
        if not self._visitor.may(Scope.READ):
            ui.navigate.reload()  # the key has been removed: the page asks for another
            return
        store = await self._backend.app.recorder.store_state()
        reading, now = self._backend.app.metrics.read(), time.monotonic()
        before, self._before = self._before, (now, reading.predictions)
        rate = 0.0 if before is None else (reading.predictions - before[1]) / max(now - before[0], 0.001)
        pairs = _metrics(self._messages, reading, rate, store)
        self._facts.content = render("facts", self._messages, pairs=pairs)


def _card(messages: Messages, card: ModelCard) -> str:
    domain = [
        f"{messages(f'feature_{name}')} {messages.number(low)} - {messages.number(high)}"
        for name, (low, high) in card.domain.items()
    ]
    pairs = [
        (messages("model"), card.name),
        (messages("card_revision"), card.revision),
        (messages("card_kind"), card.kind),
        (messages("card_source"), card.source),
        (messages("card_interval"), card.interval or messages("no_interval")),
        (messages("card_domain"), ", ".join(domain) or "-"),
        (messages("card_trained"), _list(card.trained_on)),
        (messages("card_metrics"), _list(card.metrics)),
    ]
    simulated = "simulated" in str(card.trained_on.get("data", ""))
    return render("model", messages, card=card, pairs=pairs, simulated=simulated)


def _list(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {f'{each:.4g}' if isinstance(each, float) else each}"
        for name, each in values.items()
        if not isinstance(each, dict)
    )


def _reliability(messages: Messages, found: QualityReport) -> str:
    if found.overall is None:
        return hint(messages("no_outcomes"))
    bins = found.overall.bins
    return render("reliability", messages, bins=bins, most=max(each.count for each in bins))


def _scores(messages: Messages, found: QualityReport) -> str:
    if found.overall is None:
        return hint(messages("no_outcomes"))
    heads = [messages(key) for key in ("group", "kicks", "brier", "ece", "expected", "actual")]
    groups = {messages("all_kicks"): found.overall, **found.models}
    tables = {
        name: [_score(messages, *item) for item in quality.items()]
        for name, quality in (("groups", groups), ("months", found.months))
    }
    return render("scores", messages, heads=heads, **tables)


def _score(messages: Messages, name: str, quality: Quality) -> list[str]:
    return [
        name,
        messages.number(quality.count),
        messages.number(quality.brier, 3),
        messages.number(quality.ece, 3),
        messages.number(quality.mean_prediction * quality.count, 1),
        messages.number(quality.success_rate * quality.count),
    ]


def _drift(messages: Messages, found: DriftSummary | None) -> str:
    if found is None:
        return hint(messages("no_drift"))
    heads = ["", *(messages(key) for key in ("psi", "mean_now", "mean_then"))]
    rows = [
        [
            messages(f"feature_{each.name}") + (" ▲" if each.drifted else ""),
            messages.number(each.psi, 3),
            messages.number(each.mean, 2),
            messages.number(each.reference_mean, 2),
        ]
        for each in (*found.features, found.prediction)
    ]
    return render("drift", messages, found=found, heads=heads, rows=rows)


def _metrics(messages: Messages, reading: Reading, rate: float, store: str) -> list[tuple[str, str]]:
    times = [each.times for each in reading.routes if each.route == _PREDICT]
    latency = f"{_within(messages, times, 0.5)} / {_within(messages, times, 0.99)}" if times else "-"
    journal = sum(each.journal for each in reading.workers)
    memory = sum(each.memory for each in reading.workers)
    return [
        (messages("rate"), messages.number(rate, 1)),
        (messages("total"), messages.number(reading.predictions)),
        (messages("latency"), latency),
        (messages("journal"), f"{messages.number(journal / 1e3, 1)} kB"),
        (messages("store"), messages("ok") if store == "ok" else store),
        (messages("memory"), f"{messages.number(memory / 1e6)} MB"),
    ]


def _within(messages: Messages, times: Sequence[Sequence[int]], fraction: float) -> str:
    """Return the bound within which such a fraction of the requests was answered."""
    upto = np.cumsum(np.sum(times, axis=0))
    at = int(np.searchsorted(upto, fraction * upto[-1]))
    if at == len(BOUNDS):
        return f"> {messages.number(BOUNDS[-1])} s"
    return f"{messages.number(BOUNDS[at] * 1e3, 2)} ms"
