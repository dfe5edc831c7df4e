"""Engines that work through many partitions: this process, or a Dask cluster; with their options."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import rich_click as click

from kickserve.errors import first_line, need_extra
from kickserve_data.partitions import LOCAL, RETRIES, EngineConfig, Partition, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kickserve.model import Model, ModelFile

    Command = Callable[..., Any]

T = TypeVar("T")

DASK: Final = "dask"
_PAUSE: Final = 0.5  # seconds before a partition is tried again


class Engine(Protocol):
    """Works through partitions."""

    def run(
        self, work: Callable[[Partition, Model], T], partitions: Iterable[Partition], retries: int
    ) -> Iterator[Result[T]]:
        """Do work on partitions; see `LocalEngine.run`."""
        ...


class LocalEngine:
    """Works in this process, one partition after another.

    Every engine holds only few partitions at a time, and yields results in the order in which they are ready.

    Args:
        model: passed to the work.
    """

    def __init__(self, model: Model) -> None:
        self._model = model

    def run(
        self, work: Callable[[Partition, Model], T], partitions: Iterable[Partition], retries: int
    ) -> Iterator[Result[T]]:
        """Do work on partitions.

        Args:
            work: can be pickled; it may be done twice, where a machine dies.
            partitions: are taken as they are needed.
            retries: how often one that failed is tried again.
        """
        for partition in partitions:
            yield self._try(work, partition, retries)

    def _try(self, work: Callable[[Partition, Model], T], partition: Partition, retries: int) -> Result[T]:
        for left in range(retries, -1, -1):
            try:
                return Result(partition, work(partition, self._model))
            except Exception as error:  # noqa: BLE001  whatever it is, the other partitions go on
                reason = first_line(error)
            if left:
                time.sleep(_PAUSE)
        return Result(partition, None, reason)


@contextmanager
def start_engine(
    config: EngineConfig, file: ModelFile, model: Model, say: Callable[[str], None]
) -> Iterator[Engine]:
    """Start an engine.

    Args:
        config: which one.
        file: the model as it was read, for a cluster.
        model: the same model loaded, for this process.
        say: gets the address of the cluster's dashboard.

    Raises:
        ServiceAway: the scheduler does not answer, or has no workers.
        ConfigurationError: a worker can't load the model.
    """
    if config.engine == LOCAL:
        yield LocalEngine(model)
        return
    from kickserve_data.dask_engine import start_dask

    with start_dask(config, file, say) as engine:
        yield engine


def engine_options(command: Command) -> Command:
    """Add the options of engines to a command."""
    for option in reversed(
        (
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
    ):
        command = option(command)
    return command


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
