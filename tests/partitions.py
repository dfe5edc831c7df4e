"""What tests of batches over many partitions share: files of kicks, and the command."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from kickserve.cli import run
from kickserve.features import NAMES
from kickserve_data.simulate import simulate

if TYPE_CHECKING:
    from pathlib import Path


def table_of(size: int, seed: int = 0, **others: Any) -> pa.Table:
    """Return simulated kicks, what came of them, and other columns."""
    kicks = simulate(size, seed)
    columns = dict(zip(NAMES, kicks.matrix.T.copy(), strict=True))
    return pa.table({**columns, "success": kicks.success, **others})


def folder_of(path: Path, sizes: list[int], rows: int = 1_000) -> Path:
    """Write files of so many kicks each, in row groups of so many."""
    path.mkdir(parents=True)
    for at, size in enumerate(sizes):
        pq.write_table(table_of(size, at), path / f"kicks-{at}.parquet", row_group_size=rows)
    return path


def answers(path: Any, by: str = "line", filesystem: Any = None) -> pa.Table:
    """Return all answers of a folder or a file, sorted."""
    table = ds.dataset(path, format="parquet", filesystem=filesystem).to_table()
    order = [(name, "ascending") for name in ("file", by) if name in table.schema.names]
    return table.sort_by(order).combine_chunks()


def batch(capsys: Any, *arguments: object) -> tuple[int, Any, str]:
    """Run `kickserve batch --json`; return exit code, summary and standard error in one line."""
    capsys.readouterr()
    code = run(["batch", "--json", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, " ".join(err.split())


def lasting(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a summary that depend neither on time nor on a stop, rounded."""
    kept: dict[str, Any] = rounded(summary)
    return {name: kept[name] for name in kept if name not in {"seconds", "rate", "taken_up"}}


def rounded(value: Any) -> Any:
    """Return a JSON value with floats cut to ten digits: sums depend on the order of their parts."""
    return json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.10g}"))


def evaluate(capsys: Any, *arguments: object) -> tuple[int, Any, str]:
    """Run `kickserve evaluate --json`; return exit code, the figures and standard error in one line."""
    capsys.readouterr()
    code = run(["evaluate", "--json", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, figures(json.loads(out)) if out else None, " ".join(err.split())


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """Return what of a report does not depend on when it was made, and from which sample it was drawn."""
    details = {
        k: v for k, v in report["details"].items() if k not in {"evidently", "shown", "current", "notes"}
    }
    kept = {k: v for k, v in report.items() if k not in {"at", "since", "report", "details"}}
    return {**kept, **details, "models": report["details"]["current"]["models"]}


def without_pages(monkeypatch: Any) -> None:
    """Leave out Evidently and its page: the import takes seconds, and `test_evaluate` has the real page."""
    blank = ModuleType("kickserve_drift.page")
    vars(blank).update(
        draw=lambda *_: None, html_of=lambda *_: "<html></html>", values_of=lambda _: {}, upload=None
    )
    monkeypatch.setitem(sys.modules, blank.__name__, blank)
