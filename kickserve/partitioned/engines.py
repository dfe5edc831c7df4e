"""What does the work of many partitions: this process, or others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

from kickserve.models.origin import first_line
from kickserve.partitioned.plan import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kickserve.model import Model

T = TypeVar("T")

RETRIES: Final = 2
_PAUSE: Final = 0.5  # seconds before a partition is tried again


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


class Here:
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
