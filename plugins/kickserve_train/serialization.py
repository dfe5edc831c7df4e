"""Makes the document of a fitted model: calibration folded in, card, domain, reference profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from kickserve.features import FEATURES, NAMES
from kickserve.plugins import (
    LinearDocument,
    LinearModel,
    Origin,
    Profile,
    expit,
    fingerprint,
    mean_shrink,
)
from kickserve_scores.explain import log_odds
from kickserve_train.calibration import Line
from kickserve_train.families import BOOSTED, LOGISTIC, RECALIBRATED, SPLINES
from kickserve_trees import model as trees
from kickserve_trees.ensembles import Sums
from kickserve_trees.model import TreesDocument, TreesModel

if TYPE_CHECKING:
    from typing import SupportsFloat

    from numpy.typing import NDArray

    from kickserve_train.boosting import BoostedFit
    from kickserve_train.dataset import Dataset
    from kickserve_train.families import LogisticFit
    from kickserve_trees.ensembles import Ensemble

Document = LinearDocument | TreesDocument

LEVELS: Final = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Levels of the quantiles in the reference profile."""

_DIGITS: Final = 10
_PROFILED: Final = 1_000  # kicks
_TINY: Final = 1e-12
_RARE: Final = 0.002  # share of the kicks beyond each end of the domain
_NEAR: Final = 0.02  # of the whole range
_DESCRIPTIONS: Final = {
    LOGISTIC: "Logistic regression on distance, on the angle that the posts open to the kicker, and on"
    " smaller terms",
    SPLINES: "Logistic regression on a surface of B-splines over distance and angle, on the angle that the"
    " posts open to the kicker, and on smaller terms; it never says that a kick from further away or further"
    " aside is easier",
    BOOSTED: "Boosted decision trees, which never say that a kick from further away or further aside is"
    " easier",
}


class Card(msgspec.Struct, kw_only=True, frozen=True):
    """The fields of a document that no fit gives, and that all kinds of documents share.

    Attributes:
        name: of the model.
        kind: family.
        ability_sd: spread of ability in log-odds; 0 where the data name no kicker, or none differs.
        trained_on: provenance.
        metrics: how good it is, and on which kicks that was measured.
        start: the model that was recalibrated, if one was.
        line: its recalibration.
    """

    name: str
    kind: str
    ability_sd: float
    trained_on: dict[str, Any]
    metrics: dict[str, Any]
    start: Document | None = None
    line: Line = Line()


def linear_document(fitted: LogisticFit, line: Line, dataset: Dataset, card: Card) -> LinearDocument:
    """Make the document of a logistic regression.

    Calibration multiplies the coefficients and moves the intercept. It is itself uncertain, so the square of
    how far it moves each kick is added to the variance. The coefficients are stretched as those of
    `kickserve_train.default`, to speak of a kicker of middling ability. Where the data name kickers, their
    mean ability is not that of all kickers: its variance, s²·Σn²/(Σn)² with n the kicks of each, is added to
    the intercept's, unless a recalibrated model's covariance holds it already.
    """
    at = fitted.terms.index("intercept")
    coefficients = fitted.coefficients * line.slope
    coefficients[at] += line.offset
    away = coefficients - fitted.coefficients
    stretch = mean_shrink(card.ability_sd)
    coefficients = coefficients * stretch
    covariance = (fitted.covariance + np.outer(away, away)) * stretch**2
    if card.start is None:
        covariance[at, at] += card.ability_sd**2 * dataset.inverse_of_kickers()
    document = LinearDocument(
        **_shared(dataset, card),
        terms=list(fitted.terms),
        coefficients=rounded(coefficients),
        covariance=rounded(covariance),
    )
    return msgspec.structs.replace(
        document, revision=fingerprint(document), reference=_reference(document, dataset, card)
    )


def trees_document(
    fitted: BoostedFit, ln_variance: Ensemble, line: Line, dataset: Dataset, card: Card
) -> TreesDocument:
    """Make the document of boosted trees."""
    document = TreesDocument(
        **_shared(dataset, card),
        log_odds=fitted.ensemble,
        slope=round_off(line.slope),
        offset=round_off(line.offset),
        ln_variance=ln_variance,
    )
    return msgspec.structs.replace(
        document, revision=trees.fingerprint(document), reference=_reference(document, dataset, card)
    )


def moved_trees_document(start: TreesDocument, error: float, dataset: Dataset, card: Card) -> TreesDocument:
    """Make the document of trees that were recalibrated.

    Args:
        start: the trees before.
        error: standard error of the level, in log-odds; it is added to that of the trees at a typical kick.
        dataset: the kicks.
        card: the rest of the document, and the line.
    """
    typical = start.slope**2 * float(np.exp(Sums([start.ln_variance]).of_many(dataset.matrix)[0]).mean())
    wider = np.log1p(error**2 / max(typical, _TINY))
    document = TreesDocument(
        **_shared(dataset, card),
        log_odds=start.log_odds,
        slope=round_off(card.line.slope * start.slope),
        offset=round_off(card.line.slope * start.offset + card.line.offset),
        ln_variance=msgspec.structs.replace(
            start.ln_variance, base=round_off(start.ln_variance.base + wider)
        ),
    )
    return msgspec.structs.replace(
        document, revision=trees.fingerprint(document), reference=_reference(document, dataset, card)
    )


