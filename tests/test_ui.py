"""The pages without a browser: state and links, messages, the heat map, the history, sessions, the mount."""

from __future__ import annotations

import asyncio
import csv
import html
import io
import json
import math
import re
import struct
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from conftest import configured
from hypothesis import given
from hypothesis import strategies as st
from nicegui import Client
from serving import PATIENCE, eventually

import kickserve
import kickserve_ui
from kickserve.app import create_app
from kickserve.features import NAMES, named
from kickserve.plugins import InvalidInput, PredictionFailed
from kickserve.schemas import row_of
from kickserve_data.simulate import simulate
from kickserve_testing.app import client_of
from kickserve_ui import backend, cards, visits
from kickserve_ui.backend import Backend
from kickserve_ui.heat_map import HeatMaps
from kickserve_ui.history import Filter
from kickserve_ui.messages import language_of, messages_in, texts
from kickserve_ui.page_state import CHOICES, PRESETS, RANGES, PageState, read

# The state of the pitch page.


numbers = st.integers(0, 10**6).map(lambda n: n / 10**6)
FIELDS = {
    **{
        name: numbers.map(lambda x, low=low, high=high: low + x * (high - low))
        for name, (low, high) in RANGES.items()
    },
    **{name: st.sampled_from(each) for name, each in CHOICES.items()},
}


@given(st.fixed_dictionaries({name: FIELDS[name] for name in PageState.__slots__ if name in FIELDS}))
def test_a_link_holds_the_whole_kick(values):
    state = read({name: str(value) for name, value in values.items()})
    assert state == PageState(**values)
    assert list(state.row) == list(row_of(state.kick))


unusual = st.text(max_size=6) | st.sampled_from(["nan", "inf", "-1", "101", "1e400"])


@given(st.dictionaries(st.sampled_from(["distance", "minute", "side", "kicker", "x"]), unusual))
def test_any_link_gives_a_kick_or_names_an_unusable_value(query):
    try:
        state = read(query)
    except InvalidInput as error:
        assert str(error).split()[0] in query
    else:
        assert all(map(math.isfinite, state.row))


def test_every_preset_has_usable_values_and_its_message():
    for name, values in PRESETS.items():
        read({field: str(value) for field, value in values.items()})
        assert f"preset_{name}" in texts()


# Messages.


def test_every_message_has_the_same_values_in_both_languages():
    for key, (english, french) in texts().items():
        assert sorted(re.findall(r"{\w+}", english)) == sorted(re.findall(r"{\w+}", french)), key


def test_numbers_and_warnings_are_written_in_the_manner_of_the_language():
    english, french = messages_in("en"), messages_in("fr")
    assert [english.percent(each) for each in (0.7464, 0.999, 1.0, 0.001)] == ["75%", ">99%", "100%", "<1%"]
    assert french.percent(0.7464) == "75\N{NARROW NO-BREAK SPACE}%"
    assert english.number(-1.5, 1) == "\N{MINUS SIGN}1.5"
    assert french.warning("distance beyond 60 m") == "Distance au-delà de 60 m"
    assert french.warning("something else") == "something else"


def test_the_language_is_the_chosen_one_or_the_browsers():
    assert language_of("en", "fr") == "en"
    assert language_of("", "fr-FR,fr;q=0.9,en;q=0.8") == "fr"
    assert language_of("", "de, en;q=0.3, fr;q=0.7") == "fr"
    assert language_of("", "") == "en"


# The heat map.


async def test_the_map_has_the_models_answer_at_every_spot(client):
    state, served = PageState(), client.app.predictor.current
    found = await HeatMaps().get(served, state, None)
    length = int.from_bytes(found[:4], "little")
    header = json.loads(found[4 : 4 + length])
    assert header["revision"] == served.model.card.revision
    count = header["rows"] * header["columns"]
    words = np.frombuffer(found, "<u2", count, 4 + length).reshape(header["rows"], -1)
    ends = np.frombuffer(found, "u1", 2 * count, 4 + length + 2 * count).reshape(2, header["rows"], -1)
    for x, out in ((20, 30), (52, 12), (35, 50), (2, 4)):
        aside = x - 35
        angle = math.degrees(math.atan2(abs(aside), out))
        there = replace(
            state, distance=math.hypot(aside, out), angle=angle, side="left" if aside < 0 else "right"
        )
        expected = served.model.predict(there.row[None, :])
        word = int(words[2 * out, 2 * x])
        assert (word >> 1) / 32767 == pytest.approx(expected.probability[0], abs=1e-4)
        assert bool(word & 1) == bool(served.model.out_of_domain(there.row[None, :])[0])
        assert ends[0, 2 * out, 2 * x] / 255 == pytest.approx(expected.low[0], abs=0.003)
        assert ends[1, 2 * out, 2 * x] / 255 == pytest.approx(expected.high[0], abs=0.003)


