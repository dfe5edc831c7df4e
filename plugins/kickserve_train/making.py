"""Makes the document of a model that was fitted: calibration folded in, interval, domain and card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from kickserve import linear
from kickserve.documents import mean_shrink
from kickserve.features import NAMES
from kickserve.linear import LinearDocument, LinearModel
from kickserve.model import Origin
from kickserve_train.families import BOOSTED, LOGISTIC, SPLINES
from kickserve_train.profiles import domain_of, profile, round_off, rounded
from kickserve_trees import model as trees
from kickserve_trees.model import TreesDocument, TreesModel

if TYPE_CHECKING:
    from kickserve.model import Profile
    from kickserve_train.boosting import BoostedFitted
    from kickserve_train.calibration import Line
    from kickserve_train.data import Known
    from kickserve_train.families import LogisticFitted
    from kickserve_trees.ensembles import Ensemble

Document = LinearDocument | TreesDocument

_WHAT: Final = {
    LOGISTIC: "Logistic regression on distance, on the angle that the posts open to the kicker, and on"
    " smaller terms",
    SPLINES: "Logistic regression on natural cubic splines of distance and angle, on the angle that the"
    " posts open to the kicker, and on smaller terms",
    BOOSTED: "Boosted decision trees, which never say that a kick from further away or further aside is"
    " easier",
}


class Facts(msgspec.Struct, kw_only=True, frozen=True):
    """What the card says beside numbers, and what all kinds of documents share.

    Attributes:
        name: of the model.
        kind: family.
        ability_sd: spread of ability in log-odds; 0 where the data name no kicker, or none differs.
        trained_on: provenance.
        metrics: how good it is, and on what that was measured.
    """

    name: str
    kind: str
    ability_sd: float
    trained_on: dict[str, Any]
    metrics: dict[str, Any]


def linear_document(fitted: LogisticFitted, line: Line, known: Known, facts: Facts) -> LinearDocument:
    """Make the document of a logistic regression.

    Calibration multiplies the coefficients and moves the intercept. The coefficients are stretched as those
    of `kickserve_train.default`, to speak of a kicker of middling ability. Where the data name kickers,
    the mean of those who happen to be in it is not that of all: its variance, s²·Σn²/(Σn)² with n the kicks
    of each, is added to the intercept's.
    """
    stretch = mean_shrink(facts.ability_sd) * line.slope
    coefficients = fitted.found.coefficients * stretch
    covariance = fitted.found.covariance * stretch**2
    at = fitted.terms.index("intercept")
    coefficients[at] += line.offset * mean_shrink(facts.ability_sd)
    covariance[at, at] += facts.ability_sd**2 * _share_of_a_kicker(known)
    document = LinearDocument(
        **_shared(known, facts),
        terms=fitted.terms,
        coefficients=rounded(coefficients),
        covariance=rounded(covariance),
    )
    return msgspec.structs.replace(
        document, revision=linear.fingerprint(document), reference=_reference(document, known)
    )


def trees_document(
    fitted: BoostedFitted, ln_variance: Ensemble, line: Line, known: Known, facts: Facts
) -> TreesDocument:
    """Make the document of boosted trees."""
    document = TreesDocument(
        **_shared(known, facts),
        log_odds=fitted.ensemble,
        slope=round_off(line.slope),
        offset=round_off(line.offset),
        ln_variance=ln_variance,
    )
    return msgspec.structs.replace(
        document, revision=trees.fingerprint(document), reference=_reference(document, known)
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


def _shared(known: Known, facts: Facts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "description": f"{_WHAT[facts.kind]}. Trained on {len(known):,} kicks of {facts.trained_on['data']}.",
        "features": list(NAMES),
        "ability_sd": round_off(facts.ability_sd),
        "domain": domain_of(known.matrix),
        "interval": _interval(known, facts),
        "trained_on": facts.trained_on,
        "metrics": facts.metrics,
    }


def _interval(known: Known, facts: Facts) -> str:
    if facts.kind == BOOSTED:
        how = (
            "the error of the trees, measured by fitting them anew to outcomes drawn from a logistic model"
            " with splines"
        )
    else:
        how = f"the uncertainty of the coefficients, as of {len(known):,} kicks"
    if known.kicker is None:
        return (
            "The range in which the mean probability of such kicks, over kickers of all abilities, lies in 95"
            f" of 100 cases. It covers {how}; not how kickers differ, as the data name none."
        )
    return (
        "The range in which the probability lies, in 95 of 100 cases, for a kicker of unknown ability. It"
        f" covers the spread of ability ({facts.ability_sd:.2f} in log-odds, estimated from {known.kickers:,}"
        f" kickers) and {how}."
    )


def _share_of_a_kicker(known: Known) -> float:
    """Return Σn²/(Σn)² over the kickers: 1 over their number, where all have as many kicks."""
    if known.kicker is None:
        return 0.0
    counts = np.bincount(known.kicker).astype(np.float64)
    return float(np.sum(counts**2) / np.sum(counts) ** 2)


def _reference(document: Document, known: Known) -> Profile:
    return profile(known.matrix, model_of(document).predict(known.matrix).probability)
