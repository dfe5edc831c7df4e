"""The page in a real browser against a real server: what is clicked, what is shown, and what is kept."""

from __future__ import annotations

import re
import signal
import socket
import time
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import FLAGS, NoBrowser, chromium
from playwright.sync_api import expect, sync_playwright
from serving import serving

from kickserve.features import named
from kickserve_data.simulate import simulate
from kickserve_ui.scene import read

KEY = "a-key"
NUMBER = ".answer .number"
SLOW = 15_000


@pytest.fixture(scope="module")
def browser():
    try:
        place = chromium()
    except NoBrowser as reason:
        pytest.skip(str(reason))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with serving(folder, KICKSERVE_JOURNAL_DIR=str(folder / "journal")) as server:
        yield server
        assert server.end() == 0  # pages or not


@pytest.fixture
def visit(browser, server):
    """Open pages in contexts of their own; afterwards none may have had an error or left the machine."""
    contexts, faults = [], []

    def visit(path="", base=None, **options):
        options = {"locale": "en-GB", "viewport": {"width": 1400, "height": 900}, **options}
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SLOW)
        root = base or root_of(server)
        page.on("console", lambda message: message.type == "error" and faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: is_abroad(request.url, root) and faults.append(request.url))
        page.goto(f"{root}/ui{path}")
        return page

    visit.faults = faults
    yield visit
    for context in contexts:
        context.close()
    assert not faults


def root_of(server):
    return server.url.removesuffix("/api/v1")


def is_abroad(url, root):
    return not url.startswith((root, root.replace("http", "ws", 1), "data:", "blob:"))


