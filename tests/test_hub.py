"""Models from the hub, out of a cache that the test lays out by hand: no network is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files

REVISION = "0123456789abcdef0123456789abcdef01234567"


def show(tmp_path, repository):
    """Run `kickserve model show` offline, with the cache in tmp_path."""
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_REPO_ID": repository}
    return subprocess.run(
        [sys.executable, "-m", "kickserve", "model", "show", "--json"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_model_in_the_cache_is_loaded_offline_with_its_exact_revision(tmp_path):
    repository = tmp_path / "hub" / "models--someone--kicks"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    (snapshot / "kickserve.json").write_bytes((files("kickserve") / "models" / "default.json").read_bytes())
    finished = show(tmp_path, "someone/kicks")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["source"] == f"hf:someone/kicks@{REVISION}"


def test_a_model_that_is_not_in_the_cache_says_what_to_do(tmp_path):
    finished = show(tmp_path, "someone/else")
    assert finished.returncode == 2
    assert "HF_HUB_OFFLINE" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_a_name_that_is_none_says_how_it_must_read(tmp_path):
    finished = show(tmp_path, "a/b/c")
    assert finished.returncode == 2
    assert "owner/name" in finished.stderr