async def test_the_maps_of_a_match_are_those_of_all_that_changes_in_it(client):
    served = client.app.predictor.current
    found = await HeatMaps().of_match(served, PageState(wind=30, kicker="Léo"), None)
    length = int.from_bytes(found[:4], "little")
    header = json.loads(found[4 : 4 + length])
    count, step = header["rows"] * header["columns"], header["step"]
    words = np.frombuffer(found, "<u2", count * len(header["conditions"]), 4 + length).reshape(-1, count)
    assert len({tuple(each.values()) for each in header["conditions"]}) == 32
    for conditions, word in zip(header["conditions"], words[:, 10 * header["columns"] + 5], strict=True):
        aside, out = 35 - 5 * step, 10 * step
        angle = math.degrees(math.atan2(aside, out))
        there = PageState(distance=math.hypot(aside, out), angle=angle, side="left", **conditions)
        assert there.wind == 30
        expected = served.model.predict(there.row[None, :])
        assert (int(word) >> 1) / 32767 == pytest.approx(expected.probability[0], abs=1e-4)


# What is shown to others.


async def test_a_card_is_a_png_of_its_kick_that_changes_with_it_and_records_nothing(client, root):
    asked = ["", "distance=50", "distance=50&language=fr", "distance=50&kicker=Ond%C5%99ej%20%3C%26%EF%BF%BF"]
    answers = [await root.get(f"/ui/card.png?{query}") for query in asked]
    for answer in answers:
        assert answer.headers["content-type"] == "image/png"
        assert answer.content[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", answer.content[16:24]) == (1200, 630)
        assert len(answer.content) < 600_000  # chats pass larger ones over
        assert "set-cookie" not in answer.headers
    assert len({answer.content for answer in answers}) == len(asked)
    known = {"If-None-Match": answers[1].headers["etag"]}
    assert (await root.get("/ui/card.png?distance=50", headers=known)).status_code == 304
    assert (await root.get("/ui/card.png?distance=51", headers=known)).status_code == 200
    assert answers[1].headers["cache-control"].startswith("public, max-age=")
    assert (await client.get("/predictions")).json() == []


@pytest.mark.parametrize("query", ["distance=1e9", "kind=drop", "side=up", "kind=conversion&line=-1&back=9"])
async def test_a_link_that_shows_no_kick_is_refused_with_the_name_of_its_field(root, query):
    for path in ("card.png", "embed"):
        answer = await root.get(f"/ui/{path}?{query}")
        assert answer.status_code == 422
        assert re.search(r"(distance|kind|side|line) can(&#39;|')t be", answer.text)


async def test_few_cards_are_drawn_at_once(root, monkeypatch):
    monkeypatch.setattr(cards, "_MOST_WAITING", 2)
    asked = (root.get(f"/ui/card.png?distance={distance}") for distance in range(20, 24))
    answers = await asyncio.gather(*asked)
    assert sorted(each.status_code for each in answers) == [200, 200, 429, 429]


async def test_chats_find_the_card_of_a_link_by_an_absolute_address(start, settings):
    client = await start(configured(settings, API_KEY="sesame", KICKSERVE_TRUSTED_PROXIES="127.0.0.1"))
    sent = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "kicks.example", "X-Forwarded-Prefix": "/kicks"}
    robot = {**sent, "Accept": "text/html,*/*"}  # the first visitor after a start
    page = await client.get("http://test/ui/?kind=penalty&distance=41&angle=30&language=fr", headers=robot)
    tags = dict(re.findall('<meta (?:property|name)="([^"]+)" content="([^"]*)">', page.text))
    picture = html.unescape(tags["og:image"])
    assert picture.startswith("https://kicks.example/kicks/ui/card.png?kind=penalty&distance=41&angle=30")
    assert tags["twitter:image"] == tags["og:image"]
    assert tags["twitter:card"] == "summary_large_image"
    assert html.unescape(tags["og:url"]).startswith("https://kicks.example/kicks/ui/?kind=penalty")
    assert re.fullmatch(r"Une pénalité de 41 m du côté gauche : environ \d sur \d+", tags["og:title"])
    card = await client.get(picture.replace("https://kicks.example/kicks", "http://test"))  # without a key
    assert (card.status_code, card.headers["content-type"]) == (200, "image/png")
    plain = (await client.get("http://test/ui/")).text
    assert 'property="og:image" content="http://localhost/ui/card.png?language=en' in plain
    assert "og:image" not in (await client.get("http://test/ui/?distance=far")).text


