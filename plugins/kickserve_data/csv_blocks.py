"""Reads CSV in pieces of whole lines that are spelt as usual, each at once; all else goes line by line.

The module needs pyarrow, so it is imported where that is installed. Without it, all goes line by line.
"""

from __future__ import annotations

from functools import partial
from io import BytesIO, TextIOWrapper
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from kickserve.features import COUNT
from kickserve_data.csv_rows import Row, picked, records
from kickserve_data.kicks import IS_FLAG, Block, block_of, block_of_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from kickserve_data.csv_rows import Layout

_PIECE: Final = 1 << 20  # bytes
_TRUE: Final = ("1", "1.0", "true", "True", "TRUE")
_FALSE: Final = ("0", "0.0", "false", "False", "FALSE")
_TYPES: Final = tuple(pa.bool_() if flag else pa.float64() for flag in IS_FLAG)


def blocks(path: Path, layout: Layout, outcome: str | None, size: int) -> Iterator[Block]:
    """Read kicks in blocks; the same kicks and refusals that reading line by line gives.

    Args:
        path: of the file.
        layout: of the file, with a plain header; its positions are those of the features, and of what came of
            the kick.
        outcome: name of the column that tells what came of the kick; None where there is none.
        size: rows a block, at most.
    """
    with path.open("rb") as file:
        file.readline()
        line = 2
        while piece := _next_piece(file):
            numbers = _numbers(piece, layout)
            if numbers is None:
                yield from _by_line(BytesIO(piece), line, layout, outcome, size)
            else:
                yield from _at_once(numbers, piece, line, layout, outcome, size)
            line += piece.count(b"\n")
        # From the first quote on rows may go over several lines.
        yield from _by_line(file, line, layout, outcome, size)


def _next_piece(file: IO[bytes]) -> bytes:
    """Return whole lines; at the end, and where lines may end elsewhere, nothing, and stay there."""
    start = file.tell()
    piece = file.read(_PIECE)
    if len(piece) == _PIECE:
        piece += file.readline(_PIECE)
    whole = piece.endswith(b"\n") or len(piece) < _PIECE
    if whole and b'"' not in piece and piece.count(b"\r") == piece.count(b"\r\n"):
        return piece
    file.seek(start)
    return b""


def _numbers(piece: bytes, layout: Layout) -> NDArray[np.float64] | None:
    """Return features and outcomes of lines, shape (n, 12); None where a cell or line is spelt unusually."""
    if b"\0" in piece or not _is_utf8(piece):
        return None
    names = [str(at) for at in range(len(layout.header))]
    wanted = {names[at]: kind for at, kind in zip(layout.positions, _TYPES, strict=True) if at is not None}
    try:
        table = pc.read_csv(
            pa.py_buffer(piece),
            read_options=pc.ReadOptions(column_names=names, use_threads=False, block_size=len(piece) + 1),
            parse_options=pc.ParseOptions(delimiter=layout.delimiter, quote_char=False),
            convert_options=pc.ConvertOptions(
                column_types=wanted,
                include_columns=list(wanted),
                null_values=[""],
                true_values=_TRUE,
                false_values=_FALSE,
            ),
        )
    except pa.ArrowInvalid:
        return None
    # Blank lines are left out, and would shift those that follow.
    return _matrix(table, layout) if len(table) == _count(piece) else None


def _matrix(table: Any, layout: Layout) -> NDArray[np.float64]:
    values = np.full((COUNT + 1, len(table)), np.nan).T  # a column in one piece of memory
    for at, position in enumerate(layout.positions):
        if position is not None:
            values[:, at] = table.column(str(position)).cast(pa.float64()).to_numpy()
    return values


def _at_once(
    numbers: NDArray[np.float64], piece: bytes, line: int, layout: Layout, outcome: str | None, size: int
) -> Iterator[Block]:
    """Make blocks of the numbers of a piece that begins at a line."""
    for start in range(0, len(numbers), size):
        part = numbers[start : start + size]
        lines = np.arange(line + start, line + start + len(part))
        rows_at = partial(_rows_at, piece, line, layout, lines)
        yield block_of_numbers(part, lines, outcome, rows_at, text=True)


def _rows_at(
    piece: bytes, line: int, layout: Layout, lines: NDArray[np.int64], odd: NDArray[np.intp]
) -> list[Row]:
    """Read some lines of a piece again, cell by cell."""
    texts, numbers = piece.split(b"\n"), lines[odd].tolist()
    with _text(BytesIO(b"\n".join(texts[number - line] for number in numbers))) as file:
        rows = picked(records(file, layout.delimiter), layout)
        return [Row(number, row.cells) for number, row in zip(numbers, rows, strict=True)]


def _by_line(file: IO[bytes], line: int, layout: Layout, outcome: str | None, size: int) -> Iterator[Block]:
    """Read what is left of a file, which stands at a line, and close it."""
    with _text(file) as text:
        rows = picked(records(text, layout.delimiter, first=line), layout)
        while some := list(islice(rows, size)):
            yield block_of(some, outcome, text=True)


def _text(file: IO[bytes]) -> IO[str]:
    # What is no UTF-8 becomes a surrogate: its line is refused, and the rest is read.
    return TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")


def _is_utf8(piece: bytes) -> bool:
    try:
        return piece.isascii() or bool(piece.decode())
    except UnicodeDecodeError:
        return False


def _count(piece: bytes) -> int:
    return piece.count(b"\n") + (not piece.endswith(b"\n"))
