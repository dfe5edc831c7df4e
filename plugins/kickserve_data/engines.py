"""What does the work of many partitions: this process, or others."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

from kickserve.errors import first_line, need_extra
from kickserve_data.partitions import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kickserve.loading import ModelFile
    from kickserve.model import Model

T = TypeVar("T")

HERE: Final = "here"
DASK: Final = "dask"
RETRIES: Final = 2
_PAUSE: Final = 0.5  # seconds before a partition is tried again


class EngineConfig(NamedTuple):
    """What does the work.

    Attributes:
        engine: `here` or `dask`.
        workers: processes of a cluster on this machine.
        memory: how much each may take.
        scheduler: address of a cluster that runs already.
        retries: how often a partition that failed is tried again.
    """

    engine: str = HERE
    workers: int = 1
    memory: str = "auto"
    scheduler: str | None = None
    retries: int = RETRIES

    def check(self) -> None:
        """Make sure that what the engine needs is installed.

        Raises:
            MissingExtra: it is not.
        """
        if self.engine == DASK:
            need_extra("--engine dask", "dask", {"distributed": "distributed", "pyarrow": "pyarrow"})


class Result(NamedTuple, Generic[T]):
    """What came of a partition.

    Attributes:
        partition: which one.
        value: what the work returned; None where it failed.
        reason: why it failed; empty where it did not.
    """

    partition: Partition
    value: T | None
    reason: str = ""


class Engine(Protocol):
    """Does work on partitions, as many at once as it can, and holds only few of them at a time."""

    def run(
        self, work: Callable[[Partition, Model], T], partitions: Iterable[Partition], retries: int
    ) -> Iterator[Result[T]]:
        """Do it, and yield what came of each, in whatever order they get done.

        Args:
            work: can be pickled; it may be done twice, where a machine dies.
            partitions: are taken as they are needed.
            retries: how often one that failed is tried again.
        """
        ...


class LocalEngine:
    """Works in this process, one partition after another.

    Args:
        model: is asked.
    """

    def __init__(self, model: Model) -> None:
        self._model = model

    def run(
        self, work: Callable[[Partition, Model], T], partitions: Iterable[Partition], retries: int
    ) -> Iterator[Result[T]]:
        """Do it; see `Engine`."""
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
def engine_of(
    where: EngineConfig, file: ModelFile, model: Model, say: Callable[[str], None]
) -> Iterator[Engine]:
    """Give what does the work, with the model in place: read for others, loaded for this process."""
    if where.engine == HERE:
        yield LocalEngine(model)
        return
    from kickserve_data.dask_engine import on_cluster

    with on_cluster(file, where.scheduler, where.workers, where.memory) as (engine, dashboard):
        if dashboard:
            say(f"dashboard: {dashboard}")
        yield engine
