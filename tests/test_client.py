"""The client, sync and async: against a real server, against strange ones, and when it repeats a call."""

from __future__ import annotations

import inspect
import itertools
import math
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.util import find_spec

import httpx
import msgspec
import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace
from serving import eventually, serving

import kickserve
from kickserve.errors import InvalidInput
from kickserve.openapi import EXAMPLE
from kickserve.schemas import OutcomeOf, Prediction
from kickserve.settings import Settings
from kickserve_client import (
    Answers,
    AsyncClient,
    Client,
    Kick,
    RemoteError,
    ServiceAway,
    calls,
    connected,
    running_url,
)
from kickserve_client.exchange import FIRST, LONGEST, Exchange, ServiceBusy, pause, read_retry_after

KICK = msgspec.convert(EXAMPLE, Kick)
KEY = "a secret of the test's"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server"), API_KEY=KEY) as server:
        yield server


async def result(asked):
    """Whatever a method of one of both clients returns, waited for and read to its end."""
    if inspect.isawaitable(asked):
        return await asked
    if inspect.isasyncgen(asked):
        return [each async for each in asked]
    return list(asked) if inspect.isgenerator(asked) else asked


@pytest.fixture(params=[Client, AsyncClient])
async def client(request, server):
    client = request.param(server.url, key=KEY)
    yield client
    await result(client.close())


@pytest.mark.parametrize(
    "kick",
    [
        KICK,
        EXAMPLE,
        {**EXAMPLE, "success": None, "kicker": "Ann"},
        {name: (np.bool_ if value in (0, 1) else np.float32)(value) for name, value in EXAMPLE.items()},
        pd.DataFrame([{**EXAMPLE, "success": 1}]).iloc[0],
        pd.DataFrame([EXAMPLE, EXAMPLE | {"distance": 3}]).to_dict("records")[0],
        {name: float(value) for name, value in EXAMPLE.items()},
        {name: Decimal(value) for name, value in EXAMPLE.items()},
        next(pd.DataFrame([EXAMPLE]).itertuples()),
    ],
    ids=[
        "Kick",
        "dict",
        "more than a kick",
        "numpy",
        "Series",
        "records",
        "floats",
        "decimals",
        "named tuple",
    ],
)
async def test_a_kick_may_be_given_in_many_ways(client, kick):
    answers = [await result(client.predict(kick)), await result(client.predict(**EXAMPLE))]
    assert all(isinstance(each, Prediction) for each in answers)
    assert answers[0].prediction == pytest.approx(answers[1].prediction, abs=1e-6)
    assert answers[0].id != answers[1].id
    further = await result(client.predict(kick, distance=60))
    assert further.prediction < answers[0].prediction


@pytest.mark.parametrize("module", ["pandas", "polars"])
@pytest.mark.parametrize("numbers", [[10, 7], [10, None], [10.0, math.nan]])
async def test_whole_numbers_of_a_data_frame_are_labels_of_kickers(client, module, numbers):
    frame = pytest.importorskip(module).DataFrame
    kicks = frame({**{name: [value] * 2 for name, value in EXAMPLE.items()}, "kicker": numbers})
    answers = await result(client.predict_batch(kicks))
    records = [await result(client.get(each.id)) for each in answers]
    assert [each.kicker for each in records] == ["10", "7" if numbers[1] == 7 else None]


@pytest.mark.parametrize("module", ["pandas", "polars"])
async def test_kickers_of_a_data_frame_are_kept_and_gaps_are_unnamed(client, module):
    frame = pytest.importorskip(module).DataFrame
    names = ["Léo", None, "Owen", math.nan if module == "pandas" else None]
    kicks = frame({**{name: [value] * 4 for name, value in EXAMPLE.items()}, "kicker": names})
    answers = await result(client.predict_batch(kicks, chunk=3))
    records = [await result(client.get(each.id)) for each in answers]
    assert [(each.kicker, each.source) for each in records] == [
        (name, "api") for name in ("Léo", None, "Owen", None)
    ]
    found = await result(client.predictions(kicker="Owen", page=1))
    assert answers[2].id in {each.id for each in found}
    assert {each.kicker for each in found} == {"Owen"}


