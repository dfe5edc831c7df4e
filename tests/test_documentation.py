"""What is written for people names everything that there is, and the wheel holds it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from dotenv import dotenv_values

from kickserve.cli import COMMANDS
from kickserve.settings import Settings, table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("row", table(), ids=lambda row: row.variable)
def test_the_readme_names_every_setting_with_its_default(row):
    [line] = [line for line in README.splitlines() if line.startswith(f"| `{row.variable}` |")]
    assert (f"| `{row.default}` |" if row.default else "|  |") in line
    assert row.description in line


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_names_every_command(command):
    assert f"`kickserve {command}" in README or f"kickserve {command} " in README


def test_the_readme_names_every_plugin():
    for point in entry_points(group="kickserve.plugins"):
        if point.dist.name == "kickserve":
            assert f"`{point.name}`" in README


def test_the_readme_begins_with_the_two_commands():
    text = README.partition("\n---\n")[2]  # after the front matter, which is for the hub
    head = "\n".join(text.splitlines()[:20])
    assert "pip install rust-just && just serve" in head
    assert "pip install rust-just && just test" in head


def test_the_example_of_an_env_file_holds_every_setting_and_its_default():
    values = dotenv_values(ROOT / ".env.example", interpolate=False)
    assert values == {}, "all lines are commented out"
    lines = {line.strip("# \n") for line in (ROOT / ".env.example").read_text().splitlines()}
    for row in table():
        assert f"{row.variable}={row.default}" in lines
    uncommented = {row.variable: row.default for row in table()}
    assert Settings.from_environment(uncommented) == Settings()


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
        "kickserve/models/default.json",
        "kickserve/py.typed",
        "kickserve_storage/py.typed",
        "kickserve_metrics/py.typed",
        "kickserve_ui/static/pitch.js",
        "kickserve_ui/static/style.css",
    ]:
        assert name in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
