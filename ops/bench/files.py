"""Measures commands on many kicks: each run is the whole command in a process of its own."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from ops.bench import common
from ops.commands import progress

if TYPE_CHECKING:
    from ops.commands import Row

GROUP = 1 << 20


def batch(kicks: int = 10_000_000, runs: int = 3, folder: str = "") -> dict[str, list[Row]]:
    """Measure `kickserve batch` from Parquet to Parquet: kicks a second, CPU time and peak memory.

    Args:
        kicks: in the file.
        runs: how often.
        folder: where files are made; 500 bytes a kick must fit.
    """
    with tempfile.TemporaryDirectory(dir=folder or None) as name:
        source, output = Path(name, "kicks.parquet"), Path(name, "answers.parquet")
        common.command(Path(name), "simulate", "--size", str(kicks), "--output", str(source))
        rows = []
        for _ in range(runs):
            output.unlink(missing_ok=True)
            run = common.command(Path(name), "batch", str(source), "--output", str(output))
            rows.append({"kicks_per_second": kicks / run["seconds"], **run})
        check(source, output)
    progress.print(f"median: {median(each['kicks_per_second'] for each in rows):,.0f} kicks a second")
    return {f"kickserve batch, {kicks:,} kicks from Parquet to Parquet, {os.cpu_count()} cores": rows}


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


def drift(kicks: int = 1_000_000, runs: int = 3, folder: str = "") -> dict[str, list[Row]]:
    """Measure a report of drift of kept predictions: seconds, peak memory, size of the page.

    Args:
        kicks: kept predictions.
        runs: how often.
        folder: where files are made; 500 bytes a kick must fit.
    """
    goals = {"seconds": 30, "peak_mb": 600, "page_mb": 6}
    with tempfile.TemporaryDirectory(dir=folder or None) as name:
        common.command(Path(name), "batch", "--size", str(kicks))
        rows = []
        for _ in range(runs):
            run = common.command(Path(name), "evaluate", "--last", str(kicks))
            newest = max(Path(name, "data/drift_reports").glob("*.json"))
            assert json.loads(newest.read_bytes())["kicks"] == kicks, "the report is of other kicks"
            rows.append({**run, "page_mb": newest.with_suffix(".html").stat().st_size / 1e6})
    return {f"kickserve evaluate, {kicks:,} kept predictions; goals: {goals}": rows}
