"""Trains the model that ships with kickserve, on simulated kicks: the same bytes for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from kickserve.features import NAMES
from kickserve.plugins import (
    NORMAL_975,
    LinearDocument,
    LinearModel,
    Origin,
    expit,
    fingerprint,
    mean_shrink,
)
from kickserve_data.simulate import (
    ABILITY_SD,
    ASSUMED,
    BLOCK,
    COEFFICIENTS,
    FIGURES_KICKS,
    blocks,
    logit,
    simulate,
)
from kickserve_scores.quality import assess
from kickserve_train.families import designs, fit
from kickserve_train.serialization import profile, round_off, rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from numpy.typing import NDArray

    from kickserve_data.simulate import Kicks
    from kickserve_scores.quality import Quality
    from kickserve_train.families import Batch, LogisticFit

    Advance = Callable[[int], None]

DEFAULT_SIZE: Final = 1_000_000
DEFAULT_SEED: Final = 2026
MEASURED: Final = 16 * BLOCK
"""Fresh simulated kicks that the metrics are measured on."""
PASSES: Final = 5
"""Passes over all of the simulated kicks that Newton's method takes at most, once it begins nearly right."""

_NAME: Final = "simulated"
_DESCRIPTION: Final = (
    "Logistic regression on distance, on the angle that the posts open to the kicker, and on eleven smaller"
    " terms. Trained on kicks simulated from published figures, not on recorded kicks."
)
_INTERVAL: Final = (
    "The range in which the probability lies, in 95 of 100 cases, for a kicker of unknown ability: the spread"
    f" of ability ({ABILITY_SD} in log-odds) and the uncertainty of the coefficients as of the"
    f" {FIGURES_KICKS:,} kicks that the published figures rest on. Beyond 60 m, of which they say next to"
    " nothing, the assumed steeper fall may be none or twice as steep."
)
_FAR: Final = "beyond_60"
_DOMAIN: Final = {"distance": (5.0, 60.0), "angle": (0.0, 60.0)}


def train_default(
    *, size: int = DEFAULT_SIZE, seed: int = DEFAULT_SEED, advance: Advance = lambda _: None
) -> LinearDocument:
    """Train the model that ships with kickserve, on simulated kicks.

    The outcomes are drawn with the kicker's ability in them, which a fit that can't see it answers with
    coefficients drawn towards 0, by √(1 + π·s²/8) for an ability of spread s (Zeger, Liang & Albert 1988,
    with the constant of MacKay 1992, as in `LinearModel`). They are stretched back, so that they speak of a
    kicker of middling ability. Their covariance is that of a fit to as many kicks as the published figures
    rest on: more simulated kicks cost nothing, and make nothing more certain. Only the term beyond 60 m,
    where those kicks are next to none, has an error of its own: its 95 % go from no effect to twice the
    assumed one.

    Args:
        size: kicks to fit to.
        seed: of the simulation, 0 or more; the metrics are measured on kicks of the seed after it.
        advance: called with each count of kicks that were read: at most `PASSES` times `size` for the fit,
            and `MEASURED` for the metrics.

    Returns:
        The same document for the same size and seed, to the last digit.

    Raises:
        InvalidInput: size or seed is out of its range.
        DataError: too few kicks to determine the coefficients.
    """
    terms = list(COEFFICIENTS)
    # A first fit to one block is nearly right, and saves passes over all of the kicks.
    first = fit(lambda: designs(_simulated(min(size, BLOCK), seed), terms), terms)
    fitted = fit(lambda: designs(_simulated(size, seed, advance), terms), terms, start=first.coefficients)
    stretch = mean_shrink(ABILITY_SD)
    document = LinearDocument(
        name=_NAME,
        description=_DESCRIPTION,
        features=list(NAMES),
        terms=terms,
        coefficients=rounded(fitted.coefficients * stretch),
        covariance=rounded(_covariance(fitted, stretch)),
        ability_sd=ABILITY_SD,
        domain=_DOMAIN,
        assumed=list(ASSUMED),
        interval=_INTERVAL,
        trained_on={
            "data": "kicks simulated from published figures",
            "simulated": True,
            "size": size,
            "seed": seed,
            "covariance_scaled_to": FIGURES_KICKS,
        },
        metrics={},
    )
    return _measured(document, seed + 1, advance)


def _covariance(fitted: LogisticFit, stretch: float) -> NDArray[np.float64]:
    covariance = fitted.covariance * (stretch**2 * fitted.kicks / FIGURES_KICKS)
    far = fitted.terms.index(_FAR)
    covariance[far] = covariance[:, far] = 0
    covariance[far, far] = (COEFFICIENTS[_FAR] / NORMAL_975) ** 2
    return covariance


def _simulated(size: int, seed: int, advance: Advance = lambda _: None) -> Iterator[Batch]:
    for kicks in blocks(size, seed):
        yield kicks.matrix, kicks.success
        advance(len(kicks))


def _measured(document: LinearDocument, seed: int, advance: Advance) -> LinearDocument:
    model, columns = LinearModel(document, Origin("training", _NAME)), []
    for kicks in blocks(MEASURED, seed):
        columns.append(_columns(model, kicks))
        advance(len(kicks))
    prediction, formula, success, inside = (np.concatenate(each) for each in zip(*columns, strict=True))
    best = _plain(assess(formula, success))
    metrics = {
        "measured_on": f"{MEASURED:,} other simulated kicks; no recorded kick is among them",
        "seed": seed,
        **_plain(assess(prediction, success)),
        "interval_coverage": round_off(inside.mean()),
        # No model can honestly beat the formula that drew the kicks: its figures are there to compare with.
        **{f"formula_{name}": best[name] for name in ("brier", "log_loss", "ece", "auc")},
    }
    return msgspec.structs.replace(
        document,
        revision=fingerprint(document),
        metrics=metrics,
        reference=profile(simulate(BLOCK, seed).matrix, prediction[:BLOCK]),
    )


def _columns(model: LinearModel, kicks: Kicks) -> tuple[NDArray[Any], ...]:
    """Return the model's prediction, the formula's, the outcome, and whether the interval held the truth."""
    prediction, low, high = model.predict(kicks.matrix)
    return (
        prediction,
        expit(logit(kicks.matrix) / mean_shrink(ABILITY_SD)),
        kicks.success,
        (np.asarray(low) <= kicks.probability) & (kicks.probability <= np.asarray(high)),
    )


def _plain(quality: Quality) -> dict[str, Any]:
    """Return quality as the file has it: rounded, and without the bins, which only a picture needs."""
    return {
        name: round_off(value) if isinstance(value, float) else value
        for name, value in msgspec.structs.asdict(quality).items()
        if name != "bins"
    }
