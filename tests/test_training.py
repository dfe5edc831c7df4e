"""Training: reading and checking kicks, families, measures, calibration, intervals, the packaged model."""

from __future__ import annotations

import math
import re
from importlib.resources import files
from itertools import product

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve.documents import expit, mean_shrink
from kickserve.features import INDEX, NAMES
from kickserve.linear import LinearDocument, LinearModel, expand, load_default
from kickserve.model import TYPICAL, Origin
from kickserve_data import DataError
from kickserve_data.simulate import ABILITY_SD, COEFFICIENTS, FIGURES_KICKS, logit, simulate
from kickserve_scores.explain import log_odds
from kickserve_train.boosting import Boosted
from kickserve_train.calibration import ability_spread, calibrate
from kickserve_train.checks import check, too_few
from kickserve_train.dataset import ColumnNames, Dataset, folds_of, groups_of, read_dataset
from kickserve_train.default import MEASURED, PASSES, train_default
from kickserve_train.evaluation import (
    Candidate,
    Evaluator,
    Measure,
    Measures,
    choose,
)
from kickserve_train.families import KINDS, fit, logistic, splines
from kickserve_train.recalibration import Recalibrated
from kickserve_train.serialization import domain_of, model_of
from kickserve_train.training import TrainingConfig, TrainingRun, families_for

DISTANCE, ANGLE, WIND = INDEX["distance"], INDEX["angle"], INDEX["wind_speed"]


def dataset_of(size, seed):
    kicks = simulate(size, seed)
    return Dataset(kicks.matrix, kicks.success)


def kickers_of(count, each, seed, spread=ABILITY_SD, world=logit):
    """Simulated kicks of kickers whose ability stays the same."""
    rng = np.random.default_rng([seed, 5])
    matrix = simulate(count * each, seed).matrix
    kicker = rng.permutation(np.repeat(np.arange(count), each))
    ability = rng.normal(0, spread, count)[kicker]
    return Dataset(matrix, rng.random(len(matrix)) < expit(world(matrix) + ability), kicker)


def trained(dataset, current=None, *, force=False, **changes):
    config = TrainingConfig(**({"name": "test", "data": "simulated", "seed": 1, "folds": 3} | changes))
    dataset, summary = check(dataset, [], force=force)
    return TrainingRun(dataset, summary, config, current).run()


