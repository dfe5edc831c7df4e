"""The service end to end: a real process, a real socket, a real database, real signals."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import aiosqlite
import httpx
import pytest
from serving import BARE, Server, serving

KEEPING = 24  # connections that ask without pause


async def ids_in(database):
    async with (
        aiosqlite.connect(database) as connection,
        connection.execute("SELECT id FROM predictions") as rows,
    ):
        return [row[0] async for row in rows]


async def ask_without_pause(url, kick, answered, ended):
    """Send predictions until the service ends; note the ids that were answered, and what went wrong."""
    failures = []
    async with httpx.AsyncClient(timeout=20) as client:
        while not ended.is_set():
            try:
                response = await client.post(f"{url}/predict", json=kick)
            except httpx.ConnectError:
                break  # it is gone: nothing was accepted
            except httpx.TransportError as error:
                failures.append(repr(error))
                continue
            if response.status_code == 200:
                answered.append(response.json()["id"])
            else:
                failures.append(response.text)
    return failures


async def end_under_load(server, kick, number):
    answered, ended = [], asyncio.Event()
    tasks = [
        asyncio.create_task(ask_without_pause(server.url, kick, answered, ended)) for _ in range(KEEPING)
    ]
    async with asyncio.timeout(30):
        while len(answered) < 500:
            await asyncio.sleep(0.01)
    code = await asyncio.to_thread(server.end, number)
    ended.set()
    failures = [failure for task in tasks for failure in await task]
    return code, answered, failures


async def test_sigterm_under_load_fails_no_request_and_loses_nothing(tmp_path, kick):
    with serving(tmp_path) as server:
        code, answered, failures = await end_under_load(server, kick, signal.SIGTERM)
    assert code == 0
    assert failures == []
    assert len(answered) > 100
    stored = await ids_in(tmp_path / "kickserve.db")
    assert sorted(stored) == sorted(answered)
    assert [*(tmp_path / "kickserve-journal").rglob("*.log")] == []


async def test_after_sigkill_under_load_a_restart_brings_every_answer_to_the_store(tmp_path, kick):
    answered = []
    for _ in range(3):
        with serving(tmp_path, **BARE) as server:
            code, more, _ = await end_under_load(server, kick, signal.SIGKILL)
            assert code == -signal.SIGKILL
            answered += more
    with serving(tmp_path, **BARE) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            for record_id in answered[-5:]:
                assert (await client.get(f"{server.url}/predictions/{record_id}")).status_code == 200
        assert server.end() == 0
    stored = await ids_in(tmp_path / "kickserve.db")
    assert len(answered) > 100
    assert len(stored) == len(set(stored))
    assert set(answered) <= set(stored)


def test_ctrl_c_ends_it_gently(tmp_path):
    with serving(tmp_path, **BARE) as server:
        assert server.end(signal.SIGINT) == 0


def test_without_a_key_it_refuses_to_listen_for_others(tmp_path):
    with pytest.raises(RuntimeError, match="set API_KEY"):
        Server(tmp_path, KICKSERVE_HOST="0.0.0.0")


def test_the_address_that_it_tells_answers_where_it_listens_to_all_of_ipv6(tmp_path):
    with serving(tmp_path, API_KEY="sesame", KICKSERVE_HOST="::") as server:
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        assert server.end() == 0


def test_a_host_that_no_name_can_have_is_said_in_one_line(tmp_path):
    with pytest.raises(RuntimeError, match="can't listen on") as raised:
        Server(tmp_path, API_KEY="sesame", KICKSERVE_HOST="ä..b")
    assert len(str(raised.value).splitlines()) == 1


def test_a_taken_port_is_said_in_one_line(tmp_path):
    with serving(tmp_path, **BARE) as server:
        port = httpx.URL(server.url).port
        finished = subprocess.run(
            [sys.executable, "-m", "kickserve", "serve", "--port", str(port)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert finished.returncode == 2
    assert "KICKSERVE_PORT" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_a_database_in_a_folder_that_does_not_exist_is_said_in_one_line(tmp_path):
    with pytest.raises(RuntimeError, match="there is no folder") as raised:
        Server(tmp_path, DATABASE_URL="sqlite:///nowhere/kicks.db")
    assert len(str(raised.value).splitlines()) == 1


def test_serving_imports_nothing_heavy(tmp_path):
    script = """
import asyncio, sys
from kickserve.app import create_app
async def main():
    app = create_app()
    async with app.lifespan():
        pass
asyncio.run(main())
heavy = {"pandas", "sklearn", "skops", "joblib", "onnxruntime", "huggingface_hub", "pyarrow", "asyncpg",
         "evidently", "nicegui", "yappi"}
print(sorted(heavy & set(sys.modules)))
"""
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "[]"


def test_with_a_key_and_debugging_it_says_so_and_logs_requests(tmp_path, kick):
    with serving(tmp_path, API_KEY="sesame", DEBUG="1", KICKSERVE_HOST="0.0.0.0") as server:
        answer = httpx.post(f"{server.url}/predict", json=kick, headers={"X-API-Key": "sesame"})
        assert answer.status_code == 200
        assert server.end() == 0
    assert any("POST" in line and "/api/v1/predict" in line for line in server.log)
