"""The drills and attacks, shortened, the figures of a long run, and the dashboard with its alerts."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import configured
from debian import program
from prometheus import RULES
from prometheus_client.parser import text_string_to_metric_families
from serving import BARE, eventually

from ops.bench import serving
from ops.bench.__main__ import NAMES as BENCHMARKS
from ops.bench.contenders import Contender, Tally
from ops.bench.peers import bare, environment
from ops.chaos import vitals
from ops.chaos.__main__ import NAMES as DRILLS
from ops.commands import function, parser
from ops.fuzz.__main__ import NAMES as ATTACKS

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "ops" / "grafana" / "kickserve.json"
FUNCTIONS = [
    *(("ops.bench", place) for place, _ in BENCHMARKS.values()),
    *(("ops.chaos", place) for place, _ in DRILLS.values()),
    *(("ops.fuzz", place) for name, (place, _) in ATTACKS.items() if name != "decoders"),  # needs atheris
]


@pytest.mark.slow  # most import packages that only `just test-all` has
@pytest.mark.parametrize(("package", "place"), FUNCTIONS)
def test_every_benchmark_drill_and_attack_can_be_imported_and_explains_its_options(package, place):
    help_text = parser(function(package, place), package).format_help()
    assert "--json" in help_text


def run(package, folder, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-m", f"ops.{package}", *arguments, "--json"],
        cwd=folder,
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def measured(server="kickserve", connections=32, **given):
    figures = {name: 1.0 for name, _ in serving.COLUMNS.values()}
    return {"server": server, "connections": connections, "round": 1, **figures, **given}


class TestComparison:
    def test_a_ratio_is_taken_within_each_round_so_that_a_slow_round_changes_nothing(self):
        machine = {1: 1.0, 2: 0.1, 3: 1.0}  # in the second round others had the machine
        turns = [
            measured(server, round=number, throughput=rate * speed)
            for number, speed in machine.items()
            for server, rate in (("kickserve", 600.0), ("bare", 1_000.0))
        ]
        [throughput, p99] = serving.ratios(turns)
        assert throughput["ratio"] == "kickserve / bare, throughput"
        assert throughput["lowest"] == throughput["highest"] == pytest.approx(0.6)
        assert p99["ratio"] == "kickserve / bare, p99"

    @pytest.mark.parametrize(
        ("stored", "agrees"), [(99, False), (100, True), (132, True), (133, False), (None, True)]
    )
    def test_only_answers_that_were_cut_off_may_be_stored_beyond_those_received(self, stored, agrees):
        tally = Tally("kickserve", answered=100, cut=32, stored=stored)
        assert tally.agrees is agrees

    def test_a_loss_in_one_round_does_not_vanish_in_the_surplus_of_another(self):
        [total] = serving.merge([Tally("kickserve", 10, 5, 9), Tally("kickserve", 10, 5, 12)])
        assert (total["answered"], total["stored"], total["agrees"]) == (20, 21, False)
        assert [*serving.failures([total])] == ["kickserve: 20 answered, 21 stored, 10 cut off"]

    def test_the_report_its_chart_and_the_readme_are_made_of_the_results(self, tmp_path):
        results = json.loads((serving.RESULTS / "serving.json").read_text())
        serving.write(results, tmp_path)
        for made in tmp_path.iterdir():
            assert made.read_text() == (serving.RESULTS / made.name).read_text()
        [shown] = serving.BLOCK.findall(serving.README.read_text())
        assert shown == serving.block(results)

    def test_what_can_not_run_here_is_left_out_with_the_reason(self, monkeypatch, tmp_path):
        monkeypatch.setattr(environment, "HOME", tmp_path)
        (tmp_path / "requirements.txt").write_text("--no-index\nno-package-of-this-name\n")
        monkeypatch.setitem(environment.REQUIREMENTS, "nowhere", ("-r", str(tmp_path / "requirements.txt")))
        assert "can't be installed" in Contender(name="x", environment="nowhere").lacks()
        assert Contender(name="x", program="no-such-program").lacks() == "no-such-program is not installed"
        assert Contender(name="x").lacks() == ""

    async def test_the_bare_server_answers_as_many_bytes_as_a_prediction_has(self, client, kick):
        answer = await client.post("/predict", json=kick)
        assert abs(len(answer.content) - len(bare.ANSWER)) <= 12  # digits of a float may be fewer


@pytest.mark.usefixtures("postgres_server")  # skipped, with the reason, where there is no Postgres
class TestDrills:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "drills", [["kill"], ["terminate", "outage"], ["disk", "three"]], ids=" and ".join
    )
    def test_under_load_no_answer_is_lost_and_none_is_stored_twice(self, drills, tmp_path):
        short = ["--rounds", "2", "--outage", "1", "--warm", "0.7"]
        rows = run("chaos", tmp_path, "drills", "--only", *drills, *short, **BARE)
        assert all(any(row["drill"].startswith(drill) for row in rows) for drill in drills)
        for row in rows:
            assert row.get("lost", 0) == row.get("twice", 0) == row.get("errors", 0) == 0, row
            assert row["passed"] or "p99_during_ms" in row, row  # no test asserts a time

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "command",
        [
            "resurrection",
            "restore --number 20",
            "bitflip",
            "vanished --seconds 0.5",
            "visitors --number 200",
            "frozen --seconds 1",
            "hang",
        ],
    )
    def test_what_is_kept_stays_kept_and_what_is_deleted_stays_deleted(self, command, tmp_path):
        if command == "hang":
            pytest.importorskip("onnx")
        rows = run("chaos", tmp_path, *command.split())
        for row in rows if isinstance(rows, list) else [rows]:
            assert row.get("lost", 0) == row.get("twice", 0) == 0, row
            assert row.get("exit_code", 0) is not None, row  # it had to be killed
            assert row["passed"] or "ended_in_s" in row, row  # no test asserts a time

    @pytest.mark.slow
    @pytest.mark.usefixtures("nginx")
    def test_behind_nginx_no_client_notices_that_a_replica_is_killed_and_another_restarted(self, tmp_path):
        row = run("chaos", tmp_path, "replicas", "--seconds", "0.7", "--kills", "2")
        assert row["answered"] > 0
        assert (row["errors"], row["lost"], row["twice"]) == (0, 0, 0), row

    @pytest.mark.slow
    @pytest.mark.usefixtures("promtool")
    def test_the_alert_of_the_store_fires_while_it_is_stopped(self, tmp_path):
        found = run("chaos", tmp_path, "watching")
        assert found["before"] == found["after"] == []
        assert "KickserveStoreAway" in found["during"]
        assert found["scraped"] > 0


LEVEL = {
    "pss_mb": 120.0,
    "handles": 50,
    "threads": 9,
    "journal_bytes": 1000,
    "rate": 1000.0,
    "p50_ms": 1.0,
    "p99_ms": 9.0,
    "bare_p99_ms": 3.0,
    "troubled": False,
}


def grown(**changes):
    """Return the figures that grew too much in a run of a hundred samples ten seconds apart.

    A change says what a sample shows by its number.
    """
    samples = [
        vitals.Sample(**{**LEVEL, "seconds": 10.0 * at, **{name: of(at) for name, of in changes.items()}})
        for at in range(100)
    ]
    return {each.what for each in vitals.verdicts(*vitals.thirds(samples, 200.0)) if not each.passed}


class TestLongRun:
    @pytest.mark.parametrize(
        ("name", "growing"),
        [
            ("pss_mb", lambda at: 120 + at / 4),
            ("handles", lambda at: 50 + at // 10),
            ("handles", lambda at: (68 if at % 3 == 0 else 46) + at // 15),
            ("threads", lambda at: 9 + at // 10),
            ("journal_bytes", lambda at: 10**6 + 10**5 * at),
        ],
    )
    def test_steady_growth_fails(self, name, growing):
        assert grown(**{name: growing}) == {name}

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"pss_mb": lambda at: min(at, 20) * 6},  # in the warm-up alone
            {"handles": lambda at: 68 if at % 3 == 0 or at % 2 == at // 60 else 46},  # pages come and go
            {"pss_mb": lambda at: 900 if at == 90 else 120, "troubled": lambda at: at == 90},  # an outage
        ],
    )
    def test_a_level_run_passes(self, changes):
        assert grown(**changes) == set()

    @pytest.mark.parametrize(
        ("late", "bare", "passed"),
        [(124, 10, True), (126, 10, False), (240, 20, True), (260, 20, False), (124, 5, True)],
    )
    def test_times_may_grow_a_quarter_more_than_those_of_the_bare_app(self, late, bare, passed):
        changes = {
            "p99_ms": lambda at: 100 if at < 50 else late,
            "bare_p99_ms": lambda at: 10 if at < 50 else bare,
        }
        assert grown(**changes) == (set() if passed else {"p99_ms"})


@pytest.fixture
def promtool():
    return program("promtool", "prometheus")


@pytest.fixture
def nginx():
    return program("nginx", "nginx")


def plugins_of_the_image():
    """Return the names of the plugins of which the default image has the extra, or that need none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.search(r"^ARG EXTRAS=(.*)$", (ROOT / "Containerfile").read_text(), re.MULTILINE)[1].split(",")
    assert {*extras} <= {*project["optional-dependencies"]}
    missing = {*project["optional-dependencies"]} - {*extras}
    return [name for name in project["entry-points"]["kickserve.plugins"] if name not in missing]


