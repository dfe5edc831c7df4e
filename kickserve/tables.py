"""Reads files of kicks: CSV, Parquet, NDJSON. What can't be read is refused line by line."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from kickserve.csv_rows import Cells, Row, records, spoilt
from kickserve.errors import DataError, MissingExtra
from kickserve.features import COUNT, FEATURES, NAMES, acceptable

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
_WORDS: Final = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "": math.nan}
_BITS: Final = {0: 0.0, 1: 1.0, None: math.nan}  # true and false as well: they equal 1 and 0
_IS_FLAG: Final = (*(feature.kind == "flag" for feature in FEATURES), True)  # the outcome is one too
_LONGEST_SHOWN: Final = 40
_BUFFER: Final = 1 << 20
_BATCH: Final = 4096  # rows of Parquet that are Python objects at a time
_MARK: Final = b"\xef\xbb\xbf"  # the byte order mark that some editors write


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


class _Source(NamedTuple):
    """The rows of a file. Each row's cells are the columns asked for, then the outcome.

    Attributes:
        rows: line by line.
        outcome: the column that tells what came of the kick; None where there is none.
        text: whether all cells are text, as in CSV; elsewhere `"1"` is no number.
    """

    rows: Iterator[Row]
    outcome: str | None
    text: bool = False


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
        yield _block(rows, source)


def read_outcomes(
    path: Path, *, size: int = 1000
) -> Iterator[tuple[list[tuple[int, str, bool]], list[Refusal]]]:
    """Read what came of kicks: blocks of line, id and success, and the lines that were refused.

    Raises:
        DataError: the file can't be read, or has no columns `id` and `success`.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    source = _open(path, ("id",))
    if source.outcome is None:
        raise DataError(f"{path} has no column {OUTCOMES[0]}: it must say 1 or 0 for each id")
    while rows := list(islice(source.rows, size)):
        told: list[tuple[int, str, bool]] = []
        refusals: list[Refusal] = []
        for line, cells in rows:
            success = math.nan if isinstance(cells, str) else _number(cells[1], flag=True, text=source.text)
            if isinstance(cells, str):
                refusals.append(Refusal(line, cells))
            elif not isinstance(cells[0], str) or not cells[0].strip():
                refusals.append(Refusal(line, "id is missing"))
            elif success not in {0.0, 1.0}:
                refusals.append(Refusal(line, _must_be(source.outcome, cells[1], "1 or 0")))
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


def _block(rows: Sequence[Row], source: _Source) -> Block:
    refusals = [Refusal(line, cells) for line, cells in rows if isinstance(cells, str)]
    whole = [(line, cells) for line, cells in rows if not isinstance(cells, str)]
    cells = [cells for _, cells in whole]
    values = _numbers(cells, text=source.text)
    outcome = values[:, COUNT]
    told = np.array([_is_told(row[COUNT]) for row in cells], dtype=bool)
    good = acceptable(values[:, :COUNT]).all(axis=1) & (~told | (outcome == 0) | (outcome == 1))
    refusals += [
        Refusal(whole[at][0], _reason(whole[at][1], values[at], source)) for at in np.flatnonzero(~good)
    ]
    return Block(
        lines=np.array([line for line, _ in whole], dtype=np.int64)[good],
        matrix=values[good, :COUNT],
        outcome=None if source.outcome is None else outcome[good],
        refusals=sorted(refusals, key=lambda refusal: refusal.line),
    )


def _numbers(rows: Sequence[Cells], *, text: bool) -> NDArray[np.float64]:
    values = np.empty((len(rows), COUNT + 1))
    for at, cells in enumerate(zip(*rows, strict=True)):
        values[:, at] = _column(cells, flag=_IS_FLAG[at], text=text)
    return values


def _column(cells: Sequence[Any], *, flag: bool, text: bool) -> list[float]:
    """Return what cells say, all at once where each is spelt as usual, else one by one."""
    try:
        if not flag:
            return msgspec.convert(cells, list[float], strict=not text)
        usual: Mapping[Any, float] = _WORDS if text else _BITS
        return [usual[cell] for cell in cells]
    except (KeyError, TypeError, msgspec.ValidationError):  # TypeError: a list or object of JSON
        pass
    return [_number(cell, flag=flag, text=text) for cell in cells]


