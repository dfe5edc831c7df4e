"""Work on many partitions, by this process or a Dask cluster; and the options of commands for it."""

from __future__ import annotations

import os
import time
from functools import reduce
from typing import TYPE_CHECKING, Any, Final, TypeVar

import rich_click as click

from kickserve.errors import first_line, need_extra
from kickserve_data.partitions import LOCAL, RETRIES, EngineConfig, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from kickserve.model import Model, ModelFile
    from kickserve_data.partitions import Partition

T = TypeVar("T")

DASK: Final = "dask"
_PAUSE: Final = 0.5  # seconds before a partition is tried again


def work_through(
    work: Callable[[Partition, Model], T],
    partitions: Iterable[Partition],
    config: EngineConfig,
    model: tuple[ModelFile, Model],
    say: Callable[[str], None],
) -> Generator[Result[T]]:
    """Do work on partitions with an engine, and end the engine with the generator.

    Only few partitions are taken at a time; results come in the order in which they are ready.

    Args:
        work: can be pickled; it may be done twice, where a machine dies.
        partitions: are taken as they are needed.
        config: of the engine.
        model: as it was read, for a cluster; and loaded, for this process.
        say: gets the address of the cluster's dashboard.

    Raises:
        ServiceAway: the scheduler does not answer, has no workers, or went away.
        ConfigurationError: a worker can't load the model.
    """
    if config.engine == DASK:
        from kickserve_data.dask_engine import work_on_cluster

        yield from work_on_cluster(work, partitions, config, model[0], say)
    else:
        for partition in partitions:
            yield _try(work, partition, model[1], config.retries)


def _try(
    work: Callable[[Partition, Model], T], partition: Partition, model: Model, retries: int
) -> Result[T]:
    for left in range(retries, -1, -1):
        try:
            return Result(partition, work(partition, model))
        except Exception as error:  # noqa: BLE001  whatever it is, the other partitions go on
            reason = first_line(error)
        if left:
            time.sleep(_PAUSE)
    return Result(partition, None, reason)


_OPTIONS: Final = (
    click.option(
        "--engine",
        type=click.Choice([LOCAL, DASK]),
        default=LOCAL,
        show_default=True,
        help="`here`: this process does the work; `dask`: a Dask cluster, one row group at a time.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1),
        help="Number of worker processes on this machine. Default: one per core.",
    ),
    click.option("--memory", help="With --engine dask: memory limit of each worker, such as 2GB."),
    click.option("--scheduler", help="Address of a running Dask cluster: tcp://HOST:8786."),
    click.option(
        "--retries",
        type=click.IntRange(0),
        default=RETRIES,
        show_default=True,
        help="Number of retries for a failed partition.",
    ),
)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of engines to a command."""
    return reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)


def engine_config_of(options: dict[str, Any]) -> EngineConfig:
    """Take the options of engines out of the options of a command.

    Raises:
        UsageError: they contradict each other.
        MissingExtra: the engine's packages are not installed.
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
    if engine == DASK:
        need_extra("--engine dask", "dask", {"distributed": "distributed", "pyarrow": "pyarrow"})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return EngineConfig(engine, workers or cores, memory or "auto", scheduler, retries)
