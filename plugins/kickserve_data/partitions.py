"""What is to be done: the files of kicks, and the partitions that they make, one a row group."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Struct

from kickserve.errors import DataError
from kickserve_data.kicks import Block, RefusedRow
from kickserve_data.locations import files_of, open_parquet, place_of, reached
from kickserve_data.reader import columns_of
from kickserve_data.scoring import BLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kickserve_data.locations import Found

_READERS: Final = 16  # files whose ends are read at once; that is waiting, not work


class Partition(NamedTuple):
    """A row group of a file: what is done in one piece, and makes one file of the output.

    Attributes:
        number: from 0, in the order of the files and of the row groups in them.
        url: of the file.
        name: of the file, below the folder; None where no folder was asked for, but one file.
        group: the row group, from 0.
        before: how many rows all partitions before it have.
        rows: how many it has.
    """

    number: int
    url: str
    name: str | None
    group: int
    before: int
    rows: int


class File(Struct, frozen=True, array_like=True):
    """A file of kicks, as it was when the run began.

    Attributes:
        url: where it is.
        name: its path below the folder.
        size: bytes.
        stamp: what changes when it is written anew.
        groups: how many rows each row group has.
    """

    url: str
    name: str
    size: int
    stamp: str
    groups: list[int]


class Plan(Struct, frozen=True):
    """All that is to be read.

    Attributes:
        files: in order.
        single: whether one file was asked for, and no folder or pattern.
        others: columns beside the features and the outcome, which can be carried along.
    """

    files: list[File]
    single: bool
    others: list[str]

    @property
    def rows(self) -> int:
        """How many rows all files have."""
        return sum(sum(file.groups) for file in self.files)

    @property
    def count(self) -> int:
        """How many partitions there are."""
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
    found, single = files_of(place_of(source))
    with ThreadPoolExecutor(_READERS) as readers:
        ends = [*readers.map(_end_of, found)]
    url, others = found[0].url, ends[0].others
    for file, end in zip(found, ends, strict=True):
        if end.others != others:
            odd = _difference(end.others, others)
            raise DataError(
                f"{file.url} has other columns beside the features than {url}: {odd}."
                " Columns are carried along only if all files have them alike"
            )
    files = [File(*file, end.groups) for file, end in zip(found, ends, strict=True)]
    return Plan(files, single, [name for name, _ in others])


class _End(NamedTuple):
    groups: list[int]
    others: list[tuple[str, str]]  # names and types


def _end_of(found: Found) -> _End:
    file: Any = open_parquet(found.url)
    with file:
        schema, metadata = file.schema_arrow, file.metadata
        _, others = columns_of(found.url, schema.names)
        groups = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
    return _End(groups, [(name, str(schema.field(name).type)) for name in others])


def _difference(these: Sequence[tuple[str, str]], those: Sequence[tuple[str, str]]) -> str:
    odd = [
        f"{name} ({kind})"
        for name, kind in [*these, *those]
        if ((name, kind) in these) != ((name, kind) in those)
    ]
    return ", ".join(odd) or "their order"


class Reading(NamedTuple):
    """A partition that is open.

    Attributes:
        schema: the `pyarrow.Schema` of the columns to carry along.
        blocks: of its kicks; a refusal says which file it is of, where there are several.
    """

    schema: Any
    blocks: Iterator[Block]


def read(partition: Partition, others: Sequence[str] = ()) -> Reading:
    """Open a partition.

    Args:
        partition: to read.
        others: columns to carry along.

    Raises:
        DataError: it can't be read.
    """
    import pyarrow as pa

    file = open_parquet(partition.url)
    schema = pa.schema([file.schema_arrow.field(name) for name in others])
    return Reading(schema, _blocks(file, partition, others))


def _blocks(file: Any, partition: Partition, others: Sequence[str]) -> Iterator[Block]:
    from kickserve_data.parquet_kicks import blocks

    names, _ = columns_of(partition.url, file.schema_arrow.names)
    with reached(partition.url):
        for block in blocks(file, names, BLOCK, others, partition.group):
            yield _named(block, partition.name)


def _named(block: Block, name: str | None) -> Block:
    if name is None or not block.refusals:
        return block
    return replace(
        block, refusals=[replace(each, reason=f"{name}: {each.reason}") for each in block.refusals]
    )


def in_order(refusals: Sequence[RefusedRow], *, single: bool) -> list[RefusedRow]:
    """Put refusals in the order of the files and lines, whichever partition was done first.

    Args:
        refusals: of blocks that `read` gave.
        single: whether all are of one file.
    """
    return sorted(refusals, key=lambda each: ("" if single else each.reason.partition(": ")[0], each.line))
