"""`/metrics`: Prometheus can read it, the numbers are those of all workers, and the key guards it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import httpx
import psutil
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from serving import serving

METRICS = "http://test/metrics"


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
    for _ in range(3):
        await client.post("/predict", json=kick)
    await client.post("/predict/batch", json=[kick] * 4)
    await client.post("/predict", json={})
    response = await client.get(METRICS)
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = samples_of(response.text)
    assert requests_to(samples, "/api/v1/predict", "200") == 3
    assert requests_to(samples, "/api/v1/predict", "422") == 1
    assert samples[("kickserve_predictions_total", ("model", "simulated"))] == 7
    assert samples[("kickserve_refused_kicks_total",)] == 1
    timed = (("method", "POST"), ("route", "/api/v1/predict"))
    assert samples[("kickserve_request_duration_seconds_count", *timed)] == 4
    assert samples[("kickserve_request_duration_seconds_bucket", ("le", "+Inf"), *timed)] == 4
    assert 0 < samples[("kickserve_request_duration_seconds_sum", *timed)] < 10
    assert samples[("kickserve_worker_starts_total", ("worker", "1"))] == 1
    assert samples[("kickserve_worker_memory_bytes", ("worker", "1"))] > 1e6
    assert samples[("kickserve_journal_bytes", ("worker", "1"))] >= 0


async def test_openmetrics_is_spoken_where_it_is_asked_for(client, kick):
    await client.post("/predict", json=kick)
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    response = await client.get(METRICS, headers=accept)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    samples = samples_of(response.text, openmetrics.text_string_to_metric_families)
    assert requests_to(samples, "/api/v1/predict", "200") == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-API-Key": "barley"}, 401),
        ({"Authorization": "Bearer barley"}, 401),
        ({"Authorization": "Basic sesame"}, 401),
        ({"X-API-Key": "sesame"}, 200),
        ({"Authorization": "Bearer sesame"}, 200),
        ({"Authorization": "bearer  sesame"}, 200),
    ],
)
async def test_a_service_with_a_key_shows_its_metrics_to_those_who_have_it(start, settings, headers, status):
    client = await start(replace(settings, api_key="sesame"))
    assert (await client.get(METRICS, headers=headers)).status_code == status


async def scrape(url, patience=5.0):
    """Ask on a connection of its own, so that the system chooses a worker."""
    async with httpx.AsyncClient(timeout=patience) as client:
        response = await client.get(url)
        assert response.status_code == 200
        return samples_of(response.text)


async def test_whichever_worker_is_asked_tells_the_sum_of_all(tmp_path, kick):
    with serving(tmp_path, KICKSERVE_WORKERS="2") as server:
        for _ in range(40):
            async with httpx.AsyncClient() as client:
                await client.post(f"{server.url}/predict", json=kick)
        url = str(httpx.URL(server.url).copy_with(path="/metrics"))
        scrapes = [await scrape(url) for _ in range(12)]
    for samples in scrapes:
        assert requests_to(samples, "/api/v1/predict", "200") == 40
        assert samples[("kickserve_predictions_total", ("model", "simulated"))] == 40
        assert samples[("kickserve_worker_memory_bytes", ("worker", "2"))] > 1e6


async def test_counts_go_on_when_a_worker_is_replaced(tmp_path, kick):
    with serving(tmp_path, KICKSERVE_WORKERS="2") as server:
        url = str(httpx.URL(server.url).copy_with(path="/metrics"))
        for _ in range(20):
            async with httpx.AsyncClient() as client:
                await client.post(f"{server.url}/predict", json=kick)
        for worker in psutil.Process(server.process.pid).children():
            worker.terminate()
        deadline = time.monotonic() + 20
        starts = 0.0
        while starts < 4 and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            samples = await scrape(url, 20)
            starts = sum(value for (name, *_), value in samples.items() if name.endswith("starts_total"))
        assert samples[("kickserve_predictions_total", ("model", "simulated"))] == 20
        assert starts == 4
