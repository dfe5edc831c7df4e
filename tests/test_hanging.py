"""A model that never answers is given up: the service goes on and says so, and commands end."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest
from conftest import configured
from kinds import hanging_onnx
from serving import eventually

from kickserve.cli import run
from kickserve.linear import load_default
from kickserve.model import Answer
from kickserve_shadow import ShadowPlugin

DEFAULT = load_default()
TIMEOUT = "the model did not answer within 10 s"


class Hanging:
    """Hangs on kicks from 95.5 m for hours of its clock, until its gate opens; says 0.5 of all others.

    The trial before it serves has whole metres.
    """

    def __init__(self):
        self.card, self.warnings, self.out_of_domain = DEFAULT.card, DEFAULT.warnings, DEFAULT.out_of_domain
        self.gate, self.now, self.cancelled, self.limit = threading.Event(), 0.0, 0, 60

    def monotonic(self):
        return self.now

    def predict(self, matrix):
        if (matrix[:, 1] == 95.5).any():
            self.now += 10_000
            self.gate.wait(60)
        return Answer(np.full(len(matrix), 0.5), None, None)

    def cancel(self):
        self.cancelled += 1


@pytest.fixture
def hanging(monkeypatch):
    model = Hanging()
    monkeypatch.setattr("kickserve.limited.time", model)  # so that nothing depends on how busy the machine is
    monkeypatch.setattr("kickserve.limited._LOOKS", 1_000)
    yield model
    model.gate.set()


async def post(client, kick, distance, path="/predict"):
    kick = {**kick, "distance": distance}
    return await client.post(path, json=[kick, kick] if "batch" in path else kick)


async def parts(client):
    return (await client.get("/health")).json()["parts"]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/explain"])
async def test_who_waits_gets_503_and_the_next_are_answered(start, settings, kick, hanging, path):
    client = await start(settings, model=hanging)
    waiting = asyncio.create_task(post(client, kick, 95.5, path))
    await eventually(lambda: client.get("/health/live"))
    response = await waiting
    assert response.status_code == 503
    assert response.json()["detail"] == TIMEOUT
    assert response.headers["retry-after"]
    assert hanging.cancelled == 1
    assert (await post(client, kick, 30, path)).status_code == 200
    assert (await parts(client))["model"] == f"{TIMEOUT} (calls that still run: 1)"
    assert (await client.get("/health/ready")).status_code == 200
    if path != "/explain":
        failed = {each["status_code"]: each["error"] for each in (await client.get("/predictions")).json()}
        assert failed == {200: None, 503: TIMEOUT}


async def test_with_too_many_calls_that_hang_none_is_made_until_one_ends(start, settings, kick, hanging):
    client = await start(settings, model=hanging)
    for _ in range(3):
        assert (await post(client, kick, 95.5)).status_code == 503
    assert (await post(client, kick, 30)).status_code == 503
    response = await client.get("/health/ready")
    assert (response.status_code, response.json()["parts"]["model"][: len(TIMEOUT)]) == (503, TIMEOUT)
    hanging.gate.set()
    await eventually(lambda: client.app.predictor.current.works)
    assert (await post(client, kick, 30)).status_code == 200


async def test_a_shadow_that_hangs_costs_its_own_predictions_alone(start, settings, kick, hanging):
    client = await start(configured(settings, KICKSERVE_SHADOW="default"))
    client.app.plugins.get(ShadowPlugin).model = hanging
    assert (await post(client, kick, 95.5)).status_code == 200
    [record] = (await client.get("/predictions")).json()
    assert (record["distance"], record["shadow_prediction"]) == (95.5, None)
    assert "predictions are stored without the second model" in (await parts(client))["shadow"]
    assert (await post(client, kick, 30)).status_code == 200
    record, _ = (await client.get("/predictions")).json()
    assert record["shadow_prediction"] == 0.5
    assert (await parts(client))["shadow"].startswith("the model did not answer within 5 s")


async def test_a_model_that_hangs_on_every_kick_is_not_put_in_place(start, settings, kick, hanging):
    client = await start(settings)
    client.app.predictor._settings = configured(settings, KICKSERVE_MODEL_TIMEOUT="0.1")
    client.app.predictor._load = lambda: hanging
    hanging.predict = lambda _: hanging.gate.wait(60)
    response = await client.post("/model/reload")
    assert response.status_code == 409
    assert "hangs on a usual kick" in response.json()["detail"]
    assert (await post(client, kick, 30)).status_code == 200


def test_the_trial_of_an_onnx_model_ends(tmp_path, capsys, monkeypatch):
    # The longest kick, on which each model is tried, hangs too. `just chaos drills` has the rest.
    data = hanging_onnx().replace(np.float32(99).tobytes(), np.float32(101).tobytes())
    (tmp_path / "always.onnx").write_bytes(data)
    monkeypatch.setenv("KICKSERVE_MODEL_TIMEOUT", "0.3")
    assert run(["model", "check", "always.onnx"]) == 2
    assert "it did not end within 0.3 s: mend the model, or raise" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    ["model check hang.onnx --data kicks.ndjson", "batch kicks.ndjson", "predict --distance 95 --angle 0"],
)
def test_a_command_ends(tmp_path, capsys, monkeypatch, kick, command):
    (tmp_path / "hang.onnx").write_bytes(hanging_onnx())
    (tmp_path / "kicks.ndjson").write_text(json.dumps({**kick, "distance": 95, "success": 1}))
    monkeypatch.setattr("kickserve_models._MANY", 0.1)  # a tenth of what its trial may take
    if "check" not in command:
        monkeypatch.setenv("KICKSERVE_MODEL", "hang.onnx")
    assert run(command.split()) == 1
    assert "the model hang hangs, it did not end within 1 s" in capsys.readouterr().err
