"""Learning from outcomes, one after the other: the level of all kicks, and the ability of each kicker."""

from __future__ import annotations

import math
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from kickserve.documents import NORMAL_975, answer_in_place, answer_one

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kickserve.store import KnownOutcome

    Score = tuple[float, float, float]  # probability, low and high; NaN for both without an interval

ABILITY_VARIANCE: Final = 0.29**2
"""Spread of the kickers' ability, squared log-odds: 123 kickers with 50 kicks or more, 2000 to 2012."""
LEVEL_VARIANCE: Final = 0.3**2
"""How far the level of a competition may be from that of the training data, squared log-odds."""
# The level moves by ±0.06 in a thousand outcomes: of simulated levels that stood still, rose for years or
# changed with each season, none was followed worse by more than 0.00003 of log loss than with its best value.
_LEVEL_WALK: Final = 4e-6
_PRACTICE_VARIANCE: Final = 0.03**2
_PRACTISED: Final = 3.0  # ln(1 + outcomes) of a kicker of about twenty, whom the level describes
_SUREST: Final = 1e-6  # distance from 0 and 1 that probabilities are cut to: no model knows a kick better
_MOST: Final = 1 - _SUREST
_SHRINK: Final = math.pi / 8
_UNNAMED_SPREAD: Final = math.sqrt(1 + _SHRINK * ABILITY_VARIANCE)
_OF_ABILITY: Final = NORMAL_975**2 * ABILITY_VARIANCE  # its part in the square of half an interval's width
_pack: Final = Struct("3d").pack


