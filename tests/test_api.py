"""The API as clients see it: the real app, model and store, without a socket."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from dataclasses import replace

import httpx
import msgspec
import pytest
from conftest import configured

from kickserve.features import NAMES
from kickserve.schemas import Kick, Record


async def next_millisecond():
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == now:
        await asyncio.sleep(0)


async def page_through(client, path):
    """Follow the links to the next page; return the records of all pages."""
    records = []
    while path:
        response = await client.get(path)
        assert response.status_code == 200
        records.append(response.json())
        path = response.links.get("next", {}).get("url")
        path = path and path.removeprefix("/api/v1")
    return records


class TestPredict:
    async def test_answers_with_an_id_and_five_members_at_most(self, client, kick):
        answer = (await client.post("/predict", json=kick)).json()
        assert set(answer) == {"id", "prediction", "confidence", "interval", "model"}
        assert uuid.UUID(answer["id"]).version == 7

    async def test_a_server_may_leave_out_the_clients_address(self, client, kick):
        async def without_client(scope, receive, send):
            del scope["client"]  # the ASGI specification leaves it to the server
            await client.app(scope, receive, send)

        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(without_client), base_url=client.base_url
        ) as other:
            assert (await other.post("/predict", json=kick)).status_code == 200

    @pytest.mark.parametrize("number", [int, float])
    async def test_takes_flags_as_numbers_and_a_mark_before_the_body(self, client, kick, number):
        as_numbers = {
            name: number(value) if isinstance(value, bool) else value for name, value in kick.items()
        }
        first = (await client.post("/predict", json=kick)).json()
        body = b"\xef\xbb\xbf" + msgspec.json.encode(as_numbers)
        for path, sent in [("/predict", body), ("/predict/batch", b"\xef\xbb\xbf[%b]" % body[3:])]:
            answer = (await client.post(path, content=sent)).json()
            answer = answer[0] if isinstance(answer, list) else answer
            assert answer["prediction"] == first["prediction"]


class TestBatch:
    async def test_answers_come_in_the_order_of_the_kicks(self, client, kick):
        kicks = [{**kick, "distance": distance} for distance in (20, 50, 30)]
        answers = (await client.post("/predict/batch", json=kicks)).json()
        alone = [(await client.post("/predict", json=each)).json()["prediction"] for each in kicks]
        assert [answer["prediction"] for answer in answers] == alone

    @pytest.mark.parametrize(
        "kind",
        [
            "application/x-ndjson",
            "application/jsonl; charset=utf-8",
            "Application/NDJSON",
            "text/x-ndjson",
            "application/x-www-form-urlencoded",  # curl --data-binary
            "application/octet-stream",
            "",
        ],
    )
    async def test_takes_ndjson_by_all_its_names_or_by_content(self, client, kick, kind):
        body = b"\xef\xbb\xbf" + b"\n".join([msgspec.json.encode(kick)] * 3)
        response = await client.post("/predict/batch", content=body, headers={"Content-Type": kind})
        assert response.status_code == 200
        assert len(response.json()) == 3

    @pytest.mark.parametrize(
        ("accept", "lines"),
        [
            ("*/*", None),
            ("application/x-ndjson", "application/x-ndjson"),
            ("Application/JSONL;q=0.9, */*;q=0.1", "application/jsonl"),
            ("application/x-ndjson;q=0.5, application/json", None),
            ("application/json, application/x-ndjson", None),
            ("application/json;q=0, */*", "application/x-ndjson"),
            ("application/x-ndjson;q=0", None),
            ("text/html", None),
        ],
    )
    async def test_the_preferred_of_json_and_lines_is_answered(self, client, kick, accept, lines):
        headers = {"Accept": accept}
        batch = await client.post("/predict/batch", json=[kick] * 2, headers=headers)
        for response in (batch, await client.get("/predictions", headers=headers)):
            assert response.headers["content-type"].partition(";")[0] == (lines or "application/json")
            assert len(response.content.splitlines() if lines else response.json()) == 2

    async def test_names_the_rows_at_fault_and_keeps_nothing(self, client, kick):
        response = await client.post("/predict/batch", json=[kick, {**kick, "angle": 91}, {"distance": 5}])
        assert response.status_code == 422
        errors = response.json()["errors"]
        assert errors[0] == {
            "field": "angle",
            "detail": "must be a number from 0 to 90 °",
            "value": 91,
            "row": 1,
        }
        assert {error["row"] for error in errors} == {1, 2}
        assert (await client.get("/predictions")).json() == []

    @pytest.mark.parametrize("count", [0, 100_001])
    async def test_refuses_an_empty_and_an_oversized_batch(self, client, kick, count):
        response = await client.post("/predict/batch", json=[kick] * count)
        assert response.status_code == 422
        assert "1 to 100,000 kicks" in response.json()["detail"]


BAD_KICKS = {
    "missing": ({"distance": None}, "distance"),
    "unknown": ({"moon": 1}, "moon"),
    "below its range": ({"distance": 1.9}, "distance"),
    "beyond its range": ({"time_norm": 1.01}, "time_norm"),
    "a string": ({"angle": "24"}, "angle"),
    "null": ({"wind_speed": "null"}, "wind_speed"),
    "a flag of 2": ({"game_away": 2}, "game_away"),
    "a flag of 0.5": ({"is_start": 0.5}, "is_start"),
}


class TestBadInput:
    @pytest.mark.parametrize(("change", "field"), BAD_KICKS.values(), ids=BAD_KICKS.keys())
    async def test_a_wrong_field_is_422_and_named(self, client, kick, change, field):
        changed = {**kick, **change}
        changed = {name: None if value == "null" else value for name, value in changed.items()}
        if change == {"distance": None}:
            del changed["distance"]
        response = await client.post("/predict", json=changed)
        assert response.status_code == 422
        assert [error["field"] for error in response.json()["errors"]] == [field]
        assert field in response.json()["detail"]

    @pytest.mark.parametrize(
        ("body", "status"),
        {
            "NaN": (b'{"distance": NaN}', 400),
            "infinity": (b'{"distance": Infinity}', 400),
            "1e999": (b'{"distance": 1e999}', 422),
            "truncated": (b'{"distance": 3', 400),
            "empty": (b"", 400),
            "blank": (b"  \n", 400),
            "no UTF-8": (b'{"distance": "\xff"}', 400),
            "an array": (b"[]", 422),
            "a number": (b"7", 422),
            "brackets without end": (b"[" * 100_000, 400),
            "a megabyte of brackets": (b'{"distance":' * 80_000, 400),
        }.values(),
    )
    async def test_a_body_that_is_no_kick_is_a_client_error(self, client, body, status):
        response = await client.post("/predict", content=body)
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"

    async def test_a_body_of_11_mb_is_413_with_and_without_a_length(self, client):
        async def chunks():
            for _ in range(11):
                yield b" " * 1_000_000

        for body in (b" " * 11_000_000, chunks()):
            response = await client.post("/predict", content=body)
            assert response.status_code == 413
            assert "KICKSERVE_BODY_MAX" in response.json()["detail"]

    async def test_a_batch_that_is_too_large_names_the_limit_of_batches(self, start, settings, kick):
        client = await start(replace(settings, body_max=100, batch_body_max=500))

        async def chunks():
            for _ in range(6):
                yield b" " * 100

        for body in (b" " * 501, chunks()):
            response = await client.post("/predict/batch", content=body)
            assert response.status_code == 413
            assert "KICKSERVE_BATCH_BODY_MAX" in response.json()["detail"]
        response = await client.post("/predict", json=kick)
        assert response.json()["detail"].endswith("or raise KICKSERVE_BODY_MAX")

    @pytest.mark.parametrize(
        "record_id",
        ["nonsense", "0", "e9565424-86ed-4a78-9306-af05b37652ae", "01900000-0000-7000-8000-000000000000"],
    )
    async def test_an_unknown_id_is_404(self, client, record_id):
        for response in [
            await client.get(f"/predictions/{record_id}"),
            await client.delete(f"/predictions/{record_id}"),
            await client.put(f"/predictions/{record_id}/outcome", json={"success": True}),
        ]:
            assert response.status_code == 404
            assert record_id in response.json()["detail"]

    @pytest.mark.parametrize(
        "query",
        [
            "limit=0",
            "limit=10001",
            "limit=ten",
            "lmit=5",
            "since=yesterday",
            "until=noon",
            "since=0.5",
            "until=1700000000",
            "before=",
            "before=0",
            "since=2026-13-25",
            "since=",
            "since=0d",
            "since=999999d",
            "kicker=",
            "kicker=a%0Ab",
        ],
    )
    async def test_a_wrong_parameter_is_422_and_named(self, client, query):
        response = await client.get(f"/predictions?{query}")
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == query.partition("=")[0]

    @pytest.mark.parametrize(
        "path", ["//model", "http://test/api/v1%2Fmodel", "http://test/docs//openapi.json"]
    )
    async def test_only_a_slash_is_a_slash(self, client, path):
        assert (await client.get(path)).status_code == 404

    async def test_an_unknown_path_and_a_wrong_method_are_problems_too(self, client):
        for response, status in [
            (await client.get("/nothing"), 404),
            (await client.get("/predict"), 405),
            (await client.get("http://test/nothing"), 404),
        ]:
            assert response.status_code == status
            assert response.headers["content-type"] == "application/problem+json"

    async def test_a_refusal_says_in_words_what_a_parameter_or_method_must_be(self, client):
        response = await client.get("/predictions?limit=0")
        assert response.json()["detail"] == "limit must be a whole number of 1 or more"
        response = await client.get("/predict")
        assert response.json()["detail"] == "this path takes other methods: OPTIONS, POST"


class TestShapeOfErrors:
    async def test_all_errors_have_one_shape(self, client):
        for response in [
            await client.post("/predict", content=b"{"),
            await client.post("/predict", content=b"{}"),
            await client.get("/predictions/nonsense"),
            await client.get("/nothing"),
            await client.get("/predictions?limit=0"),
        ]:
            problem = response.json()
            assert set(problem) - {"errors"} == {
                "type",
                "title",
                "status",
                "detail",
                "instance",
                "request_id",
            }
            assert problem["type"].startswith("urn:problem:kickserve:")
            assert problem["status"] == response.status_code
            assert problem["instance"] == response.request.url.path
            assert problem["request_id"] == response.headers["x-request-id"]

    async def test_a_bug_is_500_without_secrets_and_logged(self, client, kick, monkeypatch, caplog):
        def broken(*_):
            raise ZeroDivisionError("the secret")

        monkeypatch.setattr(client.app.predictor.current.batchers["api"], "put", broken)
        response = await client.post("/predict", json=kick)
        assert response.status_code == 500
        assert "secret" not in response.text
        assert response.json()["request_id"] in caplog.text
        assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, 'a"b'])
async def test_a_request_id_that_could_break_a_log_is_replaced(client, sent):
    response = await client.get("/health/live", headers={"X-Request-ID": sent})
    assert response.headers["x-request-id"] not in {"", sent}


async def test_a_key_is_asked_for_before_the_body_is_read_and_not_for_health_and_documentation(
    start, settings
):
    client = await start(replace(settings, api_key="sesame"))
    response = await client.post("/predict", content=b"{")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="kickserve"'
    for path in ["/health", "/health/live", "/health/ready", "http://test/docs"]:
        assert (await client.get(path)).status_code == 200


class TestRecords:
    async def test_keyset_paging_gives_every_record_once_newest_first(self, client, kick):
        sent = (await client.post("/predict/batch", json=[kick] * 20)).json()
        pages = await page_through(client, "/predictions?limit=10")
        assert [len(page) for page in pages] == [10, 10]
        ids = [record["id"] for page in pages for record in page]
        assert ids == sorted((answer["id"] for answer in sent), reverse=True)

    async def test_paging_is_not_disturbed_by_what_comes_in_meanwhile(self, client, kick):
        sent = (await client.post("/predict/batch", json=[kick] * 4)).json()
        first = await client.get("/predictions?limit=2")
        await client.post("/predict/batch", json=[kick] * 3)
        second = await client.get(first.links["next"]["url"].removeprefix("/api/v1"))
        assert [record["id"] for record in first.json() + second.json()] == [
            answer["id"] for answer in reversed(sent)
        ]

    async def test_since_and_until_cut_by_time_and_stay_on_the_next_page(self, client, kick):
        await client.post("/predict", json=kick)
        await next_millisecond()
        middle = (await client.post("/predict/batch", json=[kick] * 3)).json()
        await next_millisecond()
        await client.post("/predict", json=kick)
        records = (await client.get("/predictions")).json()
        since, until = records[3]["created_at"], records[0]["created_at"]
        pages = await page_through(client, f"/predictions?limit=2&since={since}&until={until}")
        assert sorted(r["id"] for page in pages for r in page) == sorted(each["id"] for each in middle)

    @pytest.mark.parametrize(
        ("instant", "shown"),
        [
            ("2026-11-25", False),
            ("2999-01-01T00:00:00 01:00", True),  # a + that was not escaped
            ("2999-01-01T00:00:00%2B01:00", True),
            ("2999-01-01 00:00", True),
            ("2999-01-01t00:00:00.5z", True),
            ("7d", False),
            ("1w", False),
            ("24h", False),
        ],
    )
    async def test_an_instant_may_be_a_date_a_time_in_any_zone_or_an_age(self, client, kick, instant, shown):
        await client.post("/predict", json=kick)
        assert bool((await client.get(f"/predictions?until={instant}")).json()) is shown
        assert bool((await client.get(f"/predictions?since={instant}")).json()) is not shown

    async def test_the_kicks_of_a_kicker_are_listed_page_by_page_and_streamed(self, client, kick):
        names = ["Léo", "O'Hara & Co", "Léo", None, "Léo", "O'Hara & Co"]
        made = (await client.post("/predict/batch", json=[{**kick, "kicker": name} for name in names])).json()
        expected = [each["id"] for each, name in zip(made, names, strict=True) if name == "Léo"]
        pages = await page_through(client, "/predictions?kicker=%20Le%CC%81o&limit=2")
        assert [[each["id"] for each in page] for page in pages] == [expected[:0:-1], expected[:1]]
        lines = await client.get("/predictions?kicker=L%C3%A9o", headers={"accept": "application/x-ndjson"})
        assert [msgspec.json.decode(line)["id"] for line in lines.text.splitlines()] == expected
        assert len(await page_through(client, "/predictions?kicker=O'Hara+%26+Co&limit=1")) == 2
        assert (await client.get("/predictions?kicker=nobody")).json() == []

    async def test_ndjson_streams_everything(self, client, kick):
        sent = (await client.post("/predict/batch", json=[kick] * 2_500)).json()
        response = await client.get("/predictions?limit=1", headers={"Accept": "application/x-ndjson"})
        assert response.headers["content-type"].startswith("application/x-ndjson")
        records = msgspec.json.Decoder(Record).decode_lines(response.content)
        assert [record.id for record in records] == [answer["id"] for answer in sent]

    async def test_a_deleted_record_is_gone(self, client, kick):
        record_id = (await client.post("/predict", json=kick)).json()["id"]
        assert (await client.delete(f"/predictions/{record_id}")).status_code == 204
        assert (await client.get(f"/predictions/{record_id}")).status_code == 404
        assert (await client.delete(f"/predictions/{record_id}")).status_code == 404


class TestOutcomes:
    async def test_an_outcome_is_kept_with_its_time_and_a_newer_one_replaces_it(self, client, kick):
        record_id = (await client.post("/predict", json=kick)).json()["id"]
        for success in (True, 1, 1.0, 0):
            response = await client.put(f"/predictions/{record_id}/outcome", json={"success": success})
            assert response.status_code == 204
        record = (await client.get(f"/predictions/{record_id}")).json()
        assert record["outcome"] is False
        assert record["outcome_at"] > record["created_at"]

    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"{}", b'{"success": 2}', b'{"success": null}', b'{"success": true, "by": "me"}', b"[]"],
    )
    async def test_another_body_than_an_outcome_is_refused(self, client, kick, body):
        record_id = (await client.post("/predict", json=kick)).json()["id"]
        response = await client.put(f"/predictions/{record_id}/outcome", content=body)
        assert response.status_code in {400, 422}
        for way in ('{"success": true}', "DELETE"):
            assert way in response.json()["detail"]

    async def test_many_at_once_list_the_unknown_ids(self, client, kick):
        record_id = (await client.post("/predict", json=kick)).json()["id"]
        outcomes = [{"id": record_id, "success": True}, {"id": "nonsense", "success": True}]
        response = await client.put("/predictions/outcomes", json=outcomes)
        assert response.json() == {"kept": 1, "unknown": ["nonsense"]}

    async def test_of_two_outcomes_of_one_kick_the_last_counts_however_its_id_is_spelt(self, client, kick):
        record_id = (await client.post("/predict", json=kick)).json()["id"]
        outcomes = [{"id": record_id.upper(), "success": True}, {"id": record_id, "success": False}]
        assert (await client.put("/predictions/outcomes", json=outcomes)).json() == {"kept": 2, "unknown": []}
        assert (await client.get(f"/predictions/{record_id}")).json()["outcome"] is False

    async def test_quality_is_of_the_kicks_whose_outcome_is_known(self, client, kick):
        answers = (await client.post("/predict/batch", json=[kick] * 3)).json()
        assert (await client.get("/quality")).json()["count"] == 0
        outcomes = [
            {"id": each["id"], "success": success}
            for each, success in zip(answers, [True, False], strict=False)
        ]
        await client.put("/predictions/outcomes", json=outcomes)
        report = (await client.get("/quality")).json()
        p = answers[0]["prediction"]
        assert report["count"] == 2
        assert report["overall"]["brier"] == pytest.approx(((1 - p) ** 2 + p**2) / 2)
        assert report["models"] == {"simulated": report["overall"]}
        assert list(report["months"].values()) == [report["overall"]]
        assert (await client.get("/quality?model=other")).json()["count"] == 0
        assert (await client.get("/quality?until=2020-01-01T00:00:00Z")).json()["count"] == 0


async def test_head_answers_as_get_does_without_the_body(client, kick):
    await client.post("/predict", json=kick)
    paths = {route.path_format for route in client.app.routes if "GET" in getattr(route, "methods", ())}
    for path in sorted(path for path in paths if "{" not in path):
        got, head = [await client.request(method, f"http://test{path}") for method in ("GET", "HEAD")]
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers.get("content-type") == got.headers.get("content-type")


async def test_a_path_that_no_trusted_proxy_names_is_ignored(client):
    response = await client.get("http://test/", headers={"X-Forwarded-Prefix": "//elsewhere.org"})
    assert response.headers["location"] == "/ui"


@pytest.mark.parametrize(
    ("variables", "headers", "below"),
    [
        ({"KICKSERVE_ROOT_PATH": "/kicks"}, {}, ""),
        ({"KICKSERVE_ROOT_PATH": "/kicks/"}, {}, "/kicks"),
        ({"KICKSERVE_TRUSTED_PROXIES": "127.0.0.1"}, {"X-Forwarded-Prefix": "/kicks"}, ""),
    ],
    ids=["removed by the proxy", "left by the proxy", "named by the proxy"],
)
async def test_under_a_path_all_addresses_begin_with_it(start, settings, kick, variables, headers, below):
    client = await start(configured(settings, **variables))
    client.headers.update(headers)
    base = f"http://test{below}"
    await client.post(f"{base}/api/v1/predict/batch", json=[kick] * 3)
    page = await client.get(f"{base}/api/v1/predictions?limit=2")
    assert page.links["next"]["url"].startswith("/kicks/api/v1/predictions?")
    assert (await client.get(f"{base}/")).headers["location"] == "/kicks/ui"
    docs = (await client.get(f"{base}/docs")).text
    assert re.findall("[\"'](/docs[^\"']*)", docs) == []
    assert "/kicks/docs-assets/swagger-ui.css" in docs
    document = (await client.get(f"{base}/docs/openapi.json")).json()
    assert document["servers"] == [{"url": "/kicks"}]
    ui = await client.get(f"{base}/ui/")
    assert ui.status_code == 200
    assert re.findall("""(?:href|src|action)=["'](/(?!kicks/ui)[^"']*)""", ui.text) == []
    assert (await client.post(f"{base}/ui/sign-out")).headers["location"] == "/kicks/ui"


class TestService:
    async def test_health_is_ok_with_all_its_parts(self, client):
        health = (await client.get("/health")).json()
        assert health["status"] == "ok"
        assert health["parts"].keys() >= {"service", "model", "journal", "store"}
        assert {*health["parts"].values()} == {"ok"}

    async def test_ready_turns_false_when_the_service_is_asked_to_end(self, client):
        client.app.drain()
        response = await client.get("/health/ready")
        assert response.status_code == 503
        assert response.json()["parts"]["service"] == "stopping"
        assert response.headers["connection"] == "close"

    async def test_the_card_describes_the_model(self, client):
        card = (await client.get("/model")).json()
        assert card["name"] == "simulated"
        assert card["features"] == list(NAMES)
        assert "simulated from published figures" in card["description"]

    @pytest.mark.parametrize(("plugins", "home"), [(("storage",), "/docs"), (("storage", "ui"), "/ui")])
    async def test_the_root_leads_to_the_page_or_else_to_the_documentation(
        self, start, settings, plugins, home
    ):
        client = await start(replace(settings, plugins=plugins))
        response = await client.get("http://test/")
        assert response.is_redirect
        assert response.headers["location"] == home

    async def test_the_documentation_needs_no_network(self, client):
        page = (await client.get("http://test/docs")).text
        assert "://" not in page.replace("http://test", "").replace("http://www.w3.org", "")
        for asset in [
            "swagger-ui-bundle.js",
            "swagger-ui.css",
            "swagger-ui-standalone-preset.js",
            "favicon-32x32.png",
        ]:
            assert f"/docs-assets/{asset}" in page
            assert (await client.get(f"http://test/docs-assets/{asset}")).status_code == 200

    async def test_the_openapi_document_has_the_ranges(self, client):
        document = (await client.get("http://test/docs/openapi.json")).json()
        body = document["paths"]["/api/v1/predict"]["post"]["requestBody"]
        distance = body["content"]["application/json"]["schema"]["properties"]["distance"]
        assert (distance["minimum"], distance["maximum"]) == (2, 100)


def test_a_kick_and_a_record_have_the_features_in_their_order():
    assert Kick.__struct_fields__[: len(NAMES)] == NAMES
    fields = Record.__struct_fields__
    assert fields[fields.index(NAMES[0]) :][: len(NAMES)] == NAMES
