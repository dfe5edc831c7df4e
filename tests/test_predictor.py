"""The predictor answers and records kicks, whatever model it serves."""

from __future__ import annotations

import asyncio
import math
import time
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kickserve.errors import Backlogged, PredictionFailed
from kickserve.features import FEATURES
from kickserve.linear import load_default
from kickserve.metrics import Metrics
from kickserve.model import TYPICAL, Answer
from kickserve.openapi import EXAMPLE
from kickserve.predictor import Answers, Predictor, Scorer
from kickserve.process import ProcessSampler
from kickserve.schemas import Kick, Prediction, matrix, row_of
from kickserve.settings import Settings

CARD = SimpleNamespace(name="odd", revision="r1")
NEAREST = [feature.low for feature in FEATURES]
BAD = 13.0  # metres of a kick that the models here can't answer


async def answers_to(predictor, way, kicks):
    """Ask for a prediction of each kick, in one of three ways; return the answers and errors in order."""
    if way == "predict":
        return await asyncio.gather(*map(predictor.predict, kicks))
    return [*await getattr(predictor, way)(kicks)]


def kick_from(distance=30.0):
    return Kick(**{**EXAMPLE, "distance": distance})


class Model:
    """Says of each kick its distance in hundreds of metres, and gives no interval."""

    card = CARD

    def predict(self, matrix):
        if (matrix[:, 1] == BAD).any():
            raise RuntimeError("no luck")
        return Answer(matrix[:, 1] / 100, None, None)

    def warnings(self, _):
        return []

    def out_of_domain(self, matrix):
        return np.zeros(len(matrix), bool)


class Slow(Model):
    def predict(self, matrix):
        time.sleep(0.003)
        return super().predict(matrix)


class One(Model):
    def __init__(self, answer):
        self._answer = answer

    def predict_one(self, row):
        return self._answer(row)


class Kept(list):
    """Keeps records as the recorder does: at once, or when `release` is called."""

    def __init__(self, *, waits=False, refusal=None):
        super().__init__()
        self.waits, self.refusal, self.promises = waits, refusal, []

    def keep(self, batches):
        future = asyncio.get_running_loop().create_future()
        *others, last = batches
        self += others
        self.put(last, future)
        return future

    def put(self, batch, promise):
        self.append(batch)
        self.promises.append(promise)
        if not self.waits:
            promise.set_result(self.refusal)

    def release(self):
        for promise in self.promises:
            if not promise.done():
                promise.set_result(self.refusal)

    def records(self):
        return [record for batch in self for record in batch.records()]


def made(model, kept, **options):
    parts = {"metrics": Metrics(), "sampler": ProcessSampler(), "settings": Settings(), **options}
    return Predictor(lambda: model, kept, **parts)


@pytest.mark.parametrize("model", [Model(), Slow()])
@pytest.mark.parametrize("way", ["predict", "predict_each"])
async def test_what_fails_for_one_kick_hurts_no_other_and_each_has_one_record(model, way):
    kept = Kept()
    predictor = made(model, kept)
    distances = [10.0, BAD, 30.0, BAD, 20.0]
    for _ in range(2):  # one by one at first, then together
        kept.clear()
        kicks = [kick_from(each) for each in distances]
        answers = await answers_to(predictor, way, kicks)
        said = [None if isinstance(each, PredictionFailed) else each.prediction for each in answers]
        assert said == [0.1, None, 0.3, None, 0.2]
        records = {record.id: record for record in kept.records()}
        assert len(records) == len(distances)
        assert sorted(record.distance for record in records.values()) == sorted(distances)
        for answer, distance in zip(answers, distances, strict=True):
            if distance != BAD:
                assert records[answer.id].distance == distance
                assert records[answer.id].interval is None
                assert answer.interval is None
        assert sum(record.error is not None for record in records.values()) == 2
    predictor.close()


