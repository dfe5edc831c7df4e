"""The intervals of trained models hold the truth as often as they say, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from learning_help import known_of, of_kickers, order

from kickserve.documents import expit, mean_shrink
from kickserve_data.simulate import ABILITY_SD, logit, simulate
from kickserve_train.checks import check
from kickserve_train.making import model_of
from kickserve_train.teach import teach


def mean_coverage(kind, knowns, truth, fresh):
    """The share of fresh kicks whose true probability lies in the interval, over some trainings."""
    shares = []
    for seed, known in enumerate(knowns):
        document, _ = teach(known, check(known, []), order(kind=kind, seed=seed, folds=2))
        _, low, high = model_of(document).predict(fresh.matrix)
        shares.append(((low <= truth) & (truth <= high)).mean())
    return np.mean(shares)


class TestCoverage:
    """The truth is known of simulated kicks. A training is off for all alike: several are averaged."""

    FRESH = simulate(20_000, 99)

    @pytest.mark.parametrize(("kind", "times"), [("logistic", 12), ("splines", 12), ("boosted", 3)])
    def test_without_kickers_the_interval_holds_the_mean_probability_95_plus_minus_3_times_in_100(
        self, kind, times
    ):
        truth = expit(logit(self.FRESH.matrix) / mean_shrink(ABILITY_SD))
        found = mean_coverage(kind, [known_of(2_000, seed) for seed in range(times)], truth, self.FRESH)
        assert found == pytest.approx(0.95, abs=0.03)

    @pytest.mark.parametrize(("kind", "times"), [("logistic", 8), ("boosted", 3)])
    def test_with_kickers_it_holds_that_of_a_new_kicker_95_plus_minus_3_times_in_100(self, kind, times):
        knowns = [of_kickers(80, 50, seed) for seed in range(times)]
        found = mean_coverage(kind, knowns, self.FRESH.probability, self.FRESH)
        assert found == pytest.approx(0.95, abs=0.03)
