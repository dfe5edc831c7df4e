"""What is expected of predictions before outcomes are known is what simulated outcomes show."""

from __future__ import annotations

import numpy as np
import pytest

from kickserve.linear import load_default
from kickserve_data.simulate import simulate
from kickserve_drift.expected import Expectation
from kickserve_scores.quality import assess

MEASURES = ("success_rate", "brier", "log_loss", "auc")


def expected(*parts):
    expectation = Expectation()
    for part in parts:
        expectation.add(part)
    return expectation.result()


@pytest.mark.parametrize(("count", "min_distance"), [(60, 0.0), (400, 40.0)])
def test_simulated_outcomes_lie_in_the_interval_in_95_of_100_cases(count, min_distance):
    rng = np.random.default_rng(1)
    prediction = load_default().predict(simulate(count, 3, min_distance=min_distance).matrix).probability
    found = expected(prediction)
    measured = [assess(prediction, rng.random(count) < prediction) for _ in range(600)]
    for name in MEASURES:
        estimate = getattr(found, name)
        values = np.array([getattr(each, name) for each in measured])
        inside = np.mean((values >= estimate.low) & (values <= estimate.high))
        assert 0.92 < inside < 0.975, name
        assert estimate.value == pytest.approx(values.mean(), abs=4 * values.std() / np.sqrt(600)), name


def test_parts_add_up_to_the_whole():
    prediction = np.random.default_rng(2).random(1_000)
    whole, parts = expected(prediction), expected(prediction[:300], prediction[300:])
    for name in MEASURES:
        assert getattr(parts, name).value == pytest.approx(getattr(whole, name).value)


def test_of_nothing_nothing_is_expected():
    assert expected() is None
    assert expected(np.empty(0)) is None


def test_where_hardly_a_miss_is_expected_there_is_no_auc():
    assert expected(np.full(100, 0.99)).auc is None


def test_sure_predictions_leave_nothing_to_chance():
    found = expected(np.array([0.0, 1.0]))
    assert (found.brier.low, found.brier.high) == (0, 0)