async def test_a_page_whose_model_fails_opens_without_a_card(client, root, monkeypatch):
    async def fail(*_):
        raise PredictionFailed("no luck today")

    monkeypatch.setattr(type(client.app.predictor.current), "score", fail)
    page = await root.get("/ui/?distance=41")
    assert (page.status_code, "og:image" in page.text) == (200, False)
    card = await root.get("/ui/card.png?distance=41")
    assert (card.status_code, "no luck today" in card.json()["detail"]) == (500, True)


async def test_other_pages_than_the_embedded_pitch_can_not_be_framed(root):
    policies = {
        path: (await root.get(f"/ui/{path}")).headers["content-security-policy"]
        for path in ("", "nowhere", "embed")
    }
    assert "script-src" not in policies["embed"]
    assert {path for path, each in policies.items() if "frame-ancestors *" in each} == {"embed"}


@pytest.mark.parametrize(
    ("distance", "said"), [(8, "An 8 m"), (11.4, "An 11 m"), (41, "A 41 m"), (80, "An 80 m"), (18, "An 18 m")]
)
async def test_a_distance_has_its_article(root, distance, said):
    assert (
        f"<h1>{said} penalty from in front" in (await root.get(f"/ui/embed?distance={distance}&angle=0")).text
    )


def write_rival(folder, less=0.5):
    """Write a model that gives every kick less than the packaged model, on the log-odds."""
    document = json.loads(Path(kickserve.__file__).with_name("default.json").read_text(encoding="utf-8"))
    document["coefficients"][0] -= less
    file = folder / "rival.json"
    file.write_text(json.dumps({**document, "name": "rival", "revision": ""}), encoding="utf-8")
    return str(file)


async def test_two_models_are_compared_by_what_came_of_kicks(start, settings, tmp_path):
    client = await start(configured(settings, KICKSERVE_SHADOW=write_rival(tmp_path)))
    path = "http://test/ui/compare/quality?model=second"
    assert (await client.get(path)).json()["curves"] == []
    kicks = simulate(1_500, 7)
    bodies = [named(row) for row in kicks.matrix.tolist()]
    verdicts = []
    for some in (slice(0, 20), slice(20, 1_500)):
        answers = (await client.post("/predict/batch", json=bodies[some])).json()
        pairs = zip(answers, kicks.success[some], strict=True)
        outcomes = [{"id": each["id"], "success": bool(success)} for each, success in pairs]
        await client.put("/predictions/outcomes", json=outcomes)
        found = (await client.get(path)).json()
        verdicts.append(found["verdict"])
    assert "too few" in verdicts[0]
    assert "simulated is better than rival on 1,500 kicks" in verdicts[1]
    quality = (await client.get("/quality")).json()["overall"]
    assert sum(each["count"] for each in found["curves"][0]) == quality["count"]
    for shown, expected in zip(found["curves"][0], quality["bins"], strict=True):  # the model in use
        assert shown["predicted"] == pytest.approx(expected["mean_prediction"], abs=1e-6)
        assert shown["interval"][0] < shown["actual"] < shown["interval"][1] or shown["actual"] == 1
    french = (await client.get(path, headers={"Accept-Language": "fr"})).json()
    assert "simulated est meilleur que rival sur 1\u202f500 tirs" in french["verdict"]


