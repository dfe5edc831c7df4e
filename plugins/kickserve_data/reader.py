"""Reads files of kicks: CSV, Parquet, NDJSON. What can't be read is refused line by line."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec

from kickserve.errors import DataError, MissingExtra
from kickserve.features import NAMES
from kickserve.schemas import UNDECODABLE
from kickserve_data.csv_rows import Layout, Row, picked, records, spoilt
from kickserve_data.kicks import Block, RefusedRow, block_of, must_be, number

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

OUTCOMES: Final = ("success", "outcome", "is_successful")
KINDS: Final[Mapping[str, str]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}
_DELIMITERS: Final = ",;\t"
_BUFFER: Final = 1 << 20
_MARK: Final = b"\xef\xbb\xbf"  # the byte order mark that some editors write


class Source(NamedTuple):
    """The rows of a file. Each row's cells are the columns asked for, then the outcome.

    Attributes:
        rows: line by line.
        outcome: the column that tells what came of the kick; None where there is none.
        text: whether all cells are text, as in CSV; elsewhere `"1"` is no number.
    """

    rows: Iterator[Row]
    outcome: str | None
    text: bool = False


def read_blocks(path: Path, *, size: int = 4096, others: Sequence[str] = ()) -> Iterator[Block]:
    """Read kicks in blocks of `size`, in memory that does not grow with the file.

    Columns may come in any order, and others beside them; `success` (or `outcome`, `is_successful`), where
    there is one, tells what came of the kick.

    Args:
        path: of the file.
        size: rows a block; of Parquet with long rows fewer.
        others: columns to carry along, out of what `other_columns` names.

    Raises:
        DataError: the file can't be read, or features are missing.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    kind = _kind_of_existing(path)
    if kind == "parquet":
        yield from _parquet_blocks(path, size, others)
    elif kind == "csv":
        yield from _csv_blocks(path, size)
    else:
        yield from _blocks(open_rows(path, NAMES), size)


def other_columns(path: Path) -> list[str]:
    """Name the columns of a file beside the features and the outcome, as far as they can be carried along.

    That is those of Parquet, but for names that stand there twice.

    Raises:
        DataError: the file can't be read, or features are missing.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    if _kind_of_existing(path) != "parquet":
        return []
    with _open_parquet(path) as file:
        return columns_of(path, file.schema_arrow.names)[1]


def columns_of(place: object, header: Sequence[str]) -> tuple[list[str | None], list[str]]:
    """Find the columns of a Parquet file.

    Args:
        place: where the file is, for messages.
        header: names of its columns.

    Returns:
        The names of the eleven features and of the outcome, None where none tells; and those beside them, but
        for names that stand there twice.

    Raises:
        DataError: features are missing, or stand there twice.
    """
    taken = _positions(place, header, NAMES)
    others = [name for at, name in enumerate(header) if at not in taken and header.count(name) == 1]
    return _names(header, taken), others


def schema_of(path: Path, columns: Sequence[str]) -> Any:
    """Return the `pyarrow.Schema` of some columns of a Parquet file; raises as `other_columns` does."""
    with _open_parquet(path) as file:
        whole = file.schema_arrow
    import pyarrow as pa

    return pa.schema([whole.field(name) for name in columns])


def read_outcomes(
    path: Path, *, size: int = 1000
) -> Iterator[tuple[list[tuple[int, str, bool]], list[RefusedRow]]]:
    """Read what came of kicks: blocks of line, id and success, and the lines that were refused.

    Raises:
        DataError: the file can't be read, or has no columns `id` and `success`.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    source = open_rows(path, ("id",))
    if source.outcome is None:
        raise DataError(f"{path} has no column {OUTCOMES[0]}: it must say 1 or 0 for each id")
    while rows := list(islice(source.rows, size)):
        told: list[tuple[int, str, bool]] = []
        refusals: list[RefusedRow] = []
        for line, cells in rows:
            success = math.nan if isinstance(cells, str) else number(cells[1], flag=True, text=source.text)
            if isinstance(cells, str):
                refusals.append(RefusedRow(line, cells))
            elif not isinstance(cells[0], str) or not cells[0].strip():
                refusals.append(RefusedRow(line, "id is missing"))
            elif success not in {0.0, 1.0}:
                refusals.append(RefusedRow(line, must_be(source.outcome, cells[1], "1 or 0")))
            else:
                told.append((line, cells[0].strip(), success == 1))
        yield told, refusals


def count_rows(path: Path) -> int | None:
    """Say how many rows a file has, quickly and about; None where that can't be said."""
    try:
        if kind_of(path) == "parquet":
            return int(parquet().read_metadata(path).num_rows)
        with path.open("rb") as file:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_BUFFER), b""))
    except (OSError, ValueError, DataError):
        return None
    return max(lines - (kind_of(path) == "csv"), 0)


# Files.


def kind_of(path: Path) -> str:
    """Return `csv`, `ndjson` or `parquet`, by the ending of a name.

    Raises:
        DataError: the ending is unknown.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path} has an unknown ending: use {', '.join(KINDS)}")
    return kind


def open_rows(path: Path, columns: Sequence[str], outcomes: Sequence[str] = OUTCOMES) -> Source:
    """Open a file to read it row by row.

    Args:
        path: of the file.
        columns: that are wanted.
        outcomes: what the column that tells what came of the kick may be called; the first that is there.

    Raises:
        DataError: the file can't be read, or columns are missing.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    kind = _kind_of_existing(path)
    with readable(path):
        source = _READERS[kind](path, columns, outcomes)
    return source._replace(rows=_guarded(path, source.rows))


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


