"""Writes tables of kicks and answers: CSV, Parquet, NDJSON."""

from __future__ import annotations

import csv
import sys
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from kickserve.features import FLAGS
from kickserve.wholefile import atomic_write
from kickserve_data import DataError
from kickserve_data.columns import OUTCOMES
from kickserve_data.parquet import parquet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KINDS: Final[Mapping[str, str]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}
"""Kinds of files, by their ending."""

STDOUT: Final = Path("-")

_INTEGERS: Final = frozenset({*FLAGS, *OUTCOMES, "line", "status_code", "learned_outcomes"})
_TIMES: Final = frozenset({"created_at", "outcome_at"})
_REPEATED: Final = ("file", "model", "revision", "error", "kicker", "source")  # texts of which there are few
_TEXTS: Final = frozenset({"id", *_REPEATED})
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a text that begins so
_GROUP_ROWS: Final = 1 << 18  # of Parquet that are written at a time: read fast, and no burden on memory
_GROUP_BYTES: Final = 48_000_000


def kind_of(path: Path) -> str:
    """Return `csv`, `ndjson` or `parquet`, by the ending of a name.

    Raises:
        DataError: the ending is unknown.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path} has an unknown ending: use {', '.join(KINDS)}")
    return kind


@contextmanager
def open_writer(
    path: Path, columns: Sequence[str], others: Any = None, *, durable: bool = False
) -> Iterator[Writer]:
    """Write a table; the file appears under its name when it is whole.

    Args:
        path: its ending decides the kind of table; `STDOUT` for CSV to the standard output.
        columns: their names; each has its type by its name.
        others: the `pyarrow.Schema` of columns after those; for Parquet only.
        durable: whether the medium has all of it before it appears.

    Raises:
        DataError: the file can't be written, or the kind is unknown.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    kind = _CsvWriter if path == STDOUT else _WRITERS[kind_of(path)]
    try:
        with nullcontext(path) if path == STDOUT else atomic_write(path, durable=durable) as part:
            writer = kind(part, columns, others)
            try:
                yield writer
            except BaseException:
                writer.drop()
                raise
            writer.close()
    except OSError as error:
        if path == STDOUT:
            raise  # the command line knows what that means
        raise DataError(f"can't write {path}: {error.strerror or error}") from error


def csv_cell(value: Any) -> Any:
    """Return a value as CSV has it: flags as 1 and 0, and no text that a spreadsheet takes for a formula."""
    if isinstance(value, str):
        text = value.replace("\r", "\n")  # which the csv module quotes
        return f"'{text}" if value.startswith(_FORMULA) and not _is_number(value) else text
    if isinstance(value, bool):
        return int(value)
    return value.isoformat() if isinstance(value, datetime) else value


