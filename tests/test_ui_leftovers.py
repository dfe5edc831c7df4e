"""What is left of a page does not stay in memory."""

from __future__ import annotations

import asyncio
import gc
import weakref

import httpx
import pytest
from nicegui import Client, ui
from starlette.requests import Request

from kickserve_ui import leftovers
from kickserve_ui.leftovers import Leftovers


class Ring:
    """Something that only the collector can end."""

    def __init__(self):
        self.itself = self


@pytest.fixture
def collects_nothing_by_itself():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("collects_nothing_by_itself")
async def test_pages_that_are_left_go_together_a_little_later(monkeypatch):
    monkeypatch.setattr(leftovers, "_SOON", 0.02)
    own, collections = Leftovers(), []
    gc.callbacks.append(note := lambda phase, _: collections.append(phase))
    try:
        for _ in range(2):
            one, other = (weakref.ref(Ring()) for _ in range(2))
            own.clear_soon()
            own.clear_soon()
            assert (one(), other()) != (None, None)
            await asyncio.sleep(0.1)
            assert (one(), other()) == (None, None)
    finally:
        gc.callbacks.remove(note)
    assert collections == ["start", "stop"] * 2


async def test_a_page_that_is_left_is_cleared_away(client, monkeypatch):
    asked = []
    async with httpx.AsyncClient(transport=client._transport, base_url="http://test") as root:
        await root.get("/ui/")  # NiceGUI begins
    scope = {"type": "http", "path": "/nowhere", "query_string": b"", "headers": []}
    visitor = Client(ui.page("/nowhere"), request=Request(scope))
    monkeypatch.setattr(Leftovers, "clear_soon", lambda _: asked.append(True))
    visitor.delete()
    assert asked == [True]


def test_only_a_process_that_serves_keeps_what_stands_out_of_collections(monkeypatch):
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 0)
    leftovers.set_apart()
    assert not frozen
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 90_000)
    leftovers.set_apart()
    assert frozen
