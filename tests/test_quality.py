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
from kickserve_scores.quality import RunningQuality, assess
from kickserve_scores.report import report

# Few different values, so that ties are common.
probability = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1))
judged = st.lists(st.tuples(probability, st.booleans()), min_size=1, max_size=60)


def split(pairs):
    return [p for p, _ in pairs], [y for _, y in pairs]


def test_the_measures_of_five_kicks_by_hand():
    found = assess([0.9, 0.4, 0.4, 0.3, 0.1], [1, 1, 0, 0, 0])
    assert found.brier == pytest.approx((0.01 + 0.36 + 0.16 + 0.09 + 0.01) / 5)
    assert found.log_loss == pytest.approx(-(log(0.9) + log(0.4) + log(0.6) + log(0.7) + log(0.9)) / 5)
    assert found.auc == pytest.approx(5.5 / 6)  # six pairs of a success and a failure: five right, one tied
    assert (found.mean_prediction, found.success_rate) == pytest.approx((0.42, 0.4))


def test_log_loss_of_a_sure_error_is_large_but_finite():
    assert assess([0.0, 1.0], [1, 0]).log_loss == pytest.approx(-log(1e-15), rel=1e-2)
    assert assess([0.0, 1.0], [0, 1]).log_loss == pytest.approx(0, abs=1e-12)


@given(judged)
def test_the_measures_are_those_of_their_definitions(pairs):
    found = assess(*split(pairs))
    won, lost = [p for p, y in pairs if y], [p for p, y in pairs if not y]
    points = [1.0 if high > low else 0.5 if high == low else 0.0 for high, low in product(won, lost)]
    assert found.auc == (pytest.approx(sum(points) / len(points)) if points else None)
    assert found.brier == pytest.approx(np.mean([(p - y) ** 2 for p, y in pairs]))
    assert 0 <= found.ece <= 1
    assert sum(each.count for each in found.bins) == len(pairs)
    assert sum(each.count * each.success_rate for each in found.bins) == pytest.approx(len(won))
    means = [each.mean_prediction for each in found.bins]
    assert means == sorted(means)


def test_bins_hold_as_many_kicks_each_and_equal_predictions_share_one():
    p = np.linspace(0, 1, 50)
    assert [each.count for each in assess(p, p > 0.5).bins] == [5] * 10
    (only,) = assess([0.3] * 40, [1] * 10 + [0] * 30).bins
    assert (only.count, only.mean_prediction, only.success_rate) == pytest.approx((40, 0.3, 0.25))


def test_calibration_error_weighs_bins_by_their_size():
    assert assess([0.5] * 9 + [1.0], [1] * 9 + [0]).ece == pytest.approx(0.9 * 0.5 + 0.1)


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
def test_wrong_arguments_are_refused_in_words(prediction, success, message):
    with pytest.raises(InvalidInput, match=message):
        assess(prediction, success)


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

    @pytest.mark.parametrize(("low", "high", "parts"), [(0, 1, 1), (0.6, 0.7, 7), (0.9, 1, 2_000)])
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
        assert (mine.ece, mine.auc) == pytest.approx((right.ece, right.auc), abs=1e-5)

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

    @pytest.mark.parametrize("exact", [0, 10])
    def test_survives_a_file(self, exact):
        running = RunningQuality(exact)
        running.add([], [])
        assert running.result() is None
        back = RunningQuality.from_bytes(running.to_bytes())
        assert back.result() is None
        running.add([0.5, 0.7], [1, 0])
        back.merge(RunningQuality.from_bytes(running.to_bytes()))
        assert back.result() == running.result()

    @pytest.mark.parametrize("outcome", [0, 1])
    def test_where_all_came_out_alike_there_is_no_auc(self, outcome):
        assert in_parts(np.full(5, 0.3), np.full(5, outcome), 1, exact=0).result().auc is None

    def test_what_is_added_may_be_changed_afterwards(self):
        running, p = RunningQuality(), np.array([0.25, 0.5])
        running.add(p, [1, 0])
        p[:] = 7
        assert running.result() == assess([0.25, 0.5], [1, 0])


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
