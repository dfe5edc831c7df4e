"""kickserve's own models, linear and of trees, predict as their formulas say; broken files are refused."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kinds import load
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from kickserve.errors import ModelUnusable
from kickserve.features import COUNT, FEATURES, FLAGS, INDEX, NAMES
from kickserve.linear import (
    TERMS,
    LinearDocument,
    LinearModel,
    expand,
    load_default,
    load_linear,
    spline_names,
)
from kickserve.model import Origin, Profile
from kickserve_data.simulate import simulate
from kickserve_train.boosting import ensemble_of
from kickserve_train.serialization import encode
from kickserve_trees.ensembles import MOST_TREES, Ensemble, Sums, Tree
from kickserve_trees.model import TreesDocument, load_trees

DISTANCE, ANGLE = INDEX["distance"], INDEX["angle"]
HERE = Origin("file.json", "test")
# Up to 30 m: 2 straight in front, 1 from aside; further: -1.
TREE = Tree(
    feature=[DISTANCE, ANGLE], threshold=[30.0, 20.0], left=[1, -1], right=[-3, -2], value=[2.0, 1.0, -1.0]
)
LEAF = Tree(feature=[], threshold=[], left=[], right=[], value=[0.25])
COMMON = {
    "name": "small",
    "description": "for tests",
    "features": list(NAMES),
    "interval": "all of it",
    "trained_on": {},
    "metrics": {},
}


def linear(**changes):
    """A model of two terms whose predictions can be computed by hand."""
    values = {
        "terms": ["intercept", "distance"],
        "coefficients": [3.0, -0.05],
        "covariance": [[0.04, -0.001], [-0.001, 0.0001]],
        "ability_sd": 0.5,
        "domain": {"distance": (5.0, 60.0), "angle": (0.0, 60.0), "time_norm": (0.1, 1.0)},
    }
    return LinearDocument(**(COMMON | values | changes))


def trees(**changes):
    values = {
        "log_odds": Ensemble(base=0.5, trees=[TREE]),
        "slope": 2.0,
        "offset": -1.0,
        "ln_variance": Ensemble(base=math.log(0.04), trees=[]),
        "ability_sd": 0.3,
        "domain": {"distance": (5.0, 60.0)},
    }
    return TreesDocument(**(COMMON | values | changes))


def model_of(document):
    """Load a document by way of its bytes, as from a file."""
    loader = load_linear if isinstance(document, LinearDocument) else load_trees
    return loader(msgspec.json.encode(document), HERE)


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


def expit(z):
    return 1 / (1 + math.exp(-z))


def by_hand_linear():
    z = 3 - 0.05 * 20
    variance = 0.04 + 2 * 20 * -0.001 + 20**2 * 0.0001
    half = 1.96 * math.sqrt(variance + 0.25)
    return linear(), kick(distance=20.0), [z / math.sqrt(1 + math.pi * 0.25 / 8), z - half, z + half]


def by_hand_trees():
    z = 2.0 * (0.5 + 1.0) - 1.0
    middle, half = z * math.sqrt(1 + math.pi * 0.09 / 8), 1.96 * math.sqrt(4 * 0.04 + 0.09)
    return trees(), kick(angle=25.0), [z, middle - half, middle + half]


@pytest.mark.parametrize("by_hand", [by_hand_linear, by_hand_trees])
def test_probability_and_interval_of_a_kick_by_hand(by_hand):
    document, row, log_odds = by_hand()
    model, expected = model_of(document), [*map(expit, log_odds)]
    assert model.predict_one(row) == pytest.approx(expected, abs=1e-11)
    assert np.ravel(model.predict(np.array([row]))) == pytest.approx(expected, abs=1e-11)


MODELS = [load_default(), model_of(linear()), model_of(trees(ability_sd=3.0))]
row = st.tuples(
    *(
        st.sampled_from([0.0, 1.0]) if each.kind == "flag" else st.floats(each.low, each.high)
        for each in FEATURES
    )
)


@given(st.sampled_from(MODELS), st.lists(row, min_size=1, max_size=20))
def test_one_kick_gets_the_numbers_of_many_wherever_it_is(model, rows):
    together = np.column_stack(model.predict(np.array(rows)))
    assert all(0 <= low <= p <= high <= 1 for p, low, high in together)
    assert np.array([model.predict_one(each) for each in rows]) == pytest.approx(together, abs=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_many_kicks_get_the_numbers_of_few_in_any_order_of_memory(model):
    matrix = simulate(20_000, 3).matrix
    few = [np.array(model.predict(matrix[at : at + 100])) for at in range(0, 20_000, 100)]
    together = np.array(model.predict(np.asfortranarray(matrix)))
    assert together == pytest.approx(np.concatenate(few, 1), rel=1e-13)


@pytest.mark.parametrize("coefficient", [1e8, -1e8])
def test_the_interval_holds_the_probability_far_out_too(coefficient):
    model = model_of(linear(coefficients=[coefficient, 0.0], ability_sd=3.0))
    p, low, high = model.predict(np.array([kick()]))
    assert 0 <= low[0] <= p[0] <= high[0] <= 1
    assert model.predict_one(kick()) == (p[0], low[0], high[0])


def test_a_covariance_of_coefficients_that_depend_on_each_other_is_taken():
    model = model_of(linear(covariance=[[0.01, 0.01], [0.01, 0.01]]))
    _, low, high = model.predict_one(kick(distance=20.0))
    half = 1.96 * math.sqrt(2.1**2 + 0.25)
    assert [low, high] == pytest.approx([expit(2 - half), expit(2 + half)], rel=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"distance": 60.0, "angle": 60.0}, []),
        ({"distance": 4.9}, ["distance below 5 m"]),
        ({"distance": 80.0, "angle": 75.0}, ["distance beyond 60 m", "angle beyond 60°"]),
        ({"time_norm": 0.0}, ["time_norm below 0.1"]),
    ],
)
def test_a_kick_out_of_the_domain_is_warned_of(values, expected):
    model = model_of(linear())
    assert model.warnings(kick(**values)) == expected
    assert model.out_of_domain(np.array([kick(**values)])).tolist() == [bool(expected)]


class TestFiles:
    @pytest.mark.parametrize(("made", "kind"), [(linear, "linear"), (trees, "trees")])
    def test_a_model_survives_being_written_and_read(self, tmp_path, made, kind):
        revision = model_of(made()).card.revision  # of a file without one
        document = made(revision=revision)
        (tmp_path / "model.json").write_bytes(encode(document))
        model = load(tmp_path / "model.json")
        assert model.document == document
        assert (model.card.kind, model.card.revision) == (kind, revision)

    @pytest.mark.parametrize(
        ("made", "changes"),
        [
            (linear, {"coefficients": [3.0, -0.0500001]}),
            (linear, {"covariance": [[0.05, -0.001], [-0.001, 0.0001]]}),
            (linear, {"terms": ["intercept", "previous"]}),
            (linear, {"ability_sd": 0.4}),
            (linear, {"domain": {}}),
            (trees, {"log_odds": Ensemble(base=0.5, trees=[LEAF])}),
            (trees, {"ln_variance": Ensemble(base=0.0, trees=[])}),
            (trees, {"slope": 2.1}),
            (trees, {"offset": 0.0}),
        ],
    )
    def test_the_revision_changes_with_whatever_changes_a_prediction(self, made, changes):
        revision = model_of(made()).card.revision
        assert model_of(made(**changes)).card.revision != revision
        words = {"name": "other", "description": "other", "metrics": {"brier": 0.1}}
        assert model_of(made(**words)).card.revision == revision

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"name": ""}, "name"),
            ({"features": list(NAMES)[::-1]}, "features must be, in this order, time_norm, distance"),
            ({"terms": ["intercept", "moon"]}, "no term 'moon', only intercept"),
            ({"terms": ["distance", "distance"]}, "each only once"),
            ({"terms": [], "coefficients": [], "covariance": []}, "one or more"),
            ({"coefficients": [3.0]}, "2 terms, but 1 coefficients"),
            ({"coefficients": [1e300, 0.0]}, "coefficients"),
            ({"covariance": [[1.0, 0.0], [0.0]]}, "2 rows of 2 numbers"),
            ({"covariance": [[1.0, 0.5], [0.0, 1.0]]}, "not symmetric"),
            ({"covariance": [[1.0, 2.0], [2.0, 1.0]]}, "not positive semidefinite .*-1"),
            ({"ability_sd": -1.0}, "ability_sd"),
            ({"domain": {"moon": (0.0, 1.0)}}, "domain names 'moon'"),
            ({"domain": {"distance": (6.0, 5.0)}}, "runs backwards, from 6"),
            ({"assumed": ["wind_speed", "moon"]}, "assumes an effect of 'moon'"),
            ({"reference": profile(count=0)}, "reference.count"),
            ({"reference": profile(shares=dict.fromkeys(FLAGS, 1.5))}, "reference.shares"),
            ({"reference": profile(prediction=[0.0, 2.0])}, "reference.prediction"),
            ({"reference": profile(prediction=[1.0, 0.0])}, "of the prediction that don't rise"),
            ({"reference": profile(levels=[0.0, 0.9])}, "must rise from 0 to 1"),
            ({"reference": profile(quantiles={})}, "lacks time_norm, distance"),
            ({"revision": "000000000000"}, "revision is 000000000000, but its numbers give"),
        ],
    )
    def test_a_linear_model_that_contradicts_itself_is_refused_in_words(self, changes, message):
        with pytest.raises(ModelUnusable, match=f"the model file.json can't be used: .*{message}"):
            model_of(linear(**changes))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"slope": 0.0}, "slope"),
            ({"offset": 1e9}, "offset"),
            ({"ln_variance": Ensemble(base=1e9, trees=[])}, "ln_variance.base"),
            ({"log_odds": Ensemble(base=0.0, trees=[LEAF] * (MOST_TREES + 1))}, "log_odds.trees"),
            ({"feature": [1] * 8}, "feature"),
            ({"feature": [DISTANCE, COUNT]}, "feature"),
            ({"feature": [DISTANCE, -1]}, "feature"),
            ({"value": [1.0, 1e7, 0.0]}, "value"),
            ({"value": [1.0, 2.0]}, "tree 1 .* one value more"),
            ({"left": [1]}, "one threshold, left and right"),
            ({"left": [0, -1]}, "child that does not come after"),
            ({"left": [2, -1]}, "child that does not come after"),
            ({"left": [-1, -1]}, "each leaf once"),
            ({"right": [1, -2]}, "each leaf once"),
            ({"right": [-9, -2]}, "each leaf once"),
            ({"right": [-2, -3]}, "from left to right"),
        ],
    )
    def test_trees_that_contradict_themselves_are_refused_in_words(self, changes, message):
        if changes.keys() <= set(Tree.__struct_fields__):
            tree = Tree(**(msgspec.structs.asdict(TREE) | changes))
            changes = {"log_odds": Ensemble(base=0.0, trees=[LEAF, tree])}
        with pytest.raises(ModelUnusable, match=f"the model file.json can't be used: .*{message}"):
            model_of(trees(**changes))

    @pytest.mark.parametrize(("made", "loader"), [(linear, load_linear), (trees, load_trees)])
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda _: b"", "not the JSON"),
            (lambda _: b"[" * 1_000_000, "not the JSON of a model"),
            (lambda _: b"{}", "format is '' instead of 'kickserve/"),
            (lambda good: good.replace(b'"version":1', b'"version":2'), "version 2 .* reads version 1"),
            (lambda good: good.replace(b'"name":"small",', b""), "missing required field `name`"),
            (lambda good: good.replace(b'"name"', b'"nickname"'), "nickname"),
            (lambda good: good.replace(b"7.5", b'"7.5"'), r"Expected `float`, got `str`.*ability_sd"),
            (lambda good: good.replace(b"7.5", b"1e999"), "out of range"),
        ],
    )
    def test_a_file_that_is_no_model_is_refused_in_words(self, made, loader, spoil, message):
        with pytest.raises(ModelUnusable, match=f"the model file.json can't be used: .*{message}"):
            loader(spoil(msgspec.json.encode(made(ability_sd=7.5))), HERE)


@st.composite
def any_tree(draw):
    """A tree of any shape, made by splitting leaves; thresholds are few, so that some are equal."""
    nodes = [None]
    for _ in range(draw(st.integers(0, 7))):
        free = [at for at, each in enumerate(nodes) if each is None]
        nodes[draw(st.sampled_from(free))] = (len(nodes), len(nodes) + 1)
        nodes += [None, None]
    numbers, leaves = {}, {}

    def number(node):
        if nodes[node] is None:
            leaves[node] = len(leaves)
        else:
            numbers[node] = len(numbers)
            number(nodes[node][0])
            number(nodes[node][1])

    number(0)
    sides = [[numbers.get(side, -1 - leaves.get(side, 0)) for side in nodes[node]] for node in numbers]
    count = len(numbers)

    def some(values, size=count):
        return draw(st.lists(values, min_size=size, max_size=size))

    return Tree(
        feature=some(st.integers(0, COUNT - 1)),
        threshold=some(st.sampled_from([0.0, 0.5, 20.0, 30.0, 50.0])),
        left=[left for left, _ in sides],
        right=[right for _, right in sides],
        value=some(st.floats(-3, 3), count + 1),
    )


def walked(tree, values):
    """The value of a tree by walking down it, which is what its definition says."""
    node = 0 if tree.feature else -1
    while node >= 0:
        goes_left = values[tree.feature[node]] <= tree.threshold[node]
        node = tree.left[node] if goes_left else tree.right[node]
    return tree.value[-1 - node]


class TestTrees:
    @pytest.mark.parametrize(
        ("distance", "angle", "value"), [(30, 20, 2), (30, 20.1, 1), (30.1, 0, -1), (100, 90, -1), (2, 0, 2)]
    )
    def test_at_its_threshold_a_kick_goes_left(self, distance, angle, value):
        assert Sums([Ensemble(base=0, trees=[TREE])]).of_one(kick(distance=distance, angle=angle)) == [value]

    @given(
        st.lists(any_tree(), max_size=6),
        st.lists(any_tree(), max_size=3),
        st.lists(row, min_size=1, max_size=8),
    )
    def test_without_walking_the_sums_are_those_of_walking(self, first, second, rows):
        ensembles = [Ensemble(base=1.0, trees=first), Ensemble(base=-1.0, trees=second)]
        sums = Sums(ensembles)
        walks = [
            [each.base + sum(walked(tree, values) for tree in each.trees) for each in ensembles]
            for values in rows
        ]
        together, single = sums.of_many(np.array(rows)).T, np.array([sums.of_one(each) for each in rows])
        assert together == pytest.approx(np.array(walks), abs=1e-12)
        assert single == pytest.approx(np.array(walks), abs=1e-12)
        model_of(trees(log_odds=ensembles[0], ln_variance=ensembles[1]))  # such trees are taken

    def test_the_probabilities_are_those_of_scikit_learn(self):
        known, others = simulate(5_000, 1), simulate(20_000, 2)
        fitted = HistGradientBoostingClassifier(max_iter=150, max_leaf_nodes=8, random_state=0)
        with threadpool_limits(1):
            fitted.fit(known.matrix, known.success)
            expected = fitted.predict_proba(others.matrix)[:, 1]
        model = model_of(trees(log_odds=ensemble_of(fitted, known.matrix), slope=1.0, offset=0.0))
        assert np.abs(model.predict(others.matrix).probability - expected).max() < 1e-9


class TestSplines:
    @given(st.floats(0, 90))
    def test_a_piece_is_the_same_for_one_kick_and_for_many(self, angle):
        names = ["intercept", *spline_names("angle", [5, 20, 40, 60])]
        document = linear(terms=names, coefficients=[0.1, 0.02, -0.03], covariance=np.eye(3).tolist())
        model, values = LinearModel(document, HERE), kick(angle=angle)
        together = np.ravel(model.predict(np.array([values])))
        assert model.predict_one(values) == pytest.approx(together.tolist(), abs=1e-12)

    def test_beyond_its_outer_knots_a_spline_is_straight(self):
        matrix = np.zeros((40, COUNT))
        matrix[:, DISTANCE] = np.r_[np.linspace(2, 10, 20), np.linspace(60, 100, 20)]
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
            "spline:angle:1:1,2,91",
            "spline:angle:1:" + ",".join(map(str, range(13))),
            "line:angle:1:1,2,3",
        ],
    )
    def test_a_broken_name_is_no_term(self, name):
        assert name not in TERMS
        with pytest.raises(KeyError):
            expand(np.zeros((1, COUNT)), [name])
