"""The options that say what does the work of a command: this process, or a Dask cluster."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import rich_click as click

from kickserve_data.engines import DASK, HERE, RETRIES, EngineConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., Any]


def engine_options(command: Command) -> Command:
    """Add the options that say what does the work."""
    for option in reversed(
        (
            click.option(
                "--engine",
                type=click.Choice([HERE, DASK]),
                default=HERE,
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


def engine_config_of(options: dict[str, Any]) -> EngineConfig:
    """Take what does the work out of the options of a command.

    Raises:
        UsageError: they contradict each other.
    """
    engine, workers, memory, scheduler, retries = (
        options.pop(name) for name in ("engine", "workers", "memory", "scheduler", "retries")
    )
    if engine != DASK and (workers, memory, scheduler) != (None, None, None):
        raise click.UsageError("--workers, --memory and --scheduler are for --engine dask")
    if scheduler is not None and (workers, memory) != (None, None):
        raise click.UsageError(
            "--workers and --memory are for a cluster on this machine: leave --scheduler out"
        )
    return EngineConfig(engine, workers or _cores(), memory or "auto", scheduler, retries)


def _cores() -> int:
    """Say how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
