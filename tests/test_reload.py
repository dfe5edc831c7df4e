"""The model is changed while the service runs: on request, by signal, in all workers; nobody is cut off."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from importlib.resources import files

import httpx
import pytest
from conftest import having
from serving import BARE, serving

from kickserve.errors import MissingExtra
from kickserve.linear import load_default
from kickserve.model import Answer
from kickserve.plugins import Plugin, discover

DEFAULT = json.loads((files("kickserve") / "default.json").read_bytes())


def write(path, name, shift=0.0):
    """Write a model that is sure of more, or less, by a shift of its log-odds."""
    at = DEFAULT["terms"].index("intercept")
    coefficients = [*DEFAULT["coefficients"]]
    coefficients[at] += shift
    path.write_text(json.dumps({**DEFAULT, "name": name, "revision": "", "coefficients": coefficients}))


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

    @pytest.mark.parametrize("content", ["", "{}", '{"format": "kickserve/linear", "version": 99}'])
    async def test_a_file_that_is_no_model_is_409_and_the_one_before_stays(self, client, kick, file, content):
        file.write_text(content)
        response = await client.post("/model/reload")
        assert response.status_code == 409
        assert str(file) in response.json()["detail"]
        assert (await predict(client, kick))["model"] == "before"

    async def test_a_file_that_is_gone_is_409_too(self, client, kick, file):
        file.unlink()
        assert (await client.post("/model/reload")).status_code == 409
        assert (await predict(client, kick))["model"] == "before"

    async def test_it_needs_the_key(self, start, settings, file):
        guarded = await start(replace(settings, model=file, api_key="sesame"))
        assert (await guarded.post("/model/reload")).status_code == 401

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


class Slow:
    """A model that takes its time, and so has a thread."""

    def __init__(self, good, seconds=0.005):
        self.card, self.warnings, self.out_of_domain = good.card, good.warnings, good.out_of_domain
        self.asked = 0
        self._good = good
        self._seconds = seconds

    def predict(self, matrix):
        self.asked += 1
        time.sleep(self._seconds)
        return Answer(self._good.predict(matrix).probability, None, None)


async def test_the_thread_of_a_slow_model_ends_when_all_that_waits_for_it_is_answered(
    client, start, settings, kick
):
    slow = Slow(client.app.predictor.model)
    other = await start(replace(settings, database_url="sqlite://"), model=slow)

    def threads():
        return sum(thread.name.startswith("model") for thread in threading.enumerate())

    asked = [asyncio.create_task(predict(other, kick)) for _ in range(20)]
    await asyncio.sleep(0.002)
    assert threads() == 1
    await other.post("/model/reload")
    assert all(0 < answer["prediction"] < 1 for answer in await asyncio.gather(*asked))
    await predict(other, kick)
    async with asyncio.timeout(5):
        while threads() > 1:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("path", ["/predict/batch", "/explain"])
async def test_a_call_that_asks_a_slow_model_in_parts_is_answered_though_it_changes_meanwhile(
    client, start, settings, kick, path
):
    slow = Slow(client.app.predictor.model, seconds=0.05)
    other = await start(replace(settings, database_url="sqlite://"), model=slow)
    other.app.predictor.current.chunk = 10
    before = slow.asked
    asked = asyncio.create_task(other.post(path, json=[kick] * 30 if "batch" in path else kick))
    while slow.asked == before:
        await asyncio.sleep(0.001)
    await other.post("/model/reload")
    assert (await asked).status_code == 200
    assert slow.asked > before + 1


@pytest.mark.parametrize("source", ["", "second"])
async def test_an_extra_that_is_missing_is_409_too(start, settings, kick, file, source):
    class Loading(Plugin):
        ready = True

        def load_model(self, file):  # noqa: ARG002
            if not self.ready:
                raise MissingExtra("An ONNX model", "onnx", ["onnxruntime"])
            return load_default()

    file = file.rename(file.with_suffix(".other"))
    settings = having(settings, shadow=str(file)) if source else replace(settings, model=file)
    loading = Loading(settings)
    client = await start(settings, plugins=[loading, *discover(settings)])
    loading.ready = False
    response = await client.post("/model/reload")
    assert response.status_code == 409
    assert "kickserve[onnx]" in response.json()["detail"]
    assert (await predict(client, kick))["model"] == "simulated"


def models_of(url, workers):
    """Ask on many connections, so that all workers answer."""
    return {httpx.get(f"{url}/model").json()["name"] for _ in range(12 * workers)}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("way", ["request", "signal"])
def test_all_workers_change_and_no_request_under_load_fails(tmp_path, kick, file, workers, way):
    with serving(tmp_path, **BARE, KICKSERVE_MODEL=str(file), KICKSERVE_WORKERS=str(workers)) as server:
        failures, answered, ended = [], [], threading.Event()

        def ask():
            with httpx.Client(timeout=20) as client:
                while not ended.is_set():
                    response = client.post(f"{server.url}/predict", json=kick)
                    (answered if response.status_code == 200 else failures).append(response.text)

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asking:
            thread.start()
        write(file, "after")
        if way == "request":
            assert httpx.post(f"{server.url}/model/reload").json()["name"] == "after"
        else:
            server.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            if models_of(server.url, workers) == {"after"}:
                break
            time.sleep(0.05)
        assert models_of(server.url, workers) == {"after"}
        ended.set()
        for thread in asking:
            thread.join()
        assert failures == []
        assert answered
        assert server.end() == 0


def test_a_signal_with_a_broken_file_is_logged_and_changes_nothing(tmp_path, kick, file):
    with serving(tmp_path, **BARE, KICKSERVE_MODEL=str(file)) as server:
        file.write_text("{")
        server.process.send_signal(signal.SIGHUP)
        with suppress(TimeoutError):
            for _ in range(100):
                if any("stays" in line for line in server.log):
                    break
                time.sleep(0.05)
        assert any("the one before stays" in line for line in server.log)
        assert httpx.post(f"{server.url}/predict", json=kick).json()["model"] == "before"
        assert server.end() == 0
