"""Models from the hub: out of a cache that the test lays out by hand, or from a hub on this machine."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import termios
from importlib.resources import files

import cloudpickle
import httpx
import pytest
import skops.io
from hub import hub
from kinds import FRESH, REVISION, lay_out, linear, onnx, onnx_says, published
from serving import BARE, serving

from kickserve.features import named

NAME = "XavierCoulon/rugby-kicks-model"
JSON = (files("kickserve") / "default.json").read_bytes()


@pytest.fixture
def show(tmp_path):
    """Run `kickserve model show` with the cache in tmp_path, offline if nothing else is said."""

    def show(repository=NAME, stderr=subprocess.PIPE, **environment):
        surroundings = {
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "1",
            "HF_REPO_ID": repository,
            **environment,
        }
        return subprocess.run(
            [sys.executable, "-m", "kickserve", "model", "show", "--json"],
            env={**os.environ, **surroundings},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            check=False,
        )

    return show


def card_of(finished):
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def refusal_of(finished):
    assert finished.returncode == 2, finished.stdout
    assert len(finished.stderr.splitlines()) == 1
    return finished.stderr


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_the_published_model_is_served_offline_with_its_own_probabilities(tmp_path):
    lay_out(tmp_path, NAME, published())
    expected = onnx_says(onnx(), FRESH)
    with serving(tmp_path, **BARE, HF_HOME=str(tmp_path), HF_REPO_ID=NAME, HF_HUB_OFFLINE="1") as server:
        kicks = [named(row) for row in FRESH.tolist()]
        one = httpx.post(f"{server.url}/predict", json=kicks[0]).json()
        many = httpx.post(f"{server.url}/predict/batch", json=kicks).json()
        kept = httpx.get(f"{server.url}/predictions/{one['id']}").json()
        assert server.end() == 0
    assert one["prediction"] == pytest.approx(expected[0], abs=1e-6)
    assert [each["prediction"] for each in many] == pytest.approx(expected, abs=1e-6)
    assert (one["interval"], one["model"]) == (None, NAME)
    assert kept["revision"] == REVISION
    assert "onnxruntime" not in "".join(server.log)


def test_a_model_in_the_cache_is_loaded_offline_with_its_exact_revision(tmp_path, show):
    lay_out(tmp_path, NAME, {"kickserve.json": JSON})
    card = card_of(show())
    assert card["source"] == f"hf:{NAME}@{REVISION}"
    assert card["revision"] == REVISION


ALL = {
    "kickserve.json": JSON,
    "model.onnx": onnx(),
    "model.skops": skops.io.dumps(linear()),
    "model.pkl": cloudpickle.dumps(linear()),
}


@pytest.mark.parametrize(
    ("held", "kind"),
    [
        (["kickserve.json", "model.onnx", "model.skops", "model.pkl"], "linear"),
        (["model.onnx", "model.skops", "model.pkl"], "onnx"),
        (["model.skops", "model.pkl"], "sklearn-linear"),
        (["model.pkl"], "sklearn-linear"),
    ],
)
def test_what_is_safest_is_taken_first(tmp_path, show, held, kind):
    lay_out(tmp_path, NAME, {name: ALL[name] for name in held} | {"config.json": b"{}"})
    assert card_of(show(KICKSERVE_ALLOW_PICKLE="1"))["kind"] == kind


def test_a_file_by_another_name_is_taken_where_it_is_the_only_one_of_its_kind(tmp_path, show):
    lay_out(tmp_path, NAME, {"onnx/kicks.onnx": onnx()})
    assert card_of(show())["kind"] == "onnx"
    lay_out(tmp_path, NAME, {"more.onnx": onnx()})
    assert "holds more.onnx, onnx/kicks.onnx: download one" in refusal_of(show())


def test_a_branch_a_tag_and_a_commit_are_found_in_the_cache(tmp_path, show):
    lay_out(tmp_path, NAME, {"kickserve.json": JSON}, reference="v1")
    assert card_of(show(HF_REVISION="v1"))["revision"] == REVISION
    assert card_of(show(HF_REVISION=REVISION))["revision"] == REVISION
    assert f"{NAME} at main is not in this machine's cache" in refusal_of(show())


def test_a_pickle_alone_is_refused_unless_allowed(tmp_path, show):
    lay_out(tmp_path, NAME, {"model.pkl": b"junk"})
    assert "KICKSERVE_ALLOW_PICKLE=1" in refusal_of(show())


def test_a_repository_without_a_model_says_what_it_holds(tmp_path, show):
    lay_out(tmp_path, NAME, {"config.json": b"{}", "weights.bin": b""})
    assert "(kickserve.json, *.onnx, *.skops, *.pkl, *.pickle, *.joblib), but config.json" in refusal_of(
        show()
    )


def test_a_model_that_is_not_in_the_cache_says_what_to_do(show):
    assert "HF_HUB_OFFLINE" in refusal_of(show("someone/else"))


@pytest.mark.parametrize("name", ["a/b/c", "a b", "../.."])
def test_a_name_that_is_none_says_how_it_must_read(show, name):
    assert "owner/name" in refusal_of(show(name))


def test_offline_may_be_said_in_the_env_file(tmp_path):
    lay_out(tmp_path, NAME, {"kickserve.json": JSON})
    (tmp_path / ".env").write_text("HF_HUB_OFFLINE=1\n")
    with hub({"kickserve.json": JSON}) as server:
        surroundings = {"HF_HOME": str(tmp_path), "HF_REPO_ID": NAME, "HF_ENDPOINT": server.url}
        subprocess.run(
            [sys.executable, "-m", "kickserve", "model", "show"],
            env={**os.environ, **surroundings},
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
        assert server.asked == []


def test_a_model_is_downloaded_once_with_the_token_and_is_there_offline(show):
    with hub(published()) as server:
        card = card_of(show(HF_ENDPOINT=server.url, HF_HUB_OFFLINE="0", HF_TOKEN="hf_secret"))
        assert [path for path, _ in server.asked if path.endswith("model.onnx")] != []
        assert not any(path.endswith(".pkl") for path, _ in server.asked)
        assert {key for path, key in server.asked if NAME in path} == {"Bearer hf_secret"}
        server.asked.clear()
        assert card_of(show(HF_ENDPOINT=server.url)) == card
        assert not any(NAME in path for path, _ in server.asked)
    assert (card["kind"], card["revision"]) == ("onnx", REVISION)


def test_a_hub_that_is_away_is_no_matter_once_the_model_is_in_the_cache(tmp_path, show):
    lay_out(tmp_path, NAME, {"kickserve.json": JSON})
    finished = show(HF_ENDPOINT=closed_port(), HF_HUB_OFFLINE="0")
    assert card_of(finished)["revision"] == REVISION
    assert "is taken from the cache" in finished.stderr
    with hub({}, (503, None)) as server:
        assert card_of(show(HF_ENDPOINT=server.url, HF_HUB_OFFLINE="0"))["revision"] == REVISION


def test_no_network_and_nothing_in_the_cache_says_what_to_do(show):
    words = refusal_of(show(HF_ENDPOINT=closed_port(), HF_HUB_OFFLINE="0"))
    assert "is not in this machine's cache, and the hub can't be reached" in words


def test_a_hub_that_never_answers_is_given_up(show):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        words = refusal_of(show(HF_ENDPOINT=url, HF_HUB_OFFLINE="0", HF_HUB_ETAG_TIMEOUT="1"))
    assert "the hub can't be reached" in words


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "RepoNotFound", f"the hub has no {NAME}, or it is private: check HF_REPO_ID, or set HF_TOKEN"),
        (401, None, "Check HF_TOKEN: the hub does not know it"),
        (403, "GatedRepo", "asks for consent: accept its terms on the hub, and set HF_TOKEN"),
        (404, "RevisionNotFound", f"{NAME} has no revision main: check HF_REVISION"),
        (418, None, f"the hub did not hand out {NAME}: "),
    ],
)
def test_a_hub_that_refuses_is_understood(tmp_path, show, status, code, words):
    lay_out(tmp_path, NAME, {"kickserve.json": JSON})  # which is no answer to what the hub says for good
    with hub({}, (status, code)) as server:
        assert words in refusal_of(show(HF_ENDPOINT=server.url, HF_HUB_OFFLINE="0"))


def test_a_download_shows_its_progress_on_a_terminal_alone(show):
    with hub(published()) as server:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        finished = show(HF_ENDPOINT=server.url, HF_HUB_OFFLINE="0", stderr=theirs)
        os.close(theirs)
        drawn = os.read(ours, 100_000).decode()
        os.close(ours)
    assert json.loads(finished.stdout)["kind"] == "onnx"
    assert "model.onnx" in drawn


def test_a_download_into_a_file_shows_nothing(show):
    with hub(published()) as server:
        assert show(HF_ENDPOINT=server.url, HF_HUB_OFFLINE="0").stderr == ""