async def test_models_that_do_not_differ_beyond_chance_are_called_so(start, settings, tmp_path):
    client = await start(configured(settings, KICKSERVE_SHADOW=write_rival(tmp_path, 0.001)))
    kicks = simulate(100, 7)
    answers = (await client.post("/predict/batch", json=[*map(named, kicks.matrix.tolist())])).json()
    pairs = zip(answers, kicks.success, strict=True)
    await client.put("/predictions/outcomes", json=[{"id": a["id"], "success": bool(s)} for a, s in pairs])
    found = (await client.get("http://test/ui/compare/quality?model=second")).json()
    assert "no more than chance" in found["verdict"]


async def test_another_model_is_shown_to_readers_alone(start, settings, tmp_path):
    client = await start(configured(settings, API_KEY="sesame", KICKSERVE_SHADOW=write_rival(tmp_path)))
    paths = ["map?model=second", "map?model=", "quality?model=second"]
    for path in paths:
        assert (await client.get(f"http://test/ui/compare/{path}")).status_code == 401
    page = (await client.get("http://test/ui/compare")).text
    assert "rival" not in page
    answer = await client.post("http://test/ui/sign-in?to=/compare", data={"key": "sesame"})
    cookies = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
    assert answer.headers["location"] == "/ui/compare"
    for path in paths:
        assert (await client.get(f"http://test/ui/compare/{path}", headers=cookies)).status_code == 200
    unknown = await client.get("http://test/ui/compare/map?model=/etc/passwd", headers=cookies)
    assert unknown.status_code == 422


# The history.


def test_a_filter_ends_after_its_last_day_and_takes_unusable_input_as_none():
    given_days = {"since": "2026-11-24", "until": "2026-11-24", "outcome": "open", "page": "3"}
    assert Filter.read(given_days).end == datetime(2026, 11, 25, tzinfo=UTC)
    assert Filter.read(given_days).page == 3
    assert Filter.read({"until": "9999-12-31"}).end is None
    unusable = {"since": "soon", "until": "any\0", "outcome": "' OR 1=1", "order": "id;", "page": "-1"}
    assert Filter.read(unusable) == Filter()


@pytest.fixture
async def root(client):
    """A client of the paths beside the API's; the pages have begun."""
    async with httpx.AsyncClient(transport=client._transport, base_url="http://localhost") as root:
        await root.get("/ui/status")  # waits for the import
        yield root


async def test_the_history_has_every_record_with_its_outcome_and_a_link_to_the_pitch(client, root, kick):
    wanted = {**kick, "distance": 41.5, "angle": 12.0, "is_left_side": True, "game_away": False}
    wanted["time_norm"] = 0.25
    answers = (await client.post("/predict/batch", json=[wanted] * 3)).json()
    for each, success in zip(answers, (None, True, False), strict=True):
        if success is not None:
            await client.put(f"/predictions/{each['id']}/outcome", json={"success": success})
    found = (await root.get("/ui/records")).json()
    assert [each["id"] for each in found["records"]] == [each["id"] for each in reversed(answers)]
    assert [each["outcome"] for each in found["records"]] == [False, True, None]
    state = read(dict(httpx.QueryParams(found["records"][0]["link"])))
    stored = (await client.get(f"/predictions/{answers[-1]['id']}")).json()
    assert list(state.row) == [stored[name] for name in NAMES]  # so that the pitch shows the same number


async def test_the_list_holds_still_while_new_records_are_counted(client, root, kick):
    await client.post("/predict/batch", json=[{**kick, "kicker": "Léo"}] * 60)
    await client.post("/predict/batch", json=[kick] * 30)
    first = (await root.get("/ui/records", params={"kicker": "Léo", "page": "1"})).json()
    assert (len(first["records"]), first["total"], first["more"], first["fresh"]) == (25, 60, True, 0)
    await client.post("/predict/batch", json=[{**kick, "kicker": "Léo"}] * 12)
    held = {"kicker": "Léo", "page": "1", "newest": first["newest"]}
    assert (await root.get("/ui/records", params=held)).json() == {**first, "fresh": 12}


