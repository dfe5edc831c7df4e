"""The parts of the page that need no browser: geometry, links, words, the heat map, the secret, the mount."""

from __future__ import annotations

import asyncio
import csv
import html
import io
import math
import re
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple
from nicegui import Client, ui
from nicegui.events import GenericEventArguments
from starlette.requests import Request

from kickserve.errors import ConfigurationError
from kickserve.plugins import NO_KEY
from kickserve.schemas import Kick, Record
from kickserve_data.simulate import simulate
from kickserve_ui import shared_quality
from kickserve_ui.answer import break_even
from kickserve_ui.frame import Visit
from kickserve_ui.geometry import Aim, Spot, aim_from, kicks_at, spot_of
from kickserve_ui.heat import heat_map, tee_line
from kickserve_ui.history import History
from kickserve_ui.history_filter import Filter
from kickserve_ui.history_table import table
from kickserve_ui.palette import colour_of
from kickserve_ui.phrases import TEXTS
from kickserve_ui.scene import PRESETS, Scene, changed, read
from kickserve_ui.secret import NAME, kept_secret, pass_for
from kickserve_ui.shared_quality import SharedQuality
from kickserve_ui.site import Site, serving
from kickserve_ui.words import language_of, words_in


@given(st.floats(0, 70), st.floats(0, 62))
def test_a_spot_becomes_what_the_page_shows_and_comes_back(x, out):
    aim = aim_from(Spot(x, out))
    back = spot_of(aim)
    near = math.hypot(x - 35, out)
    assert math.hypot(back.x - x, back.out - out) < 0.25 or near < 2.2
    assert aim_from(back).distance == pytest.approx(aim.distance, abs=0.11)


def test_geometry_agrees_with_the_simulator():
    kicks = simulate(500, seed=3).matrix
    for row in kicks:
        kick = Kick(**dict(zip(Kick.__struct_fields__, row.tolist(), strict=True)))
        spot = spot_of(Aim(kick.distance, kick.angle, bool(kick.is_left_side)))
        found = kicks_at(np.array([spot.x]), np.array([spot.out]), row)[0]
        assert found == pytest.approx(row, abs=1e-9)


scenes = st.builds(
    Scene,
    distance=st.integers(20, 1000).map(lambda tenths: tenths / 10),
    angle=st.integers(0, 900).map(lambda tenths: tenths / 10),
    side=st.sampled_from(["left", "right"]),
    minute=st.integers(0, 80),
    wind=st.integers(0, 50),
    rain=st.integers(0, 100),
    attempts=st.sampled_from(["yes", "no"]),
)


@given(scenes)
def test_a_link_holds_the_whole_scene(scene):
    query = dict(httpx.QueryParams(scene.query()))
    assert read(query) == (scene, [])
    assert list(scene.row) == list(astuple(scene.kick))


@given(
    st.dictionaries(st.sampled_from(["distance", "minute", "side", "corner", "other"]), st.text(max_size=6))
)
def test_any_link_gives_a_scene(query):
    scene, unusable = read(query)
    assert set(unusable) <= set(query)
    assert scene.kick


def test_what_cannot_be_set_is_refused_by_name():
    with pytest.raises(ValueError, match="wind"):
        changed(Scene(), wind=51)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_on_the_pitch_and_has_its_words(name):
    assert changed(Scene(), **PRESETS[name]).spot.on_pitch
    assert f"preset_{name}" in TEXTS


@pytest.mark.parametrize(("minute", "edges"), [(5, (True, False)), (6, (False, False)), (75, (False, True))])
def test_first_and_last_minutes_follow_from_the_minute(minute, edges):
    scene = replace(Scene(), minute=minute)
    assert (scene.is_start, scene.is_endgame) == edges


def test_a_kick_pays_where_its_points_equal_those_of_the_corner():
    scene = Scene()
    even = break_even(scene)
    assert 3 * even + (1 - even) * scene.miss == pytest.approx(scene.corner)
    assert break_even(replace(scene, corner=1.0)) is None