def metrics_in(text):
    return set(re.findall(r"\bkickserve_\w+", text))


class TestWatching:
    @pytest.fixture
    async def metrics(self, start, settings, kick):
        """The metrics of a service with the extras of the default image, after kicks and an outcome."""
        client = await start(configured(settings, KICKSERVE_PLUGINS=",".join(plugins_of_the_image())))
        answers = (await client.post("/predict/batch", json=[kick] * 50)).json()
        outcome = {"success": True}
        assert (await client.put(f"/predictions/{answers[0]['id']}/outcome", json=outcome)).is_success

        async def complete():
            text = (await client.get("http://test/metrics")).text
            return text if {"kickserve_drift_psi", "kickserve_drift_alarm"} <= metrics_in(text) else None

        return await eventually(complete)

    @pytest.fixture
    def shown(self, metrics):
        return {each.name for family in text_string_to_metric_families(metrics) for each in family.samples}

    def test_every_metric_of_dashboard_and_rules_exists(self, shown):
        for text in (RULES.read_text(), DASHBOARD.read_text()):
            assert metrics_in(text)
            assert metrics_in(text) - shown == set()

    def test_the_dashboard_shows_every_metric(self, shown):
        ours = {name for name in shown if name.startswith("kickserve_")}
        parts = {name for name in ours if name.endswith(("_sum", "_count", "_created"))}
        assert ours - parts - metrics_in(DASHBOARD.read_text()) == set()

    def test_panels_have_a_title_and_do_not_overlap(self):
        panels = json.loads(DASHBOARD.read_text())["panels"]
        cells = [
            (x, y)
            for grid in (panel["gridPos"] for panel in panels)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        ]
        assert len(cells) == len(set(cells))
        assert all(x < 24 for x, _ in cells)
        assert all(panel["title"] for panel in panels)

    def test_promtool_accepts_rules_and_configuration(self, promtool):
        for command in (["rules", RULES], ["config", RULES.with_name("prometheus.yml")]):
            done = subprocess.run([promtool, "check", *command], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

    def test_an_alert_says_that_prometheus_finds_no_service(self, promtool, tmp_path):
        query = 'count(ALERTS{alertname="KickserveDown",alertstate="firing"})'
        fires = {"expr": query, "eval_time": "2m", "exp_samples": [{"labels": "{}", "value": 1}]}
        case = {"interval": "1m", "promql_expr_test": [fires]}
        file = tmp_path / "absent.json"
        file.write_text(json.dumps({"rule_files": [str(RULES)], "tests": [case]}))
        command = [promtool, "test", "rules", file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    async def test_promtool_accepts_the_metrics(self, metrics, promtool):
        command = [promtool, "check", "metrics"]
        done = await asyncio.to_thread(
            subprocess.run, command, input=metrics, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
