"""The pages in a real browser against a real server: for visitors, and against strangers."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from by_hand import site
from conftest import KEYS
from pages import (
    SLOW,
    button,
    counting,
    drag_by_finger,
    percent,
    place_on,
    predict,
    predictions,
    served,
    sign_in,
)
from playwright.sync_api import expect

import kickserve
from kickserve.cli import run
from kickserve.features import NAMES, named
from kickserve_data.simulate import simulate
from kickserve_ui.page_state import read

NUMBER = ".answer .number"


@pytest.fixture(scope="module")
def stranger():
    """The origin of a page that the browser takes for another site."""
    page = b"<link rel=icon href=data:,><iframe id=ours width=1200 height=800></iframe>"
    with site(200, page) as port:
        yield f"http://localhost:{port}"


@pytest.fixture(scope="module")
def framed(tmp_path_factory, stranger):
    """A server whose pages may stand in frames of the stranger's."""
    environment = {
        "API_KEY": "sesame",
        "KICKSERVE_FRAME_ANCESTORS": stranger,
        "KICKSERVE_TRUSTED_PROXIES": "1",
    }
    with served(tmp_path_factory.mktemp("framed"), **environment) as server:
        yield server


@pytest.fixture
def page(browser):
    """A page that may have errors."""
    context = browser.new_context(locale="en-GB", viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(SLOW)
    yield page
    context.close()


def kick_shown(page):
    """The features that the page is set to, read from its link."""
    expect(page.locator(".answer.exact")).to_be_visible()
    kick = read({name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}).kick
    return {name: getattr(kick, name) for name in NAMES}


def click_pitch(page, x, out):
    before = page.url
    page.mouse.click(*place_on(page, x, out))
    expect(page).not_to_have_url(before)


def click_until_taken(page, x, out):
    """Click as a person would on a page that loads itself anew at that moment."""
    before = page.url
    while page.url == before:
        page.mouse.click(*place_on(page, x, out))
        page.wait_for_timeout(200)


def expect_number_of_api(page, server):
    """The page shows what the API answers for its kick; asking the API records a kick."""
    answer = predict(server, kick_shown(page))
    expect(page.locator(NUMBER)).to_have_text(percent(answer["prediction"]))
    return answer


# The pitch.


def test_looking_records_nothing_and_shows_the_answers_of_the_api(visit, server):
    page = visit()
    shown = []
    with counting(server) as new:
        for x, out in ((10, 22), (60, 48), (35.4, 9)):
            click_pitch(page, x, out)
            shown.append((kick_shown(page), page.locator(NUMBER).inner_text()))
        for preset in ("Storm, 79th minute, away", "Conversion from touch"):
            page.get_by_role("button", name=preset).click()
        expect(page).to_have_url(re.compile("kind=conversion"))
        shown.append((kick_shown(page), page.locator(NUMBER).inner_text()))
    assert new == []
    assert [kick["is_left_side"] for kick, _ in shown] == [True, False, False, False]
    for kick, number in shown:
        assert number == percent(predict(server, kick)["prediction"])


def test_a_kick_is_recorded_and_marked_by_buttons_and_all_of_it_undone(visit, server):
    page = visit("/?distance=41&angle=12")
    with counting(server) as new:
        button(page, "Record this kick").click()
        expect(page.get_by_text("Recorded. Scored or missed?")).to_be_visible()
    [kept] = new
    stored = httpx.get(f"{server.url}/predictions/{kept}").json()
    assert {name: stored[name] for name in NAMES} == kick_shown(page)
    assert stored["source"] == "page"
    for name, outcome in (("Missed", False), ("Scored", True)):
        button(page, name).click()
        expect(button(page, name)).to_have_attribute("aria-pressed", "true")
        assert httpx.get(f"{server.url}/predictions/{kept}").json()["outcome"] is outcome
    for outcome in (False, None):
        button(page, "Undo").click()
        expect(page.get_by_role("status")).to_contain_text("Undone")
        page.wait_for_function("!document.querySelector('.undo[disabled]')")
        assert httpx.get(f"{server.url}/predictions/{kept}").json()["outcome"] is outcome
    button(page, "Undo").click()
    expect(button(page, "Record this kick")).to_be_visible()
    assert httpx.get(f"{server.url}/predictions/{kept}").status_code == 404
    with counting(server) as new:  # one tap does both
        button(page, "Missed").click()
        expect(page.get_by_text("Recorded: Missed.")).to_be_visible()
    assert len(new) == 1
    click_pitch(page, 20, 20)
    expect(page.get_by_text("Just looking: nothing is recorded.")).to_be_visible()


def test_the_number_follows_the_ball_with_the_service_away_and_never_belongs_to_another_kick(visit, server):
    page = visit()
    click_pitch(page, 35, 30)
    near = expect_number_of_api(page, server)["prediction"]
    page.context.set_offline(offline=True)
    x, y = place_on(page, 35, 30)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(*place_on(page, 35, 55), steps=12)
    page.mouse.up()
    far = float(page.locator(NUMBER).inner_text().removesuffix("%"))
    assert far < 100 * near - 20
    expect(page.get_by_text("The service can’t be reached")).to_be_visible()
    page.locator("input[data-field=wind]").fill("50")  # what the number is then is not known
    expect(page.locator(".answer.stale")).to_be_visible()
    expect(button(page, "Scored")).to_be_disabled()
    page.context.set_offline(offline=False)
    page.reload()
    expect_number_of_api(page, server)
    visit.forgiven.append("ERR_INTERNET_DISCONNECTED")


def test_a_model_that_is_reloaded_is_the_one_that_an_open_page_shows(visit, tmp_path):
    model = tmp_path / "model.json"
    document = json.loads(Path(kickserve.__file__).with_name("default.json").read_text(encoding="utf-8"))
    model.write_text(json.dumps(document), encoding="utf-8")
    with served(tmp_path, KICKSERVE_MODEL=str(model)) as server:
        page = visit("/?distance=40&angle=0", root=server.root)
        before = expect_number_of_api(page, server)["prediction"]
        document["coefficients"][0] -= 2
        model.write_text(json.dumps({**document, "name": "another", "revision": ""}), encoding="utf-8")
        httpx.post(f"{server.url}/model/reload").raise_for_status()
        expect(page.get_by_text("Model: another")).to_be_visible()
        expect(page.locator(NUMBER)).not_to_have_text(percent(before))
        assert expect_number_of_api(page, server)["prediction"] < before - 0.2
        page.close()


def test_the_page_works_by_keyboard_alone(visit, server):
    page = visit("/?distance=30&angle=0")
    page.locator(".ball").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowLeft")
    expect(page).to_have_url(re.compile("side=left"))
    expect_number_of_api(page, server)
    kick = kick_shown(page)
    assert (kick["distance"], kick["is_left_side"]) == (31.4, True)
    with counting(server) as new:
        button(page, "Missed").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_text("Recorded: Missed.")).to_be_visible()
    assert len(new) == 1
    button(page, "Conversion").focus()
    page.keyboard.press("Enter")
    page.locator(".try").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile("kind=conversion.*line=27|line=27.*kind=conversion"))


