"""Reads the kicks of one partition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from kickserve_data.batch import BLOCK
from kickserve_data.kick_rows import Block, Refusal
from kickserve_data.places import open_parquet, reached
from kickserve_data.tables import columns_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kickserve_data.plan import Partition


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


def in_order(refusals: Sequence[Refusal], *, single: bool) -> list[Refusal]:
    """Put refusals in the order of the files and lines, whichever partition was done first.

    Args:
        refusals: of blocks that `read` gave.
        single: whether all are of one file.
    """
    return sorted(refusals, key=lambda each: ("" if single else each.reason.partition(": ")[0], each.line))
