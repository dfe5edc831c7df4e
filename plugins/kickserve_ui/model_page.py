"""The model page: card, reliability, scores, drift, and the state of the service."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui

from kickserve.errors import StoreError
from kickserve.metrics import BOUNDS
from kickserve.plugins import Scope
from kickserve_ui import PATH
from kickserve_ui.backend import current_backend
from kickserve_ui.layout import card, hint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kickserve.metrics import Reading
    from kickserve.schemas import Drifted, DriftSummary, ModelCard
    from kickserve_scores.quality import Bin, Quality
    from kickserve_scores.report import QualityReport
    from kickserve_ui.layout import Visitor
    from kickserve_ui.messages import Messages

_POLL: Final = 2.0  # seconds between looks at the metrics
_PREDICT: Final = "/api/v1/predict"
_SIZE: Final = 300  # of the diagram
_MARGIN: Final = 44


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
                    ui.html(_drift(messages, self._backend.drift()), sanitize=False)
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
        store = await self._backend.recorder.store_state()
        reading, now = self._backend.metrics(), time.monotonic()
        before, self._before = self._before, (now, reading.predictions)
        rate = 0.0 if before is None else (reading.predictions - before[1]) / max(now - before[0], 0.001)
        self._facts.content = _facts(_metrics(self._messages, reading, rate, store))


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f"<dl class='facts'>{rows}</dl>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; all columns but the first hold numbers."""
    head = "".join(
        f"<th scope='col'{' class=end' if at else ''}>{escape(each)}</th>" for at, each in enumerate(heads)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=end' if at else ''}>{escape(each)}</td>" for at, each in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class='scroll' tabindex='0'><table class='sheet'><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _card(messages: Messages, card: ModelCard) -> str:
    simulated = "simulated" in str(card.trained_on.get("data", ""))
    badge = f"<p><span class='badge'>{escape(messages('simulated'))}</span></p>" if simulated else ""
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
    return f"{badge}{hint(card.description)}{_facts(pairs)}"


def _list(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {f'{each:.4g}' if isinstance(each, float) else each}"
        for name, each in values.items()
        if not isinstance(each, dict)
    )


def _reliability(messages: Messages, found: QualityReport) -> str:
    if found.overall is None:
        return hint(messages("no_outcomes"))
    return hint(messages("reliability_text")) + _diagram(messages, found.overall.bins)


def _diagram(messages: Messages, bins: Sequence[Bin]) -> str:
    """Draw success rates over predictions: a circle a group of kicks, larger for a larger group."""

    def x(fraction: float) -> float:
        return _MARGIN + _SIZE * fraction

    def y(fraction: float) -> float:
        return 10 + _SIZE * (1 - fraction)

    percent, most = messages.percent, max(each.count for each in bins)
    circles = "".join(
        f"<circle cx='{x(each.mean_prediction):.1f}' cy='{y(each.success_rate):.1f}'"
        f" r='{3 + 4 * (each.count / most) ** 0.5:.1f}'><title>{percent(each.mean_prediction)} →"
        f" {percent(each.success_rate)} ({messages.number(each.count)})</title></circle>"
        for each in bins
    )
    ticks = "".join(
        f"<text x='{x(at):.0f}' y='{_SIZE + 26}' text-anchor='middle'>{percent(at, 0)}</text>"
        f"<text x='{_MARGIN - 8}' y='{y(at) + 4:.0f}' text-anchor='end'>{percent(at, 0)}</text>"
        for at in (0, 0.25, 0.5, 0.75, 1)
    )
    predicted, happened = escape(messages("predicted")), escape(messages("happened"))
    return (
        f"<svg class='diagram' viewBox='0 0 {_SIZE + _MARGIN + 20} {_SIZE + 52}' role='img'"
        f" aria-label='{escape(messages('reliability'))}'>"
        f"<rect class='frame' x='{_MARGIN}' y='10' width='{_SIZE}' height='{_SIZE}'/>"
        f"<path class='ideal' d='M{x(0)} {y(0)}L{x(1)} {y(1)}'/>{ticks}{circles}"
        f"<text x='{x(0.5)}' y='{_SIZE + 46}' text-anchor='middle'>{predicted}</text>"
        f"<text transform='translate(11 {y(0.5)}) rotate(-90)' text-anchor='middle'>{happened}</text></svg>"
    )


def _scores(messages: Messages, found: QualityReport) -> str:
    if found.overall is None:
        return hint(messages("no_outcomes"))
    heads = [messages(key) for key in ("group", "kicks", "brier", "ece", "expected", "actual")]
    groups = {messages("all_kicks"): found.overall, **found.models}
    by_group, by_month = (
        _table(heads, [_score(messages, name, each) for name, each in quality.items()])
        for quality in (groups, found.months)
    )
    return f"{by_group}<h2>{escape(messages('by_month'))}</h2>{by_month}"


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
    key, mark = ("drift_yes", " bad") if found.drifted else ("drift_no", "")
    verdict = escape(messages(key, share=messages.percent(found.share, 0)))
    since, at = messages.moment(found.since), messages.moment(found.at)
    text = messages("drift_text", kicks=messages.number(found.kicks), since=since, at=at)
    heads = ["", messages("psi"), messages("mean_now"), messages("mean_then")]
    table = _table(heads, [_drifted(messages, each) for each in (*found.features, found.prediction)])
    link = ""
    if found.report:
        label = escape(messages("drift_report"))
        link = f"<p><a href='{PATH}/report' target='_blank'>{label}</a></p>"
    return f"<p><span class='badge{mark}'>{verdict}</span></p>{hint(text)}{table}{link}"


def _drifted(messages: Messages, each: Drifted) -> list[str]:
    mark = " ▲" if each.drifted else ""
    return [
        messages(f"feature_{each.name}") + mark,
        messages.number(each.psi, 3),
        messages.number(each.mean, 2),
        messages.number(each.reference_mean, 2),
    ]


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
    totals = [sum(column) for column in zip(*times, strict=True)]
    wanted, sofar = fraction * sum(totals), 0
    for bound, count in zip(BOUNDS, totals, strict=False):
        sofar += count
        if sofar >= wanted:
            return f"{messages.number(bound * 1e3, 2)} ms"
    return f"> {messages.number(BOUNDS[-1])} s"
