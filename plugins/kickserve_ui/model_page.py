"""The model page: what the model is, how good it is, whether kicks have drifted, the state of the service."""

from __future__ import annotations

import re
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from msgspec.structs import replace
from nicegui import ui

from kickserve.plugins import BOUNDS, Scope, StoreError, newest_drift
from kickserve.schemas import DriftSummary
from kickserve_ui.backend import current_backend
from kickserve_ui.heat_map import about
from kickserve_ui.layout import card
from kickserve_ui.rendering import ROOT, hint, render

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kickserve.plugins import Reading
    from kickserve.schemas import CalibrationChange, ModelCard
    from kickserve_scores.quality import Bin, Quality
    from kickserve_scores.report import QualityReport
    from kickserve_ui.layout import Visitor
    from kickserve_ui.messages import Messages

_POLL: Final = 2.0  # seconds between looks at the metrics
_ASSESS: Final = 20.0  # seconds between looks at the quality, which the backend shares among visitors
_PREDICT: Final = "/api/v1/predict"
_SHIFTS: Final = {"shift_large": 0.25, "shift_some": 0.1, "shift_none": 0.0}  # the usual reading of a PSI


def show_model(visitor: Visitor) -> None:
    """Make the page; what takes time or changes follows."""
    _ModelPage(visitor).build()


class _ModelPage:
    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._messages = visitor.messages
        self._backend = current_backend()
        self._revision = self._backend.served.model.card.revision

    def build(self) -> None:
        messages, model = self._messages, self._backend.served.model
        with ui.element("div").classes("page").props("id=content"):
            ui.html(escape(messages("title_model")), tag="h1", sanitize=False)
            with ui.element("div").classes("columns"):
                with card(messages("card", name=model.card.name)):
                    ui.html(_card(messages, model.card), sanitize=False)
                with card(messages("reliability")):
                    self._reliability = ui.html("…", sanitize=False)
                with card(messages("how_good")):
                    self._scores = ui.html(_scores(messages, model.card.metrics, None), sanitize=False)
                    self._live = ui.html(sanitize=False)
                    link = f'<a href="{ROOT.get()}/compare">{escape(messages("compare_link"))}</a>'
                    ui.html(link, tag="p", sanitize=False)
                with card(messages("drift")):
                    self._drift = ui.html(sanitize=False)
                with card(messages("service")):
                    self._facts = ui.html(sanitize=False)
        ui.timer(_POLL, self._show_service, immediate=True)
        ui.timer(_ASSESS, self._show_quality, immediate=True)

    async def _show_quality(self) -> None:
        messages, model = self._messages, self._backend.served.model
        self._drift.content = drift_html(messages, newest_drift(self._backend.app))
        bins = await self._backend.simulated_bins()
        try:
            found = await self._backend.quality()
        except StoreError:
            self._live.content = f"<p class='warning'>{escape(messages('store_away'))}</p>"
            self._reliability.content = _reliability(messages, bins, [])
            return
        overall = found.overall
        self._reliability.content = _reliability(messages, bins, overall.bins if overall else [])
        self._scores.content = _scores(messages, model.card.metrics, overall)
        self._live.content = _groups(messages, found)

    async def _show_service(self) -> None:
        if not self._visitor.may(Scope.READ) or self._backend.served.model.card.revision != self._revision:
            ui.navigate.reload()  # to ask for another key, or to show another model
            return
        state = await self._backend.app.recorder.store_state()
        self._facts.content = _service(self._messages, self._backend.app.metrics.read(), state)


def _card(messages: Messages, card: ModelCard) -> str:
    details = [
        (messages("card_revision"), card.revision),
        (messages("card_kind"), card.kind),
        (messages("card_source"), card.source),
        (messages("card_trained"), _list(card.trained_on)),
        (messages("card_metrics"), _list(card.metrics)),
    ]
    return render(
        "model",
        messages,
        card=card,
        simulated=about(card)["simulated"],
        domain=[_range(messages, name, *ends) for name, ends in card.domain.items()],
        assumed=[messages(f"feature_{name}") for name in card.assumed],
        details=details,
    )


def _range(messages: Messages, name: str, low: float, high: float) -> str:
    ends = {"low": messages.number(low), "high": messages.number(high)}
    return messages("range", name=messages(f"feature_{name}"), **ends)


def _list(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {f'{each:.4g}' if isinstance(each, float) else each}"
        for name, each in values.items()
        if not isinstance(each, dict | list)
    )


def _reliability(messages: Messages, trained: Sequence[Bin], known: Sequence[Bin]) -> str:
    """Draw success rates over predictions: of simulated kicks, and of those with a known outcome."""
    if not trained and not known:
        return hint(messages("no_outcomes"))
    groups = [
        (name, bins, max(each.count for each in bins))
        for name, bins in (("trained", trained), ("known", known))
        if bins
    ]
    return render("reliability", messages, groups=groups)


