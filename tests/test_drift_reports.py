"""Reports: one at a time, in a process of its own with progress, found by their names, and on schedule."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from conftest import configured
from serving import eventually, serving
from test_drift_live import kicks

from kickserve_drift import monitor
from kickserve_drift.monitor import Monitor
from kickserve_drift.outcomes import OutcomeTest
from kickserve_drift.reports import ReportFolder
from kickserve_drift.settings import DriftSettings

REPORT = "drift-20261124T101112000000Z"
TOP = {"at": "2026-11-24T10:11:12Z", "model": "simulated", "kicks": 700, "drifted": True, "share": 0.2}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / DriftSettings().reports
    folder.mkdir(parents=True)
    return folder


def write(folder, name=REPORT, **fields):
    (folder / f"{name}.html").write_text("<h1>drift</h1>")
    (folder / f"{name}.json").write_text(json.dumps({**TOP, **fields, "details": {}}))


async def ended(client):
    """Wait until no report is being made; return the list of reports."""

    async def answer():
        found = (await client.get("/drift/reports")).json()
        return None if found["newest_run"]["status"] == "running" else found

    return await eventually(answer)


@pytest.mark.slow
async def test_a_report_is_made_beside_the_service_and_found_by_its_link(tmp_path):
    with serving(tmp_path, KICKSERVE_WORKERS="2") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            await client.post("/predict/batch", json=kicks(500, 1, min_distance=40))
            first = await client.post("/drift/reports")
            assert (first.status_code, first.json()["status"]) == (202, "running")
            assert first.headers["location"] == "/api/v1/drift/reports"
        for _ in range(4):  # whichever worker is asked
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
                refused = await client.post("/drift/reports")
                assert refused.status_code == 409
                assert "another report is being made" in refused.json()["detail"]
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            answer = await ended(client)
            assert answer["newest_run"]["status"] == "done", answer
            [report] = answer["reports"]
            assert (report["drifted"], report["kicks"]) == (True, 500)
            assert answer["newest_run"]["report"] == report["html"]
            host = f"http://{client.base_url.netloc.decode()}"
            page = await client.get(f"{host}{report['html']}")
            assert page.headers["content-type"].startswith("text/html")
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert len(page.content) < 6_000_000
            assert (await client.get(f"{host}{report['json']}")).json()["drifted"]
            assert (await client.get("/drift")).json()["report"] == report["html"]


async def test_too_few_kicks_fail_with_the_reason_and_the_next_report_may_start(
    start, settings, tmp_path, monkeypatch
):
    # The report has the settings of the service, whatever the environment of the process holds.
    monkeypatch.setenv("KICKSERVE_PLUGINS", "none-such")
    (tmp_path / ".env").write_text("KICKSERVE_DRIFT_SHARE=7\n")
    (tmp_path / "url").write_text(settings.database_url)
    client = await start(configured(settings, DATABASE_URL="", DATABASE_URL_FILE="url"))
    assert (await client.post("/drift/reports")).status_code == 202
    run = (await ended(client))["newest_run"]
    assert (run["status"], run["report"]) == ("failed", None)
    assert "has no kicks to evaluate" in run["error"]
    assert (await client.post("/drift/reports")).status_code == 202


async def test_the_end_of_the_service_ends_the_report(start, settings, folder):
    reports = ReportFolder(folder)
    client = await start(settings)
    await reports.start(client.app)
    assert reports.newest_run().status == "running"
    await reports.stop()
    run = reports.newest_run()
    assert (run.status, run.error) == ("failed", "the process ended without an error message")


async def test_where_no_report_can_be_made_the_answer_says_why(start, settings, tmp_path):
    client = await start(replace(settings, database_url="sqlite://"))
    response = await client.post("/drift/reports")
    assert response.status_code == 409
    assert "DATABASE_URL" in response.json()["detail"]
    (tmp_path / "file").write_text("")
    client = await start(
        configured(settings, KICKSERVE_REPORTS="file", KICKSERVE_JOURNAL_DIR="another-journal")
    )
    response = await client.post("/drift/reports")
    assert response.status_code == 500
    assert "file can't be used" in response.json()["detail"]


async def test_reports_are_listed_newest_first_without_other_files(client, folder):
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


STARTED = '{"started_at": "2026-11-24T10:11:12Z"}\n'


@pytest.mark.parametrize(
    ("log", "locked", "found"),
    [
        ("", False, None),
        ("words\n", False, None),
        ('{"started_at": "x"}\n', False, None),
        (f"{STARTED}Error: the store is away\n", False, ("failed", 0, "the store is away")),
        (f'{STARTED}{{"stage": "reading", "done": 0.25}}\n{{"stage": "dra', True, ("running", 0.25, None)),
        (f'{STARTED}{{"done": 1, "report": "a.json"}}\n', False, ("done", 1, None)),
    ],
)
def test_the_newest_run_is_read_from_its_log(folder, log, locked, found):
    path = folder / ".evaluate.log"
    path.write_text(log)
    with path.open() as file:
        if locked:
            fcntl.flock(file, fcntl.LOCK_EX)
        run = ReportFolder(folder).newest_run()
    assert (run and (run.status, run.done, run.error)) == found


async def test_a_report_is_started_when_it_is_due(start, settings, folder):
    write(folder)  # the schedule goes on from there
    client = await start(configured(settings, KICKSERVE_DRIFT_EVERY="1h"))

    async def started():
        return (await client.get("/drift/reports")).json()["newest_run"]

    assert await eventually(started)


@pytest.mark.parametrize("due", [True, False])
async def test_no_report_is_started_before_it_is_due_or_where_none_can_be_made(
    start, settings, folder, caplog, due
):
    write(folder, REPORT if due else f"{datetime.now(UTC):drift-%Y%m%dT%H%M%S%fZ}")
    client = await start(replace(settings, database_url="sqlite://"))
    table = replace(DriftSettings.load(settings.environ), every=timedelta(hours=1))
    await Monitor(table, None, OutcomeTest(), ReportFolder(folder)).start_due_report(client.app)
    assert ("no drift report was started" in caplog.text) is due
    assert (await client.get("/drift/reports")).json()["newest_run"] is None


async def test_one_failure_does_not_end_the_figures(settings, caplog, monkeypatch):
    monkeypatch.setattr(monitor, "EVERY", 0.001)
    tries = asyncio.Semaphore(0)

    class Failing:
        async def start(self, _):
            tries.release()
            raise ArithmeticError("once")

    failing = Monitor(
        DriftSettings.load(settings.environ), Failing(), OutcomeTest(), ReportFolder(DriftSettings().reports)
    )
    await failing.start(None)
    for _ in range(3):
        await asyncio.wait_for(tries.acquire(), 60)
    await failing.stop()
    assert any(record.levelno == logging.ERROR for record in caplog.records)
