"""`kickserve serve` end to end, with one worker and several: real processes, sockets and signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import httpx
import psutil
import pytest
from serving import BARE, PATIENCE, NotStarted, Server, eventually, serving, until

from kickserve.errors import ConfigurationError
from kickserve.linear import DEFAULT
from kickserve.server import bind
from kickserve.settings import Settings

WORKERS = 2
CLIENTS = 24


@pytest.fixture
def workers(tmp_path):
    """A server with two workers."""
    with serving(tmp_path, **BARE, KICKSERVE_WORKERS=str(WORKERS)) as server:
        yield server


def workers_of(server):
    return psutil.Process(server.process.pid).children()


def stored_ids(folder):
    connection = sqlite3.connect(folder / "kickserve.db")
    rows = connection.execute("SELECT id FROM predictions").fetchall()
    connection.close()
    return sorted(row[0] for row in rows)


def journals(folder):
    return [*(folder / "kickserve-journal").rglob("*.log")]


def worker_of(record_id):
    """Return the part of an id that differs from one process to the next."""
    return record_id[-12:]


class Load:
    """Clients that ask a service without pause, each until an answer closes its connection.

    Args:
        url: of the service.
        kick: to predict.
        fresh: whether each request has a connection of its own.

    Attributes:
        ids: of the answers.
        failures: of requests that were not answered.
    """

    def __init__(self, url, kick, *, fresh=False):
        self.ids = []
        self.failures = []
        self._ended = False
        self._url = f"{url}/predict"
        self._kick = kick
        ask = self._ask_on_fresh_connections if fresh else self._ask
        self._tasks = [asyncio.create_task(ask()) for _ in range(CLIENTS)]

    @property
    def seen(self):
        """Return the number of processes that have answered."""
        return len({*map(worker_of, self.ids)})

    async def end(self):
        self._ended = True
        await asyncio.gather(*self._tasks)

    async def _ask(self):
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            while not self._ended and await self._predict(client):
                pass

    async def _ask_on_fresh_connections(self):
        while not self._ended:
            async with httpx.AsyncClient(timeout=PATIENCE) as client:
                await self._predict(client)

    async def _predict(self, client):
        """Ask once, and return whether the connection goes on."""
        try:
            response = await client.post(self._url, json=self._kick)
        except httpx.ConnectError:
            return False  # the service is gone: it has accepted nothing
        except httpx.TransportError as error:
            self.failures.append(repr(error))
            return True
        if response.status_code == 200:
            self.ids.append(response.json()["id"])
        else:
            self.failures.append(response.text)
        return response.headers.get("connection") != "close"


async def end_under_load(server, kick, number, processes=1):
    """Send a signal to a service under load; return its exit code, the answered ids and the failures."""
    load = Load(server.url, kick)
    await eventually(lambda: len(load.ids) > 200 and load.seen == processes)
    code = await asyncio.to_thread(server.end, number)
    await load.end()
    return code, sorted(load.ids), load.failures


async def statuses(url, ids):
    """Return the statuses of stored predictions, each by a connection of its own."""
    found = []
    for record_id in ids:
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            found.append((await client.get(f"{url}/predictions/{record_id}")).status_code)
    return found


@pytest.mark.parametrize("count", [1, WORKERS])
async def test_sigterm_under_load_fails_no_request_and_loses_nothing(tmp_path, kick, count):
    plugins = BARE if count > 1 else {}
    with serving(tmp_path, **plugins, KICKSERVE_WORKERS=str(count)) as server:
        code, answered, failures = await end_under_load(server, kick, signal.SIGTERM, count)
    assert (code, failures) == (0, [])
    assert stored_ids(tmp_path) == answered
    assert journals(tmp_path) == []


def test_ctrl_c_ends_a_single_process_gently(tmp_path):
    with serving(tmp_path, **BARE) as server:
        assert server.end(signal.SIGINT) == 0


def test_a_service_that_listens_to_all_of_ipv6_answers_at_its_address_and_by_ipv4(tmp_path):
    with serving(tmp_path, **BARE, API_KEY="sesame", KICKSERVE_HOST="::") as server:
        for url in (server.url, server.url.replace("[::1]", "127.0.0.1")):
            assert httpx.get(f"{url}/health/live").status_code == 200
        assert server.end() == 0


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no file names that are not UTF-8")
def test_a_folder_whose_name_is_no_utf_8_serves_and_keeps(tmp_path, kick):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    model = folder / "model.json"
    model.write_bytes(files("kickserve").joinpath(DEFAULT).read_bytes())
    with serving(folder, **BARE, KICKSERVE_MODEL=str(model)) as server:
        assert httpx.post(f"{server.url}/predict", json=kick).status_code == 200
        assert httpx.get(f"{server.url}/model").json()["source"].endswith(r"/caf\xe9/model.json")
        assert len(httpx.get(f"{server.url}/predictions").json()) == 1
        assert server.end() == 0


@pytest.mark.parametrize(
    ("count", "environment", "words"),
    [
        (1, {"KICKSERVE_HOST": "0.0.0.0"}, "set API_KEY"),
        (1, {"KICKSERVE_HOST": "ä..b", "API_KEY": "open-sesame-open-sesame"}, "can't listen on"),
        (1, {"DATABASE_URL": "sqlite:///nowhere/kicks.db"}, "nowhere for kicks.db does not exist"),
        (1, {"KICKSERVE_MODEL": "nowhere.json"}, "nowhere.json"),
        (WORKERS, {"DATABASE_URL": "sqlite:///nowhere/kicks.db"}, "nowhere for kicks.db does not exist"),
        (WORKERS, {"DATABASE_URL": "sqlite://"}, "serve with KICKSERVE_WORKERS=1"),
        (WORKERS, {"DATABASE_URL": "mysql://x/y"}, "no loaded plugin"),
        (WORKERS, {"KICKSERVE_JOURNAL_DIR": "/proc/nowhere"}, "KICKSERVE_JOURNAL_DIR"),
    ],
)
def test_a_service_that_can_not_start_says_why_in_one_line(tmp_path, count, environment, words):
    with pytest.raises(NotStarted, match=words) as raised:
        Server(tmp_path, **BARE, KICKSERVE_WORKERS=str(count), **environment)
    assert raised.value.code == 2
    assert len(str(raised.value).splitlines()) == 1


def test_a_service_ends_in_time_while_its_page_is_being_loaded(tmp_path):
    (tmp_path / "nicegui.py").write_text("import time; time.sleep(600)")
    with serving(tmp_path, PYTHONPATH=str(tmp_path), KICKSERVE_SHUTDOWN_TIMEOUT="4") as server:
        page = server.url.replace("/api/v1", "/ui/")
        headers = {"Accept": "text/html", "Accept-Language": "en"}
        with httpx.stream("GET", page, headers=headers, timeout=PATIENCE) as coming:
            next(coming.iter_raw())
            assert server.end() == 0


def test_serving_imports_nothing_heavy(tmp_path):
    script = """
