"""One contract for every way to a prediction: the lane, the router, batches, NDJSON and the V2 protocol."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

import msgspec
import numpy as np
import pytest
from conftest import configured

from kickserve.features import NAMES
from kickserve.learner import Learner
from kickserve.linear import load_default
from kickserve.openapi import NDJSON
from kickserve.plugins import NOTHING_LEARNED, Plugin, discover, encode_learned
from kickserve.schemas import Learned, LearnedKicker

MODEL = load_default()


class Way:
    """A way to the prediction of one kick, as `status, answer or problem` of `/predict`."""

    fastlane = "1"

    async def predict(self, client, kick):
        response = await client.post("/predict", json=kick)
        return response.status_code, response.json(), response.headers


class Router(Way):
    fastlane = "0"


class Batch(Way):
    async def predict(self, client, kick):
        response = await client.post("/predict/batch", json=[kick])
        answer = response.json()
        return response.status_code, answer[0] if isinstance(answer, list) else answer, response.headers


class Lines(Way):
    """A stream begins with 200; each line has an answer or a problem of its own."""

    async def predict(self, client, kick):
        headers = {"content-type": NDJSON, "accept": NDJSON}
        response = await client.post("/predict/batch", content=json.dumps(kick), headers=headers)
        answer = response.json()
        return answer.get("status", 200), answer, {"retry-after": "no head is left to put it in"}


class V2(Way):
    async def predict(self, client, kick):
        tensor = {"name": "kicks", "shape": [1, 11], "datatype": "FP64"}
        inputs = [{**tensor, "data": [float(kick[name]) for name in NAMES]}]
        if "kicker" in kick:
            inputs.append({"name": "kicker", "shape": [1], "datatype": "BYTES", "data": [kick["kicker"]]})
        response = await client.post("http://test/v2/models/kickserve/infer", json={"inputs": inputs})
        answer = response.json()
        if response.status_code == 200:
            answer = {"model": answer["model_name"], **{x["name"]: x["data"][0] for x in answer["outputs"]}}
            answer["interval"] = [answer["low"], answer["high"]]
            answer["warnings"] = [text for text in answer["warnings"].split("; ") if text]
        return response.status_code, answer, response.headers


@pytest.fixture(params=[Way, Router, Batch, Lines, V2], ids=["lane", "router", "batch", "lines", "v2"])
def way(request):
    return request.param()


@pytest.fixture
def settings(settings, way):
    variables = {"KICKSERVE_PLUGINS": "storage, oip", "KICKSERVE_LEARN": "off"}
    return configured(settings, **variables, KICKSERVE_FASTLANE=way.fastlane)


@pytest.mark.parametrize("changes", [{}, {"distance": 20, "is_start": True}, {"distance": 75, "angle": 5}])
async def test_the_answer_is_the_models_and_is_kept_before_it_leaves(client, way, kick, changes):
    sent = {**kick, **changes}
    status, answer, _ = await way.predict(client, sent)
    assert status == 200
    row = [float(sent[name]) for name in NAMES]
    [[p], [low], [high]] = MODEL.predict(np.array([row]))
    assert answer["prediction"] == p, "to the bit, as by every way"
    assert answer["interval"] == [low, high]
    assert answer["confidence"] == max(answer["prediction"], 1 - answer["prediction"])
    assert answer["model"] == "simulated"
    assert answer.get("warnings", []) == (["distance beyond 60 m"] if changes.get("distance") == 75 else [])
    record = (await client.get(f"/predictions/{answer['id']}")).json()
    assert {name: record[name] for name in NAMES} == sent
    assert [record[name] for name in ("kicker", "source", "base", "learned")] == [None, "api", None, None]
    for name in ("id", "prediction", "confidence", "interval", "model"):
        assert record[name] == answer[name]
    assert record["status_code"] == 200
    assert record["revision"] == MODEL.card.revision
    assert record["latency_ms"] > 0
    assert record["memory_mb"] > 0
    assert datetime.fromisoformat(record["created_at"]).utcoffset().total_seconds() == 0


async def test_a_kick_that_can_not_be_is_the_clients_error_and_leaves_nothing(client, way, kick):
    status, problem, _ = await way.predict(client, {**kick, "distance": 500, "game_away": 2})
    assert status == (400 if isinstance(way, V2) else 422)
    assert "must be a number from 2 to 100 m" in problem["detail"]
    assert [each["field"] for each in problem["errors"]] == ["distance", "game_away"]
    assert [each["value"] for each in problem["errors"]] == [500, 2]
    assert (await client.get("/predictions")).json() == []


@pytest.mark.parametrize(
    ("label", "stored"), [(" Le\u0301o O'Hara ", "Léo O'Hara"), ("x" * 64, "x" * 64), (None, None)]
)
async def test_the_label_of_a_kicker_is_kept_in_one_spelling(client, way, kick, label, stored):
    status, answer, _ = await way.predict(client, {**kick, "kicker": label})
    assert (status, "kicker" in answer, "learned" in answer) == (200, False, False)
    assert (await client.get(f"/predictions/{answer['id']}")).json()["kicker"] == stored


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        ("x" * 65, "must be a text of 1 to 64 characters, and has 65"),
        (" \t", "must not be blank: leave it out, or send null, for an unnamed kicker"),
        ("a\nb", "must be a text of 1 to 64 characters without control characters, such as line breaks"),
        (10, 'must be a text of 1 to 64 characters, or null for an unnamed kicker, not a number: write "10"'),
    ],
)
async def test_what_can_be_no_label_is_refused_with_the_reason(client, way, kick, label, fault):
    status, problem, _ = await way.predict(client, {**kick, "kicker": label})
    if isinstance(way, V2):
        assert status == 400
        assert (fault if isinstance(label, str) else "'kicker': its data must be texts") in problem["error"]
    else:
        assert status == 422
        [error] = problem["errors"]
        assert (error["field"], error["detail"], error["value"]) == ("kicker", fault, label)
    assert (await client.get("/predictions")).json() == []


class Doubt(Learner):
    """Answers a half for kickers that it knows."""

    def adjust(self, revision, score, kicker):  # noqa: ARG002 - as a learner is called
        assert revision == MODEL.card.revision
        named = LearnedKicker(name=kicker, outcomes=3, ability=0.5, low=0.25, high=0.75)
        learned = encode_learned(Learned(level=0.0, kicker=named))
        return ((0.5, 0.25, 0.75), learned) if kicker == "known" else None

    def adjust_many(self, revision, scores, kickers):
        rows, learned = scores.copy(), [NOTHING_LEARNED] * len(kickers)
        for at, kicker in enumerate(kickers):
            if found := self.adjust(revision, None, kicker):
                rows[at], learned[at] = found
        return rows, learned


class Learning(Plugin):
    def create_learner(self):
        return Doubt()


async def test_what_was_learned_is_in_the_answer_and_the_models_own_beside_it(start, settings, way, kick):
    client = await start(settings, plugins=[*discover(settings), Learning(settings)])
    _, plain, _ = await way.predict(client, kick)
    for name in ("known", "unknown"):
        status, answer, _ = await way.predict(client, {**kick, "kicker": name})
        record = (await client.get(f"/predictions/{answer['id']}")).json()
        assert (status, answer["prediction"], answer["interval"]) == (
            (200, 0.5, [0.25, 0.75]) if name == "known" else (200, plain["prediction"], plain["interval"])
        )
        kicker = {"name": "known", "outcomes": 3, "ability": 0.5, "from": 0.25, "to": 0.75}
        learned = (plain["prediction"], {"level": 0.0, "kicker": kicker}) if name == "known" else (None, None)
        assert (record["base"], record["learned"]) == learned
        assert [record[each] for each in ("prediction", "kicker")] == [answer["prediction"], name]
        if not isinstance(way, V2):
            assert (answer.get("base"), answer.get("learned")) == learned


class Failing:
    """The packaged model, but its answers are none."""

    def __init__(self, answers):
        self.card, self.warnings, self.out_of_domain = MODEL.card, MODEL.warnings, MODEL.out_of_domain
        self._answers = answers

    def predict(self, rows):
        if self._answers is None:
            raise RuntimeError("no luck: the secret")
        return MODEL.predict(rows)._replace(probability=np.array(self._answers))


@pytest.mark.parametrize("answers", [None, [1.5], [np.nan], []], ids=["raises", "beyond 1", "NaN", "too few"])
async def test_a_model_that_fails_is_500_and_the_attempt_is_kept(start, settings, way, kick, answers):
    client = await start(settings, model=Failing(answers))
    status, problem, _ = await way.predict(client, kick)
    assert status == 500
    assert problem["title"] == "Prediction failed"
    assert "secret" not in msgspec.json.encode(problem).decode()
    [record] = (await client.get("/predictions")).json()
    assert (record["status_code"], record["prediction"]) == (500, None)
    assert record["error"]


async def test_a_full_journal_is_503_with_when_to_come_again(start, settings, way, kick):
    client = await start(replace(settings, journal_max=1))
    status, problem, headers = await way.predict(client, kick)
    assert status == 503
    assert problem["title"] == "Too many predictions wait to be stored"
    assert headers["retry-after"]


async def test_without_the_key_nothing_is_predicted(start, settings, way, kick):
    client = await start(configured(settings, API_KEY="sesame"))
    status, problem, _ = await way.predict(client, kick)
    assert status == 401
    assert "X-API-Key" in problem["detail"]
    client.headers["X-API-Key"] = "sesame"
    assert (await way.predict(client, kick))[0] == 200