async def test_the_heat_map_says_what_the_model_says(client):
    predictor = client.app.state.service.predictor
    scene = Scene()
    found = await heat_map(predictor, scene)
    kick = kicks_at(np.array([20.0]), np.array([30.0]), scene.row)
    said = predictor.model.predict(kick).probability[0]
    assert found.probability[60, 40] == pytest.approx(said, abs=1e-12)
    levels = {each["level"]: each["path"] for each in found.contours([0.6, 0.999999])}
    assert levels[0.6].startswith("M")
    line = await tee_line(predictor, scene)
    assert line.best_probability == max(line.probability[line.out == line.best.out])


def test_every_text_is_there_in_both_languages():
    for key, pair in TEXTS.items():
        assert len(pair) == 2, key
        fields = [sorted(part.split("}")[0] for part in text.split("{")[1:]) for text in pair]
        assert fields[0] == fields[1], key


def test_numbers_and_warnings_are_written_as_the_language_wants():
    english, french = words_in("en"), words_in("fr")
    assert english.percent(0.7464) == "74.6%"
    assert french.percent(0.7464) == "74,6\N{NARROW NO-BREAK SPACE}%"
    assert english.number(-1.5, 1) == "\N{MINUS SIGN}1.5"
    assert french.warning("distance beyond 60 m") == "Distance au-delà de 60 m"
    assert french.warning("something else") == "something else"


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        ("", "fr-FR,fr;q=0.9,en;q=0.8", "fr"),
        ("", "de, en;q=0.3, fr;q=0.7", "fr"),
        ("en", "fr", "en"),
        ("", "", "en"),
    ],
)
def test_the_language_is_the_chosen_one_or_the_browsers(chosen, accepted, language):
    assert language_of(chosen, accepted) == language


def test_colours_run_from_the_first_stop_to_the_last():
    assert (colour_of(0), colour_of(1)) == ("#2c2a63", "#d9d65b")


def test_a_filter_passes_over_what_is_no_day():
    assert Filter.read("soon", None, "odd") == Filter()
    assert Filter.read("2026-11-24", "2026-11-24", "open").end.day == 25


@pytest.mark.parametrize("given", [None, 7, ["2026-11-24"], {"outcome": "open"}, "any\0", True])
def test_a_filter_takes_whatever_a_browser_sends_for_nothing(given):
    assert Filter.read(given, given, given) == Filter()


def test_after_the_last_day_of_the_calendar_nothing_is_left_out():
    assert Filter.read("", "9999-12-31", "any").end is None


def record(**values):
    kick = Kick(**dict(zip(Kick.__struct_fields__, simulate(1, seed=5).matrix[0].tolist(), strict=True)))
    usual = {name: getattr(kick, name) for name in kick.__struct_fields__} | {
        "id": "01a21eb3-c5a4-7000-8000-0efc4f0d1efe",
        "created_at": datetime(2026, 11, 27, 20, 30, 27, tzinfo=UTC),
        "prediction": 0.7,
        "confidence": 0.7,
        "interval": (0.6, 0.8),
        "model": "simulated",
        "revision": "1",
        "latency_ms": 0.1,
        "cpu_percent": 1.0,
        "memory_mb": 100.0,
    }
    return Record(**usual | values)


def shown(records, *, may_judge=True, may_delete=True, language="en"):
    words = words_in(language)
    return table(words, records, "/ui/", may_judge=may_judge, may_delete=may_delete)


def marks_in(html):
    """The buttons of a table: what each is for, and its other attributes."""
    return re.findall(r"<button class='button' data-mark='(\w+)'([^>]*)>", html)


def test_the_history_has_a_row_for_each_record_in_their_order():
    ids = [f"01a21eb3-c5a4-7000-8000-0efc4f0d1ef{end}" for end in "321"]
    found = shown([record(id=each) for each in ids])
    assert re.findall(r"<tr data-id='([^']*)'>", found) == ids
    assert found.count("<td>") == len(ids) * found.count("<th scope='col'>")


def test_a_record_without_a_prediction_has_a_row_too():
    found = shown([record(prediction=None, confidence=None, interval=None, status_code=500)])
    assert "<td>-</td>" in found
    assert "swatch" not in found