def test_numbers_sliders_and_choices_change_the_kick(visit, server):
    page = visit()
    ball = page.locator(".ball").get_attribute("transform")
    for field, value in (
        ("distance", "41.5"),
        ("angle", "10"),
        ("wind", "50"),
        ("rain", "100"),
        ("minute", "80"),
    ):
        page.locator(f"input[data-field={field}]").fill(value)
        expect(page).to_have_url(re.compile(f"{field}={value}"))
    expect(page.locator(".ball")).not_to_have_attribute("transform", ball)
    for field, choice in (("side", "Right"), ("foot", "Left"), ("venue", "Away"), ("attempts", "No")):
        page.locator(f"[data-field={field}]").get_by_text(choice, exact=True).click()
        expect(page).to_have_url(re.compile(f"{field}={choice.lower()}"))
    expect_number_of_api(page, server)
    kick = kick_shown(page)
    assert (kick["time_norm"], kick["wind_speed"], kick["precipitation_probability"]) == (1, 50, 1)
    assert kick["is_left_footed"]
    assert kick["game_away"]
    assert kick["is_endgame"]
    assert not kick["is_left_side"]
    assert not kick["has_previous_attempts"]
    page.locator("input[data-field=distance]").fill("300")
    expect(page.get_by_text("A number from 2 to 100")).to_be_visible()
    assert kick_shown(page) == kick


