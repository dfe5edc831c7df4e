"""Simulated kicks, drawn from published figures: the training data of the default model.

Each constant names its source: [P] printed in a source, [F] fitted to a public table of about
24,700 kicks from 2000 to 2012, [A] an assumption, small on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

import numpy as np

from kickserve.errors import InvalidInput
from kickserve.features import BY_NAME, COUNT, INDEX, NAMES
from kickserve.linear import expand

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.random import Generator
    from numpy.typing import NDArray

BLOCK: Final = 65_536
"""Kicks in a block, which are drawn together; the memory is proportional to it."""

COEFFICIENTS: Final[Mapping[str, float]] = {
    "intercept": 0.067,  # solved for a mean of 73.5 % [P: Stats Perform, over 100,000 kicks]
    "distance": -0.032,  # a metre [F: -0.0321 ± 0.0030]
    "ln_theta_squared": 0.546,  # [F: 0.546 ± 0.020]
    "beyond_60": -0.15,  # a metre [A: the longest Test kick on record is 64.2 m]
    "foot_side": 0.025,  # for 30° [F: +0.046 ± 0.031, near zero]
    "left_footed": 0.05,  # [F: shrunk from +0.143 ± 0.043]
    "away": -0.04,  # [A]
    "endgame": -0.08,  # [F: -0.082 ± 0.076; Quarrie & Hopkins 2015]
    "start": -0.07,  # [F: -0.038 ± 0.073, with A]
    "time_norm": -0.10,  # [A]
    "previous": 0.12,  # [A]
    "wind_distance": -0.08,  # for 10 km/h at 30 m [A]
    "precipitation": -0.10,  # [A]
}
"""Log-odds of success, term by term, for a kicker of middling ability."""

ASSUMED: Final = (
    "game_away",
    "time_norm",
    "has_previous_attempts",
    "wind_speed",
    "precipitation_probability",
)
"""The features whose every term is an assumption."""

ABILITY_SD: Final = 0.29
"""Spread of the kickers' unseen ability in log-odds [F: 123 kickers with 50 kicks or more]."""

FIGURES_KICKS: Final = 24_700
"""Kicks in the public table that the fitted figures rest on."""

_CONVERSIONS: Final = 0.55  # [A: 46 % in 2000-2012, 62 % at the 2023 World Cup]
_PENALTY_EDGES: Final = (0, 5, 10, 15, 20, 25, 30, 34)  # metres to the side
_PENALTY_WEIGHTS: Final = (0.213, 0.153, 0.144, 0.191, 0.161, 0.100, 0.038)
_PENALTY_OUT: Final = (30.5, 10.6)  # metres to the goal line: mean and standard deviation
_PENALTY_CUT: Final = (7.0, 60.0)
_CONVERSION_EDGES: Final = (0, 3, 6, 10, 15, 20, 25, 30, 34.5)
_CONVERSION_WEIGHTS: Final = (0.178, 0.062, 0.060, 0.068, 0.103, 0.128, 0.136, 0.265)
TEE_ASIDE: Final = (1.5, 4.5, 8, 12.5, 17.5, 22.5, 27.5, 33)  # metres to the side
TEE_BACK: Final = (10.7, 12.5, 15.2, 18.3, 22.3, 23.8, 24.3, 24.7)  # metres taken back from the goal line
TEE_SPREAD: Final = 0.10

EDGE_OF_MATCH: Final = 0.0625
"""The first and the last part of a match that count as such: five minutes of eighty."""

_LEFT_FOOTED: Final = 0.16
_LEFT_SIDE: Final = 0.53
_AWAY: Final = 0.43
_PREVIOUS_RATE: Final = 3.6
_WIND: Final = (2.6, 6.5)  # shape, and scale in km/h, of a gamma distribution
_DRY: Final = 0.57
_WET: Final = 0.22
_WIND_RAIN: Final = 0.45  # correlation of the Gaussian copula

