"""Several workers on one port: real processes, real sockets, real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import closing

import httpx
import psutil
import pytest
from serving import BARE, serving
from test_server import end_under_load, ids_in

from kickserve.errors import ConfigurationError
from kickserve.server import bind
from kickserve.settings import Settings

WORKERS = 2


@pytest.fixture
def together(tmp_path):
    with serving(tmp_path, **BARE, KICKSERVE_WORKERS=str(WORKERS)) as server:
        yield server


def workers_of(server):
    return psutil.Process(server.process.pid).children()


async def until(condition, patience=20.0):
    """Wait for something to become true; return it."""
    async with asyncio.timeout(patience):
        while not (found := condition()):
            await asyncio.sleep(0.02)
    return found


async def predict_on_fresh_connections(url, kick, count):
    """Ask with a connection a request, so that the system chooses a worker each time; return the ids."""
    ids = []
    for _ in range(count):
        async with httpx.AsyncClient(timeout=20) as client:
            response = await client.post(f"{url}/predict", json=kick)
            assert response.status_code == 200
            ids.append(response.json()["id"])
    return ids


def tail(record_id):
    """The part of an id that tells who made it."""
    return record_id[-12:]


async def test_the_port_is_shared_and_all_workers_answer(together, kick):
    ids = await predict_on_fresh_connections(together.url, kick, 60)
    assert len(workers_of(together)) == WORKERS
    assert len({tail(record_id) for record_id in ids}) == WORKERS
    assert len(set(ids)) == 60


async def test_a_worker_finds_what_another_has_just_answered(together, kick):
    ids = await predict_on_fresh_connections(together.url, kick, 20)
    for record_id in ids:
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{together.url}/predictions/{record_id}")).status_code == 200


async def test_the_welcome_is_said_once_and_names_the_workers(together):
    await asyncio.to_thread(together.process.send_signal, signal.SIGTERM)
    rest = await asyncio.to_thread(together.process.stdout.read)
    assert f"workers  {WORKERS}" in rest
    assert "kickserve is ready" not in rest  # the line was read before
    assert rest.count("stopped") == 1


async def test_sigterm_under_load_fails_no_request_and_loses_nothing(together, kick, tmp_path):
    code, answered, failures = await end_under_load(together, kick, signal.SIGTERM)
    assert code == 0
    assert failures == []
    assert len(answered) > 100
    assert len({tail(record_id) for record_id in answered}) == WORKERS
    assert sorted(await ids_in(tmp_path / "kickserve.db")) == sorted(answered)
    assert [*(tmp_path / "kickserve-journal").rglob("*.log")] == []


async def fresh_until_refused(url, body):
    """Ask with a connection a request until nobody listens; return how many were answered."""
    host, port = httpx.URL(url).host, httpx.URL(url).port
    request = b"POST /api/v1/predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
    answered = 0
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            return answered
        with closing(writer):
            writer.write(request % (len(body), body))
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
        answered += 1


async def test_a_killed_worker_is_replaced_and_nothing_answered_is_lost(together, kick, tmp_path):
    victim = workers_of(together)[0]
    answered, ended = [], asyncio.Event()

    async def ask():
        while not ended.is_set():
            async with httpx.AsyncClient(timeout=20) as client:
                try:
                    response = await client.post(f"{together.url}/predict", json=kick)
                except httpx.TransportError:
                    continue  # what the victim had begun
            answered.append(response.json()["id"])

    tasks = [asyncio.create_task(ask()) for _ in range(8)]
    await asyncio.sleep(0.5)
    victim.kill()
    await until(lambda: len({tail(record_id) for record_id in answered}) > WORKERS)
    ended.set()
    await asyncio.gather(*tasks)
    assert victim.pid not in {worker.pid for worker in workers_of(together)}
    assert await asyncio.to_thread(together.end) == 0
    assert set(answered) == set(await ids_in(tmp_path / "kickserve.db")) & set(answered)
    [line] = [line for line in together.log if "another takes its place" in line]
    assert f"worker 1 (process {victim.pid}) was ended by signal 9 (Killed)" in line


async def test_a_worker_that_is_told_to_end_alone_is_replaced_without_a_failure(together, kick):
    answered, ended = [], asyncio.Event()

    async def ask():
        while not ended.is_set():
            answered.extend(await predict_on_fresh_connections(together.url, kick, 1))

    tasks = [asyncio.create_task(ask()) for _ in range(8)]
    await until(lambda: len({tail(record_id) for record_id in answered}) == WORKERS)
    workers_of(together)[0].terminate()
    await until(lambda: len({tail(record_id) for record_id in answered}) > WORKERS)
    ended.set()
    await asyncio.gather(*tasks)
    assert await asyncio.to_thread(together.end) == 0


async def test_one_that_dies_again_and_again_is_replaced_after_a_pause(together):
    victim = workers_of(together)[0]
    for _ in range(2):
        known = {each.pid for each in workers_of(together)}
        victim.kill()
        [victim] = await until(
            lambda known=known: [each for each in workers_of(together) if each.pid not in known]
        )
    assert any("another takes its place in 0.5 s" in line for line in together.log)


def has_ended(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # nobody may be there who asks for its exit code
    except psutil.NoSuchProcess:
        return True


async def test_the_death_of_the_supervisor_ends_the_workers_gently(together, kick, tmp_path):
    ids = await predict_on_fresh_connections(together.url, kick, 20)
    workers = workers_of(together)
    together.process.kill()
    await until(lambda: all(has_ended(worker) for worker in workers))
    assert sorted(await ids_in(tmp_path / "kickserve.db")) == sorted(ids)
    assert [*(tmp_path / "kickserve-journal").rglob("*.log")] == []


def test_ctrl_c_reaches_all_and_ends_them_gently(tmp_path):
    with serving(tmp_path, **BARE, KICKSERVE_WORKERS=str(WORKERS)) as server:
        for worker in workers_of(server):
            worker.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert all(worker.is_running() for worker in workers_of(server))
        assert server.end(signal.SIGINT) == 0


def test_ctrl_c_twice_does_not_wait(tmp_path):
    with serving(tmp_path, **BARE, KICKSERVE_WORKERS=str(WORKERS)) as server:
        for worker in workers_of(server):
            worker.suspend()  # such a one would never end by itself
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert server.process.poll() is None
        assert server.end(signal.SIGINT) == 1


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"DATABASE_URL": "sqlite:///nowhere/kicks.db"}, "there is no folder"),
        ({"DATABASE_URL": "sqlite://"}, "serve with KICKSERVE_WORKERS=1"),
        ({"DATABASE_URL": "mysql://x/y"}, "no loaded plugin"),
        ({"KICKSERVE_HOST": "0.0.0.0"}, "set API_KEY"),
        ({"KICKSERVE_MODEL": "nowhere.json"}, "nowhere.json"),
        ({"KICKSERVE_JOURNAL_DIR": "/proc/nowhere"}, "KICKSERVE_JOURNAL_DIR"),
    ],
)
def test_what_can_not_work_is_said_once_in_one_line(tmp_path, environment, words):
    finished = subprocess.run(
        [sys.executable, "-m", "kickserve", "serve", "--port", "0", "--workers", str(WORKERS)],
        cwd=tmp_path,
        env={**os.environ, **BARE, "COLUMNS": "300", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert finished.returncode == 2
    assert words in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_a_port_that_others_share_is_refused_all_the_same(together):
    port = httpx.URL(together.url).port
    for count in (1, WORKERS):
        with pytest.raises(ConfigurationError, match="KICKSERVE_PORT"):
            bind(Settings(port=port), count, guarded=False)


def test_every_worker_has_a_queue_of_its_own_on_the_same_port():
    listeners = bind(Settings(port=0), 3, guarded=False)
    assert len({each.getsockname() for each in listeners}) == 1
    assert len({each.fileno() for each in listeners}) == 3
    for each in listeners:
        each.close()


def test_where_the_system_spreads_no_connections_all_share_one_queue(monkeypatch):
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    listeners = bind(Settings(port=0), 3, guarded=False)
    assert len({each.fileno() for each in listeners}) == 1
    listeners[0].close()


def test_one_worker_needs_no_sharing():
    with bind(Settings(port=0), 1, guarded=False)[0] as listener:
        assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def supervised(script):
    """Run a supervisor of one worker; the script says what that does (`outcome` being a `Worker`)."""
    head = """
