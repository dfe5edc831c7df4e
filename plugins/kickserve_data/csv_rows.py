"""Takes CSV apart into rows by line; what is broken spoils its own line, not those after it."""

from __future__ import annotations

import csv
from collections import deque
from operator import itemgetter
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Cells = list[Any] | tuple[Any, ...]


class Row(NamedTuple):
    """A line as it stands in the file; its cells, or why there are none."""

    line: int
    cells: Cells | str


class Layout(NamedTuple):
    """How a table is laid out.

    Attributes:
        header: the names as they stand there.
        delimiter: what stands between cells.
        positions: of the columns that are wanted; None makes one of empty cells.
        plain: whether the header is the first line, which ends in a line feed, and has no quotes.
    """

    header: list[str]
    delimiter: str
    positions: list[int | None]
    plain: bool = False


def picked(rows: Iterable[Row], layout: Layout) -> Iterator[Row]:
    """Pick the columns that are wanted out of rows, the header not among them."""
    pick = itemgetter(*(-1 if at is None else at for at in layout.positions))
    for line, cells in rows:
        if isinstance(cells, str):
            yield Row(line, cells)
        elif len(cells) != len(layout.header):
            yield Row(line, f"has {len(cells)} cells where the header has {len(layout.header)}")
        else:
            yield Row(line, pick((*cells, "")))  # the last is for what no column tells


def records(file: IO[str], delimiter: str, *, first: int = 1) -> Iterator[Row]:
    """Take CSV apart, the header included; blank lines are left out.

    Args:
        file: opened with `newline=""` and `errors="surrogateescape"`, so that bytes which are no UTF-8 spoil
            their own line alone.
        delimiter: what stands between cells.
        first: number of the line where the file stands.

    Yields:
        Each row by the line on which it begins, with its cells as text, or why there are none.
    """
    waiting: deque[str] = deque()

    def following() -> str:
        return waiting.popleft() if waiting else file.readline()

    number = first
    for line in iter(following, ""):
        cells: list[str] | str
        count, clean = 1, line.isascii() and "\0" not in line
        fault = "" if clean else spoilt(line)
        if '"' in line:
            cells, taken, back = _quoted(line, following, delimiter)
            waiting.extendleft(reversed(back))
            count, fault = len(taken), spoilt("".join(taken))
        else:
            cells = line.rstrip("\r\n").split(delimiter)  # much faster than csv
        if fault or len(cells) > 1 or line.strip():
            yield Row(number, fault or cells)
        number += count


def _quoted(
    line: str, following: Callable[[], str], delimiter: str
) -> tuple[list[str] | str, list[str], list[str]]:
    """Take apart a row with quotes, which may go on over lines.

    Returns:
        The cells, or why there are none; the lines that they took; and the lines to be read again. A quote
        that is not closed takes its own line only, not all the kicks after it.
    """
    taken: list[str] = []

    def feed() -> Iterator[str]:
        more = line
        while more:
            taken.append(more)
            yield more
            more = following()

    try:
        return next(csv.reader(feed(), delimiter=delimiter, strict=True)), taken, []
    except csv.Error as error:
        return f"can't be read: {error}. Is a quote left open?", taken[:1], taken[1:]


def spoilt(text: str) -> str:
    """Say why this is no text; nothing where it is."""
    if "\0" in text:
        return "holds a NUL byte: save the file as UTF-8"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8: save the file as UTF-8"
    return ""
