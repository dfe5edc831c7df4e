"""Full reports: one at a time, in a process of its own that says how far it is, and found by their names."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import psutil
import pytest
from serving import serving
from test_drift_live import kicks

from kickserve.errors import ReportNotFound
from kickserve_drift import runs as runs_module
from kickserve_drift.runs import Runs, _understand
from kickserve_drift.watchman import Watchman

REPORT = "drift-20261124T101112000000Z"
TOP = {"at": "2026-11-24T10:11:12Z", "model": "simulated", "kicks": 700, "drifted": True, "share": 0.2}


@pytest.fixture
def folder(settings):
    folder = settings.reports.absolute()
    folder.mkdir(parents=True)
    return folder


def write(folder, name=REPORT, **fields):
    (folder / f"{name}.html").write_text("<h1>drift</h1>")
    (folder / f"{name}.json").write_text(json.dumps({**TOP, **fields, "details": {}}))


async def ended(get, patience=60):
    """Wait until no report is being made; return the last answer."""
    async with asyncio.timeout(patience):
        while (answer := (await get()).json())["newest_run"]["status"] == "running":
            await asyncio.sleep(0.1)
    return answer


async def test_a_report_is_made_beside_the_service_and_found_by_its_link(tmp_path):
    with serving(tmp_path, KICKSERVE_WORKERS="2") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            await client.post("/predict/batch", json=kicks(500, 1, min_distance=40))
            first = await client.post("/drift/reports")
            assert first.status_code == 202
            assert first.json()["status"] == "running"
            assert first.headers["location"] == "/api/v1/drift/reports"
        for _ in range(4):  # whichever worker is asked
            async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
                refused = await client.post("/drift/reports")
                assert refused.status_code == 409
                assert "being made already" in refused.json()["detail"]
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            answer = await ended(lambda: client.get("/drift/reports"))
            assert answer["newest_run"]["status"] == "done", answer
            [report] = answer["reports"]
            assert report["drifted"]
            assert report["kicks"] == 500
            assert answer["newest_run"]["report"] == report["html"]
            page = await client.get(f"http://{client.base_url.netloc.decode()}{report['html']}")
            assert page.headers["content-type"].startswith("text/html")
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert len(page.content) < 6_000_000
            summary = await client.get(f"http://{client.base_url.netloc.decode()}{report['json']}")
            assert summary.json()["drifted"]
            assert (await client.get("/drift")).json()["report"] == report["html"]


async def test_too_few_kicks_fail_with_a_word_and_the_next_one_may_start(start, settings):
    client = await start(settings)
    assert (await client.post("/drift/reports")).status_code == 202
    run = (await ended(lambda: client.get("/drift/reports")))["newest_run"]
    assert run["status"] == "failed"
    assert "kicks" in run["error"]
    assert run["report"] is None


async def test_the_end_of_the_service_ends_the_report(start, settings, folder):
    runs = Runs(settings)
    client = await start(settings)
    await runs.start(client.app.state.service)
    pid = json.loads((folder / ".evaluate.log").read_text().splitlines()[0])["pid"]
    await runs.stop()
    assert not psutil.pid_exists(pid)
    run = runs.newest_run()
    assert (run.status, run.error) == ("failed", "it ended without a word")


async def test_one_that_does_not_end_when_told_is_killed(monkeypatch):
    monkeypatch.setattr(runs_module, "_PATIENCE", 0.2)
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    stubborn = f"{ignore}; print(flush=True); time.sleep(60)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", stubborn, stdout=asyncio.subprocess.PIPE
    )
    await process.stdout.readline()
    await runs_module._end(process)
    assert process.returncode == -signal.SIGKILL


async def test_a_process_that_can_not_be_started_leaves_no_lock(start, settings, monkeypatch):
    client = await start(settings)
    runs = Runs(settings)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(FileNotFoundError):
            await runs.start(client.app.state.service)
    os.close(runs._try_lock())


async def test_who_has_just_ended_lets_go_of_the_lock_in_a_moment(settings):
    held = Runs(settings)._try_lock()
    asyncio.get_running_loop().call_later(0.1, os.close, held)
    os.close(await Runs(settings)._lock())


async def test_of_kicks_in_memory_no_other_process_can_make_a_report(start, settings):
    client = await start(replace(settings, database_url="sqlite://"))
    response = await client.post("/drift/reports")
    assert response.status_code == 409
    assert "DATABASE_URL" in response.json()["detail"]


async def test_a_folder_that_can_not_be_used_is_named(start, settings, tmp_path):
    (tmp_path / "file").write_text("")
    client = await start(replace(settings, reports=tmp_path / "file"))
    response = await client.post("/drift/reports")
    assert response.status_code == 500
    assert "file can't be used" in response.json()["detail"]


async def test_reports_are_listed_newest_first_and_what_is_no_report_is_left_out(client, folder):
    write(folder)
    write(folder, "drift-20261125T101112000000Z", kicks=9)
    (folder / "drift-20261126T101112000000Z.json").write_text("{")
    (folder / "other.json").write_text("{}")
    (folder / f"{REPORT}.html").unlink()
    answer = (await client.get("/drift/reports")).json()
    assert answer["newest_run"] is None
    assert [each["kicks"] for each in answer["reports"]] == [9, 700]
    assert [each["html"] is None for each in answer["reports"]] == [False, True]
    assert len((await client.get("/drift/reports?limit=1")).json()["reports"]) == 1
    assert (await client.get("/drift/reports?limit=0")).status_code == 422


@pytest.mark.parametrize(
    "name",
    [
        "..%2F..%2Fkicks.db",
        "%2Fetc%2Fpasswd",
        ".evaluate.log",
        f"{REPORT}.html%00.json",
        f"x{REPORT}.html",
        "drift-20261124T101112000001Z.html",
    ],
)
async def test_no_other_file_is_ever_given_away(client, folder, name):
    write(folder)
    (folder / ".evaluate.log").write_text("secret")
    response = await client.get(f"/drift/reports/{name}")
    assert response.status_code == 404
    assert "secret" not in response.text
    assert (await client.get(f"/drift/reports/{REPORT}.html")).text == "<h1>drift</h1>"
    assert (await client.get(f"/drift/reports/{REPORT}.json")).json()["kicks"] == 700


@pytest.mark.parametrize("name", ["../x", f"../{REPORT}.html", f"{REPORT}.html/..", f"{REPORT}.html\n"])
def test_names_with_folders_are_no_names_of_reports(settings, folder, name):
    write(folder)
    with pytest.raises(ReportNotFound):
        Runs(settings).find(name)


@pytest.mark.parametrize("log", ["", "words\n", '{"pid": "x"}\n', '{"pid": 0}\n'])
def test_a_log_that_says_nothing_of_a_run_is_none(settings, folder, log):
    (folder / ".evaluate.log").write_text(log)
    assert Runs(settings).newest_run() is None


def test_what_is_left_of_a_process_whose_number_was_given_again_is_a_failure(settings, folder):
    line = {"pid": os.getpid(), "created": 1.0, "started_at": datetime.now(UTC).isoformat()}
    (folder / ".evaluate.log").write_text(f"{json.dumps(line)}\nError: the store is away\n")
    run = Runs(settings).newest_run()
    assert (run.status, run.error) == ("failed", "the store is away")


def test_progress_is_that_of_the_newest_line():
    known, words = _understand(['{"pid": 3}', '{"stage": "reading", "done": 0.25}', '{"stage": "dra'])
    assert (known.pid, known.stage, known.done) == (3, "reading", 0.25)
    assert words == '{"stage": "dra'


class Counted(Runs):
    """Counts what is started, and starts nothing."""

    started = 0

    async def start(self, _):
        self.started += 1


async def test_a_report_is_started_when_it_is_due_and_not_before(settings, folder):
    runs = Counted(settings)
    watchman = Watchman(replace(settings, drift_every=timedelta(hours=1)), None, runs)
    await watchman._report_when_due(None)
    assert runs.started == 0
    watchman._last -= timedelta(hours=2)
    write(folder, f"{datetime.now(UTC):drift-%Y%m%dT%H%M%S%fZ}")  # somebody has asked for one meanwhile
    await watchman._report_when_due(None)
    assert runs.started == 0
    watchman._last -= timedelta(hours=2)
    next(folder.glob("*.json")).unlink()
    await watchman._report_when_due(None)
    await watchman._report_when_due(None)
    assert runs.started == 1


def test_after_a_new_start_the_schedule_goes_on_from_the_newest_report(settings, folder):
    write(folder)
    watchman = Watchman(replace(settings, drift_every=timedelta(hours=1)), None, Runs(settings))
    assert watchman._last == datetime(2026, 11, 24, 10, 11, 12, tzinfo=UTC)


async def test_a_schedule_that_fails_says_so(settings, caplog, start):
    client = await start(replace(settings, database_url="sqlite://"))
    watchman = Watchman(replace(settings, drift_every=timedelta(minutes=1)), None, Runs(settings))
    watchman._last -= timedelta(hours=2)
    await watchman._report_when_due(client.app.state.service)
    assert "no report of drift was started" in caplog.text


async def test_what_goes_wrong_once_does_not_end_the_figures(settings, caplog, monkeypatch):
    class Failing:
        tries = 0

        async def begin(self, _):
            self.tries += 1
            raise ArithmeticError("once")

    monkeypatch.setattr("kickserve_drift.watchman.EVERY", 0.001)
    failing = Failing()
    watchman = Watchman(settings, failing, Runs(settings))
    await watchman.start(None)
    deadline = time.monotonic() + 10
    while failing.tries < 3 and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    await watchman.stop()
    assert failing.tries >= 3
    assert any(record.levelno == logging.ERROR for record in caplog.records)
