"""Reads files of kicks: CSV, Parquet, NDJSON. What can't be read is refused line by line."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from kickserve.errors import DataError, MissingExtra
from kickserve.features import BY_NAME, COUNT, FEATURES, NAMES, acceptable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

OUTCOMES: Final = ("success", "outcome", "is_successful")
KINDS: Final[Mapping[str, str]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}
_DELIMITERS: Final = ",;\t"
_WORDS: Final = {"true": 1.0, "false": 0.0}
_LONGEST_SHOWN: Final = 40
_BUFFER: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that holds no kick.

    Attributes:
        line: as an editor counts, from 1; in Parquet the row, from 1.
        reason: column, value, and what it must be.
    """

    line: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some kicks of a file.

    Attributes:
        lines: shape (n,), where each stands.
        matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.
        outcome: shape (n,), 1 for a success, 0 for a miss, NaN where unknown; None where no column tells.
        refusals: the lines among them that hold no kick.
    """

    lines: NDArray[np.int64]
    matrix: NDArray[np.float64]
    outcome: NDArray[np.float64] | None
    refusals: list[Refusal]


class _Row(NamedTuple):
    """A line as it stands in the file; its cells, or why there are none."""

    line: int
    cells: list[Any] | str


class _Source(NamedTuple):
    """The rows of a file. Each row's cells are the columns asked for, then the outcome."""

    rows: Iterator[_Row]
    has_outcome: bool


def read_blocks(path: Path, *, size: int = 4096) -> Iterator[Block]:
    """Read kicks in blocks of `size`, in memory that does not grow with the file.

    Columns may come in any order, and others beside them; `success` (or `outcome`, `is_successful`), where
    there is one, tells what came of the kick.

    Raises:
        DataError: the file can't be read, or features are missing.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    source = _open(path, NAMES)
    while rows := list(islice(source.rows, size)):
        yield _block(rows, has_outcome=source.has_outcome)


def read_outcomes(
    path: Path, *, size: int = 1000
) -> Iterator[tuple[list[tuple[int, str, bool]], list[Refusal]]]:
    """Read what came of kicks: blocks of line, id and success, and the lines that were refused.

    Raises:
        DataError: the file can't be read, or has no columns `id` and `success`.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    source = _open(path, ("id",))
    if not source.has_outcome:
        raise DataError(f"{path} has no column {OUTCOMES[0]}: it must say 1 or 0 for each id")
    while rows := list(islice(source.rows, size)):
        told: list[tuple[int, str, bool]] = []
        refusals: list[Refusal] = []
        for line, cells in rows:
            success = math.nan if isinstance(cells, str) else _number(cells[1])
            if isinstance(cells, str):
                refusals.append(Refusal(line, cells))
            elif not isinstance(cells[0], str) or not cells[0].strip():
                refusals.append(Refusal(line, "id is missing"))
            elif success not in {0.0, 1.0}:
                refusals.append(Refusal(line, f"success {_shown(cells[1])} must be 1 or 0"))
            else:
                told.append((line, cells[0].strip(), success == 1))
        yield told, refusals


def count_rows(path: Path) -> int | None:
    """Say how many rows a file has, quickly and about; None where that can't be said."""
    try:
        if kind_of(path) == "parquet":
            return int(parquet().ParquetFile(path).metadata.num_rows)
        with path.open("rb") as file:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_BUFFER), b""))
    except (OSError, ValueError, DataError):
        return None
    return max(lines - (kind_of(path) == "csv"), 0)


# From rows to numbers.


def _block(rows: Sequence[_Row], *, has_outcome: bool) -> Block:
    refusals = [Refusal(line, cells) for line, cells in rows if isinstance(cells, str)]
    whole = [(line, cells) for line, cells in rows if not isinstance(cells, str)]
    cells = [cells for _, cells in whole]
    values = _numbers(cells)
    outcome = values[:, COUNT]
    told = np.array([_is_told(row[COUNT]) for row in cells], dtype=bool)
    good = acceptable(values[:, :COUNT]).all(axis=1) & (~told | (outcome == 0) | (outcome == 1))
    refusals += [Refusal(whole[at][0], _reason(whole[at][1])) for at in np.flatnonzero(~good)]
    return Block(
        lines=np.array([line for line, _ in whole], dtype=np.int64)[good],
        matrix=values[good, :COUNT],
        outcome=outcome[good] if has_outcome else None,
        refusals=sorted(refusals, key=lambda refusal: refusal.line),
    )


