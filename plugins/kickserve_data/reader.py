"""Reads files of kicks: CSV, NDJSON, Parquet, spreadsheets; from a disk, a pipe or standard input.

The content says what a file is. CSV goes through Python's own csv module: nothing need be installed, a row
keeps its line number, and a broken row spoils no other row. Kicks in Parquet are read column by column.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import difflib
import gzip
import io
import json
import lzma
import re
import sys
import weakref
import zlib
from collections import deque
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from itertools import chain, islice
from operator import itemgetter
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import numpy as np

from kickserve.errors import MissingExtra, need_extra
from kickserve.features import BY_NAME, COUNT, NAMES
from kickserve.schemas import UNDECODABLE
from kickserve.terminal import say
from kickserve_data import DataError
from kickserve_data.kicks import IS_FLAG, Block, CellReader, Cells, Row, without_accents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

T = TypeVar("T")

OUTCOMES: Final = (
    *("success", "outcome", "is_successful", "successful", "result", "made", "scored", "goal"),
    *("reussi", "resultat"),
)
"""What the column of the outcome may be called; the first that a file has is taken."""

KINDS: Final[Mapping[str, str]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}
"""Kinds of files that are written, by their ending."""

_STDIN: Final = "-"
_BUFFER: Final = 1 << 20  # bytes of a file that are read at a time
_COMPRESSED: Final[Mapping[bytes, Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_SPREADSHEETS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_BROKEN: Final = (OSError, EOFError, RecursionError, ValueError, zlib.error, lzma.LZMAError)  # by some reader
_DELIMITERS: Final = ",;\t| "  # spaces may be around the others
_FOOTER: Final = re.compile(r"\(\d+ rows?\)\s*")  # of psql
_TEXT_BLOCK: Final = 8_192
_COLUMNS_BLOCK: Final = 65_536
_ROWS: Final = 4096  # of Parquet that are Python objects at a time
_FEWEST: Final = 256
_BLOCK_BYTES: Final = 8_000_000  # of a block of Parquet, about; several blocks are under way at once
_LOOKED_AT: Final = 100  # lines among which the header is, and rows that show whether it lacks a name
_LAYOUTS: Final = 100  # of JSON objects that are remembered


def _cp1252(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("kickserve.cp1252", _cp1252)  # each byte that is no UTF-8 is of Windows


@dataclass(slots=True, eq=False, weakref_slot=True)
class KickFile:
    """An open file, which is read once.

    Attributes:
        path: of the file.
        rows: row by row; their cells are the columns asked for, then the outcome.
        cells: turns them into kicks.
        others: the `pyarrow.Schema` of other columns that can be carried along; None for all but Parquet.
    """

    path: Path
    rows: Iterator[Row]
    cells: CellReader
    others: Any = None
    _columns: Callable[[int, Sequence[str]], Iterator[Block]] | None = None

    @property
    def block_size(self) -> int:
        """Rows that go together best: more of Parquet, which never become objects of Python."""
        return _COLUMNS_BLOCK if self._columns else _TEXT_BLOCK

    def blocks(self, size: int, others: Sequence[str] = ()) -> Iterator[Block]:
        """Read blocks of `size` rows, of Parquet with long rows fewer, and carry other columns along."""
        if self._columns is not None:
            yield from _guarded(self.path, self._columns(size, others))
        else:
            while rows := list(islice(self.rows, size)):
                yield self.cells.block(rows)
        self.report()

    def report(self) -> None:
        """Say in the terminal, at the end, what was read as what."""
        for note in self.cells.notes():
            say(f"{self.path}: {note}")


def kind_of(path: Path) -> str:
    """Return `csv`, `ndjson` or `parquet`, by the ending of a name.

    Raises:
        DataError: the ending is unknown.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path} has an unknown ending: use {', '.join(KINDS)}")
    return kind


def read_blocks(path: Path, *, size: int | None = None) -> Iterator[Block]:
    """Read kicks in blocks of `size` rows, in memory that does not grow with the file.

    Columns may come in any order, and others beside them; `success` (or another of `OUTCOMES`) is the
    outcome of the kick, where the file has it.

    Raises:
        DataError: the file can't be read, or features are missing.
        MissingExtra: a package for this kind of file is not installed.
    """
    file = open_kicks(path)
    yield from file.blocks(size or file.block_size)