@pytest.mark.parametrize(
    ("outcome", "pressed"), [(None, ["false"] * 2), (True, ["true", "false"]), (False, ["false", "true"])]
)
def test_a_mark_is_pressed_as_the_outcome_says(outcome, pressed):
    found = shown([record(outcome=outcome)])
    assert re.findall(r"aria-pressed='(\w+)'", found) == pressed
    assert [mark for mark, _ in marks_in(found)] == ["scored", "missed", "delete"]


def test_marks_are_there_for_those_who_may_use_them():
    found = dict(marks_in(shown([record()], may_judge=False, may_delete=False)))
    assert found.keys() == {"scored", "missed"}  # which also show what is known
    assert all("disabled" in attributes for attributes in found.values())
    assert not any("disabled" in attributes for _, attributes in marks_in(shown([record()])))


def test_a_row_leads_to_the_pitch_as_it_was():
    one = record(distance=41.5, angle=12.0, is_left_side=1.0, game_away=0.0, wind_speed=7.0, time_norm=0.25)
    [link] = re.findall(r"href='/ui/\?([^']*)'", shown([one]))
    scene, unusable = read(dict(httpx.QueryParams(html.unescape(link))))
    assert unusable == []
    assert (scene.distance, scene.angle, scene.side, scene.venue) == (41.5, 12.0, "left", "home")
    assert (scene.wind, scene.minute) == (7, 20)


def test_no_word_of_a_row_becomes_markup(monkeypatch):
    evil = "<img src='x'>&{value}"
    for key in ("when", "side_left", "side_right", "minute_value", "wind_value", "scored", "delete", "show"):
        monkeypatch.setitem(TEXTS, key, (evil, evil))
    found = shown([record(id=evil)])
    assert "<img" not in found
    assert found.count("&lt;img src=&#x27;x&#x27;&gt;&amp;") == 8


async def test_whatever_a_browser_sends_for_a_click_changes_nothing_but_what_it_may(client, kick, settings):
    record_id = (await client.post("/predict", json=kick)).json()["id"]
    before = (await client.get(f"/predictions/{record_id}")).json()
    state = client.app.state
    with serving(Site(state.service, state.gate, "secret", settings.reports)):
        history = History(Visit(words_in("en"), NO_KEY))
        nobody = History(Visit(words_in("en"), None))
        for args in (
            *(None, 7, "scored", [], ["scored"], {"0": "scored", "1": record_id}),
            *(["scored", record_id, record_id], [["scored"], record_id], ["scored", None], ["scored", "x"]),
            *(["sure", record_id], ["SCORED", record_id], ["scored", f"{record_id}' OR 1=1"]),
        ):
            await history._clicked(GenericEventArguments(sender=None, client=None, args=args))
        for mark in ("scored", "missed"):
            await nobody._clicked(GenericEventArguments(sender=None, client=None, args=[mark, record_id]))
    assert (await client.get(f"/predictions/{record_id}")).json() == before


async def test_many_who_look_at_the_model_have_its_quality_assessed_once(client, kick, monkeypatch):
    service = client.app.state.service
    judged, asked = service.store.labelled, []

    def counted():
        asked.append(True)
        return judged()

    monkeypatch.setattr(service.store, "labelled", counted)
    shared = SharedQuality(service)
    record_id = (await client.post("/predict", json=kick)).json()["id"]
    monkeypatch.setattr(shared_quality, "_REST", 1e6)
    found = await asyncio.gather(*(shared.newest() for _ in range(5)))
    assert [each.count for each in found] == [0] * 5
    assert len(asked) == 1
    # When its rest is over, what has been told meanwhile is seen.
    await client.put(f"/predictions/{record_id}/outcome", json={"success": True})
    assert (await shared.newest()).count == 0
    shared._until = 0.0
    assert (await shared.newest()).count == 1
    assert len(asked) == 2


def test_the_secret_is_kept_for_its_owner_alone_and_stays(tmp_path):
    first = kept_secret(tmp_path / "journal")
    assert kept_secret(tmp_path / "journal") == first
    assert (tmp_path / "journal" / NAME).stat().st_mode & 0o077 == 0
    assert pass_for(b"a", first) != pass_for(b"b", first)