def kick_shown(page):
    """The features that the page is set to, read from the link that holds it all."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}
    scene, unusable = read(query)
    assert not unusable
    assert query
    kick = scene.kick
    return {name: getattr(kick, name) for name in kick.__struct_fields__}


def eventually(holds, page):
    """Wait until something holds: what keys and pointers did comes to the page when it comes."""
    for _ in range(100):
        if holds():
            return
        page.wait_for_timeout(50)
    assert holds()


def predicted(server, kick):
    answer = httpx.post(f"{server.url}/predict", json=kick).raise_for_status().json()
    return answer["prediction"]


def click_pitch(page, x, out):
    box = page.locator(".pitch svg").bounding_box()
    page.mouse.click(box["x"] + (x + 2) / 74 * box["width"], box["y"] + (out + 10.5) / 73.5 * box["height"])


def expect_kept(page):
    expect(page.locator(".note.is-kept")).to_be_visible(timeout=SLOW)


def expect_number_of_api(page, server):
    expect_kept(page)
    page.wait_for_function("location.search.length > 1")
    expect(page.locator(NUMBER)).to_have_text(f"{100 * predicted(server, kick_shown(page)):.1f}%")


@pytest.mark.parametrize(("x", "out"), [(35, 30), (10, 22), (60, 48), (35.4, 0.5), (2, 61)])
def test_a_click_on_the_pitch_shows_what_the_api_gives_for_the_same_features(visit, server, x, out):
    page = visit()
    click_pitch(page, x, out)
    expect_number_of_api(page, server)
    assert kick_shown(page)["is_left_side"] == (x < 35)


def test_a_click_is_kept_as_any_other_prediction(visit, server):
    page = visit()
    click_pitch(page, 20, 33)
    expect_kept(page)
    page.wait_for_function("location.search.length > 1")
    newest = httpx.get(f"{server.url}/predictions", params={"limit": 1}).json()[0]
    assert {name: newest[name] for name in kick_shown(page)} == kick_shown(page)


def test_what_is_dragged_through_is_not_kept_and_what_is_dropped_is(visit, server):
    page = visit()
    before = httpx.get(f"{server.url}/predictions", params={"limit": 1000}).json()
    box = page.locator(".pitch svg").bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    for step in range(12):
        page.mouse.move(box["x"] + (0.3 + step / 40) * box["width"], box["y"] + 0.6 * box["height"])
        page.wait_for_timeout(20)
    expect(page.locator(".note")).to_contain_text("Not kept")
    page.mouse.up()
    expect_number_of_api(page, server)
    after = httpx.get(f"{server.url}/predictions", params={"limit": 1000}).json()
    assert len(after) == len(before) + 2  # the drop, and the question of this test


def test_the_ball_moves_by_keyboard(visit, server):
    page = visit("/?distance=30&angle=0")
    page.locator(".ball").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowLeft")
    expect_number_of_api(page, server)
    kick = kick_shown(page)
    assert (kick["distance"], kick["is_left_side"]) == (31.4, True)


@pytest.mark.parametrize(("field", "feature"), [("distance", "distance"), ("angle", "angle")])
def test_a_number_moves_the_ball(visit, server, field, feature):
    page = visit()
    before = page.locator(".ball").get_attribute("transform")
    page.locator(f"input[data-field={field}]").fill("41.5")
    expect_number_of_api(page, server)
    assert kick_shown(page)[feature] == 41.5
    assert page.locator(".ball").get_attribute("transform") != before


def test_a_number_that_cannot_be_used_says_what_can(visit):
    page = visit()
    page.locator("input[data-field=distance]").fill("300")
    expect(page.get_by_text("must be a number from 2 to 100")).to_be_visible()


@pytest.mark.parametrize(
    ("field", "feature"),
    [("wind", "wind_speed"), ("rain", "precipitation_probability"), ("minute", "time_norm")],
)
def test_a_slider_changes_the_number(visit, server, field, feature):
    page = visit()
    page.locator(f".q-slider[data-field={field}] [tabindex]").focus()
    for _ in range(10):
        page.keyboard.press("PageUp")
    highest = {"wind_speed": 50, "precipitation_probability": 1, "time_norm": 1}[feature]
    page.wait_for_function("location.search.length > 1")
    eventually(lambda: kick_shown(page)[feature] == highest, page)
    expect_number_of_api(page, server)
    assert kick_shown(page)["is_endgame"] == (field == "minute")


@pytest.mark.parametrize(
    ("field", "choice", "feature", "value"),
    [
        ("side", "Right", "is_left_side", False),
        ("foot", "Left", "is_left_footed", True),
        ("venue", "Away", "game_away", True),
        ("attempts", "No", "has_previous_attempts", False),
    ],
)
def test_a_choice_changes_the_number(visit, server, field, choice, feature, value):
    page = visit()
    page.locator(f"[data-field={field}]").get_by_text(choice, exact=True).click()
    expect_number_of_api(page, server)
    assert kick_shown(page)[feature] is value


def test_conditions_repaint_the_whole_pitch(visit):
    page = visit()
    page.wait_for_function("document.querySelector('.pitch canvas').width > 100")
    picture = "document.querySelector('.pitch canvas').toDataURL()"
    before = page.evaluate(picture)
    page.get_by_text("Storm, 79th minute, away").click()
    page.wait_for_function(f"{picture} !== {before!r}")


def test_a_conversion_shows_the_best_spot_of_its_line(visit, server):
    page = visit("/?distance=30&angle=50")
    page.locator("[data-field=kind]").get_by_text("Conversion").click()
    page.get_by_text("Put the ball there").click()
    expect_number_of_api(page, server)
    worse = {**kick_shown(page), "distance": 60.0, "angle": 20.0}
    assert predicted(server, kick_shown(page)) > predicted(server, worse)


def test_the_values_of_a_decision_change_the_advice(visit):
    page = visit()
    page.locator("input[data-field=corner]").fill("5")
    expect(page.locator(".advice")).to_contain_text("The corner")


def test_a_link_holds_all_that_is_set(visit):
    link = "/?distance=44.4&angle=12.3&side=right&minute=3&wind=33&rain=70&foot=left&venue=away&attempts=no"
    page = visit(link)
    expect(page.locator("input[data-field=distance]")).to_have_value("44.4")
    expect(page.get_by_text("33 km/h")).to_be_visible()
    expect(page.get_by_text("3′ · first minutes")).to_be_visible()


def test_a_link_that_cannot_be_used_says_so(visit):
    page = visit("/?distance=far&wind=12")
    expect(page.get_by_text("values that can’t be used (distance)")).to_be_visible()


def test_a_kick_outside_the_models_ground_has_a_warning(visit):
    page = visit("/?distance=70&angle=3")
    expect(page.locator(".answer .warning").first).to_contain_text("Distance beyond 60 m")


def test_the_page_speaks_french_by_the_browser_and_by_the_switch(visit):
    page = visit(locale="fr-FR")
    expect(page.get_by_text("Probabilité de réussite")).to_be_visible()
    expect(page.locator(NUMBER)).to_have_text(re.compile(r"^\d+,\d\s%$"))
    assert page.locator("html").get_attribute("lang") == "fr"
    page.get_by_role("button", name="English").click()
    expect(page.get_by_text("Probability of success")).to_be_visible()


def test_history_shows_new_ones_by_itself_takes_outcomes_and_deletes(visit, server, kick):
    page = visit("/history")
    record_id = httpx.post(f"{server.url}/predict", json=kick).json()["id"]
    row = page.locator(f"tr[data-id='{record_id}']")
    expect(row).to_be_visible()
    row.locator("[data-mark=scored]").click()
    expect(row.locator("[data-mark=scored]")).to_have_attribute("aria-pressed", "true")
    assert httpx.get(f"{server.url}/predictions/{record_id}").json()["outcome"] is True
    row.locator("[data-mark=delete]").click()
    page.locator("[data-mark=sure]").click()
    expect(row).to_have_count(0)
    assert httpx.get(f"{server.url}/predictions/{record_id}").status_code == 404


def test_history_deletes_what_it_asked_about_last_and_nothing_that_was_cancelled(visit, server, kick):
    kept, gone = (httpx.post(f"{server.url}/predict", json=kick).json()["id"] for _ in range(2))
    page = visit("/history")
    page.locator(f"tr[data-id='{kept}'] [data-mark=delete]").click()
    page.get_by_role("dialog").get_by_text("Cancel").click()
    expect(page.locator("[data-mark=sure]")).to_have_count(0)
    page.locator(f"tr[data-id='{gone}'] [data-mark=delete]").click()
    page.locator("[data-mark=sure]").click()
    expect(page.locator(f"tr[data-id='{gone}']")).to_have_count(0)
    assert httpx.get(f"{server.url}/predictions/{gone}").status_code == 404
    assert httpx.get(f"{server.url}/predictions/{kept}").status_code == 200


def test_history_is_paged_by_the_store_and_filtered(visit, server, kick):
    httpx.post(f"{server.url}/predict/batch", json=[kick] * 60).raise_for_status()
    page = visit("/history")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(25)
    first = rows.first.get_attribute("data-id")
    page.locator("[data-go=older]").click()
    expect(page.locator(f"tr[data-id='{first}']")).to_have_count(0)
    expect(rows).to_have_count(25)
    page.get_by_label("Up to and with").fill("2001-01-01")
    expect(page.get_by_text("Nothing is kept that fits.")).to_be_visible()


def test_history_is_downloaded_as_csv(visit, server, kick):
    record_id = httpx.post(f"{server.url}/predict", json=kick).json()["id"]
    page = visit("/history")
    with page.expect_download() as download:
        page.get_by_text("Download CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("id,created_at,time_norm,distance")
    assert any(line.startswith(record_id) for line in lines)


def test_the_model_page_shows_card_quality_and_figures(visit, server, kick):
    record_id = httpx.post(f"{server.url}/predict", json=kick).json()["id"]
    httpx.put(f"{server.url}/predictions/{record_id}/outcome", json={"success": True}).raise_for_status()
    page = visit("/model")
    expect(page.get_by_text("Simulated from published figures", exact=True)).to_be_visible()
    expect(page.locator(".diagram circle").first).to_be_visible()
    expect(page.get_by_text("Predictions since the start")).to_be_visible()
    drift = page.locator(".card", has=page.get_by_role("heading", name="Drift", exact=True))
    # There is a summary from 50 kicks on: it depends on which tests ran before.
    expect(drift).to_contain_text(re.compile("of the features|No drift is known"))


@pytest.mark.parametrize("path", ["", "/history", "/model"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_out(visit, path, scheme):
    page = visit(path, color_scheme=scheme)
    page.wait_for_selector("h1")
    page.wait_for_timeout(400)
    found = Axe().run(page).response["violations"]
    serious = [
        (each["id"], [node["html"][:160] for node in each["nodes"][:3]])
        for each in found
        if each["impact"] in {"serious", "critical"}
    ]
    assert not serious


def test_a_phone_shows_the_number_and_the_pitch_without_scrolling_sideways(visit, server):
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator(".pitch svg").bounding_box()
    page.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + 0.6 * box["height"])
    expect_number_of_api(page, server)


@contextmanager
def guarded(folder):
    with serving(folder, API_KEY=KEY) as server:
        yield server
        assert server.end() == 0


def test_with_a_key_the_pitch_is_open_and_the_rest_asks_for_it(visit, tmp_path):
    with guarded(tmp_path) as server:
        root = root_of(server)
        page = visit(base=root)
        click_pitch(page, 20, 20)
        expect(page.locator(".note")).to_contain_text("sign in")
        known = {"headers": {"X-API-Key": KEY}}
        assert httpx.get(f"{server.url}/predictions", **known).json() == []
        assert httpx.get(f"{root}/ui/history.csv").status_code == 303
        page.goto(f"{root}/ui/history")
        page.get_by_label("Key").fill("wrong")
        page.locator(".sign-in button").click()
        expect(page.get_by_role("alert")).to_contain_text("not the key")
        page.get_by_label("Key").fill(KEY)
        page.locator(".sign-in button").click()
        expect(page.get_by_text("Nothing is kept that fits.")).to_be_visible()
        page.goto(f"{root}/ui/")
        click_pitch(page, 20, 20)
        expect_kept(page)
        assert len(httpx.get(f"{server.url}/predictions", **known).json()) == 1
        page.get_by_role("button", name="Sign out").click()
        page.goto(f"{root}/ui/history")
        expect(page.get_by_label("Key")).to_be_visible()
        page.close()  # before its server


def test_who_is_signed_in_reads_the_full_report_of_drift(visit, tmp_path):
    with guarded(tmp_path) as server:
        root, known = root_of(server), {"headers": {"X-API-Key": KEY}, "timeout": 30}
        kicks = [named(row) for row in simulate(200, 1).matrix.tolist()]
        httpx.post(f"{server.url}/predict/batch", json=kicks, **known).raise_for_status()
        httpx.post(f"{server.url}/drift/reports", **known).raise_for_status()
        assert httpx.get(f"{root}/ui/report").headers["location"] == "/ui/sign-in?to=/model"
        while httpx.get(f"{server.url}/drift/reports", **known).json()["newest_run"]["status"] == "running":
            time.sleep(0.2)
        page = visit("/model", base=root)
        page.get_by_label("Key").fill(KEY)
        page.locator(".sign-in button").click()
        with page.context.expect_page() as opened:
            page.get_by_role("link", name="Open the full report").click()
        expect(opened.value.get_by_text("No drift:").first).to_be_visible(timeout=SLOW)
        expect(opened.value.get_by_text("Dataset Drift").first).to_be_visible(timeout=SLOW)
        page.context.close()  # before its server


def test_a_server_that_was_stopped_and_is_back_finds_the_page_as_it_was(visit, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    root = f"http://127.0.0.1:{port}"
    with serving(tmp_path, KICKSERVE_PORT=port) as server:
        page = visit("/?distance=44.4&angle=10", base=root)
        expect(page.locator(NUMBER)).to_be_visible()
        assert server.end(signal.SIGTERM) == 0
        expect(page.locator("#popup")).to_be_visible(timeout=SLOW)
    with serving(tmp_path, KICKSERVE_PORT=port) as server:
        expect(page.locator("#popup")).to_be_hidden(timeout=30_000)
        expect(page.locator("input[data-field=distance]")).to_have_value("44.4")
        click_pitch(page, 40, 30)
        expect_number_of_api(page, server)
    visit.faults[:] = [each for each in visit.faults if "ERR_CONNECTION_REFUSED" not in each]
