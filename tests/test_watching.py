"""The dashboard and the alert rules: what they name exists, and the rules fire when the store is stopped."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from prometheus import RULES, NoPrometheus, program
from prometheus_client.parser import text_string_to_metric_families

from kickserve import app as app_module
from kickserve.store import Figure, TellsFigures

OPS = Path(__file__).parents[1] / "ops"
DASHBOARD = OPS / "grafana" / "kickserve.json"
FIGURES = [
    Figure("kickserve_drift_psi", "Drift.", 0.3, {"feature": "distance"}),
    Figure("kickserve_drift_psi", "Drift.", 0.1, {"feature": "angle"}),
    Figure("kickserve_drift_share", "Share.", 0.5),
    Figure("kickserve_drift_drifted", "Whether.", 1),
]


class Teller:
    """Tells figures of drift as a plugin does."""

    def figures(self):
        return FIGURES


def named_in(text):
    return set(re.findall(r"\bkickserve_\w+", text))


def expressions():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return "\n".join(target["expr"] for panel in panels for target in panel["targets"])


@pytest.fixture
async def shown(start, settings, kick, monkeypatch):
    """The names that /metrics shows."""
    plugins = app_module.discover(settings)
    monkeypatch.setattr(app_module, "discover", lambda _: [*plugins, Teller()])
    monkeypatch.setattr(app_module.App, "__init__", without_teller(app_module.App.__init__))
    client = await start(settings)
    await client.post("/predict", json=kick)
    families = [*text_string_to_metric_families((await client.get("http://test/metrics")).text)]
    return {sample.name: sample for family in families for sample in family.samples}


def without_teller(init):
    def made(self, *arguments, plugins, **named):
        init(self, *arguments, plugins=[each for each in plugins if not isinstance(each, Teller)], **named)

    return made


async def test_every_metric_of_dashboard_and_rules_exists(shown):
    for text in (RULES.read_text(), expressions(), DASHBOARD.read_text()):
        names = named_in(text)
        assert names
        assert names - shown.keys() == set()


async def test_the_dashboard_shows_every_metric_but_those_that_others_hold(shown):
    held = {name for name in shown if name.endswith(("_sum", "_count", "_created"))}
    assert shown.keys() - held - named_in(DASHBOARD.read_text()) <= {"kickserve_drift_drifted"}


async def test_the_figures_of_plugins_are_shown_with_their_labels(shown):
    assert isinstance(Teller(), TellsFigures)
    assert shown["kickserve_drift_share"].value == 0.5
    assert set(shown["kickserve_drift_psi"].labels) == {"feature"}


def test_panels_do_not_overlap_and_have_a_title():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
    assert all(panel["title"] for panel in panels)
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.fixture
def promtool():
    try:
        return program("promtool")
    except NoPrometheus as error:
        pytest.skip(str(error))


def test_promtool_accepts_rules_and_configuration(promtool):
    for command in (["rules", RULES], ["config", RULES.with_name("prometheus.yml")]):
        done = subprocess.run([promtool, "check", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


async def test_promtool_finds_nothing_to_mend_in_the_metrics(start, settings, kick, promtool):
    client = await start(settings)
    await client.post("/predict", json=kick)
    text = (await client.get("http://test/metrics")).text
    done = await asyncio.to_thread(
        subprocess.run,
        [promtool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("promtool", "postgres_server")
def test_prometheus_scrapes_a_service_and_its_rules_fire_when_the_store_is_stopped(tmp_path):
    done = subprocess.run(
        [sys.executable, str(OPS / "chaos" / "watching.py"), "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["before"] == told["after"] == []
    assert "KickserveStoreAway" in told["during"]
    assert told["scraped"] > 0


def test_the_plugin_drift_has_the_figures_that_are_named_here():
    found = entry_points(group="kickserve.plugins", name="drift")
    if not found:
        return  # it is not there yet: the figures above stand for its own
    [point] = found
    folder = Path(sys.modules[point.load().__module__].__file__).parent
    text = "".join(file.read_text() for file in folder.glob("*.py"))
    assert {each.name for each in FIGURES} <= named_in(text)