def model_of(document: Document) -> LinearModel | TreesModel:
    """Make the model of a document that was just fitted."""
    origin = Origin("training", document.name)
    if isinstance(document, TreesDocument):
        return TreesModel(document, origin)
    return LinearModel(document, origin)


def encode(document: Document) -> bytes:
    """Write a document as JSON for people and `git diff`; that of trees, mere numbers, in one line."""
    data = msgspec.json.encode(document)
    return (data if isinstance(document, TreesDocument) else msgspec.json.format(data, indent=2)) + b"\n"


def profile(matrix: NDArray[np.float64], prediction: NDArray[np.float64]) -> Profile:
    """Describe kicks and their predictions, to notice later that others are unlike them.

    Args:
        matrix: kicks, shape (n, 11), n from 1, in the order of `kickserve.features.NAMES`.
        prediction: probabilities, shape (n,).
    """
    quantiles, shares = {}, {}
    for feature, column in zip(FEATURES, matrix.T, strict=True):
        if feature.kind == "flag":
            shares[feature.name] = round_off(column.mean())
        else:
            quantiles[feature.name] = rounded(np.quantile(column, LEVELS))
    return Profile(
        count=len(matrix),
        levels=list(LEVELS),
        quantiles=quantiles,
        shares=shares,
        prediction=rounded(np.quantile(prediction, LEVELS)),
    )


def domain_of(matrix: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
    """Return the ranges of the numeric features that hold nearly all kicks, shape (n, 11).

    An end that nearly is the end of the allowed range is taken to be that.
    """
    domain = {}
    for feature, column in zip(FEATURES, matrix.T, strict=True):
        low, high = (round_off(end) for end in np.quantile(column, (_RARE, 1 - _RARE)))
        # As floating point, as a file gives them back: the revision must be the same.
        least, most = float(feature.low), float(feature.high)
        near = _NEAR * (most - least)
        low = least if low <= least + near else low
        high = most if high >= most - near else high
        if feature.kind == "number" and (low, high) != (least, most):
            domain[feature.name] = (low, high)
    return domain


def round_off(value: SupportsFloat) -> float:
    """Return a number with ten digits: the digits after these differ from machine to machine."""
    return float(f"{float(value):.{_DIGITS}g}")


def rounded(values: NDArray[np.float64]) -> Any:
    """Return nested lists of the values of an array, each as of `round_off`."""
    return [rounded(each) if each.ndim else round_off(each) for each in map(np.asarray, values)]


def _shared(dataset: Dataset, card: Card) -> dict[str, Any]:
    data = card.trained_on["data"]
    return {
        "name": card.name,
        "description": f"{_description(card)}. Trained on {len(dataset):,} kicks of {data}.",
        "features": list(NAMES),
        "ability_sd": round_off(card.ability_sd),
        "domain": domain_of(dataset.matrix) if card.start is None else card.start.domain,
        "assumed": [] if card.start is None else card.start.assumed,
        "interval": _interval(dataset, card),
        "trained_on": card.trained_on,
        "metrics": card.metrics,
    }


def _description(card: Card) -> str:
    if card.start is None:
        return _DESCRIPTIONS[card.kind]
    return (
        f"The model {card.start.name}, revision {card.start.revision}, whose log-odds were multiplied by"
        f" {card.line.slope:.3f} and moved by {card.line.offset:+.3f}"
    )


def _interval(dataset: Dataset, card: Card) -> str:
    if card.kind == RECALIBRATED:
        how = (
            "the uncertainty of the model that was recalibrated, of its level and slope as of"
            f" {len(dataset):,} kicks, and of its formula"
        )
    elif card.kind == BOOSTED:
        how = (
            "the error of the trees, measured by fitting them anew to outcomes drawn from a logistic model"
            " with splines"
        )
    else:
        how = f"the uncertainty of the coefficients and of the formula, as of {len(dataset):,} kicks"
    if not card.ability_sd and dataset.kicker is None:
        return (
            "The range in which the mean probability of such kicks, over kickers of all abilities, lies in 95"
            f" of 100 cases. It covers {how}; not how kickers differ, as the data name none."
        )
    source = "as before" if dataset.kicker is None else f"estimated from {dataset.kickers:,} kickers"
    return (
        "The range in which the probability lies, in 95 of 100 cases, for a kicker of unknown ability. It"
        f" covers the spread of ability ({card.ability_sd:.2f} in log-odds, {source}) and {how}."
    )


def _reference(document: Document, dataset: Dataset, card: Card) -> Profile:
    known = card.start and card.start.reference
    if known and len(dataset) < _PROFILED:  # so few kicks are no distribution to notice a drift by
        moved = expit(card.line.apply(log_odds(np.array(known.prediction))))
        return msgspec.structs.replace(known, prediction=rounded(moved))
    return profile(dataset.matrix, model_of(document).predict(dataset.matrix).probability)
