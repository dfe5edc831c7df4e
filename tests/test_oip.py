"""The Open Inference Protocol: the same answers, checks and records as over `/api/v1`, in its own words."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from dataclasses import replace
from urllib.parse import quote

import httpx
import msgspec
import numpy as np
import pytest
from bent import bent
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from serving import serving

from kickserve.app import create_app
from kickserve.features import FLAGS, NAMES, named
from kickserve.linear import load_default
from kickserve.openapi import EXAMPLE
from kickserve.settings import Settings
from kickserve_data.simulate import simulate
from kickserve_oip.inputs import read
from kickserve_oip.messages import BadInference
from kickserve_testing.app import running

V2 = "http://test/v2"
INFER = f"{V2}/models/simulated/infer"
LENGTH = "Inference-Header-Content-Length"
ROW = [float(value) for value in EXAMPLE.values()]
KICKS = simulate(40, 3).matrix
DTYPES = {
    "FP64": "<f8",
    "FP32": "<f4",
    "BOOL": "u1",
    "INT8": "i1",
    "UINT8": "u1",
    "INT64": "<i8",
    "UINT16": "<u2",
}
ALL = ["prediction", "confidence", "low", "high", "id", "warnings"]


def matrix_input(rows, datatype="FP64", *, nested=True, name="kicks"):
    rows = np.asarray(rows, dtype=np.float64)
    data = rows.tolist() if nested else rows.ravel().tolist()
    return {"name": name, "shape": [*rows.shape], "datatype": datatype, "data": data}


def column_inputs(rows, *, width=False, datatypes=None):
    inputs = []
    for name, column in zip(NAMES, np.asarray(rows, dtype=np.float64).T, strict=True):
        datatype = (datatypes or {}).get(name, "FP64")
        values = column.astype(DTYPES[datatype])
        values = values.astype(bool) if datatype == "BOOL" else values
        shape = [len(column), 1] if width else [len(column)]
        inputs.append({"name": name, "shape": shape, "datatype": datatype, "data": values.tolist()})
    return inputs


def with_binary(request):
    """Put the values of all inputs behind the JSON; return body and headers."""
    parts, inputs = [], []
    for each in request["inputs"]:
        part = np.array(each["data"]).astype(DTYPES[each["datatype"]]).tobytes()
        rest = {name: value for name, value in each.items() if name != "data"}
        inputs.append({**rest, "parameters": {"binary_data_size": len(part)}})
        parts.append(part)
    head = json.dumps({**request, "inputs": inputs}).encode()
    return head + b"".join(parts), {LENGTH: str(len(head))}


def outputs_of(response):
    assert response.status_code == 200, response.text
    return {each["name"]: each["data"] for each in response.json()["outputs"]}


@pytest.fixture
def settings(settings):
    return replace(settings, plugins=("storage", "oip"))  # the others take their time to start


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """Ask an app that lives for all tests that leave nothing in it; returns the response."""
    folder = tmp_path_factory.mktemp("oip")
    settings = Settings(database_url="sqlite://", journal_dir=folder, plugins=("storage", "oip"))
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    with asyncio.Runner() as runner:
        life = running(app)
        runner.run(life.__aenter__())
        named = {"base_url": "http://localhost/api/v1", "headers": {"Host": "localhost"}}
        client = httpx.AsyncClient(transport=transport, **named)
        yield lambda method, url, **more: runner.run(client.request(method, url, **more))
        runner.run(client.aclose())
        runner.run(life.__aexit__(None, None, None))


@pytest.fixture
def refused(ask):
    """Send a request that is refused, and return the problem; nothing is kept."""

    def refused(body, headers=None):
        before = newest(ask)
        response = ask("POST", INFER, content=body, headers=headers)
        assert response.status_code == 400
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert problem["detail"] == problem["error"]
        assert problem["request_id"] == response.headers["x-request-id"]
        assert newest(ask) == before
        return problem

    return refused


def newest(ask):
    return ask("GET", "/predictions?limit=1").json()


async def kept(client):
    return len((await client.get("/predictions?limit=10000")).json())


class Named:
    """The packaged model under another name, or without an interval."""

    def __init__(self, **changes):
        self._model = load_default()
        self.card = msgspec.structs.replace(self._model.card, **changes)

    def predict(self, matrix):
        answer = self._model.predict(matrix)
        return answer if self.card.interval else answer._replace(low=None, high=None)

    def warnings(self, row):
        return self._model.warnings(row)

    def out_of_domain(self, matrix):
        return self._model.out_of_domain(matrix)


class TestMetadata:
    async def test_the_server_names_itself_and_its_extensions(self, client):
        answer = (await client.get(V2)).json()
        assert answer == {"name": "kickserve", "version": "1.0.0", "extensions": ["binary_tensor_data"]}

    @pytest.mark.parametrize("name", ["simulated", "kickserve"])
    async def test_the_model_names_its_inputs_and_outputs(self, client, name):
        card = load_default().card
        answer = (await client.get(f"{V2}/models/{name}")).json()
        assert answer["name"] == "simulated"
        assert answer["versions"] == [card.revision]
        assert answer["platform"] == "kickserve_linear"
        assert [each["name"] for each in answer["inputs"]] == [*NAMES]
        assert {each["name"] for each in answer["inputs"] if each["datatype"] == "BOOL"} == {*FLAGS}
        assert [each["name"] for each in answer["outputs"]] == ALL
        assert all(each["shape"] == [-1] for each in answer["inputs"] + answer["outputs"])
        assert (await client.get(f"{V2}/models/{name}/versions/{card.revision}")).json() == answer

    async def test_a_model_without_an_interval_does_not_promise_one(self, start, settings):
        client = await start(settings, model=Named(interval=None))
        outputs = (await client.get(f"{V2}/models/simulated")).json()["outputs"]
        assert [each["name"] for each in outputs] == ["prediction", "confidence", "id", "warnings"]
        body = {"inputs": [matrix_input(KICKS)]}
        assert [*outputs_of(await client.post(INFER, json=body))] == [
            "prediction",
            "confidence",
            "id",
            "warnings",
        ]
        refused = await client.post(INFER, json={**body, "outputs": [{"name": "low"}]})
        assert refused.status_code == 400
        assert "this model gives no interval" in refused.json()["error"]

    @pytest.mark.parametrize("end", ["", "/ready", "/infer"])
    @pytest.mark.parametrize("path", ["other", "simulated/versions/7", "some/body"])
    async def test_an_unknown_name_or_version_gets_those_that_are_served(self, client, path, end):
        response = await client.request("POST" if end == "/infer" else "GET", f"{V2}/models/{path}{end}")
        assert response.status_code == 404
        error = response.json()["error"]
        assert "'simulated', also called 'kickserve'" in error
        assert load_default().card.revision in error

    @pytest.mark.parametrize("name", ["owner/name", "ü & 100 %?", "versions"])
    async def test_names_that_need_escaping_are_found(self, start, settings, name):
        client = await start(settings, model=Named(name=name, revision="r-1"))
        quoted = "/" + quote(name)
        for end in ("", "/versions/r-1"):
            assert (await client.get(f"{V2}/models{quoted}{end}")).json()["name"] == name
            assert (await client.get(f"{V2}/models{quoted}{end}/ready")).json() == {
                "name": name,
                "ready": True,
            }
            answer = await client.post(
                f"{V2}/models{quoted}{end}/infer", json={"inputs": [matrix_input([ROW])]}
            )
            assert answer.json()["model_name"] == name
            assert answer.json()["model_version"] == "r-1"


async def test_live_and_ready_and_not_ready_when_the_service_ends(client):
    paths = ("/health/live", "/health/ready", "/models/simulated/ready")
    answers = [await client.get(V2 + path) for path in paths]
    assert [each.json() for each in answers] == [
        {"live": True},
        {"live": True, "ready": True},
        {"name": "simulated", "ready": True},
    ]
    client.app.drain()
    answers = [await client.get(V2 + path) for path in paths]
    assert [each.status_code for each in answers] == [200, 503, 503]
    assert answers[1].json() == {"live": True, "ready": False}


async def test_metadata_of_the_model_needs_the_key(start, settings):
    client = await start(replace(settings, api_key="secret"))
    for path in ("", "/health/live", "/health/ready"):
        assert (await client.get(V2 + path)).status_code == 200
    for path in ("", "/ready", "/versions/1"):
        url = f"{V2}/models/simulated{path}"
        assert (await client.get(url)).status_code == 401
        assert (await client.get(url, headers={"X-API-Key": "secret"})).status_code in {200, 404}


class TestInference:
    @pytest.mark.parametrize("binary", [False, True])
    @pytest.mark.parametrize(
        "inputs",
        [
            [matrix_input(KICKS)],
            [matrix_input(KICKS, nested=False, name="any other")],
            column_inputs(KICKS),
            column_inputs(KICKS, width=True),
            column_inputs(KICKS)[::-1],
            column_inputs(KICKS, datatypes=dict.fromkeys(FLAGS, "BOOL")),
            column_inputs(
                KICKS, datatypes=dict(zip(FLAGS, ["INT8", "UINT8", "INT64", "UINT16"], strict=False))
            ),
        ],
        ids=["nested", "flat", "columns", "columns of one", "another order", "booleans", "integers"],
    )
    async def test_answers_as_predict_does_however_the_kicks_are_sent(self, client, inputs, binary):
        request = {"inputs": inputs}
        body, headers = with_binary(request) if binary else (json.dumps(request).encode(), {})
        found = outputs_of(await client.post(INFER, content=body, headers=headers))
        said = (await client.post("/predict/batch", json=[named(row) for row in KICKS.tolist()])).json()
        assert found["prediction"] == [each["prediction"] for each in said]
        assert found["confidence"] == [each["confidence"] for each in said]
        assert [*map(list, zip(found["low"], found["high"], strict=True))] == [
            each["interval"] for each in said
        ]
        assert found["warnings"] == ["; ".join(each.get("warnings", ())) for each in said]

    async def test_an_fp32_is_the_same_value_as_text_and_as_bytes(self, client):
        request = {"inputs": [matrix_input(KICKS + 1e-9 * (KICKS > 1), "FP32")]}
        body, headers = with_binary(request)
        found = [
            outputs_of(await client.post(INFER, json=request)),
            outputs_of(await client.post(INFER, content=body, headers=headers)),
        ]
        assert found[0]["prediction"] == found[1]["prediction"]
        record = (await client.get(f"/predictions/{found[1]['id'][0]}")).json()
        assert record["distance"] == float(np.float32(request["inputs"][0]["data"][0][1]))

    async def test_every_kick_is_kept_under_the_id_that_is_answered(self, client):
        count = 4_500
        rows = simulate(count, 5).matrix
        found = outputs_of(await client.post(INFER, json={"inputs": [matrix_input(rows)]}))
        assert len({*found["id"]}) == count
        for at in {0, count // 2, count - 1}:
            record = (await client.get(f"/predictions/{found['id'][at]}")).json()
            assert [float(record[name]) for name in NAMES] == rows[at].tolist()
            assert record["prediction"] == found["prediction"][at]
            assert record["revision"] == load_default().card.revision
        assert await kept(client) == count
        judged = await client.put("/predictions/outcomes", json=[{"id": found["id"][0], "success": True}])
        assert judged.json() == {"kept": 1, "unknown": []}

    async def test_outputs_come_in_the_order_of_the_request(self, client):
        body = {"inputs": [matrix_input(KICKS)], "outputs": [{"name": "id"}, {"name": "prediction"}]}
        answer = (await client.post(INFER, json=body)).json()
        assert [(each["name"], each["datatype"], each["shape"]) for each in answer["outputs"]] == [
            ("id", "BYTES", [40]),
            ("prediction", "FP64", [40]),
        ]

    @pytest.mark.parametrize("count", [1, 40])
    async def test_outputs_come_binary_where_that_is_asked_for(self, client, count):
        asked = [
            {"name": "prediction"},
            {"name": "id", "parameters": {"binary_data": False}},
            {"name": "warnings"},
        ]
        body = {
            "inputs": [matrix_input(KICKS[:count])],
            "outputs": asked,
            "parameters": {"binary_data_output": True},
        }
        response = await client.post(INFER, json=body)
        assert response.headers["content-type"] == "application/octet-stream"
        length = int(response.headers[LENGTH])
        prediction, record_id, warnings = json.loads(response.content[:length])["outputs"]
        assert prediction["parameters"] == {"binary_data_size": 8 * count}
        assert "data" not in prediction
        assert len(record_id["data"]) == count
        assert warnings["parameters"] == {"binary_data_size": len(response.content) - length - 8 * count}
        values = np.frombuffer(response.content, "<f8", count, length)
        assert np.allclose(values, load_default().predict(KICKS[:count]).probability, rtol=1e-10)

    async def test_null_is_the_same_as_a_missing_member(self, client):
        tensor = {**matrix_input([ROW]), "parameters": None}
        output = {"name": "prediction", "parameters": None}
        for outputs in (None, [], [output]):
            body = {"inputs": [tensor], "id": None, "parameters": None, "outputs": outputs}
            answer = (await client.post(INFER, json=body)).json()
            assert "id" not in answer
            assert len(answer["outputs"]) == (1 if outputs else 6)


def changed(**changes):
    return {"inputs": [{**matrix_input(KICKS), **changes}]}


def without(*names):
    return {"inputs": [each for each in column_inputs(KICKS) if each["name"] not in names]}


def distance_of(**changes):
    return {
        "inputs": [
            {**each, **(changes if each["name"] == "distance" else {})} for each in column_inputs(KICKS)
        ]
    }


def at(row, column, value):
    rows = KICKS.copy()
    rows[row, column] = value
    return rows


REFUSED = {
    "no inputs": ({"inputs": []}, "inputs is empty"),
    "inputs left out": ({}, "missing required field `inputs`"),
    "too many": (changed(shape=[100_001, 11]), "this one holds 100,001"),
    "fewer than said": (changed(shape=[41, 11]), "means 41 rows, and 40 were sent"),
    "a ragged matrix": (changed(data=[*KICKS[:39].tolist(), ROW[:10]]), "row 39 holds 10 values"),
    "no data": ({"inputs": [{"name": "k", "shape": [1, 11], "datatype": "FP64"}]}, "neither data nor"),
    "a fraction among integers": (changed(datatype="INT64"), "INT64"),
    "more than fits": (changed(datatype="INT8", shape=[1, 11], data=[200] * 11), "<= 127"),
    "huge": (changed(datatype="UINT64", shape=[1, 11], data=[10**400] * 11), "whole numbers from 0"),
    "in shared memory": (changed(parameters={"shared_memory_region": "r"}), "shared memory is not among"),
    "far": (
        {"inputs": [matrix_input(at(3, 1, 500))]},
        "row 3, column 1 (distance): 500.0 must be a number from 2",
    ),
    "far, in columns": (
        {"inputs": column_inputs(at(3, 1, 500))},
        "the tensor 'distance', row 3: 500.0 must be",
    ),
    "beyond FP32": (changed(datatype="FP32", data=(KICKS + 1e300).tolist()), "inf must be a number from"),
    "a column left out": (without("angle"), "missing: angle"),
    "a column twice": ({"inputs": [*column_inputs(KICKS), column_inputs(KICKS)[2]]}, "there twice: angle"),
    "a longer column": (distance_of(shape=[41], data=[30.0] * 41), "it holds 41 kicks, and 'time_norm' 40"),
    "a nested vector": (distance_of(data=[[30.0]] * 40), "its data is nested"),
    "an unknown output": ({**changed(), "outputs": [{"name": "odds"}]}, "there are prediction, confidence"),
    "an output twice": ({**changed(), "outputs": [{"name": "id"}] * 2}, "asks twice for id"),
    "classes": (
        {**changed(), "outputs": [{"name": "id", "parameters": {"classification": 1}}]},
        "classification is not among",
    ),
    "a flag that is none": (
        {**changed(), "parameters": {"binary_data_output": "yes"}},
        "true or false, not yes",
    ),
}


class TestRefusals:
    @pytest.mark.parametrize(("body", "word"), REFUSED.values(), ids=REFUSED)
    def test_the_fault_is_named_in_both_shapes_and_nothing_is_kept(self, refused, body, word):
        assert word in refused(json.dumps(body))["error"]

    def test_names_row_field_and_value_one_by_one(self, refused):
        rows = at(3, 1, 500)
        rows[7, 0] = -1
        assert refused(json.dumps({"inputs": [matrix_input(rows)]}))["errors"] == [
            {"field": "distance", "detail": "must be a number from 2 to 100 m", "value": 500.0, "row": 3},
            {"field": "time_norm", "detail": "must be a number from 0 to 1", "value": -1.0, "row": 7},
        ]

    @pytest.mark.parametrize("body", [b"", b'{"inputs": [{"data": [NaN]}]}', b'{"a":' + b"[" * 100_000])
    def test_a_body_without_json_is_refused(self, refused, body):
        assert "the body is no JSON" in refused(body)["error"]

    @pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (-np.inf, "-inf")], ids=["nan", "-inf"])
    @pytest.mark.parametrize("datatype", ["FP32", "FP64"])
    def test_bytes_of_no_number_are_refused(self, refused, datatype, value, shown):
        problem = refused(*with_binary({"inputs": [matrix_input(at(2, 4, value), datatype)]}))
        assert f"row 2, column 4 (precipitation_probability): {shown} must be" in problem["error"]
        assert problem["errors"][0]["value"] == shown

    @pytest.mark.parametrize(
        ("length", "change", "word"),
        [
            (None, {}, "does the header Inference-Header-Content-Length say where it ends?"),
            ("x", {}, "must be a number of bytes, not 'x'"),
            ("1" * 5000, {}, "must be a number of bytes"),
            ("٣", {}, "must be a number of bytes"),
            ("999999", {}, "says 999999, and the body has"),
            ("3", {}, "(read up to its byte 3, as the header Inference-Header-Content-Length says)"),
            ("", {"binary_data_size": 80}, "88 bytes follow the JSON, and those of the tensors are 80"),
            ("", {"binary_data_size": 96}, "its binary_data_size is 96, and 88 bytes are left"),
            ("", {"binary_data_size": True}, "must be a number of bytes, not True"),
            ("", {"binary_data_size": None}, "88 bytes follow the JSON, and those of the tensors are 0"),
        ],
    )
    def test_bytes_that_do_not_add_up_are_refused(self, refused, length, change, word):
        tensor = {"name": "kicks", "shape": [1, 11], "datatype": "FP64"}
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 88, **change}}]}).encode()
        headers = {} if length is None else {LENGTH: (length or str(len(head))).encode()}
        assert word in refused(head + np.array(ROW).tobytes(), headers)["error"]

    @pytest.mark.parametrize(
        "crowd",
        [
            b'{"inputs":[{"name":"k","shape":[1,11],"datatype":"FP64","data":[1%b]}]}' % (b",1" * 2_000_000),
            b'{"inputs":[{"name":"k","shape":[1,11],"datatype":"FP64","data":[1]%b}]}'
            % (b',"a":{}' * 600_000),
            b'{"parameters":{"a":[[]%b]}}' % (b",[]" * 1_300_000),
        ],
    )
    def test_a_body_beyond_any_request_is_not_decoded(self, crowd):
        tracemalloc.start()
        try:
            with pytest.raises(BadInference, match="holds far more than"):
                read(crowd, None)
            assert tracemalloc.get_traced_memory()[1] < 2 * len(crowd)
        finally:
            tracemalloc.stop()

    def test_bytes_without_their_header_are_refused_with_its_name(self, refused):
        tensor = {
            "name": "k",
            "shape": [9000, 11],
            "datatype": "FP64",
            "parameters": {"binary_data_size": 792_000},
        }
        body = json.dumps({"inputs": [tensor]}).encode() + bytes(range(256)) * 4_000
        assert "does the header Inference-Header-Content-Length say" in refused(body)["error"]

    async def test_a_body_is_read_up_to_the_limit_of_batches(self, start, settings):
        client = await start(replace(settings, body_max=100, batch_body_max=5_000))
        assert (await client.post(INFER, json={"inputs": [matrix_input(KICKS[:20])]})).status_code == 200
        response = await client.post(INFER, json={"inputs": [matrix_input(simulate(200, 1).matrix)]})
        assert response.status_code == 413
        assert "KICKSERVE_BATCH_BODY_MAX" in response.json()["error"]

    async def test_errors_elsewhere_stay_as_they_were(self, client):
        assert "error" not in (await client.post("/predict", json={})).json()
        assert "error" not in (await client.get("http://test/v2x")).json()


def test_any_malformed_request_is_refused_clearly_and_nothing_is_kept(ask):
    right = json.dumps(
        {"inputs": [matrix_input([ROW])], "outputs": [{"name": "id"}], "parameters": {}}
    ).encode()
    seen = set()

    @hypothesis_settings(max_examples=60, deadline=None)
    @given(bent(right), st.none() | st.integers(0, 300).map(str))
    def holds(body, length):
        before = newest(ask)
        response = ask("POST", INFER, content=body, headers={} if length is None else {LENGTH: length})
        seen.add(response.status_code)
        if response.status_code != 200:  # some changes leave a request as right as it was
            assert response.status_code == 400
            assert response.json()["error"] == response.json()["detail"]
            assert newest(ask) == before

    holds()
    assert 400 in seen


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oip")
    with serving(folder, API_KEY="secret", KICKSERVE_PLUGINS="storage,oip") as server:
        yield server


def key():
    return {"X-API-Key": "secret"}  # a new one each time: tritonclient writes into what it is given


class TestTritonClient:
    """Triton's own client, on a real server."""

    @pytest.fixture
    def triton(self):
        import tritonclient.http

        return tritonclient.http

    @pytest.fixture
    def client(self, server, triton):
        url = httpx.URL(server.url)
        client = triton.InferenceServerClient(f"{url.host}:{url.port}")
        yield client
        client.close()

    def said(self, server, rows):
        response = httpx.post(
            f"{server.url}/predict/batch", json=[named(row) for row in rows.tolist()], headers=key()
        )
        return [each["prediction"] for each in response.json()]

    @pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
    def test_a_matrix_is_answered_as_predict_does(self, server, client, triton, binary):
        rows = np.ascontiguousarray(KICKS)
        tensor = triton.InferInput("kicks", [*rows.shape], "FP64")
        tensor.set_data_from_numpy(rows, binary_data=binary)
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("prediction", "id")]
        result = client.infer("simulated", [tensor], request_id="a", outputs=outputs, headers=key())
        assert result.get_response()["id"] == "a"
        assert np.allclose(result.as_numpy("prediction"), self.said(server, rows), rtol=1e-10)
        ids = [str(each, "utf-8") if isinstance(each, bytes) else each for each in result.as_numpy("id")]
        record = httpx.get(f"{server.url}/predictions/{ids[-1]}", headers=key()).json()
        assert [float(record[name]) for name in NAMES] == rows[-1].tolist()

    def test_columns_as_the_metadata_has_them_are_answered_with_all_outputs(self, server, client, triton):
        metadata = client.get_model_metadata("kickserve", headers=key())
        inputs = []
        for each, column in zip(metadata["inputs"], KICKS.T, strict=True):
            values = column.astype(bool if each["datatype"] == "BOOL" else np.float64)
            inputs.append(triton.InferInput(each["name"], [len(values)], each["datatype"]))
            inputs[-1].set_data_from_numpy(values)
        version = metadata["versions"][0]
        result = client.infer("kickserve", inputs, model_version=version, headers=key())
        assert [each["name"] for each in result.get_response()["outputs"]] == ALL
        assert np.allclose(result.as_numpy("prediction"), self.said(server, KICKS), rtol=1e-10)
        assert result.as_numpy("warnings").shape == (40,)

    def test_it_shows_the_errors_of_the_service(self, client, triton):
        tensor = triton.InferInput("kicks", [40, 11], "FP32")
        tensor.set_data_from_numpy(at(3, 1, 500).astype(np.float32))
        with pytest.raises(
            triton.InferenceServerException, match=r"row 3, column 1 \(distance\): 500\.0 must be"
        ):
            client.infer("simulated", [tensor], headers=key())
        with pytest.raises(triton.InferenceServerException, match="no model 'other' is served"):
            client.infer("other", [tensor], headers=key())
        with pytest.raises(triton.InferenceServerException, match="without Content-Encoding"):
            client.infer("simulated", [tensor], headers=key(), request_compression_algorithm="gzip")
        with pytest.raises(triton.InferenceServerException, match="X-API-Key"):
            client.infer("simulated", [tensor])