def test_the_corner_is_worth_less_from_further_away_and_close_calls_are_called_so(visit):
    page = visit("/?distance=20&angle=0")
    corner, advice = page.locator(".worth .value").nth(1), page.locator(".advice")
    expect(advice).to_contain_text("The posts")
    near = float(corner.inner_text())
    page.locator("input[data-field=distance]").fill("58")
    expect(page.locator(".place")).to_contain_text("58 m")
    assert float(corner.inner_text()) < near - 0.5
    for distance, said in (("38", "Too close to call"), ("75", "No advice")):
        page.locator("input[data-field=distance]").fill(distance)
        expect(advice).to_contain_text(said)
    page.locator("input[data-field=distance]").fill("38")
    page.get_by_text("Points and their sources").click()
    expect(page.get_by_text("Premiership 2018/19")).to_be_visible()
    page.locator("input[data-field=lineout_22]").fill("5")
    expect(advice).to_contain_text("The corner")


def test_the_ball_of_a_conversion_stays_on_the_line_of_its_try(visit, server):
    page = visit("/?kind=conversion&distance=30&angle=50")
    click_pitch(page, 60, -5)  # in the in-goal area: the try was there
    expect(page).to_have_url(re.compile("line=60"))
    tee = page.locator(".tee-card")
    expect(tee).to_contain_text("kickers usually tee up 20 to 28 m back")
    expect(tee).to_contain_text("as well off here as anywhere")
    click_pitch(page, 30, 45)
    expect(page).to_have_url(re.compile("back=45"))
    expect(page).to_have_url(re.compile("line=60"))
    here = expect_number_of_api(page, server)["prediction"]
    page.get_by_role("button", name=re.compile("Put the ball .* m back")).click()
    expect(tee).to_contain_text("as well off here as anywhere")
    assert expect_number_of_api(page, server)["prediction"] > here
    assert kick_shown(page)["distance"] == pytest.approx(math.hypot(25, 22), abs=3)


def test_a_link_sets_the_page_and_warns_of_its_faults(visit):
    page = visit("/?distance=70&angle=far&side=right&minute=3&wind=33")
    expect(page.locator("input[data-field=distance]")).to_have_value("70")
    expect(page.get_by_text("33 km/h")).to_be_visible()
    expect(page.get_by_text("3′ · first minutes")).to_be_visible()
    expect(page.get_by_text("values that can’t be used (angle)")).to_be_visible()
    expect(page.locator(".answer .warning").first).to_contain_text("Distance beyond 60 m")


@pytest.mark.parametrize(
    ("secure", "said"), [(True, "Copied."), (False, "Copied."), (False, "copy it by hand")]
)
def test_a_kick_is_shared_by_a_link_that_opens_the_same_kick_for_another(visit, server, secure, said):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    if not secure:  # without https there is no clipboard
        page.evaluate(
            "() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not here')); }"
        )
    if "hand" in said:
        page.evaluate("() => { document.execCommand = () => false; }")
    button(page, "Conversion").click()
    button(page, "Share").click()  # before the page's own address has followed
    link = page.get_by_label("Link with all settings").input_value()
    picture = page.get_by_role("link", name="Download the picture").get_attribute("href")
    card = httpx.get(picture)
    assert (card.status_code, card.headers["content-type"]) == (200, "image/png")
    button(page, "Copy link").click()
    expect(page.get_by_role("dialog").get_by_role("status").first).to_contain_text(said)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    kick = kick_shown(page)
    other = visit(link.removeprefix(f"{server.root}/ui"))
    assert kick_shown(other) == kick
    expect(button(other, "Conversion")).to_have_attribute("aria-pressed", "true")
    expect(other.locator(NUMBER)).to_have_text(page.locator(NUMBER).inner_text())
    title = other.locator("meta[property='og:title']").get_attribute("content")
    assert title.endswith(other.locator(".answer .word").inner_text().lower())  # two languages write it


