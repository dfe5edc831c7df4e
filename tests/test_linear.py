"""The linear model answers as its formulas say, and refuses files that it can't trust."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve.errors import ModelUnusable
from kickserve.features import COUNT, FEATURES, FLAGS, INDEX, NAMES
from kickserve.linear import LinearDocument, LinearModel, fingerprint, load_default, load_linear
from kickserve.model import Origin, Profile
from kickserve.terms import TERMS, expand, is_term, spline_names, spline_of, values_of
from kickserve_data.simulate import simulate

DEFAULT = load_default()


def strategy(feature):
    if feature.kind == "flag":
        return st.sampled_from([0.0, 1.0])
    return st.floats(feature.low, feature.high)


row = st.tuples(*map(strategy, FEATURES))


def small(**changes):
    """A model of two terms whose answers can be worked out by hand."""
    values = {
        "name": "small",
        "description": "for tests",
        "features": list(NAMES),
        "terms": ["intercept", "distance"],
        "coefficients": [3.0, -0.05],
        "covariance": [[0.04, -0.001], [-0.001, 0.0001]],
        "ability_sd": 0.5,
        "domain": {"distance": (5.0, 60.0), "angle": (0.0, 60.0), "time_norm": (0.1, 1.0)},
        "interval": "all of it",
        "trained_on": {},
        "metrics": {},
    }
    return LinearDocument(**(values | changes))


def profile(**changes):
    values = {
        "count": 10,
        "levels": [0.0, 1.0],
        "quantiles": {name: [0.0, 1.0] for name in NAMES if name not in FLAGS},
        "shares": dict.fromkeys(FLAGS, 0.5),
        "prediction": [0.0, 1.0],
    }
    return Profile(**(values | changes))


def kick(**values):
    filled = dict.fromkeys(NAMES, 0.0) | {"distance": 30.0, "time_norm": 0.5} | values
    return [filled[name] for name in NAMES]


def as_json(document):
    return msgspec.json.encode(document)


def test_probability_and_interval_of_a_kick_by_hand():
    z = 3 - 0.05 * 20
    variance = 0.04 + 2 * 20 * -0.001 + 20**2 * 0.0001
    half = 1.96 * math.sqrt(variance + 0.25)
    expected = [1 / (1 + math.exp(-x)) for x in (z / math.sqrt(1 + math.pi * 0.25 / 8), z - half, z + half)]
    model = LinearModel(small(), Origin("test", "test"))
    assert model.predict_one(kick(distance=20.0)) == pytest.approx(expected, rel=1e-12)
    p, low, high = model.predict(np.array([kick(distance=20.0)]))
    assert [p[0], low[0], high[0]] == pytest.approx(expected, rel=1e-12)


@given(row)
def test_one_kick_has_the_terms_and_numbers_of_many_wherever_it_is(values):
    many = expand(np.array([values]), TERMS)[0]
    one = values_of(values)
    assert [one[place] for place in TERMS.values()] == pytest.approx(many.tolist(), abs=1e-12)
    p, low, high = DEFAULT.predict_one(values)
    assert 0 <= low <= p <= high <= 1
    assert [p, low, high] == pytest.approx(np.ravel(DEFAULT.predict(np.array([values]))), abs=1e-12)


@pytest.mark.parametrize("coefficient", [1e8, -1e8])
def test_the_interval_holds_the_probability_far_out_too(coefficient):
    model = LinearModel(small(coefficients=[coefficient, 0.0], ability_sd=3.0), Origin("test", "test"))
    p, low, high = model.predict(np.array([kick()]))
    assert 0 <= low[0] <= p[0] <= high[0] <= 1
    assert model.predict_one(kick()) == (p[0], low[0], high[0])


def test_many_kicks_get_the_numbers_of_few_in_any_order_of_memory():
    matrix = simulate(20_000, 3).matrix
    parts = [np.array(DEFAULT.predict(matrix[at : at + 100])) for at in range(0, 20_000, 100)]
    assert np.array(DEFAULT.predict(np.asfortranarray(matrix))) == pytest.approx(
        np.concatenate(parts, 1), rel=1e-13
    )


def test_the_interval_holds_the_true_probability_of_95_in_100_kicks():
    kicks = simulate(200_000, 11)
    _, low, high = DEFAULT.predict(kicks.matrix)
    inside = (low <= kicks.probability) & (kicks.probability <= high)
    assert inside.mean() == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, []),
        ({"distance": 60.0, "angle": 60.0}, []),
        ({"distance": 60.1}, ["distance beyond 60 m"]),
        ({"distance": 4.9}, ["distance below 5 m"]),
        ({"angle": 61.0}, ["angle beyond 60°"]),
        ({"distance": 80.0, "angle": 75.0}, ["distance beyond 60 m", "angle beyond 60°"]),
        ({"time_norm": 0.0}, ["time_norm below 0.1"]),
    ],
)
def test_a_kick_out_of_the_domain_is_warned_of(values, expected):
    model = LinearModel(small(), Origin("test", "test"))
    assert model.warnings(kick(**values)) == expected
    assert model.out_of_domain(np.array([kick(**values)])).tolist() == [bool(expected)]


def test_the_default_model_says_what_it_is():
    card = DEFAULT.card
    assert (card.name, card.kind) == ("simulated", "linear")
    assert "simulated from published figures" in card.description
    assert card.features == list(NAMES)
    assert card.domain == {"distance": (5.0, 60.0), "angle": (0.0, 60.0)}
    assert "ability" in card.interval
    assert card.trained_on["simulated"] is True
    assert "simulated" in card.metrics["measured_on"]


def test_a_model_survives_being_written_and_read():
    document = small(revision=fingerprint(small()))
    model = load_linear(as_json(document), Origin("there", "test"))
    assert model.document == document
    assert (model.card.source, model.card.revision) == ("there", document.revision)
    assert load_linear(as_json(small()), Origin("there", "test")).card.revision == document.revision


@pytest.mark.parametrize(
    "changes",
    [
        {"coefficients": [3.0, -0.0500001]},
        {"covariance": [[0.05, -0.001], [-0.001, 0.0001]]},
        {"ability_sd": 0.4},
        {"domain": {}},
        {"terms": ["intercept", "previous"]},
    ],
)
def test_the_revision_changes_with_whatever_changes_an_answer(changes):
    assert fingerprint(small(**changes)) != fingerprint(small())
    words = {"name": "other", "description": "other", "revision": "123", "metrics": {"brier": 0.1}}
    assert fingerprint(small(**words)) == fingerprint(small())


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "no name"),
        ({"features": list(NAMES)[::-1]}, "features must be, in this order, time_norm, distance"),
        ({"terms": ["intercept", "moon"]}, "no term 'moon', only intercept"),
        ({"terms": ["distance", "distance"]}, "each only once"),
        ({"terms": [], "coefficients": [], "covariance": []}, "one or more"),
        ({"coefficients": [3.0]}, "2 terms, but 1 coefficients"),
        ({"coefficients": [NAN, 0.0]}, "not finite"),
        ({"coefficients": [1e300, 0.0]}, "beyond 1e"),
        ({"covariance": [[1.0, 0.0], [0.0]]}, "2 rows of 2 numbers"),
        ({"covariance": [[NAN, 0.0], [0.0, 1.0]]}, "not finite"),
        ({"covariance": [[1.0, 0.5], [0.0, 1.0]]}, "not symmetric"),
        ({"covariance": [[1.0, 2.0], [2.0, 1.0]]}, "not positive semidefinite .*-1"),
        ({"ability_sd": NAN}, "ability_sd is nan"),
        ({"domain": {"moon": (0.0, 1.0)}}, "domain names 'moon'"),
        ({"domain": {"distance": (NAN, 5.0)}}, "runs backwards, from nan"),
        ({"reference": profile(count=0)}, "taken from 0 kicks"),
        ({"reference": profile(shares=dict.fromkeys(FLAGS, 1.5))}, "a share of is_left_footed that is not"),
        ({"reference": profile(prediction=[0.0, 2.0])}, "of the prediction that are not from 0 to 1"),
        ({"reference": profile(prediction=[1.0, 0.0])}, "of the prediction that don't rise"),
        ({"reference": profile(levels=[0.0, 0.9])}, "must rise from 0 to 1"),
        ({"reference": profile(quantiles={})}, "lacks time_norm, distance"),
        ({"revision": "000000000000"}, "revision is 000000000000, but its numbers give"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused_in_words(changes, message):
    with pytest.raises(ModelUnusable, match=f"the model somewhere can't be used: .*{message}"):
        LinearModel(small(**changes), Origin("somewhere", "test"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not the JSON"),
        (b"[" * 1_000_000, "not the JSON of a model"),
        (b"{}", "format is '' instead of 'kickserve/linear'"),
        (b'{"format": "kickserve/linear", "version": 2}', "version 2 .* reads version 1"),
        (b'{"format": "kickserve/linear", "version": 1}', "missing required field `name`"),
        (as_json(small()).replace(b"3.0", b'"3"'), r"Expected `float`, got `str`.*coefficients"),
        (as_json(small()).replace(b'"name"', b'"nickname"'), "nickname"),
        (as_json(small()).replace(b"3.0", b"1e999"), "out of range"),
    ],
)
def test_a_file_that_is_no_model_is_refused_in_words(data, message):
    with pytest.raises(ModelUnusable, match=f"the model file.json can't be used: .*{message}"):
        load_linear(data, Origin("file.json", "test"))


def test_a_covariance_of_coefficients_that_hang_together_is_taken():
    model = LinearModel(small(covariance=[[0.01, 0.01], [0.01, 0.01]]), Origin("test", "test"))
    _, low, high = model.predict_one(kick(distance=20.0))
    half = 1.96 * math.sqrt(2.1**2 + 0.25)
    assert [1 / low - 1, 1 / high - 1] == pytest.approx([math.exp(half - 2), math.exp(-half - 2)], rel=1e-6)


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
