"""Three replicas behind nginx, shortened: one is killed, another restarted, and no client notices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nginx
import pytest

DRILL = Path(__file__).parents[1] / "ops" / "chaos" / "replicas.py"


@pytest.mark.usefixtures("postgres_server")  # skipped, with the reason, where no Postgres can be had
def test_behind_nginx_no_client_notices_that_one_is_killed_and_another_restarted(tmp_path):
    try:
        nginx.program()
    except nginx.NoNginx as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [sys.executable, str(DRILL), "--seconds", "0.7", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout or "{}")
    assert told, done.stderr
    assert told["answered"] > 0
    assert (told["errors"], told["lost"], told["twice"]) == (0, 0, 0), told
    assert told["passed"], told


def test_the_file_for_nginx_is_placed_with_other_ports_and_nothing_else_changes():
    text = nginx.FILE.read_text()
    placed = nginx.placed(text, 1000, [1001, 1002, 1003])
    assert placed.count("127.0.0.1:1001 ") == placed.count("127.0.0.1:1003 ") == 2
    assert "7861" not in placed
    assert "listen 127.0.0.1:1000;" in placed
    assert len(placed.splitlines()) == len(text.splitlines())
