"""`/metrics`: Prometheus reads it, and its counters are sums over all workers that never fall."""

from __future__ import annotations

import os

import httpx
import numpy as np
import psutil
import pytest
from litestar.exceptions import LitestarException
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from serving import eventually, serving

from kickserve.app import create_app
from kickserve.features import COUNT
from kickserve.metrics import BOUNDS, MODELS, ROUTES, Metrics
from kickserve.record import NUMBER, WIDTH, RecordBatch
from kickserve.shared import OTHER

METRICS = "http://test/metrics"
PREDICT = ("/api/v1/predict", "POST")


def samples_of(text, parse=text_string_to_metric_families):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def requests_to(samples, route, status):
    wanted = {("route", route), ("status", status)}
    return sum(value for (name, *labels), value in samples.items() if wanted <= {*labels})


async def test_prometheus_reads_what_was_sent(client, kick):
    bad = {**kick, "distance": 500}
    for body in (kick, kick, kick, {}, bad):
        await client.post("/predict", json=body)
    await client.post("/predict/batch", json=[kick] * 4)
    await client.post("/predict/batch", json=[kick, bad, {**bad, "angle": 91}])
    await client.post("/predict", content=b"{")
    record_id = (await client.post("/predict", json=kick)).json()["id"]
    for path in (record_id, "nothing"):
        await client.get(f"/predictions/{path}")
    await client.get("/nowhere")
    await client.post("/health", json={})
    await client.get("http://test/ui/deep/below")  # a mounted application has no template
    response = await client.get(METRICS)
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = samples_of(response.text)
    statuses = {status: requests_to(samples, PREDICT[0], status) for status in ("200", "400", "422")}
    assert statuses == {"200": 4, "400": 1, "422": 2}
    template = "/api/v1/predictions/{record_id}"
    assert [requests_to(samples, template, status) for status in ("200", "404")] == [1, 1]
    assert requests_to(samples, OTHER, "405") == 1
    assert requests_to(samples, OTHER, "404") >= 1
    assert not any("deep" in value for _, *labels in samples for _, value in labels)
    assert samples[("kickserve_predictions_total", ("model", "simulated"))] == 8
    assert samples[("kickserve_refused_kicks_total",)] == 5
    timed = (("method", "POST"), ("route", PREDICT[0]))
    assert samples[("kickserve_request_duration_seconds_count", *timed)] == 7
    assert samples[("kickserve_request_duration_seconds_bucket", ("le", "+Inf"), *timed)] == 7
    assert 0 < samples[("kickserve_request_duration_seconds_sum", *timed)] < 10
    assert samples[("kickserve_worker_starts_total", ("worker", "1"))] == 1
    assert samples[("kickserve_worker_memory_bytes", ("worker", "1"))] > 1e6
    assert samples[("kickserve_journal_bytes", ("worker", "1"))] >= 0


async def test_openmetrics_is_answered_where_it_is_accepted(client, kick):
    await client.post("/predict", json=kick)
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    response = await client.get(METRICS, headers=accept)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    samples = samples_of(response.text, openmetrics.text_string_to_metric_families)
    assert requests_to(samples, PREDICT[0], "200") == 1


async def scrape(url):
    """Ask on a connection of its own, so that the system chooses a worker."""
    async with httpx.AsyncClient(timeout=60) as client:
        response = await client.get(url)
        assert response.status_code == 200
        return samples_of(response.text)


async def test_any_worker_has_the_sum_of_all_also_when_they_are_replaced(tmp_path, kick):
    with serving(tmp_path, KICKSERVE_WORKERS="2") as server:
        for _ in range(40):
            async with httpx.AsyncClient() as client:
                await client.post(f"{server.url}/predict", json=kick)
        url = str(httpx.URL(server.url).copy_with(path="/metrics"))
        scrapes = [await scrape(url) for _ in range(12)]
        for worker in psutil.Process(server.process.pid).children():
            worker.terminate()

        async def replaced():
            scrapes.append(await scrape(url))
            starts = [count for (name, *_), count in scrapes[-1].items() if name.endswith("starts_total")]
            return sum(starts) == 4

        await eventually(replaced)
    for samples in scrapes:
        assert requests_to(samples, PREDICT[0], "200") == 40
        assert samples[("kickserve_predictions_total", ("model", "simulated"))] == 40
        assert samples[("kickserve_worker_memory_bytes", ("worker", "2"))] >= 0


