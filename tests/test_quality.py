"""The measures of quality give what their definitions give."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import product
from math import log

import numpy as np
import pytest
from hypothesis import example, given
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


def in_parts(p, y, parts):
    """Measure pairs that come in so many parts, half of them in another process."""
    halves = [RunningQuality(), RunningQuality()]
    for at, each in enumerate(zip(np.array_split(p, parts), np.array_split(y, parts), strict=True)):
        halves[at % 2].add(*each)
    first, second = halves
    first.merge(RunningQuality.from_bytes(second.to_bytes()))
    return first.result()


@example([(0.0, True), (6e-08, True)], 1)
@given(judged, st.integers(1, 5))
def test_quality_part_by_part_is_that_of_all_together(pairs, parts):
    p, y = map(np.array, split([*pairs, (0.5, math.nan)]))  # an unknown outcome counts for nothing
    running, whole = in_parts(p, y.astype(float), parts), assess(p[:-1], y[:-1])
    for name in ("count", "mean_prediction", "success_rate", "brier", "log_loss"):
        assert getattr(running, name) == pytest.approx(getattr(whole, name), abs=1e-9)
    assert sum(each.count for each in running.bins) == whole.count


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.6, 0.7), (0.9, 1)])
def test_of_many_kicks_order_and_bins_are_nearly_those_of_all_together(low, high):
    rng = np.random.default_rng(1)
    p = rng.uniform(low, high, 300_000)
    y = (rng.random(len(p)) < p * 0.9 + 0.02).astype(float)
    running, whole = in_parts(p, y, 70), assess(p, y)
    assert (running.ece, running.auc) == pytest.approx((whole.ece, whole.auc), abs=1e-4)
    for mine, right in zip(running.bins, whole.bins, strict=True):
        assert mine.count == pytest.approx(right.count, abs=2e-4 * len(p))
        assert mine.mean_prediction == pytest.approx(right.mean_prediction, abs=1e-3)


def test_where_nothing_is_known_or_all_came_out_alike_there_is_no_quality_or_no_auc():
    assert in_parts(np.empty(0), np.empty(0), 1) is None
    assert in_parts(np.full(5, 0.3), np.full(5, math.nan), 1) is None
    assert in_parts(np.full(5, 0.3), np.ones(5), 1).auc is None


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


async def heard(*groups):
    async def stream():
        for group in groups:
            yield group

    return await report(stream())


async def test_kicks_of_visitors_of_the_page_do_not_count():
    at = datetime(2026, 11, 27, tzinfo=UTC)
    kicks = [
        LabelledPrediction(at, "a", 0.7, success=True, source=source) for source in ("api", "page", "batch")
    ]
    assert (await heard(kicks)).count == 2
    assert (await heard(kicks[1:2])).calibration == {}


async def test_answers_that_learned_are_compared_with_the_model_and_both_are_tested_by_outcomes():
    rng, at = np.random.default_rng(5), datetime(2026, 11, 1, tzinfo=UTC)
    base = rng.uniform(0.5, 0.95, 2_000)
    kicks = [
        LabelledPrediction(at + timedelta(minutes=minute), "a", p - 0.1, success=bool(y), base=p)
        for minute, (p, y) in enumerate(zip(base, rng.random(2_000) < base - 0.1, strict=True))
    ]
    found = await heard(kicks[:700], kicks[700:])
    assert found.learned is not None
    assert (found.learned.quality, found.learned.base_quality.count) == (found.overall, 2_000)
    assert found.learned.brier_difference == pytest.approx(
        found.learned.quality.brier - found.learned.base_quality.brier
    )
    tested = found.calibration["a"]
    assert (tested.outcomes, tested.change) == (2_000, None)
    assert tested.base_change is not None
    assert tested.base_change.what == "level down"
    assert at <= tested.base_change.since < tested.base_change.heard_at <= kicks[-1].created_at
    assert "learn" in tested.note
