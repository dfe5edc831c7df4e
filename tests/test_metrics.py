"""What the service counts of itself: in shared memory, by route and status, never falling."""

from __future__ import annotations

import os
from typing import Any

import httpx
import numpy as np
import pytest
from litestar import asgi
from litestar.exceptions import LitestarException

from kickserve.app import create_app
from kickserve.auth import Authenticator
from kickserve.features import COUNT
from kickserve.metrics import BOUNDS, MODELS, ROUTES, Metrics
from kickserve.middleware import App, SecurityHeaders
from kickserve.record import NUMBER, WIDTH, RecordBatch
from kickserve.settings import Settings
from kickserve.shared import OTHER

PREDICT = ("/api/v1/predict", "POST")


@pytest.fixture
def metrics():
    metrics = Metrics()
    metrics.set_routes([PREDICT, ("/", "GET")])
    return metrics


def batch_of(probabilities, model="m"):
    numbers = np.zeros((len(probabilities), WIDTH), NUMBER)
    numbers[:, COUNT] = probabilities
    return RecordBatch(0, 0, "", model, "1", 0.0, 0.0, numbers.tobytes())


def reading_of(metrics, pair=PREDICT):
    [found] = [each for each in metrics.read().routes if (each.route, each.method) == pair]
    return found


def test_nothing_is_counted_at_first(metrics):
    reading = metrics.read()
    assert (reading.routes, reading.predictions) == ([], 0)
    assert [worker.starts for worker in reading.workers] == [0]


def test_requests_are_counted_by_route_status_and_time(metrics):
    meter = metrics.route(*PREDICT)
    for status, seconds in [(200, 0.00005), (200, 0.0001), (422, 0.0002), (200, 99)]:
        meter.add(status, seconds)
    reading = reading_of(metrics)
    assert reading.statuses == {"200": 3, "422": 1}
    assert reading.times == [2, 1, *[0] * (len(BOUNDS) - 2), 1]
    assert reading.seconds == pytest.approx(99.00035)


@pytest.mark.parametrize("status", [0, 218, 599, 999])
def test_a_status_that_is_not_told_apart_counts_as_other(metrics, status):
    metrics.route(*PREDICT).add(status, 0.01)
    assert reading_of(metrics).statuses == {OTHER: 1}


def test_a_route_that_is_not_known_counts_as_other(metrics):
    metrics.route("/nowhere", "GET").add(404, 0.01)
    metrics.route(PREDICT[0], "BREW").add(405, 0.01)
    assert reading_of(metrics, (OTHER, OTHER)).statuses == {"404": 1, "405": 1}


def test_more_routes_than_there_is_room_for_count_as_other(metrics):
    metrics.set_routes((f"/{number:04}", "GET") for number in range(ROUTES + 10))
    metrics.route("/0000", "GET").add(200, 0.01)
    metrics.route(f"/{ROUTES + 5:04}", "GET").add(200, 0.01)
    assert [each.route for each in metrics.read().routes] == [OTHER, "/0000"]


def test_kicks_are_counted(metrics):
    metrics.count_predictions(batch_of([0.5]))
    metrics.count_predictions(batch_of([0.5] * 2_000))
    metrics.count("refused_kicks", 3)
    metrics.count("failed_kicks", 2)
    metrics.count("store_errors")
    metrics.count("dead_letters")
    reading = metrics.read()
    assert reading.predictions == 2_001
    assert reading.counts == {
        "starts": 0,
        "refused_kicks": 3,
        "failed_kicks": 2,
        "store_errors": 1,
        "dead_letters": 1,
    }


@pytest.mark.parametrize("repeated", [1, 50])  # few are counted one by one, many as an array
def test_answers_are_counted_by_model_and_probability(metrics, repeated):
    for _ in range(3):
        metrics.count_predictions(batch_of([0.0, 0.05, 0.7464, 1.0] * repeated, "a"))
    metrics.count_predictions(batch_of([0.999], "b"))
    [a, b] = metrics.read().models
    counted = {at: count for at, count in enumerate(a.bins) if count}
    assert (a.name, counted) == ("a", {0: 3 * repeated, 1: 3 * repeated, 14: 3 * repeated, 19: 3 * repeated})
    assert a.total == pytest.approx(3 * repeated * 1.7964)
    assert (b.name, b.predictions, b.bins[-1]) == ("b", 1, 1)


def test_more_models_than_there_is_room_for_count_as_other(metrics):
    for number in range(2 * MODELS):
        metrics.count_predictions(batch_of([0.5], f"model {number}"))
    found = {each.name: each.predictions for each in metrics.read().models}
    assert len(found) == MODELS
    assert found[OTHER] == MODELS + 1


