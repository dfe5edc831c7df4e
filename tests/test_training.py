"""Training finds what the simulator was given, and gives the same bytes each time."""

from __future__ import annotations

import math
from importlib.resources import files
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from kickserve.errors import DataError, InvalidInput
from kickserve.features import COUNT, INDEX, NAMES
from kickserve.linear import LinearDocument, LinearModel, load_linear
from kickserve.model import Origin
from kickserve_data.simulate import BLOCK, COEFFICIENTS, FIGURES_KICKS, simulate
from kickserve_train.default import train_default
from kickserve_train.logistic import fit
from kickserve_train.making import encode
from kickserve_train.profiles import LEVELS, profile

SMALL = 100_000


@pytest.fixture(scope="module")
def packaged():
    data = files("kickserve").joinpath("default.json").read_bytes()
    return msgspec.json.decode(data, type=LinearDocument)


@pytest.fixture(scope="module")
def trained():
    seen = []
    document = train_default(size=SMALL, seed=1, progress=lambda done, total: seen.append((done, total)))
    return document, seen


def errors(document):
    return dict(zip(document.terms, np.sqrt(np.diag(document.covariance)), strict=True))


def numbers(metrics):
    return {name: value for name, value in metrics.items() if not isinstance(value, str)}


def test_the_packaged_model_is_the_one_that_training_gives(packaged):
    trained = train_default(size=packaged.trained_on["size"], seed=packaged.trained_on["seed"])
    assert trained.coefficients == pytest.approx(packaged.coefficients, rel=1e-6)
    assert np.array(trained.covariance) == pytest.approx(np.array(packaged.covariance), rel=1e-6)
    for name in ("description", "features", "terms", "ability_sd", "domain", "interval", "trained_on"):
        assert getattr(trained, name) == getattr(packaged, name)
    assert trained.metrics.keys() == packaged.metrics.keys()
    assert numbers(trained.metrics) == pytest.approx(numbers(packaged.metrics), rel=1e-6)
    assert trained.metrics["measured_on"] == packaged.metrics["measured_on"]
    assert trained.reference.quantiles["distance"] == pytest.approx(packaged.reference.quantiles["distance"])


def test_the_packaged_model_is_written_as_training_writes(packaged):
    data = files("kickserve").joinpath("default.json").read_bytes()
    assert encode(packaged) == data


def test_the_packaged_model_finds_the_coefficients_of_the_simulator(packaged):
    # To within the error of a fit to so many kicks; the stretch undoes what the unseen ability takes away.
    scale = math.sqrt(FIGURES_KICKS / packaged.trained_on["size"])
    for name, found in zip(packaged.terms, packaged.coefficients, strict=True):
        assert abs(found - COEFFICIENTS[name]) < 4 * scale * errors(packaged)[name]


@pytest.mark.parametrize(("name", "published"), [("distance", 0.0030), ("ln_theta", 0.078)])
def test_the_uncertainty_is_that_of_the_published_figures(packaged, name, published):
    assert errors(packaged)[name] == pytest.approx(published, rel=0.1)


def test_the_metrics_stand_at_what_can_honestly_be_reached(packaged):
    reached = packaged.metrics
    assert reached["brier"] == pytest.approx(0.156, abs=0.001)
    assert reached["log_loss"] == pytest.approx(0.465, abs=0.001)
    assert reached["auc"] == pytest.approx(0.790, abs=0.002)
    assert reached["brier"] >= reached["formula_brier"] - 1e-5
    assert reached["log_loss"] >= reached["formula_log_loss"] - 1e-5
    assert reached["ece"] < 0.005
    assert reached["interval_coverage"] == pytest.approx(0.95, abs=0.015)


def test_more_simulated_kicks_make_nothing_more_certain(packaged, trained):
    for name, error in errors(trained[0]).items():
        assert error == pytest.approx(errors(packaged)[name], rel=0.1)


def test_the_same_seed_gives_the_same_bytes(trained):
    data = encode(train_default(size=SMALL, seed=1))
    assert data == encode(trained[0])
    assert load_linear(data, Origin("file", "test")).card.revision == trained[0].revision


def test_another_seed_gives_another_revision(trained):
    assert train_default(size=SMALL, seed=2).revision != trained[0].revision


def test_the_file_is_text_for_people(trained):
    text = encode(trained[0]).decode()
    assert text.endswith("}\n")
    assert text.startswith('{\n  "format": "kickserve/linear",\n  "version": 1,\n')


def test_progress_rises_to_the_whole(trained):
    _, seen = trained
    done = [each for each, _ in seen]
    assert {total for _, total in seen} == {seen[0][1]}
    assert all(before <= after for before, after in pairwise(done))
    assert 0 < done[0] < done[-1] == seen[0][1]


