"""The alarm on outcomes: a test of calibration that may be looked at after every outcome, and stays valid.

The null hypothesis is that each kick succeeds with the probability p that was predicted for it, whatever came
before. The alternatives are changes of three shapes, each up and down in three sizes λ: the log-odds shift by
λ, the probability is multiplied by 1 + λ, or the log-odds are. A bettor's stake grows at each outcome y by
the likelihood ratio of such a change to the null,

    e = exp(η·y) / (1 + p·(exp(η) - 1)),   η = λ,   logit((1 + λ)·p) - logit(p),   λ·logit(p),

the second within ±3, the third within ±4·λ,
and has the mean 1 under the null. So has the wealth of a bettor who begins at outcome s with the share w(s)
of the money, and of all bettors together (an e-detector with the recursion of Shiryaev and Roberts,
W ← (W + w)·e for each change). By Ville's inequality it reaches 150 with a probability of 1/150 at most, over
any number of outcomes and looks. The shares fall slowly, so that a late change is heard nearly as soon as an
early one: w(s) = T(s) - T(s + 1) with T(s) = 1/√(1 + s/50).

Sources: Ville 1939, "Étude critique de la notion de collectif"; Shafer 2021, "Testing by betting"
(https://doi.org/10.1111/rssa.12647); Waudby-Smith & Ramdas 2024, "Estimating means of bounded random
variables by betting" (https://doi.org/10.1093/jrsssb/qkad009); Shin, Ramdas & Rinaldo 2024, "E-detectors: a
nonparametric framework for sequential change detection" (https://doi.org/10.51387/23-NEJSDS51).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

LEVEL: Final = 150.0
"""Wealth from which there is an alarm: by chance in at most one of so many services, ever."""

What = Literal["level up", "level down", "too flat", "too steep"]
WHATS: Final[tuple[What, ...]] = ("level up", "level down", "too flat", "too steep")
"""What has changed: more or fewer kicks succeed than predicted, or the predictions are too near to the middle
(easy kicks succeed more often, hard ones less often) or too far from it."""

# Odds that end an alarm; 150 to 1 come by chance within thousands of outcomes, while the change goes on.
_END: Final = 10_000.0
# The 18 changes: of each shape three sizes up, then the same three down.
_SIGNED: Final = np.repeat([1.0, -1.0], 3)
_SHIFTS: Final = np.tile([0.1, 0.25, 0.6], 2)  # of log-odds
_SHARES: Final = np.tile([0.02, 0.055, 0.14], 2)  # of probability: 1.5, 4 and 10 points where 73 % succeed
_FACTORS: Final = np.tile([0.12, 0.3, 0.7], 2)  # of log-odds, beyond 1
_LOG_SHARE: Final = np.log(np.tile([0.15, 0.7, 0.15], 6) / 6)  # of the money, mostly on the middling size
_WHAT: Final = np.repeat([0, 1, 0, 1, 2, 3], 3)  # place in WHATS
_MOST_TILT: Final = 3.0  # bounds what one sure error may win
_MOST_LOG_ODDS: Final = 4.0
_SUREST: Final = 1e-9  # distance from 0 and 1 before log-odds are taken
_MOST_LOG: Final = 700.0  # near the largest whose exponential is a number
_STEPS: Final = 40  # of Newton's method at most; near the end each about doubles the digits
_ENOUGH: Final = 1e-6  # a last step so small
_DECAY: Final = 50.0  # outcomes in which the share that waits falls by 1/√2
_AT_A_TIME: Final = 4_096  # outcomes: 0.6 MB for each array
_KEPT: Final = 20_000  # newest outcomes that a change is measured on, at most
# An alarm is raised where the change looks largest, and its beginning is estimated: with 1.96 standard errors
# the interval holds the truth in 81 to 97 of 100 simulated alarms, with these in 93 and more.
_SPREAD: Final = 2.6


class Estimate(NamedTuple):
    """A figure, and its 95 % interval."""

    value: float
    low: float
    high: float


class Change(NamedTuple):
    """What has changed between predictions and outcomes.

    Attributes:
        what: has changed.
        at: mark of the outcome at which the alarm was raised.
        since: mark of the outcome with which the change began, as estimated.
        outcomes: number of outcomes since then.
        difference: share of successes less mean prediction over these, or over the newest 20,000.
        factor: on the log-odds of the predictions, with which they would fit these best; 1 where they do.
    """

    what: What
    at: float
    since: float
    outcomes: int
    difference: Estimate
    factor: Estimate

    @property
    def text(self) -> str:
        """What has changed, and by how much, for people; without since when."""
        return describe(self.what, self.difference, self.factor)


def describe(what: str, difference: Sequence[float], factor: Sequence[float]) -> str:
    """Say what has changed, and by how much.

    Args:
        what: one of `WHATS`.
        difference: value, low and high of `Change.difference`.
        factor: value, low and high of `Change.factor`.
    """
    if what.startswith("level"):
        size, *ends = (100 * abs(each) for each in difference)
        more = "more" if what == "level up" else "fewer"
        low, high = sorted(ends)
        return f"{what}: {size:.1f} points {more} succeed than predicted ({low:.1f} to {high:.1f})"
    near = "near to" if what == "too flat" else "far from"
    best, low, high = factor
    return (
        f"{what}: predictions are too {near} the middle, log-odds times {best:.2f} ({low:.2f} to {high:.2f})"
        " would fit"
    )


class Alarm:
    """Hears outcomes in their order, and says whether predictions have stopped fitting them.

    An alarm lasts until the outcomes since its strongest evidence speak 10,000 to 1 for the predictions
    again. Then the test begins anew.

    Attributes:
        outcomes: heard so far.
        first: the change of the first alarm, as it was measured then; None before.
    """

    def __init__(self) -> None:
        self.outcomes = 0
        self.first: Change | None = None
        self._rows = np.empty((2, 0))  # prediction and success of the newest outcomes
        self._begin()

    def _begin(self) -> None:
        self._heard = 0  # since this test began
        self._wealth = np.full(len(_WHAT), -np.inf)  # logarithm, by change
        # Of the bettor who fares best, by change: log of the wealth, place and mark of the first outcome.
        self._best, self._since_mark = self._wealth, np.zeros(len(_WHAT))
        self._since = np.full(len(_WHAT), self.outcomes)
        self._at: float | None = None  # mark of the present alarm
        self._peak = 0.0  # log of the most wealth since then

    @property
    def evidence(self) -> float:
        """The wealth: 1 at the beginning, and `LEVEL` where an alarm is raised."""
        return float(np.exp(min(_total(self._wealth, self._heard), _MOST_LOG)))

    @property
    def change(self) -> Change | None:
        """The change of the present alarm, measured on all outcomes since it began; None without an alarm."""
        if self._at is None:
            return None
        wealth = _LOG_SHARE + self._wealth
        what = np.argmax([np.logaddexp.reduce(wealth[each == _WHAT]) for each in range(len(WHATS))])
        best = np.argmax(np.where(what == _WHAT, _LOG_SHARE + self._best, -np.inf))
        outcomes = self.outcomes - int(self._since[best])
        prediction, success = self._rows[:, -outcomes:]
        return Change(
            what=WHATS[what],
            at=self._at,
            since=float(self._since_mark[best]),
            outcomes=outcomes,
            difference=_difference(prediction, success),
            factor=_factor(prediction, success),
        )

    def hear(self, prediction: ArrayLike, success: ArrayLike, mark: ArrayLike | None = None) -> None:
        """Hear some outcomes.

        Args:
            prediction: probabilities, shape (n,), 0 to 1; n may be 0.
            success: outcomes, shape (n,), true/false or 1/0.
            mark: what names the outcomes to people, shape (n,), rising: seconds since 1970, or rows. Default:
                their number, from 1.
        """
        p = np.asarray(prediction, np.float64)
        numbers = self.outcomes + 1 + np.arange(len(p)) if mark is None else mark
        rows = np.array([p, np.asarray(success, np.float64), np.asarray(numbers, np.float64)])
        while rows.shape[1]:
            rows = rows[:, self._hear(rows[:, :_AT_A_TIME]) :]

    def _hear(self, rows: NDArray[np.float64]) -> int:
        """Hear outcomes up to the first that raises or ends an alarm; return how many these are."""
        number = self._heard + np.arange(rows.shape[1] + 1)
        won = np.cumsum(_log_ratios(rows[0], rows[1]), axis=0)
        entry = np.log(-np.diff(_waiting(number)))[:, None] - np.vstack([np.zeros(len(_WHAT)), won[:-1]])
        wealth = won + np.logaddexp.accumulate(np.vstack([self._wealth, entry]))[1:]
        total = _total(wealth, number[1:])
        if self._at is None:
            events = total >= math.log(LEVEL)
        else:
            peaks = np.maximum(np.maximum.accumulate(total), self._peak)
            events = peaks - total >= math.log(_END)
            self._peak = float(peaks[-1])
        happened = bool(events.any())
        count = int(np.argmax(events)) + 1 if happened else len(events)
        self._keep(rows[:, :count], entry[:count], won[count - 1], wealth[count - 1])
        if happened and self._at is not None:
            self._begin()
        elif happened:
            self._at, self._peak = float(rows[2, count - 1]), float(total[count - 1])
            self.first = self.first or self.change
        return count

    def _keep(
        self,
        rows: NDArray[np.float64],
        entry: NDArray[np.float64],
        won: NDArray[np.float64],
        wealth: NDArray[np.float64],
    ) -> None:
        """Go on to the state after some outcomes, and keep all with which a change may have begun."""
        latest = np.argmax(entry, axis=0)
        best = entry[latest, np.arange(len(_WHAT))]
        better = best > self._best
        self._since = np.where(better, self.outcomes + latest, self._since)
        self._since_mark = np.where(better, rows[2, latest], self._since_mark)
        self._best = won + np.maximum(best, self._best)
        self._wealth = wealth
        self._heard += rows.shape[1]
        self.outcomes += rows.shape[1]
        needed = min(self.outcomes - int(self._since.min()), _KEPT)
        self._rows = np.concatenate([self._rows, rows[:2]], axis=1)[:, -needed:]


def _log_ratios(p: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log e of each outcome and change, shape (n, 18)."""
    odds = _log_odds(p)[:, None]
    multiplied = _log_odds((1 + _SIGNED * _SHARES) * p[:, None]) - odds
    tilt = np.concatenate(
        [
            np.broadcast_to(_SIGNED * _SHIFTS, multiplied.shape),
            np.clip(multiplied, -_MOST_TILT, _MOST_TILT),
            _SIGNED * _FACTORS * np.clip(odds, -_MOST_LOG_ODDS, _MOST_LOG_ODDS),
        ],
        axis=1,
    )
    result: NDArray[np.float64] = tilt * y[:, None] - np.log1p(p[:, None] * np.expm1(tilt))
    return result


