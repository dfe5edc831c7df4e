"""Everything beside the predictions of a long run: reads, reports, reloads, outcomes, exports, open pages.

`beside.py URL PACE`: a process of its own, so that it takes no time from the clients whose answers are timed.
It ends on SIGTERM, and prints as JSON how often each answer came, and the unexpected ones.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
from browser import FLAGS, chromium  # found through the line above
from debian import Missing
from playwright.async_api import Browser, Page, async_playwright

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PAGES = 3
PAGE_SECONDS = 60  # from when one is opened until it is opened again: in each minute each has its turn
ALLOWED = {200, 202, 204, 409, 503}  # 409: a report is being made; 503: of reads, while the store is away


class Visitors:
    """Requests other than predictions, each kind on its own clock, and their answers.

    Args:
        url: of the API.
        pace: by how much the seconds between two of a kind are shortened.
    """

    def __init__(self, url: str, pace: float) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=60)
        self.seen: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self._recent: list[str] = []
        # An hour has its third after the warm-up in 960 s: each third sees as many of the rare ones.
        self._tasks = [
            asyncio.create_task(self._again(max(every * pace, 1.0), what, *request))
            for every, what, *request in (
                (5, self._ask, "metrics", "GET", f"{url.removesuffix('/api/v1')}/metrics"),
                (2, self._outcome),
                (20, self._read),
                (60, self._ask, "reload", "POST", "/model/reload"),
                (120, self._ask, "quality", "GET", "/quality"),
                (160, self._export),
                (320, self._ask, "report", "POST", "/drift/reports"),
            )
        ]

    async def _again(self, every: float, what: Callable[..., Awaitable[Any]], *request: str) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            due = max(due + every, clock())
            await asyncio.sleep(due - clock())
            try:
                await what(*request)
            except Exception as error:  # noqa: BLE001 - any error is reported, and the rest goes on
                self.unexpected.append(f"{what.__name__} {request}: {error!r}")

    async def _ask(self, name: str, method: str, path: str, **more: Any) -> httpx.Response:
        response = await self._http.request(method, path, **more)
        self.seen[f"{name} {response.status_code}"] += 1
        if response.status_code not in ALLOWED:
            self.unexpected.append(f"{name}: {response.status_code} {response.text[:200]}")
        return response

    async def _outcome(self) -> None:
        if self._recent:
            id_ = random.choice(self._recent)  # noqa: S311 - nothing secret hangs on it
            path = f"/predictions/{id_}/outcome"
            await self._ask("outcome", "PUT", path, json={"success": hash(id_) % 3 > 0})

    async def _read(self) -> None:
        response = await self._ask("history", "GET", "/predictions?limit=100")
        if response.status_code == httpx.codes.OK:
            self._recent = [each["id"] for each in response.json()]
        for _ in range(4):
            if following := response.links.get("next"):
                response = await self._ask("history", "GET", str(response.url.join(following["url"])))

    async def _export(self) -> None:
        """Read the last minute as a stream."""
        since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
        headers = {"Accept": "application/x-ndjson"}
        request = self._http.stream("GET", "/predictions", params={"since": since}, headers=headers)
        async with request as response:
            self.seen[f"export {response.status_code}"] += 1
            try:
                async for chunk in response.aiter_bytes():
                    self.seen["exported bytes"] += len(chunk)
            except httpx.RemoteProtocolError:
                self.seen["export cut off by the outage"] += 1

    async def end(self) -> None:
        """Stop."""
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()


@asynccontextmanager
async def open_pages(root: str, seen: Counter[str]) -> AsyncIterator[None]:
    """Have some pages open, each used now and then, where there is a browser."""
    try:
        place = chromium()
    except Missing as reason:
        seen[f"no pages: {reason}"] += 1
        yield
        return
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=place, args=FLAGS)
        tasks = [asyncio.create_task(use_page(browser, root, at, seen)) for at in range(PAGES)]
        yield
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await browser.close()


async def use_page(browser: Browser, root: str, at: int, seen: Counter[str]) -> None:
    """Open a page, use it, close it, and so on, each a while after the one before it."""
    clock = asyncio.get_running_loop().time
    due = clock() + at * PAGE_SECONDS / PAGES
    while True:
        await asyncio.sleep(due - clock())
        due = max(due + PAGE_SECONDS, clock())
        context = await browser.new_context(viewport={"width": 1400, "height": 900})
        try:
            page = await context.new_page()
            await page.goto(f"{root}/ui/")
            await _click_about(page, at, seen)
            await page.goto(f"{root}/ui/history")
            await page.wait_for_timeout(3_000)
            seen["histories shown"] += 1
        except Exception as error:  # noqa: BLE001 - any error of a browser is reported at the end
            seen[f"page: {type(error).__name__} {str(error)[:80]}"] += 1
        finally:
            await context.close()


async def _click_about(page: Page, at: int, seen: Counter[str]) -> None:
    await page.wait_for_selector(".answer .number")
    pitch = page.locator(".pitch svg")
    for click in range(20):
        box = await pitch.bounding_box()
        assert box is not None
        x, y = 0.25 + (click + at) % 10 / 20, 0.3 + (click + at) % 7 / 14
        await page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        seen["clicks"] += 1
        await page.wait_for_timeout(2_000)


async def visit(url: str, pace: float) -> dict[str, Any]:
    """Do it all until SIGTERM; return what was found."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    visitors = Visitors(url, pace)
    async with open_pages(url.removesuffix("/api/v1"), visitors.seen):
        await ended.wait()
        await visitors.end()
    return {"beside": dict(visitors.seen), "unexpected": visitors.unexpected}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(visit(sys.argv[1], float(sys.argv[2])))))
