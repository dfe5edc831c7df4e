"""`kickserve model check`; files that are no models are refused in one line, exit code 2, nothing run."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from importlib.resources import files

import msgspec
import pytest
import skops.io
from kinds import KICKS, linear, load, onnx

from kickserve.cli import run
from kickserve.errors import ModelUnusable
from kickserve.features import NAMES, columns
from kickserve.linear import load_default
from kickserve_data.simulate import simulate
from kickserve_scores.quality import assess


@pytest.fixture
def check(capsys):
    """Run `kickserve model check`; return exit code, standard output and standard error."""

    def check(*arguments):
        code = run(["model", "check", *map(str, arguments)])
        return code, *capsys.readouterr()

    return check


@pytest.fixture
def kicks_csv(tmp_path):
    kicks = simulate(2_000, 9)
    table = columns(kicks.matrix) | {"success": kicks.success.astype(int).tolist()}
    lines = [",".join(table), *(",".join(map(str, row)) for row in zip(*table.values(), strict=True))]
    file = tmp_path / "kicks.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def eleven_thousand():
    values = msgspec.to_builtins(load_default().document)
    values |= {"features": [f"feature_{at}" for at in range(11_000)]}
    return msgspec.json.encode(values)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("was-here",)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("hostile.pkl", pickle.dumps(Hostile()), "can run any code when it is loaded"),
        ("hostile.skops", pickle.dumps(Hostile()), "skops can't read it"),
        ("cut.onnx", onnx()[:600], "onnxruntime can't read it"),
        ("many.json", eleven_thousand(), "its features must be, in this order"),
        ("other.json", b'{"format": "else"}', "its format is 'else' instead of 'kickserve/linear'"),
        ("deep.json", b"[" * 100_000, "no JSON of a model"),
        ("empty.onnx", b"", "it is empty"),
        ("empty.json", b"", "it is empty"),
        (
            "model.h5",
            b"x",
            "its ending is '.h5', and no plugin reads that: kickserve's own read .json",
        ),
    ],
)
def test_a_file_that_is_no_model_is_refused_in_one_line(check, tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    code, out, err = check(tmp_path / name)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "was-here").exists()


def test_what_is_no_file_is_said_to_be_none(check, tmp_path):
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    for name, words in [
        ("folder.json", "it is a folder"),
        ("pipe.json", "it is no regular file"),
        ("nothing.json", "there is no such file"),
    ]:
        code, _, err = check(tmp_path / name)
        assert code == 2
        assert words in err


@pytest.mark.parametrize(
    ("ending", "missing", "hidden", "extra"),
    [
        ("onnx", "onnxruntime", "onnxruntime", "onnx"),
        ("skops", "scikit-learn", "sklearn", "sklearn"),
        ("skops", "skops", "skops", "sklearn"),
        ("pkl", "scikit-learn", "sklearn", "sklearn"),
    ],
)
def test_a_missing_extra_is_named(tmp_path, ending, missing, hidden, extra):
    file = tmp_path / f"kicks.{ending}"
    file.write_bytes(b"x")
    script = f"""
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == {hidden!r} else found(name, *more)
from kickserve.cli import main
main(["model", "check", {str(file)!r}])
"""
    finished = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "KICKSERVE_ALLOW_PICKLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert f"needs {missing}: install it with  pip install 'kickserve[{extra}]'" in finished.stderr


def test_a_model_is_asked_and_timed(check, tmp_path):
    (tmp_path / "kicks.onnx").write_bytes(onnx())
    code, out, _ = check(tmp_path / "kicks.onnx")
    assert code == 0
    for word in ["onnx", "a typical kick", "one kick", "µs", "10,000 kicks", "ms"]:
        assert word in out
    assert "Brier" not in out


def test_a_model_is_compared_with_the_one_in_use(check, tmp_path, kicks_csv):
    (tmp_path / "kicks.skops").write_bytes(skops.io.dumps(linear()))
    code, out, _ = check(tmp_path / "kicks.skops", "--data", kicks_csv)
    assert code == 0
    for word in ["Brier score", "log loss", "ECE", "AUC", "in use: simulated", "too low"]:
        assert word in out
    code, out, _ = check(tmp_path / "kicks.skops", "--data", kicks_csv, "--json")
    found = json.loads(out)
    kicks = simulate(2_000, 9)
    theirs = assess(linear().predict_proba(kicks.matrix)[:, 1], kicks.success)
    ours = assess(load_default().predict(kicks.matrix).probability, kicks.success)
    assert found["comparison"]["candidate"]["brier"] == pytest.approx(theirs.brier, abs=1e-9)
    assert found["comparison"]["current"]["log_loss"] == pytest.approx(ours.log_loss, abs=1e-9)
    assert len(found["comparison"]["candidate"]["bins"]) == 10
    assert found["check"]["model"]["kind"] == "sklearn-linear"
    assert found["check"]["one_us"] < found["check"]["many_ms"] * 1000


def test_lines_that_hold_no_kick_are_named_and_those_without_outcome_counted(check, tmp_path, kicks_csv):
    (tmp_path / "kicks.onnx").write_bytes(onnx())
    lines = kicks_csv.read_text().splitlines()
    lines[4] = "moon" + lines[4]
    lines[9] = lines[9].rpartition(",")[0] + ","
    kicks_csv.write_text("\n".join(lines) + "\n")
    code, out, err = check(tmp_path / "kicks.onnx", "--data", kicks_csv, "--json")
    comparison = json.loads(out)["comparison"]
    assert code == 3
    assert (comparison["refused"], comparison["without_outcome"]) == (1, 1)
    assert comparison["candidate"]["count"] == 1_998
    code, _, err = check(tmp_path / "kicks.onnx", "--data", kicks_csv)
    assert (code, err.startswith("line 5: time_norm 'moon")) == (3, True)
    kicks_csv.write_text("\n".join([*lines, *["moon"] * 5_000]) + "\n")
    code, out, err = check(tmp_path / "kicks.onnx", "--data", kicks_csv, "--json")
    found = json.loads(out)
    assert (found["comparison"]["refused"], len(found["refusals"])) == (5_001, 1_000)


def test_data_without_outcomes_can_not_be_compared_on(check, tmp_path, kicks_csv):
    (tmp_path / "kicks.onnx").write_bytes(onnx())
    lines = [line.rpartition(",")[0] for line in kicks_csv.read_text().splitlines()]
    kicks_csv.write_text("\n".join(lines) + "\n")
    code, _, err = check(tmp_path / "kicks.onnx", "--data", kicks_csv)
    assert code == 2
    assert "needs a column success" in err


def test_kicks_that_all_came_out_alike_have_no_auc(check, tmp_path):
    (tmp_path / "kicks.onnx").write_bytes(onnx())
    row = dict(zip(NAMES, KICKS.matrix[0].tolist(), strict=True)) | {"success": 1}
    (tmp_path / "kicks.ndjson").write_text(json.dumps(row) + "\n")
    code, out, _ = check(tmp_path / "kicks.onnx", "--data", tmp_path / "kicks.ndjson")
    assert code == 0
    assert "none" in out


@pytest.mark.parametrize("name", ["two\nlines", "nothing\x00", "half \udcff", "long" * 60])
def test_a_name_that_no_store_could_keep_is_refused(tmp_path, name):
    document = msgspec.json.decode((files("kickserve") / "default.json").read_bytes())
    file = tmp_path / "kicks.json"
    file.write_text(json.dumps({**document, "name": name}))
    with pytest.raises(ModelUnusable, match=r"its name must have at most 200 characters|it is no JSON"):
        load(file)