class Writer:
    """Writes columns of equal length, part after part."""

    _file: Any

    def __init__(self, path: Path, columns: Sequence[str], others: Any) -> None:
        raise NotImplementedError

    def write(self, columns: Mapping[str, Any], others: Any = None) -> None:
        """Write the next rows.

        Args:
            columns: by name, an array, a list, or a text or None that holds for every row; at least one is an
                array or a list. NaN in an array of a column of whole numbers makes an empty cell.
            others: the `pyarrow.RecordBatch` of the other columns, if they were asked for.
        """
        raise NotImplementedError

    def annotate(self, key: bytes, value: bytes) -> None:
        """Write a value into the footer; for Parquet only."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def drop(self) -> None:
        """Close an unfinished file."""
        self._file.close()


class _CsvWriter(Writer):
    def __init__(self, path: Path, columns: Sequence[str], others: Any) -> None:  # noqa: ARG002  Parquet's own
        self._columns = columns
        target: Any = sys.stdout.fileno() if path == STDOUT else path
        self._file: IO[str] = open(target, "w", encoding="utf-8", newline="", closefd=path != STDOUT)  # noqa: SIM115
        delimiter = "\t" if ".tsv" in path.suffixes else ","  # the draft has an ending behind that
        self._write_rows = csv.writer(self._file, delimiter=delimiter, lineterminator="\n").writerows
        self._write_rows([columns])

    def write(self, columns: Mapping[str, Any], others: Any = None) -> None:  # noqa: ARG002  Parquet's own
        lists = _lists(self._columns, columns)
        self._write_rows(
            zip(
                *(
                    cells if isinstance(columns[name], np.ndarray) else map(csv_cell, cells)
                    for name, cells in lists.items()
                ),
                strict=True,
            )
        )


class _NdjsonWriter(Writer):
    def __init__(self, path: Path, columns: Sequence[str], others: Any) -> None:  # noqa: ARG002  Parquet's own
        self._columns = columns
        self._file = path.open("wb")

    def write(self, columns: Mapping[str, Any], others: Any = None) -> None:  # noqa: ARG002  Parquet's own
        lists = _lists(self._columns, columns)
        rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        self._file.write(msgspec.json.Encoder().encode_lines(rows))


class _ParquetWriter(Writer):
    def __init__(self, path: Path, columns: Sequence[str], others: Any) -> None:
        module = parquet()
        import pyarrow as pa

        self._pa = pa
        self._ours = pa.schema([(name, _arrow_type(pa, name)) for name in columns])
        self._schema = pa.schema([*self._ours, *(others or ())])
        # Measured: a dictionary costs 8 to 25 ns a value, and numbers gain nothing by it.
        self._file = module.ParquetWriter(
            path,
            self._schema,
            use_dictionary=[name for name in self._schema.names if name in _REPEATED or name not in columns],
            column_encoding={name: "DELTA_BINARY_PACKED" for name in columns if name in _INTEGERS | _TIMES},
        )
        self._waiting: list[Any] = []

    def write(self, columns: Mapping[str, Any], others: Any = None) -> None:
        count = _count(columns)
        if not count:
            return
        arrays = [self._array(field.type, columns[field.name], count) for field in self._ours]
        arrays += [] if others is None else others.columns
        self._waiting.append(self._pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        rows, size = (sum(each) for each in zip(*((len(b), b.nbytes) for b in self._waiting), strict=True))
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            self._flush()

    def annotate(self, key: bytes, value: bytes) -> None:
        self._file.add_key_value_metadata({key: value})

    def close(self) -> None:
        self._flush()
        self._file.close()

    def drop(self) -> None:
        # After a full disk even closing fails, and would fail again when the writer is collected.
        with suppress(OSError, ValueError):
            self._file.close()
        self._file.is_open = False

    def _flush(self) -> None:
        table = self._pa.Table.from_batches(self._waiting, self._schema).unify_dictionaries()
        self._waiting = []
        if len(table):
            self._file.write_table(table, row_group_size=len(table))

    def _array(self, kind: Any, values: Any, count: int) -> Any:
        if values is None or isinstance(values, str):
            return self._pa.repeat(self._pa.scalar(values, kind), count)
        if not self._pa.types.is_integer(kind):
            return self._pa.array(values, kind)
        numbers = np.array(values, dtype=np.float64)  # None becomes NaN
        missing = np.isnan(numbers)
        whole = np.where(missing, 0, numbers).astype(kind.to_pandas_dtype())
        return self._pa.array(whole, kind, mask=missing if missing.any() else None)


def _arrow_type(pa: Any, name: str) -> Any:
    """Return a column's type. Guessing it from the values fails where a part holds none."""
    if name in _TEXTS:
        return pa.string()
    if name in _TIMES:
        return pa.timestamp("ms", tz="UTC")
    if name in {*FLAGS, *OUTCOMES}:
        return pa.int8()
    return pa.int64() if name in _INTEGERS else pa.float64()


def _count(columns: Mapping[str, Any]) -> int:
    return next(len(each) for each in columns.values() if each is not None and not isinstance(each, str))


def _lists(names: Sequence[str], columns: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return columns as lists of Python's own values, None for an empty cell."""
    count = _count(columns)
    return {name: _list(columns[name], count, whole=name in _INTEGERS) for name in names}


def _list(values: Any, count: int, *, whole: bool) -> list[Any]:
    if values is None or isinstance(values, str):
        return [values] * count
    if not isinstance(values, np.ndarray):
        return list(values)
    if whole and not np.isnan(values).any():
        values = values.astype(np.int64)
    cells: list[Any] = values.tolist()
    return [None if cell != cell else int(cell) for cell in cells] if whole else cells  # noqa: PLR0124  NaN


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_WRITERS: Final[Mapping[str, type[Writer]]] = {
    "csv": _CsvWriter,
    "ndjson": _NdjsonWriter,
    "parquet": _ParquetWriter,
}