@pytest.mark.parametrize("distances", [[30.0], [BAD], [BAD, 30.0], [BAD, BAD]])
async def test_nothing_is_answered_before_it_is_kept_failures_neither(distances):
    kept = Kept()
    predictor = made(Model(), kept)
    for _ in range(2):
        kept.waits = True
        futures = [predictor.predict(kick_from(each)) for each in distances]
        for _ in range(3):
            await asyncio.sleep(0)
        assert not any(future.done() for future in futures)
        kept.waits = False
        kept.release()
        answers = await asyncio.wait_for(asyncio.gather(*futures), 5)
        failed = [isinstance(each, PredictionFailed) for each in answers]
        assert failed == [each == BAD for each in distances]


@pytest.mark.parametrize("way", ["predict_batch", "predict_matrix"])
async def test_a_batch_that_the_model_fails_at_in_a_later_part_has_a_record_of_that_part_alone(way):
    kept = Kept()
    predictor = made(Model(), kept)
    predictor.current.chunk = 10
    kicks = [kick_from()] * 10 + [kick_from(BAD)]
    with pytest.raises(PredictionFailed):
        await getattr(predictor, way)(kicks if way == "predict_batch" else matrix(kicks))
    assert [(record.distance, record.status_code) for record in kept.records()] == [(BAD, 500)]


@pytest.mark.parametrize("way", ["predict", "predict_each", "predict_batch"])
async def test_kicks_of_several_sources_are_answered_in_their_order_and_recorded_apart(way):
    kept = Kept()
    predictor = made(Model(), kept)
    predictor.current.chunk = 4
    sources = ["api", "page", "batch", "page", "api", "api", "batch"]
    kicks = [replace(kick_from(30.0 + at), source=source) for at, source in enumerate(sources)]
    kicks[1] = replace(kicks[1], kicker="Léo")
    answers = await answers_to(predictor, way, kicks)
    records = {record.id: record for record in kept.records()}
    found = [records[each.id] for each in answers]
    assert [(each.distance, each.source) for each in found] == [
        (30.0 + at, source) for at, source in enumerate(sources)
    ]
    assert [each.kicker for each in found] == [None, "Léo", *[None] * 5]


PART = st.integers(0, 10**12).map(lambda part: part / 10**12) | st.sampled_from([0.0, 1.0])


@given(
    scores=st.lists(st.tuples(PART, PART, PART), min_size=1, max_size=40),
    other=st.sampled_from([None, 0.1 + 0.2, 1e-300, math.nan]),
    name=st.sampled_from(["simulated", '"', "0.123456789012", "é"]),
)
def test_many_answers_are_written_as_each_one_is(scores, other, name):
    if other is not None:
        scores[-1] = (scores[-1][0], other, scores[-1][2])
    model = load_default()
    model.card = replace(model.card, name=name)
    rows = np.array([NEAREST, *[TYPICAL[0]] * len(scores)])[: len(scores)]  # the first is out of the domain
    scorer = Scorer(model, ProcessSampler())
    answers = Answers(scorer, [scorer.record(rows, np.array(scores), 0.1)])
    expected = [*answers]
    assert expected[0].warnings
    lines, elements = answers.encode(lines=True), answers.encode(lines=False)
    assert elements.endswith(b",")
    for text in (b"[%b]" % lines.rstrip().replace(b"\n", b","), b"[%b]" % elements[:-1]):
        assert msgspec.json.decode(text, type=list[Prediction]) == expected


@pytest.mark.parametrize(
    "other",
    [{}, {"is_start": 1.0}, {"is_start": 0.0, "game_away": 1.0}, {"kicker": "Léo"}, {"source": "page"}],
)
def test_kicks_are_the_same_numbers_together_and_alone(other):
    kicks = [replace(kick_from(30.0 + at), is_left_side=at % 3 == 0) for at in range(40)]
    kicks[7:9] = [replace(kick, **other) for kick in kicks[7:9]]
    for some in (kicks, kicks[:16], kicks[6:10]):
        assert matrix(some).tolist() == [list(map(float, row_of(kick))) for kick in some]