def _numbers(rows: list[list[Any]]) -> NDArray[np.float64]:
    try:
        # All at once: ten times as fast, where every cell is a number.
        return np.array(rows, dtype=np.float64).reshape(len(rows), COUNT + 1)
    except (ValueError, TypeError, OverflowError):
        return np.array([[_number(cell) for cell in row] for row in rows], dtype=np.float64)


def _number(cell: Any) -> float:
    """Return what a cell says; NaN where that is no number."""
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return _WORDS.get(cell.strip().lower(), math.nan) if isinstance(cell, str) else math.nan


def _is_told(cell: Any) -> bool:
    return cell is not None and cell != "" and not (isinstance(cell, float) and math.isnan(cell))


def _reason(cells: list[Any]) -> str:
    """Say what is wrong with the first cell that is."""
    for feature, cell in zip(FEATURES, cells, strict=False):
        row = np.full((1, COUNT), np.nan)
        at = NAMES.index(feature.name)
        row[0, at] = _number(cell)
        if not acceptable(row)[0, at]:
            wanted = BY_NAME[feature.name].wanted
            if not _is_told(cell):
                return f"{feature.name} is missing: must be {wanted}"
            return f"{feature.name} {_shown(cell)} must be {wanted}"
    return f"{OUTCOMES[0]} {_shown(cells[COUNT])} must be 1, 0 or empty"


def _shown(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


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


def _open(path: Path, columns: Sequence[str]) -> _Source:
    kind = kind_of(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty")
        return _READERS[kind](path, columns)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from error


def _positions(path: Path, header: Sequence[str], columns: Sequence[str]) -> list[int | None]:
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
    outcome = next((name for name in OUTCOMES if name in names), None)
    wanted = [*columns, *([] if outcome is None else [outcome])]
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise DataError(f"{path} has more than one column {', '.join(twice)}")
    return [names.index(name) for name in columns] + [None if outcome is None else names.index(outcome)]


def _read_csv(path: Path, columns: Sequence[str]) -> _Source:
    # What is no UTF-8 becomes a surrogate, and so no number: the line is refused, and the rest is read.
    opened = partial(path.open, encoding="utf-8-sig", errors="surrogateescape", newline="")
    with opened() as file:
        first = file.readline()
    delimiter = max(_DELIMITERS, key=first.count)
    header = next(csv.reader([first], delimiter=delimiter), [])
    positions = _positions(path, header, columns)

    def rows() -> Iterator[_Row]:
        with opened() as file:
            file.readline()
            reader = csv.reader(file, delimiter=delimiter)
            line = 2
            while True:
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield _Row(line, f"can't be read: {error}")
                else:
                    if cells:
                        yield _Row(line, _picked(cells, positions, len(header)))
                line = reader.line_num + 2  # the header was read before the reader began to count

    return _Source(rows(), positions[-1] is not None)


def _picked(cells: list[str], positions: list[int | None], width: int) -> list[Any] | str:
    if len(cells) != width:
        return f"has {len(cells)} cells where the header has {width}"
    return [None if at is None else cells[at] for at in positions]


def _read_ndjson(path: Path, columns: Sequence[str]) -> _Source:
    decode = msgspec.json.Decoder(dict[str, Any]).decode

    def rows() -> Iterator[_Row]:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    yield _Row(number, f"is no JSON object: {error}")
                else:
                    outcome = next((row[name] for name in OUTCOMES if name in row), None)
                    yield _Row(number, [*map(row.get, columns), outcome])

    return _Source(rows(), has_outcome=True)


def _read_parquet(path: Path, columns: Sequence[str]) -> _Source:
    module = parquet()
    try:
        file = module.ParquetFile(path)
    except ValueError as error:  # what pyarrow raises for a file that is none
        raise DataError(f"{path} is no Parquet file: {error}") from error
    header = file.schema_arrow.names
    positions = _positions(path, header, columns)
    names = [None if at is None else header[at] for at in positions]

    def rows() -> Iterator[_Row]:
        with file:
            number = 1
            for batch in file.iter_batches(columns=[name for name in names if name is not None]):
                nothing = [None] * len(batch)
                parts = [nothing if name is None else batch.column(name).to_pylist() for name in names]
                for cells in zip(*parts, strict=True):
                    yield _Row(number, list(cells))
                    number += 1

    return _Source(rows(), positions[-1] is not None)


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


_READERS: Final[Mapping[str, Callable[[Path, Sequence[str]], _Source]]] = {
    "csv": _read_csv,
    "ndjson": _read_ndjson,
    "parquet": _read_parquet,
}