@contextmanager
def readable(path: object) -> Iterator[None]:
    """Turn the errors of reading a file into a `DataError` that names it."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError is what pyarrow raises for what is no Parquet
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} can't be read: {reason}. Look at the file, or write it anew") from error


def _positions(
    path: object, header: Sequence[str], columns: Sequence[str], outcomes: Sequence[str] = OUTCOMES
) -> list[int | None]:
    """Find the columns, and after them that of the outcome, in a header.

    Raises:
        DataError: one is missing, or stands there twice.
    """
    names = [name.strip() for name in header]
    missing = [name for name in columns if name not in names]
    if missing:
        near = [f"'{each}'" for name in missing for each in difflib.get_close_matches(name, names, 1)]
        hint = f"; is it {' or '.join(near)}?" if near else f" (it has: {', '.join(names)[:200]})"
        raise DataError(f"{path} has no column {', '.join(missing)}{hint}")
    outcome = next((name for name in outcomes if name in names), None)
    wanted = [*columns, *([] if outcome is None else [outcome])]
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise DataError(f"{path} has more than one column {', '.join(twice)}")
    return [names.index(name) for name in columns] + [None if outcome is None else names.index(outcome)]


def _read_csv(path: Path, columns: Sequence[str], outcomes: Sequence[str]) -> Source:
    layout = _csv_layout(path, columns, outcomes)

    def rows() -> Iterator[Row]:
        with _open_text(path) as file:
            yield from picked(islice(records(file, layout.delimiter), 1, None), layout)

    return Source(rows(), _outcome(layout), text=True)


def _csv_blocks(path: Path, size: int) -> Iterator[Block]:
    with readable(path):
        layout = _csv_layout(path, NAMES)
    if not layout.plain or find_spec("pyarrow") is None:
        return _blocks(open_rows(path, NAMES), size)
    from kickserve_data.csv_blocks import blocks

    return _guarded(path, blocks(path, layout, _outcome(layout), size))


def _blocks(source: Source, size: int) -> Iterator[Block]:
    while rows := list(islice(source.rows, size)):
        yield block_of(rows, source.outcome, text=source.text)


def _outcome(layout: Layout) -> str | None:
    at = layout.positions[-1]
    return None if at is None else layout.header[at].strip()


def _csv_layout(path: Path, columns: Sequence[str], outcomes: Sequence[str] = OUTCOMES) -> Layout:
    with _open_text(path) as file:
        line, first = next(((at, line) for at, line in enumerate(file) if line.strip()), (0, ""))
    fault = spoilt(first)
    if fault:
        raise DataError(f"{path} can't be read: its header {fault}")
    delimiter = max(_DELIMITERS, key=partial(_known, first, columns))
    with _open_text(path) as file:
        header = next(records(file, delimiter), Row(1, [])).cells
    if isinstance(header, str):
        raise DataError(f"{path} can't be read: its header {header}")
    plain = line == 0 and first.endswith("\n") and first.rstrip("\r\n").split(delimiter) == header
    return Layout(list(header), delimiter, _positions(path, header, columns, outcomes), plain)


def _open_text(path: Path) -> IO[str]:
    # What is no UTF-8 becomes a surrogate: its line is refused, and the rest is read.
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _known(first: str, columns: Sequence[str], delimiter: str) -> tuple[int, int]:
    names = [name.strip(' "\r\n') for name in first.split(delimiter)]
    return sum(name in columns for name in names), len(names)


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
                    yield Row(number, f"is no JSON object: {error}")
                else:
                    outcome = next((row[name] for name in outcomes if name in row), None)
                    yield Row(number, [*map(row.get, columns), outcome])

    return Source(rows(), outcomes[0])


def _read_parquet(path: Path, columns: Sequence[str], outcomes: Sequence[str]) -> Source:
    file = _open_parquet(path)
    header = file.schema_arrow.names
    names = _names(header, _positions(path, header, columns, outcomes))
    from kickserve_data.parquet_kicks import rows

    return Source(rows(file, names), names[-1])


def _parquet_blocks(path: Path, size: int, others: Sequence[str]) -> Iterator[Block]:
    file = _open_parquet(path)
    names, _ = columns_of(path, file.schema_arrow.names)
    from kickserve_data.parquet_kicks import blocks

    return _guarded(path, blocks(file, names, size, others))


def _names(header: Sequence[str], positions: Sequence[int | None]) -> list[str | None]:
    return [None if at is None else header[at] for at in positions]


def _open_parquet(path: Path) -> Any:
    module = parquet()
    with readable(path):
        try:
            # Read piece by piece: by default all of a row group is, and some files are one row group.
            return module.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER)
        except ValueError as error:
            raise DataError(f"{path} is no Parquet file: {error}") from error


def parquet() -> Any:
    """Return the module that reads and writes Parquet.

    Raises:
        MissingExtra: it is not installed.
    """
    # Asked for by name, not by trying: an error inside pyarrow must not look like pyarrow missing.
    if find_spec("pyarrow") is None:
        raise MissingExtra("Parquet", "parquet", ["pyarrow"])
    import pyarrow.parquet

    return pyarrow.parquet


_READERS: Final[Mapping[str, Callable[[Path, Sequence[str], Sequence[str]], Source]]] = {
    "csv": _read_csv,
    "ndjson": _read_ndjson,
    "parquet": _read_parquet,
}