_EVENNESS: Final = 2.0  # of the kickers' shares of the kicks, the parameter of a Dirichlet distribution [A]
_FURTHEST: Final = 65.0  # only one kick in ten thousand is from further away


@dataclass(frozen=True, slots=True, eq=False)
class Kicks:
    """Simulated kicks.

    Attributes:
        matrix: shape (n, 11), in the order of `kickserve.features.NAMES`.
        success: shape (n,), the outcome of each.
        probability: shape (n,), of success, with the kicker's unseen ability.
        kicker: shape (n,), who takes each, a number from 0; None where each kick has a kicker of its own.
    """

    matrix: NDArray[np.float64]
    success: NDArray[np.bool_]
    probability: NDArray[np.float64]
    kicker: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self.matrix)

    def take(self, which: slice | NDArray[np.bool_]) -> Kicks:
        """Return some of the kicks: a slice of them, or those where a mask of shape (n,) is true."""
        kicker = None if self.kicker is None else self.kicker[which]
        return Kicks(self.matrix[which], self.success[which], self.probability[which], kicker)


def simulate(size: int, seed: int, *, min_distance: float | None = None, kickers: int | None = None) -> Kicks:
    """Draw kicks.

    Args:
        size: how many, from 1.
        seed: 0 or more; the same seed gives the same kicks, whatever the size.
        min_distance: keep only kicks from so many metres or more, at most 65; `size` of them are drawn.
        kickers: how many share the kicks, from 1, each with an ability of its own; None for one a kick.

    Raises:
        InvalidInput: an argument is out of its range.
    """
    return _join(list(blocks(size, seed, min_distance=min_distance, kickers=kickers)))


def blocks(
    size: int, seed: int, *, min_distance: float | None = None, kickers: int | None = None
) -> Iterator[Kicks]:
    """Draw kicks block by block, so that a million take no more memory than a block.

    Args:
        size: how many in all, from 1.
        seed: 0 or more; block k is drawn from a generator seeded with `[seed, k]`.
        min_distance: as `simulate` has it.
        kickers: as `simulate` has it.

    Yields:
        65,536 kicks at a time, fewer in the last block, and where nearer kicks are left out.

    Raises:
        InvalidInput: an argument is out of its range.
    """
    _check(size, seed, min_distance, kickers)
    for number in count():
        block = _block(seed, number, kickers)
        if min_distance is not None:
            block = block.take(block.matrix[:, INDEX["distance"]] >= min_distance)
        yield block.take(slice(size))
        size -= len(block)
        if size <= 0:
            return