import os, signal, socket, sys, time
from kickserve_workers import workers
def all_ready(message):
    print(message.decode())
    os.kill(os.getpid(), signal.SIGTERM)
supervisor = workers.Supervisor([socket.create_server(("127.0.0.1", 0))], all_ready)
"""
    return subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_first_worker_that_dies_without_a_word_ends_everything():
    finished = supervised("""
        outcome = supervisor.run()
        if isinstance(outcome, workers.Worker):
            os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(outcome)
    """)
    assert finished.returncode == 1
    assert "was ended by signal 9 (Killed) before it took requests" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_a_fork_that_fails_is_tried_again():
    finished = supervised("""
        fork = os.fork
        def failing():
            os.fork = fork
            raise BlockingIOError(11, "no room for a process")
        os.fork = failing
        outcome = supervisor.run()
        if isinstance(outcome, workers.Worker):
            outcome.ready(b"here")
            time.sleep(20)
        sys.exit(outcome)
    """)
    assert (finished.returncode, finished.stdout) == (0, "here\n")
    assert finished.stderr == "worker 1 can't be started: no room for a process\n"


def test_workers_that_die_for_hours_do_not_take_the_supervisor_with_them():
    finished = supervised("""
        place = supervisor._slots[0]
        place.began = time.monotonic()
        pauses = [supervisor._replace_later(place) for _ in range(2_000)]
        print(pauses[0], pauses[1], pauses[-1])
    """)
    assert finished.stdout == "0.0 0.5 5.0\n", finished.stderr


def test_a_worker_that_fails_at_its_end_is_not_passed_over():
    finished = supervised("""
        outcome = supervisor.run()
        if isinstance(outcome, workers.Worker):
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
            outcome.ready(b"here")
            time.sleep(20)
        sys.exit(outcome)
    """)
    assert finished.returncode == 1


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_version_6_of_the_protocol_is_shared_too():
    listeners = bind(Settings(port=0, host="::1"), 2, guarded=False)
    assert len({each.getsockname()[1] for each in listeners}) == 1
    for each in listeners:
        each.close()
