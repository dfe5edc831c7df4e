"""A prediction that the store refuses for good holds nobody up, and is not lost."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_recorder import eventually, is_well

from kickserve import recorder as refused
from kickserve.errors import RecordUnfit
from kickserve.ids import instant
from kickserve.record import NUMBER, WIDTH, Add, Delete, SetOutcome, encode, replay, standing
from kickserve.recorder import DeadLetters, halves
from kickserve_testing.contract_samples import START, batch_at, shadow_of


def with_unfit(batch, *places):
    """Return a batch in which kicks have a distance that is no number, which no store holds."""
    numbers = np.frombuffer(batch.numbers, NUMBER).reshape(-1, WIDTH).copy()
    numbers[list(places), 1] = math.nan
    return msgspec.structs.replace(batch, numbers=numbers.tobytes())


async def kept(client):
    return {record["id"] for record in (await client.get("/predictions?limit=10000")).json()}


def lines_of(client):
    text = client.app.state.service.recorder.dead_letters.file.read_text()
    return [json.loads(line) for line in text.splitlines()]


async def test_what_does_not_fit_is_put_aside_and_all_others_are_stored(client, kick, caplog):
    recorder = client.app.state.service.recorder
    batches = [
        batch_at(START, 40),
        with_unfit(batch_at(START + 1, 50, shadow=shadow_of(50)), 17, 49),
        batch_at(START + 2),
    ]
    await recorder.keep(batches)
    ids = [record.id for batch in batches for record in batch.records()]
    unfit = {ids[40 + 17], ids[40 + 49]}
    behind = (await client.post("/predict", json=kick)).json()["id"]
    assert await kept(client) == {*ids, behind} - unfit
    lines = lines_of(client)
    assert {line["refused"][0]["id"] for line in lines} == unfit
    assert all("distance" in line["reason"] for line in lines)
    assert "refused.jsonl" in caplog.text.replace("\n", "")
    assert client.app.state.service.metrics.read().counts["dead_letters"] == 2
    # A person is told, until they have seen to it; who asks for predictions notices nothing.
    health = (await client.get("/health")).json()
    assert health["status"] == "degraded"
    assert "refused.jsonl" in health["parts"]["store"]
    assert (await client.get("/health/ready")).status_code == 200
    recorder.dead_letters.file.unlink()
    assert await is_well(client)


async def test_a_store_that_refuses_everything_is_waited_for(client, kick, monkeypatch):
    monkeypatch.setattr(refused, "IN_A_ROW", 3)
    service = client.app.state.service
    add, broken = service.store.add_batches, True

    async def refuse(batches):
        if broken:
            raise RecordUnfit("a rule of somebody else's")
        await add(batches)

    monkeypatch.setattr(service.store, "add_batches", refuse)
    ids = [each["id"] for each in (await client.post("/predict/batch", json=[kick] * 20)).json()]

    async def the_reason_is_said():
        return "somebody else's" in (await client.get("/health")).json()["parts"]["store"]

    await eventually(the_reason_is_said)
    broken = False
    aside = {line["refused"][0]["id"] for line in lines_of(client)}

    async def the_others_are_there():
        return (await client.get("/predictions?limit=100")).status_code == 200

    await eventually(the_others_are_there)
    assert await kept(client) == {*ids} - aside
    assert len(aside) == 3


async def test_what_cannot_be_put_aside_waits_in_the_journal(client, kick):
    recorder = client.app.state.service.recorder
    recorder.dead_letters.file.mkdir()
    await recorder.keep([with_unfit(batch_at(START), 0)])

    async def is_said():
        return "can't be put aside" in (await client.get("/health")).json()["parts"]["store"]

    await eventually(is_said)
    behind = (await client.post("/predict", json=kick)).json()["id"]
    recorder.dead_letters.file.rmdir()

    async def is_there():
        return (await client.get("/predictions")).status_code == 200

    await eventually(is_there)
    assert await kept(client) == {behind}
    assert len(lines_of(client)) == 1


def test_one_that_is_accepted_ends_the_row(tmp_path, monkeypatch):
    monkeypatch.setattr(refused, "IN_A_ROW", 2)
    aside = DeadLetters(tmp_path)
    assert aside.state == "ok"
    one, reason = Delete("an id"), RecordUnfit("no")
    assert [aside.add(one, reason) for _ in range(3)] == [True, True, False]
    aside.accepted()
    assert aside.add(one, reason)
    assert len((tmp_path / "refused.jsonl").read_bytes().splitlines()) == 3


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_halves_are_the_same_predictions_in_the_same_order(sizes):
    whole = [Add(batch_at(START + at, size, shadow=shadow_of(size))) for at, size in enumerate(sizes)]

    def records(operations):
        return [record for each in operations for record in each.batch.records()]

    def down(operations):
        parts = halves(operations)
        assert all(parts)
        return [each for part in parts for each in down(part)] if parts else [records(operations)]

    assert down(whole) == [[record] for record in records(whole)]


@pytest.mark.parametrize("change", [Delete("an id"), SetOutcome("an id", success=True, at=instant(START))])
def test_a_change_is_not_cut(change):
    assert halves([change]) == []


@given(st.lists(st.tuples(st.sampled_from("ajd"), st.integers(0, 3), st.integers(0, 4)), max_size=20))
def test_what_stands_in_the_journal_is_what_a_replay_finds(story):
    batches = [batch_at(START + at, 5, tail=f"{at % 2:012x}") for at in range(4)]
    ids = [record.id for batch in batches for record in batch.records()]
    operations = [
        Add(batches[at])
        if kind == "a"
        else SetOutcome(ids[5 * at + place], success=True, at=instant(START))
        if kind == "j"
        else Delete(ids[5 * at + place])
        for kind, at, place in story
    ]
    payloads = [encode(each) for each in operations]
    assert standing(ids, payloads) == {each for each in ids if replay(each, payloads) is not None}


def test_many_ids_of_many_processes_are_found_in_one_reading():
    batches = [batch_at(START + at, 2, tail=f"{at:012x}") for at in range(50)]
    ids = [record.id for batch in batches for record in batch.records()]
    payloads = [encode(Add(batch)) for batch in batches[:40]] + [encode(Delete(ids[0]))]
    assert standing(ids, payloads) == {*ids[1:80]}
