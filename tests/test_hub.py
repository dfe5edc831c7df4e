"""Models from the hub and to it: with a cache that the test lays out, or a hub on this machine."""

from __future__ import annotations

import json
import logging
import socket
from importlib.resources import files

import cloudpickle
import httpx
import pytest
import skops.io
import yaml
from hub import hub
from kinds import FRESH, REVISION, lay_out, linear, onnx, onnx_says, published
from serving import BARE, serving

from kickserve.cli import run
from kickserve.features import named

NAME = "XavierCoulon/rugby-kicks-model"
JSON = files("kickserve").joinpath("default.json").read_bytes()


@pytest.fixture
def kickserve(tmp_path, monkeypatch, capsys):
    """Run `kickserve model`, with a cache in a folder of the test, and offline without a URL of a hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "handlers", [])  # of an earlier test's stderr

    def kickserve(*arguments, url="", **environment):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        with monkeypatch.context() as patch:
            for name, value in (environment if url else {"HF_HUB_OFFLINE": "1", **environment}).items():
                patch.setenv(name, value)
            code = run(["model", *map(str, arguments)])
        return code, *capsys.readouterr()

    return kickserve


@pytest.fixture
def show(kickserve):
    """Return the card of the model that `kickserve model show` finds in a repository."""

    def show(**environment):
        code, out, err = kickserve("show", "--json", **{"HF_REPO_ID": NAME, **environment})
        assert code == 0, err
        return json.loads(out)

    return show


@pytest.fixture
def refused(kickserve):
    """Return the one line with which `kickserve model show` refuses a repository."""

    def refused(**environment):
        code, _, err = kickserve("show", "--json", **{"HF_REPO_ID": NAME, **environment})
        assert code == 2
        assert len(err.splitlines()) == 1
        return err

    return refused


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


class TestServe:
    def test_the_published_model_is_served_offline_with_its_own_probabilities(self, tmp_path):
        lay_out(tmp_path, NAME, published())
        expected = onnx_says(onnx(), FRESH)
        environment = {"HF_HOME": str(tmp_path), "HF_REPO_ID": NAME, "HF_HUB_OFFLINE": "1"}
        with serving(tmp_path, **BARE, **environment) as server:
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


class TestCache:
    @pytest.mark.parametrize(
        ("held", "kind"),
        [
            (["kickserve.json", "model.onnx", "model.skops", "model.pkl"], "linear"),
            (["model.onnx", "model.skops", "model.pkl"], "onnx"),
            (["model.skops", "model.pkl"], "sklearn-linear"),
            (["model.pkl"], "sklearn-linear"),
        ],
    )
    def test_the_safest_kind_is_taken_first(self, tmp_path, show, held, kind):
        contents = {
            "kickserve.json": lambda: JSON,
            "model.onnx": onnx,
            "model.skops": lambda: skops.io.dumps(linear()),
            "model.pkl": lambda: cloudpickle.dumps(linear()),
        }
        lay_out(tmp_path, NAME, {name: contents[name]() for name in held} | {"config.json": b"{}"})
        card = show(KICKSERVE_ALLOW_PICKLE="1")
        assert (card["kind"], card["source"], card["revision"]) == (kind, f"hf:{NAME}@{REVISION}", REVISION)

    def test_a_file_by_another_name_is_taken_where_it_is_the_only_one_of_its_kind(
        self, tmp_path, show, refused
    ):
        lay_out(tmp_path, NAME, {"skops/kicks.skops": skops.io.dumps(linear())})
        assert show()["kind"] == "sklearn-linear"
        lay_out(tmp_path, NAME, {"more.skops": b""})
        assert "holds more.skops, skops/kicks.skops: download one" in refused()

    def test_a_branch_a_tag_and_a_commit_are_found(self, tmp_path, show, refused):
        lay_out(tmp_path, NAME, {"kickserve.json": JSON}, reference="v1")
        assert show(HF_REVISION="v1")["revision"] == REVISION
        assert show(HF_REVISION=REVISION)["revision"] == REVISION
        assert show(HF_REPO_ID="", KICKSERVE_MODEL=f"hf:{NAME}@v1")["revision"] == REVISION
        assert f"{NAME} at main is not in this machine's cache" in refused()
        assert f"{NAME} at main is not" in refused(HF_REPO_ID="", KICKSERVE_MODEL=f"hf:{NAME}")

    def test_a_pickle_alone_is_refused_unless_allowed(self, tmp_path, refused):
        lay_out(tmp_path, NAME, {"model.pkl": b"junk"})
        assert "KICKSERVE_ALLOW_PICKLE=1" in refused()

    def test_a_repository_without_a_model_says_what_it_holds(self, tmp_path, refused):
        lay_out(tmp_path, NAME, {"config.json": b"{}", "weights.bin": b""})
        known = "(kickserve.json, *.onnx, *.skops, *.pkl, *.pickle, *.joblib)"
        assert f"{known}, but config.json" in refused()

    @pytest.mark.parametrize("name", ["a/b/c", "a b", "../.."])
    def test_a_broken_name_says_how_it_must_read(self, refused, kickserve, name):
        assert "owner/name" in refused(HF_REPO_ID=name)
        assert "owner/name" in kickserve("publish", name, "--file", "mine.json")[2]

    def test_offline_may_be_set_in_the_env_file(self, tmp_path, show):
        lay_out(tmp_path, NAME, {"kickserve.json": JSON})
        (tmp_path / ".env").write_text("HF_HUB_OFFLINE=1\n")
        with hub({"kickserve.json": JSON}) as server:
            show(url=server.url)
            assert server.asked == []


class TestDownload:
    def test_a_model_is_downloaded_once_with_the_token_and_is_there_offline(self, kickserve, show):
        with hub({**published(), "model.skops": skops.io.dumps(linear()), "model.onnx": onnx()}) as server:
            _, out, err = kickserve("show", "--json", url=server.url, HF_REPO_ID=NAME, HF_TOKEN="hf_secret")
            card = json.loads(out)
            assert [path for path, _ in server.asked if path.endswith("model.onnx")] != []
            assert not any(path.endswith((".pkl", ".skops")) for path, _ in server.asked)
            assert {key for path, key in server.asked if NAME in path} == {"Bearer hf_secret"}
            server.asked.clear()
            assert show() == card
            assert server.asked == []
        assert (card["kind"], card["revision"]) == ("onnx", REVISION)
        assert err == ""  # progress is drawn on a terminal alone

    def test_a_hub_that_is_away_is_no_matter_once_the_model_is_in_the_cache(self, tmp_path, show, caplog):
        lay_out(tmp_path, NAME, {"kickserve.json": JSON})
        assert show(url=closed_port())["revision"] == REVISION
        assert "is taken from the cache" in caplog.text
        with hub({}, (503, None)) as server:
            assert show(url=server.url)["revision"] == REVISION

    def test_a_cache_that_can_not_be_written_serves_what_it_holds(self, tmp_path, show, caplog):
        lay_out(tmp_path, NAME, {"kickserve.json": JSON})
        (tmp_path / "hub" / f"models--{NAME.replace('/', '--')}" / "blobs").write_bytes(b"in the way")
        with hub({"kickserve.json": JSON + b" "}, commit="f" * 40) as server:  # a newer commit
            assert show(url=server.url)["revision"] == REVISION
        assert "the cache can't be written" in caplog.text

    def test_no_hub_and_nothing_in_the_cache_says_what_to_do(self, refused, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 1)
        assert "HF_HUB_OFFLINE" in refused()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            for url in (closed_port(), f"http://127.0.0.1:{silent.getsockname()[1]}"):
                words = refused(url=url)
                assert "is not in this machine's cache, and the hub can't be reached" in words

    @pytest.mark.parametrize(
        ("status", "code", "words"),
        [
            (404, "RepoNotFound", f"the hub has no {NAME}, or it is private: check HF_REPO_ID, or set"),
            (401, None, "Check HF_TOKEN: the hub does not accept the token"),
            (403, "GatedRepo", "asks for consent: accept its terms on the hub, and set HF_TOKEN"),
            (404, "RevisionNotFound", f"{NAME} has no revision main: check HF_REVISION"),
            (418, None, f"the hub refused {NAME}: "),
        ],
    )
    def test_a_hub_that_refuses_is_understood(self, tmp_path, refused, status, code, words):
        lay_out(tmp_path, NAME, {"kickserve.json": JSON})  # the cache does not stand in for such answers
        with hub({}, (status, code)) as server:
            assert words in refused(url=server.url)


class TestPublish:
    @pytest.fixture
    def publish(self, kickserve, tmp_path):
        path = tmp_path / "mine.json"
        path.write_bytes(JSON)

        def publish(*arguments, file=path, name="me/kicks", **environment):
            return kickserve("publish", name, "--file", file, *arguments, **environment)

        return publish

    def test_without_upload_it_is_only_shown(self, publish):
        with hub({}) as server:
            code, out, err = publish(url=server.url)
        assert (code, server.asked) == (0, [])
        assert "kickserve.json" in out
        assert "Trained on simulated kicks, not on recorded ones." in out
        assert "effects of game_away, time_norm, has_previous_attempts, wind_speed" in out
        assert "Nothing was uploaded" in err

    def test_a_published_model_is_served_from_the_hub(self, publish, show):
        with hub({}) as server:
            environment = {"url": server.url, "HF_TOKEN": "hf_secret"}
            code, out, err = publish("--license", "mit", "--upload", "--json", **environment)
            assert code == 0, err
            summary = json.loads(out)
            assert (summary["uploaded"], summary["commit"]) == (True, REVISION)
            assert server.created.get("private") is True or server.created.get("visibility") == "private"
            keys = {key for path, key in server.asked if "me/kicks" in path or path == "/api/repos/create"}
            assert keys == {"Bearer hf_secret"}
            assert server.files["kickserve.json"] == JSON
            card = show(HF_REPO_ID="me/kicks", **environment)
            assert (card["name"], card["revision"]) == ("simulated", REVISION)
        head = yaml.safe_load(server.files["README.md"].decode().split("---\n")[1])
        assert (head["library_name"], head["license"]) == ("kickserve", "mit")
        scores = {each["type"]: each["value"] for each in head["model-index"][0]["results"][0]["metrics"]}
        assert scores["brier_score"] == round(json.loads(JSON)["metrics"]["brier"], 4)

    def test_another_kind_of_file_gets_the_name_that_is_looked_for_first(self, publish, tmp_path):
        (tmp_path / "kicks.skops").write_bytes(skops.io.dumps(linear()))
        with hub({}) as server:
            code, out, err = publish("--public", "--upload", file="kicks.skops", url=server.url)
        assert code == 0, err
        assert "public" in out
        assert set(server.files) == {"model.skops", "README.md"}
        assert "does not tell on which kicks it was trained" in server.files["README.md"].decode()

    @pytest.mark.parametrize("bins", ["many", [[1, 2]], [["a", "b", "c"]], {"a": 1}, 7])
    def test_metrics_of_another_shape_are_left_out_of_the_card(self, publish, tmp_path, bins):
        document = json.loads(JSON)
        document["metrics"] |= {"reliability": bins, "brier_se": "small"}
        (tmp_path / "odd.json").write_text(json.dumps(document))
        code, out, err = publish(file="odd.json")
        assert code == 0, err
        assert "| Brier score (0 is best) | 0.1" in out
        assert "share that succeeded |" not in out

    def test_a_pickle_is_not_published(self, publish, tmp_path):
        (tmp_path / "kicks.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
        code, _, err = publish("--upload", file="kicks.pkl", KICKSERVE_ALLOW_PICKLE="1")
        assert code == 2
        assert "only JSON, ONNX and skops run no code" in err
        assert not (tmp_path / "ran").exists()

    def test_the_model_must_be_named(self, kickserve):
        code, _, err = kickserve("publish", "me/kicks")
        assert code == 2
        assert "--file model.json, or in KICKSERVE_MODEL" in err

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (401, "set HF_TOKEN to a token that may write there"),
            (403, "set HF_TOKEN to a token that may write there"),
            (400, "the hub did not take me/kicks"),
        ],
    )
    def test_a_hub_that_refuses_is_understood(self, publish, status, words):
        with hub({}, (status, None)) as server:
            code, _, err = publish("--upload", url=server.url)
        assert code == 1
        assert words in err
        assert len(err.splitlines()) == 1

    def test_a_hub_that_is_away_says_that_nothing_was_published(self, publish):
        code, _, err = publish("--upload", url=closed_port())
        assert code == 1
        assert "nothing was published" in err
        code, _, err = publish("--upload")
        assert code == 1
        assert "HF_HUB_OFFLINE is set: unset it to publish" in err
