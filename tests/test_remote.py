"""What the commands do to find a running service."""

from __future__ import annotations

import socket

import pytest
from serving import BARE, serving

from kickserve.errors import RemoteError, ServiceAway
from kickserve.settings import Settings
from kickserve_client.remote import connected, running


@pytest.fixture
def nowhere():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


async def test_a_running_service_is_found_and_spoken_to_with_the_key(tmp_path):
    with serving(tmp_path, **BARE, API_KEY="k") as server:
        port = int(server.url.split("/")[2].split(":")[1])
        settings = Settings(port=port, api_key="k")
        url = await running(settings)
        assert url == f"http://127.0.0.1:{port}"
        async with connected(url, settings) as client:
            assert (await client.model()).name == "simulated"


async def test_where_nobody_is_nobody_is_found(nowhere):
    assert await running(Settings(port=nowhere)) is None


async def test_that_nobody_is_there_is_said_at_once(nowhere):
    with pytest.raises(ServiceAway, match=f"no service answers at http://127.0.0.1:{nowhere}"):
        async with connected(f"http://127.0.0.1:{nowhere}", Settings()):
            pass


async def test_a_url_that_is_none_is_refused():
    with pytest.raises(RemoteError, match="can't be used"):
        async with connected("moon", Settings()):
            pass


@pytest.mark.parametrize(
    ("host", "reached"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("kicks.example", "kicks.example")],
)
def test_a_service_that_listens_everywhere_is_reached_here(host, reached):
    assert Settings(host=host, port=80).own_url == f"http://{reached}:80"