@pytest.mark.parametrize("missing", [None, math.nan, np.float64("nan"), pd.NA, pd.NaT])
def test_a_kick_of_an_unnamed_kicker_is_what_an_older_service_takes(missing):
    for kick in ({**EXAMPLE, "kicker": missing}, KICK):
        [call] = calls.predict_parts([kick], 1)
        assert msgspec.json.decode(call.content) == [EXAMPLE]


async def test_a_kick_may_say_who_kicks_and_what_sent_it(client):
    kick = msgspec.structs.replace(KICK, kicker="Ann", source="batch")
    for asked in (client.predict(kick), client.predict({**EXAMPLE}, kicker="Ann", source="batch")):
        record = await result(client.get((await result(asked)).id))
        assert (record.kicker, record.source) == ("Ann", "batch")
    with pytest.raises(RemoteError, match="for an unnamed kicker, not a number"):
        await result(client.predict(KICK, kicker=10))


@pytest.fixture(params=["pandas", "polars", "pyarrow"])
def frame(request):
    """Make a DataFrame of kicks at some distances, with more columns than are needed."""
    module = pytest.importorskip(request.param)

    def frame(*distances):
        rows = [{**EXAMPLE, "distance": each, "success": 1, "match": "m"} for each in distances]
        rows[0]["is_start"] = float(rows[0]["is_start"])
        columns = {name: [row[name] for row in rows] for name in reversed(rows[0])}
        if request.param == "pandas":
            return module.DataFrame(columns, index=[f"kick {at}" for at in range(len(rows))])
        return (
            module.table(columns) if request.param == "pyarrow" else module.DataFrame(columns, strict=False)
        )

    return frame


async def test_a_data_frame_is_answered_row_by_row_and_as_one(client, frame):
    kicks = frame(20, 60, 70.0)
    answers = await result(client.predict_batch(kicks, chunk=2))
    assert [each.prediction for each in answers] == sorted(
        (each.prediction for each in answers), reverse=True
    )
    for table in (answers.to_pandas(), *([answers.to_polars()] if find_spec("polars") else [])):
        assert [*table["prediction"]] == [each.prediction for each in answers]
        assert [*table["low"]] == [each.interval[0] for each in answers]
        assert [*table["warnings"]] == ["; ".join(each.warnings) for each in answers]
    if isinstance(kicks, pd.DataFrame):
        joined = kicks.join(answers.to_pandas())
        assert (joined["prediction"] < 0.5).tolist() == [False, True, True]
    assert "prediction" in Answers().to_pandas().columns
    records = Answers(await result(client.predictions(page=10)))
    assert {"created_at", "distance", "outcome"} < {*records.to_pandas().columns}


async def test_what_is_no_number_is_named_by_the_rows_of_the_caller(client, frame):
    kicks = frame(30, 30, None)
    with pytest.raises(InvalidInput, match=r"row 2: distance is (nan|None): must be a number") as raised:
        await result(client.predict_batch(kicks, chunk=2))
    [fault] = raised.value.errors
    assert (fault.field, fault.row) == ("distance", 2)
    few = [name for name in EXAMPLE if name not in ("angle", "game_away")]
    with pytest.raises(InvalidInput, match="the DataFrame has no column angle, game_away"):
        await result(client.predict_batch(kicks.select(few) if hasattr(kicks, "select") else kicks[few]))


@pytest.mark.parametrize("value", [object(), np.nan, pd.NA, None, float("inf")])
async def test_what_is_no_number_never_leaves(client, value):
    with pytest.raises(InvalidInput, match=r"^distance is .*: must be a number from 2 to 100 m"):
        await result(client.predict(KICK, distance=value))


@pytest.mark.parametrize("kick", [[*EXAMPLE.values()], np.array([*EXAMPLE.values()])], ids=["list", "array"])
async def test_a_kick_without_names_is_refused(client, kick):
    for ask, kicks in ((client.predict, kick), (client.predict_batch, [kick])):
        with pytest.raises(InvalidInput, match="a kick has its features by name, as a dict has"):
            await result(ask(kicks))


@pytest.mark.parametrize("chunk", [3, 100])
async def test_a_batch_is_answered_in_order_however_it_is_cut(client, chunk):
    distances = [10, 60, 20, 50, 30, 40, 25]
    kicks = (EXAMPLE | {"distance": each} for each in distances)
    answers = await result(client.predict_batch(kicks, chunk=chunk))
    singly = [(await result(client.predict(KICK, distance=each))).prediction for each in distances]
    assert [each.prediction for each in answers] == pytest.approx(singly)