def open_kicks(path: Path, columns: Sequence[str] = NAMES, outcomes: Sequence[str] = OUTCOMES) -> KickFile:
    """Open a file.

    Args:
        path: of the file; `-` for standard input.
        columns: names of the wanted columns: the features, or others for `rows` alone.
        outcomes: names that the outcome's column may have; the first that the file has is taken.

    Raises:
        DataError: the file can't be read, or columns are missing.
        MissingExtra: a package for this kind of file is not installed.
    """
    wanted = _Wanted(path, columns, outcomes)
    with readable(path), ExitStack() as stack:
        raw = _open(path, stack)
        head = raw.peek()
        kind = _kind_of_content(path, head)
        if kind == "parquet":
            file = _read_parquet(wanted, raw)
        elif kind == "excel":
            file = _read_table(wanted, iter(_sheet(wanted, raw)), "")
        else:
            encoding, took = _encoding_of(head)
            text = stack.enter_context(io.TextIOWrapper(raw, encoding, "kickserve.cp1252", newline=""))
            file = _read_json(wanted, text) if kind == "ndjson" else _read_csv(wanted, text)
            file.cells.took[:0] = took
        file.rows = _guarded(path, file.rows)
        weakref.finalize(file, stack.pop_all().close)
    return file


def columns_of(
    place: object, header: Sequence[str], columns: Sequence[str] = NAMES, outcomes: Sequence[str] = OUTCOMES
) -> tuple[list[str | None], list[str]]:
    """Find the columns of a Parquet file.

    Args:
        place: where the file is, for messages.
        header: names of its columns.
        columns: as for `open_kicks`.
        outcomes: as for `open_kicks`.

    Returns:
        The names of the wanted columns and of the outcome, None without outcome; and the names of the other
        columns, without repeated ones.

    Raises:
        DataError: columns are missing, or repeated.
    """
    positions = _Wanted(place, columns, outcomes).positions(header)
    names = [None if at is None else header[at] for at in positions]
    return names, [name for name in header if name not in names and header.count(name) == 1]


def select_fields(schema: Any, names: Sequence[str]) -> Any:
    """Return the `pyarrow.Schema` of some columns."""
    import pyarrow as pa

    return pa.schema([schema.field(name) for name in names])


def count_rows(path: Path) -> int | None:
    """Count the rows of a file quickly and about, for a progress bar; None where that can't be."""
    try:
        if not path.is_file():
            return None  # a pipe can be read once
        with path.open("rb") as file:
            head = file.read(_BUFFER)
            kind = _kind_of_content(path, head)
            if kind == "parquet":
                return int(parquet().read_metadata(path).num_rows)
            if kind == "excel" or head.startswith((*_COMPRESSED,)):
                return None
            lines = sum(chunk.count(b"\n") for chunk in chain([head], iter(lambda: file.read(_BUFFER), b"")))
    except (OSError, ValueError, DataError):
        return None
    return max(lines - (kind == "csv"), 0)


@contextmanager
def readable(path: object) -> Iterator[None]:
    """Turn the errors of reading a file into a `DataError` that names it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder: name a file") from None
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} can't be read: {reason}. Check the file, or write it again") from error


def _guarded(path: Path, items: Iterator[T]) -> Iterator[T]:
    with readable(path):  # a file can be broken in its middle too
        yield from items


def _open(path: Path, stack: ExitStack) -> Any:
    """Open a file to look into its beginning, and then to read it: unpacked, where it is compressed."""
    raw: Any = sys.stdin.buffer if str(path) == _STDIN else path.open("rb", _BUFFER)
    stack.enter_context(raw)
    for magic, unpack in _COMPRESSED.items():
        if raw.peek(len(magic)).startswith(magic):
            raw = stack.enter_context(io.BufferedReader(unpack(raw), _BUFFER))
    if not raw.peek(1):
        raise DataError(f"{path} is empty")
    return raw


def _kind_of_content(path: Path, head: bytes) -> str:
    endings = {ending.lower() for ending in path.suffixes}
    if head.startswith(b"PAR1") or ".parquet" in endings:
        return "parquet"
    if head.startswith(_SPREADSHEETS):
        return "excel"
    begins = head.replace(b"\0", b"").lstrip(b"\xff\xfe\xef\xbb\xbf \t\r\n")[:1]
    return "ndjson" if begins in {b"{", b"["} or endings & {".ndjson", ".jsonl", ".json"} else "csv"


def _encoding_of(head: bytes) -> tuple[str, list[str]]:
    """Return the encoding of a text by its beginning, and its name where it is not UTF-8."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", ["UTF-16"]
    if head[:2].count(0) == 1:
        return "utf-16-be" if head[0] == 0 else "utf-16-le", ["UTF-16"]
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "utf-8-sig", ["cp1252"]  # bytes that are UTF-8 stay UTF-8
    return "utf-8-sig", []


