"""Takes tables apart: CSV, NDJSON and Parquet files become chunks of cells by column, in flat memory."""

from __future__ import annotations

import csv
import gzip
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from kickserve.errors import DataError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Cells = Sequence[Any] | NDArray[np.float64]
    Choose = Callable[[Sequence[str]], Mapping[str, str]]
    """Given the columns that a file has, says which to read: by the name it is to go by, its name there."""

SUFFIXES: Final = (".csv", ".csv.gz", ".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz", ".parquet")
_DELIMITERS: Final = (",", ";", "\t")
_LONGEST_LINE: Final = 1_000_000  # characters; what is longer is no row of kicks, and would fill the memory
_MISSPELT: Final = "is not UTF-8: save the file as UTF-8"


class Refusal(NamedTuple):
    """A row that can't be used.

    Attributes:
        line: where it begins, from 1, as an editor shows it; of Parquet the number of the row, from 1.
        reason: the column, its value and what is wanted instead.
    """

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a file, as they stand there.

    Attributes:
        lines: where each of the n rows begins.
        cells: n cells by column; of CSV strings, of NDJSON whatever JSON holds (`msgspec.UNSET` where
            the key is missing), of Parquet arrays of float64 with NaN where there is none, or lists.
        text: whether the cells are strings that stand for numbers.
        refusals: rows that could not be taken apart; they are in neither `lines` nor `cells`.
    """

    lines: NDArray[np.int64]
    cells: Mapping[str, Cells]
    text: bool = False
    refusals: list[Refusal] = field(default_factory=list)


def form(path: Path) -> str:
    """Return the format that a file's name asks for: `csv`, `ndjson` or `parquet`.

    Raises:
        DataError: it is none that can be read or written.
    """
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise DataError(f"{path}: the name must end in one of {', '.join(SUFFIXES)}, to tell the format")
    suffix = name.removesuffix(".gz").rpartition(".")[2]
    return "ndjson" if suffix == "jsonl" else suffix


def chunks(path: Path, choose: Choose, size: int) -> Iterator[Chunk]:
    """Read a file piece by piece.

    Args:
        path: the file.
        choose: says which columns to read; raises DataError where one is missing. Of NDJSON it is not
            asked whether they are there, as each row has keys of its own: it is given all it could want.
        size: rows in a chunk at most.

    Raises:
        DataError: the file can't be read; the message says what to do.
        MissingExtra: it is Parquet, and pyarrow is not installed.
    """
    readers = {"csv": _csv, "ndjson": _ndjson, "parquet": _parquet}
    reader = readers[form(path)]
    check(path)
    with unreadable(path):
        yield from reader(path, choose, size)


def check(path: Path) -> None:
    """Look that there is a file with something in it.

    Raises:
        DataError: there is none.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file in it")
    if not path.exists():
        raise DataError(f"{path} does not exist: check the path (the current folder is {path.cwd()})")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path} is empty: it must hold kicks, one a row")


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Turn what a broken or forbidden file raises into a DataError."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} can't be read: {reason}. Check the file, or write it anew") from error


def packed(path: Path) -> bool:
    """Say whether a file's name asks for gzip."""
    return path.name.lower().endswith(".gz")


def _text(path: Path) -> IO[str]:
    # Bytes that are no UTF-8 come through as surrogates, so that only their own line is refused.
    how: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    return gzip.open(path, "rt", **how) if packed(path) else path.open(**how)


def _lines(file: IO[str]) -> Iterator[str]:
    """Give the lines, of those without end only as much as must be known to refuse them."""
    for line in iter(lambda: file.readline(_LONGEST_LINE), ""):
        rest = line
        while len(rest) == _LONGEST_LINE and not rest.endswith(("\n", "\r")):
            rest = file.readline(_LONGEST_LINE)
        yield line


def _csv(path: Path, choose: Choose, size: int) -> Iterator[Chunk]:
    with _text(path) as file:
        lines = _lines(file)
        header, start = _header(path, lines)
        names, delimiter = header
        positions = {name: names.index(column) for name, column in choose(names).items()}
        while piece := list(islice(lines, size)):
            chunk, taken = _quick(piece, start, len(names), positions, delimiter), len(piece)
            if chunk is None:
                chunk, taken = _thorough(
                    chain(piece, lines), len(piece), start, len(names), positions, delimiter
                )
            start += taken
            yield chunk
