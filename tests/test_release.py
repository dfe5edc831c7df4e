"""A release: its tag, version and notes agree, and PyPI gets a README without the hub's front matter."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).parents[1] / "ops"))

import release

ROOT = release.ROOT
CHANGELOG = """# Changelog

## 1.1.0 (2026-03-01)

- It flies.

## 1.0.0 (2026-02-01)

- It runs.
- It walks.
"""


def test_the_notes_are_those_of_the_tag_alone():
    assert release.notes("v1.0.0", CHANGELOG, "1.0.0") == "- It runs.\n- It walks."
    assert release.notes("v1.1.0", CHANGELOG, "1.1.0") == "- It flies."


@pytest.mark.parametrize(
    ("tag", "version", "changelog", "words"),
    [
        ("v1.0.1", "1.0.0", CHANGELOG, "v1.0.1.*has version 1.0.0"),
        ("v1.0", "1.0", CHANGELOG, "no section '## 1.0 "),
        ("v2.0.0", "2.0.0", CHANGELOG, "no section '## 2.0.0 "),
        ("v1.1.0", "1.1.0", CHANGELOG.replace("2026-03-01", "unreleased"), "'unreleased' of 1.1.0"),
    ],
)
def test_a_tag_that_is_not_ready_is_refused(tag, version, changelog, words):
    with pytest.raises(SystemExit, match=words):
        release.notes(tag, changelog, version)


def test_the_version_is_the_one_that_is_installed():
    said = subprocess.check_output([sys.executable, ROOT / "ops" / "release.py", "version"], text=True)
    assert said.strip() == importlib.metadata.version("kickserve")


def test_the_archive_of_the_source_holds_what_its_own_build_needs_and_a_readme_for_pypi(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
        info = next(name for name in opened.getnames() if name.endswith("/PKG-INFO"))
        described = opened.extractfile(info).read().decode()
    assert {"ops/readme.py", "README.md", "pyproject.toml", "kickserve/default.json"} <= names
    description = described.partition("\n\n")[2]
    assert description.startswith("# kickserve")


WORKFLOWS = [*(ROOT / ".github" / "workflows").glob("*.yml")]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_asks_for_no_more_than_it_needs(file):
    text = file.read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}, "each job says what it needs"
    for name, job in workflow["jobs"].items():
        assert "permissions" in job, name
        assert "timeout-minutes" in job or "uses" in job, name
        for step in job.get("steps", ()):
            assert "${{" not in step.get("run", ""), "what stands there would be run: give it by env"
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used
    for action, version in used:
        assert action.startswith("./") or re.search(r"@[0-9a-f]{40}$", action), action
        assert action.startswith("./") or re.fullmatch(r" # v\d+\.\d+\.\d+", version), action


def test_an_action_has_one_commit_everywhere():
    pairs = {
        tuple(each.split("@"))
        for file in WORKFLOWS
        for each in re.findall(r"uses: (\S+@\S+)", file.read_text())
    }
    assert len(pairs) == len({name for name, _ in pairs})


def test_what_ci_runs_is_what_the_script_knows():
    script = (ROOT / ".ci" / "run").read_text()
    asked = {part for file in WORKFLOWS for part in re.findall(r"run: \.ci/run (\w+)", file.read_text())}
    assert asked == {"static", "tests", "wheel"}
    assert all(re.search(rf"^{part}\(\) {{", script, re.MULTILINE) for part in asked)


def test_one_job_stands_for_all_checks():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    required = jobs["required"]
    assert required["if"] == "always()", "or a failed check would skip it, which counts as passed"
    assert "checks" in required["needs"]
    for name in ("images", "space"):
        assert jobs[name]["needs"] == ["required"]
