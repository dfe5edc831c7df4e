"""Trains a model on kicks whose outcome is known: search, calibration, interval, card, comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from msgspec import Struct

from kickserve.documents import expit
from kickserve.errors import KickserveError
from kickserve.model import predict
from kickserve_train.ability import ability_spread
from kickserve_train.calibration import Calibration, calibrate
from kickserve_train.checks import Findings
from kickserve_train.families import BOOSTED, splines
from kickserve_train.folds import SEARCHED, folds_of, groups_of, sample_of
from kickserve_train.making import Document, Facts, linear_document, trees_document
from kickserve_train.measures import Judge, Measured, Value, bins_of
from kickserve_train.profiles import round_off
from kickserve_train.search import Candidate, candidates_of, choose, cross_validate, families_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kickserve.model import Model
    from kickserve_train.data import Known

    Progress = Callable[[int, int, str], None]

FOLDS: Final = 5
_AT_THE_END: Final = 2  # steps: the fit to all kicks, and the comparison


class Order(Struct, kw_only=True, frozen=True):
    """What is asked for.

    Attributes:
        name: of the model.
        data: what the data are called on the card.
        kind: family, out of `kickserve_train.families.KINDS`; null for the one that does best.
        seed: of folds, draws and fits.
        folds: of the cross-validation.
    """

    name: str
    data: str
    kind: str | None = None
    seed: int = 0
    folds: int = FOLDS


class InUse(Struct, kw_only=True, frozen=True):
    """How the model in use does on the same kicks.

    Attributes:
        name: of the model in use.
        revision: of it.
        seen: whether it was trained on these very kicks, so that its figures flatter it.
        measured: how good it is.
        difference: the new model's measures less its own; below 0 is better, but for the AUC.
    """

    name: str
    revision: str
    seen: bool
    measured: Measured
    difference: Measured


class Report(Struct, kw_only=True, frozen=True):
    """What training came to.

    Attributes:
        name: of the model.
        kind: the family that was chosen.
        asked_for: whether it was asked for by name.
        revision: of the model.
        findings: what the data are like.
        compared_on: kicks that families were compared on.
        candidates: the families, from simple to rich.
        measured: how good the model is on kicks that it had not seen, calibrated if that is kept.
        calibration_gain: by how much calibration lowers the log loss.
        calibrated: whether it is kept.
        ability_sd: spread of ability in log-odds; null where the data name no kicker.
        in_use: the model in use on the same kicks; null where there is none to compare with.
        warnings: what to know of the model.
    """

    name: str
    kind: str
    asked_for: bool
    revision: str
    findings: Findings
    compared_on: int
    candidates: list[Candidate]
    measured: Measured
    calibration_gain: Value
    calibrated: bool
    ability_sd: float | None
    in_use: InUse | None
    warnings: list[str]


def teach(
    known: Known,
    findings: Findings,
    order: Order,
    in_use: Model | None = None,
    progress: Progress | None = None,
) -> tuple[Document, Report]:
    """Train a model.

    Args:
        known: the kicks.
        findings: what `kickserve_train.checks.check` found in them.
        order: what is asked for.
        in_use: a model to compare with; None for none.
        progress: called after each step with the steps done, all of them, and what is under way.

    Returns:
        The same document and report for the same kicks and order.

    Raises:
        DataError: the kicks don't determine a model.
        MissingExtra: a family is asked for that needs scikit-learn, and it is not installed.
    """
    return _Lesson(known, findings, order, progress).run(in_use)


class _Lesson:
    """One training, from the kicks to the document."""

    def __init__(
        self, known: Known, findings: Findings, order: Order, progress: Progress | None = None
    ) -> None:
        self._all = known
        self._findings = findings
        self._order = order
        groups = groups_of(known)
        chosen = sample_of(groups, SEARCHED, order.seed)
        self._known = known if len(chosen) == len(known) else known.take(chosen)
        self._groups = np.unique(groups[chosen], return_inverse=True)[1].ravel()
        self._folds = folds_of(self._groups, order.folds, order.seed)
        self._judge = Judge(self._known.success, self._groups, order.seed)
        self._families, left_out = families_for(known, order.kind)
        self._warnings = [*findings.warnings, *left_out]
        self._steps = _Steps(progress, len(self._families) * order.folds + _AT_THE_END)

    def run(self, in_use: Model | None) -> tuple[Document, Report]:
        found = cross_validate(
            self._families, self._known, self._folds, self._order.seed, self._steps.advance
        )
        candidates = candidates_of(found, self._judge)
        kind = choose(candidates)
        calibration = calibrate(found[kind], self._known.success, self._folds, self._judge)
        prediction = expit(calibration.log_odds)
        measured = self._judge.measure(prediction)
        self._warn(measured, candidates[0].measured)
        compared = self._compare(in_use, prediction)
        self._warn_of_better(compared)
        ability = self._ability(calibration)
        facts = Facts(
            name=self._order.name,
            kind=kind,
            ability_sd=ability or 0.0,
            trained_on=self._provenance(kind),
            metrics=self._metrics(prediction, measured, candidates, calibration, compared),
        )
        document = self._document(kind, calibration, facts)
        self._steps.finish()
        return document, Report(
            name=self._order.name,
            kind=kind,
            asked_for=self._order.kind is not None,
            revision=document.revision,
            findings=self._findings,
            compared_on=len(self._known),
            candidates=candidates,
            measured=measured,
            calibration_gain=calibration.gain,
            calibrated=calibration.kept,
            ability_sd=ability,
            in_use=compared,
            warnings=self._warnings,
        )

    def _warn(self, measured: Measured, constant: Measured) -> None:
        if len(self._known) < len(self._all):
            self._warnings.append(
                f"families were compared on {len(self._known):,} of the {len(self._all):,} kicks,"
                " and the model is fitted to all"
            )
        if measured.log_loss.value + measured.log_loss.se > constant.log_loss.value:
            self._warnings.append("the model is hardly better than always saying the share of successes")

    def _warn_of_better(self, compared: InUse | None) -> None:
        if compared is None or compared.seen:
            return
        more = compared.difference.log_loss
        if more.value > 0:
            sure = "" if more.value > more.se else ", though within one standard error"
            self._warnings.append(
                f"the model in use, {compared.name}, does better on these kicks{sure}: keep it for now"
            )

    def _ability(self, calibration: Calibration) -> float | None:
        if self._known.kicker is None:
            return None
        number = np.unique(self._known.kicker, return_inverse=True)[1].ravel()
        return ability_spread(calibration.log_odds, self._known.success, number)

    def _compare(self, in_use: Model | None, prediction: NDArray[np.float64]) -> InUse | None:
        if in_use is None:
            return None
        try:
            other = predict(in_use, self._known.matrix).probability
        except KickserveError as error:
            self._warnings.append(f"no comparison with the model in use: {error}")
            return None
        return InUse(
            name=in_use.card.name,
            revision=in_use.card.revision,
            seen=in_use.card.trained_on.get("kicks_sha256") == self._all.digest(),
            measured=self._judge.measure(other),
            difference=self._judge.difference(prediction, other),
        )

    def _document(self, kind: str, calibration: Calibration, facts: Facts) -> Document:
        family: Any = next(each for each in self._families if each.kind == kind)
        if kind == BOOSTED:
            return self._boosted(family, calibration, facts)
        return linear_document(family.fit(self._all, self._order.seed), calibration.line, self._all, facts)

    def _boosted(self, family: Any, calibration: Calibration, facts: Facts) -> Document:
        from kickserve_train.boosting import REFITS, errors_of

        self._steps.add(REFITS)
        fitted = family.fit(self._all, self._order.seed)
        # On the kicks of the search: to more of them the error is smaller, so this is on the safe side.
        smooth = splines(self._known).fit(self._known)

        def advance() -> None:
            self._steps.advance("measuring the error")

        ln_variance = errors_of(fitted, smooth, self._known, self._order.seed, advance)
        return trees_document(fitted, ln_variance, calibration.line, self._all, facts)

    def _provenance(self, kind: str) -> dict[str, Any]:
        return {
            "data": self._order.data,
            "simulated": False,
            "kicks": len(self._all),
            "successes": self._findings.successes,
            "kickers": self._findings.kickers,
            "refused": self._findings.refused,
            "kicks_sha256": self._all.digest(),
            "family": kind,
            "seed": self._order.seed,
            "warnings": self._warnings,
        }

    def _metrics(
        self,
        prediction: NDArray[np.float64],
        measured: Measured,
        candidates: list[Candidate],
        calibration: Calibration,
        compared: InUse | None,
    ) -> dict[str, Any]:
        success = self._known.success
        together = "kickers" if self._known.kicker is not None else "equal kicks"
        metrics = {
            "measured_on": f"{self._order.folds}-fold cross-validation on {len(success):,} kicks, {together}"
            " kept together",
            "count": len(success),
            "mean_prediction": round_off(prediction.mean()),
            "success_rate": round_off(success.mean()),
            **_flat(measured),
            "calibrated": calibration.kept,
            "log_loss_by_family": {each.kind: round_off(each.measured.log_loss.value) for each in candidates},
            "reliability": [
                [round_off(each.mean_prediction), round_off(each.success_rate), each.count]
                for each in bins_of(prediction, success)
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


class _Steps:
    """Tells how much of the work is done."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def add(self, count: int) -> None:
        self._total += count

    def advance(self, what: str) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, self._total, what)

    def finish(self) -> None:
        self._done = self._total - 1
        self.advance("done")


def _flat(measured: Measured) -> dict[str, float]:
    """Return measures and their errors side by side, as the card has them."""
    values: dict[str, Value] = msgspec.structs.asdict(measured)
    errors = {f"{name}_se": round_off(value.se) for name, value in values.items()}
    return {name: round_off(value.value) for name, value in values.items()} | errors