def test_a_long_name_is_cut_between_letters_and_the_model_that_is_served_is_told(metrics):
    metrics.set_model("é" * 100, "7")
    metrics.count_predictions(batch_of([0.5], "é" * 100))
    metrics.join_worker(0)
    metrics.count_predictions(batch_of([0.5], "é" * 100))
    assert metrics.read().workers[0].model == ("é" * 48, "7")
    assert [(each.name, each.predictions) for each in metrics.read().models] == [("é" * 48, 2)]


def in_a_fork(action):
    pid = os.fork()
    if pid == 0:
        action()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # pytest's process may have threads
def test_any_process_reads_what_all_have_written():
    metrics = Metrics(3)
    metrics.set_routes([PREDICT])

    def work(number):
        metrics.join_worker(number)
        metrics.count("starts")
        metrics.route(*PREDICT).add(200, 0.01)
        metrics.count_predictions(batch_of([0.5] * number))
        metrics.set_state(memory=1e6 * number, cpu=0.5, journal=7, lag=0.25, age=3, store_up=number == 1)

    for number in range(3):
        in_a_fork(lambda number=number: work(number))
    assert reading_of(metrics).statuses == {"200": 3}
    assert metrics.read().predictions == 3
    assert metrics.read().workers == [
        (1, 1e6 * number, 0.5, 7, 0.25, 3, number == 1, ("", "")) for number in range(3)
    ]


def test_one_that_takes_the_place_of_another_goes_on_with_its_counts(metrics):
    metrics.count("starts")
    metrics.route(*PREDICT).add(200, 0.01)
    metrics.set_state(memory=1, cpu=1, journal=1, lag=1, age=1, store_up=False)
    metrics.join_worker(0)
    metrics.count("starts")
    metrics.route(*PREDICT).add(200, 0.01)
    assert reading_of(metrics).statuses == {"200": 2}
    assert metrics.read().workers == [(2, 0, 0, 0, 0, 0, 1, ("", ""))]


async def test_a_request_is_counted_under_its_template(start, settings, kick):
    client = await start(settings)
    metrics = client.app.state.service.metrics
    record_id = (await client.post("/predict", json=kick)).json()["id"]
    await client.get(f"/predictions/{record_id}")
    await client.get("/predictions/nothing")
    await client.get("/nowhere")
    await client.post("/health", json={})
    read = reading_of(metrics, ("/api/v1/predictions/{record_id}", "GET"))
    assert read.statuses == {"200": 1, "404": 1}
    assert reading_of(metrics).statuses == {"200": 1}
    assert reading_of(metrics, (OTHER, OTHER)).statuses == {"404": 1, "405": 1}


async def test_a_mounted_application_counts_as_other(metrics):
    @asgi("/ui", is_mount=True, copy_scope=True)
    async def mounted(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001  the framework asks for all
        await send({"type": "http.response.start", "status": 304, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    settings = Settings()
    app = App(
        [mounted],
        openapi_config=None,
        settings=settings,
        authenticator=Authenticator(settings),
        security_headers=SecurityHeaders(settings),
        metrics=metrics,
        wrappers=(),
        router_wrappers=(),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as client:
        await client.get("/ui/deep/below")
    assert reading_of(metrics, (OTHER, OTHER)).statuses == {"304": 1}


async def test_kicks_answered_and_refused_are_counted(start, settings, kick):
    client = await start(settings)
    bad = {**kick, "distance": 500}
    assert (await client.post("/predict", json=kick)).status_code == 200
    assert (await client.post("/predict/batch", json=[kick] * 5)).status_code == 200
    assert (await client.post("/predict", json=bad)).status_code == 422
    assert (await client.post("/predict", content=b"{")).status_code == 400
    assert (await client.post("/predict/batch", json=[kick, bad, {**bad, "angle": 91}])).status_code == 422
    reading = client.app.state.service.metrics.read()
    assert (reading.predictions, reading.counts["refused_kicks"]) == (6, 4)


async def test_a_worker_tells_how_it_is(start, settings):
    client = await start(settings)
    [worker] = client.app.state.service.metrics.read().workers
    assert worker.starts == 1
    assert worker.memory > 1e6
    assert worker.journal == worker.lag == 0


async def test_a_client_that_goes_away_is_counted_too(settings):
    app = create_app(settings)

    async def gone(_):
        raise ConnectionResetError

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/health/live",
        "raw_path": b"/api/v1/health/live",
        "query_string": b"",
        "headers": [],
    }
    with pytest.raises(LitestarException):
        await app(scope, lambda: None, gone)
    [reading] = app.state.service.metrics.read().routes
    assert reading.statuses == {"200": 1}  # what would have been answered