async def test_a_browser_changes_only_what_its_key_may(start, settings, kick):
    client = await start(configured(settings, API_KEY="sesame"))
    client.headers["X-API-Key"] = "sesame"
    record_id = (await client.post("/predict", json=kick)).json()["id"]
    before = (await client.get(f"/predictions/{record_id}")).json()
    answer = await client.post("http://test/ui/sign-in", data={"key": "sesame"})
    cookies = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
    client.cookies.clear()
    record = f"http://test/ui/record/{record_id}"
    foreign = {**cookies, "Origin": "http://evil.example"}
    for headers, status in (({}, 401), ({"Cookie": "kickserve=x"}, 401), (foreign, 403)):
        assert (await client.put(record, json={"success": True}, headers=headers)).status_code == status
        assert (await client.delete(record, headers=headers)).status_code == status
        assert (await client.get("http://test/ui/records", headers=headers)).status_code in {200, 401}
    for body in ({"success": "yes"}, {}, [True], {"success": {}}):
        assert (await client.put(record, json=body, headers=cookies)).status_code == 422
    for unknown in ("x", f"{record_id}'%20OR%201=1"):
        answer = await client.delete(f"http://test/ui/record/{unknown}", headers=cookies)
        assert answer.status_code == 404
    assert (await client.get(f"/predictions/{record_id}")).json() == before
    assert (await client.put(record, json={"success": True}, headers=cookies)).status_code == 204
    assert (await client.get(f"/predictions/{record_id}")).json()["outcome"] is True


async def test_the_download_has_every_prediction_or_those_of_a_filter(client, root, kick):
    answers = (await client.post("/predict/batch", json=[kick] * 450)).json()
    scored, missed = answers[7]["id"], answers[400]["id"]
    for record_id in (scored, missed):
        await client.put(f"/predictions/{record_id}/outcome", json={"success": record_id == scored})
    rows = list(csv.DictReader(io.StringIO((await root.get("/ui/history.csv")).text)))
    assert [(row["id"], row["low"], row["high"]) for row in rows] == [
        (each["id"], *map(str, each["interval"])) for each in answers
    ]
    assert {row["outcome"] for row in rows} == {"", "0", "1"}
    assert {row["game_away"] for row in rows} == {"1"}
    [row] = csv.DictReader(io.StringIO((await root.get("/ui/history.csv?outcome=scored")).text))
    assert row["id"] == scored
    assert datetime.fromisoformat(row["outcome_at"]).tzinfo is not None


# The service around the pages.


async def test_quality_is_assessed_once_for_all_visitors(client, kick, monkeypatch):
    monkeypatch.setattr(backend, "_PAUSE", 1e6)
    service = Backend(client.app)
    record_id = (await client.post("/predict", json=kick)).json()["id"]
    assert [each.count for each in await asyncio.gather(*(service.quality() for _ in range(5)))] == [0] * 5
    await client.put(f"/predictions/{record_id}/outcome", json={"success": True})
    assert (await service.quality()).count == 0
    service._quality_until = 0.0
    assert (await service.quality()).count == 1


# What is recorded.


def browser_id(at=None, half="8"):
    """An id as the page makes it, of an instant in seconds; the service's own are of the other half."""
    digits = f"{round(1000 * (time.time() if at is None else at)):012x}"
    return f"{digits[:8]}-{digits[8:]}-7{half}ab-8000-{uuid4().hex[:12]}"


async def test_a_kick_that_is_sent_again_has_one_record_with_its_outcome_and_stays_deleted(client, root):
    at = time.time() - 3600  # without a connection for an hour
    sent = {"query": "distance=41&kicker=Léo", "id": browser_id(at), "success": True}
    first, again = await asyncio.gather(*(root.post("/ui/record", json=sent) for _ in range(2)))
    assert first.json() == again.json()
    assert first.json()["id"] == sent["id"]
    [kept] = (await client.get("/predictions")).json()
    assert (kept["outcome"], kept["kicker"], kept["source"]) == (True, "Léo", "page")
    assert datetime.fromisoformat(kept["created_at"]).timestamp() == pytest.approx(at, abs=0.01)
    assert (await root.delete(f"/ui/record/{sent['id']}")).status_code == 204
    await root.post("/ui/record", json={**sent, "success": None})
    assert (await client.get("/predictions")).json() == []


