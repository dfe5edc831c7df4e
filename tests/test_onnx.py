"""ONNX models answer as onnxruntime does, in whichever shape they are, and misfits are refused."""

from __future__ import annotations

import kinds
import numpy as np
import pytest
import skl2onnx
from kinds import FRESH, X, Y, linear, onnx, onnx_of
from onnx import TensorProto, helper, load_model_from_string, save_model
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from kickserve.errors import ModelUnusable
from kickserve.features import FLAGS, NAMES

FLOAT, DOUBLE, INT64, BOOL = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL


@pytest.fixture
def load(tmp_path):
    def load(data, **environ):
        file = tmp_path / "kicks.onnx"
        file.write_bytes(data)
        return kinds.load(file, **environ)

    return load


def of_one_tensor(kind, scale, shape=("n", 11), out=("n", 1)):
    """Time_norm times a number, from one tensor of kicks."""
    number = np.zeros((11, 1), np.float32 if kind == FLOAT else np.float64)
    number[0] = scale
    nodes = [helper.make_node("MatMul", ["kicks", "w"], ["score"])]
    if len(out) == 1:
        nodes.append(helper.make_node("Reshape", ["score", "flat"], ["p"]))
    else:
        nodes.append(helper.make_node("Identity", ["score"], ["p"]))
    return onnx_of(
        [("kicks", kind, shape)], nodes, [("p", kind, out)], [("w", number), ("flat", np.array([-1]))]
    )


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("zipmap", [True, False])
def test_it_answers_as_the_model_that_it_was_made_of(load, named, zipmap):
    model = load(onnx(named=named, zipmap=zipmap))
    assert model.predict(FRESH).probability == pytest.approx(linear().predict_proba(FRESH)[:, 1], abs=1e-6)
    assert model.card.trained_on["made with"] == "skl2onnx"


@pytest.mark.parametrize("kind", [FLOAT, DOUBLE])
@pytest.mark.parametrize("out", [("n", 1), ("n",)])
def test_one_tensor_of_either_precision_and_one_probability_a_kick_are_taken(load, kind, out):
    model = load(of_one_tensor(kind, 1.0, out=out))
    assert model.predict(FRESH).probability == pytest.approx(FRESH[:, 0], abs=1e-6)


def test_flags_may_be_integers_or_booleans(load):
    kinds = [FLOAT if name not in FLAGS else BOOL if name == "is_start" else INT64 for name in NAMES]
    inputs = [(name, kind, ("n", 1)) for name, kind in zip(NAMES, kinds, strict=True)]
    nodes = [helper.make_node("Cast", ["game_away"], ["p"], to=FLOAT)]
    model = load(onnx_of(inputs, nodes, [("p", FLOAT, ("n", 1))]))
    assert np.array_equal(model.predict(FRESH).probability, FRESH[:, NAMES.index("game_away")])


