"""Reads files of kicks: CSV, NDJSON, Parquet.

Each kind of file has one function that opens it and yields its rows; kicks in Parquet are read column by
column. CSV goes through Python's own csv module: nothing need be installed, a row keeps its line number,
and a broken row spoils no other row.
"""

from __future__ import annotations

import csv
import difflib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from operator import itemgetter
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec
import numpy as np

from kickserve.errors import MissingExtra
from kickserve.features import COUNT, NAMES
from kickserve.schemas import UNDECODABLE
from kickserve_data import DataError
from kickserve_data.kicks import IS_FLAG, Block, Row, block_of, block_of_columns

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

T = TypeVar("T")

OUTCOMES: Final = ("success", "outcome", "is_successful")
"""What the column of the outcome may be called."""

KINDS: Final[Mapping[str, str]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}
_BUFFER: Final = 1 << 20  # bytes of a file that are read at a time
_DELIMITERS: Final = ",;\t"
_NO_UTF8: Final = "\ufffd"  # Python decodes bytes that are no UTF-8 as this character
_MARK: Final = b"\xef\xbb\xbf"  # the byte order mark that some editors write
_ROWS: Final = 4096  # of Parquet that are Python objects at a time
_FEWEST: Final = 256
_BLOCK_BYTES: Final = 8_000_000  # of a block of Parquet, about; several blocks are under way at once


class Source(NamedTuple):
    """The rows of a file. The cells of a row are the columns asked for, then the outcome.

    Attributes:
        rows: line by line.
        outcome: name of the outcome's column; None where the file has none.
        text: whether all cells are text, as in CSV; elsewhere `"1"` is no number.
    """

    rows: Iterator[Row]
    outcome: str | None
    text: bool = False


def kind_of(path: Path) -> str:
    """Return `csv`, `ndjson` or `parquet`, by the ending of a name.

    Raises:
        DataError: the ending is unknown.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path} has an unknown ending: use {', '.join(KINDS)}")
    return kind


def read_blocks(path: Path, *, size: int = 4096, others: Sequence[str] = ()) -> Iterator[Block]:
    """Read kicks in blocks of `size`, in memory that does not grow with the file.

    Columns may come in any order, and others beside them; `success` (or `outcome`, `is_successful`) is the
    outcome of the kick, where the file has it.

    Args:
        path: of the file.
        size: rows a block; of Parquet with long rows fewer.
        others: columns to carry along, out of `other_columns`.

    Raises:
        DataError: the file can't be read, or features are missing.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    if _kind_of_existing(path) == "parquet":
        file = open_parquet(path)
        names, _ = columns_of(path, file.schema_arrow.names)
        yield from _guarded(path, parquet_blocks(file, names, size, others))
        return
    source = open_rows(path, NAMES)
    while rows := list(islice(source.rows, size)):
        yield block_of(rows, source.outcome, text=source.text)


def open_rows(path: Path, columns: Sequence[str], outcomes: Sequence[str] = OUTCOMES) -> Source:
    """Open a file to read it row by row.

    Args:
        path: of the file.
        columns: names of the wanted columns.
        outcomes: names that the outcome's column may have; the first that the file has is taken.

    Raises:
        DataError: the file can't be read, or columns are missing.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    kind = _kind_of_existing(path)
    with readable(path):
        source = _READERS[kind](path, columns, outcomes)
    return source._replace(rows=_guarded(path, source.rows))


def other_columns(path: Path) -> Any:
    """Return the `pyarrow.Schema` of the columns of a Parquet file beside features and outcome; else None.

    Columns that share a name can't be carried along, and are left out.

    Raises:
        DataError: the file can't be read, or features are missing.
        MissingExtra: pyarrow is not installed.
    """
    if _kind_of_existing(path) != "parquet":
        return None
    with open_parquet(path) as file:
        return select_fields(file.schema_arrow, columns_of(path, file.schema_arrow.names)[1])


def columns_of(place: object, header: Sequence[str]) -> tuple[list[str | None], list[str]]:
    """Find the columns of a Parquet file.

    Args:
        place: where the file is, for messages.
        header: names of its columns.

    Returns:
        The names of the eleven features and of the outcome, None without outcome; and the names of the other
        columns, without repeated ones.

    Raises:
        DataError: features are missing, or repeated.
    """
    names = _names(header, _positions(place, header, NAMES))
    return names, [name for name in header if name not in names and header.count(name) == 1]


def select_fields(schema: Any, names: Sequence[str]) -> Any:
    """Return the `pyarrow.Schema` of some columns."""
    import pyarrow as pa

    return pa.schema([schema.field(name) for name in names])


def count_rows(path: Path) -> int | None:
    """Count the rows of a file quickly and about, for a progress bar; None for a file that can't be read."""
    try:
        if kind_of(path) == "parquet":
            return int(parquet().read_metadata(path).num_rows)
        with path.open("rb") as file:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_BUFFER), b""))
    except (OSError, ValueError, DataError):
        return None
    return max(lines - (kind_of(path) == "csv"), 0)


