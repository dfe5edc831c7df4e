"""Plays the first half of a match on the match page as a coach would, and takes its picture.

`python -m ops.screenshots.match FOLDER` plays against a service of its own, with a picture of every step in
the folder. The clock of the browser is set forward between the kicks; half of them have no connection.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
from browser import FLAGS, chromium
from playwright.sync_api import expect, sync_playwright
from serving import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHONE: Final[dict[str, Any]] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 1.5,
    "has_touch": True,
    "is_mobile": True,
    "locale": "en-GB",
}
TEAMS: Final = (("Harbour", "Aoife Byrne", "Left"), ("Old Boys", "Tom Ellis", "Right"))
HALF: Final = 40  # minutes
_SETTLED: Final = 700  # milliseconds


class Moment(NamedTuple):
    """Something that happens in the match.

    Attributes:
        minute: of the match.
        team: 0 or 1.
        what: `penalty`, `try` with its conversion, or `drop`.
        x: metres from the left touch line, of the ball or the try.
        out: metres from the goal line, of the ball.
        result: the button that tells what came of the kick.
        slip: whether the coach first hits the wrong button, and takes it back.
    """

    minute: int
    team: int
    what: str
    x: float
    out: float
    result: str
    slip: bool = False


MATCH: Final = (
    Moment(3, 0, "penalty", 24, 31, "Scored"),
    Moment(7, 1, "penalty", 51, 46, "Missed"),
    Moment(12, 0, "try", 58, 26, "Scored"),
    Moment(16, 1, "penalty", 8, 34, "Went to corner"),
    Moment(18, 1, "try", 14, 24, "Missed"),
    Moment(22, 1, "penalty", 33, 28, "Scored", slip=True),
    Moment(26, 0, "penalty", 45, 39, "Scored"),
    Moment(29, 0, "drop", 0, 0, "Missed"),
    Moment(33, 1, "try", 37, 14, "Scored"),
    Moment(38, 0, "penalty", 19, 22, "Scored"),
)
AWAY: Final = range(14, 28)  # minutes without a connection
POINTS: Final = [16, 15]
ATTEMPTS: Final = 8


def main() -> None:
    """Play, with a picture of every step, and see that all has arrived once."""
    pictures = Path(sys.argv[1])
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, serving(folder) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        play(browser, server.url.removesuffix("/api/v1") + "/ui", pictures / "end.png", pictures)
        kept = httpx.get(f"{server.url}/predictions", params={"limit": 100}).raise_for_status().json()
        browser.close()
    print(f"{len(kept)} kicks at goal are stored, {sum(each['outcome'] for each in kept)} of them scored")
    assert len(kept) == ATTEMPTS


def play(browser: Browser, pages: str, picture: Path, steps: Path | None = None) -> None:
    """Play the half, and take a picture of its end.

    Args:
        browser: of Playwright.
        pages: their address.
        picture: file of the picture at the end.
        steps: folder for a picture of every step.
    """
    context = browser.new_context(**PHONE)
    page = context.new_page()
    page.clock.install(time=time.time() - 60 * (HALF + 5))  # the service takes no kicks of the future
    page.goto(f"{pages}/match")
    expect(page.locator(".dock .number")).to_contain_text("%")
    coach = _Coach(page, steps)
    for team, names in enumerate(TEAMS):
        coach.name(team, *names)
    page.get_by_role("button", name="Start the clock").tap()
    for moment in MATCH:
        context.set_offline(moment.minute in AWAY)
        coach.live(moment)
    page.clock.fast_forward(1000 * 60 * (HALF - MATCH[-1].minute))
    page.get_by_role("button", name="Half-time").tap()
    expect(page.locator(".dock .warning")).to_have_count(0)
    assert [int(each) for each in page.locator(".team b").all_inner_texts()] == POINTS
    coach.show("half-time")
    page.set_viewport_size({"width": 390, "height": 1560})  # with the timeline
    coach.show("timeline")
    page.screenshot(path=picture)
    context.close()


class _Coach:
    """Uses the page by touch.

    Args:
        page: the match page.
        steps: folder for a picture of every step.
    """

    def __init__(self, page: Page, steps: Path | None) -> None:
        self._page = page
        self._steps = steps
        self._minute = 0
        self._taken = 0

    def name(self, team: int, name: str, kicker: str, foot: str) -> None:
        """Name a team and its kicker."""
        page = self._page
        page.locator(".team").nth(team).tap()
        page.get_by_role("button", name="Names of team and kicker").tap()
        page.get_by_label("Team").fill(name)
        page.locator("[data-field=kicker-name]").fill(kicker)
        self._tap(foot)
        self.show(f"names of {name}")
        self._tap("Done")

    def live(self, moment: Moment) -> None:
        """Live through a moment of the match, and tell the page of it."""
        page = self._page
        page.clock.fast_forward(1000 * 60 * (moment.minute - self._minute))
        self._minute = moment.minute
        page.locator(".team").nth(moment.team).tap()
        if moment.what == "try":
            self._tap("Try")
            self._place(moment.x, -5)
        else:
            self._tap({"penalty": "Penalty", "drop": "Drop goal"}[moment.what])
        if moment.out:
            self._place(moment.x, moment.out)
        self.show(f"{moment.minute} {moment.what}")
        if moment.slip:
            self._tap("Missed")
            self._tap("Undo")
            self.show(f"{moment.minute} undone")
        self._tap(moment.result)
        self.show(f"{moment.minute} {moment.result}")

    def show(self, step: str) -> None:
        """Take a picture, once the page has come to rest."""
        self._page.wait_for_timeout(_SETTLED)
        if self._steps is not None:
            self._taken += 1
            self._page.screenshot(path=self._steps / f"{self._taken:02} {step}.png")

    def _tap(self, name: str) -> None:
        self._page.get_by_role("button", name=name, exact=True).tap()

    def _place(self, x: float, out: float) -> None:
        box = self._page.locator(".pitch svg").bounding_box()
        assert box is not None
        left, top = box["x"] + (x + 2) / 74 * box["width"], box["y"] + (out + 10.5) / 73.5 * box["height"]
        self._page.touchscreen.tap(left, top)


if __name__ == "__main__":
    main()
