"""Measures the page: first paint, from a click to its answer, and what ten open pages cost the API.

`just bench-page`. It needs Chromium, and wrk for the last of the three.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, sync_playwright

ROOT: Final = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import FLAGS, chromium  # noqa: E402  the tests' own ways to a server and a browser
from serving import serving  # noqa: E402

from kickserve.web.documentation import EXAMPLE  # noqa: E402

PAGES: Final = 10
ROUNDS: Final = 3
SECONDS: Final = 4
_PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
# In the page, from the pointer's going up until the number has changed and is painted.
_CLICK: Final = """([x, y]) => new Promise((done) => {
  const svg = document.querySelector('.pitch svg'), box = svg.getBoundingClientRect();
  const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height, button: 0, pointerId: 1,
               bubbles: true, isPrimary: true, pointerType: 'mouse' };
  svg.setPointerCapture = () => {};
  const answer = document.querySelector('.answer'), started = performance.now();
  const painted = () => requestAnimationFrame(() => done(performance.now() - started));
  new MutationObserver((_, seen) => { seen.disconnect(); painted(); })
    .observe(answer, { childList: true, subtree: true, characterData: true });
  svg.dispatchEvent(new PointerEvent('pointerdown', at));
  svg.dispatchEvent(new PointerEvent('pointerup', at));
})"""


def main() -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory() as folder, serving(folder) as server, sync_playwright() as playwright:
        root = server.url.removesuffix("/api/v1")
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        paints = [paint(browser, root) for _ in range(6)]
        print(
            f"first paint      first {paints[0]:.0f} ms, then {statistics.median(paints[1:]):.0f} ms (median)"
        )
        page = opened(browser, root)
        clicks = sorted(click(page, number) for number in range(40))
        print(f"click to answer  median {statistics.median(clicks):.0f} ms, 95 of 100 {clicks[37]:.0f} ms")
        if shutil.which("wrk") is None:
            print("throughput       not measured: install wrk")
            return
        alone, beside = [], []
        for _ in range(ROUNDS):  # in turns, so that what else the machine does hits both
            alone.append(throughput(server.url, folder))
            pages = [opened(browser, root) for _ in range(PAGES)]
            beside.append(throughput(server.url, folder))
            for each in pages:
                each.context.close()
        ratio = statistics.median(beside) / statistics.median(alone)
        print(f"throughput       {PAGES} open pages / none = {ratio:.3f}")
        browser.close()


def opened(browser: Browser, root: str) -> Page:
    """Open the page in a context of its own, and wait until its connection stands."""
    page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
    page.goto(f"{root}/ui/")
    page.wait_for_selector(".answer .number")
    page.wait_for_timeout(500)
    return page


def paint(browser: Browser, root: str) -> float:
    """Return the milliseconds until the page's first content is painted, with an empty cache."""
    page = opened(browser, root)
    found: float = page.evaluate(_PAINT)
    page.context.close()
    return found


def click(page: Page, number: int) -> float:
    """Click somewhere, and return the milliseconds until the answer has changed."""
    found: float = page.evaluate(_CLICK, [0.25 + number % 10 / 20, 0.3 + number % 7 / 14])
    page.wait_for_timeout(100)
    return found


def throughput(api: str, folder: str) -> float:
    """Return predictions a second, by wrk over 16 connections."""
    script = Path(folder) / "post.lua"
    script.write_text(
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        f"wrk.body = [[{json.dumps(EXAMPLE)}]]\n"
    )
    command = ["wrk", "-t1", "-c16", f"-d{SECONDS}s", "-s", str(script), f"{api}/predict"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(next(line.split()[1] for line in said.splitlines() if line.startswith("Requests/sec")))


if __name__ == "__main__":
    main()
