"""Reads kicks out of Parquet column by column, without an object a cell; the unusual alone goes row by row.

The module needs pyarrow, so it is imported where a Parquet file is open.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from kickserve.features import COUNT
from kickserve_data.csv_rows import Row
from kickserve_data.kicks import IS_FLAG, Block, block_of, block_of_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_ROWS: Final = 4096  # that are Python objects at a time
_FEWEST: Final = 256
_BYTES: Final = 8_000_000  # that a block may take, about; several are under way at once


def blocks(
    file: Any, names: Sequence[str | None], size: int, others: Sequence[str] = (), group: int | None = None
) -> Iterator[Block]:
    """Read kicks in blocks.

    Args:
        file: a `pyarrow.parquet.ParquetFile`; closed at the end.
        names: its columns with the eleven features, and with what came of the kicks or None.
        size: rows a block; fewer where rows are so long that a block would be large.
        others: columns to carry along as they are.
        group: the row group to read, from 0; None for all.
    """
    first = 1 + sum(file.metadata.row_group(at).num_rows for at in range(group or 0))
    wanted = [*filter(None, names), *others]
    groups = range(file.num_row_groups) if group is None else [group]
    with file:
        for batch in file.iter_batches(min(size, _rows_that_fit(file)), groups, columns=wanted):
            yield _block(batch, first, names, others)
            first += len(batch)


def rows(file: Any, names: Sequence[str | None]) -> Iterator[Row]:
    """Read rows of cells; None for a name makes a column of nothing; the file is closed at the end."""
    first = 1
    with file:
        for batch in file.iter_batches(_ROWS, columns=list(filter(None, names))):
            yield from _rows(batch, names, np.arange(first, first + len(batch)))
            first += len(batch)


def _rows_that_fit(file: Any) -> int:
    groups = map(file.metadata.row_group, range(file.num_row_groups))
    longest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0)
    return max(int(_BYTES / max(longest, 1)), _FEWEST)


def _block(batch: Any, first: int, names: Sequence[str | None], others: Sequence[str]) -> Block:
    lines = np.arange(first, first + len(batch))
    beside = batch.select(list(others)) if others else None
    values = _values(batch, names)
    if values is None:
        read = block_of(list(_rows(batch, names, lines)), names[-1])
        good = np.isin(lines, read.lines, assume_unique=True)
        return replace(read, others=None if beside is None else beside.filter(good))

    def rows_at(odd: NDArray[np.intp]) -> Iterator[Row]:
        return _rows(batch.take(odd), names, lines[odd])

    return block_of_numbers(values, lines, names[-1], rows_at, others=beside)


def _values(batch: Any, names: Sequence[str | None]) -> NDArray[np.float64] | None:
    """Return features and outcome as numbers, shape (n, 12); None where a column must go cell by cell."""
    values = np.empty((COUNT + 1, len(batch))).T  # a column in one piece of memory
    for at, name in enumerate(names):
        column = None if name is None else _numbers(batch.column(name), boolean=IS_FLAG[at])
        if name is not None and column is None:
            return None
        values[:, at] = np.nan if column is None else column
    return values


def _numbers(column: Any, *, boolean: bool) -> NDArray[np.float64] | None:
    """Return a column as numbers, nulls as NaN; None where it may hold something else."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    usual = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)
    if not usual and not (boolean and pa.types.is_boolean(kind)):
        return None
    result: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return result


def _rows(batch: Any, names: Sequence[str | None], lines: NDArray[np.int64]) -> Iterator[Row]:
    nothing = [None] * len(batch)
    parts = [nothing if name is None else batch.column(name).to_pylist() for name in names]
    return map(Row, lines.tolist(), zip(*parts, strict=True))
