"""Trains the model that ships with kickserve, on simulated kicks: the same bytes for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from kickserve.documents import expit, mean_shrink
from kickserve.features import NAMES
from kickserve.linear import LinearDocument, LinearModel, fingerprint
from kickserve.model import Origin
from kickserve_data.simulate import ABILITY_SD, BLOCK, COEFFICIENTS, FIGURES_KICKS, blocks, logit, simulate
from kickserve_scores.quality import assess
from kickserve_train.logistic import fit
from kickserve_train.profiles import profile, round_off, rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from numpy.typing import NDArray

    from kickserve_data.simulate import Kicks
    from kickserve_scores.quality import Quality
    from kickserve_train.logistic import Batch

    Progress = Callable[[int, int], None]

DEFAULT_SIZE: Final = 1_000_000
DEFAULT_SEED: Final = 2026
MEASURED: Final = 16 * BLOCK
"""Fresh simulated kicks that the metrics are measured on."""

_PASSES: Final = 5  # that Newton's method takes, about, over all of the simulated kicks

_NAME: Final = "simulated"
_DESCRIPTION: Final = (
    "Logistic regression on distance, on the angle that the posts open to the kicker, and on eleven smaller"
    " terms. Trained on kicks simulated from published figures, not on recorded kicks."
)
_INTERVAL: Final = (
    "The range in which the probability lies, in 95 of 100 cases, for a kicker of unknown ability: the spread"
    f" of ability ({ABILITY_SD} in log-odds) and the uncertainty of the coefficients as of the"
    f" {FIGURES_KICKS:,} kicks that the published figures rest on."
)
_DOMAIN: Final = {"distance": (5.0, 60.0), "angle": (0.0, 60.0)}


def train_default(
    *, size: int = DEFAULT_SIZE, seed: int = DEFAULT_SEED, progress: Progress | None = None
) -> LinearDocument:
    """Train the model that ships with kickserve, on simulated kicks.

    The outcomes are drawn with the kicker's ability in them, which a fit that can't see it answers with
    coefficients drawn towards 0, by √(1 + π·s²/8) for an ability of spread s (Zeger, Liang & Albert 1988,
    with the constant of MacKay 1992, which is what `LinearModel` undoes it with). They are stretched back, so
    that they speak of a kicker of middling ability. Their covariance is that of a fit to as many kicks as
    the published figures rest on: that simulated kicks cost nothing makes nothing more certain.

    Args:
        size: kicks to fit to.
        seed: of the simulation, 0 or more; the metrics are measured on kicks of the seed after it.
        progress: called now and then with the work done and the whole of it, in kicks.

    Returns:
        The same document for the same size and seed, to the last digit.

    Raises:
        InvalidInput: size or seed is out of its range.
        DataError: too few kicks to determine the coefficients.
    """
    terms = list(COEFFICIENTS)
    meter = _Meter(progress, _PASSES * size + MEASURED)
    # A first fit to one block is nearly right, and saves passes over all of the kicks.
    first = fit(lambda: _simulated(min(size, BLOCK), seed), terms)
    fitted = fit(lambda: meter.over(_simulated(size, seed)), terms, start=first.coefficients)
    stretch = mean_shrink(ABILITY_SD)
    document = LinearDocument(
        name=_NAME,
        description=_DESCRIPTION,
        features=list(NAMES),
        terms=terms,
        coefficients=rounded(fitted.coefficients * stretch),
        covariance=rounded(fitted.covariance * (stretch**2 * fitted.kicks / FIGURES_KICKS)),
        ability_sd=ABILITY_SD,
        domain=_DOMAIN,
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
    document = _measured(document, seed + 1, meter)
    meter.finish()
    return document


class _Meter:
    """Tells how much of the work is done."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def over(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            yield batch
            self._advance(len(batch[0]))

    def measuring(self, parts: Iterable[Kicks]) -> Iterator[Kicks]:
        for kicks in parts:
            yield kicks
            self._advance(len(kicks))

    def finish(self) -> None:
        self._tell(self._total)

    def _advance(self, count: int) -> None:
        # A pass more than foreseen must not show more than all of the work.
        self._tell(min(self._done + count, self._total))

    def _tell(self, done: int) -> None:
        self._done = done
        if self._progress:
            self._progress(done, self._total)


def _simulated(size: int, seed: int) -> Iterator[Batch]:
    return ((kicks.matrix, kicks.success) for kicks in blocks(size, seed))


def _measured(document: LinearDocument, seed: int, meter: _Meter) -> LinearDocument:
    model = LinearModel(document, Origin("training", _NAME))
    columns = [_judge(model, kicks) for kicks in meter.measuring(blocks(MEASURED, seed))]
    prediction, formula, success, inside = (np.concatenate(each) for each in zip(*columns, strict=True))
    sample = simulate(BLOCK, seed).matrix
    best = _plain(assess(formula, success))
    metrics = {
        "measured_on": f"{MEASURED:,} other simulated kicks; no recorded kick is among them",
        "seed": seed,
        **_plain(assess(prediction, success)),
        "interval_coverage": round_off(inside.mean()),
        # No model can honestly beat the formula that drew the kicks: the model's figures stand beside it.
        **{f"formula_{name}": best[name] for name in ("brier", "log_loss", "ece", "auc")},
    }
    return msgspec.structs.replace(
        document,
        revision=fingerprint(document),
        metrics=metrics,
        reference=profile(sample, prediction[:BLOCK]),
    )


def _judge(model: LinearModel, kicks: Kicks) -> tuple[NDArray[Any], ...]:
    """What the model says, what the formula says, what came of it, and whether the interval held."""
    said, low, high = model.predict(kicks.matrix)
    return (
        said,
        expit(logit(kicks.matrix) / mean_shrink(ABILITY_SD)),
        kicks.success,
        (np.asarray(low) <= kicks.probability) & (kicks.probability <= np.asarray(high)),
    )


def _plain(quality: Quality) -> dict[str, Any]:
    """Quality as the file has it: rounded, and without the bins, which only a picture needs."""
    return {
        name: round_off(value) if isinstance(value, float) else value
        for name, value in msgspec.structs.asdict(quality).items()
        if name != "bins"
    }
