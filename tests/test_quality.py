"""The measures of quality give what their definitions give."""

from __future__ import annotations

from itertools import product
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve.errors import InvalidInput
from kickserve.quality import assess, auc, brier, expected_calibration_error, log_loss, reliability

MEASURES = (brier, log_loss, auc, reliability, expected_calibration_error, assess)
# Few different values, so that ties are common.
probability = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1))
judged = st.lists(st.tuples(probability, st.booleans()), min_size=1, max_size=60)


def split(pairs):
    return [p for p, _ in pairs], [y for _, y in pairs]


def test_brier_of_three_kicks_by_hand():
    assert brier([0.9, 0.6, 0.2], [1, 0, 0]) == pytest.approx((0.01 + 0.36 + 0.04) / 3)


def test_log_loss_of_two_kicks_by_hand():
    assert log_loss([0.8, 0.3], [True, False]) == pytest.approx(-(log(0.8) + log(0.7)) / 2)


def test_log_loss_of_a_sure_error_is_large_but_finite():
    assert log_loss([0.0, 1.0], [1, 0]) == pytest.approx(-log(1e-15), rel=1e-2)
    assert log_loss([0.0, 1.0], [0, 1]) == pytest.approx(0, abs=1e-12)


def test_auc_of_five_kicks_by_hand():
    # Successes at .9 and .4, failures at .4, .3, .1: six pairs, five right, one tied.
    assert auc([0.9, 0.4, 0.4, 0.3, 0.1], [1, 1, 0, 0, 0]) == pytest.approx(5.5 / 6)


def test_auc_needs_both_outcomes():
    assert auc([0.2, 0.7], [1, 1]) is None
    assert auc([0.2, 0.7], [0, 0]) is None
    assert assess([0.2], [True]).auc is None


@given(judged)
def test_auc_is_the_share_of_pairs_in_the_right_order(pairs):
    won = [p for p, y in pairs if y]
    lost = [p for p, y in pairs if not y]
    if not won or not lost:
        assert auc(*split(pairs)) is None
        return
    points = [1.0 if high > low else 0.5 if high == low else 0.0 for high, low in product(won, lost)]
    assert auc(*split(pairs)) == pytest.approx(sum(points) / len(points))


@given(judged)
def test_the_measures_stay_within_their_ranges(pairs):
    quality = assess(*split(pairs))
    assert 0 <= quality.brier <= 1
    assert 0 <= quality.ece <= 1
    assert quality.log_loss >= 0
    assert quality.auc is None or 0 <= quality.auc <= 1


@given(judged, st.randoms(use_true_random=False))
def test_the_order_of_the_kicks_does_not_matter(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    one, other = assess(*split(pairs)), assess(*split(shuffled))
    assert [bin_.count for bin_ in one.bins] == [bin_.count for bin_ in other.bins]
    assert (one.brier, one.log_loss, one.ece) == pytest.approx((other.brier, other.log_loss, other.ece))


@given(judged, st.integers(1, 12))
def test_bins_hold_every_kick_once_and_rise(pairs, count):
    p, y = split(pairs)
    bins = reliability(p, y, count)
    assert len(bins) <= count
    assert sum(bin_.count for bin_ in bins) == len(p)
    assert min(bin_.count for bin_ in bins) > 0
    assert sum(bin_.count * bin_.success_rate for bin_ in bins) == pytest.approx(sum(y))
    means = [bin_.mean_prediction for bin_ in bins]
    assert means == sorted(means)


@given(st.lists(st.booleans(), min_size=1, max_size=50), st.floats(0, 1))
def test_equal_predictions_share_one_bin(outcomes, p):
    (only,) = reliability([p] * len(outcomes), outcomes)
    assert only.count == len(outcomes)
    assert only.mean_prediction == pytest.approx(p)
    assert only.success_rate == pytest.approx(np.mean(outcomes))


def test_different_predictions_fill_bins_of_equal_size():
    p = np.linspace(0, 1, 50)
    assert [bin_.count for bin_ in reliability(p, p > 0.5)] == [5] * 10
    assert [bin_.count for bin_ in reliability(p, p > 0.5, bins=2)] == [25, 25]


def test_calibration_error_of_two_bins_by_hand():
    p, y = [0.1, 0.3, 0.7, 0.9], [0, 1, 1, 1]
    # Bins of two: .2 against a share of .5, and .8 against a share of 1.
    assert expected_calibration_error(p, y, bins=2) == pytest.approx((2 * 0.3 + 2 * 0.2) / 4)


def test_calibration_error_weighs_bins_by_their_size():
    assert expected_calibration_error([0.5] * 9 + [1.0], [1] * 9 + [0]) == pytest.approx(0.9 * 0.5 + 0.1)


def test_an_assessment_holds_what_the_measures_give():
    rng = np.random.default_rng(0)
    p = rng.random(1_000)
    y = rng.random(1_000) < p
    quality = assess(p, y)
    assert quality.count == 1_000
    assert quality.mean_prediction == pytest.approx(p.mean())
    assert quality.success_rate == pytest.approx(y.mean())
    assert quality.brier == brier(p, y)
    assert quality.log_loss == log_loss(p, y)
    assert quality.auc == auc(p, y)
    assert quality.ece == expected_calibration_error(p, y)
    assert quality.bins == reliability(p, y)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("prediction", "success", "message"),
    [
        ([0.1, 0.2], [1], "one outcome for each"),
        ([[0.1]], [[1]], "can't be compared"),
        ([], [], "at least one kick"),
        ([1.1], [1], "no probability"),
        ([float("nan")], [1], "no probability"),
        ([0.5], [2], "neither true nor false"),
        ([0.5], [float("nan")], "neither true nor false"),
    ],
)
def test_what_can_not_be_measured_is_refused_in_words(measure, prediction, success, message):
    with pytest.raises(InvalidInput, match=message):
        measure(prediction, success)


def test_no_bins_are_refused():
    with pytest.raises(InvalidInput, match="bins=0"):
        reliability([0.5], [1], bins=0)
