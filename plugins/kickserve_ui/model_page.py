"""The page of the model and its quality: card, reliability, scores, drift, and how the service is."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui

from kickserve.errors import StoreError
from kickserve.metrics import BOUNDS
from kickserve.plugins import Scope
from kickserve_ui import PATH
from kickserve_ui.charts import reliability, sheet
from kickserve_ui.frame import card
from kickserve_ui.site import current

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kickserve.metrics import Reading
    from kickserve.schemas import Drifted, DriftSummary, ModelCard
    from kickserve_scores.quality import Quality
    from kickserve_scores.report import QualityReport
    from kickserve_ui.frame import Visit
    from kickserve_ui.words import Words

_EVERY: Final = 2.0  # seconds between looks at the service's figures
_PREDICT: Final = "/api/v1/predict"


class ModelPage:
    """One visitor's view of the model.

    Args:
        visit: who looks, and in which language.
    """

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._words = visit.words
        self._service = current().service
        self._before: tuple[float, int] | None = None

    def build(self) -> None:
        """Make the page; what takes longer comes when it stands."""
        words = self._words
        with ui.element("div").classes("page").props("id=content"):
            ui.html(escape(words("title_model")), tag="h1", sanitize=False)
            with ui.element("div").classes("columns"):
                with card(words("card")):
                    ui.html(_card(words, self._service.predictor.model.card), sanitize=False)
                with card(words("reliability")):
                    self._reliability = ui.html("…", sanitize=False)
                with card(words("by_model")):
                    self._scores = ui.html("…", sanitize=False)
                with card(words("drift")):
                    ui.html(_drift(words, self._service.drift()), sanitize=False)
                with card(words("service")):
                    self._figures = ui.html(sanitize=False)
        ui.timer(0.01, self._show_quality, once=True)
        ui.timer(_EVERY, self._show_figures, immediate=True)

    async def _show_quality(self) -> None:
        try:
            found = await current().quality.newest()
        except StoreError:
            self._reliability.content = f"<p class='warning'>{escape(self._words('store_away'))}</p>"
            self._scores.content = ""
            return
        self._reliability.content = _reliability(self._words, found)
        self._scores.content = _scores(self._words, found)

    async def _show_figures(self) -> None:
        if not self._visit.may(Scope.READ):
            ui.navigate.reload()  # the key has been taken away: the page asks for another
            return
        health = await self._service.health()
        reading, now = self._service.metrics.read(), time.monotonic()
        before, self._before = self._before, (now, reading.predictions)
        rate = 0.0 if before is None else (reading.predictions - before[1]) / max(now - before[0], 0.001)
        self._figures.content = _facts(_figures(self._words, reading, rate, health.parts["store"]))


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f"<dl class='facts'>{rows}</dl>"


def _card(words: Words, card: ModelCard) -> str:
    simulated = "simulated" in str(card.trained_on.get("data", ""))
    badge = f"<p><span class='badge'>{escape(words('simulated'))}</span></p>" if simulated else ""
    known = [
        f"{words(f'feature_{name}')} {words.number(low)} - {words.number(high)}"
        for name, (low, high) in card.domain.items()
    ]
    pairs = [
        (words("model"), card.name),
        (words("card_revision"), card.revision),
        (words("card_kind"), card.kind),
        (words("card_source"), card.source),
        (words("card_interval"), card.interval or words("no_interval")),
        (words("card_domain"), ", ".join(known) or "-"),
        (words("card_trained"), _listed(card.trained_on)),
        (words("card_metrics"), _listed(card.metrics)),
    ]
    return f"{badge}<p class='hint'>{escape(card.description)}</p>{_facts(pairs)}"


def _listed(values: Mapping[str, Any]) -> str:
    def text(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return ", ".join(
        f"{name.replace('_', ' ')} {text(each)}"
        for name, each in values.items()
        if not isinstance(each, dict)
    )


def _reliability(words: Words, found: QualityReport) -> str:
    if found.overall is None:
        return f"<p class='hint'>{escape(words('no_outcomes'))}</p>"
    text = f"<p class='hint'>{escape(words('reliability_text'))}</p>"
    return text + reliability(words, found.overall.bins)


def _scores(words: Words, found: QualityReport) -> str:
    if found.overall is None:
        return f"<p class='hint'>{escape(words('no_outcomes'))}</p>"
    heads = [words(key) for key in ("group", "kicks", "brier", "ece", "expected", "actual")]
    rows = [_score(words, words("all_kicks"), found.overall)]
    rows += [_score(words, name, each) for name, each in found.models.items()]
    months = [_score(words, name, each) for name, each in found.months.items()]
    return sheet(heads, rows) + f"<h2>{escape(words('by_month'))}</h2>" + sheet(heads, months)


def _score(words: Words, name: str, quality: Quality) -> list[str]:
    return [
        name,
        words.number(quality.count),
        words.number(quality.brier, 3),
        words.number(quality.ece, 3),
        words.number(quality.mean_prediction * quality.count, 1),
        words.number(quality.success_rate * quality.count),
    ]


def _drift(words: Words, found: DriftSummary | None) -> str:
    if found is None:
        return f"<p class='hint'>{escape(words('no_drift'))}</p>"
    key, mark = ("drift_yes", " bad") if found.drifted else ("drift_no", "")
    badge = (
        f"<p><span class='badge{mark}'>{escape(words(key, share=words.percent(found.share, 0)))}</span></p>"
    )
    since, at = words.moment(found.since), words.moment(found.at)
    text = words("drift_text", kicks=words.number(found.kicks), since=since, at=at)
    heads = ["", words("psi"), words("mean_now"), words("mean_then")]
    table = sheet(heads, [_drifted(words, each) for each in (*found.features, found.prediction)])
    link = (
        found.report and f"<p><a href='{PATH}/report' target='_blank'>{escape(words('drift_report'))}</a></p>"
    )
    return f"{badge}<p class='hint'>{escape(text)}</p>{table}{link or ''}"


def _drifted(words: Words, each: Drifted) -> list[str]:
    mark = " ▲" if each.drifted else ""
    return [
        words(f"feature_{each.name}") + mark,
        words.number(each.psi, 3),
        words.number(each.mean, 2),
        words.number(each.reference_mean, 2),
    ]


def _figures(words: Words, reading: Reading, rate: float, store: str) -> list[tuple[str, str]]:
    times = [each.times for each in reading.routes if each.route == _PREDICT]
    latency = f"{_within(words, times, 0.5)} / {_within(words, times, 0.99)}" if times else "-"
    waiting = sum(each.journal for each in reading.workers)
    memory = sum(each.memory for each in reading.workers)
    return [
        (words("rate"), words.number(rate, 1)),
        (words("total"), words.number(reading.predictions)),
        (words("latency"), latency),
        (words("journal"), f"{words.number(waiting / 1e3, 1)} kB"),
        (words("store"), words("ok") if store == "ok" else store),
        (words("memory"), f"{words.number(memory / 1e6)} MB"),
    ]


def _within(words: Words, times: Sequence[Sequence[int]], share: float) -> str:
    """Return the bound within which such a share of the requests was answered."""
    totals = [sum(column) for column in zip(*times, strict=True)]
    wanted, sofar = share * sum(totals), 0
    for bound, count in zip(BOUNDS, totals, strict=False):
        sofar += count
        if sofar >= wanted:
            return f"{words.number(bound * 1e3, 2)} ms"
    return f"> {words.number(BOUNDS[-1])} s"
