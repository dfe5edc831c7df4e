"""The page against strangers, in a real browser: scripts, frames, websockets, and what each key shows."""

from __future__ import annotations

import http.server
import re
import threading
from contextlib import contextmanager

import httpx
import pytest
from browser import FLAGS, NoBrowser, chromium
from keyring import KEYS, write
from playwright.sync_api import expect, sync_playwright
from serving import serving

from kickserve.cli import run
from kickserve.openapi import EXAMPLE

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


@pytest.fixture
def page(browser):
    """A page whose errors are kept: a policy that is hurt is one."""
    context = browser.new_context(locale="en-GB", viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(SLOW)
    page.faults = []
    page.on("console", lambda message: message.type == "error" and page.faults.append(message.text))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    yield page
    context.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("open")) as server:
        yield server.url.removesuffix("/api/v1")


@contextmanager
def stranger(html):
    """Serve a page of another origin; its address is one that the browser takes for another site."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_page_of_the_api_runs_under_its_policy(page, root):
    page.goto(f"{root}/docs")
    page.get_by_text("/api/v1/predict", exact=True).first.click()
    page.get_by_role("button", name="Try it out").first.click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    assert page.faults == []


@pytest.mark.parametrize("path", ["/ui", "/docs"])
def test_a_script_that_got_into_a_page_does_not_run(page, root, path):
    page.goto(f"{root}{path}")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hurt = 1\">')")
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.hurt = 2';"
        " document.body.append(s); }"
    )
    page.evaluate(
        "() => { const s = document.createElement('script'); s.src = 'http://localhost:9/x.js';"
        " document.body.append(s); }"
    )
    page.wait_for_timeout(300)
    assert page.evaluate("window.hurt") is None
    assert sum("Content Security Policy" in each for each in page.faults) >= 3


@pytest.mark.parametrize("allowed", [False, True])
def test_only_those_that_the_settings_name_may_frame_the_page(page, tmp_path, allowed):
    with stranger("<iframe id=ours width=1200 height=800></iframe>") as foreign:
        environment = {"KICKSERVE_FRAME_ANCESTORS": foreign} if allowed else {}
        with serving(tmp_path, **environment) as server:
            page.goto(foreign)
            ours = server.url.replace("/api/v1", "/ui")
            page.evaluate("url => { document.getElementById('ours').src = url; }", ours)
            inside = page.frame_locator("#ours")
            if allowed:
                expect(inside.locator(".answer .number")).to_be_visible(timeout=SLOW)
                inside.locator("input[data-field=distance]").fill("55")
                inside.locator("input[data-field=distance]").press("Enter")
                expect(inside.locator(".note")).to_contain_text("kept")
                assert page.faults == []
            else:
                for _ in range(SLOW // 100):
                    if any("frame-ancestors" in each for each in page.faults):
                        break
                    page.wait_for_timeout(100)
                assert any("frame-ancestors" in each for each in page.faults)
                expect(inside.locator(".answer .number")).to_have_count(0)
            page.goto("about:blank")


def test_a_page_of_another_site_gets_no_websocket_and_posts_nothing(page, root):
    connect = """url => new Promise(done => {
        const socket = new WebSocket(url);
        socket.onopen = () => { socket.close(); done("open"); };
        socket.onerror = () => done("refused");
    })"""
    url = f"{root.replace('http', 'ws')}/ui/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    post = """url => fetch(url, {method: "POST", mode: "no-cors", body: "{}"}).then(() => "sent")"""
    with stranger("<p>evil") as foreign:
        page.goto(foreign)
        assert page.evaluate(connect, url) == "refused"
        before = httpx.get(f"{root}/api/v1/predictions").json()
        assert page.evaluate(post, f"{root}/api/v1/predict") == "sent"  # and refused, which it can't see
        assert httpx.get(f"{root}/api/v1/predictions").json() == before
        page.goto(f"{root}/ui")
        assert page.evaluate(connect, url) == "open"


class TestSignIn:
    @pytest.fixture
    def guarded(self, tmp_path):
        file = write(tmp_path / "keys.json")
        with serving(tmp_path, KICKSERVE_KEYS=str(file), KICKSERVE_RATE_FAILURES="2/h") as server:
            server.file = file
            yield server

    def sign_in(self, page, root, key):
        page.goto(f"{root}/ui/sign-in?to=/history")
        page.get_by_label("Key").fill(key)
        page.locator(".sign-in button").click()

    def test_a_key_shows_what_it_is_good_for_as_long_as_it_is(self, page, guarded):
        root = guarded.url.removesuffix("/api/v1")
        httpx.post(f"{guarded.url}/predict", json=EXAMPLE, headers={"X-API-Key": KEYS["predict"]})

        self.sign_in(page, root, KEYS["predict"])
        expect(page.get_by_role("alert")).to_contain_text("may not look")
        page.goto(f"{root}/ui")
        expect(page.locator(".note")).to_contain_text("kept")

        self.sign_in(page, root, KEYS["admin"])
        expect(page.locator("[data-mark=delete]")).to_be_visible()

        self.sign_in(page, root, KEYS["read"])
        expect(page.locator("tr[data-id]")).to_have_count(1)
        expect(page.locator("[data-mark=delete]")).to_have_count(0)
        expect(page.locator("[data-mark=scored]")).to_be_disabled()

        assert run(["key", "remove", "read", "--file", str(guarded.file)]) == 0
        expect(page.get_by_label("Key")).to_be_visible(timeout=SLOW)  # without a click
        assert page.faults == []
        page.close()
        assert guarded.end() == 0

    def test_guesses_are_limited_here_too(self, page, guarded):
        root = guarded.url.removesuffix("/api/v1")
        for wanted in ("not the key", "not the key", "Too many wrong keys"):
            self.sign_in(page, root, "a guess")
            expect(page.get_by_role("alert")).to_contain_text(wanted)
        page.close()

    @pytest.mark.parametrize("framed", [False, True])
    def test_the_cookie_is_for_no_script_and_behind_tls_for_tls_alone(self, tmp_path, framed):
        environment = {"KICKSERVE_FRAME_ANCESTORS": "https://huggingface.co"} if framed else {}
        with serving(tmp_path, API_KEY="sesame", **environment) as server:
            for scheme in ("http", "https"):
                answer = httpx.post(
                    server.url.replace("/api/v1", "/ui/sign-in"),
                    data={"key": "sesame"},
                    headers={"X-Forwarded-Proto": scheme},
                )
                flags = answer.headers["set-cookie"].lower()
                assert "httponly" in flags
                assert "path=/ui" in flags
                assert ("; secure" in flags) is (scheme == "https")
                wanted = "none" if framed and scheme == "https" else "lax"
                assert re.search(r"samesite=(\w+)", flags)[1] == wanted


def test_a_place_that_is_none_is_not_predicted(page, tmp_path):
    # A NaN among the features would be kept nowhere, and all that came after it would wait for it.
    drop = """place => {
        const pitch = document.querySelector(".pitch").closest("[id^=c]");
        getElement(Number(pitch.id.slice(1))).$emit("drop", place);
    }"""
    with serving(tmp_path) as server:
        page.goto(server.url.replace("/api/v1", "/ui"))
        expect(page.locator(".answer .number")).to_be_visible()
        for place in ({"x": "nan", "out": 20}, {"x": 1e308, "out": 20}, {"x": 20}, [1, 2], "20", None):
            page.evaluate(drop, place)
        page.evaluate(drop, {"x": 20, "out": 30})
        expect(page.locator(".note.is-kept")).to_be_visible()
        [kept] = httpx.get(f"{server.url}/predictions").raise_for_status().json()
        assert kept["distance"] == 33.5
    assert page.faults == []