# Columns.


@lru_cache(1_000)
def _plain(name: str) -> str:
    """Return a name without case, spaces and signs: `Time Norm` and `timeNorm` are `timenorm`."""
    return re.sub("[^a-z0-9]", "", without_accents(name).lower())


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The columns that are wanted of a file.

    Attributes:
        place: where the file is, for messages.
        columns: their names.
        outcomes: names that the outcome's column may have.
    """

    place: Any
    columns: Sequence[str]
    outcomes: Sequence[str]

    def find(self, header: Sequence[str]) -> list[list[int]]:
        """Return the places of each column in a header, and after them that of the outcome."""
        names = [name.strip() for name in header]
        spelt = [_plain(name) for name in names]

        def places(name: str) -> list[int]:
            unit = BY_NAME[name].unit if name in BY_NAME else ""
            also = {_plain(name), _plain(name + unit)}
            exact = [at for at, each in enumerate(names) if each == name]
            return exact or [at for at, each in enumerate(spelt) if each in also]

        outcome = next(filter(None, map(places, self.outcomes)), [])
        return [*map(places, self.columns), outcome]

    def positions(self, header: Sequence[str]) -> list[int | None]:
        """Return the place of each column in a header, and after them that of the outcome, or None.

        Raises:
            DataError: one is missing, or repeated.
        """
        found = self.find(header)
        missing = [name for name, places in zip(self.columns, found, strict=False) if not places]
        if missing:
            names = [name.strip() for name in header]
            near = [f"'{each}'" for name in missing for each in difflib.get_close_matches(name, names, 1)]
            hint = f"; is it {' or '.join(near)}?" if near else f" (it has: {', '.join(names)[:200]})"
            raise DataError(f"{self.place} has no column {', '.join(missing)}{hint}")
        repeated = [header[places[0]].strip() for places in found if len(places) > 1]
        if repeated:
            raise DataError(f"{self.place} has more than one column {', '.join(repeated)}")
        return [places[0] if places else None for places in found]

    def took(self, names: Sequence[str | None]) -> list[str]:
        """Say which names of a header were taken for others."""
        other = [
            f"{name.strip()} as {column}"
            for name, column in zip(names, (*self.columns, self.outcomes[0]), strict=True)
            if name is not None and name.strip() not in {column, *self.outcomes[:3]}
        ]
        return [other[0] + (f" (and {len(other) - 1} more)" if other[1:] else "")] if other else []


# CSV and spreadsheets.


def _read_csv(wanted: _Wanted, text: IO[str]) -> KickFile:
    known = {_plain(name) for name in (*wanted.columns, *wanted.outcomes)}

    def fit(line: str, delimiter: str) -> int:
        return sum(_plain(cell) in known for cell in line.split(delimiter))

    # Titles, comments and Excel's `sep=;` may stand before the header, which names the most columns.
    ahead = list(islice(text, _LOOKED_AT))
    fits = [
        (fit(line, delimiter), bool(line.strip()), -at, -order)
        for at, line in enumerate(ahead)
        for order, delimiter in enumerate(_DELIMITERS)
    ]
    *_, before, order = max(fits)
    delimiter, (header, *others) = _DELIMITERS[-order], ahead[-before:]
    header = header.lstrip("# ") if header.startswith("#") else header
    records = _records(chain([header], others, text), 1 - before, delimiter)
    return _read_table(wanted, records, delimiter)


def _read_table(wanted: _Wanted, records: Iterator[Any], delimiter: str) -> KickFile:
    """Read a table whose first record is its header; each record has its line, or row."""
    _, first = next(records, (1, ()))
    if isinstance(first, str):
        raise DataError(f"{wanted.place} can't be read: its header {first}")
    header = [str(name) for name in first]
    ahead = list(islice(records, _LOOKED_AT))
    if _lacks_name(header, ahead):
        header = ["", *header]
    positions = wanted.positions(header)
    names = [None if at is None else header[at] for at in positions]
    width, needed = len(header), 1 + max(at for at in positions[:-1] if at is not None)
    pick = itemgetter(*(width if at is None else at for at in positions))

    def rows() -> Iterator[Row]:
        for line, cells in chain(ahead, records):
            if isinstance(cells, str):
                yield line, cells
            elif len(cells) == width and names[-1] is not None:
                yield line, pick(cells)
            elif len(cells) >= needed and not any(map(_filled, cells[width:])):
                # Spreadsheets leave empty cells at the end out, or write one too many.
                yield line, pick([*cells, *[""] * (width + 1 - len(cells))])
            else:
                count = f"{len(cells)} cell{'s' * (len(cells) != 1)}"
                yield line, f"has {count} where the header has {width}"

    cells = CellReader(None if names[-1] is None else names[-1].strip())
    words = {"\t": "tabs", " ": "spaces"}
    cells.took = [] if delimiter in {"", ","} else [words.get(delimiter, f"`{delimiter}`")]
    cells.took += wanted.took(names)
    return KickFile(wanted.place, rows(), cells)


def _lacks_name(header: Sequence[str], ahead: Sequence[Row]) -> bool:
    """Say whether rows have one more cell than the header, as R's write.table names them."""
    rows = [cells for _, cells in ahead if not isinstance(cells, str)]
    longer = [cells for cells in rows if len(cells) == len(header) + 1]
    return bool(rows) and len(longer) == len(rows) and any(_filled(cells[-1]) for cells in longer)


