"""Measures `kickserve batch` from Parquet to Parquet: kicks a second, CPU time and peak memory.

Run it as  python -m ops.bench batch [--kicks N] [--runs R] [--folder PATH] [--json]. Each run is the whole
command in a process of its own, from its start to its end. The kicks are made once, with what came of them,
and the answers are compared with the model's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from kickserve.features import NAMES
from kickserve.linear import load_default
from ops.bench import commands

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check(source: Path, output: Path, kicks: int) -> None:
    """Make sure that every kick is there, and that the answers of some are those of the model."""
    before, after = pq.ParquetFile(source), pq.ParquetFile(output)
    assert after.metadata.num_rows == kicks, f"{after.metadata.num_rows} answers for {kicks} kicks"
    model, expected_line = load_default(), 1
    for batch in after.iter_batches(1 << 20, columns=["line"]):
        lines = batch.column(0).to_numpy()
        assert np.array_equal(lines, np.arange(expected_line, expected_line + len(lines))), (
            "lines are missing"
        )
        expected_line += len(lines)
    for first in (True, False):
        asked, answered = edge(before, [*NAMES], first=first), edge(after, [*NAMES], first=first)
        count = min(len(asked), len(answered))
        part = slice(count) if first else slice(-count, None)
        assert np.array_equal(asked[part], answered[part]), "the kicks are others"
        said = edge(after, ["prediction", "low", "high"], first=first)
        assert np.allclose(np.array(model.predict(answered)).T, said, rtol=1e-12), "the answers are others"


def edge(file: Any, names: list[str], *, first: bool) -> NDArray[np.float64]:
    """Return columns of the first or the last group of rows, shape (n, number of columns)."""
    table = file.read_row_group(0 if first else file.num_row_groups - 1, columns=names)
    return np.column_stack([table[name].to_numpy().astype(np.float64) for name in names])


def table(result: dict[str, Any]) -> Table:
    """Lay the results out for a person."""
    made = Table(title=f"kickserve batch, {result['kicks']:,} kicks from Parquet to Parquet")
    for name in ("run", "kicks/s", "seconds", "CPU seconds", "of them system", "peak memory"):
        made.add_column(name, justify="right")
    for number, run in enumerate(result["runs"], 1):
        made.add_row(
            str(number),
            f"{result['kicks'] / run['seconds']:,.0f}",
            f"{run['seconds']:.2f}",
            f"{run['user_seconds'] + run['system_seconds']:.2f}",
            f"{run['system_seconds']:.2f}",
            f"{run['peak_mb']:.0f} MB",
        )
    return made


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measures kickserve batch from Parquet to Parquet.")
    parser.add_argument("--kicks", type=int, default=10_000_000, help="kicks in the file")
    parser.add_argument("--runs", type=int, default=3, help="how often")
    parser.add_argument("--folder", type=Path, help="where files are made; 110 bytes a kick must fit")
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        source, output = Path(folder, "kicks.parquet"), Path(folder, "answers.parquet")
        commands.write_kicks(source, asked.kicks, 0)
        command = ("batch", str(source), "--output", str(output))
        runs = [commands.run(Path(folder), *command) for _ in range(asked.runs)]
        check(source, output, asked.kicks)
    rate = asked.kicks / median(run["seconds"] for run in runs)
    result = {"kicks": asked.kicks, "kicks_per_second": round(rate), "runs": runs, "cores": os.cpu_count()}
    if asked.json:
        json.dump(result, sys.stdout, indent=2)
    else:
        Console().print(table(result))