def logit(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-odds of success for a kicker of middling ability.

    Args:
        matrix: kicks, shape (n, 11), in the order of `kickserve.features.NAMES`.

    Returns:
        Shape (n,).
    """
    result: NDArray[np.float64] = expand(matrix, COEFFICIENTS) @ np.array(list(COEFFICIENTS.values()))
    return result


def _check(size: int, seed: int, min_distance: float | None, kickers: int | None) -> None:
    if size < 1:
        raise InvalidInput(f"size={size} can't be simulated: ask for 1 kick or more")
    if kickers is not None and kickers < 1:
        raise InvalidInput(f"kickers={kickers} can't be simulated: ask for 1 kicker or more")
    if seed < 0:
        raise InvalidInput(f"seed={seed} can't be used: give a whole number, 0 or more")
    if min_distance is not None and not 0 <= min_distance <= _FURTHEST:
        raise InvalidInput(
            f"min_distance={min_distance:g} can't be simulated: ask for 0 to {_FURTHEST:g} m, as kicks from"
            " further away are too rare to wait for"
        )


def _join(parts: list[Kicks]) -> Kicks:
    kickers = [part.kicker for part in parts if part.kicker is not None]
    return Kicks(
        np.concatenate([part.matrix for part in parts]),
        np.concatenate([part.success for part in parts]),
        np.concatenate([part.probability for part in parts]),
        np.concatenate(kickers) if kickers else None,
    )


def _block(seed: int, number: int, kickers: int | None) -> Kicks:
    # Always a whole block, so that the first kicks don't depend on how many are asked for.
    rng = np.random.default_rng([seed, number])
    matrix = np.empty((BLOCK, COUNT))
    for name, values in _features(rng).items():
        matrix[:, INDEX[name]] = values
    ability, kicker = rng.normal(0, ABILITY_SD, BLOCK), None
    if kickers is not None:
        squad = np.random.default_rng([seed, 0, kickers])  # the same kickers in each block
        abilities, shares = squad.normal(0, ABILITY_SD, kickers), squad.dirichlet(np.full(kickers, _EVENNESS))
        kicker = rng.choice(kickers, BLOCK, p=shares)
        ability = abilities[kicker]
        matrix[:, INDEX["is_left_footed"]] = (squad.random(kickers) < _LEFT_FOOTED)[kicker]
    probability = 1 / (1 + np.exp(-(logit(matrix) + ability)))
    return Kicks(matrix, rng.random(BLOCK) < probability, probability, kicker)


def _features(rng: Generator) -> dict[str, NDArray[np.float64] | NDArray[np.bool_]]:
    aside, out = _places(rng)
    wind, rain = _weather(rng)
    time = rng.random(BLOCK)
    values = {
        "time_norm": time,
        "distance": np.hypot(aside, out),
        "angle": np.degrees(np.arctan2(aside, out)),
        "wind_speed": wind,
        "precipitation_probability": rain,
        "is_left_footed": rng.random(BLOCK) < _LEFT_FOOTED,
        "game_away": rng.random(BLOCK) < _AWAY,
        "is_endgame": time >= 1 - EDGE_OF_MATCH,
        "is_start": time <= EDGE_OF_MATCH,
        "is_left_side": rng.random(BLOCK) < _LEFT_SIDE,
        "has_previous_attempts": rng.random(BLOCK) < -np.expm1(-_PREVIOUS_RATE * time),
    }
    return {name: values[name] for name in NAMES}


def _places(rng: Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw the place of the ball: metres to the side of the posts, and metres out from the goal line."""
    conversion = rng.random(BLOCK) < _CONVERSIONS
    aside = _aside(rng, _PENALTY_EDGES, _PENALTY_WEIGHTS)
    out = np.clip(rng.normal(*_PENALTY_OUT, BLOCK), *_PENALTY_CUT)
    converted_aside = _aside(rng, _CONVERSION_EDGES, _CONVERSION_WEIGHTS)
    back = np.interp(converted_aside, TEE_ASIDE, TEE_BACK) * rng.lognormal(0, TEE_SPREAD, BLOCK)
    return np.where(conversion, converted_aside, aside), np.where(conversion, back, out)


def _aside(rng: Generator, edges: tuple[float, ...], weights: tuple[float, ...]) -> NDArray[np.float64]:
    chosen = rng.choice(len(weights), BLOCK, p=weights)
    low, high = np.array(edges[:-1])[chosen], np.array(edges[1:])[chosen]
    result: NDArray[np.float64] = rng.uniform(low, high)
    return result


def _weather(rng: Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw wind in km/h and probability of rain, correlated by a Gaussian copula.

    A copula needs the quantile of each draw. Its rank within the block gives it without the inverse of a
    distribution function, which numpy does not have.
    """
    first = rng.normal(size=BLOCK)
    second = _WIND_RAIN * first + np.sqrt(1 - _WIND_RAIN**2) * rng.normal(size=BLOCK)
    winds = np.minimum(rng.gamma(*_WIND, BLOCK), BY_NAME["wind_speed"].high)
    quantile = (_rank(second) + 0.5) / BLOCK
    rain = np.clip((quantile - _DRY) / (1 - _DRY - _WET), 0, 1)
    return np.sort(winds)[_rank(first)], rain


def _rank(values: NDArray[np.float64]) -> NDArray[np.intp]:
    ranks = np.empty(len(values), dtype=np.intp)
    ranks[np.argsort(values)] = np.arange(len(values))
    return ranks