async def test_a_request_whose_client_goes_away_is_counted(settings):
    app = create_app(settings)

    async def gone(_):
        raise ConnectionResetError

    path = "/api/v1/health/live"
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode()}
    with pytest.raises(LitestarException):
        await app({**scope, "query_string": b"", "headers": []}, lambda: None, gone)
    [reading] = app.metrics.read().routes
    assert reading.statuses == {"200": 1}  # the answer that would have been sent


@pytest.fixture
def metrics():
    metrics = Metrics()
    metrics.set_routes([PREDICT, ("/", "GET")])
    return metrics


def batch_of(probabilities, model="m"):
    numbers = np.zeros((len(probabilities), WIDTH), NUMBER)
    numbers[:, COUNT] = probabilities
    return RecordBatch(0, 0, "", model, "1", 0.0, 0.0, numbers.tobytes())


def test_requests_are_counted_by_status_and_duration(metrics):
    assert metrics.read().routes == []
    route = metrics.route(*PREDICT)
    for status, seconds in [(200, 0.00005), (200, 0.0001), (422, 0.0002), (200, 99)]:
        route.add(status, seconds)
    [reading] = metrics.read().routes
    assert reading.statuses == {"200": 3, "422": 1}
    assert reading.times == [2, 1, *[0] * (len(BOUNDS) - 2), 1]
    assert reading.seconds == pytest.approx(99.00035)
    for status in (0, 218, 599, 999):
        route.add(status, 0.01)
    assert metrics.read().routes[0].statuses[OTHER] == 4


@pytest.mark.parametrize("repeated", [1, 50])  # few are counted one by one, many as an array
def test_predictions_are_counted_by_model_and_probability(metrics, repeated):
    for _ in range(3):
        metrics.count_predictions(batch_of([0.0, 0.05, 0.7464, 1.0] * repeated, "a"))
    metrics.count_predictions(batch_of([0.999], "b"))
    [a, b] = metrics.read().models
    counted = {at: count for at, count in enumerate(a.bins) if count}
    assert (a.name, counted) == ("a", dict.fromkeys((0, 1, 14, 19), 3 * repeated))
    assert a.total == pytest.approx(3 * repeated * 1.7964)
    assert (b.name, b.predictions, b.bins[-1]) == ("b", 1, 1)


def test_more_routes_and_models_than_there_are_slots_count_as_other(metrics):
    metrics.set_routes((f"/{number:04}", "GET") for number in range(ROUTES + 10))
    for number in (0, ROUTES + 5):
        metrics.route(f"/{number:04}", "GET").add(200, 0.01)
    for number in range(2 * MODELS):
        metrics.count_predictions(batch_of([0.5], f"model {number}"))
    reading = metrics.read()
    assert [each.route for each in reading.routes] == [OTHER, "/0000"]
    assert len(reading.models) == MODELS
    assert {each.name: each.predictions for each in reading.models}[OTHER] == MODELS + 1


def test_a_long_name_is_cut_between_letters(metrics):
    metrics.set_model("é" * 100, "7")
    for _ in range(2):
        metrics.join_worker(0)
        metrics.count_predictions(batch_of([0.5], "é" * 100))
    assert metrics.read().workers[0].model == ("é" * 48, "7")
    assert [(each.name, each.predictions) for each in metrics.read().models] == [("é" * 48, 2)]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # pytest's process may have threads
def test_any_process_reads_the_counters_of_all_and_a_new_worker_continues_its_row():
    metrics = Metrics(2)
    metrics.set_routes([PREDICT])

    def work(number):
        metrics.join_worker(number)
        metrics.count("starts")
        metrics.count("refused_kicks", 3)
        metrics.route(*PREDICT).add(200, 0.01)
        metrics.count_predictions(batch_of([0.5] * 10))
        metrics.set_state(memory=1e6 * number, cpu=0.5, journal=7, lag=0.25, age=3, store_up=number == 1)

    for number in (0, 1, 1):
        pid = os.fork()
        if pid == 0:
            work(number)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    reading = metrics.read()
    assert reading.routes[0].statuses == {"200": 3}
    assert (reading.predictions, reading.counts["refused_kicks"]) == (30, 9)
    assert reading.workers == [(1, 0, 0.5, 7, 0.25, 3, 0, ("", "")), (2, 1e6, 0.5, 7, 0.25, 3, 1, ("", ""))]
    metrics.join_worker(1)
    assert metrics.read().workers[1] == (2, 0, 0, 0, 0, 0, 1, ("", ""))
