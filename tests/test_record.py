"""Batches of predictions, their ids, and the operations that the journal holds of them."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve import ids as ids_module
from kickserve.features import COUNT, FEATURES
from kickserve.ids import IdFactory, Ids, canonical, instant
from kickserve.record import (
    NOTHING_LEARNED,
    NUMBER,
    WIDTH,
    Add,
    Delete,
    Forget,
    RecordBatch,
    SetOutcome,
    encode,
    encode_learned,
    pack_learned,
    replay,
)
from kickserve.recorder import halves
from kickserve_testing.contract_samples import START, batch_at, learned_of, shadow_of

TAIL = "0123456789ab"
_YEAR = 366 * 86_400_000
MILLISECOND = 1_790_000_000_000

kicks = st.tuples(
    *(
        st.sampled_from([0.0, 1.0]) if feature.kind == "flag" else st.floats(feature.low, feature.high)
        for feature in FEATURES
    )
)
probabilities = st.floats(0, 1)
answers = st.tuples(probabilities, probabilities, probabilities) | st.tuples(
    probabilities | st.just(math.nan), st.just(math.nan), st.just(math.nan)
)
rows = st.tuples(kicks, answers, st.floats(0, 1e6)).map(lambda parts: [*parts[0], *parts[1], parts[2]])


def batch_of(rows, counter=0, **changes):
    numbers = np.array(rows, NUMBER).reshape(-1, WIDTH).tobytes()
    batch = RecordBatch(MILLISECOND, counter, TAIL, "name", "r1", 12.5, 81.25, numbers)
    return msgspec.structs.replace(batch, **changes)


@given(st.lists(rows, max_size=9), st.integers(0, (1 << 26) - 10))
def test_records_say_what_the_batch_says(rows, counter):
    batch = batch_of(rows, counter)
    through_journal = msgspec.msgpack.decode(msgspec.msgpack.encode(batch), type=RecordBatch)
    assert through_journal == batch
    assert len(batch) == len(rows)
    records = batch.records()
    assert [each.id for each in records] == batch.ids.texts()
    for record, row in zip(records, rows, strict=True):
        values = [float(getattr(record, feature.name)) for feature in FEATURES]
        assert values == row[:COUNT]
        probability, low, high, latency = row[COUNT:]
        failed = math.isnan(probability)
        assert record.prediction == (None if failed else probability)
        assert record.confidence == (None if failed else max(probability, 1 - probability))
        assert record.interval == (None if math.isnan(low) else (low, high))
        assert (record.latency_ms, record.created_at) == (latency, instant(MILLISECOND))
        assert (record.status_code, record.error) == (200, None)
        assert batch.find(record.id) == record


@given(
    st.integers(0, (1 << 48) - 1),
    st.integers(0, (1 << 26) - 1),
    st.integers(0, 70_000),
    st.sampled_from([0, 1, 1 << 14, (1 << 14) - 1, 3 << 14]),
)
def test_ids_are_uuids_of_version_7_that_grow_and_are_found_again(millisecond, counter, number, near):
    counter = min(counter >> 14 << 14 | near & 0x3FFF, (1 << 26) - 1)
    number = min(number, (1 << 26) - counter)
    ids = Ids(millisecond, counter, number, TAIL)
    texts = ids.texts()
    assert len(set(texts)) == number
    assert texts == sorted(texts)
    for at in {0, number // 2, number - 1} if number else ():
        assert canonical(texts[at]) == texts[at]
        assert ids.find(texts[at]) == at
        assert Ids(millisecond, counter, at, TAIL).find(texts[at]) is None
        assert Ids(millisecond, counter, number, "ba9876543210").find(texts[at]) is None
        assert Ids(millisecond ^ 1, counter, number, TAIL).find(texts[at]) is None


def test_a_full_millisecond_borrows_the_next(monkeypatch):
    monkeypatch.setattr(ids_module.time, "time_ns", lambda: MILLISECOND * 1_000_000)
    factory = IdFactory()
    first = factory.take((1 << 25) - 1)
    second, third = factory.take(1), factory.take(1)
    assert (first.millisecond, second.millisecond, third.millisecond) == (
        MILLISECOND,
        MILLISECOND,
        MILLISECOND + 1,
    )
    assert second.texts() < third.texts()


@given(
    st.lists(st.tuples(st.integers(-5 * _YEAR, 5 * _YEAR) | st.integers(-90_000, 90_000), st.integers(1, 3)))
)
def test_wherever_the_clock_is_set_ids_stay_unique_and_near_to_it(steps):
    """And they grow but where it is set back by more than a minute."""
    factory, now, made = IdFactory(), 56 * _YEAR, []
    with pytest.MonkeyPatch.context() as patch:
        for step, number in steps:
            now = max(now + step, 0)
            patch.setattr(ids_module.time, "time_ns", lambda now=now: now * 1_000_000)
            ids = factory.take(number)
            assert 0 <= ids.millisecond - now <= 60_000
            if made and now >= made[-1][0].millisecond - 60_000:
                assert ids.texts()[0] > made[-1][1][-1]
            made.append((ids, ids.texts()))
    texts = [text for _, each in made for text in each] + IdFactory().take(9).texts()
    assert len(set(texts)) == len(texts)


def labels(number):
    """Fields of a batch of which every other kick has a kicker, of whom something was learned."""
    kickers = [f"kicker {at}" if at % 2 else None for at in range(number)]
    learned = [(encode_learned(learned_of(each)) if each else NOTHING_LEARNED).numbers for each in kickers]
    return {"kickers": kickers, "learned": pack_learned(learned, 0.5)}


@pytest.mark.parametrize("number", [1, 2])
def test_what_is_said_of_kickers_is_of_as_many_kicks(number):
    batch = batch_at(START, 2, **labels(2))
    batch.check()
    for name, value in labels(number).items():
        changed = msgspec.structs.replace(batch, **{name: value})
        if number == 2:
            changed.check()
        else:
            with pytest.raises(ValueError, match="another number of kicks"):
                changed.check()


def test_a_kickserve_that_knows_no_kickers_reads_the_rest_of_a_batch():
    names = RecordBatch.__struct_fields__
    old = msgspec.defstruct(
        "Old", [field for field in RecordBatch.__annotations__ if field in names[:11]], array_like=True
    )
    batch = batch_at(START, 3, source="batch", **labels(3))
    found = msgspec.msgpack.decode(msgspec.msgpack.encode(batch), type=old)
    assert [getattr(found, name) for name in names[:10]] == [getattr(batch, name) for name in names[:10]]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_halves_are_the_same_predictions_in_the_same_order(sizes):
    whole = [
        Add(batch_at(START + at, size, shadow=shadow_of(size), source="page", **labels(size)))
        for at, size in enumerate(sizes)
    ]

    def records(operations):
        return [record for each in operations for record in each.batch.records()]

    def down(operations):
        parts = halves(operations)
        assert all(parts)
        return [each for part in parts for each in down(part)] if parts else [records(operations)]

    assert down(whole) == [[record] for record in records(whole)]
    assert halves([Delete("an id")]) == halves([SetOutcome("an id", success=True, at=instant(START))]) == []


@given(st.lists(st.tuples(st.sampled_from("ajdf"), st.integers(0, 3), st.integers(0, 4)), max_size=20))
def test_a_replay_finds_the_records_that_a_store_would_hold(story):
    batches = [batch_at(START + at, 5, tail=f"{at % 2:012x}", **labels(5)) for at in range(4)]
    ids = [record.id for batch in batches for record in batch.records()]
    operations, held = [], {}
    for kind, at, position in story:
        record_id = ids[5 * at + position]
        if kind == "a":
            operations.append(Add(batches[at]))
            held = {record.id: record for record in batches[at].records()} | held
        elif kind == "d":
            operations.append(Delete(record_id))
            held.pop(record_id, None)
        elif kind == "f":
            forget = Forget(f"kicker {position}", instant(START + at))
            operations.append(forget)
            for record in held.values():
                if record.kicker == forget.kicker and record.created_at < forget.at:
                    record.kicker, record.learned = None, learned_of(None)
        else:
            operations.append(SetOutcome(record_id, success=True, at=instant(START)))
            if record_id in held:
                held[record_id].outcome, held[record_id].outcome_at = True, instant(START)
    assert replay(ids, [encode(each) for each in operations]) == held
