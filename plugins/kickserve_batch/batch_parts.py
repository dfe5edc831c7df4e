"""`kickserve batch` over many partitions: a folder, a pattern or a URL, here or on a Dask cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kickserve.settings import Settings
from kickserve.terminal import print_facts, print_json, progress, say
from kickserve_batch.batch_words import facts_of
from kickserve_data import runs
from kickserve_data.kicks import show_refusals
from kickserve_data.scoring import ROWS_REFUSED

if TYPE_CHECKING:
    from kickserve_data.engines import EngineConfig
    from kickserve_data.runs import PartsSummary

_SHOWN: Final = 10


def run(job: runs.Job, where: EngineConfig, *, as_json: bool) -> int:
    """Run it, show how far it has come and what it came to, and return the exit code."""
    with progress() as bar:
        task = bar.add_task("predicting", total=None)

        def tell(done: int, rows: int) -> None:
            bar.update(task, completed=done, total=rows)

        summary = runs.run(job, where, Settings.load(), tell, say)
    if as_json:
        print_json(summary)
    else:
        _show(summary)
    if summary.failures:
        return runs.FAILED
    return ROWS_REFUSED if summary.refused else 0


def _show(summary: PartsSummary) -> None:
    show_refusals(summary.refusals, summary.refused)
    for failed in summary.failed[:_SHOWN]:
        say(f"partition {failed.partition} (row group {failed.row_group} of {failed.file}): {failed.reason}")
    if summary.failures > _SHOWN:
        say(f"... and {summary.failures - _SHOWN:,} more that failed (--json lists them)")
    parts = f"{summary.partitions:,}"
    if summary.taken_up:
        parts += f", {summary.taken_up:,} of them done by an earlier start"
    if summary.failures:
        parts += f"; {summary.failures:,} failed: the same command tries them again"
    print_facts([("partitions", parts), *facts_of(summary)])
