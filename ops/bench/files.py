"""Measures commands on many kicks: each run is the whole command in a process of its own.

`just bench batch` answers a file from Parquet to Parquet, `just bench drift` reports on the drift of kept
predictions. Kicks are made once; answers are compared with kicks line by line.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from ops.bench import common

if TYPE_CHECKING:
    import argparse

GROUP = 1 << 20


def read_options(**numbers: tuple[Any, str]) -> argparse.Namespace:
    """Read numbers, and a folder for the files."""
    parser = common.options(__doc__, runs=(3, "how often"), **numbers)
    parser.add_argument("--folder", type=Path, help="where files are made; 500 bytes a kick must fit")
    return parser.parse_args()


def batch() -> None:
    """Measure `kickserve batch` from Parquet to Parquet: kicks a second, CPU time and peak memory."""
    asked = read_options(kicks=(10_000_000, "kicks in the file"))
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        source, output = folder / "kicks.parquet", folder / "answers.parquet"
        common.command(folder, "simulate", "--size", str(asked.kicks), "--output", str(source))
        runs = []
        for _ in range(asked.runs):
            output.unlink(missing_ok=True)
            runs.append(common.command(folder, "batch", str(source), "--output", str(output)))
        check(source, output)
    rows = [{"kicks_per_second": asked.kicks / each["seconds"], **each} for each in runs]
    title = f"kickserve batch, {asked.kicks:,} kicks from Parquet to Parquet, {os.cpu_count()} cores"
    common.show(title, rows, as_json=asked.json)
    middle = median(each["kicks_per_second"] for each in rows)
    common.progress.print(f"median: {middle:,.0f} kicks a second")


def check(source: Path, output: Path) -> None:
    """Look that each kick has an answer, in order."""
    first, names = 1, ["distance", "angle"]
    kicks, answers = (
        pq.ParquetFile(source).iter_batches(GROUP, columns=names),
        pq.ParquetFile(output).iter_batches(GROUP, columns=["line", *names, "prediction"]),
    )
    for before, after in zip(kicks, answers, strict=True):
        lines = after["line"].to_numpy()
        assert np.array_equal(lines, np.arange(first, first + len(before))), "lines are missing"
        assert all(after[name].equals(before[name]) for name in names), "the kicks are others"
        chances = after["prediction"].to_numpy()
        assert 0 <= chances.min() <= chances.max() <= 1
        first += len(before)


def drift() -> None:
    """Measure a report of drift of kept predictions: seconds, peak memory, size of the page."""
    asked = read_options(kicks=(1_000_000, "kept predictions"))
    goals = {"seconds": 30, "peak_mb": 600, "page_mb": 6}
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        common.command(folder, "batch", "--size", str(asked.kicks))
        rows = []
        for _ in range(asked.runs):
            run = common.command(folder, "evaluate", "--last", str(asked.kicks))
            newest = max((folder / "data/drift_reports").glob("*.json"))
            assert json.loads(newest.read_bytes())["kicks"] == asked.kicks, "the report is of other kicks"
            rows.append({**run, "page_mb": newest.with_suffix(".html").stat().st_size / 1e6})
    common.show(
        f"kickserve evaluate, {asked.kicks:,} kept predictions; goals: {goals}", rows, as_json=asked.json
    )
