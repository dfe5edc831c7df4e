"""The simulator reproduces the published figures that it rests on."""

from __future__ import annotations

import numpy as np
import pytest

from kickserve.errors import InvalidInput
from kickserve.features import INDEX, acceptable
from kickserve.linear import theta
from kickserve_data.simulate import BLOCK, logit, simulate

SIZE = 400_000
# From the public figures, in metres and percent; the formula must stay within 2 points of them.
TABLE = {10: 98.9, 15: 96.2, 20: 91.3, 25: 84.8, 30: 75.6, 35: 61.7, 40: 52.1, 45: 51.9, 50: 43.6, 55: 35.0}


@pytest.fixture(scope="module")
def kicks():
    return simulate(SIZE, 1)


@pytest.fixture(scope="module")
def columns(kicks):
    return {name: kicks.matrix[:, at] for name, at in INDEX.items()}


def percent(kicks, mask):
    return 100 * kicks.probability[mask].mean()


@pytest.mark.parametrize(("start", "expected"), TABLE.items())
def test_the_success_by_distance_is_that_of_the_public_figures(kicks, columns, start, expected):
    mask = (columns["distance"] >= start) & (columns["distance"] < start + 5)
    sampling = 3 * 100 * kicks.probability[mask].std() / np.sqrt(mask.sum())
    assert percent(kicks, mask) == pytest.approx(expected, abs=2 + sampling)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("distance", "angle", 0.38),
        ("time_norm", "has_previous_attempts", 0.53),
        ("wind_speed", "precipitation_probability", 0.37),
    ],
)
def test_features_hang_together_as_specified(columns, first, second, expected):
    assert np.corrcoef(columns[first], columns[second])[0, 1] == pytest.approx(expected, abs=0.01)


def test_kicks_in_all_from_beyond_halfway_and_from_in_front_succeed_as_published(kicks, columns):
    out = columns["distance"] * np.cos(np.radians(columns["angle"]))
    in_front = (abs(columns["distance"] - 23) < 1) & (columns["angle"] < 5)
    assert percent(kicks, slice(None)) == pytest.approx(73.5, abs=0.2)
    assert percent(kicks, out > 50) == pytest.approx(38, abs=1.5)
    assert percent(kicks, in_front) == pytest.approx(94.5, abs=1)
    assert 100 * np.quantile(kicks.probability, 0.99) == pytest.approx(99, abs=1)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("is_left_footed", 0.16),
        ("is_left_side", 0.53),
        ("game_away", 0.43),
        ("has_previous_attempts", 0.73),
        ("is_start", 0.0625),
        ("is_endgame", 0.0625),
    ],
)
def test_flags_are_set_as_often_as_specified(columns, name, share):
    assert columns[name].mean() == pytest.approx(share, abs=0.004)


def test_the_weather_is_as_specified(columns):
    rain, wind = columns["precipitation_probability"], columns["wind_speed"]
    assert (rain == 0).mean() == pytest.approx(0.57, abs=0.001)
    assert (rain == 1).mean() == pytest.approx(0.22, abs=0.001)
    assert wind.mean() == pytest.approx(2.6 * 6.5, abs=0.1)
    assert wind.max() <= 50


def test_every_kick_is_one_that_the_service_takes(kicks):
    assert acceptable(kicks.matrix).all()


def test_ability_spreads_the_probability_around_the_formula(kicks):
    p = kicks.probability
    ability = np.log(p / (1 - p)) - logit(kicks.matrix)
    assert ability.mean() == pytest.approx(0, abs=0.003)
    assert ability.std() == pytest.approx(0.29, abs=0.003)


def test_kickers_share_the_kicks_and_each_has_one_ability_and_one_foot():
    season = simulate(2 * BLOCK, 7, kickers=12)
    p = season.probability
    ability = np.log(p / (1 - p)) - logit(season.matrix)
    left = season.matrix[:, INDEX["is_left_footed"]]
    assert set(season.kicker) == set(range(12))
    for number in range(12):
        assert np.ptp(ability[season.kicker == number]) < 1e-9
        assert np.ptp(left[season.kicker == number]) == 0
    assert 0.15 < np.std([ability[season.kicker == number][0] for number in range(12)]) < 0.45
    assert np.array_equal(simulate(100, 7, kickers=12).kicker, season.kicker[:100])


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK + 1, 2 * BLOCK])
def test_the_first_kicks_are_the_same_whatever_the_size(size):
    first, second = simulate(size, 2**63), simulate(2 * BLOCK, 2**63)
    assert len(first) == size
    for name in ("matrix", "success", "probability"):
        assert np.array_equal(getattr(first, name), getattr(second, name)[:size])


def test_far_kicks_are_drawn_until_there_are_enough():
    far = simulate(3_000, 5, min_distance=55)
    everything = simulate(4 * BLOCK, 5)
    mask = everything.matrix[:, INDEX["distance"]] >= 55
    assert len(far) == 3_000
    assert np.array_equal(far.matrix[: mask.sum()], everything.matrix[mask][:3_000])
    assert np.array_equal(simulate(100, 5, min_distance=0).matrix, everything.matrix[:100])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0, "seed": 1}, "size=0 .* ask for 1"),
        ({"size": 1, "seed": -1}, "seed=-1 .* 0 or more"),
        ({"size": 1, "seed": 1, "kickers": 0}, "kickers=0 .* 1 kicker"),
        ({"size": 1, "seed": 1, "min_distance": 66}, "min_distance=66 .* 0 to 65"),
        ({"size": 1, "seed": 1, "min_distance": float("nan")}, "min_distance=nan"),
    ],
)
def test_arguments_out_of_range_are_refused_in_words(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        simulate(**arguments)


def test_the_posts_open_to_the_kicker_as_geometry_has_it_and_never_close_wholly():
    distance, angle = np.array([22.0, 22.0, 40.0, 8.0]), np.array([0.0, 45.0, 30.0, 60.0])
    aside, out = distance * np.sin(np.radians(angle)), distance * np.cos(np.radians(angle))
    expected = np.degrees(np.arctan2(aside + 2.8, out) - np.arctan2(aside - 2.8, out))
    assert theta(distance, angle) == pytest.approx(expected, rel=1e-12)
    assert theta(np.array([30.0]), np.array([90.0])).tolist() == [0.05]


def test_the_formula_gives_a_kick_worked_out_by_hand():
    # 40 m, 30°, left side with the right foot, away, half-time, kicked before, 20 km/h, rain at 0.5.
    kick = np.array([[0.5, 40, 30, 20, 0.5, 0, 1, 0, 0, 1, 1]])
    opening = np.degrees(np.arctan2(5.6 * 40 * np.sqrt(0.75), 1600 - 7.84))
    by_hand = (
        0.067 - 1.28 + 0.546 * np.log(opening) ** 2 + 0.025 - 0.04 - 0.05 + 0.12 - 0.08 * 2 * 40 / 30 - 0.05
    )
    assert logit(kick) == pytest.approx([by_hand], rel=1e-12)
