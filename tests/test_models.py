"""Every kind of model fulfils one contract, `model check` measures it, and other files are refused."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import subprocess
import sys
from importlib.resources import files

import cloudpickle
import numpy as np
import pytest
import skops.io
from kinds import FRESH, KICKS, X, Y, linear, load, onnx
from sklearn.ensemble import RandomForestClassifier
from sklearn.naive_bayes import GaussianNB

from kickserve.cli import run
from kickserve.errors import MissingExtra, ModelUnusable
from kickserve.features import INDEX, NAMES, columns, named
from kickserve.linear import expand, load_default
from kickserve.loading import fetch_model, load_file
from kickserve.model import AnswersOne
from kickserve.plugins import discover
from kickserve.settings import Settings
from kickserve_data.simulate import simulate
from kickserve_scores.quality import assess
from kickserve_train.serialization import encode
from kickserve_trees.ensembles import Ensemble, Tree
from kickserve_trees.model import TreesDocument

DEFAULT = files("kickserve").joinpath("default.json").read_bytes()
ALLOWED = {"KICKSERVE_ALLOW_PICKLE": "1"}


def forest():
    return RandomForestClassifier(5, random_state=0).fit(X, Y)


def bayes():
    return GaussianNB().fit(X, Y)


def trees():
    """One tree: log-odds of 1 up to 30 m, of -1 beyond."""
    stump = Tree(feature=[INDEX["distance"]], threshold=[30.0], left=[-1], right=[-2], value=[1.0, -1.0])
    document = TreesDocument(
        name="stump",
        description="for tests",
        features=list(NAMES),
        log_odds=Ensemble(base=0.0, trees=[stump]),
        ln_variance=Ensemble(base=math.log(0.04), trees=[]),
        domain={"distance": (5.0, 40.0)},
        interval="all of it",
        trained_on={},
        metrics={},
    )
    return encode(document)


def expit(z):
    return 1 / (1 + np.exp(-z))


def by_formula(matrix):
    document = json.loads(DEFAULT)
    z = expand(matrix, document["terms"]) @ document["coefficients"]
    return expit(z / math.sqrt(1 + math.pi * document["ability_sd"] ** 2 / 8))


def of_sklearn(estimator):
    return lambda matrix: estimator.predict_proba(matrix)[:, 1]


# Of each kind: ending and bytes of a file, the kind on its card, and the probabilities of its maker.
KINDS = {
    "linear": lambda: (".json", DEFAULT, "linear", by_formula),
    "trees": lambda: (".json", trees(), "trees", lambda kicks: expit(np.where(kicks[:, 1] <= 30, 1.0, -1.0))),
    "onnx": lambda: (".onnx", onnx(), "onnx", of_sklearn(linear())),
    "logistic": lambda: (".skops", skops.io.dumps(linear()), "sklearn-linear", of_sklearn(linear())),
    "forest": lambda: (".skops", skops.io.dumps(forest()), "sklearn-trees", of_sklearn(forest())),
    "bayes": lambda: (".skops", skops.io.dumps(bayes()), "sklearn", of_sklearn(bayes())),
    "pickle": lambda: (".pkl", cloudpickle.dumps(linear()), "sklearn-linear", of_sklearn(linear())),
}


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    ending, data, kind, expected = KINDS[request.param]()
    path = tmp_path_factory.mktemp("models") / f"kicks{ending}"
    path.write_bytes(data)
    return path, load(path, **ALLOWED), kind, expected


class TestContract:
    def test_it_predicts_as_its_maker_says(self, made):
        _, model, kind, expected = made
        probability, low, high = model.predict(FRESH)
        assert probability == pytest.approx(expected(FRESH), abs=1e-6 if kind == "onnx" else 1e-10)
        assert probability.dtype == np.float64
        assert (low is None) == (high is None) == (model.card.interval is None)
        assert low is None or ((low >= 0) & (low <= probability) & (probability <= high) & (high <= 1)).all()

    def test_one_kick_gets_the_numbers_of_many(self, made):
        _, model, kind, _ = made
        assert isinstance(model, AnswersOne) == (kind not in {"onnx", "sklearn"})
        if isinstance(model, AnswersOne):
            one = np.array([model.predict_one(row) for row in FRESH.tolist()])
            assert np.array_equal(one[:, 0], model.predict(FRESH).probability)

    def test_no_kicks_give_no_answers_and_kicks_stay_as_they_are(self, made):
        _, model, _, _ = made
        assert model.predict(FRESH[:0]).probability.shape == (0,)
        before = FRESH.copy()
        model.predict(FRESH)
        assert np.array_equal(FRESH, before)

    def test_it_warns_of_kicks_out_of_its_domain(self, made):
        _, model, _, _ = made
        beyond = [bool(model.warnings(row)) for row in FRESH.tolist()]
        assert model.out_of_domain(FRESH).tolist() == beyond
        assert any(beyond) == bool(model.card.domain)

    def test_its_card_names_it_and_its_revision(self, made):
        path, model, kind, _ = made
        card = model.card
        assert (card.kind, card.source, card.features) == (kind, str(path), list(NAMES))
        assert len(card.revision) == 12
        assert load(path, **ALLOWED).card == card

    def test_its_file_goes_to_another_process(self, made):
        path, model, _, _ = made
        plugins = discover(Settings(environ=ALLOWED))
        sent = pickle.loads(pickle.dumps(fetch_model(str(path), plugins)))  # noqa: S301  made here
        assert np.array_equal(load_file(sent, plugins).predict(FRESH)[0], model.predict(FRESH)[0])

    async def test_it_serves(self, made, start, settings):
        _, model, _, _ = made
        client = await start(settings, model=model)
        kicks = [named(row) for row in FRESH[:20].tolist()]
        one = (await client.post("/predict", json=kicks[0])).json()
        many = (await client.post("/predict/batch", json=kicks)).json()
        expected = model.predict(FRESH[:20]).probability
        assert one["prediction"] == pytest.approx(expected[0], abs=1e-7)
        assert [each["prediction"] for each in many] == pytest.approx(expected.tolist(), abs=1e-7)
        assert (one["interval"] is None) == (model.card.interval is None)
        assert (await client.get(f"/predictions/{one['id']}")).json()["revision"] == model.card.revision


@pytest.fixture
def check(capsys):
    """Run `kickserve model check`; return exit code, standard output and standard error."""

    def check(*arguments):
        code = run(["model", "check", *map(str, arguments)])
        return code, *capsys.readouterr()

    return check


class Hostile:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("was-here",)


HOSTILE = pickle.dumps(Hostile())


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "data", "words"),
        [
            *(
                (f"hostile{ending}", HOSTILE, "can run any code when loaded")
                for ending in (".pkl", ".pickle", ".joblib", ".PKL")
            ),
            ("hostile.skops", HOSTILE, "skops can't read it"),
            ("hostile.onnx", HOSTILE, "onnxruntime can't read it"),
            ("hostile.json", HOSTILE, "not the JSON of a model"),
            ("other.json", b'{"format": "else"}', "its format is 'else' instead of 'kickserve/linear'"),
            ("empty.onnx", b"", "it is empty"),
            ("model.h5", b"x", "no plugin reads files that end with '.h5'"),
            ("nothing.pkl", None, "the file does not exist"),
        ],
    )
    def test_a_file_that_is_no_model_is_refused_in_one_line(self, check, tmp_path, name, data, words):
        if name.endswith(".onnx"):
            pytest.importorskip("onnxruntime")
        if data is not None:
            (tmp_path / name).write_bytes(data)
        code, out, err = check(tmp_path / name)
        assert (code, out) == (2, "")
        assert words in err
        assert len(err.splitlines()) == 1
        assert not (tmp_path / "was-here").exists()

    def test_a_path_without_a_file_is_named(self, check, tmp_path):
        (tmp_path / "folder.json").mkdir()
        os.mkfifo(tmp_path / "pipe.json")
        assert "the path is a folder" in check(tmp_path / "folder.json")[2]
        assert "the path is not a regular file" in check(tmp_path / "pipe.json")[2]

    @pytest.mark.parametrize("name", ["two\nlines", "nothing\x00", "half \udcff", "long" * 60])
    def test_a_name_that_no_store_could_keep_is_refused(self, tmp_path, name):
        file = tmp_path / "kicks.json"
        file.write_text(json.dumps({**json.loads(DEFAULT), "name": name}))
        with pytest.raises(ModelUnusable, match=r"its name must have at most 200 characters|is not the JSON"):
            load(file)

    @pytest.mark.parametrize(
        ("ending", "module", "words"),
        [
            ("onnx", "onnxruntime", "needs onnxruntime: install it with  pip install 'kickserve[onnx]'"),
            ("skops", "sklearn", "needs scikit-learn: install it with  pip install 'kickserve[sklearn]'"),
            ("skops", "skops", "needs skops: install it with  pip install 'kickserve[sklearn]'"),
            ("pkl", "sklearn", "needs scikit-learn: install it with  pip install 'kickserve[sklearn]'"),
        ],
    )
    def test_a_missing_extra_is_named(self, tmp_path, monkeypatch, ending, module, words):
        monkeypatch.setattr("kickserve.errors.find_spec", lambda name: None if name == module else name)
        path = tmp_path / f"kicks.{ending}"
        path.write_bytes(b"x")
        with pytest.raises(MissingExtra, match=re.escape(words)):
            load(path, **ALLOWED)


class TestCheck:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "kicks.skops"
        path.write_bytes(skops.io.dumps(linear()))
        return path

    @pytest.fixture
    def kicks_csv(self, tmp_path):
        kicks = simulate(2_000, 9)
        table = columns(kicks.matrix) | {"success": kicks.success.astype(int).tolist()}
        lines = [",".join(table), *(",".join(map(str, row)) for row in zip(*table.values(), strict=True))]
        path = tmp_path / "kicks.csv"
        path.write_text("\n".join(lines) + "\n")
        return path

    def test_a_model_is_timed_and_compared_with_the_one_in_use(self, check, file, kicks_csv):
        code, out, _ = check(file, "--data", kicks_csv)
        assert code == 9  # it was fitted to balanced classes
        for word in ["sklearn-linear", "a typical kick", "one kick", "µs", "10,000 kicks", "ms"]:
            assert word in out
        for word in ["Brier score", "log loss", "ECE", "AUC", "in use: simulated", "too low"]:
            assert word in out
        code, out, _ = check(file, "--data", kicks_csv, "--json")
        found = json.loads(out)
        kicks = simulate(2_000, 9)
        theirs = assess(linear().predict_proba(kicks.matrix)[:, 1], kicks.success)
        ours = assess(load_default().predict(kicks.matrix).probability, kicks.success)
        assert found["comparison"]["candidate"]["brier"] == pytest.approx(theirs.brier, abs=1e-9)
        assert found["comparison"]["current"]["log_loss"] == pytest.approx(ours.log_loss, abs=1e-9)
        assert len(found["comparison"]["candidate"]["bins"]) == 10
        assert found["check"]["model"]["kind"] == "sklearn-linear"
        assert found["check"]["one_us"] > 0 < found["check"]["many_ms"]

    def test_lines_without_kick_are_named_and_those_without_outcome_counted(self, check, tmp_path, kicks_csv):
        lines = kicks_csv.read_text().splitlines()
        lines[4] = "moon" + lines[4]
        lines[9] = lines[9].rpartition(",")[0] + ","
        kicks_csv.write_text("\n".join(lines) + "\n")
        (tmp_path / "default.json").write_bytes(DEFAULT)
        code, out, _ = check(tmp_path / "default.json", "--data", kicks_csv, "--json")
        comparison = json.loads(out)["comparison"]
        assert code == 3
        assert (comparison["refused"], comparison["without_outcome"]) == (1, 1)
        assert comparison["candidate"]["count"] == 1_998
        kicks_csv.write_text("\n".join([*lines, *["moon"] * 5_000]) + "\n")
        assert check(tmp_path / "default.json", "--data", kicks_csv)[2].startswith("line 5: time_norm 'moon")

    @pytest.mark.parametrize(
        ("line", "code", "words"),
        [
            ((1, 0), 0, "as good as simulated, the model in use"),
            ((0.5, 1), 9, "worse than simulated, the model in use, by 0.0"),
            ((-1, 0), 8, "upside down: its AUC is 0.2"),
            ((-0.1, 1.4), 8, "upside down"),  # though right on average
            ((8, -9), 8, "worse than always saying 7"),
        ],
    )
    def test_a_verdict_says_whether_to_serve_it(self, check, tmp_path, kicks_csv, line, code, words):
        document, (slope, offset) = json.loads(DEFAULT), line
        coefficients = [slope * each for each in document["coefficients"]]
        coefficients[document["terms"].index("intercept")] += offset
        changed = {**document, "coefficients": coefficients, "revision": ""}
        (tmp_path / "changed.json").write_text(json.dumps(changed))
        found, out, _ = check(tmp_path / "changed.json", "--data", kicks_csv)
        assert f"The model is {words}" in out
        assert found == code

    def test_a_better_model_than_the_one_in_use_is_better(self, check, tmp_path, kicks_csv, monkeypatch):
        document = json.loads(DEFAULT)
        document["coefficients"][0] += 1
        (tmp_path / "current.json").write_text(json.dumps({**document, "revision": "", "name": "current"}))
        (tmp_path / "default.json").write_bytes(DEFAULT)
        monkeypatch.setenv("KICKSERVE_MODEL", "current.json")
        code, out, _ = check(tmp_path / "default.json", "--data", kicks_csv, "--json")
        assert (code, json.loads(out)["comparison"]["verdict"]["kind"]) == (0, "better")

    def test_kicks_without_outcomes_are_refused(self, check, file, tmp_path):
        path = tmp_path / "kicks.ndjson"
        path.write_text(json.dumps(dict(zip(NAMES, KICKS.matrix[0].tolist(), strict=True))) + "\n")
        code, _, err = check(file, "--data", path)
        assert code == 2
        assert "needs a column success" in err


def test_a_service_of_own_models_imports_no_other_library(tmp_path):
    (tmp_path / "trees.json").write_bytes(trees())
    program = (
        "import sys\n"
        "from kickserve.app import create_app\n"
        "print(create_app().predictor.model.card.kind)\n"
        "heavy = {'evidently', 'sklearn', 'scipy', 'pandas', 'onnxruntime', 'skops', 'huggingface_hub'}\n"
        "print(*[name for name in sys.modules if name in heavy])\n"
    )
    environment = os.environ | {"KICKSERVE_MODEL": "trees.json", "KICKSERVE_SHADOW": "default"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["trees", ""]
