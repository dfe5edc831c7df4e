"""Measures pages: weight, first paint, from a click to its answer, and what ten open ones cost the API."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from browser import FLAGS, chromium
from playwright.sync_api import sync_playwright
from serving import serving

from ops.bench import common

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from ops.commands import Row

PAGES: Final = 10
PAINTS: Final = 6
CLICKS: Final = 40
ROUNDS: Final = 3
SECONDS: Final = 4
CONNECTIONS: Final = 16
_WEIGHT: Final = """['navigation', 'resource'].flatMap((each) => performance.getEntriesByType(each))
  .reduce((sum, each) => sum + each.transferSize, 0) / 1000"""
_PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
# In the page, from the pointer's going up until the number has changed and is painted.
_CLICK: Final = """([x, y]) => new Promise((done) => {
  const svg = document.querySelector('.pitch svg'), box = svg.getBoundingClientRect();
  const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height, button: 0, pointerId: 1,
               bubbles: true, isPrimary: true, pointerType: 'mouse' };
  svg.setPointerCapture = () => {};
  const answer = document.querySelector('.answer, .dock'), started = performance.now();
  const painted = () => requestAnimationFrame(() => done(performance.now() - started));
  new MutationObserver((_, seen) => { seen.disconnect(); painted(); })
    .observe(answer, { childList: true, subtree: true, characterData: true });
  svg.dispatchEvent(new PointerEvent('pointerdown', at));
  svg.dispatchEvent(new PointerEvent('pointerup', at));
})"""


def page() -> dict[str, list[Row]]:
    """Measure the page: first paint, a click, and ten open pages; needs Chromium, and wrk for the last.

    On a service of its own; milliseconds, and throughput with the pages open over that without.
    """
    with tempfile.TemporaryDirectory() as folder, serving(folder) as server, sync_playwright() as playwright:
        root = server.url.removesuffix("/api/v1")
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        pitch, match = (look(browser, f"{root}/ui{path}") for path in ("/", "/match"))
        beside = (
            beside_pages(browser, server.url, Path(folder))
            if shutil.which("wrk")
            else "not measured: install wrk"
        )
        browser.close()
    rows = [{"page": "pitch", **pitch, "throughput_ratio": beside}, {"page": "match", **match}]
    return {f"{PAGES} open pages": rows}


def look(browser: Browser, url: str) -> Row:
    """Open a page some times, and click on its pitch."""
    paints = [paint(browser, url) for _ in range(PAINTS)]
    page = opened(browser, url)
    clicks = sorted(click(page, number) for number in range(CLICKS))
    weight: float = page.evaluate(_WEIGHT)
    page.context.close()
    return {
        "weight_kb": weight,
        "first_paint_ms": paints[0],
        "later_paint_ms": median(paints[1:]),
        "click_ms": median(clicks),
        "click_p95_ms": clicks[round(0.95 * CLICKS) - 1],
    }


def beside_pages(browser: Browser, api: str, folder: Path) -> float:
    """Return the throughput beside open pages, over that without any."""
    bodies = common.write_bodies(folder)
    alone, beside = [], []
    for _ in range(ROUNDS):  # in turns, so that what else the machine does hits both
        alone.append(throughput(api, bodies))
        pages = [opened(browser, api.removesuffix("/api/v1") + "/ui/") for _ in range(PAGES)]
        beside.append(throughput(api, bodies))
        for each in pages:
            each.context.close()
    return median(beside) / median(alone)


def opened(browser: Browser, url: str) -> Page:
    """Open a page in a context of its own, and wait until it is connected."""
    page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
    page.goto(url)
    page.wait_for_selector(".answer .number, .dock .number")
    page.wait_for_timeout(500)
    return page


def paint(browser: Browser, url: str) -> float:
    """Return the milliseconds until a page's first content is painted, with an empty cache."""
    page = opened(browser, url)
    found: float = page.evaluate(_PAINT)
    page.context.close()
    return found


def click(page: Page, number: int) -> float:
    """Click somewhere, and return the milliseconds until the answer has changed."""
    found: float = page.evaluate(_CLICK, [0.25 + number % 10 / 20, 0.3 + number % 7 / 14])
    page.wait_for_timeout(100)
    return found


def throughput(api: str, bodies: Path) -> float:
    """Return predictions a second, by wrk over 16 connections."""
    return common.load(f"{api}/predict", CONNECTIONS, SECONDS, bodies)["throughput"]