def test_inputs_that_are_missing_or_too_many_are_listed(load):
    inputs = [(name, FLOAT, ("n", 1)) for name in NAMES[:9]]
    data = onnx_of(inputs, [helper.make_node("Identity", ["angle"], ["p"])], [("p", FLOAT, ("n", 1))])
    with pytest.raises(ModelUnusable, match=r"lacks is_left_side, has_previous_attempts$"):
        load(data)
    inputs = [(name, FLOAT, ("n", 1)) for name in (*NAMES[1:], "altitude", "kicker")]
    data = onnx_of(inputs, [helper.make_node("Identity", ["distance"], ["p"])], [("p", FLOAT, ("n", 1))])
    with pytest.raises(ModelUnusable, match="lacks time_norm and asks for altitude, kicker, which"):
        load(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (onnx()[:700], "onnxruntime can't read it"),
        (
            onnx_of([("kicks", FLOAT, ("n", 9))], [helper.make_node("Identity", ["kicks"], ["p"])], []),
            r"kicks has the shape \['n', 9\], and must have \(n, 11\)",
        ),
        (of_one_tensor(FLOAT, 1.0, shape=(1, 11)), r"shape \[1, 11\], and must have \(n, 11\) for any n"),
        (of_one_tensor(FLOAT, 2.0), "tried on a few kicks, .* an invalid probability"),
        (of_one_tensor(FLOAT, float("nan")), "an invalid probability"),
        (
            onnx_of([("kicks", INT64, ("n", 11))], [helper.make_node("Identity", ["kicks"], ["p"])], []),
            "is a tensor.int64., and must be a tensor.float. or",
        ),
        (
            onnx_of(
                [("kicks", FLOAT, ("n", 11))],
                [helper.make_node("Cast", ["kicks"], ["label"], to=INT64)],
                [("label", INT64, ("n", 11))],
            ),
            "one output of probabilities; it has: label, a tensor.int64.",
        ),
        (
            onnx_of(
                [("kicks", FLOAT, ("n", 11))],
                [helper.make_node("Identity", ["kicks"], ["p"])],
                [("p", FLOAT, ("n", 11))],
            ),
            "shape .1, 11. for 1 kicks",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused_in_words(load, data, words):
    with pytest.raises(ModelUnusable, match=words):
        load(data)


def test_scores_that_are_no_probabilities_are_refused(load):
    data = onnx_of(
        [("kicks", FLOAT, ("n", 11))],
        [helper.make_node("Gather", ["kicks", "two"], ["p"], axis=1)],
        [("p", FLOAT, ("n", 2))],
        [("two", np.array([0, 4]))],
    )
    with pytest.raises(ModelUnusable, match=r"add up to 0.7 instead of 1"):
        load(data)


@pytest.mark.parametrize(("zipmap", "words"), [(True, "its labels are 0, 1, 2"), (False, r"shape .\d+, 3.")])
def test_more_than_two_classes_are_refused(load, zipmap, words):
    three = DecisionTreeClassifier(max_depth=2).fit(X, np.arange(len(X)) % 3)
    made = skl2onnx.to_onnx(three, X[:1].astype(np.float32), options={"zipmap": zipmap})
    with pytest.raises(ModelUnusable, match=words):
        load(made.SerializeToString())


def labelled(labels, *, zipmap):
    """A classifier whose labels of missed and succeeded kicks are these, and its probability of success."""
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, np.array(labels)[Y])
    made = skl2onnx.to_onnx(estimator, X[:1].astype(np.float32), options={"zipmap": zipmap})
    succeeds = estimator.classes_.tolist().index(labels[1])
    return made.SerializeToString(), estimator.predict_proba(FRESH)[:, succeeds]


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize(
    ("labels", "setting"),
    [(["miss", "goal"], "goal"), (["goal", "miss"], "Miss"), ([1, 2], "2"), ([1, -1], "-1")],
)
def test_other_labels_than_0_and_1_are_told_apart_by_the_setting(load, labels, setting, zipmap):
    data, expected = labelled(labels, zipmap=zipmap)
    model = load(data, KICKSERVE_SUCCESS_LABEL=setting)
    assert model.predict(FRESH).probability == pytest.approx(expected, abs=1e-6)
    for wrong in ("", "other"):
        with pytest.raises(ModelUnusable, match=rf"labels are .*{labels[1]}.*: set KICKSERVE_SUCCESS_LABEL"):
            load(data, KICKSERVE_SUCCESS_LABEL=wrong)


def of_labels(label):
    """Pairs of probabilities, that of the first label being time_norm, beside labels: (n, 2) and (n,)."""
    nodes = [
        helper.make_node("Gather", ["kicks", "first"], ["p"], axis=1),
        helper.make_node("Sub", ["one", "p"], ["q"]),
        helper.make_node("Concat", ["p", "q"], ["prob"], axis=1),
        helper.make_node("Greater", ["p", "half"], ["first_wins"]),
        helper.make_node("Where", ["first_wins", *label], ["column"]),
        helper.make_node("Reshape", ["column", "flat"], ["label"]),
    ]
    outputs = [("prob", FLOAT, ("n", 2)), ("label", INT64, ("n",))]
    numbers = {"first": np.array([0]), "flat": np.array([-1]), "one": np.float32(1), "half": np.float32(0.5)}
    numbers |= {f"is_{each}": np.int64(each) for each in range(3)}
    return onnx_of([("kicks", FLOAT, ("n", 11))], nodes, outputs, numbers.items())


def test_the_labels_of_random_kicks_say_which_probability_is_that_of_success(load):
    first, second = load(of_labels(["is_1", "is_0"])), load(of_labels(["is_0", "is_1"]))
    assert first.predict(FRESH).probability == pytest.approx(FRESH[:, 0], abs=1e-6)
    assert second.predict(FRESH).probability == pytest.approx(1 - FRESH[:, 0], abs=1e-6)
    with pytest.raises(ModelUnusable, match="its label is 2 for each of 4,096 random kicks"):
        load(of_labels(["is_2", "is_2"]))


def test_weights_in_another_file_are_read_beside_the_model_and_count_for_its_revision(tmp_path, monkeypatch):
    weights = np.zeros((11, 1), np.float32)
    nodes = [helper.make_node("MatMul", ["kicks", "w"], ["p"])]
    kicks, out = ("kicks", FLOAT, ("n", 11)), ("p", FLOAT, ("n", 1))
    revisions = set()
    for folder, column in (("models", 0), ("elsewhere", 4)):
        weights[:] = 0
        weights[column] = 1
        (tmp_path / folder).mkdir()
        made = load_model_from_string(onnx_of([kicks], nodes, [out], [("w", weights)]))
        apart = {"save_as_external_data": True, "location": "m.data", "size_threshold": 0}
        save_model(made, tmp_path / folder / "m.onnx", **apart)
    monkeypatch.chdir(tmp_path / "elsewhere")  # which has other weights by the same name
    for folder, column in (("models", 0), ("elsewhere", 4)):
        model = kinds.load(tmp_path / folder / "m.onnx")
        assert model.predict(FRESH).probability == pytest.approx(FRESH[:, column], abs=1e-6)
        revisions.add(model.card.revision)
    assert len(revisions) == 2
    (tmp_path / "models" / "m.data").unlink()
    with pytest.raises(ModelUnusable, match=r"m\.data"):
        kinds.load(tmp_path / "models" / "m.onnx")
