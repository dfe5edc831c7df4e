"""The model of trees answers as its trees say, and as scikit-learn says; files it can't trust are refused."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from kickserve.errors import ModelUnusable
from kickserve.features import COUNT, FEATURES, INDEX, NAMES
from kickserve.loading import load_source
from kickserve.model import Origin
from kickserve.plugins import discover
from kickserve.settings import Settings
from kickserve_data.simulate import simulate
from kickserve_train.boosting import ensemble_of
from kickserve_train.serialization import encode
from kickserve_trees.ensembles import MOST_TREES, Ensemble, Sums, Tree, wrong_ensemble
from kickserve_trees.model import TreesDocument, TreesModel, fingerprint, load_trees

DISTANCE, ANGLE = INDEX["distance"], INDEX["angle"]
# Up to 30 m: 2 straight in front, 1 from aside; further: -1.
TREE = Tree(
    feature=[DISTANCE, ANGLE], threshold=[30.0, 20.0], left=[1, -1], right=[-3, -2], value=[2.0, 1.0, -1.0]
)
LEAF = Tree(feature=[], threshold=[], left=[], right=[], value=[0.25])


def strategy(feature):
    if feature.kind == "flag":
        return st.sampled_from([0.0, 1.0])
    return st.floats(feature.low, feature.high)


row = st.tuples(*map(strategy, FEATURES))


@st.composite
def trees(draw):
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
    children = [
        [numbers[side] if side in numbers else -1 - leaves[side] for side in nodes[node]] for node in numbers
    ]
    count = len(numbers)
    return Tree(
        feature=draw(st.lists(st.integers(0, COUNT - 1), min_size=count, max_size=count)),
        threshold=draw(
            st.lists(st.sampled_from([0.0, 0.5, 20.0, 30.0, 50.0]), min_size=count, max_size=count)
        ),
        left=[left for left, _ in children],
        right=[right for _, right in children],
        value=draw(st.lists(st.floats(-3, 3), min_size=count + 1, max_size=count + 1)),
    )


def walked(tree, values):
    """The value of a tree by walking down it, which is what its definition says."""
    node = 0 if tree.feature else -1
    while node >= 0:
        goes_left = values[tree.feature[node]] <= tree.threshold[node]
        node = tree.left[node] if goes_left else tree.right[node]
    return tree.value[-1 - node]


def small(**changes):
    values = {
        "name": "small",
        "description": "for tests",
        "features": list(NAMES),
        "log_odds": Ensemble(base=0.5, trees=[TREE]),
        "slope": 2.0,
        "offset": -1.0,
        "ln_variance": Ensemble(base=math.log(0.04), trees=[]),
        "ability_sd": 0.3,
        "domain": {"distance": (5.0, 60.0)},
        "interval": "all of it",
        "trained_on": {},
        "metrics": {},
    }
    return TreesDocument(**(values | changes))


def kick(**values):
    filled = dict.fromkeys(NAMES, 0.0) | {"distance": 30.0, "time_norm": 0.5} | values
    return [filled[name] for name in NAMES]


def test_probability_and_interval_of_a_kick_by_hand():
    z = 2.0 * (0.5 + 1.0) - 1.0
    middle, half = z * math.sqrt(1 + math.pi * 0.09 / 8), 1.96 * math.sqrt(4 * 0.04 + 0.09)
    expected = [1 / (1 + math.exp(-x)) for x in (z, middle - half, middle + half)]
    model = TreesModel(small(), Origin("test", "test"))
    assert model.predict_one(kick(angle=25.0)) == pytest.approx(expected, rel=1e-12)
    assert np.column_stack(model.predict(np.array([kick(angle=25.0)])))[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("distance", "angle", "value"), [(30, 20, 2), (30, 20.1, 1), (30.1, 0, -1), (100, 90, -1), (2, 0, 2)]
)
def test_at_its_threshold_a_kick_goes_left(distance, angle, value):
    assert Sums([Ensemble(base=0, trees=[TREE])]).of_one(kick(distance=distance, angle=angle)) == [value]


@given(st.lists(trees(), max_size=6), st.lists(trees(), max_size=3), st.lists(row, min_size=1, max_size=8))
def test_without_walking_the_sums_are_those_of_walking(first, second, rows):
    sums = Sums([Ensemble(base=1.0, trees=first), Ensemble(base=-1.0, trees=second)])
    walks = [
        [1.0 + sum(walked(tree, each) for tree in first), -1.0 + sum(walked(tree, each) for tree in second)]
        for each in rows
    ]
    assert all(wrong_ensemble(Ensemble(base=0.0, trees=[tree])) == "" for tree in [*first, *second])
    together, single = sums.of_many(np.array(rows)).T, np.array([sums.of_one(each) for each in rows])
    assert together == pytest.approx(np.array(walks), abs=1e-12)
    assert single == pytest.approx(np.array(walks), abs=1e-12)


def test_the_probabilities_are_those_of_scikit_learn():
    known, others = simulate(5_000, 1), simulate(20_000, 2)
    model = HistGradientBoostingClassifier(max_iter=150, max_leaf_nodes=8, random_state=0)
    with threadpool_limits(1):
        model.fit(known.matrix, known.success)
        expected = model.predict_proba(others.matrix)[:, 1]
    document = small(log_odds=ensemble_of(model, known.matrix), slope=1.0, offset=0.0)
    found = TreesModel(document, Origin("test", "test")).predict(others.matrix).probability
    assert np.abs(found - expected).max() < 1e-9


@given(st.lists(row, min_size=1, max_size=20))
def test_one_kick_at_a_time_gives_the_numbers_of_many(rows):
    model = TreesModel(small(ability_sd=3.0), Origin("test", "test"))
    together = np.column_stack(model.predict(np.array(rows)))
    assert all(0 <= low <= p <= high <= 1 for p, low, high in together)
    assert np.array([model.predict_one(each) for each in rows]) == pytest.approx(together, abs=1e-12)


def test_many_kicks_are_answered_in_their_order():
    matrix, model = simulate(5_000, 3).matrix, TreesModel(small(), Origin("test", "test"))
    few = [np.array(model.predict(matrix[at : at + 100])) for at in range(0, 5_000, 100)]
    assert np.array_equal(np.array(model.predict(matrix)), np.concatenate(few, 1))
    assert model.predict(np.empty((0, COUNT))).low.shape == (0,)


def test_a_model_survives_being_written_and_read(tmp_path):
    document = small(revision=fingerprint(small()))
    (tmp_path / "trees.json").write_bytes(encode(document))
    model = load_source(str(tmp_path / "trees.json"), discover(Settings()))
    assert model.document == document
    assert (model.card.kind, model.card.revision) == ("trees", document.revision)


@pytest.mark.parametrize(
    "changes",
    [
        {"log_odds": Ensemble(base=0.5, trees=[LEAF])},
        {"ln_variance": Ensemble(base=0.0, trees=[])},
        {"slope": 2.1},
        {"offset": 0.0},
        {"ability_sd": 0.0},
        {"domain": {}},
    ],
)
def test_the_revision_changes_with_whatever_changes_an_answer(changes):
    assert fingerprint(small(**changes)) != fingerprint(small())


NAN = float("nan")


def of_tree(**changes):
    values = msgspec.structs.asdict(TREE) | changes
    return {"log_odds": Ensemble(base=0.0, trees=[LEAF, Tree(**values)])}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "no name"),
        ({"features": list(NAMES) * 1_000}, "features must be"),
        ({"domain": {"moon": (0.0, 1.0)}}, "moon"),
        ({"slope": 0.0}, "slope is 0"),
        ({"slope": NAN}, "slope is nan"),
        ({"offset": NAN}, "offset is nan"),
        ({"ability_sd": -1.0}, "ability_sd is -1"),
        ({"revision": "000000000000"}, "its numbers give"),
        ({"log_odds": Ensemble(base=NAN, trees=[])}, "base is nan"),
        ({"ln_variance": Ensemble(base=1e9, trees=[])}, "base is 1e"),
        ({"log_odds": Ensemble(base=0.0, trees=[LEAF] * (MOST_TREES + 1))}, "1,001 trees"),
        (of_tree(feature=[1] * 8), "tree 1 has 8 inner nodes"),
        (of_tree(value=[1.0, 2.0]), "one value more"),
        (of_tree(left=[1]), "one threshold, left and right"),
        (of_tree(feature=[DISTANCE, COUNT]), "feature beyond the 11"),
        (of_tree(feature=[DISTANCE, -1]), "feature beyond the 11"),
        (of_tree(threshold=[NAN, 1.0]), "not finite"),
        (of_tree(value=[1.0, 1e7, 0.0]), "beyond 1e"),
        (of_tree(left=[0, -1]), "child that does not come after"),
        (of_tree(left=[2, -1]), "child that does not come after"),
        (of_tree(right=[1, -2]), "each leaf once"),
        (of_tree(right=[-2, -3]), "from left to right"),
        (of_tree(left=[-1, -1]), "each leaf once"),
        (of_tree(right=[-9, -2]), "each leaf once"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused_in_words(changes, message):
    with pytest.raises(ModelUnusable, match=f"the model somewhere can't be used: .*{message}"):
        TreesModel(small(**changes), Origin("somewhere", "test"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "not the JSON"),
        (b'{"format": "kickserve/trees", "version": 2}', "version 2 .* reads version 1"),
        (b'{"format": "kickserve/trees", "version": 1}', "missing required field"),
        (b'{"format": "kickserve/linear"}', "instead of 'kickserve/trees'"),
        (msgspec.json.encode(small()).replace(b'"slope"', b'"slop"'), "slop"),
    ],
)
def test_a_file_that_is_no_model_is_refused_in_words(data, message):
    with pytest.raises(ModelUnusable, match=message):
        load_trees(data, Origin("file.json", "test"))


def test_answering_with_trees_imports_no_scikit_learn(tmp_path):
    (tmp_path / "trees.json").write_bytes(encode(small()))
    program = (
        "import sys\n"
        "from kickserve.app import create_app\n"
        "from kickserve.loading import load_model\n"
        "from kickserve.plugins import discover\n"
        "from kickserve.settings import Settings\n"
        "settings = Settings.load()\n"
        "create_app(settings)\n"
        f"print(load_model(settings, discover(settings)).predict_one({kick()}))\n"
        "print(*[name for name in sys.modules if name.split('.')[0] in {'sklearn', 'scipy', 'pandas'}])\n"
    )
    environment = os.environ | {"KICKSERVE_MODEL": str(tmp_path / "trees.json")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    answer, heavy = done.stdout.splitlines()
    assert answer.startswith("(0.")
    assert heavy == ""
