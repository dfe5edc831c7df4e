"""Pages in a real browser: fixtures of every test of theirs, and what a visitor does."""

from __future__ import annotations

from contextlib import contextmanager

import httpx
import pytest
from browser import FLAGS, chromium
from conftest import KEYS, key_entry, write_keys
from serving import serving

from kickserve_ui.messages import messages_in

SLOW = 60_000


@pytest.fixture(scope="module")  # no longer: Playwright's event loop would be in the way of async tests
def browser():
    from playwright.sync_api import expect, sync_playwright

    place = chromium()
    expect.set_options(timeout=SLOW)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place, args=FLAGS)
        yield browser
        browser.close()


def root_of(server):
    return server.url.removesuffix("/api/v1")


@contextmanager
def served(folder, **environment):
    """Run a server whose `root` is the address of its pages' service; it must end well, pages or not."""
    with serving(folder, **environment) as server:
        server.root = root_of(server)
        # Else the first page would load itself anew.
        httpx.get(f"{server.root}/ui/status", timeout=SLOW / 1_000)
        yield server
        if server.process.poll() is None:
            assert server.end() == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("open")) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with keys, and two wrong keys an hour."""
    folder = tmp_path_factory.mktemp("guarded")
    file = write_keys(folder / "keys.json", key_entry("passing", "kick_passing", ["read"]))
    proxied = {"KICKSERVE_TRUSTED_PROXIES": "127.0.0.1"}
    with served(folder, KICKSERVE_KEYS=str(file), KICKSERVE_RATE_FAILURES="2/h", **proxied) as server:
        server.file = file
        yield server


@pytest.fixture
def visit(browser, server):
    """Open pages in contexts of their own; afterwards none may have had an error or left the machine."""
    contexts, faults = [], []

    def visit(path="", root=None, **options):
        options = {"locale": "en-GB", "viewport": {"width": 1400, "height": 900}, **options}
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SLOW)
        root = root or server.root
        page.on("console", lambda message: is_fault(message) and faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: is_foreign(request.url, root) and faults.append(request.url))
        page.goto(f"{root}/ui{path}")
        return page

    visit.forgiven = []  # what a fault may be about
    yield visit
    for context in contexts:
        context.close()
    assert not [each for each in faults if not any(text in each for text in visit.forgiven)]


def is_fault(message):
    # A page whose session has ended hears so when it looks once more, and asks for the key.
    return message.type == "error" and "401 (Unauthorized)" not in message.text


def is_foreign(url, root):
    return not url.startswith((root, root.replace("http", "ws", 1), "data:", "blob:"))


def predictions(server, **params):
    headers = {"X-API-Key": KEYS["admin"]}
    return httpx.get(f"{server.url}/predictions", params=params, headers=headers).raise_for_status().json()


def predict(server, kick):
    headers = {"X-API-Key": KEYS["admin"]}
    return httpx.post(f"{server.url}/predict", json=kick, headers=headers).raise_for_status().json()


def place_on(page, x, out):
    """Where a spot of the pitch, in metres, is on the screen."""
    box = page.locator(".pitch svg").bounding_box()
    return box["x"] + (x + 2) / 74 * box["width"], box["y"] + (out + 10.5) / 73.5 * box["height"]


def percent(probability):
    return messages_in("en").percent(probability)


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


@contextmanager
def counting(server):
    """Yield the ids of predictions that are new after the block, newest first."""
    new, before = [], {each["id"] for each in predictions(server, limit=10_000)}
    yield new
    new += [each["id"] for each in predictions(server, limit=10_000) if each["id"] not in before]


def drag_by_finger(page, steps, across, down):
    """Drag the ball in steps of so many pixels; return where its target was."""
    box = page.locator(".ball .reach").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    finger = page.context.new_cdp_session(page)

    def touch(kind, *points):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", {"x": x, "y": y})
    for step in range(steps):
        touch("touchMove", {"x": x + across * step, "y": y + down * step})
    touch("touchEnd")
    return box


def sign_in(page, key):
    page.get_by_label("Key").fill(key)
    page.locator(".sign-in button").click()
