"""Measures a report of drift of many kept predictions: seconds, peak memory, size of the page.

Run it as  python -m ops.bench drift [--kicks N] [--runs R] [--folder PATH] [--json]. The kicks are put
into a SQLite store once; each run is the whole command in a process of its own, from its start to its end.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ops.bench import commands

GOALS = {"seconds": 30.0, "peak_mb": 600.0, "page_mb": 6.0}


def measure(folder: Path, kicks: int) -> dict[str, float]:
    """Make a report of all kicks, and make sure that it is one."""
    run = commands.run(folder, "evaluate", "--last", str(kicks))
    newest = max((folder / "data/drift_reports").glob("*.json"))
    report = json.loads(newest.read_bytes())
    assert report["kicks"] == kicks, f"the report is of {report['kicks']} kicks, not {kicks}"
    return {**run, "page_mb": newest.with_suffix(".html").stat().st_size / 1e6}


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measures kickserve evaluate.")
    parser.add_argument("--kicks", type=int, default=1_000_000, help="kept predictions")
    parser.add_argument("--runs", type=int, default=3, help="how often")
    parser.add_argument("--folder", type=Path, help="where files are made; 500 bytes a kick must fit")
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        commands.run(folder, "batch", "--size", str(asked.kicks))
        runs = [measure(folder, asked.kicks) for _ in range(asked.runs)]
    if asked.json:
        json.dump({"kicks": asked.kicks, "runs": runs}, sys.stdout, indent=2)
        return
    table = Table(title=f"kickserve evaluate, {asked.kicks:,} kept predictions")
    for head in ("run", *(f"{name}, at most {goal:g}" for name, goal in GOALS.items())):
        table.add_column(head, justify="right")
    for number, run in enumerate(runs, 1):
        table.add_row(str(number), *(f"{run[name]:.1f}" for name in GOALS))
    Console().print(table)
