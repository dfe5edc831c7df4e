"""Kicks in Parquet: read column by column."""

from __future__ import annotations

import io
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.errors import MissingExtra
from kickserve.features import COUNT
from kickserve_data import DataError
from kickserve_data.kicks import IS_FLAG, Block, CellReader, Row
from kickserve_data.source import KickFile, readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kickserve_data.columns import Wanted

_BUFFER: Final = 1 << 20  # bytes of a file that are read at a time
_ROWS: Final = 4096  # that are Python objects at a time
_FEWEST: Final = 256
_BLOCK_BYTES: Final = 8_000_000  # of a block, about; several blocks are under way at once


def parquet() -> Any:
    """Return the module that reads and writes Parquet.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    # Looked up by name, not by trying: an error inside pyarrow must not look like a missing pyarrow.
    if find_spec("pyarrow") is None:
        raise MissingExtra("Parquet", "parquet", ["pyarrow"])
    import pyarrow.parquet

    return pyarrow.parquet


def open_parquet(path: Path, content: Any = None) -> Any:
    """Open a Parquet file as a `pyarrow.parquet.ParquetFile`.

    Args:
        path: of the file.
        content: an open file, where that is not the file of this path itself.

    Raises:
        DataError: the file can't be read, or is no Parquet.
        MissingExtra: pyarrow is not installed.
    """
    module = parquet()
    with readable(path):
        try:
            # Read piece by piece: by default a whole row group is read, and some files are one row group.
            return module.ParquetFile(content or path, pre_buffer=False, buffer_size=_BUFFER)
        except ValueError as error:
            raise DataError(f"{path} is no Parquet file: {error}") from error


def parquet_blocks(
    file: Any,
    names: Sequence[str | None],
    size: int,
    others: Sequence[str] = (),
    *,
    group: int | None = None,
    cells: CellReader | None = None,
) -> Iterator[Block]:
    """Read kicks out of Parquet column by column, without a Python object for each number.

    Args:
        file: a `pyarrow.parquet.ParquetFile`; closed at the end.
        names: its columns with the eleven features and the outcome, as `columns_of` returns them.
        size: rows a block; fewer where rows are so long that a block would be large.
        others: columns to carry along as they are.
        group: the row group to read, from 0; None for all.
        cells: reads what is spelt otherwise; None for one of its own.
    """
    cells = cells or CellReader(names[-1])
    first = 1 + sum(file.metadata.row_group(at).num_rows for at in range(group or 0))
    wanted = [*dict.fromkeys([*filter(None, (*names, cells.kicker)), *others])]
    groups = range(file.num_row_groups) if group is None else [group]
    with file:
        for batch in file.iter_batches(min(size, _rows_that_fit(file)), groups, columns=wanted):
            lines = np.arange(first, first + len(batch))
            yield _parquet_block(batch, lines, names, others, cells)
            first += len(batch)


def read_parquet(wanted: Wanted, raw: Any) -> KickFile:
    """Read an open file: in its own place, or in memory where it comes from a pipe or was compressed."""
    path = wanted.place
    in_place = path.is_file() and isinstance(raw.raw, io.FileIO)
    file = open_parquet(path, None if in_place else io.BytesIO(raw.read()))
    schema = file.schema_arrow
    wanted = wanted if wanted.columns else replace(wanted, columns=schema.names)
    names, carried = columns_of(wanted, schema.names)
    at = wanted.find_kicker(schema.names)
    kicker = None if at is None else schema.names[at]
    cells = CellReader(names[-1], kicker, wanted.usual_at)
    cells.took = wanted.took(names, kicker)
    all_names = names if kicker is None else [*names, kicker]

    def rows() -> Iterator[Row]:
        first = 1
        with file:
            for batch in file.iter_batches(_ROWS, columns=list(filter(None, all_names))):
                yield from _cell_by_cell(batch, all_names, np.arange(first, first + len(batch)))
                first += len(batch)

    def blocks(size: int, others: Sequence[str]) -> Iterator[Block]:
        return parquet_blocks(file, names, size, others, cells=cells)

    return KickFile(path, rows(), cells, select_fields(schema, carried), blocks, schema.names)


def _rows_that_fit(file: Any) -> int:
    groups = map(file.metadata.row_group, range(file.num_row_groups))
    longest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0)
    return max(int(_BLOCK_BYTES / max(longest, 1)), _FEWEST)


def _parquet_block(
    batch: Any,
    lines: NDArray[np.int64],
    names: Sequence[str | None],
    others: Sequence[str],
    cells: CellReader,
) -> Block:
    values = np.full((COUNT + 1, len(batch)), np.nan).T  # a column in one piece of memory
    for at, name in enumerate(names):
        if name is not None:
            values[:, at] = _arrow_numbers(batch.column(name), at, cells)
    carried = batch.select(list(others)) if others else None
    labels = cells.labels(batch.column(cells.kicker).to_pylist()) if cells.kicker else None
    block, good = cells.checked(
        values, lines, lambda at: batch.column(names[-1])[at].as_py(), carried, labels
    )
    if good.all():
        return block
    refused = np.flatnonzero(~good)
    names = [*names, cells.kicker] if cells.kicker else names
    reasons = cells.block(list(_cell_by_cell(batch.take(refused), names, lines[refused])))
    return replace(block, refusals=reasons.refusals)


def _arrow_numbers(column: Any, at: int, cells: CellReader) -> Sequence[float]:
    """Return a column as `CellReader.column` does: numbers as they are, anything else cell by cell."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind, types = column.type, pa.types
    numeric = types.is_floating(kind) or types.is_integer(kind) or types.is_decimal(kind)
    if not numeric and not (types.is_boolean(kind) and IS_FLAG[at]):
        return cells.column(at, column.to_pylist())
    result: Sequence[float] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return result


def _cell_by_cell(batch: Any, names: Sequence[str | None], lines: NDArray[np.int64]) -> Iterator[Row]:
    nothing = [None] * len(batch)
    parts = [nothing if name is None else batch.column(name).to_pylist() for name in names]
    return zip(lines.tolist(), zip(*parts, strict=True), strict=True)


def columns_of(wanted: Wanted, header: Sequence[str]) -> tuple[list[str | None], list[str]]:
    """Find the columns of a Parquet file among the names of its columns.

    Returns:
        The names of the wanted columns and of the outcome, None for one that the file lacks; and the names of
        the other columns, without repeated ones.

    Raises:
        DataError: columns are missing, or repeated.
    """
    positions = wanted.positions(header)
    names = [None if at is None else header[at] for at in positions]
    return names, [name for name in header if name not in names and header.count(name) == 1]


def select_fields(schema: Any, names: Sequence[str]) -> Any:
    """Return the `pyarrow.Schema` of some columns."""
    import pyarrow as pa

    return pa.schema([schema.field(name) for name in names])
