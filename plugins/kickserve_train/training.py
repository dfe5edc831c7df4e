"""Trains a model: compares families, among them the current model recalibrated, calibrates, and fits."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from msgspec import Struct

from kickserve.plugins import (
    KickserveError,
    LinearModel,
    MissingExtra,
    expit,
    load_default,
    predict,
)
from kickserve_data import DataError
from kickserve_scores.quality import assess
from kickserve_train.calibration import Calibration, Line, ability_spread, calibrate
from kickserve_train.checks import too_few
from kickserve_train.dataset import folds_of, groups_of, sample_of
from kickserve_train.evaluation import (
    Candidate,
    Evaluator,
    Measure,
    Measures,
    candidates_of,
    choose,
    cross_validate,
)
from kickserve_train.families import (
    BOOSTED,
    KINDS,
    LOGISTIC,
    RECALIBRATED,
    SPLINES,
    Logistic,
    constant,
    logistic,
    splines,
)
from kickserve_train.recalibration import LEVEL_SD, Recalibrated, RecalibratedFit, posterior_of
from kickserve_train.report import CurrentModel, TrainingReport
from kickserve_train.serialization import (
    Card,
    Document,
    linear_document,
    moved_trees_document,
    round_off,
    trees_document,
)
from kickserve_trees.model import TreesModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kickserve.plugins import Model
    from kickserve_train.boosting import Boosted
    from kickserve_train.checks import DataSummary
    from kickserve_train.dataset import Dataset

    Progress = Callable[[int, int, str], None]
    Family = Logistic | Boosted | Recalibrated

FOLDS: Final = 5
SEARCHED: Final = 50_000
"""Kicks that families of models are compared on, at most."""

STARTS: Final = ("current", "packaged", "none")
"""The models that can be recalibrated, and none for families from scratch alone."""

_LAST_STEPS: Final = 2  # the fit to all kicks, and the comparison
_TELLING: Final = 0.9  # AUC; no honest model of place kicks comes near
_MORE_TELLING: Final = 0.05  # than the packaged model, whose kicks may be as easy to tell apart


class TrainingConfig(Struct, kw_only=True, frozen=True):
    """The options of a training.

    Attributes:
        name: of the model.
        data: name of the data on the model's card.
        kind: family, out of `kickserve_train.families.KINDS`; None for the one that does best.
        start: the model that is recalibrated, out of `STARTS`.
        force: only warn where the features tell the outcome better than any honest model can.
        seed: of folds, draws and fits.
        folds: of the cross-validation.
    """

    name: str
    data: str
    kind: str | None = None
    start: str = "current"
    force: bool = False
    seed: int = 0
    folds: int = FOLDS


class TrainingRun:
    """One training, from the kicks to the document: the same for the same kicks and options.

    Args:
        dataset: the kicks.
        summary: of the kicks, as `kickserve_train.checks.check` makes it.
        config: the options.
        current: the model in use, if there is one.
        progress: called after each step with the steps done, all of them, and the name of the work.

    Raises:
        DataError: the kicks are too few for the family of the options.
        MissingExtra: that family needs scikit-learn, and it is not installed.
    """

    def __init__(
        self,
        dataset: Dataset,
        summary: DataSummary,
        config: TrainingConfig,
        current: Model | None = None,
        progress: Progress = lambda *_: None,
    ) -> None:
        self._all = dataset
        self._summary = summary
        self._config = config
        groups = groups_of(dataset)
        chosen = sample_of(groups, SEARCHED, config.seed)
        self._sample = dataset if len(chosen) == len(dataset) else dataset.take(chosen)
        self._groups = np.unique(groups[chosen], return_inverse=True)[1].ravel()
        self._folds = folds_of(self._groups, config.folds, config.seed)
        self._evaluator = Evaluator(self._sample.success, self._groups, config.seed)
        self._current = current
        self._warnings = list(summary.warnings)
        start = self._start()
        self._families, left_out = families_for(dataset, config.kind, start)
        self._warnings += left_out
        self._moved: Line | None = None
        self._progress = progress
        self._done, self._steps = 0, len(self._families) * config.folds + _LAST_STEPS

    def run(self) -> tuple[Document, TrainingReport]:
        """Train, and compare with the current model, if there is one.

        Raises:
            DataError: the kicks don't determine a model, or their features can't be right.
        """
        found = cross_validate(self._families, self._sample, self._folds, self._config.seed, self._advance)
        candidates = candidates_of(found, self._evaluator)
        self._check_leak(candidates)
        kind = choose(candidates)
        calibration = self._calibrate(kind, found[kind])
        prediction = expit(calibration.log_odds)
        measured = self._evaluator.measure(prediction)
        self._warn(measured, candidates[0].measured)
        compared = None if self._current is None else self._compare(self._current, prediction)
        ability = self._ability(calibration)
        card = Card(
            name=self._config.name,
            kind=kind,
            ability_sd=ability or 0.0,
            trained_on=self._provenance(kind),
            metrics=self._metrics(prediction, measured, candidates, calibration, compared),
        )
        self._advance("fitting")
        document = self._document(kind, calibration, card)
        self._advance("done")
        return document, TrainingReport(
            name=self._config.name,
            kind=kind,
            asked_for=self._config.kind is not None,
            revision=document.revision,
            findings=self._summary,
            compared_on=len(self._sample),
            candidates=candidates,
            measured=measured,
            calibration_gain=calibration.gain,
            calibrated=calibration.kept,
            recalibration=self._moved and self._moved._asdict(),
            ability_sd=ability,
            in_use=compared,
            warnings=self._warnings,
        )

    def _advance(self, work: str) -> None:
        self._done += 1
        self._progress(self._done, self._steps, work)

    def _warn(self, measured: Measures, share: Measures) -> None:
        if len(self._sample) < len(self._all):
            self._warnings.append(
                f"families were compared on {len(self._sample):,} of the {len(self._all):,} kicks,"
                " and the model is fitted to all"
            )
        if measured.log_loss.value + measured.log_loss.se > share.log_loss.value:
            self._warnings.append("the model is hardly better than always saying the share of successes")

    def _compare(self, current: Model, prediction: NDArray[np.float64]) -> CurrentModel | None:
        try:
            other = predict(current, self._sample.matrix).probability
        except KickserveError as error:
            self._warnings.append(f"no comparison with the model in use: {error}")
            return None
        compared = CurrentModel(
            name=current.card.name,
            revision=current.card.revision,
            seen=current.card.trained_on.get("kicks_sha256") == self._all.digest(),
            measured=self._evaluator.measure(other),
            difference=self._evaluator.difference(prediction, other),
        )
        more = compared.difference.log_loss
        if more.value > 0 and not compared.seen:
            sure = "" if more.value > more.se else ", though within one standard error"
            self._warnings.append(
                f"the model in use, {compared.name}, does better on these kicks{sure}: keep it for now"
            )
        return compared

    def _start(self) -> LinearModel | TreesModel | None:
        """Return the model to recalibrate; the packaged one where that in use can't be, or saw the kicks."""
        current = self._current
        if self._config.start == "none":
            return None
        if self._config.start == "packaged" or current is None:
            return load_default()
        if not isinstance(current, LinearModel | TreesModel):
            why = "is of a kind that can't be recalibrated"
        elif current.card.trained_on.get("kicks_sha256") == self._all.digest():
            why = "was trained on these very kicks"
        elif current.card.trained_on.get("data") == self._config.data:
            why = f"was trained on kicks of a file {self._config.data} too"
        else:
            return current
        self._warnings.append(
            f"the model in use, {current.card.name}, {why}: recalibrated is the packaged model instead"
        )
        return load_default()

    def _check_leak(self, candidates: list[Candidate]) -> None:
        best = max(candidates, key=lambda each: each.measured.auc.value)
        packaged = self._evaluator.measure(load_default().predict(self._sample.matrix).probability).auc
        if best.measured.auc.value < max(_TELLING, packaged.value + _MORE_TELLING):
            return
        doubt = (
            f"the features together tell the outcome as no kick lets them (AUC {best.measured.auc.value:.4f},"
            f" and {packaged.value:.4f} by the packaged model): is one of them made from it?"
        )
        if not self._config.force:
            raise DataError(f"{doubt} If the data are right all the same, --force trains on them")
        self._warnings.append(doubt)

    def _calibrate(self, kind: str, log_odds: NDArray[np.float64]) -> Calibration:
        if kind == RECALIBRATED:  # it is a calibration itself
            return Calibration(Line(), log_odds, Measure(value=0.0, se=0.0), kept=False)
        return calibrate(log_odds, self._sample.success, self._folds, self._evaluator)

    def _ability(self, calibration: Calibration) -> float | None:
        if self._sample.kicker is None:
            return None
        number = np.unique(self._sample.kicker, return_inverse=True)[1].ravel()
        return ability_spread(calibration.log_odds, self._sample.success, number)

    def _document(self, kind: str, calibration: Calibration, card: Card) -> Document:
        family = next(each for each in self._families if each.kind == kind)
        if isinstance(family, Recalibrated):
            return self._recalibrated(family.fit(self._all), card)
        if isinstance(family, Logistic):
            fitted = family.fit(self._all)
            if kind != SPLINES:
                fitted = fitted.with_misfit(splines(self._all).fit(self._all))
            return linear_document(fitted, calibration.line, self._all, card)
        from kickserve_train.boosting import REFITS, fit_variance

        self._steps += REFITS
        trees = family.fit(self._all, self._config.seed)
        # On the kicks of the search: to more of them the error is smaller, so this is on the safe side.
        smooth = splines(self._sample).fit(self._sample)
        ln_variance = fit_variance(trees, smooth, self._sample, self._config.seed, self._advance)
        return trees_document(trees, ln_variance, calibration.line, self._all, card)

    def _recalibrated(self, fitted: RecalibratedFit, card: Card) -> Document:
        start = fitted.start
        line = self._moved = Line(fitted.slope, fitted.offset)
        card = msgspec.structs.replace(
            card,
            start=start.document,
            line=line,
            ability_sd=start.document.ability_sd if self._all.kicker is None else card.ability_sd,
            trained_on=card.trained_on
            | {
                "recalibrated": start.card.name,
                "recalibrated_revision": start.card.revision,
                "slope": round_off(line.slope),
                "offset": round_off(line.offset),
            },
        )
        if isinstance(start, LinearModel):
            fitted_terms = posterior_of(fitted, start.document, self._all, card.ability_sd)
            return linear_document(fitted_terms, Line(), self._all, card)
        p = expit(fitted.log_odds(self._all.matrix))
        error = float((np.sum(p * (1 - p)) + LEVEL_SD**-2) ** -0.5)
        return moved_trees_document(start.document, error, self._all, card)

    def _provenance(self, kind: str) -> dict[str, Any]:
        return {
            "data": self._config.data,
            "simulated": False,
            "kicks": len(self._all),
            "successes": self._summary.successes,
            "kickers": self._summary.kickers,
            "refused": self._summary.refused,
            "kicks_sha256": self._all.digest(),
            "family": kind,
            "seed": self._config.seed,
            "warnings": self._warnings,
        }

    def _metrics(
        self,
        prediction: NDArray[np.float64],
        measured: Measures,
        candidates: list[Candidate],
        calibration: Calibration,
        compared: CurrentModel | None,
    ) -> dict[str, Any]:
        quality = assess(prediction, self._sample.success)
        together = "kickers" if self._sample.kicker is not None else "equal kicks"
        metrics = {
            "measured_on": f"{self._config.folds}-fold cross-validation on {quality.count:,} kicks,"
            f" {together} kept together",
            "count": quality.count,
            "mean_prediction": round_off(quality.mean_prediction),
            "success_rate": round_off(quality.success_rate),
            **_flat(measured),
            "calibrated": calibration.kept,
            "log_loss_by_family": {each.kind: round_off(each.measured.log_loss.value) for each in candidates},
            "reliability": [
                [round_off(each.mean_prediction), round_off(each.success_rate), each.count]
                for each in quality.bins
            ],
        }
        if compared is not None:
            metrics["compared_with"] = {
                "name": compared.name,
                "revision": compared.revision,
                "seen": compared.seen,
                **_flat(compared.measured),
            }
        return metrics


