"""Publishing a model: shown first, uploaded only when asked, and served from the hub afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files

import pytest
import yaml
from hub import hub
from kinds import REVISION, onnx
from test_hub import closed_port

DEFAULT = (files("kickserve") / "default.json").read_bytes()


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "mine.json"
    path.write_bytes(DEFAULT)
    return path


@pytest.fixture
def run(tmp_path):
    """Run `kickserve` in a folder and a cache of its own."""

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "kickserve", *map(str, arguments)],
            env={**os.environ, "HF_HOME": str(tmp_path), "COLUMNS": "200", **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_without_upload_it_is_only_shown(run, model):
    with hub({}) as server:
        finished = run("model", "publish", "me/kicks", "--file", model, HF_ENDPOINT=server.url)
    assert server.asked == []
    assert finished.returncode == 0
    assert "kickserve.json" in finished.stdout
    assert "Trained on simulated kicks, not on recorded ones." in finished.stdout
    assert "Nothing was uploaded" in finished.stderr


def test_what_was_published_is_served_from_the_hub(run, model):
    with hub({}) as server:
        environment = {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_secret"}
        arguments = ("--license", "mit", "--upload", "--json")
        made = run("model", "publish", "me/kicks", "--file", model, *arguments, **environment)
        assert made.returncode == 0, made.stderr
        summary = json.loads(made.stdout)
        assert (summary["uploaded"], summary["commit"]) == (True, REVISION)
        assert server.created.get("private") is True or server.created.get("visibility") == "private"
        keys = {key for path, key in server.asked if "me/kicks" in path or path == "/api/repos/create"}
        assert keys == {"Bearer hf_secret"}
        assert server.files["kickserve.json"] == DEFAULT
        shown = run("model", "show", "--json", HF_REPO_ID="me/kicks", **environment)
        card = json.loads(shown.stdout)
        assert (card["name"], card["revision"]) == ("simulated", REVISION)
    head = yaml.safe_load(server.files["README.md"].decode().split("---\n")[1])
    assert (head["library_name"], head["license"]) == ("kickserve", "mit")
    scores = {each["type"]: each["value"] for each in head["model-index"][0]["results"][0]["metrics"]}
    assert scores["brier_score"] == round(json.loads(DEFAULT)["metrics"]["brier"], 4)


def test_an_onnx_file_gets_the_name_that_is_looked_for_first(run, tmp_path):
    (tmp_path / "kicks.onnx").write_bytes(onnx())
    with hub({}) as server:
        made = run(
            *("model", "publish", "me/kicks", "--file", "kicks.onnx", "--public", "--upload"),
            HF_ENDPOINT=server.url,
        )
    assert made.returncode == 0, made.stderr
    assert "public" in made.stdout
    assert set(server.files) == {"model.onnx", "README.md"}
    assert "does not tell on which kicks it was trained" in server.files["README.md"].decode()


@pytest.mark.parametrize("bins", ["many", [[1, 2]], [["a", "b", "c"]], {"a": 1}, 7])
def test_metrics_of_another_shape_are_left_out_of_the_card(run, model, bins):
    document = json.loads(model.read_text())
    document["metrics"] |= {"reliability": bins, "brier_se": "small"}
    model.write_text(json.dumps(document))
    finished = run("model", "publish", "me/kicks", "--file", model)
    assert finished.returncode == 0, finished.stderr
    assert "| Brier score (0 is best) | 0.1" in finished.stdout
    assert "share that succeeded |" not in finished.stdout


def test_a_pickle_is_not_published(run, tmp_path):
    (tmp_path / "kicks.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    finished = run("model", "publish", "me/kicks", "--file", "kicks.pkl", "--upload")
    assert finished.returncode == 2
    assert "only JSON, ONNX and skops" in finished.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["kicks", "me/kicks/more", "me/ki cks"])
def test_a_name_that_is_none_says_how_it_must_read(run, model, name):
    finished = run("model", "publish", name, "--file", model)
    assert finished.returncode == 2
    assert "it must read owner/name" in finished.stderr


def test_which_model_must_be_said(run):
    finished = run("model", "publish", "me/kicks")
    assert finished.returncode == 2
    assert "--file model.json, or KICKSERVE_MODEL" in finished.stderr


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ((401, None), "set HF_TOKEN to a token that may write there"),
        ((403, None), "set HF_TOKEN to a token that may write there"),
        ((400, None), "the hub did not take me/kicks"),
    ],
)
def test_a_hub_that_refuses_is_understood(run, model, fault, words):
    with hub({}, fault) as server:
        finished = run("model", "publish", "me/kicks", "--file", model, "--upload", HF_ENDPOINT=server.url)
    assert finished.returncode == 1
    assert words in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_a_hub_that_is_away_says_that_nothing_was_published(run, model):
    away = closed_port()
    finished = run("model", "publish", "me/kicks", "--file", model, "--upload", HF_ENDPOINT=away)
    assert finished.returncode == 1
    assert "nothing was published" in finished.stderr


def test_offline_it_says_what_to_unset(run, model):
    finished = run("model", "publish", "me/kicks", "--file", model, "--upload", HF_HUB_OFFLINE="1")
    assert finished.returncode == 1
    assert "HF_HUB_OFFLINE is set: unset it to publish" in finished.stderr