@contextmanager
def readable(path: object) -> Iterator[None]:
    """Turn the errors of reading a file into a `DataError` that names it."""
    try:
        yield
    except (OSError, ValueError) as error:  # pyarrow raises ValueError for bytes that are no Parquet
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} can't be read: {reason}. Check the file, or write it again") from error


def _kind_of_existing(path: Path) -> str:
    kind = kind_of(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file")
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    if size == 0:
        raise DataError(f"{path} is empty")
    return kind


def _guarded(path: Path, items: Iterator[T]) -> Iterator[T]:
    with readable(path):  # a file can be broken in its middle too
        yield from items


def _positions(
    path: object, header: Sequence[str], columns: Sequence[str], outcomes: Sequence[str] = OUTCOMES
) -> list[int | None]:
    """Find the columns, and after them that of the outcome, in a header.

    Raises:
        DataError: one is missing, or repeated.
    """
    names = [name.strip() for name in header]
    missing = [name for name in columns if name not in names]
    if missing:
        near = [f"'{each}'" for name in missing for each in difflib.get_close_matches(name, names, 1)]
        hint = f"; is it {' or '.join(near)}?" if near else f" (it has: {', '.join(names)[:200]})"
        raise DataError(f"{path} has no column {', '.join(missing)}{hint}")
    outcome = next((name for name in outcomes if name in names), None)
    repeated = [name for name in (*columns, outcome) if name is not None and names.count(name) > 1]
    if repeated:
        raise DataError(f"{path} has more than one column {', '.join(repeated)}")
    return [names.index(name) for name in columns] + [None if outcome is None else names.index(outcome)]


def _names(header: Sequence[str], positions: Sequence[int | None]) -> list[str | None]:
    return [None if at is None else header[at] for at in positions]


# CSV.


def _read_csv(path: Path, columns: Sequence[str], outcomes: Sequence[str]) -> Source:
    delimiter, header = _csv_header(path, columns)
    positions = _positions(path, header, columns, outcomes)
    pick = itemgetter(*(-1 if at is None else at for at in positions))

    def rows() -> Iterator[Row]:
        with _open_text(path) as file:
            for line, cells in islice(_records(file, delimiter), 1, None):
                if isinstance(cells, str):
                    yield line, cells
                elif len(cells) != len(header):
                    yield line, f"has {len(cells)} cells where the header has {len(header)}"
                else:
                    yield line, pick((*cells, ""))  # the last is the outcome of a file without one

    outcome = positions[-1]
    return Source(rows(), None if outcome is None else header[outcome].strip(), text=True)


def _csv_header(path: Path, columns: Sequence[str]) -> tuple[str, list[str]]:
    """Return the delimiter, the one that makes most of the wanted columns, and the names in the header."""

    def fit(delimiter: str) -> tuple[int, int]:
        names = [name.strip(' "\r\n') for name in first.split(delimiter)]
        return sum(name in columns for name in names), len(names)

    with _open_text(path) as file:
        first = next((line for line in file if line.strip()), "")
        delimiter = max(_DELIMITERS, key=fit)
        file.seek(0)
        _, header = next(_records(file, delimiter), (1, ()))
    if isinstance(header, str):
        raise DataError(f"{path} can't be read: its header {header}")
    return delimiter, list(header)


def _open_text(path: Path) -> IO[str]:
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _records(file: IO[str], delimiter: str) -> Iterator[tuple[int, Sequence[str]]]:
    """Split CSV into rows, the header included; blank lines are left out.

    Yields:
        Each row by the line on which it begins, with its cells as text, or the reason why it has none.
    """
    waiting: deque[str] = deque()  # lines to be read again

    def read_line() -> str:
        return waiting.popleft() if waiting else file.readline()

    number = 1
    for line in iter(read_line, ""):
        cells: Sequence[str]
        lines = [line]
        if '"' in line:
            cells, lines = _quoted(line, read_line, delimiter)
            if isinstance(cells, str):  # an open quote spoils its own line, not all kicks after it
                waiting.extendleft(reversed(lines[1:]))
                lines = lines[:1]
        else:
            cells = line.rstrip("\r\n").split(delimiter)  # much faster than csv
        text = "".join(lines)
        if "\0" in text or _NO_UTF8 in text:
            yield number, "is not UTF-8: save the file as UTF-8"
        elif len(cells) > 1 or line.strip():
            yield number, cells
        number += len(lines)


def _quoted(line: str, read_line: Callable[[], str], delimiter: str) -> tuple[list[str] | str, list[str]]:
    """Split a row with quotes, which may go on over lines.

    Returns:
        The cells, or the reason why there are none; and the lines that were read.
    """
    lines: list[str] = []

    def feed() -> Iterator[str]:
        more = line
        while more:
            lines.append(more)
            yield more
            more = read_line()

    try:
        return next(csv.reader(feed(), delimiter=delimiter, strict=True)), lines
    except csv.Error as error:
        return f"can't be read: {error}. Is a quote left open?", lines


# NDJSON.


def _read_ndjson(path: Path, columns: Sequence[str], outcomes: Sequence[str]) -> Source:
    decode = msgspec.json.Decoder(dict[str, Any]).decode

    def rows() -> Iterator[Row]:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = decode(line.removeprefix(_MARK) if number == 1 else line)
                except UNDECODABLE as error:
                    yield number, f"is no JSON object: {error}"
                else:
                    outcome = next((row[name] for name in outcomes if name in row), None)
                    yield number, (*map(row.get, columns), outcome)

    return Source(rows(), outcomes[0])


# Parquet.


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


def open_parquet(path: Path) -> Any:
    """Open a Parquet file as a `pyarrow.parquet.ParquetFile`.

    Raises:
        DataError: the file can't be read, or is no Parquet.
        MissingExtra: pyarrow is not installed.
    """
    module = parquet()
    with readable(path):
        try:
            # Read piece by piece: by default a whole row group is read, and some files are one row group.
            return module.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER)
        except ValueError as error:
            raise DataError(f"{path} is no Parquet file: {error}") from error


