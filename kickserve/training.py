"""Fits the linear model; the default one on simulated kicks, the same bytes for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from kickserve.errors import DataError
from kickserve.features import FEATURES, NAMES
from kickserve.models.linear import LinearDocument, LinearModel, Profile, expit, fingerprint, mean_shrink
from kickserve.models.terms import expand
from kickserve.quality import assess
from kickserve.simulate import ABILITY_SD, BLOCK, COEFFICIENTS, FIGURES_KICKS, blocks, logit, simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Any, SupportsFloat

    from kickserve.quality import Quality
    from kickserve.simulate import Kicks

    Batch = tuple[NDArray[np.float64], NDArray[np.bool_]]
    Batches = Callable[[], Iterable[Batch]]
    Progress = Callable[[int, int], None]

DEFAULT_SIZE: Final = 1_000_000
DEFAULT_SEED: Final = 2026
MEASURED: Final = 16 * BLOCK
"""Fresh simulated kicks that the metrics are measured on."""

LEVELS: Final = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Levels of the quantiles in the reference profile."""

_STEPS: Final = 25  # Newton's method takes about seven
_PASSES: Final = 5  # of them, over all of the simulated kicks
_ENOUGH: Final = 1e-6  # a step this small, in standard errors: after it the error is that squared
_TOGETHER: Final = 1e-10  # smallest eigenvalue of the standardised information; smaller is noise
_DIGITS: Final = 10

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


class Fit(NamedTuple):
    """A logistic regression.

    Attributes:
        coefficients: shape (k,), log-odds.
        covariance: shape (k, k), of the coefficients: the inverse of Fisher's information.
        kicks: how many it was fitted to.
    """

    coefficients: NDArray[np.float64]
    covariance: NDArray[np.float64]
    kicks: int


def fit(batches: Batches, terms: Sequence[str], *, start: NDArray[np.float64] | None = None) -> Fit:
    """Fit a logistic regression by maximum likelihood.

    Newton's method, which for this likelihood is iteratively reweighted least squares (McCullagh & Nelder
    1989, section 2.5). It reads the kicks anew in each step and keeps only sums of them, so that memory
    does not grow with their number.

    Args:
        batches: gives all kicks each time that it is called, the same in the same order: pairs of features,
            shape (n, 11), and success, shape (n,).
        terms: k names out of `kickserve.models.terms.TERMS`.
        start: where to begin, shape (k,); by default at 0.

    Raises:
        DataError: the kicks don't determine the coefficients.
    """
    coefficients = np.zeros(len(terms)) if start is None else start
    for _ in range(_STEPS):
        gradient, information, count = _add_up(batches, terms, coefficients)
        covariance = _inverse(information, terms)
        change = covariance @ gradient
        coefficients = coefficients + change
        if np.abs(change / np.sqrt(np.diag(covariance))).max() < _ENOUGH:
            return Fit(coefficients, covariance, count)
    raise DataError(
        "the fit does not settle, most likely because some term tells success from failure without error:"
        " give more kicks, of both outcomes"
    )


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
        coefficients=_rounded(fitted.coefficients * stretch),
        covariance=_rounded(fitted.covariance * (stretch**2 * fitted.kicks / FIGURES_KICKS)),
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


