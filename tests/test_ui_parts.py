"""The parts of the page that need no browser: geometry, links, words, the heat map, the secret, the mount."""

from __future__ import annotations

import asyncio
import csv
import io
import math
from dataclasses import replace

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from kickserve.errors import ConfigurationError
from kickserve.schemas import Kick
from kickserve.simulate import simulate
from kickserve_ui.answer import break_even
from kickserve_ui.geometry import Aim, Spot, aim_from, kicks_at, spot_of
from kickserve_ui.heat import heat_map, tee_line
from kickserve_ui.history_filter import Filter
from kickserve_ui.palette import colour_of
from kickserve_ui.phrases import TEXTS
from kickserve_ui.scene import PRESETS, Scene, changed, read
from kickserve_ui.secret import NAME, kept_secret, pass_for
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


async def test_several_workers_have_a_word_in_the_pages_place(start, settings):
    client = await start(replace(settings, workers=2))
    root = httpx.AsyncClient(transport=client._transport, base_url="http://test")
    answer = await root.get("/ui")
    assert answer.status_code == 503
    assert "2 workers" in answer.text
    assert (await root.get("/")).headers["location"] == "/docs"