import asyncio, sys
from kickserve.app import create_app
async def main():
    async with create_app().lifespan():
        pass
asyncio.run(main())
heavy = {"pandas", "sklearn", "skops", "joblib", "onnxruntime", "huggingface_hub", "pyarrow", "asyncpg",
         "evidently", "nicegui", "pydantic", "yappi"}
print(sorted(heavy & set(sys.modules)))
"""
    command = [sys.executable, "-c", script]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


async def test_workers_share_the_port_and_the_predictions(workers, kick):
    load = Load(workers.url, kick, fresh=True)
    await eventually(lambda: len(load.ids) > 40 and load.seen == WORKERS)
    await load.end()
    assert load.failures == []
    assert len(workers_of(workers)) == WORKERS
    assert len(load.ids) == len({*load.ids})
    assert set(await statuses(workers.url, load.ids[:20])) == {200}
    port = httpx.URL(workers.url).port
    for count in (1, WORKERS):
        with pytest.raises(ConfigurationError, match="KICKSERVE_PORT"):
            bind(Settings(port=port), count, guarded=False)
    workers.process.send_signal(signal.SIGTERM)
    rest = await asyncio.to_thread(workers.process.stdout.read)
    assert f"workers  {WORKERS}" in rest
    assert rest.count("stopped") == 1


async def test_a_killed_worker_is_replaced_and_nothing_answered_is_lost(workers, kick, tmp_path):
    load = Load(workers.url, kick, fresh=True)
    await eventually(lambda: load.seen == WORKERS)
    victim = workers_of(workers)[0]
    victim.kill()
    await eventually(lambda: load.seen > WORKERS)
    await load.end()
    assert victim.pid not in {worker.pid for worker in workers_of(workers)}
    assert await asyncio.to_thread(workers.end) == 0
    assert {*load.ids} <= {*stored_ids(tmp_path)}
    [line] = [line for line in workers.log if "a new worker replaces it" in line]
    assert f"worker 1 (process {victim.pid}) was ended by signal 9 (Killed)" in line


async def test_a_worker_that_ends_by_sigterm_is_replaced_and_no_request_fails(workers, kick):
    load = Load(workers.url, kick, fresh=True)
    await eventually(lambda: load.seen == WORKERS)
    workers_of(workers)[0].terminate()
    await eventually(lambda: load.seen > WORKERS)
    await load.end()
    assert load.failures == []
    assert await asyncio.to_thread(workers.end) == 0


def test_a_worker_that_dies_again_and_again_is_replaced_after_a_pause(workers):
    def kill_again():
        for each in workers_of(workers)[:1]:
            with suppress(psutil.NoSuchProcess):  # that of the round before, which was just buried
                each.kill()
        return any("a new worker replaces it in 0.5 s" in line for line in workers.log)

    until(kill_again)


def has_ended(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # its parent may be gone
    except psutil.NoSuchProcess:
        return True


def test_the_death_of_the_supervisor_ends_the_workers_gently(workers, kick, tmp_path):
    ids = [httpx.post(f"{workers.url}/predict", json=kick).json()["id"] for _ in range(20)]
    processes = workers_of(workers)
    workers.process.kill()
    until(lambda: all(map(has_ended, processes)))
    assert stored_ids(tmp_path) == sorted(ids)
    assert journals(tmp_path) == []


def test_ctrl_c_reaches_workers_too_and_the_supervisor_ends_them_gently(workers, kick):
    before = workers_of(workers)
    for worker in before:
        worker.send_signal(signal.SIGINT)
    for _ in range(20):
        assert httpx.post(f"{workers.url}/predict", json=kick).status_code == 200
    assert workers_of(workers) == before
    assert workers.end(signal.SIGINT) == 0


def waits_for(process, number):
    """Return whether a suspended process has been sent a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    pending = next(line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd"))
    return int(pending, 16) >> (number - 1) & 1


@pytest.mark.parametrize(
    ("signals", "patience"),
    [
        ((signal.SIGINT, signal.SIGINT), "60"),
        ((signal.SIGTERM, signal.SIGTERM), "60"),
        ((signal.SIGTERM,), "1"),
    ],
)
def test_workers_that_do_not_end_are_killed_at_the_second_signal_or_in_time(tmp_path, signals, patience):
    environment = {"KICKSERVE_WORKERS": str(WORKERS), "KICKSERVE_SHUTDOWN_TIMEOUT": patience}
    with serving(tmp_path, **BARE, **environment) as server:
        suspended = workers_of(server)
        for worker in suspended:
            worker.suspend()
        until(lambda: all(worker.status() == psutil.STATUS_STOPPED for worker in suspended))
        for number in signals[:-1]:
            server.process.send_signal(number)
            until(lambda: all(waits_for(worker, signal.SIGTERM) for worker in suspended))
        assert server.end(signals[-1]) == 1


@pytest.mark.parametrize(("host", "shared"), [("127.0.0.1", True), ("::1", True), ("127.0.0.1", False)])
def test_each_worker_has_a_queue_of_connections_where_the_system_can_share_a_port(host, shared, monkeypatch):
    if not shared:
        monkeypatch.delattr(socket, "SO_REUSEPORT")
    listeners = bind(Settings(port=0, host=host), 3, guarded=False)
    assert len({each.getsockname()[1] for each in listeners}) == 1
    assert len({each.fileno() for each in listeners}) == (3 if shared else 1)
    for each in listeners:
        each.close()


def supervised(script):
    """Run a supervisor of one worker; the script says what that does (`outcome` being a `Worker`)."""
    head = """
import os, signal, socket, sys
from kickserve_workers import workers
def all_ready(message):
    print(message.decode())
    os.kill(os.getpid(), signal.SIGTERM)
supervisor = workers.Supervisor([socket.create_server(("127.0.0.1", 0))], all_ready, 60.0)
"""
    command = [sys.executable, "-c", head + textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


def test_a_first_worker_that_dies_without_a_word_ends_the_service():
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
            signal.pause()
        sys.exit(outcome)
    """)
    assert (finished.returncode, finished.stdout) == (0, "here\n")
    assert finished.stderr == "worker 1 can't be started: no room for a process\n"


def test_a_worker_that_fails_at_its_end_makes_the_service_fail():
    finished = supervised("""
        outcome = supervisor.run()
        if isinstance(outcome, workers.Worker):
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
            outcome.ready(b"here")
            signal.pause()
        sys.exit(outcome)
    """)
    assert finished.returncode == 1
