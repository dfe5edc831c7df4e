"""`kickserve evaluate`: reports, their page in a browser, exit codes, and the choice of kicks and samples."""

from __future__ import annotations

import json
import sys
import warnings
from contextlib import redirect_stdout
from io import StringIO

import browser
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from partitions import evaluate as run_evaluate
from partitions import folder_of, rounded, table_of, without_pages
from serving import BARE, serving

from kickserve.cli import run
from kickserve.features import NAMES
from kickserve_data.simulate import simulate
from kickserve_data.writer import open_writer
from kickserve_drift.kicks import Sample


def write(path, size, columns=NAMES, seed=5):
    kicks = simulate(size, seed)
    with open_writer(path, columns) as writer:
        writer.write({name: kicks.matrix[:, NAMES.index(name)] for name in columns})
    return path


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A folder where usual and then far kicks were evaluated; of each the report, exit code and output."""
    folder = tmp_path_factory.mktemp("reports")
    found = []
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations in Evidently
        patch.chdir(folder)
        patch.setenv("COLUMNS", "120")
        patch.setenv("KICKSERVE_PORT", "9")
        patch.setenv("KICKSERVE_EVIDENTLY_URL", str(folder / "space"))
        for far in ([], ["--min-distance", "40"]):
            shown = StringIO()
            with redirect_stdout(shown):
                assert run(["batch", "--size", "1000", "--url", "auto", *far]) == 0
            with redirect_stdout(shown := StringIO()):
                code = run(["evaluate", "--fail-on-drift"])
            newest = max((folder / "data/drift_reports").glob("*.json"))
            found.append((json.loads(newest.read_bytes()), code, shown.getvalue()))
    return folder, found


def drifted(report):
    return {each["name"] for each in (*report["features"], report["prediction"]) if each["drifted"]}


@pytest.mark.slow
def test_usual_kicks_have_not_drifted_and_far_ones_have(reports):
    _, [(usual, usual_code, usual_output), (far, far_code, far_output)] = reports
    assert (usual_code, far_code) == (0, 4)
    assert drifted(usual) == set()
    assert drifted(far) == {"distance", "angle", "prediction"}
    assert usual_output.startswith("No drift")
    assert far_output.startswith("Drift: the predictions have changed; so have 2 of 11 features (distance, a")
    known, far_known = usual["details"]["known"], far["details"]["known"]
    assert known["quality"]["count"] == 1000
    assert known["expected"]["brier"]["low"] < known["quality"]["brier"] < known["expected"]["brier"]["high"]
    assert far_known["expected"]["brier"]["value"] > known["expected"]["brier"]["value"]


@pytest.mark.slow
def test_page_and_workspace_have_the_figures_of_the_summary(reports):
    folder, [(usual, *_), (far, *_)] = reports
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
    assert usual["details"]["uploaded"]
    assert len([*(folder / "space").glob("*/snapshots/*.json")]) == 2


@pytest.mark.slow
def test_in_a_browser_the_page_draws_and_asks_no_other_host(reports):
    path = browser.chromium()
    sync_api = pytest.importorskip("playwright.sync_api")
    page_file = max((reports[0] / "data/drift_reports").glob("*.html"))
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
    assert heading.startswith("Drift: the predictions have changed; so have 2 of 11")
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture
def here(capsys, monkeypatch):
    """Run a command in this process, without a page."""
    without_pages(monkeypatch)
    monkeypatch.setenv("COLUMNS", "120")

    def here(*arguments, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        return run([*map(str, arguments)]), *capsys.readouterr()

    return here


@pytest.fixture
def evaluate(capsys, monkeypatch):
    """Run `evaluate --json` in this process, without a page; return exit code, figures and standard error."""
    without_pages(monkeypatch)
    return lambda *arguments: run_evaluate(capsys, *arguments)


def test_progress_in_json_never_falls_and_ends_with_the_report(tmp_path, here):
    write(tmp_path / "kicks.csv", 60)
    code, _, err = here("evaluate", "kicks.csv", "--json-progress")
    lines = [json.loads(line) for line in err.splitlines()]
    shares = [line["done"] for line in lines]
    assert code == 0
    assert shares == sorted(shares)
    assert lines[-1]["stage"] == "done"
    assert (tmp_path / "data/drift_reports" / lines[-1]["report"]).is_file()


def test_a_service_gives_its_kicks(tmp_path, here):
    with serving(tmp_path, **BARE) as server:
        base = server.url.partition("/api")[0]
        _, _, err = here("batch", "--size", 300, "--url", "auto", KICKSERVE_PORT=base.rpartition(":")[2])
        assert f"through the service at {base}" in err
        code, out, _ = here("evaluate", "--url", base, "--since", "1h", "--json")
    report = json.loads(out)
    assert (code, report["kicks"], report["details"]["current"]["kind"]) == (0, 300, "service")


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
        ([], {}, 5, "has no kicks to evaluate"),
        (["few.csv"], {}, 5, "holds 10 kicks"),
        (["kicks.csv", "--reference", "few.csv"], {}, 5, "as a reference it must hold 50"),
        (["kicks.csv", "--reference", "other.csv"], {}, 2, "has no column distance"),
        (["nowhere.csv"], {}, 2, "there is no file"),
        (["kicks.csv", "--last", "5"], {}, 2, "leave FILE out"),
        (["--since", "soon"], {}, 2, "must be an instant such as"),
        (["--url", "http://127.0.0.1:9"], {}, 6, "no service answers"),
        ([], {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}, 6, "127.0.0.1"),
    ],
)
def test_where_nothing_can_be_evaluated_message_and_code_say_why(
    tmp_path, here, arguments, environment, code, words
):
    write(tmp_path / "few.csv", 10)
    write(tmp_path / "kicks.csv", 60)
    write(tmp_path / "other.csv", 60, [name for name in NAMES if name != "distance"])
    ended, _, err = here("evaluate", *arguments, **environment)
    assert ended == code, err
    assert words in " ".join(err.replace("│", " ").split())


def test_an_evidently_that_can_not_be_imported_is_an_error_with_its_remedy(kickserve, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "evidently", None)  # as beside a pandas that it does not know
    monkeypatch.delitem(sys.modules, "kickserve_drift.page", raising=False)
    code, _, error = kickserve("evaluate", write(tmp_path / "kicks.parquet", 60))
    assert code == 2
    assert "pip install 'kickserve[reports]'" in " ".join(error.split())


def test_a_folder_has_the_figures_of_its_rows_in_one_file(evaluate, tmp_path):
    kicks = folder_of(tmp_path / "kicks", [2_500, 700], rows=400)
    pq.write_table(pa.concat_tables([pq.read_table(path) for path in sorted(kicks.iterdir())]), "one.parquet")
    code, folder, _ = evaluate(kicks)
    _, one, _ = evaluate("one.parquet")
    assert code == 0
    assert folder.pop("reference") == one.pop("reference")
    assert rounded(folder) == rounded(one)
    assert (folder["kicks"], folder["known"]["quality"]["count"]) == (3_200, 3_200)


def test_refused_rows_of_a_folder_are_counted_and_name_their_file(evaluate, tmp_path):
    kicks = folder_of(tmp_path / "kicks", [300, 300], rows=100)
    table = table_of(300, 1)
    distance = table["distance"].to_numpy().copy()
    distance[205] = np.nan
    at = table.column_names.index("distance")
    path = kicks / "kicks-1.parquet"
    pq.write_table(table.set_column(at, "distance", pa.array(distance)), path, row_group_size=100)
    code, report, _ = evaluate(kicks)
    assert (code, report["kicks"], report["refused"]) == (3, 599, 1)
    [refused] = report["refusals"]
    assert (refused["line"], refused["reason"][:36]) == (206, "kicks-1.parquet: distance is missing")
    [hole] = [each for each in report["holes"] if each["name"] == "distance"]
    assert hole["missing"] == pytest.approx(1 / 600)


def test_a_row_group_that_can_not_be_read_is_named_and_no_report_made(evaluate, tmp_path):
    kicks = folder_of(tmp_path / "kicks", [300, 300], rows=100)
    path = kicks / "kicks-1.parquet"
    column = pq.read_metadata(path).row_group(1).column(1)
    content = bytearray(path.read_bytes())
    begins = column.dictionary_page_offset or column.data_page_offset
    content[begins : begins + 60] = b"\xff" * 60
    path.write_bytes(content)
    code, report, err = evaluate(kicks, "--retries", 0)
    assert (code, report) == (2, None)
    assert f"row group 1 of {path} can't be evaluated" in err


def test_too_few_kicks_are_too_few_in_a_folder_as_well(evaluate, tmp_path):
    assert evaluate(folder_of(tmp_path / "kicks", [20, 20]))[0] == 5
    empty = folder_of(tmp_path / "empty", [1])
    pq.write_table(table_of(1).slice(0, 0), empty / "kicks-0.parquet")
    assert evaluate(empty)[0] == 5


def test_stored_predictions_are_chosen_by_the_last_report_or_by_options(tmp_path, here, monkeypatch):
    monkeypatch.setattr("kickserve_drift.kicks.PAGE", 16)

    def evaluated(*options):
        code, out, err = here("evaluate", "--json", *options)
        assert code == 0, err
        report = json.loads(out)
        return report["kicks"], report["details"]["current"]["rule"]

    def predict(size):
        assert here("batch", "--size", size, "--url", "auto", KICKSERVE_PORT="9")[0] == 0

    predict(80)
    assert evaluated() == (80, "the newest, 1,000 at most")
    assert evaluated() == (80, "those of the last report, as only 0 are new")
    predict(60)
    assert evaluated() == (60, "new since the last report, 1,000 at most")
    assert evaluated("--last", 70) == (70, "the newest 70")
    assert evaluated("--last", 130, "--model", "simulated") == (130, "the newest 130, of the model simulated")
    for broken in ("{", "[]", '{"details": {"current": {"place": 1}}}'):
        (tmp_path / "data/drift_reports/drift-29991231T000000000000Z.json").write_text(broken)
        assert evaluated()[1] == "those of the last report, as only 0 are new"
    assert here("evaluate", "--model", "another")[0] == 5


def test_a_sample_is_the_same_for_the_same_seed_and_keeps_the_order():
    rows = np.repeat(np.arange(10_000.0)[:, None], 13, axis=1)
    samples = [Sample(500, 7) for _ in range(2)]
    for sample in samples:
        for part in (rows[:100], rows[100:4_000], rows[4_000:]):
            sample.add(part)
            assert sample.whole is (len(part) == 100)
    first, second = (sample.rows[:, 0] for sample in samples)
    assert np.array_equal(first, second)
    assert len(first) == 500
    assert np.all(np.diff(first) > 0)
    assert first.mean() == pytest.approx(5_000, abs=500)


def told(path, size, share, seed=5):
    """Write kicks with outcomes of a world in which such a share of the successes remains."""
    kicks = simulate(size, seed)
    left = kicks.success & (np.random.default_rng([seed, 99]).random(size) < share)
    with open_writer(path, [*NAMES, "success"]) as writer:
        columns = {name: kicks.matrix[:, at] for at, name in enumerate(NAMES)}
        writer.write({**columns, "success": left.astype(int)})
    return path


@pytest.mark.parametrize("name", ["kicks.csv", "kicks.parquet", "kicks.ndjson"])
def test_outcomes_that_do_not_fit_the_predictions_are_a_drift(here, tmp_path, name):
    path = told(tmp_path / name, 2_000, 0.92)
    code, out, _ = here("evaluate", path, "--fail-on-drift", "--json")
    report = json.loads(out)
    assert (code, report["drifted"], drifted(report)) == (4, True, set())
    change = report["calibration"]["change"]
    low, high = change["difference_interval"]
    assert (change["what"], low < -0.06 < high < 0) == ("level down", True)
    assert 1 <= change["since"] <= change["heard_at"] <= 1_000  # lines of the file
    code, out, _ = here("evaluate", path)
    assert code == 0
    assert out.startswith(
        f"Drift: the outcomes no longer fit the predictions, {change['text']}; of the kicks: no"
    )


def test_outcomes_that_fit_are_no_drift_and_without_any_the_report_says_what_it_can_not_see(here, tmp_path):
    code, out, err = here("evaluate", told(tmp_path / "kicks.csv", 500, 1), "--fail-on-drift")
    assert (code, "they fit the predictions" in out, "without outcomes" in err) == (0, True, False)
    code, out, err = here("evaluate", write(tmp_path / "silent.csv", 500), "--fail-on-drift")
    assert (code, "none is known" in out) == (0, True)
    assert "without outcomes nothing can show that more or fewer kicks succeed" in err


def test_outcomes_of_a_folder_are_heard_in_the_order_of_its_files(evaluate, tmp_path):
    kicks = folder_of(tmp_path / "kicks", [1_500, 1_500], rows=400)
    path = kicks / "kicks-1.parquet"
    table = pq.read_table(path)
    success = pa.array(table["success"].to_numpy() & (np.arange(1_500) % 5 > 0))
    pq.write_table(
        table.set_column(table.column_names.index("success"), "success", success), path, row_group_size=400
    )
    pq.write_table(pa.concat_tables([pq.read_table(each) for each in sorted(kicks.iterdir())]), "one.parquet")
    _, folder, _ = evaluate(kicks)
    _, one, _ = evaluate("one.parquet")
    assert rounded(folder["calibration"]) == rounded(one["calibration"])
    assert one["calibration"]["outcomes"] == 3_000
    change = one["calibration"]["change"]
    assert 1_400 < change["since"] < change["heard_at"] < 1_800


def test_all_outcomes_of_the_store_are_heard_unless_options_select_some(here, tmp_path):
    for size, share, seed in ((1_600, 0.9, 5), (100, 1, 6)):
        file = told(tmp_path / f"{seed}.csv", size, share, seed)
        assert here("batch", file, "--keep", "--output", tmp_path / "out.csv")[0] == 0
    code, out, _ = here("evaluate", "--json", "--fail-on-drift")
    report = json.loads(out)
    assert (code, report["kicks"], report["calibration"]["outcomes"]) == (4, 1_000, 1_700)
    assert report["calibration"]["change"]["what"] == "level down"
    code, out, _ = here("evaluate", "--last", 100, "--json", "--fail-on-drift")
    assert (code, json.loads(out)["calibration"]["outcomes"]) == (0, 100)