def test_a_broken_secret_says_what_to_do(tmp_path):
    (tmp_path / NAME).write_text("")
    with pytest.raises(ConfigurationError, match="remove it"):
        kept_secret(tmp_path)


async def test_the_service_leads_to_the_page_and_only_what_is_below_it_is_the_page(client):
    root = httpx.AsyncClient(transport=client._transport, base_url="http://test")
    assert (await root.get("/")).headers["location"] == "/ui"
    assert (await root.get("/uikit")).status_code == 404
    answer = await root.get("/ui/", headers={"accept-language": "fr"})
    assert 'lang="fr"' in answer.text
    assert "default-src 'none'; script-src 'self' 'nonce-" in answer.headers["content-security-policy"]


async def test_the_download_has_a_row_for_each_prediction(client, kick):
    root = httpx.AsyncClient(transport=client._transport, base_url="http://test")
    answer = (await client.post("/predict", json=kick)).json()
    await asyncio.sleep(0)
    text = (await root.get("/ui/history.csv")).text
    [row] = csv.DictReader(io.StringIO(text))
    assert (row["id"], float(row["prediction"])) == (answer["id"], answer["prediction"])


async def test_the_download_is_whole_however_many_there_are(client, kick):
    root = httpx.AsyncClient(transport=client._transport, base_url="http://test")
    answers = (await client.post("/predict/batch", json=[kick] * 450)).json()
    scored, missed = answers[7]["id"], answers[400]["id"]
    for record_id in (scored, missed):
        await client.put(f"/predictions/{record_id}/outcome", json={"success": record_id == scored})
    rows = list(csv.DictReader(io.StringIO((await root.get("/ui/history.csv")).text)))
    assert [row["id"] for row in rows] == [each["id"] for each in answers]
    assert [(row["low"], row["high"]) for row in rows] == [
        tuple(map(str, each["interval"])) for each in answers
    ]
    assert {row["outcome"] for row in rows} == {"", "0", "1"}
    assert {row["game_away"] for row in rows} == {"1"}
    [row] = csv.DictReader(io.StringIO((await root.get("/ui/history.csv?outcome=scored")).text))
    assert row["id"] == scored
    assert datetime.fromisoformat(row["outcome_at"]).tzinfo is not None


async def test_a_page_that_comes_late_is_not_shown_over_one_that_was_asked_for_since(client, kick):
    await client.post("/predict/batch", json=[kick] * 60)
    root = httpx.AsyncClient(transport=client._transport, base_url="http://test")
    await root.get("/ui/")  # NiceGUI begins
    scope = {"type": "http", "path": "/nowhere", "query_string": b"", "headers": []}
    visitor = Client(ui.page("/nowhere"), request=Request(scope))
    state = client.app.state
    page, reached, held = state.service.store.page, asyncio.Event(), asyncio.Event()
    with visitor:
        history = History(Visit(words_in("en"), NO_KEY))
        await history.build()

        async def slow(limit, **named):
            found = await page(limit, **named)
            if limit > 1:  # the newest alone is looked for before
                reached.set()
                await held.wait()
            return found

        state.service.store.page = slow
        newest = asyncio.create_task(history._go(None))
        await reached.wait()
        state.service.store.page = page
        await history._go_older()
        older = history._table.content
        held.set()
        await newest
        assert history._table.content == older
    visitor.delete()


async def test_without_the_store_the_download_says_so(start, settings, kick):
    client = await start(replace(settings, database_url="postgresql://user@127.0.0.1:1/nowhere"))
    root = httpx.AsyncClient(transport=client._transport, base_url="http://test")
    assert (await client.post("/predict", json=kick)).status_code == 200
    answer = await root.get("/ui/history.csv", headers={"accept-language": "fr"})
    assert answer.status_code == 503
    assert html.escape(words_in("fr")("store_away")) in answer.text


async def test_several_workers_have_a_word_in_the_pages_place(start, settings):
    client = await start(replace(settings, workers=2))
    root = httpx.AsyncClient(transport=client._transport, base_url="http://test")
    answer = await root.get("/ui")
    assert answer.status_code == 503
    assert "2 workers" in answer.text
    assert (await root.get("/")).headers["location"] == "/docs"