async def test_a_stream_takes_no_more_than_it_has_to(client):
    endless = ({**EXAMPLE, "distance": 2 + number % 98} for number in itertools.count())
    if isinstance(client, Client):
        answers = list(itertools.islice(client.predict_stream(endless, chunk=10), 25))
    else:
        answers = []
        async for each in client.predict_stream(endless, chunk=10):
            answers.append(each)
            if len(answers) == 25:
                break
    assert len({each.id for each in answers}) == 25
    assert next(endless)["distance"] == 2 + 30


async def test_a_refusal_names_the_fields_and_the_row_that_the_caller_knows(client):
    kicks = [EXAMPLE] * 5 + [EXAMPLE | {"distance": 1_000}]
    with pytest.raises(RemoteError) as raised:
        await result(client.predict_batch(kicks, chunk=2))
    error = raised.value
    assert (error.status, error.title) == (422, "Invalid input")
    assert error.detail.startswith("row 5: distance must be")
    [fault] = error.errors
    assert (fault.field, fault.row, fault.value) == ("distance", 5, 1_000)
    assert error.request_id == client.last_request_id != ""
    assert "answered 422" in str(error)


async def test_kept_predictions_come_newest_first_over_all_pages(client):
    before = datetime.now(UTC) - timedelta(milliseconds=2)
    made = [each.id for each in await result(client.predict_batch([KICK] * 7))]
    records = await result(client.predictions(since=before, page=2))
    assert [each.id for each in records] == sorted(made, reverse=True)
    assert records[0].distance == KICK.distance
    assert await result(client.predictions(since=before, until=before)) == []


async def test_outcomes_are_told_and_quality_knows_them(client):
    made = await result(client.predict_batch([KICK] * 4))
    await result(client.tell_outcome(made[0].id, success=True))
    by_id = await result(client.tell_outcomes({made[1].id: True, made[2].id: np.bool_(0)}))
    assert (by_id.kept, by_id.unknown) == (2, [])
    unknown = "01900000-0000-7000-8000-000000000000"
    some = [OutcomeOf(id=made[3].id, success=False), OutcomeOf(id=unknown, success=True)]
    kept = await result(client.tell_outcomes(some))
    assert (kept.kept, kept.unknown) == (1, [unknown])
    assert [(await result(client.get(each.id))).outcome for each in made] == [True, True, False, False]
    report = await result(client.quality(model=made[0].model))
    assert report.count >= 4
    assert list(report.models) == [made[0].model]


async def test_kickers_are_listed_over_all_pages_found_and_forgotten(client):
    names = ["Kim", "a/b", "Zoé 🏉", "..", "?x=1"]
    made = await result(client.predict_batch([replace(KICK, kicker=name) for name in names]))
    await result(client.tell_outcomes({each.id: True for each in made}))
    rows = await result(client.kickers("kicker", points=2, page=2))
    assert [row.kicker for row in rows] == sorted(names)
    for name, prediction in zip(names, made, strict=True):
        page = await result(client.kicker(name))
        assert (page.kicker, page.kicks, [each.id for each in page.predictions]) == (name, 1, [prediction.id])
        await result(client.forget_kicker(name))
        for call in (client.kicker, client.forget_kicker):
            with pytest.raises(RemoteError) as raised:
                await result(call(name))
            assert raised.value.status == 404
    assert await result(client.kickers()) == []


async def test_what_is_deleted_or_never_was_is_not_found(client):
    made = await result(client.predict(KICK))
    await result(client.delete(made.id))
    for each in (made.id, "../model", "a b", "a?b=c", "%2e%2e"):  # none becomes another path
        for call in (client.get, client.delete):
            with pytest.raises(RemoteError) as raised:
                await result(call(each))
            assert raised.value.status == 404