def _scores(messages: Messages, metrics: Mapping[str, Any], known: Quality | None) -> str:
    """Compare what the card says of the model's quality with its live quality, in words."""
    percent, number = messages.percent, messages.number
    ways: dict[str, tuple[str, Callable[[Any], str]]] = {
        "kicks": ("count", number),
        "expected": ("mean_prediction", percent),
        "actual": ("success_rate", percent),
        "off_by": ("ece", lambda value: messages("points", value=number(100 * value, 1))),
        "order_right": ("auc", lambda value: messages("of_100", count=number(100 * value))),
        "brier": ("brier", lambda value: number(value, 3)),
    }
    rows = []
    for key, (name, write) in ways.items():
        live_value = getattr(known, name, None)
        trained = metrics.get(name)
        if trained is not None or live_value is not None:
            cells = [trained, live_value] if known else [trained]
            rows.append([messages(key), *("-" if each is None else write(each) for each in cells)])
    heads = ["", messages("in_training"), *([messages("live")] if known else [])]
    return render("scores", messages, heads=heads, rows=rows, known=known)


def _groups(messages: Messages, found: QualityReport) -> str:
    """Return quality by model and month, and what the alarm has heard, where outcomes are known."""
    if found.overall is None:
        return ""
    heads = [messages(key) for key in ("group", "kicks", "expected", "actual", "brier")]
    tables = [
        (messages(title), heads, [_group(messages, *item) for item in groups.items()])
        for title, groups in (("by_model", found.models), ("by_month", found.months))
    ]
    changes = [
        _alarm(messages, each.change) for each in found.calibration.values() if each.change is not None
    ]
    return render("groups", messages, tables=tables, changes=changes)


def _group(messages: Messages, name: str, quality: Quality) -> list[str]:
    return [
        name,
        messages.number(quality.count),
        messages.number(quality.mean_prediction * quality.count, 1),
        messages.number(quality.success_rate * quality.count),
        messages.number(quality.brier, 3),
    ]


def drift_html(messages: Messages, found: DriftSummary | None) -> str:
    """Return a summary of drift: its verdict, each feature, and the alarm on outcomes."""
    if found is None:
        return hint(messages("no_drift"))
    heads = ["", *(messages(key) for key in ("shift", "mean_now", "mean_then"))]
    rows = [
        [
            messages(f"feature_{each.name}") + (" ▲" if each.drifted else ""),
            messages(next(key for key, lowest in _SHIFTS.items() if each.psi >= lowest)),
            messages.number(each.mean, 2),
            messages.number(each.reference_mean, 2),
        ]
        for each in (*found.features, found.prediction)
    ]
    change = None if found.calibration is None else found.calibration.change
    alarm = "" if change is None else _alarm(messages, change)
    return render("drift", messages, found=found, heads=heads, rows=rows, alarm=alarm)


def with_summary(messages: Messages, page: bytes, summary: bytes) -> bytes:
    """Return the page of a full report, which is in English, behind its summary in the visitor's language.

    Args:
        messages: of the visitor.
        page: HTML.
        summary: the report as JSON.
    """
    found = replace(msgspec.json.decode(summary, type=DriftSummary), report=None)
    head = render("report_head", messages, summary=drift_html(messages, found)).encode()
    return re.sub(rb"<body[^>]*>", lambda body: body[0] + head, page, count=1)


def _alarm(messages: Messages, change: CalibrationChange) -> str:
    """Say what outcomes have shown, and since when."""
    size, *ends = (100 * abs(each) for each in (change.difference, *change.difference_interval))
    low, high = sorted(ends)
    since = messages.moment(change.since) if isinstance(change.since, datetime) else str(change.since)
    values = {
        "size": messages.number(size, 1),
        "low": messages.number(low, 1),
        "high": messages.number(high, 1),
    }
    return messages(f"alarm_{change.what.replace(' ', '_')}", **values, since=since)


def _service(messages: Messages, reading: Reading, store: str) -> str:
    times = [each.times for each in reading.routes if each.route == _PREDICT]
    latency = f"{_within(messages, times, 0.5)} / {_within(messages, times, 0.99)}" if times else "-"
    journal = sum(each.journal for each in reading.workers)
    waiting = f"{messages.number(journal / 1e3, 1)} kB" if journal else messages("nothing_waits")
    memory = sum(each.memory for each in reading.workers)
    pairs = [
        (messages("total"), messages.number(reading.predictions)),
        (messages("latency"), latency),
        (messages("journal"), waiting),
        (messages("store"), messages("ok") if store == "ok" else store),
        (messages("memory"), f"{messages.number(memory / 1e6)} MB"),
    ]
    return render("facts", messages, pairs=pairs)


def _within(messages: Messages, times: Sequence[Sequence[int]], fraction: float) -> str:
    """Return the bound within which such a fraction of the requests was answered."""
    upto = np.cumsum(np.sum(times, axis=0))
    at = int(np.searchsorted(upto, fraction * upto[-1]))
    if at == len(BOUNDS):
        return f"> {messages.number(BOUNDS[-1])} s"
    return f"{messages.number(BOUNDS[at] * 1e3, 2)} ms"