def test_progress_never_shows_more_than_the_whole_for_the_smallest_training():
    seen = []
    train_default(size=BLOCK // 2, seed=1, progress=lambda done, total: seen.append((done, total)))
    assert all(done <= total for done, total in seen)
    assert seen[-1][0] == seen[-1][1]


def test_the_reference_describes_what_was_simulated(packaged):
    reference = packaged.reference
    assert reference.levels == list(LEVELS)
    assert set(reference.quantiles) | set(reference.shares) == set(NAMES)
    assert reference.quantiles["time_norm"] == pytest.approx(LEVELS, abs=0.01)
    assert reference.shares["is_left_side"] == pytest.approx(0.53, abs=0.01)
    assert reference.prediction == sorted(reference.prediction)
    assert 0 < reference.prediction[0] < reference.prediction[-1] < 1


def test_a_profile_of_one_kick_is_that_kick():
    kick = simulate(1, 0).matrix
    one = profile(kick, np.array([0.25]))
    assert one.count == 1
    assert one.quantiles["distance"] == pytest.approx([kick[0, INDEX["distance"]]] * len(LEVELS))
    assert one.shares["game_away"] == kick[0, INDEX["game_away"]]
    assert one.prediction == [0.25] * len(LEVELS)


def test_a_fit_of_one_share_is_the_share_by_hand():
    success = np.array([True] * 30 + [False] * 10)
    fitted = fit(lambda: [(np.ones((40, COUNT)), success)], ["intercept"])
    assert fitted.coefficients == pytest.approx([math.log(3)])
    assert fitted.covariance == pytest.approx(np.array([[1 / (40 * 0.75 * 0.25)]]))
    assert fitted.kicks == 40


def test_a_fit_does_not_depend_on_how_kicks_are_batched():
    kicks = simulate(20_000, 3)
    terms = ["intercept", "distance", "ln_theta"]
    whole = fit(lambda: [(kicks.matrix, kicks.success)], terms)
    parts = fit(
        lambda: zip(np.split(kicks.matrix, 8), np.split(kicks.success, 8), strict=True),
        terms,
        start=np.array([-2.0, 0.0, 2.0]),
    )
    assert parts.coefficients == pytest.approx(whole.coefficients, rel=1e-8)
    assert parts.covariance == pytest.approx(whole.covariance, rel=1e-5)


def test_a_fit_answers_on_average_what_came_of_the_kicks():
    kicks = simulate(20_000, 4)
    fitted = fit(lambda: [(kicks.matrix, kicks.success)], list(COEFFICIENTS))
    document = train_default(size=SMALL, seed=1)
    model = LinearModel(
        msgspec.structs.replace(
            document, coefficients=fitted.coefficients.tolist(), ability_sd=0.0, revision=""
        ),
        Origin("test", "test"),
    )
    # The maximum of the likelihood sets the mean of the predictions to the share of successes.
    assert model.predict(kicks.matrix).probability.mean() == pytest.approx(kicks.success.mean(), abs=1e-9)


def rows(distances, success):
    matrix = np.zeros((len(distances), COUNT))
    matrix[:, INDEX["distance"]] = distances
    return lambda: [(matrix, np.array(success))]


def test_a_fit_to_kicks_that_a_term_separates_is_refused():
    batches = rows([10.0, 20.0, 30.0, 40.0], [True, True, False, False])
    with pytest.raises(DataError, match="give more kicks"):
        fit(batches, ["intercept", "distance"])


def test_a_fit_to_kicks_that_all_succeeded_is_refused():
    with pytest.raises(DataError, match="give more kicks"):
        fit(rows([10.0, 20.0], [True, True]), ["intercept"])


def test_a_term_that_never_differs_is_named():
    with pytest.raises(DataError, match="say nothing about left_footed: give more kicks"):
        fit(rows([10.0, 20.0], [True, False]), ["intercept", "left_footed"])


def test_terms_that_never_differ_from_each_other_are_refused():
    with pytest.raises(DataError, match="can't tell the terms intercept, distance apart"):
        fit(rows([30.0, 30.0, 30.0], [True, False, True]), ["intercept", "distance"])


def test_no_kicks_are_refused():
    with pytest.raises(DataError, match="say nothing about intercept"):
        fit(list, ["intercept"])


def test_too_few_kicks_are_refused():
    with pytest.raises(DataError, match="give more kicks"):
        train_default(size=10)


@pytest.mark.parametrize("arguments", [{"size": 0}, {"seed": -1}])
def test_sizes_and_seeds_that_can_not_be_are_refused(arguments):
    with pytest.raises(InvalidInput, match="="):
        train_default(**arguments)
