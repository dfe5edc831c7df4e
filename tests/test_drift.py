"""Drift: the rule alarms as often as it promises, and finds what has changed, over a window that slides."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kickserve.errors import ModelUnusable
from kickserve.features import COUNT, INDEX
from kickserve.linear import load_default
from kickserve.model import Answer
from kickserve_data import DataError
from kickserve_data.simulate import simulate
from kickserve_drift.expected import expected
from kickserve_drift.psi import (
    COUNTS,
    MAX_BINS,
    MIN_KICKS,
    Column,
    Limits,
    Reference,
    kicks_in,
    psi,
    summarize,
)
from kickserve_drift.reference import redraw, reference_of
from kickserve_drift.report import verdict
from kickserve_drift.window import SECONDS, SlidingWindow
from kickserve_scores.quality import assess

MODEL = load_default()
NOW = datetime(2026, 11, 24, tzinfo=UTC)
WINDOWS, WINDOW = 200, 500


@pytest.fixture(scope="module")
def reference():
    return reference_of(MODEL)


def rows_of(kicks, model=MODEL):
    return np.column_stack([kicks.matrix, model.predict(kicks.matrix).probability])


def counts_of(reference, kicks, model=MODEL):
    return reference.count(rows_of(kicks, model))


def summary_of(reference, kicks, model=MODEL):
    return summarize(reference, counts_of(reference, kicks, model), Limits(), at=NOW, since=NOW)


def drifted(summary):
    return {each.name for each in [*summary.features, summary.prediction] if each.drifted}


@pytest.fixture(scope="module")
def windows(reference):
    kicks = simulate(WINDOWS * WINDOW, 99)
    parts = [kicks.take(slice(at, at + WINDOW)) for at in range(0, len(kicks), WINDOW)]
    return [counts_of(reference, part) for part in parts]


@pytest.mark.parametrize("promised", [0.01, 0.05])
def test_chance_alone_alarms_as_often_as_the_limit_promises(reference, windows, promised):
    limits = Limits(psi=0.0, false_alarms=promised)
    alarms = [
        column.compare(row, limits).drifted
        for counts in windows
        for column, row in zip(reference.columns, counts, strict=True)
    ]
    # Columns of a window are correlated, so the share scatters more than that of independent ones.
    expected, spread = promised * len(alarms), np.sqrt(2 * promised * len(alarms))
    assert abs(sum(alarms) - expected) < 3 * spread


def test_no_window_without_drift_passes_for_one_with_drift(reference, windows):
    summaries = [summarize(reference, each, Limits(), at=NOW, since=NOW) for each in windows]
    assert not any(drifted(each) or each.drifted for each in summaries)


def test_fifty_kicks_from_over_40_metres_are_always_found_and_fifty_usual_ones_hardly_ever(reference):
    far, usual = simulate(100 * MIN_KICKS, 5, min_distance=40), simulate(WINDOWS * MIN_KICKS, 6)
    for at in range(0, len(far), MIN_KICKS):
        summary = summary_of(reference, far.take(slice(at, at + MIN_KICKS)))
        assert {"distance", "prediction"} <= drifted(summary)
        assert summary.drifted
    parts = [usual.take(slice(at, at + MIN_KICKS)) for at in range(0, len(usual), MIN_KICKS)]
    assert sum(bool(drifted(summary_of(reference, part))) for part in parts) <= 0.04 * WINDOWS


@pytest.mark.parametrize("of_kicks", [False, True])
def test_far_kicks_drift_in_distance_angle_and_prediction_and_in_nothing_else(reference, of_kicks):
    if of_kicks:
        reference = Reference.of_kicks(rows_of(simulate(5_000, 8)), "mine")
        assert drifted(summary_of(reference, simulate(1_000, 9))) == set()
    summary = summary_of(reference, simulate(1_000, 1, min_distance=40))
    assert drifted(summary) == {"distance", "angle", "prediction"}
    assert summary.share == pytest.approx(2 / 11)
    assert (summary.kicks, summary.model) == (1_000, "mine" if of_kicks else "simulated")
    distance = summary.features[INDEX["distance"]]
    assert distance.mean > 40 > distance.reference_mean


def test_a_flag_that_is_inverted_is_found(reference):
    for flag in ("has_previous_attempts", "is_left_footed"):
        kicks = simulate(WINDOW, 2)
        kicks.matrix[:, INDEX[flag]] = 1 - kicks.matrix[:, INDEX[flag]]
        assert flag in drifted(summary_of(reference, kicks))


def test_half_of_the_features_make_a_drift_as_a_whole(reference):
    kicks, usual = simulate(WINDOW, 2), simulate(WINDOW, 3)
    kicks.matrix[:, [1, 2, 3, 4, 0, 5]] = [60, 70, 45, 0.5, 0.99, 1]
    rows = np.column_stack([kicks.matrix, MODEL.predict(usual.matrix).probability])
    counts = reference.count(rows)
    summary = summarize(reference, counts, Limits(), at=NOW, since=NOW)
    assert not summary.prediction.drifted
    assert summary.share == pytest.approx(6 / 11)
    assert summary.drifted
    assert verdict(summary).startswith("Drift: 6 of 11 features (time_norm, ")
    stricter = summarize(reference, counts, Limits(share=0.6), at=NOW, since=NOW)
    assert not stricter.drifted
    assert verdict(stricter).startswith("No drift as a whole: 6 of 11 features (time_norm, ")
    assert "fewer than the limit of 60%" in verdict(stricter)


numbers = st.floats(-1e6, 1e6)


@settings(max_examples=50, deadline=None)
@given(st.data(), arrays(np.float64, st.integers(1, 300), elements=numbers))
def test_counts_add_up_however_the_kicks_are_divided(data, values):
    known = data.draw(arrays(np.float64, st.integers(1, 300), elements=numbers))
    column = Column.of_values("distance", known)
    cut = data.draw(st.integers(0, len(values)))
    whole = column.count(values)
    assert column.count(values[:cut]) + column.count(values[cut:]) == pytest.approx(whole)
    assert whole[1:].sum() == len(values)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, st.integers(1, 400), elements=st.sampled_from([0, 1, 1, 2, 3.5, 7, 100])))
def test_bins_of_values_hold_all_of_them(values):
    column = Column.of_values("wind_speed", values)
    assert column.expected.sum() == len(values)
    assert len(column.expected) == len(column.edges) + 1 <= MAX_BINS
    assert np.all(np.diff(column.edges) > 0)
    assert column.count(values)[1 : 1 + len(column.expected)] == pytest.approx(column.expected)
    assert psi(column.expected, column.expected) == 0


def test_a_value_on_an_edge_is_below_it_and_a_missing_one_in_no_bin():
    column = Column("distance", np.array([10.0, 20.0]), np.array([1.0, 1.0, 1.0]), 15.0)
    assert column.count(np.array([5, 10, 10.5, 20, 21, np.nan]))[:4].tolist() == [66.5, 2, 2, 1]


def test_a_value_that_many_kicks_share_has_a_bin_of_its_own():
    values = np.concatenate([np.zeros(600), np.linspace(0.1, 1, 400)])
    column = Column.of_values("precipitation_probability", values)
    assert (column.edges[0], column.expected[0]) == (0, 600)


def test_of_a_value_at_several_levels_the_count_is_not_guessed():
    levels = [0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0]
    column = Column.of_quantiles("wind_speed", levels, [0, 0, 0, 0, 3, 5, 8, 9], 1_000)
    assert column.edges.tolist() == [3, 5, 8]
    assert column.expected == pytest.approx([600, 200, 100, 100])
    # One bin alone: all values are in it, and none has drifted.
    column = Column.of_quantiles("precipitation_probability", [0.0, 0.4, 0.6, 1.0], [0, 0, 1, 1], 1_000)
    found = column.compare(column.count(np.array([0.0, 1.0] * 50)), Limits(psi=0.0))
    assert (found.psi, found.drifted, found.mean) == (0, False, 0.5)


def test_a_reference_that_is_constant_notices_another_value():
    for column in (
        Column.of_values("wind_speed", np.full(1_000, 7.0)),
        Column.of_quantiles("wind_speed", [0.0, 0.5, 1.0], [7.0, 7.0, 7.0], 1_000),
    ):
        found = [
            column.compare(column.count(np.full(50, each)), Limits()).drifted for each in (6.0, 7.0, 8.0)
        ]
        assert found == [True, False, True]


def test_a_column_without_values_is_missing_and_not_drifted(reference):
    kicks = simulate(100, 1)
    kicks.matrix[:, 0] = np.nan
    summary = summary_of(reference, kicks)
    assert summary.kicks == 100
    assert (summary.features[0].psi, summary.features[0].drifted, summary.features[0].mean) == (0, False, 0)
    with pytest.raises(DataError, match="no values of time_norm"):
        Reference.of_kicks(np.column_stack([kicks.matrix, np.ones(100)]), "mine")


def test_a_model_without_a_profile_is_compared_with_the_packaged_one_and_its_own_predictions():
    def predict(matrix):
        return Answer(0.98 - 0.001 * matrix[:, INDEX["distance"]], None, None)

    stranger = SimpleNamespace(card=SimpleNamespace(name="stranger"), predict=predict)
    reference = reference_of(stranger)
    assert "stranger has no profile" in reference.note
    summary = summary_of(reference, simulate(1_000, 4), stranger)
    assert drifted(summary) == set()
    assert (summary.model, summary.note) == ("stranger", reference.note)


def test_a_profile_that_contradicts_itself_is_refused():
    for quantiles in ({**MODEL.profile.quantiles, "distance": [1.0]}, {}):
        wrong = msgspec.structs.replace(MODEL.profile, quantiles=quantiles)
        with pytest.raises(ModelUnusable, match=r"the profile of the model mine can't be read"):
            Reference.of_profile(wrong, "mine")


def test_a_profile_has_the_means_of_its_kicks_and_gives_kicks_with_its_quantiles(reference):
    means = [column.mean for column in reference.columns[:COUNT]]
    assert means == pytest.approx(simulate(65_536, 10).matrix.mean(axis=0), rel=0.05)
    profile, rows = MODEL.profile, redraw(MODEL.profile, 5_000, 0)
    assert rows[:, 5].mean() == pytest.approx(profile.shares["is_left_footed"], abs=2e-4)
    assert np.quantile(rows[:, 1], 0.5) == pytest.approx(profile.quantiles["distance"][7], rel=1e-3)
    assert np.quantile(rows[:, 11], 0.9) == pytest.approx(profile.prediction[11], rel=1e-3)


def some(number):
    counts = np.zeros(COUNTS)
    counts[:, 1] = number
    return counts


def test_the_window_slides_over_the_newest_kicks():
    window = SlidingWindow(1, 500)
    for second in range(1_000, 3_000, 10):
        window.add(some(100), 1, second, second + 1)
    counts, since = window.read(1)
    assert 500 <= kicks_in(counts) <= 900
    assert 2_991 - since >= SECONDS - 10
    assert window.read(2) is None


def test_few_kicks_stay_in_the_window_however_old_and_a_burst_replaces_them():
    window = SlidingWindow(1, 500)
    for second in range(0, 86_400, 1_000):
        window.add(some(5), 1, 1 + second, 1 + second)
    counts, since = window.read(1)
    assert (kicks_in(counts), since) == (435, 1)
    window.add(some(1_000), 1, 100_000, 100_001)
    window.add(some(1_000), 1, 200_000, 200_001)
    counts, since = window.read(1)
    assert (kicks_in(counts), since) == (1_000, 200_000)


def test_a_worker_continues_the_counts_of_its_predecessor():
    window = SlidingWindow(2, 500)
    for worker, kicks in ((1, 10), (0, 1), (1, 10)):
        window.join_worker(worker)
        window.add(some(kicks), 1, 1_000, 1_001)
    assert kicks_in(window.read(1)[0]) == 21


MEASURES = ("success_rate", "brier", "log_loss", "auc")


@pytest.mark.parametrize(("count", "min_distance"), [(60, 0.0), (400, 40.0)])
def test_simulated_outcomes_lie_in_the_expected_interval_in_95_of_100_cases(count, min_distance):
    rng = np.random.default_rng(1)
    prediction = MODEL.predict(simulate(count, 3, min_distance=min_distance).matrix).probability
    found = expected(np.ones(count), np.sort(prediction))
    measured = [assess(prediction, rng.random(count) < prediction) for _ in range(600)]
    for name in MEASURES:
        estimate = getattr(found, name)
        values = np.array([getattr(each, name) for each in measured])
        inside = np.mean((values >= estimate.low) & (values <= estimate.high))
        assert 0.92 < inside < 0.975, name
        assert estimate.value == pytest.approx(values.mean(), abs=4 * values.std() / np.sqrt(600)), name


def test_extremes_are_expected_as_they_are():
    assert expected(np.empty(0), np.empty(0)) is None
    assert expected(np.array([100.0]), np.array([0.99])).auc is None  # hardly a miss
    sure = expected(np.ones(2), np.array([0.0, 1.0]))
    assert (sure.brier.low, sure.brier.high) == (0, 0)
