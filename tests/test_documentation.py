"""What is written for people names everything that there is, and the wheel holds it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from conftest import settings_rows
from dotenv import dotenv_values

from kickserve.cli import cli
from kickserve.features import FEATURES
from kickserve.settings import Settings

ROOT = Path(__file__).parent.parent
# What stands above the title, between two lines of dashes, is read by the hub and not by people.
README = re.sub(r"\A---\n.*?\n---\n\s*", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
RESULTS = json.loads((ROOT / "ops/bench/results/serving.json").read_text())


@pytest.mark.parametrize("row", settings_rows(), ids=lambda row: row.variable)
def test_the_readme_names_every_setting_with_its_default(row):
    [line] = [line for line in README.splitlines() if line.startswith(f"| `{row.variable}` |")]
    assert (f"| `{row.default}` |" if row.default else "|  |") in line
    assert row.description in line


@pytest.mark.parametrize("command", cli.list_commands(click.Context(cli)))
def test_the_readme_names_every_command(command):
    assert f"`kickserve {command}" in README or f"kickserve {command} " in README


def test_the_readme_names_every_plugin():
    for point in entry_points(group="kickserve.plugins"):
        if point.dist.name == "kickserve":
            assert f"`{point.name}`" in README


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_the_readme_says_of_every_feature_what_it_is_and_its_range(feature):
    wanted = feature.wanted.removeprefix("a number from ")
    assert f"| `{feature.name}` | {feature.meaning} | {wanted} |" in README


@pytest.mark.parametrize(
    ("name", "server"),
    [("kickserve", "kickserve"), ("FastAPI", "fastapi"), ("LitServe", "litserve"), ("bare", "bare")],
)
def test_the_readme_compares_with_what_was_measured_last(name, server):
    measured = (ROOT / "ops/bench/results/serving.md").read_text()

    def cells(row):
        [line] = [line for line in measured.splitlines() if line.startswith(f"| {row} |")]
        return [cell.strip() for cell in line.strip("|").split("|")][1:]

    alone, many = cells(f"{server}, 1"), cells(f"{server}, 32")
    ready = cells(f"start of {server}, until it is ready")[0].removesuffix(" s")
    figures = [alone[0], many[0], alone[1], many[2], many[6], ready]
    assert f"| {name} | {' | '.join(figures)} |" in README
    assert f"Made by `just bench` on {RESULTS['date']} ({RESULTS['cpu']}," in README


def test_the_readme_begins_with_the_two_commands():
    head = "\n".join(README.splitlines()[:20])
    assert "pip install rust-just && just serve" in head
    assert "pip install rust-just && just test" in head


def test_the_example_of_an_env_file_holds_every_setting_and_its_default():
    values = dotenv_values(ROOT / ".env.example", interpolate=False)
    assert values == {}, "all lines are commented out"
    lines = {line.strip("# \n") for line in (ROOT / ".env.example").read_text().splitlines()}
    for row in settings_rows():
        assert f"{row.variable}={row.default}" in lines
    uncommented = {row.variable: row.default for row in settings_rows()}
    assert Settings.load(uncommented) == Settings()


def test_the_wheel_holds_core_and_plugins_under_clean_names(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"kickserve", *(path.name for path in (ROOT / "plugins").iterdir() if path.is_dir())}
    for name in [
        "kickserve/default.json",
        "kickserve/py.typed",
        "kickserve_storage/py.typed",
        "kickserve_metrics/py.typed",
        "kickserve_ui/static/pitch.js",
        "kickserve_ui/static/style.css",
    ]:
        assert name in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
