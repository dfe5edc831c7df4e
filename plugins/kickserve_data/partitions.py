"""Finds and reads the partitions of many kicks, one for each row group of their Parquet files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from msgspec import structs

from kickserve_data import DataError
from kickserve_data.columns import Wanted
from kickserve_data.locations import File, find_files, locate, reached
from kickserve_data.parquet import columns_of, parquet_blocks, select_fields
from kickserve_data.scoring import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kickserve_data.kicks import Block, RefusedRow

LOCAL: Final = "here"
"""Name of the engine that works in this process."""
RETRIES: Final = 2
T = TypeVar("T")

_READERS: Final = 16  # files whose ends are read at once; that is waiting, not work


class Partition(NamedTuple):
    """A row group of a file: done in one piece, it makes one file of the output.

    Attributes:
        number: from 0, in the order of the files and of the row groups in them.
        url: of the file.
        name: of the file, below the folder; None where one single file was asked for.
        group: the row group, from 0.
        before: rows in all partitions before it.
        rows: rows in it.
    """

    number: int
    url: str
    name: str | None
    group: int
    before: int
    rows: int


class EngineConfig(NamedTuple):
    """An engine and its size.

    Attributes:
        engine: `here` or `dask`.
        workers: processes of a cluster on this machine.
        memory: limit of each of them, such as `2GB`.
        scheduler: address of a cluster that runs already.
        retries: how often a partition that failed is tried again.
    """

    engine: str = LOCAL
    workers: int = 1
    memory: str = "auto"
    scheduler: str | None = None
    retries: int = RETRIES


class Result(NamedTuple, Generic[T]):
    """The result of a partition.

    Attributes:
        partition: which one.
        value: returned by the work; None for a failure.
        reason: of the failure; empty for a success.
    """

    partition: Partition
    value: T | None
    reason: str = ""


class Plan(NamedTuple):
    """The files of kicks.

    Attributes:
        files: in the order of their names.
        single: whether one single file was asked for.
    """

    files: list[File]
    single: bool

    @property
    def others(self) -> list[str]:
        """The columns beside the features and the outcome, the same in all files."""
        return [name for name, _ in self.files[0].others]

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(sum(file.groups) for file in self.files)

    @property
    def size(self) -> int:
        """The number of partitions."""
        return sum(len(file.groups) for file in self.files)

    def partitions(self) -> Iterator[Partition]:
        """Yield the partitions, in order."""
        number = before = 0
        for file in self.files:
            name = None if self.single else file.name
            for group, rows in enumerate(file.groups):
                yield Partition(number, file.url, name, group, before, rows)
                number, before = number + 1, before + rows


def plan_of(source: str) -> Plan:
    """Look at the files of kicks: only their ends are read.

    Args:
        source: a file, a folder, a pattern or a URL.

    Raises:
        DataError: there are none, one can't be read or lacks features, or they differ in other columns.
        MissingExtra: a package is not installed.
    """
    found, single = find_files(locate(source))
    with ThreadPoolExecutor(_READERS) as readers:
        files = [*readers.map(_with_groups, found)]
    first = files[0]
    for file in files:
        if file.others != first.others:
            odd = ", ".join(f"{name} ({kind})" for name, kind in sorted({*file.others} ^ {*first.others}))
            raise DataError(
                f"{file.url} and {first.url} differ in columns beside the features:"
                f" {odd or 'their order'}. Give all files the same columns"
            )
    return Plan(files, single)


def read_partition(partition: Partition, others: Sequence[str] = ()) -> tuple[Any, Iterator[Block]]:
    """Open a partition.

    Args:
        partition: to read.
        others: columns to carry along.

    Returns:
        The `pyarrow.Schema` of those columns; and the blocks of its kicks, whose refusals name the file where
        there are several.

    Raises:
        DataError: it can't be read.
    """
    file = locate(partition.url).open_parquet()
    return select_fields(file.schema_arrow, others), _blocks(file, partition, others)


def sort_refusals(refusals: Sequence[RefusedRow], *, single: bool) -> list[RefusedRow]:
    """Sort refusals by file and line, whichever partition was done first.

    Args:
        refusals: of blocks from `read_partition`.
        single: whether all are of one file.
    """
    return sorted(refusals, key=lambda each: ("" if single else each.reason.partition(": ")[0], each.line))


def _with_groups(found: File) -> File:
    with locate(found.url).open_parquet() as file:
        schema, metadata = file.schema_arrow, file.metadata
        _, others = columns_of(Wanted(found.url), schema.names)
        groups = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
    return structs.replace(
        found, groups=groups, others=[(name, str(schema.field(name).type)) for name in others]
    )


def _blocks(file: Any, partition: Partition, others: Sequence[str]) -> Iterator[Block]:
    names, _ = columns_of(Wanted(partition.url), file.schema_arrow.names)
    with reached(partition.url):
        for block in parquet_blocks(file, names, BLOCK, others, group=partition.group):
            yield block if partition.name is None else replace(block, refusals=_named(block, partition.name))


def _named(block: Block, name: str) -> list[RefusedRow]:
    return [replace(each, reason=f"{name}: {each.reason}") for each in block.refusals]
