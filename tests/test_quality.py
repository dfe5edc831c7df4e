"""The measures of quality give what their definitions give."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from turns import counted_turns

from kickserve.errors import InvalidInput
from kickserve.store import LabelledPrediction
from kickserve_scores.quality import (
    RunningQuality,
    assess,
    auc,
    brier,
    expected_calibration_error,
    log_loss,
    reliability,
)
from kickserve_scores.report import report

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
    assert one == other


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
    p, y = (each[np.argsort(p)] for each in (p, y))  # the order in which an assessment adds up
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


def in_parts(p, y, parts, **options):
    """Measure pairs that come in so many parts."""
    running = RunningQuality(**options)
    for each in zip(np.array_split(p, parts), np.array_split(y, parts), strict=True):
        running.add(*each)
    return running


def assert_close(running, exact):
    """Compare an assessment by cells with the exact one."""
    assert running.count == exact.count
    sums = ("mean_prediction", "success_rate", "brier", "log_loss")
    assert [getattr(running, name) for name in sums] == pytest.approx(
        [getattr(exact, name) for name in sums], rel=1e-12
    )
    assert running.ece == pytest.approx(exact.ece, abs=1e-4)
    assert running.auc == pytest.approx(exact.auc, abs=1e-4)
    assert len(running.bins) == len(exact.bins)
    for mine, right in zip(running.bins, exact.bins, strict=True):
        assert mine.count == pytest.approx(right.count, abs=2e-4 * exact.count)
        assert mine.mean_prediction == pytest.approx(right.mean_prediction, abs=1e-3)
        assert mine.success_rate == pytest.approx(right.success_rate, abs=1e-3)


class TestRunningQuality:
    @given(judged, st.integers(1, 5))
    def test_of_few_kicks_is_that_of_all_together(self, pairs, parts):
        p, y = map(np.array, split(pairs))
        assert in_parts(p, y, parts).result() == assess(p, y)

    @pytest.mark.parametrize(("low", "high"), [(0, 1), (0.6, 0.7), (0.9, 1)])
    @pytest.mark.parametrize("parts", [1, 7, 2_000])
    def test_of_many_kicks_is_nearly_that(self, low, high, parts):
        rng = np.random.default_rng(1)
        p = rng.uniform(low, high, 300_000)
        y = rng.random(len(p)) < p * 0.9 + 0.02
        assert_close(in_parts(p, y, parts, exact=100_000).result(), assess(p, y))

    def test_kicks_of_few_different_predictions_keep_their_bins(self):
        rng = np.random.default_rng(2)
        p = rng.choice([0.0, 0.2, 0.5, 1.0], 10_000)
        y = rng.random(len(p)) < p
        mine, right = in_parts(p, y, 3, exact=0).result(), assess(p, y)
        assert [each.count for each in mine.bins] == [each.count for each in right.bins]
        assert (mine.ece, mine.auc) == pytest.approx((right.ece, right.auc), abs=1e-12)

    @pytest.mark.parametrize("exact", [(0, 0), (10**6, 0), (0, 10**6), (10**6, 10**6), (1_500, 1_500)])
    def test_two_can_be_merged_whatever_they_hold(self, exact):
        rng = np.random.default_rng(3)
        p = rng.random(2_000)
        y = rng.random(len(p)) < p
        one, other = (
            in_parts(p[part], y[part], 3, exact=each)
            for part, each in zip((slice(1_000), slice(1_000, None)), exact, strict=True)
        )
        before = other.result()
        one.merge(other)
        assert other.result() == before
        assert_close(one.result(), assess(p, y))
        one.add(p, y)
        assert one.result().count == 4_000

    def test_of_nothing_there_is_none(self):
        running = RunningQuality()
        running.add([], [])
        assert running.result() is None

    @pytest.mark.parametrize("exact", [0, 10])
    def test_of_nothing_there_is_none_after_a_way_through_a_file_either(self, exact):
        running = RunningQuality(exact)
        running.merge(RunningQuality.of_state(RunningQuality(exact).state()))
        assert running.result() is None
        running.add([0.5], [1])
        assert running.result().count == 1

    @pytest.mark.parametrize("outcome", [0, 1])
    def test_where_all_came_out_alike_there_is_no_auc(self, outcome):
        assert in_parts(np.full(5, 0.3), np.full(5, outcome), 1, exact=0).result().auc is None

    def test_what_is_added_may_be_changed_afterwards(self):
        running, p = RunningQuality(), np.array([0.25, 0.5])
        running.add(p, [1, 0])
        p[:] = 7
        assert running.result() == assess([0.25, 0.5], [1, 0])

    def test_what_can_not_be_measured_is_refused_in_words(self):
        with pytest.raises(InvalidInput, match="no probability"):
            RunningQuality().add([1.1], [1])
        with pytest.raises(InvalidInput, match="one outcome for each"):
            RunningQuality().add([], [1])


async def test_others_get_their_turns_while_a_large_group_is_taken_up():
    at = datetime(2026, 11, 27, tzinfo=UTC)

    async def stream():
        rows = range(10_000)
        yield [LabelledPrediction(at, "a" if row % 3 else "b", row / 10_000, row % 2 == 0) for row in rows]

    async with counted_turns() as turns:
        found = await report(stream())
    assert len(turns) >= 10
    assert found.count == found.months["2026-11"].count == 10_000
    assert {name: each.count for name, each in found.models.items()} == {"a": 6_666, "b": 3_334}


async def test_each_model_and_each_month_is_assessed_by_its_own():
    made = [
        *(LabelledPrediction(datetime(2026, 2, 28, tzinfo=UTC), "a", 0.9, success=True) for _ in range(3)),
        *(LabelledPrediction(datetime(2026, 11, 1, tzinfo=UTC), "a", 0.4, success=False) for _ in range(2)),
        LabelledPrediction(datetime(2026, 11, 30, tzinfo=UTC), "b", 0.7, success=True),
    ]

    async def stream():
        yield made[:4]
        yield made[4:]

    found = await report(stream())
    assert found.overall == assess([each.prediction for each in made], [each.success for each in made])
    assert found.models == {"a": assess([0.9] * 3 + [0.4] * 2, [1] * 3 + [0] * 2), "b": assess([0.7], [1])}
    assert list(found.months) == ["2026-02", "2026-11"]
    assert found.months["2026-11"] == assess([0.4, 0.4, 0.7], [0, 0, 1])