async def test_model_explanation_health_and_drift_are_typed(client):
    await result(client.predict_batch([KICK] * 60))
    card = await result(client.model())
    assert card.name == (await result(client.reload())).name
    explanation = await result(client.explain(KICK))
    assert (explanation.model, len(explanation.shares)) == (card.name, 11)
    assert (await result(client.health())).version == kickserve.__version__

    async def drift():  # the figures are made in the background
        with suppress(RemoteError):
            return await result(client.drift())

    assert (await eventually(drift)).kicks >= 50


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_without_the_key_it_is_refused(kind, server, monkeypatch):
    client = kind(server.url)
    with pytest.raises(RemoteError) as raised:
        await result(client.predict(KICK))
    assert raised.value.status == 401
    await result(client.close())
    monkeypatch.setenv("API_KEY", KEY)
    client = kind(server.url)
    assert await result(client.predict(KICK))
    await result(client.close())


def test_threads_may_share_a_client_and_each_knows_its_own_request(server):
    def ask(number):
        answer = client.predict(KICK, distance=10 + number)
        return answer.prediction, client.last_request_id

    with Client(server.url, key=KEY, connections=4) as client, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(40)))
    assert [each for each, _ in answers] == sorted((each for each, _ in answers), reverse=True)
    assert len({request_id for _, request_id in answers}) == 40


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_url_or_a_key_that_can_not_be_used_is_refused(kind):
    for url in ("moon", "ftp://x", "http://[::1"):
        with pytest.raises(RemoteError, match="can't be used"):
            kind(url)
    with pytest.raises(RemoteError, match="line break") as raised:
        kind(key="secret\r\nX-Other: 1")
    assert "secret" not in str(raised.value)


def scripted(kind, *answers, **options):
    """A client of a service that gives these answers in turn; and the requests that it got."""
    asked, left = [], iter(answers)

    def answer(request):
        asked.append(request)
        status, headers, body = next(left)
        return httpx.Response(status, headers=headers, content=body)

    return kind("http://service/kicks/api/v1/", transport=httpx.MockTransport(answer), **options), asked


NO_ROOM = (503, {"retry-after": "0"}, b"{}")
HEALTHY = (200, {}, b'{"status": "ok", "version": "1"}')


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_busy_service_is_asked_again_under_the_same_id_until_it_is_given_up(kind):
    client, asked = scripted(kind, NO_ROOM, (429, {}, b""), HEALTHY, NO_ROOM, NO_ROOM, NO_ROOM, retries=2)
    assert (await result(client.health())).status == "ok"
    assert {each.headers["x-request-id"] for each in asked} == {client.last_request_id}
    with pytest.raises(ServiceBusy, match="answered 503"):
        await result(client.predict(KICK))
    assert len(asked) == 6


@pytest.mark.parametrize(
    "answer", [(200, {}, b"<html>"), (200, {}, b"[]"), (502, {}, b"<html>"), (404, {}, b"{}")]
)
async def test_another_service_is_seen_to_be_none_of_ours(answer):
    client, _ = scripted(Client, answer)
    with pytest.raises(RemoteError, match="is the URL right") as raised:
        client.health()
    assert raised.value.request_id


async def test_a_service_may_stand_below_a_path_and_the_key_goes_nowhere_else():
    record = msgspec.json.encode([])
    link = '<http://elsewhere/api/v1/predictions?limit=2&before=a%20b>; rel="next"'
    client, asked = scripted(Client, (200, {"link": link}, record), (200, {}, record), key=KEY)
    assert list(client.predictions(page=2)) == []
    assert [str(each.url) for each in asked] == [
        "http://service/kicks/api/v1/predictions?limit=2",
        "http://service/kicks/api/v1/predictions?limit=2&before=a+b",
    ]
    assert all(each.headers["x-api-key"] == KEY for each in asked)


def test_the_package_alone_imports_no_client():
    code = "import sys, kickserve; assert not {'httpx', 'numpy', 'msgspec'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(getattr(kickserve, name) for name in kickserve.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Moon'"):
        kickserve.Moon  # noqa: B018  to ask for it is the test


def test_both_clients_have_the_same_documented_methods_with_the_same_arguments():
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_"):
            assert method.__doc__
            assert getattr(AsyncClient, name).__doc__
            ours = inspect.signature(method).parameters
            assert [*ours] == [*inspect.signature(getattr(AsyncClient, name)).parameters]


UNHEARD = [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout]
IN_DOUBT = [httpx.ReadTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError]
HOPELESS = [httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.DecodingError]
BUSY = [429, 503]
REFUSED = [301, 400, 401, 404, 409, 413, 422, 500, 502, 504]

