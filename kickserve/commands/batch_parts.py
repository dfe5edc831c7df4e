"""`kickserve batch` over many partitions: a folder, a pattern or a URL, here or on a Dask cluster."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from kickserve.batch import ROWS_REFUSED
from kickserve.commands.batch_words import facts_of
from kickserve.partitioned import running
from kickserve.partitioned.engines import RETRIES
from kickserve.settings import Settings
from kickserve.terminal import print_facts, print_json, progress, say, show_refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from kickserve.partitioned.running import PartsSummary

    Command = Callable[..., Any]

_SHOWN: Final = 10


def engine_options(command: Command) -> Command:
    """Add the options that say what does the work."""
    for option in reversed(
        (
            click.option(
                "--engine",
                type=click.Choice([running.HERE, running.DASK]),
                default=running.HERE,
                show_default=True,
                help="What does the work: this process, or a Dask cluster, a row group at a time.",
            ),
            click.option(
                "--workers",
                type=click.IntRange(1),
                help="Processes of a cluster on this machine. Without it: one a core.",
            ),
            click.option("--memory", help="With --engine dask: how much each of them may take, such as 2GB."),
            click.option("--scheduler", help="Address of a Dask cluster that runs already: tcp://HOST:8786."),
            click.option(
                "--retries",
                type=click.IntRange(0),
                default=RETRIES,
                show_default=True,
                help="How often a partition that fails is tried again.",
            ),
        )
    ):
        command = option(command)
    return command


def where_of(options: dict[str, Any]) -> running.Where:
    """Take what does the work out of the options of a command.

    Raises:
        UsageError: they contradict each other.
    """
    engine, workers, memory, scheduler, retries = (
        options.pop(name) for name in ("engine", "workers", "memory", "scheduler", "retries")
    )
    if engine != running.DASK and (workers, memory, scheduler) != (None, None, None):
        raise click.UsageError("--workers, --memory and --scheduler are for --engine dask")
    if scheduler is not None and (workers, memory) != (None, None):
        raise click.UsageError(
            "--workers and --memory are for a cluster on this machine: leave --scheduler out"
        )
    return running.Where(engine, workers or cores(), memory or "auto", scheduler, retries)


def cores() -> int:
    """Say how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(job: running.Job, where: running.Where, *, as_json: bool) -> int:
    """Run it, show how far it has come and what it came to, and return the exit code."""
    with progress() as bar:
        task = bar.add_task("predicting", total=None)

        def tell(done: int, rows: int) -> None:
            bar.update(task, completed=done, total=rows)

        summary = running.run(job, where, Settings.from_environment(), tell, say)
    if as_json:
        print_json(summary)
    else:
        _show(summary)
    if summary.failures:
        return running.FAILED
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
