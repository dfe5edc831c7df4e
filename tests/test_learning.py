"""The parts of training: data, checks, folds, families, ability, calibration, measures, choice, intervals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve.errors import DataError
from kickserve.features import COUNT, INDEX, NAMES
from kickserve.learning.ability import ability_spread
from kickserve.learning.boosting import Boosted
from kickserve.learning.calibration import calibrate, line_through
from kickserve.learning.checks import FEWEST, check
from kickserve.learning.data import Known, Naming, read_known
from kickserve.learning.families import logistic, splines
from kickserve.learning.folds import folds_of, groups_of, sample_of
from kickserve.learning.making import encode, model_of
from kickserve.learning.measures import Judge, Measured, Value
from kickserve.learning.profiles import domain_of
from kickserve.learning.search import Candidate, choose
from kickserve.learning.teach import Order, teach
from kickserve.models.linear import expit, mean_shrink
from kickserve.models.terms import expand, find_term, is_term, spline_names
from kickserve.simulate import ABILITY_SD, logit, simulate


def known_of(size, seed):
    kicks = simulate(size, seed)
    return Known(kicks.matrix, kicks.success)


def of_kickers(count, each, seed, spread=ABILITY_SD):
    """Simulated kicks of kickers whose ability stays the same."""
    rng = np.random.default_rng(seed)
    matrix = simulate(count * each, seed).matrix
    kicker = rng.permutation(np.repeat(np.arange(count), each))
    ability = rng.normal(0, spread, count)[kicker]
    return Known(matrix, rng.random(len(matrix)) < expit(logit(matrix) + ability), kicker)


def order(**changes):
    return Order(**({"name": "test", "data": "simulated", "seed": 1, "folds": 3} | changes))


def write(path, rows, header=(*NAMES, "success")):
    lines = [",".join(header), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


GOOD = [0.5, 30, 10, 5, 0, 0, 1, 0, 0, 1, 1, 1]


class TestData:
    @pytest.mark.parametrize("ending", ["csv", "ndjson", "parquet"])
    def test_names_of_ones_own_are_read_from_each_kind_of_file(self, tmp_path, ending):
        import pyarrow as pa
        import pyarrow.parquet as pq

        header = ["who", *("dist_m" if name == "distance" else name for name in NAMES), "goal"]
        rows = [["Ann", *GOOD], ["Bob", *GOOD[:-1], 0], ["Ann", *GOOD]]
        path = tmp_path / f"kicks.{ending}"
        if ending == "csv":
            write(path, rows, header)
        elif ending == "ndjson":
            path.write_text("\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in rows))
        else:
            columns = {name: list(cells) for name, cells in zip(header, zip(*rows, strict=True), strict=True)}
            pq.write_table(pa.table(columns), path)
        known, refusals = read_known(
            path, Naming(columns={"distance": "dist_m"}, outcome="goal", kicker="who")
        )
        assert not refusals
        assert known.matrix.tolist() == [GOOD[:-1]] * 3
        assert known.success.tolist() == [True, False, True]
        assert known.kicker.tolist() == [0, 1, 0]

    def test_lines_that_can_not_be_used_are_refused_with_the_reason(self, tmp_path):
        rows = [GOOD, [*GOOD[:-1], ""], [0.5, "", *GOOD[2:]], [0.5, 300, *GOOD[2:]], [*GOOD[:-1], 2], [1, 2]]
        known, refusals = read_known(write(tmp_path / "kicks.csv", rows), Naming())
        assert len(known) == 1
        assert [each.line for each in refusals] == [3, 4, 5, 6, 7]
        for refusal, reason in zip(
            refusals,
            ["success is missing", "distance is missing", "2 to 100 m", "1, 0", "cells"],
            strict=True,
        ):
            assert reason in refusal.reason

    def test_a_kick_of_nobody_is_refused_where_kickers_are_named(self, tmp_path):
        path = write(tmp_path / "kicks.csv", [[*GOOD, "Ann"], [*GOOD, " "]], (*NAMES, "success", "who"))
        known, refusals = read_known(path, Naming(kicker="who"))
        assert known.kickers == len(known) == 1
        assert [(each.line, each.reason) for each in refusals] == [(3, "who is missing")]

    def test_wind_in_metres_a_second_is_converted_and_then_checked(self, tmp_path):
        rows = [GOOD, [*GOOD[:3], 14, *GOOD[4:]]]
        known, refusals = read_known(write(tmp_path / "kicks.csv", rows), Naming(wind_in_ms=True))
        assert known.matrix[:, INDEX["wind_speed"]].tolist() == [18.0]
        assert refusals[0].reason.startswith("wind_speed 14 m/s is 50.4 km/h: must be")

    def test_what_is_no_feature_can_not_be_renamed(self):
        with pytest.raises(DataError, match="moon is no feature of a kick; the features are time_norm"):
            Naming(columns={"moon": "x"})

    def test_without_outcomes_nothing_can_be_learnt(self, tmp_path):
        path = write(tmp_path / "kicks.csv", [GOOD[:-1]], NAMES)
        with pytest.raises(DataError, match="no column success or outcome or is_successful: name it with"):
            read_known(path, Naming())

    def test_the_digest_knows_the_same_kicks_in_another_order(self):
        known = known_of(300, 1)
        assert known.take(np.arange(300)[::-1]).digest() == known.digest()
        assert known.take(np.arange(299)).digest() != known.digest()


class TestChecks:
    def warned(self, known):
        return " | ".join(check(known, []).warnings)

    def test_simulated_kicks_are_nothing_odd(self):
        findings = check(known_of(2_000, 1), [])
        assert findings.warnings == []
        assert (findings.kicks, findings.duplicates, findings.kickers) == (2_000, 0, None)
        assert findings.columns["distance"].low < findings.columns["distance"].mean < 60

    @pytest.mark.parametrize(
        ("name", "change", "warning"),
        [
            ("wind_speed", lambda x: x / 3.6, "looks like m/s, not km/h"),
            ("wind_speed", lambda x: x * 0, "wind_speed is always 0"),
            ("angle", np.radians, "looks like radians"),
            ("time_norm", lambda x: np.where(x > 0.7, 1, x), "time_norm is 1 in 3"),
            ("angle", lambda x: np.minimum(x + 40, 90), "beyond the touchline"),
        ],
    )
    def test_what_is_odd_is_said(self, name, change, warning):
        known = known_of(2_000, 1)
        known.matrix[:, INDEX[name]] = change(known.matrix[:, INDEX[name]])
        assert warning in self.warned(known)

    def test_kicks_that_stand_there_twice_are_counted(self):
        known = known_of(2_000, 1).take(np.r_[:2_000, :100])
        assert check(known, []).duplicates == 100
        assert "100 kicks are the same as an earlier one" in self.warned(known)

    def test_few_kicks_are_warned_of_and_too_few_refused_with_the_number_needed(self):
        assert "300 kicks are few" in self.warned(known_of(300, 1))
        with pytest.raises(DataError, match=f"199 kicks that can be used, and training needs {FEWEST}"):
            check(known_of(199, 1), [])
        known = known_of(400, 1)
        few = known.take(np.r_[np.flatnonzero(known.success), np.flatnonzero(~known.success)[:20]])
        with pytest.raises(DataError, match="20 misses among .* training needs 50"):
            check(few, [])
        with pytest.raises(DataError, match="9 kickers, .* needs 10: leave --kicker out"):
            check(of_kickers(9, 50, 1), [])

    def test_the_domain_is_where_the_kicks_lie(self):
        domain = domain_of(simulate(20_000, 1).matrix)
        assert set(domain) <= {"distance", "angle", "wind_speed"}
        assert 5 < domain["distance"][0] < 12
        assert 50 < domain["distance"][1] < 65


class TestFolds:
    @given(st.lists(st.integers(0, 30), min_size=40, max_size=200), st.integers(2, 6), st.integers(0, 9))
    def test_a_group_is_never_divided(self, numbers, count, seed):
        groups = np.unique(numbers, return_inverse=True)[1]
        folds = folds_of(groups, count, seed)
        assert all(len(np.unique(folds[groups == group])) == 1 for group in np.unique(groups))
        assert set(folds.tolist()) <= set(range(count))
        assert np.array_equal(folds, folds_of(groups, count, seed))

    def test_folds_are_about_as_large(self):
        folds = folds_of(groups_of(known_of(1_000, 1)), 5, 0)
        assert np.bincount(folds).tolist() == [200] * 5

    def test_equal_kicks_belong_together(self):
        known = known_of(300, 1).take(np.r_[:300, :300])
        groups = groups_of(known)
        assert np.array_equal(groups[:300], groups[300:])

    def test_a_sample_has_whole_groups(self):
        groups = np.repeat(np.arange(50), 10)
        chosen = sample_of(groups, 105, 3)
        assert len(chosen) == 100
        assert sorted(np.bincount(groups[chosen]).tolist())[-10:] == [10] * 10
        assert len(sample_of(groups, 500, 3)) == 500


class TestSplines:
    @given(st.floats(0, 90))
    def test_a_piece_is_the_same_for_one_kick_and_for_many(self, angle):
        row = dict.fromkeys(NAMES, 0.0) | {"angle": angle}
        values = [row[name] for name in NAMES]
        names = spline_names("angle", [5, 20, 40, 60])
        many = expand(np.array([values]), names)[0]
        assert [find_term(name).of_row(values) for name in names] == pytest.approx(many.tolist(), abs=1e-9)

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
            "spline:angle:1:" + ",".join(map(str, range(14))),
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
        monkeypatch.setattr("kickserve.learning.teach.SEARCHED", 1_000)
        known = known_of(3_000, 1)
        document, report = teach(known, check(known, []), order())
        assert report.compared_on == 1_000
        assert any("compared on 1,000 of the 3,000 kicks" in each for each in report.warnings)
        assert document.trained_on["kicks"] == document.reference.count == 3_000

    def test_a_model_trained_on_the_same_kicks_is_known_to_have_seen_them(self):
        known = known_of(600, 1)
        document, _ = teach(known, check(known, []), order(kind="logistic"))
        _, report = teach(known, check(known, []), order(kind="logistic"), model_of(document, "in use"))
        assert report.in_use.seen
        assert report.in_use.difference.log_loss.value > 0
        assert not any("does better" in each for each in report.warnings)

    def test_kicks_that_nothing_explains_are_warned_of(self):
        known = known_of(600, 1)
        known = known.with_success(np.random.default_rng(3).random(600) < 0.7)
        _, report = teach(known, check(known, []), order(kind="logistic"))
        assert any("hardly better than always saying" in each for each in report.warnings)


def mean_coverage(kind, knowns, truth, fresh):
    """The share of fresh kicks whose true probability lies in the interval, over some trainings."""
    shares = []
    for seed, known in enumerate(knowns):
        document, _ = teach(known, check(known, []), order(kind=kind, seed=seed, folds=2))
        _, low, high = model_of(document, "test").predict(fresh.matrix)
        shares.append(((low <= truth) & (truth <= high)).mean())
    return np.mean(shares)


class TestCoverage:
    """The truth is known of simulated kicks. One training is off for all kicks alike: several are averaged."""

    FRESH = simulate(20_000, 99)

    @pytest.mark.parametrize(("kind", "times"), [("logistic", 20), ("splines", 20), ("boosted", 4)])
    def test_without_kickers_the_interval_holds_the_mean_probability_95_plus_minus_3_times_in_100(
        self, kind, times
    ):
        truth = expit(logit(self.FRESH.matrix) / mean_shrink(ABILITY_SD))
        found = mean_coverage(kind, [known_of(2_000, seed) for seed in range(times)], truth, self.FRESH)
        assert found == pytest.approx(0.95, abs=0.03)

    @pytest.mark.parametrize(("kind", "times"), [("logistic", 12), ("boosted", 4)])
    def test_with_kickers_it_holds_that_of_a_new_kicker_95_plus_minus_3_times_in_100(self, kind, times):
        knowns = [of_kickers(80, 50, seed) for seed in range(times)]
        found = mean_coverage(kind, knowns, self.FRESH.probability, self.FRESH)
        assert found == pytest.approx(0.95, abs=0.03)