def _filled(cell: Any) -> bool:
    return cell is not None and not (isinstance(cell, str) and not cell.strip())


def _records(text: Iterator[str], number: int, delimiter: str) -> Iterator[Row]:
    """Split CSV into rows; those without any content are left out.

    Args:
        text: line by line.
        number: of the first line.
        delimiter: between cells.

    Yields:
        Each row by the line on which it begins, with its cells as text, or the reason why it has none.
    """
    waiting: deque[str] = deque()  # lines to be read again
    nothing = delimiter + '"-+=:| \r\n'  # also of rules between the header and the rows

    def read_line() -> str:
        return waiting.popleft() if waiting else next(text, "")

    for line in iter(read_line, ""):
        cells: Sequence[str] | str
        lines = 1
        if '"' in line:
            cells, read = _quoted(line, read_line, delimiter)
            if isinstance(cells, str):  # an open quote spoils its own line, not all kicks after it
                waiting.extendleft(reversed(read[1:]))
            else:
                lines = len(read)
        else:
            # Much faster than csv.
            cells = line.split() if delimiter == " " else line.rstrip("\r\n").split(delimiter)
        if (line.strip(nothing) or lines > 1) and not (line[0] == "(" and _FOOTER.fullmatch(line)):
            yield number, cells
        number += lines


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
        return next(csv.reader(feed(), delimiter=delimiter, skipinitialspace=True, strict=True)), lines
    except csv.Error as error:
        return f"can't be read: {error}. Is a quote left open?", lines


def _sheet(wanted: _Wanted, raw: Any) -> list[tuple[int, list[Any]]]:
    """Return the rows of the first sheet that has the columns, from its header on."""
    need_extra("A spreadsheet", "excel", {"python_calamine": "python-calamine"})
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(raw.read()))
        sheets = [_filled_rows(book.get_sheet_by_name(name)) for name in book.sheet_names]
    except CalamineError as error:
        raise DataError(f"{wanted.place} is no spreadsheet that can be read: {error}") from error
    tables = [rows[at:] for rows in sheets for at in range(min(len(rows), _LOOKED_AT))]
    with_columns = (rows for rows in tables if all(wanted.find([*map(str, rows[0][1])])[:-1]))
    return next(with_columns, tables[0] if tables else [])