@pytest.mark.parametrize(
    ("record_id", "why"),
    [
        (str(uuid4()), "UUID of version 7"),
        ("soon", "UUID of version 7"),
        (browser_id(half="7"), "the service's own"),
        (browser_id(time.time() + 3600), "ahead"),
        (browser_id(time.time() - 31 * 86_400), "30 days"),
    ],
    ids=["random", "no id", "own", "of tomorrow", "of last month"],
)
async def test_an_id_that_could_be_anothers_is_refused(client, root, record_id, why):
    answer = await root.post("/ui/record", json={"query": "", "id": record_id})
    assert answer.status_code == 422
    assert why in answer.json()["detail"]
    assert (await client.get("/predictions")).json() == []


# Visitors.


async def test_a_session_outlives_a_restart_and_ends_for_all_who_have_its_cookie(settings):
    guarded = configured(settings, API_KEY="sesame")
    async with client_of(create_app(guarded)) as client:
        answer = await client.post("http://test/ui/sign-in", data={"key": "sesame"})
        cookies = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        file = guarded.journal_dir / "page.sessions"
        assert file.stat().st_mode & 0o077 == 0
        assert cookies["Cookie"].partition("=")[2] not in file.read_text()
    async with client_of(create_app(guarded)) as client:
        for made_up in ({}, {"Cookie": "kickserve=x"}):
            assert (await client.get("http://test/ui/history.csv", headers=made_up)).status_code == 303
        assert (await client.get("http://test/ui/history.csv", headers=cookies)).status_code == 200
        await client.post("http://test/ui/sign-out", headers=cookies)
        assert (await client.get("http://test/ui/history.csv", headers=cookies)).status_code == 303
    file.write_text("{")
    async with client_of(create_app(guarded)) as client:
        assert (await client.get("http://test/ui/history.csv", headers=cookies)).status_code == 303


async def test_under_a_path_a_visitor_signs_in_below_it(start, settings):
    client = await start(configured(settings, API_KEY="sesame", KICKSERVE_TRUSTED_PROXIES="127.0.0.1"))
    named = {"X-Forwarded-Prefix": "/kicks"}
    answer = await client.post("http://test/ui/sign-in?to=/history", data={"key": "sesame"}, headers=named)
    assert answer.headers["location"] == "/kicks/ui/history"
    assert "Path=/kicks/ui;" in answer.headers["set-cookie"]
    page = (await client.get("http://test/ui/sign-in", headers=named)).text
    assert "path=/kicks/ui;" in page  # of the cookies that its script sets
    assert '"/ui' not in page
    signed_in = {"Cookie": answer.headers["set-cookie"].partition(";")[0], **named}
    recorded = await client.post("http://test/ui/record", json={"query": ""}, headers=signed_in)
    assert (
        recorded.status_code == 200
    )  # no path of the pages may have the name of a usual prefix: Litestar cuts it


async def test_pages_that_no_browser_opens_are_few_and_leave_room_for_other_addresses(
    start, settings, monkeypatch
):
    client = await start(configured(settings, KICKSERVE_TRUSTED_PROXIES="127.0.0.1"))
    greedy, other = ({"X-Forwarded-For": address} for address in ("192.0.2.1", "192.0.2.2"))
    statuses = [(await client.get("http://test/ui/model", headers=greedy)).status_code for _ in range(30)]
    assert statuses == [200] * 10 + [503] * 20
    answer = await client.get("http://test/ui/model", headers=greedy)
    assert answer.headers["retry-after"] == "2"
    assert '<meta http-equiv="refresh" content="2">' in answer.text
    assert (await client.get("http://test/ui/nowhere", headers=other)).status_code == 404  # takes no room
    assert (await client.get("http://test/ui/model", headers=other)).status_code == 200
    for limit in ("_MOST", "_MOST_OPEN"):
        with monkeypatch.context() as patch:
            patch.setattr(visits, limit, len(Client.instances))
            assert (await client.get("http://test/ui/model", headers=other)).status_code == 503
    assert (await client.get("http://test/ui/status", headers=greedy)).status_code == 200  # takes no room


