"""Models change while the service runs, the shadow with them: on request, by signal, in all workers."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from dataclasses import replace
from importlib.resources import files

import httpx
import numpy as np
import pytest
from conftest import configured
from kinds import REVISION, lay_out
from serving import BARE, eventually, serving, until

from kickserve.errors import MissingExtra, ModelUnusable
from kickserve.features import COUNT
from kickserve.linear import load_default
from kickserve.model import Answer
from kickserve.plugins import Plugin, discover
from kickserve.record import numbers_of
from kickserve.settings import Settings
from kickserve_scores.quality import assess
from kickserve_shadow import ShadowPlugin
from kickserve_testing.contract_samples import batch_at

DOCUMENT = json.loads(files("kickserve").joinpath("default.json").read_bytes())
DEFAULT = load_default()


def write(path, name, shift=0.0):
    """Write a model that is sure of more, or less, by a shift of its log-odds."""
    coefficients = [*DOCUMENT["coefficients"]]
    coefficients[DOCUMENT["terms"].index("intercept")] += shift
    path.write_text(json.dumps({**DOCUMENT, "name": name, "revision": "", "coefficients": coefficients}))


class Other:
    """The opposite of the packaged model; it may take its time, wait at a gate, or fail."""

    def __init__(self, seconds=0.0):
        self.card, self.warnings, self.out_of_domain = DEFAULT.card, DEFAULT.warnings, DEFAULT.out_of_domain
        self.seconds, self.calls, self.broken = seconds, 0, False
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, matrix):
        self.calls += 1
        time.sleep(self.seconds)
        self.gate.wait(60)
        if self.broken:
            raise RuntimeError("no mood")
        return Answer(1 - DEFAULT.predict(matrix).probability, None, None)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.json"
    write(path, "before")
    return path


@pytest.fixture
async def client(start, settings, file):
    return await start(replace(settings, model=file))


async def predict(client, kick):
    return (await client.post("/predict", json=kick)).json()


class TestOnRequest:
    async def test_the_next_request_is_answered_by_the_new_model(self, client, kick, file):
        before = await predict(client, kick)
        write(file, "after", shift=1.0)
        response = await client.post("/model/reload")
        assert response.status_code == 200
        assert response.json()["name"] == "after"
        after = await predict(client, kick)
        assert (before["model"], after["model"]) == ("before", "after")
        assert after["prediction"] > before["prediction"] + 0.05
        record = (await client.get(f"/predictions/{after['id']}")).json()
        assert record["revision"] == (await client.get("/model")).json()["revision"]

    @pytest.mark.parametrize("content", ["", "{}", '{"format": "kickserve/linear", "version": 99}', None])
    async def test_without_a_good_file_the_model_before_stays(self, client, kick, file, content):
        file.unlink()
        if content is not None:
            file.write_text(content)
        response = await client.post("/model/reload")
        assert response.status_code == 409
        assert str(file) in response.json()["detail"]
        assert (await predict(client, kick))["model"] == "before"

    @pytest.mark.parametrize("second", [False, True])
    async def test_a_missing_extra_is_409_too(self, start, settings, kick, file, second):
        class Loading(Plugin):
            ready = True

            def load_model(self, file):  # noqa: ARG002
                if not self.ready:
                    raise MissingExtra("An ONNX model", "onnx", ["onnxruntime"])
                return load_default()

        file = file.rename(file.with_suffix(".other"))
        settings = (
            configured(settings, KICKSERVE_SHADOW=str(file)) if second else replace(settings, model=file)
        )
        loading = Loading(settings)
        client = await start(settings, plugins=[loading, *discover(settings)])
        loading.ready = False
        response = await client.post("/model/reload")
        assert response.status_code == 409
        assert "kickserve[onnx]" in response.json()["detail"]
        assert (await predict(client, kick))["model"] == "simulated"

    async def test_requests_meanwhile_are_answered_and_recorded_by_one_of_the_two(self, client, kick, file):
        answers, ended = [], asyncio.Event()

        async def ask():
            while not ended.is_set():
                answers.append(await predict(client, kick))
                await asyncio.sleep(0)  # without a socket nothing else makes it wait

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        for name in ("one", "two", "three"):
            write(file, name)
            assert (await client.post("/model/reload")).status_code == 200
        ended.set()
        await asyncio.gather(*asking)
        kept = {record["id"]: record for record in (await client.get("/predictions?limit=10000")).json()}
        assert {each["model"] for each in answers} <= {"before", "one", "two", "three"}
        assert all(kept[each["id"]]["model"] == each["model"] for each in answers)
        assert sorted(each["id"] for each in answers) == sorted(kept)

    @pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/explain"])
    async def test_a_slow_model_answers_what_it_was_asked_and_its_thread_ends(
        self, start, settings, kick, path
    ):
        def threads():
            return sum(thread.name.startswith("model") for thread in threading.enumerate())

        slow, before = Other(seconds=0.005), threads()
        client = await start(settings, model=slow)
        client.app.predictor.current.chunk = 10
        calls = slow.calls
        asked = asyncio.create_task(client.post(path, json=[kick] * 30 if "batch" in path else kick))
        await eventually(lambda: slow.calls > calls)
        assert (await client.post("/model/reload")).status_code == 200
        assert (await asked).status_code == 200
        await predict(client, kick)
        await eventually(lambda: threads() <= before + 1)


class TestServer:
    @pytest.mark.parametrize(("workers", "way"), [(1, "signal"), (2, "request"), (2, "signal")])
    def test_all_workers_change_and_no_request_under_load_fails(self, tmp_path, kick, file, workers, way):
        with serving(tmp_path, **BARE, KICKSERVE_MODEL=str(file), KICKSERVE_WORKERS=str(workers)) as server:
            failures, answered, ended = [], [], threading.Event()

            def ask():
                with httpx.Client(timeout=60) as client:
                    while not ended.is_set():
                        response = client.post(f"{server.url}/predict", json=kick)
                        (answered if response.status_code == 200 else failures).append(response.text)

            def models():
                """Ask on many connections, so that all workers answer."""
                return {httpx.get(f"{server.url}/model").json()["name"] for _ in range(12 * workers)}

            asking = [threading.Thread(target=ask) for _ in range(4)]
            for thread in asking:
                thread.start()
            until(lambda: answered)
            write(file, "after")
            if way == "request":
                assert httpx.post(f"{server.url}/model/reload").json()["name"] == "after"
            else:
                server.process.send_signal(signal.SIGHUP)
            for _ in range(200):
                if models() == {"after"}:
                    break
            assert models() == {"after"}
            ended.set()
            for thread in asking:
                thread.join()
            assert failures == []
            assert server.end() == 0

    def test_a_signal_with_a_broken_file_is_logged_and_changes_nothing(self, tmp_path, kick, file):
        with serving(tmp_path, **BARE, KICKSERVE_MODEL=str(file)) as server:
            file.write_text("{")
            server.process.send_signal(signal.SIGHUP)
            for _ in range(5_000):
                if any("the current model stays" in line for line in server.log):
                    break
                assert httpx.post(f"{server.url}/predict", json=kick).json()["model"] == "before"
            assert any("the current model stays" in line for line in server.log)
            assert server.end() == 0


def shadow_in(client):
    return client.app.plugins.get(ShadowPlugin)


class TestShadow:
    @pytest.fixture
    async def shadowed(self, start, settings, file):
        write(file, "second", shift=1.0)
        return await start(configured(settings, KICKSERVE_SHADOW=str(file)))

    @pytest.fixture
    def plugin(self):
        plugin = ShadowPlugin(Settings())
        plugin.model = Other()
        return plugin

    async def test_each_batch_gets_its_own_predictions(self, plugin):
        failed = batch_at(999, status_code=500, error="no luck")
        batches = [failed, *(batch_at(1_000 + at, count) for at, count in enumerate((3, 1, 70)))]
        [unchanged, *found] = completed = await plugin.complete(batches)
        assert unchanged == failed
        for before, after in zip(batches[1:], found, strict=True):
            expected = 1 - DEFAULT.predict(numbers_of([before])[:, :COUNT]).probability
            assert np.array_equal(after.shadow.probability, expected)
            assert after.numbers == before.numbers
            assert [each.shadow_prediction for each in after.records()] == expected.tolist()
            assert after.find(before.records()[0].id).shadow_revision == DEFAULT.card.revision
        assert await plugin.complete(completed) == completed

    async def test_where_it_fails_predictions_are_kept_without_it_and_health_says_so(self, plugin, caplog):
        plugin.model.broken = True
        batches = [batch_at(1_000)]
        assert await plugin.complete(batches) == batches
        assert await plugin.complete(batches) == batches
        assert "no mood" in plugin.health()["shadow"]
        assert len(caplog.records) == 1
        plugin.model.broken = False
        [completed] = await plugin.complete(batches)
        assert completed.shadow is not None
        assert plugin.health() == {"shadow": "ok"}

    async def test_it_may_be_the_packaged_model_or_one_of_the_hub(
        self, start, settings, file, tmp_path, monkeypatch
    ):
        packaged = await start(configured(settings, KICKSERVE_SHADOW="default"))
        assert shadow_in(packaged).model.card == DEFAULT.card
        write(file, "second")
        lay_out(tmp_path, "me/kicks", {"kickserve.json": file.read_bytes()}, "next")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        variables = {"HF_HUB_OFFLINE": "1", "KICKSERVE_SHADOW": "hf:me/kicks@next"}
        offline = configured(settings, DATABASE_URL="sqlite://", **variables)
        card = shadow_in(await start(offline)).model.card
        assert (card.name, card.revision) == ("second", REVISION)

    async def test_one_that_is_not_there_is_named_at_the_start(self, start, settings):
        with pytest.raises(ModelUnusable, match=r"nowhere.json can't be used: the file does not exist"):
            await start(configured(settings, KICKSERVE_SHADOW="nowhere.json"))

    async def test_a_record_holds_both_answers(self, shadowed, kick):
        answer = await predict(shadowed, kick)
        record = (await shadowed.get(f"/predictions/{answer['id']}")).json()
        assert record["shadow_model"] == "second"
        assert record["shadow_prediction"] > record["prediction"] == answer["prediction"]
        assert (await shadowed.get("/health")).json()["parts"]["shadow"] == "ok"

    async def test_without_one_a_record_has_none(self, client, kick):
        answer = await predict(client, kick)
        record = (await client.get(f"/predictions/{answer['id']}")).json()
        assert record["shadow_model"] is record["shadow_revision"] is record["shadow_prediction"] is None
        assert "shadow" not in (await client.get("/health")).json()["parts"]

    async def test_quality_compares_the_two_on_the_same_kicks(self, shadowed, kick):
        kicks = [{**kick, "distance": 15 + at} for at in range(40)]
        answers = (await shadowed.post("/predict/batch", json=kicks)).json()
        success = [at % 4 != 0 for at in range(40)]
        outcomes = [{"id": each["id"], "success": won} for each, won in zip(answers, success, strict=True)]
        assert (await shadowed.put("/predictions/outcomes", json=outcomes)).status_code == 200
        records = (await shadowed.get("/predictions")).json()[::-1]
        [found] = (await shadowed.get("/quality")).json()["shadows"]
        assert (found["model"], found["shadow"]) == (DEFAULT.card.name, "second")
        first = assess([each["prediction"] for each in records], success).brier
        second = assess([each["shadow_prediction"] for each in records], success).brier
        assert found["quality"]["brier"] == pytest.approx(first)
        assert found["shadow_quality"]["brier"] == pytest.approx(second)
        assert found["brier_difference"] == pytest.approx(second - first)
        assert 0 < found["brier_difference_error"] < 0.1

    async def test_no_answer_waits_for_it(self, shadowed, kick):
        other = shadow_in(shadowed).model = Other()
        other.gate.clear()
        try:
            for _ in range(20):
                async with asyncio.timeout(60):
                    assert (await shadowed.post("/predict", json=kick)).status_code == 200
            await eventually(lambda: other.calls)
        finally:
            other.gate.set()
        records = (await shadowed.get("/predictions")).json()
        assert len(records) == 20
        assert all(each["shadow_prediction"] == pytest.approx(1 - each["prediction"]) for each in records)

    async def test_a_reload_changes_both_or_none(self, shadowed, kick, file):
        write(file, "third")
        assert (await shadowed.post("/model/reload")).status_code == 200
        answer = await predict(shadowed, kick)
        record = (await shadowed.get(f"/predictions/{answer['id']}")).json()
        assert record["shadow_model"] == "third"
        before = shadowed.app.predictor.current
        file.write_text("{}")
        assert (await shadowed.post("/model/reload")).status_code == 409
        assert shadowed.app.predictor.current is before
        assert shadow_in(shadowed).model.card.name == "third"