class Ability(NamedTuple):
    """The ability of a kicker, a normal distribution.

    Attributes:
        mean: what the kicker adds to the log-odds of a kick.
        variance: of it; 0.29² of an unknown kicker.
        outcomes: of the kicker's kicks that were taken in.
    """

    mean: float = 0.0
    variance: float = ABILITY_VARIANCE
    outcomes: int = 0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the ability, in log-odds."""
        half = NORMAL_975 * math.sqrt(self.variance)
        return self.mean - half, self.mean + half


UNKNOWN: Final = Ability()
"""An unknown or unnamed kicker."""


class Adjustment:
    """The change of a model's answer to a kick by level and ability.

    Args:
        level: log-odds that are added to every kick like this one.
        ability: of the kicker.
        variance: of the sum of both, squared log-odds.

    Attributes:
        level: as above.
        ability: as above.
        variance: as above.
        numbers: what `adjust` needs, packed.
    """

    __slots__ = ("_further", "_shift", "_shrink", "ability", "level", "numbers", "variance")

    def __init__(self, level: float, ability: Ability, variance: float) -> None:
        self.level = level
        self.ability = ability
        self.variance = variance
        self._shift = level + ability.mean
        self._shrink = 1 / math.sqrt(1 + _SHRINK * variance)
        self._further = NORMAL_975**2 * variance - _OF_ABILITY  # in the square of half an interval's width
        self.numbers = _pack(self._shift, self._shrink, self._further)

    def probability(self, base: float) -> float:
        """Return the probability of success, with 11 decimals.

        The mean over a normal distribution of the log-odds with mean m and variance v, by MacKay's
        approximation (1992, "The evidence framework applied to classification networks", equation 9):
        expit(m / √(1 + π·v/8)).

        Args:
            base: the model's own probability, which is that of a kicker of unknown ability.
        """
        return self.score((base, base, base))[0]

    def score(self, base: Score) -> Score:
        """Return probability, low and high, each with 11 decimals.

        The ends are expit(m ∓ 1.96·√(s + v)), with s the variance of the model's own log-odds without the
        kicker's ability, which is read off the width of its interval; a model's interval covers the ability.

        Args:
            base: the model's own; where it gives no interval, there is none either.
        """
        if self is NOTHING:  # exactly, also beyond where log-odds are cut
            return base
        # On the path of an answer: each call of a function costs as much as a logarithm.
        own, low, high = base
        if low != low:  # noqa: PLR0124  the quick test for NaN
            return self.probability(own), low, high
        if not _SUREST < low <= own <= high < _MOST:
            own, low, high = _cut(own), _cut(low), _cut(high)
        mean = math.log(own / (1 - own)) * _UNNAMED_SPREAD + self._shift
        width = math.log(high * (1 - low) / (low * (1 - high)))
        half = math.sqrt(max(width * width * 0.25, _OF_ABILITY) + self._further)
        found = answer_one(mean * self._shrink, mean - half, mean + half)
        if found is None:
            [found] = map(tuple, adjust(np.array([base]), [self]).tolist())
        return found


NOTHING: Final = Adjustment(0.0, UNKNOWN, ABILITY_VARIANCE)
"""The adjustment where nothing is known: answers stay as they are."""
NOTHING.numbers = _pack(math.nan, math.nan, math.nan)  # which `adjust` does not change


def adjust(scores: NDArray[np.float64], adjustments: Sequence[Adjustment]) -> NDArray[np.float64]:
    """Adjust the answers to many kicks, to the bit as `Adjustment.score` does.

    Args:
        scores: the model's own, shape (n, 3): probability, low and high.
        adjustments: of each kick.

    Returns:
        Probability, low and high, shape (n, 3).
    """
    unchanged = adjustments.count(NOTHING)
    if unchanged == len(adjustments):
        return scores
    own = scores.T
    numbers = np.frombuffer(b"".join([each.numbers for each in adjustments]))
    shift, shrink, further = numbers.reshape(-1, 3).T
    adjusted = np.minimum(own, _MOST)
    np.maximum(adjusted, _SUREST, out=adjusted)
    adjusted /= 1 - adjusted
    np.log(adjusted, out=adjusted)
    middle, low, high = adjusted
    half = high - low
    half *= half
    half *= 0.25
    half = np.sqrt(np.maximum(half, _OF_ABILITY) + further)
    middle *= _UNNAMED_SPREAD
    middle += shift
    np.subtract(middle, half, out=low)
    np.add(middle, half, out=high)
    middle *= shrink
    answer_in_place(adjusted)
    if unchanged:
        np.copyto(adjusted, own, where=np.isnan(adjusted))
    return adjusted.T


class Filter:
    """The level and the kickers' abilities, learned from one outcome after the other.

    z is the model's log-odds for a kicker of middling ability, and z + b + u_k those of a kick by kicker k.
    The prior of the level b is N(0, 0.3²), with a slow random walk; that of each u_k is N(0, 0.29²). An
    outcome y changes both by one step of assumed-density filtering (Opper 1998, "A Bayesian approach to
    on-line learning"), with the curvature of the logistic likelihood as in Laplace's approximation. With p as
    in `Adjustment.probability`, and v = v_b + v_k:

        g = y - p,  h = p·(1 - p),  gain = 1 / (1 + h·v)
        b += v_b·g·gain;  u_k += v_k·g·gain;  v_b -= v_b²·h·gain;  v_k -= v_k²·h·gain

    An unnamed kicker has u_k = 0 and v_k = 0.29². Kickers who have kicked often are better than others, so
    the level of a named one has a second part: b + c·(ln(1 + outcomes heard) - 3), c ~ N(0, 0.03²), with the
    covariance of b and c. (In a simulated world in which practice does not matter, this costs 0.00003 of log
    loss; where each factor of e adds 0.06 to the log-odds, it gains 0.0003.)

    Args:
        level: whether to learn the level; it stays 0 without.
        kickers: whether to learn abilities; all kickers are unnamed without.
    """

    def __init__(self, *, level: bool, kickers: bool) -> None:
        self._learns_level = level
        self._kickers = kickers
        self._abilities: dict[str, Ability] = {}
        self._level = self._practice = 0.0
        # Of level and practice: their variances, and between them their covariance.
        self._variances = (LEVEL_VARIANCE, 0.0, _PRACTICE_VARIANCE) if level else (0.0, 0.0, 0.0)
        self._walk = _LEVEL_WALK if level else 0.0
        self.outcomes = 0

    @property
    def level(self) -> float:
        """Log-odds that are added to every kick: b."""
        return self._level

    @property
    def level_sd(self) -> float:
        """Standard deviation of the level; 0 where it is not learned."""
        return math.sqrt(self._variances[0])

    @property
    def kickers(self) -> dict[str, Ability]:
        """The kickers of whom an outcome was heard."""
        return self._abilities

    @property
    def size(self) -> int:
        """How many kickers a copy has to copy."""
        return len(self._abilities)

    def copy(self) -> Filter:
        """Return a filter that goes its own way from here."""
        made = Filter(level=self._learns_level, kickers=self._kickers)
        vars(made).update(vars(self), _abilities=self._abilities.copy())
        return made

    def adjustment(self, kicker: str | None) -> Adjustment:
        """Return how the answer to a kick changes.

        Args:
            kicker: label; None for an unnamed one.
        """
        ability, practice = self._of(kicker)
        if ability is UNKNOWN and not self._learns_level:
            return NOTHING
        (level, both, own), b, c = self._variances, self._level, self._practice
        variance = level + 2 * practice * both + practice * practice * own
        return Adjustment(b + c * practice, ability, variance + ability.variance)

    def predict(self, base: float, kicker: str | None = None) -> float:
        """Return the probability of success with what was learned so far.

        Args:
            base: the model's own probability, 0 to 1.
            kicker: label; None for an unnamed one.
        """
        return self.adjustment(kicker).probability(base)

    def update(self, base: float, kicker: str | None, success: bool) -> None:  # noqa: FBT001
        """Learn from the outcome of a kick.

        Args:
            base: the model's own probability, 0 to 1.
            kicker: label; None for an unnamed one.
            success: the outcome.
        """
        level, both, own = self._variances
        level += self._walk
        ability, practice = self._of(kicker)
        toward_level, toward_own = level + both * practice, both + own * practice
        variance = toward_level + toward_own * practice + ability.variance
        if not _SUREST < base < _MOST:
            base = _cut(base)
        mean = math.log(base / (1 - base)) * _UNNAMED_SPREAD
        mean += self._level + self._practice * practice + ability.mean
        p = 0.5 + 0.5 * math.tanh(0.5 * mean / math.sqrt(1 + _SHRINK * variance))
        curvature = p * (1 - p)
        gain = 1 / (1 + curvature * variance)
        step, shrink = (success - p) * gain, curvature * gain
        self._level += toward_level * step
        self._practice += toward_own * step
        self._variances = (
            level - toward_level * toward_level * shrink,
            both - toward_level * toward_own * shrink,
            own - toward_own * toward_own * shrink,
        )
        if self._kickers and kicker is not None:
            self._abilities[kicker] = Ability(
                ability.mean + ability.variance * step,
                ability.variance - ability.variance * ability.variance * shrink,
                ability.outcomes + 1,
            )
        self.outcomes += 1

    def take(self, outcomes: Sequence[KnownOutcome]) -> None:
        """Learn from outcomes in their order."""
        for each in outcomes:
            self.update(each.base, each.kicker, each.success)

    def _of(self, kicker: str | None) -> tuple[Ability, float]:
        """Return the ability of a kicker, and how far beyond the usual practice the kicker is."""
        if kicker is None or not self._kickers:
            return UNKNOWN, 0.0
        ability = self._abilities.get(kicker, UNKNOWN)
        return ability, math.log1p(ability.outcomes) - _PRACTISED


def _cut(probability: float) -> float:
    return min(max(probability, _SUREST), _MOST)
