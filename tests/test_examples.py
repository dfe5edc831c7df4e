"""The examples of ops/examples run as their first lines tell, and do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from serving import serving

EXAMPLES = Path(__file__).parent.parent / "ops/examples"
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

pytestmark = pytest.mark.slow


def run(*command, **environment):
    """Run a program, and return exit code and output."""
    command = [str(each) for each in command]
    ended = subprocess.run(
        command, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_the_season_is_analysed_by_a_notebook(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PATH", ENVIRONMENT["PATH"])
    notebook = nbformat.read(EXAMPLES / "season.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    league, _chart, by_distance = [cell for cell in notebook.cells if cell.cell_type == "code"][-3:]
    assert "kicker 12" in league.outputs[-1]["data"]["text/plain"]
    assert "(40, 100]" in by_distance.outputs[-1]["data"]["text/plain"]


def test_a_model_of_ones_own_is_fitted_checked_and_served_to_the_page(tmp_path, kick):
    assert run("kickserve", "simulate", "--size", "3000", "--output", "kicks.csv")[0] == 0
    code, output = run(sys.executable, EXAMPLES / "own_model.py", "kicks.csv")
    assert code == 0, output
    assert "on the newest 600 kicks" in output
    code, output = run("kickserve", "model", "check", "own.skops", "--data", "kicks.csv")
    assert code == 0, output
    with serving(tmp_path, KICKSERVE_MODEL="own.skops", KICKSERVE_PLUGINS="storage,models,ui") as server:
        assert httpx.post(f"{server.url}/predict", json=kick).json()["model"] == "own"
        page = httpx.get(server.url.removesuffix("/api/v1") + "/ui/", timeout=30)
        assert page.status_code == 200


def test_the_nightly_job_speaks_only_of_drift_and_of_what_failed(tmp_path):
    job = EXAMPLES / "drift_job.sh"
    with serving(tmp_path, KICKSERVE_PLUGINS="storage") as server:
        url = server.url.removesuffix("/api/v1")
        assert run(job, SERVICE=url) == (0, "")
        assert run("kickserve", "batch", "--size", "1000", "--min-distance", "40", "--url", url)[0] == 0
        code, output = run(job, SERVICE=url)
        assert code == 4
        assert output.startswith("Drift: the predictions have changed")
    code, output = run(job, SERVICE=url)
    assert code == 6
    assert "kickserve evaluate ended with 6" in output
