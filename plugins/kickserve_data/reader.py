"""Reads files of kicks: CSV, JSON, spreadsheets, Parquet; from a disk, a pipe or standard input.

The content says what a file is.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import sys
import weakref
from contextlib import ExitStack
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from kickserve.features import NAMES
from kickserve_data import DataError
from kickserve_data.columns import OUTCOMES, Wanted
from kickserve_data.parquet import parquet, read_parquet
from kickserve_data.rows import read_csv, read_json, read_spreadsheet
from kickserve_data.source import guarded, readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from kickserve_data.kicks import Block
    from kickserve_data.source import KickFile

_STDIN: Final = "-"
_BUFFER: Final = 1 << 20  # bytes of a file that are read at a time
_COMPRESSED: Final[Mapping[bytes, Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_SPREADSHEETS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


def _cp1252(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("kickserve.cp1252", _cp1252)  # each byte that is no UTF-8 is of Windows


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


def open_kicks(
    path: Path,
    columns: Sequence[str] = NAMES,
    outcomes: Sequence[str] = OUTCOMES,
    kickers: Sequence[str] = (),
    content: bytes | None = None,
    usual: Mapping[str, float] = MappingProxyType({}),
) -> KickFile:
    """Open a file.

    Args:
        path: of the file; `-` for standard input.
        columns: names of the wanted columns: the features, or others for `rows` alone; none for all that the
            file has.
        outcomes: names that the outcome's column may have; the first that the file has is taken.
        kickers: names that the column of kickers may have; by default their labels are not read.
        content: of the file, where it is in memory; then the path only names it.
        usual: values by the names of columns that may be missing, in the file or in a row.

    Raises:
        DataError: the file can't be read, or columns are missing.
        MissingExtra: a package for this kind of file is not installed.
    """
    wanted = Wanted(path, columns, outcomes, kickers, usual)
    with readable(path), ExitStack() as stack:
        raw = _open(path, stack, content)
        head = raw.peek()
        kind = _kind_of_content(path, head)
        if kind == "parquet":
            file = read_parquet(wanted, raw)
        elif kind == "excel":
            file = read_spreadsheet(wanted, raw)
        else:
            encoding, took = _encoding_of(head)
            text = stack.enter_context(io.TextIOWrapper(raw, encoding, "kickserve.cp1252", newline=""))
            file = read_json(wanted, text) if kind == "ndjson" else read_csv(wanted, text)
            file.cells.took[:0] = took
        file.rows = guarded(path, file.rows)
        weakref.finalize(file, stack.pop_all().close)
    return file


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


def _open(path: Path, stack: ExitStack, content: bytes | None) -> Any:
    """Open a file to look into its beginning, and then to read it: unpacked, where it is compressed."""
    raw: Any
    if content is not None:
        raw = io.BufferedReader(cast("io.RawIOBase", io.BytesIO(content)), _BUFFER)
    else:
        raw = sys.stdin.buffer if str(path) == _STDIN else path.open("rb", _BUFFER)
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
    begins = head.replace(b"\0", b"").lstrip(b"\xff\xfe\xef\xbb\xbf \t\r\n\x1e")[:1]
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
