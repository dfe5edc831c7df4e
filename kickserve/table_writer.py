"""Writes tables of kicks and answers: CSV, Parquet, NDJSON."""

from __future__ import annotations

import csv
from contextlib import contextmanager
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from kickserve.errors import DataError
from kickserve.features import FLAGS
from kickserve.tables import OUTCOMES, kind_of, parquet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@contextmanager
def open_writer(path: Path, columns: Sequence[str]) -> Iterator[Writer]:
    """Write a table; the file appears under its name when it is whole.

    Raises:
        DataError: it can't be written, or the kind is unknown.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    kind = _WRITERS[kind_of(path)]
    part = path.with_name(f".{path.name}.{token_hex(4)}.part")  # another run may write the same file
    try:
        writer = kind(part, columns)
        try:
            yield writer
        finally:
            writer.close()
        part.replace(path)
    except OSError as error:
        raise DataError(f"can't write {path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


class Writer:
    """Writes columns of equal length, part after part."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._columns = columns
        self._path = path

    def write(self, columns: Mapping[str, Any]) -> None:
        """Write the next rows: values by column, all of the same length."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish the file."""
        raise NotImplementedError


class _CsvWriter(Writer):
    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        super().__init__(path, columns)
        self._file = path.open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._csv.writerow(columns)

    def write(self, columns: Mapping[str, Any]) -> None:
        texts = [[_text(value) for value in _plain(columns[name])] for name in self._columns]
        self._csv.writerows(zip(*texts, strict=True))

    def close(self) -> None:
        self._file.close()


class _NdjsonWriter(Writer):
    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        super().__init__(path, columns)
        self._file = path.open("wb")
        self._encoder = msgspec.json.Encoder()

    def write(self, columns: Mapping[str, Any]) -> None:
        parts = [_plain(columns[name]) for name in self._columns]
        rows = [dict(zip(self._columns, row, strict=True)) for row in zip(*parts, strict=True)]
        self._file.write(self._encoder.encode_lines(rows))

    def close(self) -> None:
        self._file.close()


class _ParquetWriter(Writer):
    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        super().__init__(path, columns)
        module = parquet()
        import pyarrow as pa

        self._pa = pa
        self._schema = pa.schema([(name, _arrow_type(pa, name)) for name in columns])
        self._file = module.ParquetWriter(path, self._schema)

    def write(self, columns: Mapping[str, Any]) -> None:
        arrays = [
            self._pa.array([_as_int(value) for value in _plain(columns[field.name])], field.type)
            if self._pa.types.is_integer(field.type)
            else self._pa.array(_plain(columns[field.name]), field.type)
            for field in self._schema
        ]
        self._file.write_table(self._pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._file.close()


def _arrow_type(pa: Any, name: str) -> Any:
    """Return a column's type. Guessing it from the values fails where a part holds none."""
    if name in {"id", "model", "revision", "error"}:
        return pa.string()
    if name in {"created_at", "outcome_at"}:
        return pa.timestamp("ms", tz="UTC")
    if name in {*FLAGS, *OUTCOMES}:
        return pa.int8()
    return pa.int64() if name in {"line", "status_code"} else pa.float64()


def _plain(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _as_int(value: Any) -> int | None:
    return None if value is None else int(value)


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)  # as the readers and their users spell it
    return value.isoformat() if hasattr(value, "isoformat") else value


_WRITERS: Final[Mapping[str, type[Writer]]] = {
    "csv": _CsvWriter,
    "ndjson": _NdjsonWriter,
    "parquet": _ParquetWriter,
}
