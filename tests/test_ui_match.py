"""The match page in a real browser: a match is recorded with a connection or without, and sent once."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import KEYS
from pages import button, drag_by_finger, percent, place_on, predictions, served, sign_in
from playwright.sync_api import expect

import kickserve

NOTE = ".dock .note"


def tap(page, x, out):
    page.mouse.click(*place_on(page, x, out))


def tell(page, result):
    button(page, result).click()
    expect(page.locator(NOTE)).to_contain_text(result)


def shown(page):
    expect(page.locator(".number")).to_have_attribute("aria-busy", "false")
    return page.locator(".dock .place").inner_text(), page.locator(".number").evaluate(
        "each => each.firstChild.data"
    )


def score(page):
    expect(page.locator(".team b")).to_have_count(2)  # or the page has not begun
    return [int(each) for each in page.locator(".team b").all_inner_texts()]


def story(page):
    return page.locator(".story li").all_inner_texts()


def expect_nothing_waits(page):
    expect(page.locator(".dock")).to_be_visible()  # or the page has not begun
    expect(page.locator(".dock .warning")).to_have_count(0)


@pytest.fixture
def away(visit):
    """Let the connection be away: the browser reports it as an error."""
    visit.forgiven += ["ERR_INTERNET_DISCONNECTED", "ERR_FAILED"]


@pytest.fixture
def kept(visit, away):  # noqa: ARG001  faults that it forgives
    """Open the match page, and wait until it would open without a connection."""

    def kept(**options):
        page = visit("/match", **options)
        expect(page.locator(".number")).to_contain_text("%")
        page.wait_for_function("navigator.serviceWorker.controller")
        page.wait_for_function("caches.match('maps')")
        return page

    return kept


def test_a_match_without_a_connection_arrives_once_when_it_is_back(kept, tmp_path):
    with served(tmp_path, KICKSERVE_ROOT_PATH="/kicks") as server:
        page = kept(root=f"{server.root}/kicks")
        tap(page, 20, 36)
        place, number = shown(page)
        assert place == "Penalty, 39\N{NO-BREAK SPACE}m, left:"
        page.context.set_offline(offline=True)
        began = time.time()
        button(page, "Start the clock").click()
        tell(page, "Scored")
        page.reload()  # as one who opens it from the home screen
        assert score(page) == [3, 0]
        page.locator(".team").nth(1).click()
        tap(page, 50, 20)
        tell(page, "Missed")
        tell(page, "Went to corner")  # no kick at goal: nothing that the service has to know
        tap(page, 30, 20)
        tell(page, "Scored")
        button(page, "Undo").click()
        expect(page.locator(NOTE)).to_contain_text("Undone")
        expect(page.get_by_text("Kept on this device until there is a connection: 2")).to_be_visible()
        page.close()
        page.context.set_offline(offline=False)
        assert predictions(server) == []
        pages = [page.context.new_page() for _ in range(2)]  # two tabs send at once
        for each in pages:
            each.goto(f"{server.root}/kicks/ui/match")
        for each in pages:
            expect(each.locator(".story li")).to_have_count(3)
            expect_nothing_waits(each)
        missed, scored = predictions(server)
        assert [scored["outcome"], missed["outcome"]] == [True, False]
        assert percent(scored["prediction"]) == number
        assert [scored["game_away"], missed["game_away"]] == [False, True]
        assert scored["is_start"]
        assert not scored["has_previous_attempts"]
        assert (scored["source"], scored["distance"], scored["is_left_side"]) == ("page", 39, True)
        made = int(scored["id"].replace("-", "")[:12], 16) / 1000  # when it was kicked, not when it was sent
        assert began - 1 < made < began + 5
        for each in pages:
            each.close()


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize("undone", [False, True])
def test_a_kick_whose_answer_gets_lost_is_one_record_or_none_when_undone(visit, server, undone):
    before = predictions(server)
    page = visit("/match", service_workers="block")  # a worker would hide its requests from this test

    lost, back = [], []

    def lose(route):
        if back:
            route.continue_()
            return
        if not lost:
            sent = route.request
            lost.append(httpx.post(sent.url, content=sent.post_data_buffer, headers=sent.headers))
        route.abort()

    page.route("**/ui/record", lose)
    tap(page, 44, 33)
    with page.expect_event("requestfailed"):  # the service has recorded it then
        tell(page, "Scored")
    expect(page.get_by_text(re.compile("Kept on this device.*: 1"))).to_be_visible()
    assert len(predictions(server)) == len(before) + 1
    if undone:
        button(page, "Undo").click()
    back.append(True)
    expect_nothing_waits(page)
    new = predictions(server)[: -len(before) or None]
    assert [each["outcome"] for each in new] == ([] if undone else [True])
    assert len(story(page)) == len(new)
    if not undone:  # what has arrived is taken back there
        button(page, "Undo").click()
        expect(page.locator(NOTE)).to_contain_text("Undone")
        expect_nothing_waits(page)
        assert predictions(server) == before


def test_the_score_and_what_kicks_were_worth_follow_from_what_is_told(visit, server):
    page = visit("/match")
    button(page, "Try").click()
    tap(page, 60, -5)
    ball = page.locator(".ball").get_attribute("transform")
    tap(page, 20, 40)
    assert page.locator(".ball").get_attribute("transform") != ball
    assert (
        shown(page)[0] == f"Conversion, {round(math.hypot(25, 40))}\N{NO-BREAK SPACE}m, right:"
    )  # on the line of the try
    chances = [shown(page)[1]]
    tell(page, "Scored")
    assert score(page) == [7, 0]
    page.locator(".team").nth(1).click()
    tap(page, 35, 25)
    chances.append(shown(page)[1])
    tell(page, "Missed")
    tap(page, 35, 26)
    chances.append(shown(page)[1])
    tell(page, "Scored")
    page.get_by_role("button", name="Drop goal").click()
    tell(page, "Scored")
    button(page, "Penalty try").click()
    assert score(page) == [7, 13]
    expect_nothing_waits(page)
    one, two, three = (int(each.strip("%")) / 100 for each in chances)
    rows = page.locator(".tally .whole").all_inner_texts()
    for row, made, points, expected in zip(
        rows, ("1 of 1", "1 of 2"), (2, 3), (2 * one, 3 * (two + three)), strict=True
    ):
        assert made in row
        cells = row.split("\t")
        assert int(cells[2]) == points
        assert float(cells[3]) == pytest.approx(expected, abs=0.15)
    assert [each["has_previous_attempts"] for each in predictions(server, limit=3)] == [True, False, False]
    for left in ([7, 6], [7, 3], [7, 0], [7, 0], [5, 0], [0, 0]):
        button(page, "Undo").click()
        expect(page.locator(NOTE)).to_contain_text("Undone")
        assert score(page) == left
    expect(button(page, "Undo")).to_be_disabled()


def test_kickers_have_names_and_their_attempts_count(visit, server):
    page = visit("/match")
    page.get_by_role("button", name="Names of team and kicker").click()
    page.get_by_label("Team").fill("Ulster")
    page.get_by_label("Kicker’s name").fill("Sorcha Ní Bhriain")
    page.get_by_role("button", name="Left", exact=True).click()
    page.keyboard.press("Escape")
    button(page, "Done").click()
    expect(page.locator(".team").first).to_contain_text("Ulster")
    for _ in range(2):
        tell(page, "Missed")
    expect_nothing_waits(page)
    later, first = predictions(server, limit=2)
    assert later["kicker"] == first["kicker"] == "Sorcha Ní Bhriain"
    assert first["is_left_footed"]
    assert [first["has_previous_attempts"], later["has_previous_attempts"]] == [False, True]
    assert "Sorcha Ní Bhriain" in story(page)[0]


def test_the_ball_follows_a_finger(visit):
    # Nothing is tapped afterwards: right after a drag Chromium takes a tap for a hand that stops its fling.
    page = visit("/match", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    expect(page.locator(".number")).to_have_attribute("aria-busy", "false")
    box = drag_by_finger(page, 12, 4, -3)
    end = page.locator(".ball .reach").bounding_box()
    assert (end["x"] - box["x"], end["y"] - box["y"]) == pytest.approx((44, -33), abs=2)
    assert box["width"] >= 44


@pytest.mark.parametrize(
    ("width", "locale", "scheme"),
    [(360, "fr-FR", "light"), (390, "en-GB", "dark"), (820, "fr-FR", "dark"), (1440, "en-GB", "light")],
)
def test_a_thumb_reaches_all_of_it_and_nothing_is_a_barrier(visit, width, locale, scheme):
    page = visit(
        "/match",
        viewport={"width": width, "height": 844},
        has_touch=True,
        is_mobile=width < 1000,
        locale=locale,
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    expect(page.locator(".number")).to_have_attribute("aria-busy", "false")  # nothing moves any more
    for each in page.locator(".outcomes button").all():
        assert each.bounding_box()["height"] >= 56
        expect(each).to_be_in_viewport(ratio=1)
    page.locator(".outcomes button").first.tap()
    expect(page.locator(".story li")).to_have_count(1)
    page.locator(".try-button").tap()
    page.touchscreen.tap(*place_on(page, 12, -5))
    expect(page.locator(".tee .zone")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = [
        each
        for each in page.locator(".match button:visible, .match select:visible").all()
        if each.bounding_box()["height"] < 44
    ]
    assert not small
    serious = [
        (each["id"], [node["html"][:160] for node in each["nodes"][:3]])
        for each in Axe().run(page).response["violations"]
        if each["impact"] in {"serious", "critical"}
    ]
    assert not serious


def test_a_match_is_recorded_by_keyboard_alone(visit):
    page = visit("/match")
    page.locator(".ball").focus()
    before = shown(page)
    page.keyboard.press("Shift+ArrowDown")
    expect(page.locator(".dock .place")).not_to_have_text(before[0])
    for name, after in (("Scored", [3, 0]), ("Undo", [0, 0]), ("Try", [5, 0])):
        button(page, name).focus()
        page.keyboard.press("Enter")
        expect(page.locator(".team b").first).to_have_text(str(after[0]))
    page.locator(".try").focus()
    page.keyboard.press("Shift+ArrowLeft")
    expect(page.locator(".dock .place")).to_contain_text("left")


def test_what_waits_stays_until_its_visitor_signs_in(visit, guarded):
    before = predictions(guarded)
    page = visit("/match", root=guarded.root)
    tell(page, "Scored")
    expect(page.get_by_text("Kept on this device until you sign in with a key: 1")).to_be_visible()
    assert predictions(guarded) == before
    page.get_by_role("link", name="Sign in").click()
    sign_in(page, KEYS["predict"])
    expect(page).to_have_url(re.compile("/ui/match$"))
    expect_nothing_waits(page)
    assert [each["outcome"] for each in predictions(guarded)[: -len(before) or None]] == [True]
    button(page, "Undo").click()  # its key may not delete: the kick is left without an outcome
    expect(page.locator(NOTE)).to_contain_text("Undone")
    expect_nothing_waits(page)
    assert predictions(guarded)[0]["outcome"] is None


def test_the_page_can_be_installed_and_its_worker_keeps_no_answers(kept, server):
    page = kept()
    session = page.context.new_cdp_session(page)
    manifest = session.send("Page.getAppManifest")
    assert manifest["errors"] == []
    hindrances = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert {each["errorId"] for each in hindrances} == {"in-incognito"}  # as a context of Playwright is
    named = json.loads(manifest["data"])
    assert (named["start_url"], named["scope"], named["display"]) == ("/ui/match", "/ui/match", "standalone")
    for icon in named["icons"]:
        assert httpx.get(server.root + icon["src"]).headers["content-type"] == "image/png"
    names = page.evaluate(
        """async () => {
        const opened = await Promise.all((await caches.keys()).map((name) => caches.open(name)));
        const requests = await Promise.all(opened.map((each) => each.keys()));
        return requests.flat().map(({ url }) => new URL(url).pathname);
        }"""
    )
    assert {each for each in names if not each.startswith("/ui/static/")} == {"/ui/match", "/ui/maps"}


def test_a_model_that_is_reloaded_is_the_one_that_an_open_match_shows(visit, tmp_path):
    model = tmp_path / "model.json"
    document = json.loads(Path(kickserve.__file__).with_name("default.json").read_text(encoding="utf-8"))
    model.write_text(json.dumps(document), encoding="utf-8")
    with served(tmp_path, KICKSERVE_MODEL=str(model)) as server:
        page = visit("/match", root=server.root)
        before = shown(page)
        document["coefficients"][0] -= 2
        model.write_text(json.dumps({**document, "name": "another", "revision": ""}), encoding="utf-8")
        httpx.post(f"{server.url}/model/reload").raise_for_status()
        expect(page.get_by_text("Model: another")).to_be_visible()
        assert shown(page)[1] != before[1]
        page.close()