def _filled_rows(sheet: Any) -> list[tuple[int, list[Any]]]:
    rows = enumerate(sheet.to_python(skip_empty_area=False), 1)
    return [(number, cells) for number, cells in rows if any(map(_filled, cells))]


# JSON.


def _read_json(wanted: _Wanted, text: IO[str]) -> KickFile:
    """Read objects: one a line, or an array of them."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    columns = (*wanted.columns, wanted.outcomes[0])
    cells = CellReader(wanted.outcomes[0])

    @lru_cache(_LAYOUTS)
    def keys_of(header: tuple[str, ...]) -> list[str]:
        found = [header[places[0]] if places else None for places in wanted.find(header)]
        cells.took = cells.took or wanted.took(found)
        return [name or column for name, column in zip(found, columns, strict=True)]

    def pick(row: Any) -> Cells | str:
        return [*map(row.get, keys_of((*row,)))] if isinstance(row, dict) else "is no JSON object"

    def read(line: str) -> Cells | str:
        try:
            return pick(decode(line))
        except UNDECODABLE as error:
            try:
                return pick(json.loads(line))  # takes NaN, as pandas and Python write it
            except (ValueError, RecursionError):
                return f"is no JSON object: {error}"

    def rows() -> Iterator[Row]:
        for number, line in enumerate(text, 1):
            if number == 1 and (table := _json_table(line, text)) is not None:
                yield from enumerate(map(pick, table), 1)
            elif not line.isspace():
                yield number, read(line)

    return KickFile(wanted.place, rows(), cells)


def _json_table(line: str, text: IO[str]) -> list[Any] | None:
    """Return the rows of a table that is one document, as pandas writes it; None for another first line."""
    if line.startswith("["):
        return [*json.loads(line + text.read())]
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    columns = [*document.values()] if isinstance(document, dict) else []
    if columns and all(isinstance(column, dict) for column in columns):
        return [{name: document[name].get(key) for name in document} for key in columns[0]]
    if columns and {"columns", "data"} <= document.keys():
        return [dict(zip(document["columns"], row, strict=False)) for row in document["data"]]
    if columns and all(isinstance(column, list) and len(column) > 1 for column in columns):
        return [dict(zip(document, row, strict=False)) for row in zip(*columns, strict=False)]
    return None


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
    wanted = [*filter(None, names), *others]
    groups = range(file.num_row_groups) if group is None else [group]
    with file:
        for batch in file.iter_batches(min(size, _rows_that_fit(file)), groups, columns=wanted):
            lines = np.arange(first, first + len(batch))
            yield _parquet_block(batch, lines, names, others, cells)
            first += len(batch)


def _read_parquet(wanted: _Wanted, raw: Any) -> KickFile:
    path = wanted.place
    in_place = path.is_file() and isinstance(raw.raw, io.FileIO)
    file = open_parquet(path, None if in_place else io.BytesIO(raw.read()))
    schema = file.schema_arrow
    names, carried = columns_of(path, schema.names, wanted.columns, wanted.outcomes)
    cells = CellReader(names[-1])
    cells.took = wanted.took(names)

    def rows() -> Iterator[Row]:
        first = 1
        with file:
            for batch in file.iter_batches(_ROWS, columns=list(filter(None, names))):
                yield from _cell_by_cell(batch, names, np.arange(first, first + len(batch)))
                first += len(batch)

    def blocks(size: int, others: Sequence[str]) -> Iterator[Block]:
        return parquet_blocks(file, names, size, others, cells=cells)

    return KickFile(path, rows(), cells, select_fields(schema, carried), blocks)


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
    block, good = cells.checked(values, lines, lambda at: batch.column(names[-1])[at].as_py(), carried)
    if good.all():
        return block
    refused = np.flatnonzero(~good)
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
