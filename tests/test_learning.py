"""The parts of training: families, ability, calibration, measures, choice, and all of it together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning_help import known_of, of_kickers, order

from kickserve.documents import expit, mean_shrink
from kickserve.features import COUNT, INDEX, NAMES
from kickserve.terms import expand, is_term, spline_names, spline_of
from kickserve_data.simulate import ABILITY_SD, logit, simulate
from kickserve_train.ability import ability_spread
from kickserve_train.boosting import Boosted
from kickserve_train.calibration import calibrate, line_through
from kickserve_train.checks import check
from kickserve_train.data import Known
from kickserve_train.families import logistic, splines
from kickserve_train.making import encode, model_of
from kickserve_train.measures import Judge, Measured, Value
from kickserve_train.search import Candidate, choose
from kickserve_train.teach import teach


class TestSplines:
    @given(st.floats(0, 90))
    def test_a_piece_is_the_same_for_one_kick_and_for_many(self, angle):
        row = dict.fromkeys(NAMES, 0.0) | {"angle": angle}
        values = [row[name] for name in NAMES]
        names = spline_names("angle", [5, 20, 40, 60])
        many = expand(np.array([values]), names)[0]
        assert [spline_of(name)(values) for name in names] == pytest.approx(many.tolist(), abs=1e-9)

    def test_beyond_its_outer_knots_a_spline_is_straight(self):
        matrix = np.zeros((40, COUNT))
        matrix[:, INDEX["distance"]] = np.r_[np.linspace(2, 10, 20), np.linspace(60, 100, 20)]
        for values in expand(matrix, spline_names("distance", [10, 20, 40, 60])).T:
            assert values[:20] == pytest.approx(0)
            assert np.diff(values[20:], 2) == pytest.approx(0, abs=1e-8)

    @pytest.mark.parametrize(
        "name",
        [
            "spline",
            "spline:moon:1:1,2,3",
            "spline:angle:0:1,2,3",
            "spline:angle:2:1,2,3",
            "spline:angle:x:1,2,3",
            "spline:angle:1:1,2",
            "spline:angle:1:3,2,1",
            "spline:angle:1:1,1.0001,3",
            "spline:angle:1:1,2,nan",
            "spline:angle:1:1,2,inf",
            "spline:angle:1:1,2,91",
            "spline:angle:1:" + ",".join(map(str, range(13))),
            "line:angle:1:1,2,3",
        ],
    )
    def test_what_is_no_spline_is_no_term(self, name):
        assert not is_term(name)


class TestFamilies:
    def test_a_logistic_regression_is_fitted_where_a_term_separates_and_others_never_differ(self):
        known = known_of(300, 2)
        known.matrix[:, INDEX["is_left_footed"]] = 0
        known.matrix[:, INDEX["game_away"]] = known.success
        fitted = logistic(known).fit(known)
        assert "left_footed" not in fitted.terms
        assert np.isfinite(fitted.found.coefficients).all()

    def test_with_thousands_of_kicks_the_prior_weighs_nothing(self):
        known = known_of(50_000, 3)
        found = logistic(known).fit(known).log_odds(known.matrix)
        assert np.abs(expit(found) - expit(logit(known.matrix) / mean_shrink(ABILITY_SD))).mean() < 0.006

    def test_splines_have_knots_where_the_data_allow(self):
        known = known_of(500, 4)
        assert sum(name.startswith("spline:") for name in splines(known).terms) == 6
        known.matrix[:, INDEX["angle"]] = 10
        assert not any("angle" in name for name in splines(known).terms)

    def test_boosted_trees_never_say_that_further_is_easier(self):
        fitted = Boosted().fit(known_of(1_500, 5), 0)
        for name in ("distance", "angle"):
            matrix = np.repeat(simulate(50, 6).matrix, 40, axis=0)
            matrix[:, INDEX[name]] = np.tile(np.linspace(2, 60, 40), 50)
            assert np.diff(fitted.log_odds(matrix).reshape(50, 40)).max() <= 1e-9

    @pytest.mark.parametrize("seed", [1, 2])
    def test_boosted_trees_are_fitted_where_most_kicks_are_of_one_kicker(self, seed):
        known = known_of(600, 7)
        kicker = np.where(np.arange(600) < 540, 0, np.arange(600) % 9 + 1)
        for which in (kicker >= 0, kicker == 0):
            some = Known(known.matrix[which], known.success[which], kicker[which])
            assert np.isfinite(Boosted().fit(some, seed).log_odds(some.matrix)).all()


class TestAbility:
    @pytest.mark.parametrize("spread", [0.3, 0.8])
    def test_the_spread_that_was_put_in_is_found(self, spread):
        found = []
        for seed in range(5):
            known = of_kickers(100, 60, seed, spread)
            z = logit(known.matrix) / mean_shrink(spread)
            found.append(ability_spread(z, known.success, known.kicker))
        assert np.mean(found) == pytest.approx(spread, abs=0.06)

    def test_kickers_who_do_not_differ_have_none(self):
        known = of_kickers(100, 60, 1, 0.0)
        assert ability_spread(logit(known.matrix), known.success, known.kicker) < 0.12


class TestCalibration:
    def test_a_line_that_was_bent_is_found_and_kept(self):
        known = known_of(5_000, 1)
        z = logit(known.matrix) / mean_shrink(ABILITY_SD)
        judge = Judge(known.success, np.arange(5_000), 0)
        found = calibrate(z / 2 - 1, known.success, np.arange(5_000) % 5, judge)
        assert found.kept
        assert found.line == pytest.approx((2, 2), abs=0.25)
        assert found.gain.value > found.gain.se > 0
        assert np.abs(found.log_odds - z).mean() < 0.2

    def test_what_is_right_stays_as_it_is(self):
        known = known_of(5_000, 1)
        z = logit(known.matrix) / mean_shrink(ABILITY_SD)
        found = calibrate(z, known.success, np.arange(5_000) % 5, Judge(known.success, np.arange(5_000), 0))
        assert not found.kept
        assert found.line == (1, 0)
        assert found.log_odds is z

    def test_a_line_that_runs_downwards_is_none(self):
        known = known_of(1_000, 1)
        assert line_through(-logit(known.matrix), known.success) == (1, 0)


class TestMeasures:
    def test_the_error_of_a_brier_score_is_that_of_a_mean(self):
        known = known_of(4_000, 1)
        p = expit(logit(known.matrix))
        found = Judge(known.success, np.arange(4_000), 0).measure(p)
        squares = (p - known.success) ** 2
        assert found.brier.value == pytest.approx(squares.mean())
        assert found.brier.se == pytest.approx(squares.std() / math.sqrt(4_000), rel=0.35)

    def test_kicks_of_one_kicker_do_not_count_as_independent(self):
        known = of_kickers(80, 50, 1, 2.0)
        p = expit(logit(known.matrix))
        together = Judge(known.success, known.kicker, 0).measure(p)
        assert together.brier.se > 1.5 * Judge(known.success, np.arange(4_000), 0).measure(p).brier.se

    def test_a_difference_from_itself_is_none(self):
        known = known_of(500, 1)
        p = expit(logit(known.matrix))
        assert Judge(known.success, np.arange(500), 0).difference(p, p).log_loss == Value(value=0, se=0)


def candidate(kind, behind, se):
    value = Value(value=0.5, se=0.1)
    measured = Measured(brier=value, log_loss=value, ece=value, auc=value)
    return Candidate(kind=kind, measured=measured, behind=Value(value=behind, se=se))


@pytest.mark.parametrize(
    ("behind", "chosen"),
    [
        ([(0.0, 0.1), (0.001, 0.002), (0.0, 0.0)], "splines"),
        ([(0.0, 0.1), (0.003, 0.002), (0.0, 0.0)], "boosted"),
        ([(-0.1, 0.1), (0.0, 0.0), (0.1, 0.2)], "splines"),
    ],
)
def test_the_simplest_within_one_standard_error_is_chosen_and_never_the_constant(behind, chosen):
    kinds = ("constant", "splines", "boosted")
    assert choose([candidate(kind, *each) for kind, each in zip(kinds, behind, strict=True)]) == chosen


class TestTeaching:
    def test_what_only_trees_can_see_is_left_to_trees(self):
        known = known_of(3_000, 1)
        x = known.matrix
        corner = (x[:, INDEX["distance"]] > 30) == (x[:, INDEX["wind_speed"]] > 15)
        success = np.random.default_rng(1).random(3_000) < np.where(corner, 0.9, 0.4)
        known = known.with_success(success)
        document, report = teach(known, check(known, []), order())
        assert report.kind == "boosted"
        assert document.format == "kickserve/trees"

    def test_what_a_logistic_regression_says_as_well_is_left_to_it(self):
        known = known_of(3_000, 1)
        document, report = teach(known, check(known, []), order())
        assert report.kind == "logistic"
        assert [each.kind for each in report.candidates] == ["constant", "logistic", "splines", "boosted"]
        assert report.measured.brier.value == pytest.approx(0.156, abs=0.015)
        assert document.trained_on["kicks"] == 3_000
        assert document.metrics["reliability"][0][2] == 300

    @pytest.mark.parametrize("kind", ["splines", "boosted"])
    def test_the_same_seed_gives_the_same_bytes(self, kind):
        known = known_of(600, 1)
        first, second = (teach(known, check(known, []), order(kind=kind))[0] for _ in range(2))
        assert encode(first) == encode(second)

    def test_of_more_kicks_than_the_search_takes_a_part_is_searched(self, monkeypatch):
        monkeypatch.setattr("kickserve_train.teach.SEARCHED", 1_000)
        known = known_of(3_000, 1)
        document, report = teach(known, check(known, []), order())
        assert report.compared_on == 1_000
        assert any("compared on 1,000 of the 3,000 kicks" in each for each in report.warnings)
        assert document.trained_on["kicks"] == document.reference.count == 3_000

    def test_a_model_trained_on_the_same_kicks_is_known_to_have_seen_them(self):
        known = known_of(600, 1)
        document, _ = teach(known, check(known, []), order(kind="logistic"))
        _, report = teach(known, check(known, []), order(kind="logistic"), model_of(document))
        assert report.in_use.seen
        assert report.in_use.difference.log_loss.value > 0
        assert not any("does better" in each for each in report.warnings)

    def test_kicks_that_nothing_explains_are_warned_of(self):
        known = known_of(600, 1)
        known = known.with_success(np.random.default_rng(3).random(600) < 0.7)
        _, report = teach(known, check(known, []), order(kind="logistic"))
        assert any("hardly better than always saying" in each for each in report.warnings)