def encode(document: LinearDocument) -> bytes:
    """Write a document as JSON for people and `git diff`, with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def write_default(
    path: Path, *, size: int = DEFAULT_SIZE, seed: int = DEFAULT_SEED, progress: Progress | None = None
) -> LinearDocument:
    """Train the model that ships with kickserve and write its file; see `train_default`."""
    document = train_default(size=size, seed=seed, progress=progress)
    path.write_bytes(encode(document))
    return document


def profile(matrix: NDArray[np.float64], prediction: NDArray[np.float64]) -> Profile:
    """Describe kicks and their predictions, to notice later that others are unlike them.

    Args:
        matrix: kicks, shape (n, 11), n from 1, in the order of `kickserve.features.NAMES`.
        prediction: probabilities, shape (n,).
    """
    quantiles, shares = {}, {}
    for feature, column in zip(FEATURES, matrix.T, strict=True):
        if feature.kind == "flag":
            shares[feature.name] = _round(column.mean())
        else:
            quantiles[feature.name] = _rounded(np.quantile(column, LEVELS))
    return Profile(
        count=len(matrix),
        levels=list(LEVELS),
        quantiles=quantiles,
        shares=shares,
        prediction=_rounded(np.quantile(prediction, LEVELS)),
    )


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


def _add_up(
    batches: Batches, terms: Sequence[str], coefficients: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Gradient of the log-likelihood, shape (k,), Fisher's information, shape (k, k), and the count of kicks.

    `einsum` adds in one order, where a matrix product splits the work over threads: the sums, and with them
    the bytes of the model file, must not depend on the machine's number of cores.
    """
    gradient = np.zeros(len(terms))
    information = np.zeros((len(terms), len(terms)))
    count = 0
    for matrix, success in batches():
        x = expand(matrix, terms)
        p = expit(np.einsum("ij,j->i", x, coefficients))
        gradient += np.einsum("ij,i->j", x, success - p)
        information += np.einsum("ij,ik->jk", x * (p * (1 - p))[:, np.newaxis], x)
        count += len(x)
    return gradient, information, count


def _inverse(information: NDArray[np.float64], terms: Sequence[str]) -> NDArray[np.float64]:
    diagonal = np.diag(information)
    if diagonal.min() <= 0:
        raise DataError(
            f"the kicks say nothing about {terms[int(diagonal.argmin())]}: give more kicks, where it differs"
        )
    # To the same scale first: a term in metres and one of shares differ by thousands.
    scale = np.sqrt(diagonal)
    standard = information / np.outer(scale, scale)
    if np.linalg.eigvalsh(standard)[0] < _TOGETHER:
        raise DataError(
            f"the kicks can't tell the terms {', '.join(terms)} apart: give more kicks, or fewer terms"
        )
    inverse = np.linalg.inv(standard) / np.outer(scale, scale)
    result: NDArray[np.float64] = (inverse + inverse.T) / 2  # rounding leaves it not quite symmetric
    return result


def _measured(document: LinearDocument, seed: int, meter: _Meter) -> LinearDocument:
    model = LinearModel(document, _NAME)
    columns = [_judge(model, kicks) for kicks in meter.measuring(blocks(MEASURED, seed))]
    prediction, formula, success, inside = (np.concatenate(each) for each in zip(*columns, strict=True))
    sample = simulate(BLOCK, seed).matrix
    best = _plain(assess(formula, success))
    metrics = {
        "measured_on": f"{MEASURED:,} other simulated kicks; no recorded kick is among them",
        "seed": seed,
        **_plain(assess(prediction, success)),
        "interval_coverage": _round(inside.mean()),
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
    low, high = model.interval(kicks.matrix)
    return (
        model.predict(kicks.matrix).probability,
        expit(logit(kicks.matrix) / mean_shrink(ABILITY_SD)),
        kicks.success,
        (low <= kicks.probability) & (kicks.probability <= high),
    )


def _plain(quality: Quality) -> dict[str, Any]:
    """Quality as the file has it: rounded, and without the bins, which only a picture needs."""
    return {
        name: _round(value) if isinstance(value, float) else value
        for name, value in msgspec.structs.asdict(quality).items()
        if name != "bins"
    }


def _round(value: SupportsFloat) -> float:
    return float(f"{float(value):.{_DIGITS}g}")


def _rounded(values: NDArray[np.float64]) -> Any:
    """Nested lists of the values with fewer digits: what differs from machine to machine is cut off."""
    return [_rounded(each) if each.ndim else _round(each) for each in map(np.asarray, values)]