def _number(cell: Any, *, flag: bool, text: bool) -> float:
    """Return what a cell says; NaN where that is no number, or true and false where no flag is."""
    if isinstance(cell, str):
        cell = cell.strip().lower()
        # Python's own reading would take 3_0 and other scripts' digits as well.
        if not text or not cell.isascii() or "_" in cell:
            return math.nan
        if flag and cell in _WORDS:
            return _WORDS[cell]
    elif isinstance(cell, bool) and not flag:
        return math.nan
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _is_told(cell: Any) -> bool:
    if isinstance(cell, str):
        return bool(cell.strip())
    return cell is not None and not (isinstance(cell, float) and math.isnan(cell))


def _reason(cells: Cells, values: NDArray[np.float64], source: _Source) -> str:
    """Say what is wrong with the first cell that is."""
    fits = acceptable(values[None, :COUNT])[0]
    for feature, cell, fit in zip(FEATURES, cells, fits, strict=False):
        if not fit and not _is_told(cell):
            return f"{feature.name} is missing: must be {feature.wanted}"
        if not fit:
            return _must_be(feature.name, cell, feature.wanted)
    return _must_be(source.outcome, cells[COUNT], "1, 0 or empty")


def _must_be(name: str | None, cell: Any, wanted: str) -> str:
    comma = isinstance(cell, str) and "," in cell
    return f"{name} {_shown(cell)} must be {wanted}{', with a decimal point' if comma else ''}"


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
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    if size == 0:
        raise DataError(f"{path} is empty")
    with _readable(path):
        source = _READERS[kind](path, columns)
    return source._replace(rows=_guarded(path, source.rows))


def _guarded(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    with _readable(path):  # a file can be broken in its middle too
        yield from rows


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError is what pyarrow raises for what is no Parquet
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} can't be read: {reason}. Look at the file, or write it anew") from error


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
    # What is no UTF-8 becomes a surrogate: its line is refused, and the rest is read.
    opened = partial(path.open, encoding="utf-8-sig", errors="surrogateescape", newline="")
    with opened() as file:
        first = next(filter(str.strip, file), "")
    fault = spoilt(first)
    if fault:
        raise DataError(f"{path} can't be read: its header {fault}")
    delimiter = max(_DELIMITERS, key=partial(_known, first, columns))
    with opened() as file:
        header = next(records(file, delimiter), Row(1, [])).cells
    if isinstance(header, str):
        raise DataError(f"{path} can't be read: its header {header}")
    positions = _positions(path, header, columns)

    pick = itemgetter(*(-1 if at is None else at for at in positions))

    def rows() -> Iterator[Row]:
        with opened() as file:
            for line, cells in islice(records(file, delimiter), 1, None):
                if isinstance(cells, str):
                    yield Row(line, cells)
                elif len(cells) != len(header):
                    yield Row(line, f"has {len(cells)} cells where the header has {len(header)}")
                else:
                    yield Row(line, pick((*cells, "")))  # the last is the outcome that no column tells

    outcome = positions[-1]
    return _Source(rows(), None if outcome is None else header[outcome].strip(), text=True)


def _known(first: str, columns: Sequence[str], delimiter: str) -> tuple[int, int]:
    names = [name.strip(' "\r\n') for name in first.split(delimiter)]
    return sum(name in columns for name in names), len(names)


def _read_ndjson(path: Path, columns: Sequence[str]) -> _Source:
    decode = msgspec.json.Decoder(dict[str, Any]).decode

    def rows() -> Iterator[Row]:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = decode(line.removeprefix(_MARK) if number == 1 else line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    yield Row(number, f"is no JSON object: {error}")
                else:
                    outcome = next((row[name] for name in OUTCOMES if name in row), None)
                    yield Row(number, [*map(row.get, columns), outcome])

    return _Source(rows(), OUTCOMES[0])


def _read_parquet(path: Path, columns: Sequence[str]) -> _Source:
    module = parquet()
    try:
        file = module.ParquetFile(path)
    except ValueError as error:
        raise DataError(f"{path} is no Parquet file: {error}") from error
    header = file.schema_arrow.names
    positions = _positions(path, header, columns)
    names = [None if at is None else header[at] for at in positions]

    def rows() -> Iterator[Row]:
        with file:
            number = 1
            wanted = [name for name in names if name is not None]
            for batch in file.iter_batches(batch_size=_BATCH, columns=wanted):
                nothing = [None] * len(batch)
                parts = [nothing if name is None else batch.column(name).to_pylist() for name in names]
                for cells in zip(*parts, strict=True):
                    yield Row(number, cells)
                    number += 1

    return _Source(rows(), names[-1])


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
