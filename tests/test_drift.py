"""What has drifted is decided by one rule: it alarms as often as it promises, and finds what has changed."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from kickserve_models.foreign import ForeignModel

from kickserve.errors import DataError, ModelUnusable
from kickserve.features import COUNT, INDEX, NAMES
from kickserve.linear import load_default
from kickserve.model import Answer
from kickserve.schemas import ModelCard
from kickserve_data.simulate import simulate
from kickserve_drift.drift import LEAST, Limits, chi_square, eased, judge, psi, reference_of, summarize
from kickserve_drift.drift_bins import COLUMNS, MOST, Column, Counts, Reference

MODEL = load_default()
NOW = datetime(2026, 11, 24, tzinfo=UTC)
WINDOWS, WINDOW = 200, 500


@pytest.fixture(scope="module")
def reference():
    return reference_of(MODEL)


def counts_of(reference, kicks):
    return reference.count(kicks.matrix, MODEL.predict(kicks.matrix).probability)


def summary_of(reference, kicks, limits=Limits()):  # noqa: B008  it can't be changed
    return summarize(reference, counts_of(reference, kicks), limits, at=NOW, since=NOW)


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
        judge(*each, limits).drifted
        for counts in windows
        for each in zip(reference.columns, counts.cells, strict=True)
    ]
    # Columns of a window hang together, so that the share scatters more than that of independent ones.
    expected, spread = promised * len(alarms), np.sqrt(2 * promised * len(alarms))
    assert abs(sum(alarms) - expected) < 3 * spread


def test_no_window_without_drift_is_taken_for_one_with_the_limits_as_they_are(reference, windows):
    summaries = [summarize(reference, each, Limits(), at=NOW, since=NOW) for each in windows]
    assert not any(drifted(each) or each.drifted for each in summaries)


def test_fifty_kicks_from_over_40_metres_are_found_every_time(reference):
    kicks = simulate(100 * LEAST, 5, min_distance=40)
    for at in range(0, len(kicks), LEAST):
        summary = summary_of(reference, kicks.take(slice(at, at + LEAST)))
        assert {"distance", "prediction"} <= drifted(summary)
        assert summary.drifted


def test_fifty_kicks_without_drift_are_hardly_ever_taken_for_some_with(reference):
    kicks = simulate(WINDOWS * LEAST, 6)
    parts = [kicks.take(slice(at, at + LEAST)) for at in range(0, len(kicks), LEAST)]
    assert sum(bool(drifted(summary_of(reference, part))) for part in parts) <= 0.04 * WINDOWS


def test_far_kicks_drift_in_distance_angle_and_what_the_model_says_and_in_nothing_else(reference):
    summary = summary_of(reference, simulate(1_000, 1, min_distance=40))
    assert drifted(summary) == {"distance", "angle", "prediction"}
    assert summary.share == pytest.approx(2 / 11)
    assert summary.kicks == 1_000
    distance = summary.features[INDEX["distance"]]
    assert distance.mean > 40 > distance.reference_mean


@pytest.mark.parametrize("flag", ["has_previous_attempts", "is_left_footed"])
def test_a_flag_that_turned_over_is_found(reference, flag):
    kicks = simulate(WINDOW, 2)
    kicks.matrix[:, INDEX[flag]] = 1 - kicks.matrix[:, INDEX[flag]]
    assert flag in drifted(summary_of(reference, kicks))


def test_half_of_the_features_make_a_drift_of_all(reference):
    kicks = simulate(WINDOW, 2)
    kicks.matrix[:, [1, 2, 3, 4, 0, 5]] = [60, 70, 45, 0.5, 0.99, 1]
    summary = summarize(
        reference,
        reference.count(kicks.matrix, MODEL.predict(simulate(WINDOW, 3).matrix).probability),
        Limits(),
        at=NOW,
        since=NOW,
    )
    assert not summary.prediction.drifted
    assert summary.share == pytest.approx(6 / 11)
    assert summary.drifted


def test_the_figure_keeps_its_meaning_with_the_number_of_kicks(reference):
    kicks = simulate(60_000, 3)
    kicks.matrix[:, INDEX["wind_speed"]] = np.minimum(kicks.matrix[:, INDEX["wind_speed"]] * 1.3, 50)
    figures = [
        summary_of(reference, kicks.take(slice(size))).features[INDEX["wind_speed"]].psi
        for size in (1_000, 10_000, 60_000)
    ]
    assert max(figures) - min(figures) < 0.05
    assert min(figures) > 0.08


def test_eased_limits_are_lower_in_everything():
    lower, limits = eased(Limits()), Limits()
    assert lower.psi < limits.psi
    assert lower.share < limits.share
    assert lower.false_alarms > limits.false_alarms


@pytest.mark.parametrize(
    ("freedom", "beyond", "exact"),
    [(9, 0.001, 27.877), (9, 0.05, 16.919), (2, 0.01, 9.210), (4, 0.001, 18.467)],
)
def test_quantiles_of_chi_square_are_those_of_the_tables(freedom, beyond, exact):
    assert chi_square(freedom, beyond) == pytest.approx(exact, rel=0.015)


numbers = st.floats(-1e6, 1e6)


@settings(max_examples=50, deadline=None)
@given(st.data(), arrays(np.float64, st.integers(1, 300), elements=numbers))
def test_counts_add_up_however_the_kicks_are_divided(data, values):
    column = Column.of_values(
        "distance", data.draw(arrays(np.float64, st.integers(1, 300), elements=numbers))
    )
    cut = data.draw(st.integers(0, len(values)))
    parts = column.count(values[:cut]) + column.count(values[cut:])
    whole = column.count(values)
    assert parts == pytest.approx(whole)
    assert whole[1:].sum() == len(values)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, st.integers(1, 400), elements=st.sampled_from([0, 1, 1, 2, 3.5, 7, 100])))
def test_bins_of_values_hold_all_of_them_and_are_never_too_small(values):
    column = Column.of_values("wind_speed", values)
    assert column.expected.sum() == len(values)
    assert len(column.expected) == len(column.edges) + 1 <= MOST
    assert np.all(np.diff(column.edges) > 0)
    assert column.count(values)[1 : 1 + len(column.expected)] == pytest.approx(column.expected)
    assert psi(column.expected, column.expected) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=10), st.data())
def test_the_figure_is_never_negative_and_finite(expected, data):
    counted = data.draw(st.lists(st.integers(0, 1000), min_size=len(expected), max_size=len(expected)))
    figure = psi(np.array(expected, float), np.array(counted, float))
    assert 0 <= figure < np.inf


def test_a_value_on_an_edge_is_below_it_and_one_that_is_missing_is_in_no_bin():
    column = Column("distance", np.array([10.0, 20.0]), np.array([1.0, 1.0, 1.0]), 15.0)
    row = column.count(np.array([5, 10, 10.5, 20, 21, np.nan]))
    assert row[1:4].tolist() == [2, 2, 1]
    assert row[0] == 66.5


def test_a_value_that_many_kicks_share_has_a_bin_of_its_own():
    values = np.concatenate([np.zeros(600), np.linspace(0.1, 1, 400)])
    column = Column.of_values("precipitation_probability", values)
    assert column.expected[0] == 600
    assert column.edges[0] == 0


def test_of_a_value_at_several_levels_the_count_is_not_guessed():
    levels = [0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0]
    column = Column.of_quantiles("wind_speed", levels, [0, 0, 0, 0, 3, 5, 8, 9], 1_000)
    assert column.edges.tolist() == [3, 5, 8]
    assert column.expected == pytest.approx([600, 200, 100, 100])


def test_a_profile_with_more_levels_than_there_are_bins_has_one_a_tenth():
    profile = MODEL.profile
    assert profile is not None
    levels = np.linspace(0, 1, 101)
    fine = msgspec.structs.replace(
        profile,
        levels=levels.tolist(),
        quantiles={
            name: np.interp(levels, profile.levels, values).tolist()
            for name, values in profile.quantiles.items()
        },
        prediction=np.interp(levels, profile.levels, profile.prediction).tolist(),
    )
    kicks = simulate(5_000, 1).matrix
    coarse, found = (
        Reference.of_profile(each, "mine").count(kicks, MODEL.predict(kicks).probability)
        for each in (profile, fine)
    )
    assert found.kicks == 5_000
    distance = INDEX["distance"]
    assert found.cells[distance] == pytest.approx(coarse.cells[distance])


def test_a_reference_that_is_constant_notices_another_value():
    limits = Limits()
    for column in (
        Column.of_values("wind_speed", np.full(1_000, 7.0)),
        Column.of_quantiles("wind_speed", [0.0, 0.5, 1.0], [7.0, 7.0, 7.0], 1_000),
    ):
        assert not judge(column, column.count(np.full(50, 7.0)), limits).drifted
        assert judge(column, column.count(np.full(50, 8.0)), limits).drifted
        assert judge(column, column.count(np.full(50, 6.0)), limits).drifted


@pytest.mark.parametrize("least", [0.0, 0.1])
def test_a_number_that_takes_two_values_alone_can_not_be_told_from_its_quantiles_and_has_not_drifted(least):
    column = Column.of_quantiles("precipitation_probability", [0.0, 0.4, 0.6, 1.0], [0, 0, 1, 1], 1_000)
    found = judge(column, column.count(np.array([0.0, 1.0] * 50)), Limits(psi=least))
    assert (found.psi, found.drifted, found.mean) == (0, False, 0.5)


def test_a_column_without_values_is_missing_and_not_drifted(reference):
    kicks = simulate(100, 1)
    kicks.matrix[:, 0] = np.nan
    summary = summary_of(reference, kicks)
    assert summary.kicks == 100
    assert (summary.features[0].psi, summary.features[0].drifted, summary.features[0].mean) == (0, False, 0)
    with pytest.raises(DataError, match="no values of time_norm"):
        Reference.of_kicks(kicks.matrix, np.ones(100), "mine")


def test_bins_of_kicks_find_what_bins_of_a_profile_find():
    kicks = simulate(5_000, 8)
    mine = Reference.of_kicks(kicks.matrix, MODEL.predict(kicks.matrix).probability, "mine")
    assert [column.name for column in mine.columns] == list(COLUMNS)
    assert drifted(summary_of(mine, simulate(1_000, 9))) == set()
    far = summary_of(mine, simulate(1_000, 1, min_distance=40))
    assert drifted(far) == {"distance", "angle", "prediction"}
    assert far.model == "mine"


def test_no_kicks_count_as_none():
    assert Counts.none().kicks == 0
    assert (Counts.none() + Counts.none()).cells.shape == (len(COLUMNS), 1 + MOST)


class Stranger(ForeignModel):
    """A model that says nothing of what it was trained on, and is sure of itself."""

    def __init__(self):
        super().__init__(
            ModelCard(
                name="stranger",
                revision="1",
                kind="other",
                source="a test",
                description="",
                features=list(NAMES),
                domain={},
                interval=None,
                trained_on={},
                metrics={},
            )
        )

    def predict(self, matrix):
        return Answer(0.98 - 0.001 * matrix[:, INDEX["distance"]], None, None)


def test_a_model_without_a_profile_is_held_against_the_packaged_one_and_what_it_says_itself():
    model = Stranger()
    reference = reference_of(model)
    assert "stranger does not say" in reference.note
    kicks = simulate(1_000, 4)
    counts = reference.count(kicks.matrix, model.predict(kicks.matrix).probability)
    summary = summarize(reference, counts, Limits(), at=NOW, since=NOW)
    assert drifted(summary) == set()
    assert summary.model == "stranger"
    assert summary.note == reference.note


def test_a_profile_that_contradicts_itself_is_no_profile():
    profile = MODEL.profile
    assert profile is not None
    for broken in ({**profile.quantiles, "distance": [1.0]}, {}):
        wrong = type(profile)(
            count=profile.count,
            levels=profile.levels,
            quantiles=broken,
            shares=profile.shares,
            prediction=profile.prediction,
        )
        with pytest.raises(ModelUnusable, match=r"the profile of the model mine can't be read"):
            Reference.of_profile(wrong, "mine")


def test_the_mean_of_a_profile_is_near_that_of_its_kicks(reference):
    kicks = simulate(65_536, 10)
    means = [column.mean for column in reference.columns[:COUNT]]
    assert means == pytest.approx(kicks.matrix.mean(axis=0), rel=0.05)
