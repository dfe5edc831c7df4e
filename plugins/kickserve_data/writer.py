"""Writes tables of kicks and answers: CSV, Parquet, NDJSON."""

from __future__ import annotations

import csv
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from kickserve.features import FLAGS
from kickserve.wholefile import atomic_write
from kickserve_data import DataError
from kickserve_data.reader import OUTCOMES, kind_of, parquet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_INTEGERS: Final = frozenset({*FLAGS, *OUTCOMES, "line", "status_code"})
_TIMES: Final = frozenset({"created_at", "outcome_at"})
_REPEATED: Final = ("file", "model", "revision", "error")  # texts of which there are few
_TEXTS: Final = frozenset({"id", *_REPEATED})
_GROUP_ROWS: Final = 1 << 18  # of Parquet that are written at a time: read fast, and no burden on memory
_GROUP_BYTES: Final = 48_000_000


@contextmanager
def open_writer(
    path: Path, columns: Sequence[str], others: Any = None, *, durable: bool = False
) -> Iterator[Writer]:
    """Write a table; the file appears under its name when it is whole.

    Args:
        path: its ending decides the kind of table.
        columns: their names; each has its type by its name.
        others: the `pyarrow.Schema` of columns after those; for Parquet only.
        durable: whether the medium has all of it before it appears.

    Raises:
        DataError: the file can't be written, or the kind is unknown.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    kind = _WRITERS[kind_of(path)]
    try:
        with atomic_write(path, durable=durable) as part:
            writer = kind(part, columns, others)
            try:
                yield writer
            except BaseException:
                writer.drop()
                raise
            writer.close()
    except OSError as error:
        raise DataError(f"can't write {path}: {error.strerror or error}") from error


class Writer:
    """Writes columns of equal length, part after part."""

    def __init__(self, path: Path, columns: Sequence[str], others: Any) -> None:
        self._columns = columns
        self._path = path
        self._others = others

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
        raise NotImplementedError

    def drop(self) -> None:
        """Close an unfinished file."""
        self.close()

    def _rows(self, columns: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        count = _count(columns)
        return zip(
            *(_list(columns[name], count, whole=name in _INTEGERS) for name in self._columns), strict=True
        )


class _CsvWriter(Writer):
    def __init__(self, path: Path, columns: Sequence[str], others: Any) -> None:
        super().__init__(path, columns, others)
        self._file = path.open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._csv.writerow(columns)

    def write(self, columns: Mapping[str, Any], others: Any = None) -> None:  # noqa: ARG002  Parquet's own
        self._csv.writerows(map(_text, row) for row in self._rows(columns))

    def close(self) -> None:
        self._file.close()


class _NdjsonWriter(Writer):
    def __init__(self, path: Path, columns: Sequence[str], others: Any) -> None:
        super().__init__(path, columns, others)
        self._file = path.open("wb")

    def write(self, columns: Mapping[str, Any], others: Any = None) -> None:  # noqa: ARG002  Parquet's own
        rows = [dict(zip(self._columns, row, strict=True)) for row in self._rows(columns)]
        self._file.write(msgspec.json.Encoder().encode_lines(rows))

    def close(self) -> None:
        self._file.close()


class _ParquetWriter(Writer):
    def __init__(self, path: Path, columns: Sequence[str], others: Any) -> None:
        super().__init__(path, columns, others)
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
        self._rows_waiting = self._bytes_waiting = 0

    def write(self, columns: Mapping[str, Any], others: Any = None) -> None:
        count = _count(columns)
        if not count:
            return
        arrays = [self._array(field.type, columns[field.name], count) for field in self._ours]
        arrays += [] if self._others is None else others.columns
        batch = self._pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        self._waiting.append(batch)
        self._rows_waiting += len(batch)
        self._bytes_waiting += batch.nbytes
        if self._rows_waiting >= _GROUP_ROWS or self._bytes_waiting >= _GROUP_BYTES:
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
        self._waiting, self._rows_waiting, self._bytes_waiting = [], 0, 0
        if len(table):
            self._file.write_table(table, row_group_size=len(table))

    def _array(self, kind: Any, values: Any, count: int) -> Any:
        if values is None:
            return self._pa.nulls(count, kind)
        if isinstance(values, str):
            return self._pa.repeat(self._pa.scalar(values, kind), count)
        if not self._pa.types.is_integer(kind):
            return self._pa.array(values, kind)
        if not isinstance(values, np.ndarray):
            return self._pa.array([None if value is None else int(value) for value in values], kind)
        missing = np.isnan(values)
        whole = np.where(missing, 0, values).astype(kind.to_pandas_dtype())
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


def _list(values: Any, count: int, *, whole: bool) -> list[Any]:
    if values is None or isinstance(values, str):
        return [values] * count
    if not isinstance(values, np.ndarray):
        return list(values)
    cells: list[Any] = values.tolist()
    return [None if cell != cell else int(cell) for cell in cells] if whole else cells  # noqa: PLR0124  NaN


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)  # as readers and their users spell it
    return value.isoformat() if hasattr(value, "isoformat") else value


_WRITERS: Final[Mapping[str, type[Writer]]] = {
    "csv": _CsvWriter,
    "ndjson": _NdjsonWriter,
    "parquet": _ParquetWriter,
}