async def test_what_could_not_be_kept_is_not_given():
    predictor = made(Model(), Kept(refusal=Backlogged("full")))
    assert isinstance(await predictor.predict(kick_from()), Backlogged)
    refused = await predictor.predict_each([kick_from(), kick_from()])
    assert [type(each) for each in refused] == [Backlogged] * 2
    with pytest.raises(Backlogged):
        await predictor.predict_batch([kick_from()])
    with pytest.raises(Backlogged):
        await predictor.predict_matrix(matrix([kick_from()]))
    assert await predictor.predict_each([]) == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ((0.5, math.nan, math.nan), (0.5, None)),
        ((np.float64(0.5), np.float64(0.25), np.float64(0.75)), (0.5, (0.25, 0.75))),
        ((0.5, 0.6, 0.7), (0.5, (0.6, 0.7))),  # `predict` may give such an interval too
        ([0.5, 0.25, 0.75], (0.5, (0.25, 0.75))),
        ((1, 1, 1), (1.0, (1.0, 1.0))),
        ((math.nan, math.nan, math.nan), None),
        ((1.5, 0.5, 1.5), None),
        ((0.5, math.nan, 0.5), None),
        ((0.5, None, None), None),
        ((0.5,), None),
        (None, None),
    ],
)
async def test_a_model_of_one_kick_may_give_no_interval_and_numbers_of_numpy(said, expected):
    kept = Kept()
    answer = await made(One(lambda _: said), kept).predict(kick_from())
    [record] = kept.records()
    if expected is None:
        assert isinstance(answer, PredictionFailed)
        assert record.prediction is None
    else:
        assert (answer.prediction, answer.interval) == expected == (record.prediction, record.interval)
        assert type(answer.prediction) is float


@pytest.mark.parametrize("said", [None, Answer(None, None, None), Answer([0.5], None, None), [1.0], "word"])
async def test_a_model_that_answers_nonsense_has_failed(said):
    model, kept = Model(), Kept()
    model.predict = lambda _: said
    predictor = made(model, kept)
    assert isinstance(await predictor.predict(kick_from()), PredictionFailed)
    with pytest.raises(PredictionFailed):
        await predictor.predict_batch([kick_from()])
    assert [record.prediction for record in kept.records()] == [None, None]


async def test_a_model_that_takes_its_time_for_each_kick_gets_fewer_of_them_in_a_turn(monkeypatch):
    now, sizes = 0.0, []
    monkeypatch.setattr("kickserve.predictor.time", SimpleNamespace(perf_counter=lambda: now))

    def predict(matrix):
        nonlocal now
        now += 0.0002 * len(matrix)
        sizes.append(len(matrix))
        return Answer(np.full(len(matrix), 0.5), None, None)

    model = Model()
    model.predict = predict
    predictor = made(model, Kept())
    sizes.clear()
    assert len(await predictor.predict_batch([kick_from()] * 60)) == 60
    assert max(sizes) in {24, 25}  # 5 ms


async def test_a_slow_model_that_is_closed_answers_with_an_error():
    predictor = made(Slow(), Kept())
    assert (await predictor.predict(kick_from())).prediction == 0.3
    predictor.close()
    with pytest.raises(RuntimeError):
        await asyncio.wait_for(predictor.predict(kick_from()), 5)


async def test_a_batch_whose_client_goes_away_while_the_disk_is_busy_disturbs_no_other(caplog):
    kept, counted = Kept(waits=True), []
    predictor = made(Model(), kept, on_predictions=[counted.append])
    task = asyncio.create_task(predictor.predict_batch([kick_from()] * 3))
    while not kept:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    kept.waits = False
    kept.release()
    assert (await predictor.predict(kick_from())).prediction == 0.3
    assert task.cancelled()
    assert [len(batch) for batch in counted] == [1]  # the batch that went away is not counted
    assert "Exception in callback" not in caplog.text
