"""`kickserve evaluate` as it is used: batches, reports, exit codes, and the page in a browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import browser
import pytest
from partitions import without_pictures
from serving import BARE, serving

from kickserve.cli import run
from kickserve.features import NAMES
from kickserve_data.simulate import simulate
from kickserve_data.writer import open_writer


def kickserve(folder, *arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KICKSERVE_")}
    return subprocess.run(
        [sys.executable, "-m", "kickserve", *map(str, arguments)],
        cwd=folder,
        env={**clean, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def write(path, size, columns=NAMES, seed=5):
    kicks = simulate(size, seed)
    with open_writer(path, columns) as writer:
        writer.write({name: kicks.matrix[:, NAMES.index(name)] for name in columns})
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder in which the tasks ran in their order; the two reports, and what the terminal showed."""
    folder = tmp_path_factory.mktemp("tasks")
    shown = []
    for far in ([], ["--min-distance", 40]):
        assert (
            kickserve(folder, "batch", "--size", 1000, "--url", "auto", *far, KICKSERVE_PORT="9").returncode
            == 0
        )
        shown.append(
            kickserve(folder, "evaluate", "--fail-on-drift", KICKSERVE_EVIDENTLY_URL=str(folder / "space"))
        )
    reports = [
        json.loads(path.read_bytes()) for path in sorted((folder / "data/drift_reports").glob("*.json"))
    ]
    return folder, reports, shown


def drifted(report):
    return {each["name"] for each in (*report["features"], report["prediction"]) if each["drifted"]}


def test_usual_kicks_have_not_drifted_and_far_ones_have(runs):
    _, [usual, far], [first, second] = runs
    assert (first.returncode, second.returncode) == (0, 4), first.stderr + second.stderr
    assert drifted(usual) == set()
    assert drifted(far) == {"distance", "angle", "prediction"}
    assert first.stdout.startswith("No drift")
    assert second.stdout.startswith("Drift: 2 of 11 features (distance, angle) and the predictions")


def test_the_page_and_evidently_say_the_same_as_the_summary(runs):
    folder, [_, far], _ = runs
    [page] = [each for each in (folder / "data/drift_reports").glob("*.html") if each.name in far["report"]]
    assert page.stat().st_size < 6_000_000
    values = {each["metric_name"]: each["value"] for each in far["details"]["evidently"]["metrics"]}
    for column in (*far["features"], far["prediction"]):
        [value] = [
            each for name, each in values.items() if name.startswith(f"ValueDrift(column={column['name']},")
        ]
        assert value == column["psi"]
    failed = {each["name"] for each in far["details"]["evidently"]["tests"] if each["status"] == "FAIL"}
    assert {f"Value Drift for column {name}" for name in drifted(far)} <= failed


def test_known_outcomes_are_measured_and_held_against_what_was_expected(runs):
    _, [usual, far], _ = runs
    known = usual["details"]["known"]
    assert known["quality"]["count"] == 1000
    assert known["expected"]["brier"]["low"] < known["quality"]["brier"] < known["expected"]["brier"]["high"]
    assert far["details"]["known"]["expected"]["brier"]["value"] > known["expected"]["brier"]["value"]


def test_the_report_is_uploaded_to_the_workspace(runs):
    folder, [usual, _], _ = runs
    assert usual["details"]["uploaded"]
    assert len([*(folder / "space").glob("*/snapshots/*.json")]) == 2


def test_in_a_browser_the_page_draws_and_asks_no_other_host(runs):
    try:
        path = browser.chromium()
    except browser.NoBrowser as reason:
        pytest.skip(str(reason))
    sync_api = pytest.importorskip("playwright.sync_api")
    folder, *_ = runs
    page_file = max((folder / "data/drift_reports").glob("*.html"))
    asked, errors = [], []
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=browser.FLAGS)
        page = chromium.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(page_file.as_uri())
        page.get_by_text("Dataset Drift", exact=False).first.wait_for()
        heading = page.get_by_role("heading", level=1).first.inner_text()
        page.get_by_role("tab", name="Tests").first.click()
        page.get_by_text("Value Drift for column distance").first.wait_for()
        chromium.close()
    assert heading.startswith("Drift: 2 of 11")
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture
def here(capsys, monkeypatch):
    """Run the command in this process, without drawing: the figures are those that are drawn elsewhere."""
    without_pictures(monkeypatch)
    monkeypatch.setenv("COLUMNS", "120")

    def here(*arguments, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = run([*map(str, arguments)])
        return code, *capsys.readouterr()

    return here


def test_progress_in_json_never_falls_and_ends_with_the_report(runs, here, monkeypatch):
    folder, *_ = runs
    monkeypatch.chdir(folder)
    code, _, err = here("evaluate", "--last", "200", "--json-progress")
    lines = [json.loads(line) for line in err.splitlines()]
    shares = [line["done"] for line in lines]
    assert code == 0
    assert shares == sorted(shares)
    assert lines[-1]["stage"] == "done"
    assert (folder / "data/drift_reports" / lines[-1]["report"]).is_file()


def test_a_service_gives_its_kicks_and_takes_those_of_a_batch(tmp_path, here):
    with serving(tmp_path, **BARE) as server:
        base = server.url.partition("/api")[0]
        _, _, err = here("batch", "--size", 300, "--url", "auto", KICKSERVE_PORT=base.rpartition(":")[2])
        assert f"through the service at {base}" in err
        code, out, _ = here("evaluate", "--url", base, "--since", "1h", "--json")
    report = json.loads(out)
    assert (code, report["kicks"]) == (0, 300)
    assert report["details"]["current"]["kind"] == "service"


def test_a_file_with_holes_a_constant_column_and_a_reference(tmp_path, here):
    reference = write(tmp_path / "reference.csv", 3_000)
    current = write(tmp_path / "current.csv", 200, seed=6)
    head, *lines = current.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    for row in cells:
        row[3] = "7.0"
    cells[0][1], cells[1][1] = "", "500"
    current.write_text("\n".join([head, *map(",".join, cells)]) + "\n")
    code, out, err = here("evaluate", current, "--reference", reference, "--json")
    assert code == 3, err
    report = json.loads(out)
    assert (report["kicks"], report["details"]["refused"]) == (198, 2)
    [distance] = [each for each in report["details"]["holes"] if each["name"] == "distance"]
    assert (distance["missing"], distance["out_of_range"]) == (0.005, 0.005)
    assert "wind_speed" in drifted(report)
    assert report["details"]["expected"]["count"] == 198


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "words"),
    [
        ([], {}, 5, "keeps no kicks to evaluate"),
        (["few.csv"], {}, 5, "holds 10 kicks"),
        (["kicks.csv", "--reference", "few.csv"], {}, 5, "as a reference it must hold 50"),
        (["kicks.csv", "--reference", "other.csv"], {}, 2, "has no column distance"),
        (["nowhere.csv"], {}, 2, "there is no file"),
        (["kicks.csv", "--last", "5"], {}, 2, "leave FILE out"),
        (["--since", "soon"], {}, 2, "is no time"),
        (["--url", "http://127.0.0.1:9"], {}, 6, "no service answers"),
        ([], {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}, 6, "127.0.0.1"),
    ],
)
def test_what_can_not_be_evaluated_is_said_with_a_code(tmp_path, here, arguments, environment, code, words):
    write(tmp_path / "few.csv", 10)
    write(tmp_path / "kicks.csv", 60)
    write(tmp_path / "other.csv", 60, [name for name in NAMES if name != "distance"])
    ended, _, err = here("evaluate", *arguments, **environment)
    assert ended == code, err
    assert words in " ".join(err.replace("│", " ").split())