@pytest.mark.parametrize("name", ["server", "guarded"])
def test_the_shown_calls_of_the_api_give_the_number_shown_and_no_key(request, visit, tmp_path, name):
    server = request.getfixturevalue(name)
    page = visit("/?distance=41&angle=12&wind=33&kicker=Seán O'Gara", root=server.root)
    expect(page.locator(".answer.exact")).to_be_visible()
    number = page.locator(NUMBER).inner_text()
    button(page, "Use by API").click()
    code = page.get_by_role("dialog").locator("textarea")
    shown = {}
    for way in ("curl", "Python", "kickserve client"):
        button(page, way).click()
        expect(button(page, way)).to_have_attribute("aria-pressed", "true")
        shown[way] = code.input_value()
    guarded = name == "guarded"
    assert all(("API_KEY" in each) is guarded for way, each in shown.items() if way != "kickserve client")
    assert not any(key in each for key in KEYS.values() for each in shown.values())
    environment = {**os.environ, "API_KEY": KEYS["predict"]}
    for way, each in shown.items():
        file = tmp_path / "shown"
        file.write_text(each, encoding="utf-8")
        program = "sh" if way == "curl" else sys.executable
        done = subprocess.run([program, file], env=environment, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        assert percent(found["prediction"] if way == "curl" else found) == number


def test_the_page_is_in_french_by_the_browser_and_by_the_switch(visit):
    page = visit(locale="fr-FR")
    expect(button(page, "Enregistrer ce tir")).to_be_visible()
    expect(page.locator(NUMBER)).to_have_text(re.compile(r"^\d+\s%$"))
    assert page.locator("html").get_attribute("lang") == "fr"
    button(page, "English").click()
    expect(button(page, "Record this kick")).to_be_visible()


@pytest.mark.parametrize("width", [360, 390, 820, 1440])
def test_a_finger_drags_the_ball_and_the_buttons_are_in_reach(visit, server, width):
    size = {"width": width, "height": 844}
    locale = "fr-FR" if width == 360 else "en-GB"  # the longer words
    page = visit("/?distance=30&angle=0", viewport=size, has_touch=True, is_mobile=True, locale=locale)
    expect(page.locator(".answer.exact")).to_be_visible()  # nothing moves any more
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    with counting(server) as new:
        box = drag_by_finger(page, 15, 4, -4)
        end = page.locator(".ball .reach").bounding_box()
        assert (end["x"] - box["x"], end["y"] - box["y"]) == pytest.approx((56, -56), abs=2)
        assert box["width"] >= 44
        buttons = page.locator(".results button")
        assert buttons.count() == 3
        for each in buttons.all():
            assert 44 <= each.bounding_box()["height"] <= 60
            assert each.bounding_box()["y"] < 800  # without scrolling
    assert new == []
    page.touchscreen.tap(*place_on(page, 50, 40))
    expect_number_of_api(page, server) if locale == "en-GB" else kick_shown(page)
    page.locator("input[data-field=wind]").scroll_into_view_if_needed()
    if width < 860:
        expect(page.locator(NUMBER)).to_be_in_viewport()


@pytest.mark.parametrize(
    ("path", "ready"),
    [("", NUMBER), ("/history", "tbody tr"), ("/model", ".badge"), ("/compare", "h1"), ("/embed", ".number")],
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_have_no_serious_barrier(visit, server, kick, path, ready, scheme):
    predict(server, kick)
    page = visit(path, color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator(ready).first).to_be_visible()
    page.wait_for_function("document.getAnimations().every((each) => each.playState === 'finished')")
    serious = [
        (each["id"], [node["html"][:160] for node in each["nodes"][:3]])
        for each in Axe().run(page).response["violations"]
        if each["impact"] in {"serious", "critical"}
    ]
    assert not serious


# The history, and the model.


def test_the_history_takes_outcomes_and_deletions_and_takes_them_back(visit, server, kick):
    kept, gone = (predict(server, {**kick, "distance": distance})["id"] for distance in (33.0, 44.0))
    page, other = visit("/history"), visit("/history", viewport={"width": 390, "height": 844})
    row = page.locator(f"tr[data-id='{gone}']")
    scored = row.get_by_role("button", name="Scored")
    scored.click()
    for each in (
        scored,
        other.locator(f"tr[data-id='{gone}'] [data-mark=scored]"),
    ):  # both tabs
        expect(each).to_have_attribute("aria-pressed", "true")
    assert httpx.get(f"{server.url}/predictions/{gone}").json()["outcome"] is True
    button(page, "Undo").click()
    expect(scored).to_have_attribute("aria-pressed", "false")
    assert httpx.get(f"{server.url}/predictions/{gone}").json()["outcome"] is None
    row.get_by_role("button", name="Delete: 44 m").click()
    expect(page.get_by_text(re.compile("Deleted: .*44 m"))).to_be_visible()
    button(page, "Undo").click()
    expect(scored).to_be_enabled()
    row.get_by_role("button", name="Delete").click()
    page.goto("about:blank")  # who leaves does not wait for the time in which it can be undone
    expect(other.locator(f"tr[data-id='{gone}']")).to_have_class("gone")
    assert httpx.get(f"{server.url}/predictions/{gone}").status_code == 404
    assert httpx.get(f"{server.url}/predictions/{kept}").status_code == 200
    for each in other.locator("tbody tr").first.locator("[data-mark]").all():
        assert each.bounding_box()["height"] >= 44
    assert other.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_history_holds_still_and_has_pages_and_filters_in_its_link(visit, server, kick):
    httpx.post(f"{server.url}/predict/batch", json=[kick] * 60).raise_for_status()
    page = visit("/history")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(25)
    first = rows.first.get_attribute("data-id")
    httpx.post(f"{server.url}/predict/batch", json=[kick] * 12).raise_for_status()
    expect(button(page, "12 new")).to_be_visible()
    assert rows.first.get_attribute("data-id") == first
    button(page, "Next").click()
    expect(page).to_have_url(re.compile("page=1"))
    expect(page.get_by_text(re.compile("26 to 50 of"))).to_be_visible()
    page.reload()
    expect(page.get_by_text(re.compile("26 to 50 of"))).to_be_visible()
    with page.expect_download() as download:
        page.get_by_text("Download CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("id,created_at,time_norm,distance")
    assert any(line.startswith(first) for line in lines)
    button(page, "Newest").click()
    expect(page.locator(f"tr[data-id='{first}']")).to_have_count(1)
    page.locator("[data-field=order]").select_option("unlikeliest")
    expect(page).to_have_url(re.compile("order=unlikeliest"))
    page.wait_for_function(
        """() => {
        const shown = [...document.querySelectorAll(".chance")].map((each) => each.innerText);
        const chances = shown.map((text) => parseInt(text.replace(/[<>]/, "")));
        return chances.length === 25 && chances.every((each, at) => !at || chances[at - 1] <= each);
        }"""
    )
    page.get_by_label("To, inclusive").fill("2001-01-01")
    expect(page.get_by_text("No recorded kick matches.")).to_be_visible()


def test_the_model_page_tells_what_the_card_knows_and_later_what_came_of_kicks(visit, server, kick):
    page = visit("/model")
    expect(page.get_by_text("Simulated from published figures", exact=True)).to_be_visible()
    expect(page.get_by_text("Small effects that were assumed, not measured: Away")).to_be_visible()
    expect(page.locator(".diagram .trained")).to_have_count(10)
    expect(page.get_by_role("row", name="Scored rated above missed")).to_contain_text("79 of 100 pairs")
    expect(page.get_by_text("Predictions since the start")).to_be_visible()
    record_id = predict(server, kick)["id"]
    httpx.put(f"{server.url}/predictions/{record_id}/outcome", json={"success": True}).raise_for_status()
    page.reload()
    expect(page.locator(".diagram .known").first).to_be_visible()
    expect(page.get_by_role("columnheader", name="Your kicks")).to_be_visible()


@pytest.mark.parametrize("touch", [False, True])
def test_a_divider_is_moved_between_two_models_by_hand_and_by_keyboard(visit, tmp_path, touch):
    document = json.loads(Path(kickserve.__file__).with_name("default.json").read_text(encoding="utf-8"))
    document["coefficients"][0] -= 0.5
    model = tmp_path / "model.json"
    model.write_text(json.dumps({**document, "name": "another", "revision": ""}), encoding="utf-8")
    with served(tmp_path, KICKSERVE_MODEL=str(model)) as server:
        size = {"width": 390, "height": 844} if touch else {"width": 1400, "height": 1000}
        page = visit("/model", root=server.root, viewport=size, has_touch=touch)
        page.get_by_role("link", name="Compare with another model").click()
        sides = page.locator(".sides b")
        expect(sides).to_have_count(2)
        low, high = (int(text.removesuffix("%")) for text in sides.all_inner_texts())
        assert low < high
        expect(page.locator(".pitch .labels text").first).to_have_text(re.compile(r"^\+\d"))
        expect(page.get_by_text("No outcome is known yet")).to_be_visible()
        divider = page.get_by_role("slider", name="Divider")
        box = divider.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        assert box["width"] >= 44
        if touch:
            finger = page.context.new_cdp_session(page)
            for kind, points in (
                ("touchStart", [{"x": x, "y": y}]),
                *(("touchMove", [{"x": x + step, "y": y}]) for step in range(0, 80, 8)),
                ("touchEnd", []),
            ):
                finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        else:
            page.mouse.move(x, y)
            page.mouse.down()
            page.mouse.move(x + 72, y, steps=8)
            page.mouse.up()
        assert divider.bounding_box()["x"] == pytest.approx(box["x"] + 72, abs=4)
        divider.focus()
        page.keyboard.press("Home")
        expect(divider).to_have_attribute("aria-valuenow", "0")
        page.keyboard.press("ArrowRight")
        expect(divider).to_have_attribute("aria-valuetext", "The model in use on 2%")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        page.close()


@pytest.mark.slow
def test_a_page_survives_a_restart_of_its_server(visit, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    with served(tmp_path, KICKSERVE_PORT=port) as server:
        page = visit("/?distance=44.4&angle=10", root=server.root)
        expect(page.locator(NUMBER)).to_be_visible()
        assert server.end(signal.SIGTERM) == 0
        expect(page.get_by_text("The service can’t be reached")).to_be_visible()
    with served(tmp_path, KICKSERVE_PORT=port) as server:
        expect(page.get_by_text("The service can’t be reached")).to_be_hidden(timeout=2 * SLOW)
        expect(page.locator("input[data-field=distance]")).to_have_value("44.4")
        click_until_taken(page, 40, 30)
        expect_number_of_api(page, server)
        page.close()
    visit.forgiven.append("ERR_CONNECTION_REFUSED")


# Keys.


def test_with_a_key_the_pitch_is_open_and_the_rest_asks_for_it(visit, guarded):
    before = predictions(guarded)
    page = visit(root=guarded.root)
    click_pitch(page, 20, 20)
    expect(page.get_by_role("status")).to_contain_text("sign in")
    expect(button(page, "Record this kick")).to_be_disabled()
    assert httpx.post(f"{guarded.root}/ui/record", json={"query": ""}).status_code == 401
    assert predictions(guarded) == before
    assert httpx.get(f"{guarded.root}/ui/history.csv").status_code == 303
    page.goto(f"{guarded.root}/ui/history")
    sign_in(page, KEYS["admin"])
    expect(page).to_have_url(re.compile("/ui/history$"))
    page.goto(f"{guarded.root}/ui/")
    button(page, "Record this kick").click()
    expect(page.get_by_text("Recorded. Scored or missed?")).to_be_visible()
    assert len(predictions(guarded)) == len(before) + 1
    history, pitch = page.context.new_page(), page.context.new_page()
    history.goto(f"{guarded.root}/ui/history")
    expect(history.locator("[data-id]").first).to_be_visible()
    pitch.goto(f"{guarded.root}/ui/")
    expect(button(pitch, "Record this kick")).to_be_enabled()
    [cookie] = [each["value"] for each in page.context.cookies() if each["name"] == "kickserve"]
    page.get_by_role("button", name="Sign out").click()
    expect(history.get_by_label("Key")).to_be_visible()  # without a click
    expect(button(pitch, "Record this kick")).to_be_disabled()
    stolen = httpx.get(f"{guarded.root}/ui/history.csv", cookies={"kickserve": cookie})
    assert stolen.status_code == 303


def test_a_key_opens_its_scopes_until_it_is_removed(visit, guarded, kick):
    predict(guarded, kick)
    page = visit("/sign-in?to=/history", root=guarded.root)
    sign_in(page, KEYS["predict"])
    expect(page.get_by_role("alert")).to_contain_text("can’t read")
    page.goto(f"{guarded.root}/ui")
    expect(button(page, "Record this kick")).to_be_enabled()
    page.goto(f"{guarded.root}/ui/sign-in?to=/history")
    sign_in(page, KEYS["admin"])
    expect(page.locator("[data-mark=delete]").first).to_be_visible()
    page.goto(f"{guarded.root}/ui/sign-in?to=/history")
    sign_in(page, "kick_passing")
    expect(page.locator("[data-mark=scored]").first).to_be_disabled()
    expect(page.locator("[data-mark=delete]")).to_have_count(0)
    assert run(["key", "remove", "passing", "--file", str(guarded.file)]) == 0
    expect(page.get_by_label("Key")).to_be_visible()  # without a click


def test_guesses_are_limited(visit, guarded):
    page = visit("/sign-in?to=/history", guarded.root, extra_http_headers={"X-Forwarded-For": "203.0.113.9"})
    for wanted in ("not valid", "not valid", "Too many wrong keys"):
        with page.expect_navigation():
            sign_in(page, "a guess")
        expect(page.get_by_role("alert")).to_contain_text(wanted)


@pytest.mark.slow
def test_a_visitor_who_is_signed_in_reads_the_full_drift_report(visit, guarded):
    known = {"headers": {"X-API-Key": KEYS["admin"]}, "timeout": 60}
    kicks = [named(row) for row in simulate(200, 1).matrix.tolist()]
    httpx.post(f"{guarded.url}/predict/batch", json=kicks, **known).raise_for_status()
    httpx.post(f"{guarded.url}/drift/reports", **known).raise_for_status()
    assert httpx.get(f"{guarded.root}/ui/report", timeout=60).headers["location"] == "/ui/sign-in?to=/model"
    while httpx.get(f"{guarded.url}/drift/reports", **known).json()["newest_run"]["status"] == "running":
        time.sleep(0.2)
    page = visit("/model", root=guarded.root)
    sign_in(page, KEYS["admin"])
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open the full report").click()
    expect(opened.value.get_by_text("Dataset Drift").first).to_be_visible()
    button(page, "Français").click()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Ouvrir le rapport complet").click()
    expect(opened.value.get_by_role("heading", name="Vos tirs ont-ils changé ?")).to_be_visible()
    expect(opened.value.get_by_role("row", name="Risque de pluie")).to_be_visible()
    expect(opened.value.get_by_text("Dataset Drift").first).to_be_visible()


@pytest.mark.parametrize(
    ("name", "key", "scheme", "same_site"),
    [
        ("guarded", KEYS["read"], "http", "lax"),
        ("guarded", KEYS["read"], "https", "lax"),
        ("framed", "sesame", "http", "lax"),
        ("framed", "sesame", "https", "none"),
    ],
)
def test_the_cookie_is_for_no_script_and_behind_tls_for_tls_alone(request, name, key, scheme, same_site):
    url = f"{request.getfixturevalue(name).root}/ui/sign-in"
    answer = httpx.post(url, data={"key": key}, headers={"X-Forwarded-Proto": scheme})
    flags = answer.headers["set-cookie"].lower()
    assert "httponly" in flags
    assert "path=/ui" in flags
    assert ("; secure" in flags) is (scheme == "https")
    assert f"samesite={same_site}" in flags


# Strangers.


def test_the_page_of_the_api_runs_under_its_policy(visit):
    page = visit("/../docs")
    page.get_by_text("/api/v1/predict", exact=True).first.click()
    page.get_by_role("button", name="Try it out").first.click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text("200")


@pytest.mark.parametrize("path", ["/ui", "/docs"])
def test_a_script_that_got_into_a_page_does_not_run(page, server, path):
    page.goto(f"{server.root}{path}")
    page.evaluate(
        """() => new Promise((resolve) => {
        let refused = 0;
        document.addEventListener("securitypolicyviolation", () => { if (++refused === 3) resolve(); });
        document.body.insertAdjacentHTML("beforeend", '<img src=x onerror="window.hurt = 1">');
        for (const values of [{ textContent: "window.hurt = 2" }, { src: "http://localhost:9/x.js" }])
          document.body.append(Object.assign(document.createElement("script"), values));
        })"""
    )
    assert page.evaluate("window.hurt") is None


SHOW = "url => { document.getElementById('ours').src = url; }"


def test_an_origin_of_the_settings_may_frame_the_page(page, framed, stranger):
    page.goto(stranger)
    page.evaluate(SHOW, f"{framed.root}/ui")
    inside = page.frame_locator("#ours")
    expect(inside.locator(NUMBER)).to_contain_text("%")
    number = inside.locator(NUMBER).inner_text()
    inside.locator("input[data-field=distance]").fill("55")
    expect(inside.locator(NUMBER)).not_to_have_text(number)
    page.goto("about:blank")


def test_other_origins_may_not_frame_the_page(page, server, stranger):
    page.goto(stranger)
    with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
        page.evaluate(SHOW, f"{server.root}/ui")
    expect(page.frame_locator("#ours").locator(NUMBER)).to_have_count(0)


def test_any_page_may_frame_the_embedded_pitch_which_sets_no_cookie_and_records_nothing(
    page, guarded, stranger
):
    page.goto(stranger)
    page.emulate_media(color_scheme="dark")
    with counting(guarded) as new:
        page.evaluate(SHOW, f"{guarded.root}/ui/embed?kind=conversion&line=8&back=30&language=fr")
        inside = page.frame_locator("#ours")
        expect(inside.get_by_role("heading")).to_contain_text("Une transformation de 40 m du côté gauche")
        expect(inside.locator(".number")).to_have_text(re.compile(r"^\d+\s%$"))
        expect(inside.locator("body")).to_have_css("background-color", "rgb(24, 34, 33)")
        expect(inside.get_by_role("link")).to_have_attribute(
            "href", f"{guarded.root}/ui/?kind=conversion&line=8&back=30&language=fr"
        )
    assert new == []
    assert page.context.cookies() == []
    page.goto("about:blank")


def test_a_page_of_another_site_posts_nothing(page, server, stranger):
    post = """url => fetch(url, {method: "POST", mode: "no-cors", body: "{}"}).then(() => "sent")"""
    page.goto(stranger)
    with counting(server) as new:
        for path in ("/api/v1/predict", "/ui/record"):
            assert page.evaluate(post, server.root + path) == "sent"  # and refused, which it can't see
    assert new == []


@pytest.mark.parametrize("query", ["distance=nan", "distance=1e308", "side=up", "kicker=%00", "minute=-1"])
def test_a_kick_that_is_none_is_refused_with_the_name_of_its_field(server, query):
    # A NaN among the features could not be stored, and all later records would wait behind it.
    with counting(server) as new:
        answers = [
            httpx.post(f"{server.root}/ui/record", json={"query": query}),
            *(httpx.get(f"{server.root}/ui/{path}?{query}") for path in ("answer", "map")),
        ]
    assert new == []
    for answer in answers:
        assert answer.status_code == 422
        assert query.partition("=")[0] in answer.json()["detail"]
