"""Explains a prediction: each feature's share of the log-odds (Shapley values)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve.features import BY_NAME, COUNT, FEATURES, named
from kickserve.loading import profile_of
from kickserve.model import HasProfile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kickserve.model import Profile
    from kickserve.predictor import ServedModel

_SUREST: Final = 1e-9  # keeps the log-odds of a probability of 0 or 1 finite


class Share(Struct, kw_only=True, frozen=True):
    """The effect of one feature on a prediction.

    Attributes:
        feature: its name.
        value: of this kick.
        average: of the average kick.
        share: of the log-odds; above 0 it makes success likelier.
        assumed: whether the model's effect of this feature was assumed, as no data show it.
    """

    feature: str
    value: float | bool
    average: float | bool
    share: float
    assumed: bool


class Explanation(Struct, kw_only=True, frozen=True):
    """The difference between the probability of a kick and that of the average kick, feature by feature.

    The shares add up to `log_odds - average_log_odds`, but for rounding.

    Attributes:
        model: name of the model that is explained.
        revision: its exact revision.
        prediction: probability of success, as `/predict` gives it.
        log_odds: ln(p / (1 - p)) of it.
        average_prediction: the same of the average kick, a single kick whose features are the averages of the
            training data.
        average_log_odds: its log-odds.
        mean_prediction: mean of the predictions of the training data, which is not that of their average
            kick: many kicks are much harder than it, and none is much easier. Null where the model brings no
            profile.
        shares: one a feature, the largest first.
    """

    model: str
    revision: str
    prediction: float
    log_odds: float
    average_prediction: float
    average_log_odds: float
    mean_prediction: float | None
    shares: list[Share]


def average_kick(profile: Profile) -> NDArray[np.float64]:
    """Return the average kick of the training data of a model, shape (11,).

    Of a number it has the mean (the integral of the quantile function), of a flag the commoner value: a model
    can't predict a kick with half a left foot.
    """
    return np.array([_average(profile, name) for name in BY_NAME])


def _average(profile: Profile, name: str) -> float:
    if BY_NAME[name].kind == "flag":
        return float(profile.shares[name] > 0.5)  # noqa: PLR2004  more than half of the kicks
    return _mean(profile, profile.quantiles[name])


def _mean(profile: Profile, quantiles: list[float]) -> float:
    values = np.array(quantiles)
    return float(np.diff(profile.levels) @ (values[1:] + values[:-1]) / 2)


def mixtures(row: NDArray[np.float64], average: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return every mixture of a kick and the average one: the coalitions of Shapley's game.

    Args:
        row: the kick, shape (11,).
        average: the average one, shape (11,).

    Returns:
        Shape (2ᵏ, 11), k being how many of its features differ: 2,048 at most. Row m takes the kick's value
        of the j-th of those features where bit j of m is set. The first is the average kick, the last the
        kick itself.
    """
    differing = np.flatnonzero(row != average)
    chosen = _members(len(differing))
    result = np.tile(average, (len(chosen), 1))
    result[:, differing] = np.where(chosen, row[differing], average[differing])
    return result


def shares(
    row: NDArray[np.float64], average: NDArray[np.float64], probability: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Divide the difference in log-odds between a kick and the average one among the features.

    These are Shapley values (Shapley 1953, "A value for n-person games"), exact, as a kick has few enough
    features to ask a model about every coalition of them; for a model whose log-odds are a weighted sum of
    the features, they are weight times difference.

    Args:
        row: the kick, shape (11,).
        average: the average one, shape (11,).
        probability: the prediction for each of the `mixtures`, shape (2ᵏ,).

    Returns:
        Shape (11,); 0 where a feature is the same in both.
    """
    differing = np.flatnonzero(row != average)
    members = _members(len(differing))
    weights = _weights(len(differing))[members.sum(axis=1)]
    value = log_odds(probability)
    result = np.zeros(COUNT)
    for at, feature in enumerate(differing):
        without = np.flatnonzero(~members[:, at])
        result[feature] = weights[without] @ (value[without | 1 << at] - value[without])
    return result


def log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ln(p / (1 - p)), finite also for 0 and 1."""
    p = np.clip(probability, _SUREST, 1 - _SUREST)
    result: NDArray[np.float64] = np.log(p / (1 - p))
    return result


@cache
def _members(count: int) -> NDArray[np.bool_]:
    """Return the members of each coalition of k features, shape (2ᵏ, k)."""
    result: NDArray[np.bool_] = (np.arange(1 << count)[:, None] >> np.arange(count) & 1) == 1
    return result


@cache
def _weights(count: int) -> NDArray[np.float64]:
    """Return Shapley's weights |S|!·(k - |S| - 1)!/k! by the size of the coalition that one joins."""
    # 1 / (k · C(k - 1, |S|)), the next from the one before; no feature is left to join the whole.
    weights = [1.0 / max(count, 1)]
    for size in range(1, count):
        weights.append(weights[-1] * size / (count - size))
    return np.array([*weights, 0.0])


async def explain(served: ServedModel, row: Sequence[float]) -> Explanation:
    """Explain the prediction of one kick. Nothing is recorded.

    Args:
        served: the model that is served.
        row: the kick's eleven numbers, in the order of `kickserve.features.NAMES`.

    Raises:
        PredictionFailed: the model could not predict.
    """
    card = served.model.card
    own = served.model.profile if isinstance(served.model, HasProfile) else None
    profile = own or profile_of(served.model)
    average, kick = average_kick(profile), np.array(row, dtype=np.float64)
    probability = (await served.score(mixtures(kick, average)))[:, 0]
    found = zip(FEATURES, shares(kick, average, probability).tolist(), strict=True)
    values, averages = named(kick.tolist()), named(average.tolist())
    ends = probability[[0, -1]]
    return Explanation(
        model=card.name,
        revision=card.revision,
        prediction=float(ends[1]),
        log_odds=float(log_odds(ends)[1]),
        average_prediction=float(ends[0]),
        average_log_odds=float(log_odds(ends)[0]),
        mean_prediction=None if own is None else _mean(own, own.prediction),
        shares=[
            Share(
                feature=each.name,
                value=values[each.name],
                average=averages[each.name],
                share=share,
                assumed=each.name in card.assumed,
            )
            for each, share in sorted(found, key=lambda pair: -abs(pair[1]))
        ],
    )