def parquet_blocks(
    file: Any, names: Sequence[str | None], size: int, others: Sequence[str] = (), group: int | None = None
) -> Iterator[Block]:
    """Read kicks out of Parquet column by column, without a Python object for each cell.

    Args:
        file: a `pyarrow.parquet.ParquetFile`; closed at the end.
        names: its columns with the eleven features and the outcome, as `columns_of` returns them.
        size: rows a block; fewer where rows are so long that a block would be large.
        others: columns to carry along as they are.
        group: the row group to read, from 0; None for all.
    """
    first = 1 + sum(file.metadata.row_group(at).num_rows for at in range(group or 0))
    wanted = [*filter(None, names), *others]
    groups = range(file.num_row_groups) if group is None else [group]
    with file:
        for batch in file.iter_batches(min(size, _rows_that_fit(file)), groups, columns=wanted):
            yield _parquet_block(batch, first, names, others)
            first += len(batch)


def _read_parquet(path: Path, columns: Sequence[str], outcomes: Sequence[str]) -> Source:
    file = open_parquet(path)
    header = file.schema_arrow.names
    names = _names(header, _positions(path, header, columns, outcomes))

    def rows() -> Iterator[Row]:
        first = 1
        with file:
            for batch in file.iter_batches(_ROWS, columns=list(filter(None, names))):
                yield from _cell_by_cell(batch, names, np.arange(first, first + len(batch)))
                first += len(batch)

    return Source(rows(), names[-1])


def _rows_that_fit(file: Any) -> int:
    groups = map(file.metadata.row_group, range(file.num_row_groups))
    longest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0)
    return max(int(_BLOCK_BYTES / max(longest, 1)), _FEWEST)


def _parquet_block(batch: Any, first: int, names: Sequence[str | None], others: Sequence[str]) -> Block:
    lines = np.arange(first, first + len(batch))
    values = np.full((COUNT + 1, len(batch)), np.nan).T  # a column in one piece of memory
    for at, name in enumerate(names):
        if name is not None:
            values[:, at] = _arrow_numbers(batch.column(name), flag=IS_FLAG[at])

    def rows_at(odd: NDArray[np.intp]) -> Iterator[Row]:
        return _cell_by_cell(batch.take(odd), names, lines[odd])

    return block_of_columns(values, lines, names[-1], rows_at, batch.select(list(others)) if others else None)


def _arrow_numbers(column: Any, *, flag: bool) -> NDArray[np.float64]:
    """Return a column as numbers: nulls as NaN, and cells of a type that holds no numbers as infinity."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind, types = column.type, pa.types
    result: NDArray[np.float64]
    if types.is_floating(kind) or types.is_integer(kind) or types.is_decimal(kind) or types.is_null(kind):
        result = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    elif flag and types.is_boolean(kind):
        result = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    else:
        result = np.where(column.is_valid().to_numpy(zero_copy_only=False), np.inf, np.nan)
    return result


def _cell_by_cell(batch: Any, names: Sequence[str | None], lines: NDArray[np.int64]) -> Iterator[Row]:
    nothing = [None] * len(batch)
    parts = [nothing if name is None else batch.column(name).to_pylist() for name in names]
    return zip(lines.tolist(), zip(*parts, strict=True), strict=True)


_READERS: Final[Mapping[str, Callable[[Path, Sequence[str], Sequence[str]], Source]]] = {
    "csv": _read_csv,
    "ndjson": _read_ndjson,
    "parquet": _read_parquet,
}