REPEATABLE = [
    calls.get("a"),
    calls.delete("a"),
    calls.tell_outcome("a", success=True),
    calls.health(),
    calls.explain(distance=3),
]
ONCE = [calls.predict(distance=3), *calls.predict_parts([{"distance": 3}], 1), calls.reload()]

TROUBLES = [*UNHEARD, *IN_DOUBT, *HOPELESS, *BUSY, *REFUSED]


def exchange(call, retries=3, chance=0.5):
    return Exchange(call, httpx.Request(call.method, "http://test/api/v1/x"), retries, lambda: chance)


def befall(exchange, trouble, headers=None):
    """Let an error or a status befall a call; return the pause before the next try, None for no next try."""
    try:
        if isinstance(trouble, int):
            return exchange.answered(httpx.Response(trouble, headers=headers))
        return exchange.failed(trouble("it broke", request=exchange.request))
    except RemoteError:
        return None


class TestRepeating:
    @pytest.mark.parametrize("trouble", TROUBLES)
    @pytest.mark.parametrize("call", [*REPEATABLE, *ONCE], ids=lambda call: f"{call.method}{call.path}")
    def test_only_a_call_that_keeps_nothing_twice_is_repeated_in_doubt(self, call, trouble):
        repeated = befall(exchange(call), trouble) is not None
        assert repeated == (trouble in UNHEARD + BUSY or (trouble in IN_DOUBT and call in REPEATABLE))

    def test_no_more_often_than_it_may_and_a_prediction_never_in_doubt(self):
        asked = exchange(ONCE[0], retries=5)
        assert all(befall(asked, each) is not None for each in [*UNHEARD, *BUSY])
        assert befall(asked, httpx.ConnectError) is None
        asked = exchange(ONCE[0])
        assert befall(asked, httpx.ConnectError) is not None
        assert befall(asked, httpx.ReadTimeout) is None

    def test_pauses_grow_until_they_are_as_long_as_they_get(self):
        pauses = [pause(again, None, 0.5) for again in [*range(1, 12), 5_000]]
        assert pauses == sorted(pauses)
        assert pauses[:2] == [FIRST / 2, FIRST]
        assert pauses[-1] == LONGEST / 2

    def test_a_pause_is_no_shorter_than_the_service_asks_for(self):
        assert befall(exchange(calls.health(), chance=0), 503, {"Retry-After": "30"}) == 30
        assert befall(exchange(calls.health(), chance=0.5), 429, {"Retry-After": "2"}) == 2 + FIRST / 2
        with pytest.raises(ServiceBusy) as raised:
            exchange(calls.health()).answered(httpx.Response(503, headers={"Retry-After": "31"}))
        assert raised.value.exit_code == ServiceAway.exit_code

    def test_a_delete_whose_answer_was_lost_may_find_nothing(self):
        asked = exchange(calls.delete("a"))
        befall(asked, httpx.ReadTimeout)
        assert asked.answered(httpx.Response(404)) is None
        asked = exchange(calls.delete("a"))
        befall(asked, httpx.ConnectError)
        with pytest.raises(RemoteError, match="404"):
            asked.answered(httpx.Response(404))

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            (None, None),
            ("5", 5),
            ("0.5", 0.5),
            ("-3", 0),
            ("soon", None),
            ("nan", None),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
            ("Wed, 21 Oct 2015 07:28:00", 0),
        ],
    )
    def test_retry_after_is_read(self, header, seconds):
        assert read_retry_after(header) == seconds


class TestCommands:
    async def test_the_service_of_the_settings_is_found_and_used_with_the_key(self, server):
        settings = Settings(port=httpx.URL(server.url).port, api_key=KEY)
        url = await running_url(settings, print)
        assert url == server.url.removesuffix("/api/v1")
        async with connected(url, settings) as client:
            assert (await client.model()).name == "simulated"

    async def test_a_service_that_is_away_is_said_to_be_at_once(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            nowhere = free.getsockname()[1]
        said = []
        assert await running_url(Settings(port=nowhere), said.append) is None
        away = f"no service answers at http://127.0.0.1:{nowhere}"
        assert away in said[0]
        with pytest.raises(ServiceAway, match=away):
            async with connected(f"http://127.0.0.1:{nowhere}", Settings()):
                pass