def families_for(
    dataset: Dataset, kind: str | None, start: LinearModel | TreesModel | None
) -> tuple[list[Family], list[str]]:
    """Make the families to compare, from simple to rich; return warnings of the ones left out.

    Args:
        dataset: the kicks, for the choice of terms; their outcomes are not looked at.
        kind: the family of the options, which is then the only one beside the constant.
        start: the model to recalibrate; None to compare only families from scratch.

    Raises:
        DataError: the kicks are too few for that family, or there is nothing to recalibrate.
        MissingExtra: that family needs scikit-learn, and it is not installed.
    """
    kinds = KINDS if kind is None else (kind,)
    families: list[Family] = [constant(dataset)]
    if RECALIBRATED in kinds and start is not None:
        families.append(Recalibrated(start))
    few = too_few(dataset)
    if few and len(families) > 1:
        return families, [f"{few}: only a recalibrated model is fitted"]
    if few:
        raise DataError(few)
    if kind == RECALIBRATED:
        if start is None:
            raise DataError("there is no model to recalibrate: name one with --start")
        return families, []
    families += [make(dataset) for name, make in ((LOGISTIC, logistic), (SPLINES, splines)) if name in kinds]
    if BOOSTED not in kinds:
        return families, []
    if find_spec("sklearn") is None:
        error = MissingExtra("boosting", "train", ["scikit-learn"])
        if kind == BOOSTED:
            raise error
        return families, [f"boosted trees are not among what was compared: {error}"]
    from kickserve_train.boosting import Boosted

    return [*families, Boosted()], []


def _flat(measured: Measures) -> dict[str, float]:
    """Return measures and their errors side by side, as the card has them."""
    measures: dict[str, Measure] = msgspec.structs.asdict(measured)
    values = {name: round_off(each.value) for name, each in measures.items()}
    return values | {f"{name}_se": round_off(each.se) for name, each in measures.items()}
