"""Traces: a collector of OTLP over HTTP gets a span of each request, named by its route."""

from __future__ import annotations

import json
import os

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from receiver import receiving
from serving import serving

from kickserve.settings import Settings
from kickserve_otel import OtelPlugin

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in [*os.environ]:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


def attributes_of(each):
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in each.attributes}


def test_a_collector_gets_a_span_of_each_request_of_all_workers(tmp_path, kick):
    with receiving() as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "KICKSERVE_WORKERS": "2", "API_KEY": "a"}
        with serving(tmp_path, **variables) as server:
            sent = {"traceparent": PARENT, "X-API-Key": "a"}
            answer = httpx.post(f"{server.url}/predict", json=kick, headers=sent)
            record_id = answer.json()["id"]
            httpx.get(f"{server.url}/predictions/{record_id}")
            httpx.get(f"{server.url}/nowhere")
            assert server.end() == 0
    assert {path for path, *_ in collector.taken} == {"/v1/traces"}
    requests = [ExportTraceServiceRequest.FromString(body) for *_, body in collector.taken]
    resources = [each for request in requests for each in request.resource_spans]
    assert {attributes_of(each.resource)["service.name"] for each in resources} == {"kickserve"}
    spans = [span for each in resources for scope in each.scope_spans for span in scope.spans]
    by_name = {span.name: span for span in spans}
    assert set(by_name) == {"POST /api/v1/predict", "GET /api/v1/predictions/{record_id}", "GET"}
    predict = by_name["POST /api/v1/predict"]
    assert predict.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    found = attributes_of(predict)
    assert found["http.route"] == "/api/v1/predict"
    assert found["kickserve.request_id"] == answer.headers["x-request-id"]
    assert found["kickserve.key"] == "default"
    assert 200 in {found.get("http.status_code"), found.get("http.response.status_code")}


def test_a_collector_that_is_away_is_not_waited_for_at_the_end(tmp_path, kick):
    with serving(
        tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_SERVICE_NAME="mine"
    ) as server:
        assert httpx.post(f"{server.url}/predict", json=kick).status_code == 200
        assert server.end() == 0


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "a"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
    ],
)
def test_requests_are_traced_only_where_the_variables_ask_for_traces(monkeypatch, variables, wanted):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    async def app(scope, receive, send):
        pass

    assert (OtelPlugin(Settings()).wrap(app) is not app) is wanted


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_PROPAGATORS", "tracecontext,b3multi"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
    ],
)
def test_variables_that_can_not_be_used_cost_the_traces_and_not_the_service(tmp_path, kick, variable, value):
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", variable: value}
    with serving(tmp_path, KICKSERVE_PLUGINS="storage,otel", **variables) as server:
        assert httpx.post(f"{server.url}/predict", json=kick).status_code == 200
        assert server.end() == 0
    [line] = [json.loads(line) for line in server.log if "not traced" in line]
    assert variable in line["event"]
    assert "exception" not in line
