"""A model that never answers is given up: the service goes on, says so, and ends when it is told to."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from conftest import configured
from kinds import hanging_onnx, load
from serving import BARE, eventually, serving

from kickserve.cli import run
from kickserve.errors import ModelUnusable
from kickserve.linear import load_default
from kickserve.model import Answer
from kickserve_shadow import ShadowPlugin

DEFAULT = load_default()
LIMIT = "0.3"  # seconds
TIMEOUT = f"the model did not answer within {LIMIT} s"


class Hanging:
    """Hangs on kicks from 95 m, until its gate opens; says 0.5 of all others."""

    def __init__(self):
        self.card, self.warnings, self.out_of_domain = DEFAULT.card, DEFAULT.warnings, DEFAULT.out_of_domain
        self.gate, self.cancelled = threading.Event(), 0

    def predict(self, matrix):
        if (matrix[:, 1] == 95).any():
            self.gate.wait(60)
        return Answer(np.full(len(matrix), 0.5), None, None)

    def cancel(self):
        self.cancelled += 1


@pytest.fixture
def hanging():
    model = Hanging()
    yield model
    model.gate.set()


async def post(client, kick, distance, path="/predict"):
    kick = {**kick, "distance": distance}
    return await client.post(path, json=[kick, kick] if "batch" in path else kick)


async def parts(client):
    return (await client.get("/health")).json()["parts"]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/explain"])
async def test_who_waits_gets_503_and_the_next_are_answered(start, settings, kick, hanging, path):
    client = await start(configured(settings, KICKSERVE_MODEL_TIMEOUT=LIMIT), model=hanging)
    waiting = asyncio.create_task(post(client, kick, 95, path))
    await eventually(lambda: client.get("/health/live"))
    response = await waiting
    assert response.status_code == 503
    assert response.json()["detail"] == TIMEOUT
    assert response.headers["retry-after"]
    assert hanging.cancelled == 1
    assert (await post(client, kick, 30, path)).status_code == 200
    assert (await parts(client))["model"] == f"{TIMEOUT} (1 calls of it go on, each in a thread)"
    assert (await client.get("/health/ready")).status_code == 200
    if path != "/explain":
        failed = {each["status_code"]: each["error"] for each in (await client.get("/predictions")).json()}
        assert failed == {200: None, 503: TIMEOUT}


async def test_with_too_many_calls_that_hang_none_is_made_until_one_ends(start, settings, kick, hanging):
    client = await start(configured(settings, KICKSERVE_MODEL_TIMEOUT=LIMIT), model=hanging)
    for _ in range(3):
        assert (await post(client, kick, 95)).status_code == 503
    assert (await post(client, kick, 30)).status_code == 503
    response = await client.get("/health/ready")
    assert (response.status_code, response.json()["parts"]["model"][: len(TIMEOUT)]) == (503, TIMEOUT)
    hanging.gate.set()
    await eventually(lambda: client.app.predictor.current.works)
    assert (await post(client, kick, 30)).status_code == 200


async def test_a_shadow_that_hangs_costs_its_own_predictions_alone(start, settings, kick, hanging):
    settings = configured(settings, KICKSERVE_MODEL_TIMEOUT=LIMIT, KICKSERVE_SHADOW="default")
    client = await start(settings)
    client.app.plugins.get(ShadowPlugin).model = hanging
    assert (await post(client, kick, 95)).status_code == 200
    [record] = (await client.get("/predictions")).json()
    assert (record["distance"], record["shadow_prediction"]) == (95, None)
    assert "predictions are stored without the second model" in (await parts(client))["shadow"]
    assert (await post(client, kick, 30)).status_code == 200
    record, _ = (await client.get("/predictions")).json()
    assert record["shadow_prediction"] == 0.5
    assert (await parts(client))["shadow"].startswith("the model did not answer within 0.15 s")


async def test_a_model_that_hangs_on_every_kick_is_not_put_in_place(start, settings, kick, hanging):
    models = [Hanging(), hanging]
    hanging.predict = lambda _: hanging.gate.wait(60)
    client = await start(configured(settings, KICKSERVE_MODEL_TIMEOUT=LIMIT), model=models[0])
    client.app.predictor._load = lambda: hanging
    response = await client.post("/model/reload")
    assert response.status_code == 409
    assert "hangs on a usual kick" in response.json()["detail"]
    assert (await post(client, kick, 30)).status_code == 200


class TestOnnx:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "hang.onnx"
        path.write_bytes(hanging_onnx())
        return path

    @pytest.mark.parametrize("role", ["model", "shadow"])
    def test_a_server_goes_on_ends_and_starts_again(self, tmp_path, kick, file, role):
        environment = {**BARE, "KICKSERVE_MODEL_TIMEOUT": "1", f"KICKSERVE_{role.upper()}": str(file)}
        hang = {**kick, "distance": 95}
        with serving(tmp_path, **environment) as server:
            status = httpx.post(f"{server.url}/predict", json=hang, timeout=60).status_code
            assert status == (503 if role == "model" else 200)
            httpx.get(f"{server.url}/predictions", timeout=60)  # waits for the shadow
            assert httpx.post(f"{server.url}/predict", json=kick).status_code == 200
            found = httpx.get(f"{server.url}/health").json()["parts"][role]
            assert found.startswith("the model did not answer")
            httpx.get(f"{server.url}/predictions")
            body = json.dumps(hang)
            with socket.create_connection(("127.0.0.1", urlsplit(server.url).port)) as waiting:
                head = f"POST /api/v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
                waiting.sendall(f"{head}{body}".encode())
                assert httpx.get(f"{server.url}/health/live").status_code == 200
                assert server.end() == 0
        with serving(tmp_path, **environment) as server:
            records = httpx.get(f"{server.url}/predictions", timeout=60).json()
            hung = [each["distance"] == 95 for each in records]
            answer = "prediction" if role == "model" else "shadow_prediction"
            assert [each[answer] is None for each in records] == hung == [True, False, True]
            assert server.end() == 0

    def test_its_trial_ends(self, tmp_path, capsys, monkeypatch, file):
        data = file.read_bytes().replace(np.float32(99).tobytes(), np.float32(101).tobytes())
        (tmp_path / "always.onnx").write_bytes(data)  # the longest kick, on which each model is tried, hangs
        monkeypatch.setenv("KICKSERVE_MODEL_TIMEOUT", LIMIT)
        assert run(["model", "check", "always.onnx"]) == 2
        assert "tried on a few kicks, it did not end within 0.3 s" in capsys.readouterr().err
        with pytest.raises(ModelUnusable, match="raise KICKSERVE_MODEL_TIMEOUT"):
            load(tmp_path / "always.onnx", KICKSERVE_MODEL_TIMEOUT=LIMIT)