async def test_the_first_visitors_see_at_once_that_the_page_is_coming_and_then_get_it(client, monkeypatch):
    load = threading.Event()

    def import_later(name):
        return load.wait(PATIENCE) and import_module(name)

    monkeypatch.setattr(kickserve_ui, "import_module", import_later)
    headers = {
        "host": "localhost",
        "accept": "text/html,*/*;q=0.8",
        "accept-language": "en",
        "cookie": "kickserve_language=fr",
    }
    request = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "query_string": b""}
    request["headers"] = [(name.encode(), value.encode()) for name, value in headers.items()]
    parts = ["", ""]

    async def visit(at, path):
        async def send(message):
            parts[at] += message.get("body", b"").decode()

        await client.app({**request, "path": path, "raw_path": path.encode()}, None, send)

    visits = [asyncio.create_task(visit(at, path)) for at, path in enumerate(("/ui/", "/ui/history"))]
    title = messages_in("fr")("coming_title")
    await eventually(lambda: all(title in each for each in parts))
    assert not any("http-equiv" in each for each in parts)
    load.set()
    await asyncio.gather(*visits)
    assert all('http-equiv="refresh"' in each for each in parts)
    assert messages_in("fr")("title_pitch") in (await client.get("http://test/ui/", headers=headers)).text


async def test_pages_that_can_not_be_loaded_say_why_and_the_rest_goes_on(client, kick, monkeypatch, caplog):
    def fail(name):
        raise ImportError(f"no module {name}")

    monkeypatch.setattr(kickserve_ui, "import_module", fail)
    browser = {"Accept": "text/html", "Accept-Language": "en"}
    assert 'http-equiv="refresh"' in (await client.get("http://test/ui/", headers=browser)).text
    reason = "can't be loaded (ImportError: no module kickserve_ui.application)"
    answer = await client.get("http://test/ui/", headers=browser)
    assert (answer.status_code, reason in answer.json()["detail"]) == (500, True)
    assert reason in (await client.get("/health")).json()["parts"]["page"]
    assert reason in caplog.text
    assert (await client.post("/predict", json=kick)).status_code == 200


async def test_a_page_that_no_browser_connects_to_is_dropped(start, settings, monkeypatch):
    monkeypatch.setattr(visits, "_PRUNE", 0.01)
    client = await start(settings)
    await client.get("http://test/ui/")
    for each in Client.instances.values():
        each.created -= 60  # seconds
    await eventually(lambda: not Client.instances)


async def test_the_pages_keep_to_the_limit_of_an_address(start, settings):
    client = await start(configured(settings, KICKSERVE_RATE_ADDRESS="3/h"))
    paths = ("sign-in", "card.png", "embed", "card.png", "embed")
    statuses = [(await client.get(f"http://test/ui/{path}")).status_code for path in paths]
    assert statuses == [200] * 3 + [429] * 2
    assert (await client.get("/model")).status_code == 429


async def test_the_service_leads_to_the_page_and_only_paths_below_are_the_pages(root):
    assert (await root.get("/")).headers["location"] == "/ui"
    assert (await root.get("/uikit")).status_code == 404
    answer = await root.get("/ui/", headers={"accept-language": "fr"})
    assert 'lang="fr"' in answer.text
    assert "default-src 'none'; script-src 'self' 'nonce-" in answer.headers["content-security-policy"]


async def test_without_the_store_the_download_explains_it(start, settings, kick):
    client = await start(configured(settings, DATABASE_URL="postgresql://user@127.0.0.1:1/nowhere"))
    assert (await client.post("/predict", json=kick)).status_code == 200
    answer = await client.get("http://test/ui/history.csv", headers={"accept-language": "fr"})
    assert answer.status_code == 503
    assert html.escape(messages_in("fr")("store_away")) in answer.text


async def test_several_workers_have_a_notice_in_the_pages_place(start, settings):
    client = await start(configured(settings, KICKSERVE_WORKERS="2"))
    answer = await client.get("http://test/ui")
    assert answer.status_code == 503
    assert "2 workers" in answer.text
    assert (await client.get("http://test/")).headers["location"] == "/docs"
