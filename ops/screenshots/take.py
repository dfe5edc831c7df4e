"""Takes the pictures of the page that the README shows: `just screenshots`.

It starts a service with simulated kicks in it, and opens its pages in the browser of this machine.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import httpx
from browser import FLAGS, chromium
from playwright.sync_api import Browser, sync_playwright
from serving import serving

from kickserve.features import named
from kickserve_data.simulate import simulate
from ops.screenshots import match

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
DESKTOP: Final = {"width": 1280, "height": 840}
PHONE: Final = {"width": 390, "height": 1560}
CONVERSION: Final = "/?kind=conversion&distance=34&angle=48&side=right&wind=25&rain=40&minute=72"
KICKERS: Final = "/kickers?from=sample&kicker=Kicker+L&with=Kicker+A"
PICTURES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "pitch": ("/", {"viewport": DESKTOP, "locale": "en-GB"}),
    "dark": ("/history", {"viewport": DESKTOP, "locale": "en-GB", "color_scheme": "dark"}),
    "phone": ("/", {"viewport": PHONE, "locale": "en-GB", "has_touch": True}),
    "french": (CONVERSION, {"viewport": DESKTOP, "locale": "fr-FR", "color_scheme": "dark"}),
    "kickers": (
        "/kickers?from=sample&kicker=Kicker+D&with=Kicker+L",
        {"viewport": {"width": 1280, "height": 1320}, "locale": "en-GB"},
    ),
    "model": ("/model", {"viewport": {"width": 1280, "height": 1120}, "locale": "en-GB"}),
}
CARD: Final = "/card.png?distance=41&angle=24&side=left&kicker=Léa%20Ortiz&language=en"
_SETTLED: Final = 900  # milliseconds


def main() -> None:
    """Take all of them."""
    with tempfile.TemporaryDirectory() as folder, serving(folder) as server:
        fill(server.url)
        pages = server.url.removesuffix("/api/v1") + "/ui"
        card = httpx.get(pages + CARD, timeout=60).raise_for_status()
        (HERE / "card.png").write_bytes(card.content)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            for name, (path, options) in PICTURES.items():
                take(browser, pages + path, HERE / f"{name}.png", options)
            match.play(browser, pages, HERE / "match.png")
            browser.close()


def fill(api: str) -> None:
    """Have kicks predicted, and set the outcomes of most of them."""
    kicks = simulate(1_500, seed=7)
    bodies = [named(row) for row in kicks.matrix.tolist()]
    answers = httpx.post(f"{api}/predict/batch", json=bodies, timeout=60).raise_for_status().json()
    outcomes = [
        {"id": answer["id"], "success": bool(success)}
        for answer, success in zip(answers[:-8], kicks.success, strict=False)
    ]
    httpx.put(f"{api}/predictions/outcomes", json=outcomes, timeout=60).raise_for_status()


def take(browser: Browser, url: str, file: Path, options: dict[str, Any]) -> None:
    """Open a page and take its picture."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("h1", state="attached")
    page.wait_for_timeout(_SETTLED)
    page.screenshot(path=file)
    print(f"{file.relative_to(ROOT)}  {file.stat().st_size / 1e3:.0f} kB")
    context.close()


if __name__ == "__main__":
    main()