def _waiting(number: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the share of the money that waits after so many outcomes."""
    result: NDArray[np.float64] = 1 / np.sqrt(1 + number / _DECAY)
    return result


def _total(wealth: NDArray[np.float64], number: Any) -> Any:
    """Return the log of all money after so many outcomes: by change in the last axis, and what waits."""
    return np.logaddexp(np.logaddexp.reduce(_LOG_SHARE + wealth, axis=-1), np.log(_waiting(number)))


def _log_odds(p: NDArray[np.float64]) -> NDArray[np.float64]:
    cut = np.clip(p, _SUREST, 1 - _SUREST)
    result: NDArray[np.float64] = np.log(cut / (1 - cut))
    return result


def _difference(p: NDArray[np.float64], y: NDArray[np.float64]) -> Estimate:
    surprise = y - p
    # A few outcomes that went all the same way have no spread of their own, but that of their predictions.
    variance = max(float(surprise.var()), float(np.mean(p * (1 - p))))
    reach, value = _SPREAD * math.sqrt(variance / len(p)), float(surprise.mean())
    return Estimate(value, value - reach, value + reach)


def _factor(p: NDArray[np.float64], y: NDArray[np.float64]) -> Estimate:
    """Return the b that makes expit(b·z) fit best, by Newton's method; with a prior of N(1, 1) for few.

    Of sure predictions the likelihood is nearly straight around 1, and a bare step would go any distance:
    steps are of 1 at most, and stay between the best known bounds.
    """
    z, b, low, high = _log_odds(p), 1.0, -math.inf, math.inf
    for _ in range(_STEPS):
        q = 0.5 + 0.5 * np.tanh(0.5 * b * z)
        curvature = float((q * (1 - q) * z * z).sum()) + 1.0
        slope = float(((y - q) * z).sum()) - (b - 1.0)
        low, high = (b, high) if slope > 0 else (low, b)
        step = min(max(slope / curvature, -1.0), 1.0)
        if abs(step) < _ENOUGH:
            break
        b = b + step if low < b + step < high else (low + high) / 2
    reach = _SPREAD / math.sqrt(curvature)
    return Estimate(b, b - reach, b + reach)
