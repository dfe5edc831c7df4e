"""What the commands do when a service refuses, is busy, or is no kickserve at all."""

from __future__ import annotations

import httpx
import pytest

from kickserve.errors import RemoteError
from kickserve.remote import Client, connected
from kickserve.settings import Settings


def client(answer):
    """A client of an ASGI app that answers with (status, headers, body) in turn."""
    answers = iter(answer)

    async def app(_, receive, send):
        await receive()
        status, headers, body = next(answers)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return Client(httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service"))


@pytest.mark.parametrize("wait", [b"0", b"soon"])
async def test_a_busy_service_is_asked_again(wait):
    busy = (503, [(b"retry-after", wait)], b"{}")
    assert await client([busy, (200, [], b"done")]).send("POST", "/predict", {}) == b"done"


async def test_a_refusal_is_told_in_the_services_words():
    with pytest.raises(RemoteError, match="answered 422: too far"):
        await client([(422, [], b'{"detail": "too far"}')]).send("POST", "/predict", {})


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}"])
async def test_another_service_is_seen_to_be_none_of_ours(body):
    with pytest.raises(RemoteError, match="is the URL right"):
        await client([(404, [], body)]).send("POST", "/predict", {})


async def test_a_service_that_stays_busy_is_given_up():
    busy = [(503, [(b"retry-after", b"0")], b'{"detail": "full"}')] * 8
    with pytest.raises(RemoteError, match="answered 503: full"):
        await client(busy).send("POST", "/predict", {})


@pytest.mark.parametrize("url", ["moon", "ftp://x", "http://[::1"])
async def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(RemoteError, match="can't be used"):
        async with connected(url, Settings()):
            pass