class TestReading:
    GOOD = (0.5, 30, 10, 5, 0, 0, 1, 0, 0, 1, 1, 1)

    def read(self, path, rows, header=(*NAMES, "success"), **names):
        lines = [",".join(header), *(",".join(map(str, row)) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
        return read_dataset(path, ColumnNames(**names), lambda _: None)

    def test_a_kick_without_kicker_is_refused_where_kickers_are_named(self, tmp_path):
        rows, header = [[*self.GOOD, "Ann"], [*self.GOOD, " "]], (*NAMES, "success", "who")
        found, refusals = self.read(tmp_path / "kicks.csv", rows, header, kicker="who")
        assert found.kickers == len(found) == 1
        assert [(each.line, each.reason) for each in refusals] == [(3, "who is missing")]

    def test_wind_in_metres_a_second_is_converted_and_then_checked(self, tmp_path):
        rows = [self.GOOD, [*self.GOOD[:3], 14, *self.GOOD[4:]]]
        found, refusals = self.read(tmp_path / "kicks.csv", rows, wind_in_ms=True)
        assert found.matrix[:, WIND].tolist() == [18.0]
        assert refusals[0].reason.startswith("wind_speed 14 m/s is 50.4 km/h: must be")


class TestChecks:
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
    def test_odd_values_are_warned_of(self, name, change, warning):
        kicks = dataset_of(2_000, 1)
        kicks.matrix[:, INDEX[name]] = change(kicks.matrix[:, INDEX[name]])
        assert warning in " | ".join(check(kicks, [])[1].warnings)

    def test_copies_of_kicks_count_once_and_few_kicks_are_warned_of(self):
        kicks = dataset_of(300, 1)
        found, summary = check(kicks.take(np.r_[:300, :300, :100]), [])
        assert found.digest() == kicks.digest()
        assert (summary.kicks, summary.duplicates, summary.counted_once) == (300, 400, True)
        assert "400 kicks are the same as an earlier one: they count once" in summary.warnings[0]
        assert "300 kicks are few" in summary.warnings[1]

    def test_kicks_of_few_columns_that_are_equal_by_chance_all_count(self):
        kicks = dataset_of(2_000, 1)
        kicks.matrix[:, [DISTANCE, ANGLE]] = kicks.matrix[:, [DISTANCE, ANGLE]].round(-1)
        kicks.matrix[:, 0], kicks.matrix[:, 3:] = 0.5, 0
        found, summary = check(kicks, [])
        assert len(found) == 2_000
        assert (summary.duplicates > 1_500, summary.counted_once) == (True, False)
        assert any(
            "as equal kicks differ in their outcomes as by chance" in each for each in summary.warnings
        )

    @pytest.mark.parametrize("name", [name for name in NAMES if name != "distance"])
    def test_a_feature_that_is_the_outcome_is_refused_and_taken_by_force(self, name):
        kicks = dataset_of(300, 1)
        kicks.matrix[:, INDEX[name]] = kicks.success
        with pytest.raises(DataError, match=f"{name} tells the outcome as no feature .*--force"):
            check(kicks, [])
        assert any("tells the outcome" in each for each in check(kicks, [], force=True)[1].warnings)

    def test_features_that_tell_the_outcome_together_are_refused(self):
        kicks = dataset_of(2_000, 1)
        half = np.random.default_rng(1).random(2_000) < 0.5
        kicks.matrix[:, INDEX["game_away"]] = half
        kicks.matrix[:, INDEX["is_left_side"]] = half ^ kicks.success
        with pytest.raises(DataError, match=r"together tell the outcome as no kick lets them .*--force"):
            trained(kicks, folds=2)

    @pytest.mark.parametrize("count", [30, 60, 600])
    def test_outcomes_with_1_and_0_swapped_are_refused(self, count):
        kicks = dataset_of(count, 1)
        with pytest.raises(DataError, match=r"likelier the other way round .* swapped.*--force"):
            check(kicks.with_success(~kicks.success), [])

    def test_too_few_kicks_are_refused_with_the_number_needed(self):
        with pytest.raises(DataError, match="29 valid kicks, and training needs 30, or 200"):
            check(dataset_of(29, 1), [])
        with pytest.raises(DataError, match="all 40 kicks have the same outcome, and training needs both"):
            check(dataset_of(40, 1).with_success(np.ones(40, dtype=bool)), [])
        with pytest.raises(DataError, match=r"all kicks are of one kicker.*leave --kicker out"):
            check(kickers_of(1, 40, 1), [])
        kicks = dataset_of(400, 1)
        misses = np.flatnonzero(~kicks.success)[:20]
        for few, message in [
            (dataset_of(199, 1), "199 valid kicks, and a model from scratch needs 200"),
            (kicks.take(np.r_[np.flatnonzero(kicks.success), misses]), r"20 misses among .* needs 50"),
            (kicks.take(np.arange(400) % 40), r"40 different kicks among 400, .* needs 50"),
            (kickers_of(9, 50, 1), r"9 kickers, .* needs 10: leave --kicker out"),
        ]:
            assert re.search(message, too_few(few))
            with pytest.raises(DataError, match=message):
                families_for(few, "logistic", load_default())
            families, [warning] = families_for(few, None, load_default())
            assert [each.kind for each in families] == ["constant", "recalibrated"]
            assert "only a recalibrated model" in warning


class TestFolds:
    @given(st.lists(st.integers(0, 30), min_size=40, max_size=200), st.integers(2, 6), st.integers(0, 9))
    def test_a_group_is_never_divided(self, numbers, count, seed):
        groups = np.unique(numbers, return_inverse=True)[1]
        folds = folds_of(groups, count, seed)
        assert all(len(np.unique(folds[groups == group])) == 1 for group in np.unique(groups))
        assert set(folds.tolist()) <= set(range(count))

    def test_equal_kicks_belong_together_and_folds_are_about_as_large(self):
        groups = groups_of(dataset_of(500, 1).take(np.r_[:500, :500]))
        assert np.array_equal(groups[:500], groups[500:])
        assert np.bincount(folds_of(groups, 5, 0)).tolist() == [200] * 5


class TestFamilies:
    @pytest.mark.parametrize(
        ("second", "success", "message"),
        [
            ([10, 20, 30, 40], [1, 1, 0, 0], "give more kicks"),  # separated
            ([10, 20, 10, 20], [1, 1, 1, 1], "give more kicks"),
            ([0, 0, 0, 0], [1, 0, 1, 0], "say nothing about distance: give more kicks"),
            ([30, 30, 30, 30], [1, 0, 1, 0], "can't separate the terms intercept, distance"),
        ],
    )
    def test_kicks_that_do_not_determine_the_coefficients_are_refused(self, second, success, message):
        design = np.column_stack([np.ones(4), second])
        with pytest.raises(DataError, match=message):
            fit(lambda: [(design, np.array(success))], ("intercept", "distance"))

    def test_a_logistic_regression_is_fitted_where_a_term_separates_and_others_never_differ(self):
        kicks = dataset_of(300, 2)
        kicks.matrix[:, INDEX["is_left_footed"]] = 0
        kicks.matrix[:, INDEX["game_away"]] = kicks.success
        fitted = logistic(kicks).fit(kicks)
        assert "left_footed" not in fitted.terms
        assert np.isfinite(fitted.coefficients).all()

    @pytest.mark.parametrize("seed", [5, 12])
    @pytest.mark.parametrize("make", [splines, lambda _: Boosted()])
    def test_splines_and_boosted_trees_never_say_that_further_is_easier(self, make, seed):
        kicks = dataset_of(400, seed)
        kicks.success[:100] = False  # in a world that makes them want to
        kicks.success[kicks.matrix[:, ANGLE] > 50] = True
        fitted = make(kicks).fit(kicks, 0)
        for at, most in ((DISTANCE, 100), (ANGLE, 90)):
            matrix = np.repeat(simulate(20, 6).matrix, 200, axis=0)
            matrix[:, at] = np.tile(np.linspace(2, most, 200), 20)
            assert np.diff(fitted.log_odds(matrix).reshape(20, 200)).max() <= 1e-9

    def test_splines_are_fitted_where_all_kicks_are_from_one_place(self):
        kicks = dataset_of(400, 8)
        kicks.matrix[:, [DISTANCE, ANGLE]] = 30, 10
        fitted = splines(kicks).fit(kicks)
        assert expit(fitted.log_odds(kicks.matrix)).mean() == pytest.approx(kicks.success.mean(), abs=0.01)

    def test_boosted_trees_are_fitted_where_most_kicks_are_of_one_kicker(self):
        kicks, number = dataset_of(400, 7), np.arange(400)
        for kicker in (np.where(number < 360, 0, number % 9 + 1), np.zeros(400, dtype=int)):
            some = Dataset(kicks.matrix, kicks.success, kicker)
            assert np.isfinite(Boosted().fit(some, 1).log_odds(some.matrix)).all()


@pytest.mark.parametrize(
    ("spread", "kickers", "low", "high"),
    [(0.0, 150, 0.0, 0.12), (0.8, 150, 0.68, 0.92), (0.0, 10, 0.1, 0.32), (0.8, 10, 0.3, 0.6)],
)
def test_the_spread_of_ability_is_estimated_and_like_the_published_one_where_kickers_are_few(
    spread, kickers, low, high
):
    kicks = kickers_of(kickers, 60 if kickers > 10 else 20, 1, spread)
    found = ability_spread(logit(kicks.matrix) / mean_shrink(spread), kicks.success, kicks.kicker)
    assert low <= found <= high


class TestCalibration:
    KICKS = dataset_of(5_000, 1)
    RIGHT = logit(KICKS.matrix) / mean_shrink(ABILITY_SD)

    def calibrated(self, log_odds):
        evaluator = Evaluator(self.KICKS.success, np.arange(5_000), 0)
        return calibrate(log_odds, self.KICKS.success, np.arange(5_000) % 5, evaluator)

    def test_a_line_that_was_bent_is_found_and_kept(self):
        found = self.calibrated(self.RIGHT / 2 - 1)
        assert found.kept
        assert found.line == pytest.approx((2, 2), abs=0.25)
        assert found.gain.value > found.gain.se > 0
        assert np.abs(found.log_odds - self.RIGHT).mean() < 0.2

    @pytest.mark.parametrize("log_odds", [RIGHT, -RIGHT])
    def test_right_log_odds_and_a_line_that_runs_downwards_change_nothing(self, log_odds):
        found = self.calibrated(log_odds)
        assert (found.kept, found.line, found.log_odds is log_odds) == (False, (1, 0), True)


class TestEvaluator:
    def test_the_error_of_a_brier_score_is_that_of_a_mean(self):
        kicks = dataset_of(4_000, 1)
        p = expit(logit(kicks.matrix))
        found = Evaluator(kicks.success, np.arange(4_000), 0).measure(p)
        squares = (p - kicks.success) ** 2
        assert found.brier.value == pytest.approx(squares.mean())
        assert found.brier.se == pytest.approx(squares.std() / math.sqrt(4_000), rel=0.35)

    def test_kicks_of_one_kicker_do_not_count_as_independent(self):
        kicks = kickers_of(80, 50, 1, 2.0)
        p = expit(logit(kicks.matrix))
        together = Evaluator(kicks.success, kicks.kicker, 0).measure(p)
        assert together.brier.se > 1.5 * Evaluator(kicks.success, np.arange(4_000), 0).measure(p).brier.se

    @pytest.mark.parametrize(
        ("behind", "chosen"),
        [
            ([(0.0, 0.1), (0.001, 0.002), (0.001, 0.002), (0.001, 0.002), (0.0, 0.0)], "recalibrated"),
            ([(0.0, 0.1), (0.003, 0.002), (0.001, 0.002), (0.001, 0.002), (0.0, 0.0)], "splines"),
            ([(0.0, 0.1), (0.003, 0.002), (0.001, 0.002), (0.003, 0.002), (0.0, 0.0)], "logistic"),
            ([(0.0, 0.1), (0.003, 0.002), (0.003, 0.002), (0.003, 0.002), (0.0, 0.0)], "boosted"),
            ([(-0.1, 0.1), (0.0, 0.0), (0.1, 0.2), (0.1, 0.2), (0.1, 0.2)], "recalibrated"),
        ],
    )
    def test_recalibrated_or_splines_if_within_one_standard_error_are_chosen_and_never_the_constant(
        self, behind, chosen
    ):
        same = Measure(value=0.5, se=0.1)
        measured = Measures(brier=same, log_loss=same, ece=same, auc=same)
        candidates = [
            Candidate(kind=kind, measured=measured, behind=Measure(value=value, se=se))
            for kind, (value, se) in zip(("constant", *KINDS), behind, strict=True)
        ]
        assert choose(candidates) == chosen


class TestTraining:
    def test_an_interaction_is_left_to_trees(self):
        kicks = dataset_of(2_000, 1)
        corner = (kicks.matrix[:, DISTANCE] > 30) == (kicks.matrix[:, WIND] > 15)
        success = np.random.default_rng(1).random(2_000) < np.where(corner, 0.9, 0.4)
        document, report = trained(kicks.with_success(success), folds=2)
        assert (report.kind, document.format) == ("boosted", "kickserve/trees")

    def test_of_more_kicks_than_the_search_takes_a_part_is_searched(self, monkeypatch):
        monkeypatch.setattr("kickserve_train.training.SEARCHED", 1_000)
        document, report = trained(dataset_of(3_000, 1))
        assert report.kind == "recalibrated"
        assert [each.kind for each in report.candidates] == ["constant", *KINDS]
        assert report.compared_on == document.metrics["count"] == 1_000
        assert any("compared on 1,000 of the 3,000 kicks" in each for each in report.warnings)
        assert document.trained_on["kicks"] == document.reference.count == 3_000
        assert document.metrics["reliability"][0][2] == 100

    def test_a_model_trained_on_the_same_kicks_is_known_to_have_seen_them(self):
        kicks = dataset_of(600, 1)
        document, _ = trained(kicks, kind="logistic")
        _, report = trained(kicks, model_of(document), kind="logistic")
        assert report.in_use.seen
        assert report.in_use.difference.log_loss.value > 0
        assert not any("does better" in each for each in report.warnings)

    def test_kicks_that_nothing_explains_are_warned_of(self):
        kicks = dataset_of(600, 1)
        _, report = trained(kicks.with_success(np.random.default_rng(3).random(600) < 0.7), kind="logistic")
        assert any("hardly better than always saying" in each for each in report.warnings)

    def test_the_domain_is_where_the_kicks_lie(self):
        domain = domain_of(simulate(20_000, 1).matrix)
        assert set(domain) <= {"distance", "angle", "wind_speed"}
        assert 5 < domain["distance"][0] < 12
        assert 50 < domain["distance"][1] < 65


class TestRecalibrated:
    """The packaged model with its level moved, and its slope, on kicks of a world that differs in them."""

    def moved(self, count, seed, offset=0.0, slope=1.0):
        """Kicks whose log-odds, of the mean over kickers, are another line of the packaged model's."""
        kicks = simulate(count, seed)
        p = expit(offset + slope * logit(kicks.matrix) / mean_shrink(ABILITY_SD))
        return Dataset(kicks.matrix, np.random.default_rng([seed, 5]).random(count) < p), p

    @pytest.mark.parametrize("count", [30, 100, 200, 500])
    def test_few_kicks_never_make_it_worse_by_more_than_little(self, count):
        known, matrix = simulate(40 * count, 3).matrix.reshape(40, count, -1), simulate(5_000, 99).matrix
        before = logit(matrix) / mean_shrink(ABILITY_SD)
        for seed, offset in product(range(40), (0.2, 0.0, -0.2)):
            chance = expit(logit(known[seed]) / mean_shrink(ABILITY_SD) + offset)
            success = np.random.default_rng([seed, 5]).random(count) < chance
            fitted = Recalibrated(load_default()).fit(Dataset(known[seed], success))
            p, after = expit(before + offset), expit(fitted.log_odds(matrix))
            worse = p * np.log(expit(before) / after) + (1 - p) * np.log(expit(-before) / (1 - after))
            assert worse.mean() <= 0.0015

    def test_many_kicks_move_level_and_slope_all_the_way_and_few_no_slope(self):
        kicks, _ = self.moved(20_000, 1, -0.4, 1.3)
        found = Recalibrated(load_default()).fit(kicks)
        assert (found.slope, found.offset) == pytest.approx((1.3, -0.4), abs=0.1)
        assert Recalibrated(load_default()).fit(kicks.take(np.arange(299))).slope == pytest.approx(
            1, abs=1e-6
        )

    def test_kicks_of_one_kicker_say_less_than_those_of_many(self):
        kicks, _ = self.moved(100, 2, -0.8)
        of_one = Dataset(kicks.matrix, kicks.success, np.zeros(100, dtype=int))
        moves = [abs(Recalibrated(load_default()).fit(each).offset) for each in (of_one, kicks)]
        assert 0 < moves[0] < moves[1]

    def test_the_document_predicts_as_the_fit_and_keeps_what_the_model_knew(self):
        kicks, _ = self.moved(800, 3, -0.5)
        document, report = trained(kicks, load_default())
        assert report.kind == document.trained_on["family"] == "recalibrated"
        old, fresh = load_default().document, simulate(1_000, 4).matrix
        assert (document.assumed, document.ability_sd, document.domain) == (
            old.assumed,
            old.ability_sd,
            old.domain,
        )
        assert (document.trained_on["recalibrated"], document.reference.count) == ("simulated", 65_536)
        model, fitted = model_of(document), Recalibrated(load_default()).fit(kicks)
        p, low, high = model.predict(fresh)
        assert p == pytest.approx(expit(fitted.log_odds(fresh)), abs=1e-8)
        assert (high - low).mean() > np.subtract(*load_default().predict(fresh)[:0:-1]).mean()
        again, _ = trained(self.moved(800, 5, -0.5)[0], model, kind="recalibrated", data="later")
        assert again.trained_on["recalibrated_revision"] == document.revision
        assert len(again.terms) == len(document.terms)

    def test_one_miss_among_thirty_is_enough(self):
        kicks = dataset_of(30, 2)
        kicks.success[:] = True
        kicks.success[kicks.matrix[:, DISTANCE].argmax()] = False
        document, _ = trained(kicks, folds=5)
        assert 0 < document.trained_on["offset"] < 0.5

    def test_trees_are_recalibrated_too(self):
        start = model_of(trained(dataset_of(500, 5), kind="boosted", folds=2)[0])
        kicks, _ = self.moved(2_000, 6, -0.6)
        document, _ = trained(kicks, start, kind="recalibrated", data="later")
        fresh = simulate(500, 7).matrix
        fitted = Recalibrated(start).fit(kicks)
        assert document.format == "kickserve/trees"
        assert model_of(document).predict(fresh).probability == pytest.approx(
            expit(fitted.log_odds(fresh)), abs=1e-8
        )

    def test_a_model_that_saw_the_kicks_is_not_what_is_recalibrated(self):
        kicks = dataset_of(600, 1)
        seen = model_of(trained(kicks, kind="logistic")[0])
        for start, name in (("current", "simulated"), ("packaged", "simulated")):
            document, report = trained(kicks, seen, kind="recalibrated", start=start)
            assert document.trained_on["recalibrated"] == name
            assert any("these very kicks" in each for each in report.warnings) == (start == "current")
        with pytest.raises(DataError, match="no model to recalibrate"):
            trained(kicks, seen, kind="recalibrated", start="none")


@pytest.mark.slow
class TestIntervals:
    """Intervals hold the truth as often as they say, in worlds of another formula too; `just bench learning`
    measures more of them.

    A training is off for all kicks alike, so several trainings are averaged.
    """

    FRESH = simulate(20_000, 99)
    NEAR = FRESH.matrix[:, DISTANCE] < 15

    @staticmethod
    def by_ln_theta(matrix):
        """The log-odds of another formula."""
        terms = COEFFICIENTS | {
            "intercept": -1.98,
            "ln_theta_squared": 0,
            "distance": -0.035,
            "ln_theta": 2.2,
        }
        return expand(matrix, terms) @ list(terms.values())

    @pytest.mark.parametrize(
        ("kind", "world", "count", "times", "named"),
        [
            ("logistic", logit, 2_000, 8, False),
            ("splines", logit, 2_000, 12, False),
            ("splines", by_ln_theta, 2_000, 12, False),
            ("splines", by_ln_theta, 10_000, 4, True),
            ("recalibrated", logit, 500, 12, True),
            ("recalibrated", by_ln_theta, 2_000, 6, True),
            ("boosted", logit, 2_000, 3, False),
            ("boosted", logit, 4_000, 3, True),
        ],
    )
    def test_they_hold_the_truth_95_times_in_100_and_near_the_posts_90(
        self, kind, world, count, times, named
    ):
        z = world(self.FRESH.matrix)
        ability = np.random.default_rng(1).normal(0, ABILITY_SD, len(z))
        truth = expit(z + ability) if named else expit(z / mean_shrink(ABILITY_SD))
        shares = []
        for seed in range(times):
            dataset = kickers_of(count // 50, 50, seed, world=world)
            dataset = dataset if named else Dataset(dataset.matrix, dataset.success)
            document, _ = trained(dataset, kind=kind, seed=seed, folds=2)
            _, low, high = model_of(document).predict(self.FRESH.matrix)
            holds = (low <= truth) & (truth <= high)
            shares.append((holds.mean(), holds[self.NEAR].mean()))
        everywhere, near = np.mean(shares, axis=0)
        assert everywhere == pytest.approx(0.95, abs=0.03)
        assert near >= 0.88


class TestPackagedModel:
    DATA = files("kickserve").joinpath("default.json").read_bytes()
    PACKAGED = msgspec.json.decode(DATA, type=LinearDocument)

    @pytest.mark.slow
    def test_it_is_the_one_that_training_gives(self):
        mine, packaged = train_default(), self.PACKAGED
        assert mine.coefficients == pytest.approx(packaged.coefficients, rel=1e-6)
        assert np.array(mine.covariance) == pytest.approx(np.array(packaged.covariance), rel=1e-6)
        words = (
            "description",
            "features",
            "terms",
            "ability_sd",
            "domain",
            "assumed",
            "interval",
            "trained_on",
        )
        for name in words:
            assert getattr(mine, name) == getattr(packaged, name)
        assert mine.metrics["measured_on"] == packaged.metrics["measured_on"]
        no_words = {"measured_on": 0}
        assert mine.metrics | no_words == pytest.approx(packaged.metrics | no_words, rel=1e-6)
        for name, quantiles in packaged.reference.quantiles.items():
            assert mine.reference.quantiles[name] == pytest.approx(quantiles)

    def test_its_coefficients_are_those_of_the_simulator_and_its_errors_those_of_the_figures(self):
        # To within the error of a fit to so many kicks; the stretch undoes the shrinking by unseen ability.
        packaged, scale = self.PACKAGED, math.sqrt(FIGURES_KICKS / self.PACKAGED.trained_on["size"])
        errors = dict(zip(packaged.terms, np.sqrt(np.diag(packaged.covariance)), strict=True))
        for name, found in zip(packaged.terms, packaged.coefficients, strict=True):
            assert abs(found - COEFFICIENTS[name]) < 4 * scale * errors[name]
        assert (errors["distance"], errors["ln_theta_squared"]) == pytest.approx((0.0030, 0.020), rel=0.1)

    @pytest.mark.parametrize("angle", [0, 30, 60, 85])
    def test_beyond_60_m_its_interval_grows_in_log_odds_and_its_upper_end_falls(self, angle):
        matrix = np.repeat(TYPICAL, 81, axis=0)
        matrix[:, DISTANCE], matrix[:, ANGLE] = np.arange(20, 101), angle
        _, low, high = LinearModel(self.PACKAGED, Origin("test", "test")).predict(matrix)
        assert (np.diff(high) < 0).all()
        assert (np.diff(log_odds(high) - log_odds(low))[40:] > 0).all()

    def test_no_kick_is_easier_from_further_aside(self):
        # The square of ln θ alone would rise again where the posts open by less than 1°.
        matrix = np.repeat(TYPICAL, 61, axis=0)
        matrix[:, ANGLE] = np.arange(30, 91)
        assert (
            np.diff(LinearModel(self.PACKAGED, Origin("test", "test")).predict(matrix).probability) < 0
        ).all()

    def test_its_metrics_are_at_the_limit_of_the_formula(self):
        reached = self.PACKAGED.metrics
        assert (reached["brier"], reached["log_loss"]) == pytest.approx((0.156, 0.465), abs=0.001)
        assert reached["auc"] == pytest.approx(reached["formula_auc"], abs=1e-4)
        assert reached["auc"] < 0.790
        assert reached["brier"] >= reached["formula_brier"] - 1e-5
        assert reached["ece"] < 0.005
        assert reached["interval_coverage"] == pytest.approx(0.95, abs=0.015)


def test_more_simulated_kicks_make_nothing_more_certain():
    done = []
    document = train_default(size=70_000, seed=1, advance=done.append)
    assert np.diag(document.covariance) == pytest.approx(
        np.diag(TestPackagedModel.PACKAGED.covariance), rel=0.2
    )
    assert MEASURED < sum(done) <= PASSES * 70_000 + MEASURED
