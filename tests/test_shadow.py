"""A second model that is asked as well: its answers are kept and compared, and nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest
from conftest import having
from kinds import REVISION, lay_out
from test_reload import write

from kickserve.errors import ModelUnusable
from kickserve.features import COUNT
from kickserve.linear import load_default
from kickserve.model import Answer
from kickserve.record import numbers_of
from kickserve.settings import Settings
from kickserve_scores.quality import assess
from kickserve_shadow import ShadowPlugin
from kickserve_testing.contract_samples import batch_at

DEFAULT = load_default()


class Moody:
    """The packaged model, under another name; it fails on demand, and waits to be let go."""

    def __init__(self):
        self.card, self.warnings, self.out_of_domain = DEFAULT.card, DEFAULT.warnings, DEFAULT.out_of_domain
        self.broken = False
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, matrix):
        self.gate.wait(10)
        if self.broken:
            raise RuntimeError("no mood")
        return Answer(1 - DEFAULT.predict(matrix).probability, None, None)


def shadow_of(model):
    plugin = ShadowPlugin(Settings())
    plugin.model = model
    return plugin


class TestComplete:
    async def test_each_batch_gets_its_own_answers(self):
        batches = [batch_at(1_000 + at, count) for at, count in enumerate((3, 1, 70))]
        found = await shadow_of(Moody()).complete(batches)
        for before, after in zip(batches, found, strict=True):
            expected = 1 - DEFAULT.predict(numbers_of([before])[:, :COUNT]).probability
            assert np.array_equal(after.shadow.probability, expected)
            assert after.numbers == before.numbers
            assert [each.shadow_prediction for each in after.records()] == expected.tolist()
            assert after.find(before.records()[0].id).shadow_revision == DEFAULT.card.revision

    async def test_what_failed_and_what_it_answered_already_is_left_alone(self):
        [answered] = await shadow_of(Moody()).complete([batch_at(1_000)])
        failed = batch_at(1_001, status_code=500, error="no luck")
        assert await shadow_of(Moody()).complete([failed, answered]) == [failed, answered]

    async def test_where_it_fails_predictions_are_kept_without_it_and_it_says_so(self, caplog):
        shadow = shadow_of(Moody())
        shadow.model.broken = True
        batches = [batch_at(1_000)]
        assert await shadow.complete(batches) == batches
        assert await shadow.complete(batches) == batches
        assert "no mood" in shadow.state
        assert len(caplog.records) == 1
        shadow.model.broken = False
        [completed] = await shadow.complete(batches)
        assert completed.shadow is not None
        assert shadow.state == "ok"

    async def test_without_one_nothing_changes(self):
        batches = [batch_at(1_000)]
        assert await shadow_of(None).complete(batches) == batches


def shadow_in(client):
    return client.app.plugins.get(ShadowPlugin)


class TestWhichOne:
    async def second(self, start, settings, source):
        return shadow_in(await start(having(settings, shadow=source))).model.card

    async def test_the_packaged_one_by_its_word(self, start, settings):
        assert await self.second(start, settings, "default") == DEFAULT.card

    async def test_one_of_the_hub_by_its_name(self, start, settings, tmp_path, monkeypatch):
        write(tmp_path / "second.json", "second")
        lay_out(tmp_path, "me/kicks", {"kickserve.json": (tmp_path / "second.json").read_bytes()}, "next")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        offline = replace(settings, environ={"HF_HUB_OFFLINE": "1"})
        card = await self.second(start, offline, "hf:me/kicks@next")
        assert (card.name, card.revision) == ("second", REVISION)

    async def test_one_that_is_not_there_is_said_at_the_start(self, start, settings):
        with pytest.raises(ModelUnusable, match=r"nowhere.json can't be used: there is no such file"):
            await start(having(settings, shadow="nowhere.json"))


class TestInTheService:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "second.json"
        write(path, "second", shift=1.0)
        return path

    @pytest.fixture
    async def client(self, start, settings, file):
        return await start(having(settings, shadow=str(file)))

    async def test_a_record_holds_both_answers(self, client, kick):
        answer = (await client.post("/predict", json=kick)).json()
        record = (await client.get(f"/predictions/{answer['id']}")).json()
        assert record["shadow_model"] == "second"
        assert record["shadow_prediction"] > record["prediction"] == answer["prediction"]
        assert (await client.get("/health")).json()["parts"]["shadow"] == "ok"

    async def test_without_one_a_record_says_so(self, start, settings, kick):
        client = await start(settings)
        answer = (await client.post("/predict", json=kick)).json()
        record = (await client.get(f"/predictions/{answer['id']}")).json()
        assert record["shadow_model"] is record["shadow_revision"] is record["shadow_prediction"] is None
        assert "shadow" not in (await client.get("/health")).json()["parts"]

    async def test_quality_compares_the_two_on_the_same_kicks(self, client, kick):
        kicks = [{**kick, "distance": 15 + at} for at in range(40)]
        answers = (await client.post("/predict/batch", json=kicks)).json()
        success = [at % 4 != 0 for at in range(40)]
        told = [{"id": each["id"], "success": won} for each, won in zip(answers, success, strict=True)]
        assert (await client.put("/predictions/outcomes", json=told)).status_code == 200
        records = (await client.get("/predictions")).json()[::-1]
        [found] = (await client.get("/quality")).json()["shadows"]
        assert (found["model"], found["shadow"]) == (DEFAULT.card.name, "second")
        first = assess([each["prediction"] for each in records], success).brier
        second = assess([each["shadow_prediction"] for each in records], success).brier
        assert found["quality"]["brier"] == pytest.approx(first)
        assert found["shadow_quality"]["brier"] == pytest.approx(second)
        assert found["brier_difference"] == pytest.approx(second - first)
        assert 0 < found["brier_difference_error"] < 0.1

    async def test_no_answer_waits_for_it(self, client, kick):
        moody = shadow_in(client).model = Moody()
        moody.gate.clear()
        try:
            for _ in range(20):
                async with asyncio.timeout(5):
                    assert (await client.post("/predict", json=kick)).status_code == 200
                await asyncio.sleep(0.01)
        finally:
            moody.gate.set()
        records = (await client.get("/predictions")).json()
        assert len(records) == 20
        # Alone and in a matrix a model's answers may differ by the last bits.
        assert all(each["shadow_prediction"] == pytest.approx(1 - each["prediction"]) for each in records)

    async def test_a_reload_changes_both(self, client, kick, file):
        write(file, "third")
        assert (await client.post("/model/reload")).status_code == 200
        answer = (await client.post("/predict", json=kick)).json()
        record = (await client.get(f"/predictions/{answer['id']}")).json()
        assert record["shadow_model"] == "third"

    async def test_a_reload_that_finds_the_second_spoilt_changes_neither(self, client, file):
        before = client.app.predictor
        file.write_text("{}")
        assert (await client.post("/model/reload")).status_code == 409
        assert client.app.predictor is before
        assert shadow_in(client).model.card.name == "second"
