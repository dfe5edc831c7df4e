"""An open file of kicks, whatever its kind."""

from __future__ import annotations

import lzma
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from kickserve_data import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from kickserve_data.kicks import Block, CellReader, Row

T = TypeVar("T")

_TEXT_BLOCK: Final = 8_192  # rows
_COLUMNS_BLOCK: Final = 65_536
_BROKEN: Final = (OSError, EOFError, RecursionError, ValueError, zlib.error, lzma.LZMAError)  # by some reader


@dataclass(slots=True, eq=False, weakref_slot=True)
class KickFile:
    """An open file, which is read once.

    Attributes:
        path: of the file.
        rows: row by row; their cells are the columns asked for, then the outcome, then the kicker where the
            file names one.
        cells: turns them into kicks.
        others: the `pyarrow.Schema` of other columns that can be carried along; None for all but Parquet.
        columns: reads blocks column by column; None for a file that is read row by row.
        header: the names of all columns; of JSON those of the first objects.
    """

    path: Path
    rows: Iterator[Row]
    cells: CellReader
    others: Any = None
    columns: Callable[[int, Sequence[str]], Iterator[Block]] | None = None
    header: Sequence[str] = ()

    @property
    def block_size(self) -> int:
        """Rows that go together best: more of Parquet, which never become objects of Python."""
        return _COLUMNS_BLOCK if self.columns else _TEXT_BLOCK

    def blocks(self, size: int, others: Sequence[str] = ()) -> Iterator[Block]:
        """Read blocks of `size` rows, of Parquet with long rows fewer, and carry other columns along."""
        if self.columns is not None:
            yield from guarded(self.path, self.columns(size, others))
        else:
            while rows := list(islice(self.rows, size)):
                yield self.cells.block(rows)
        self.report()

    def report(self) -> None:
        """Say in the terminal, at the end, what was read as what."""
        from kickserve.terminal import say

        for note in self.cells.notes():
            say(f"{self.path}: {note}")


@contextmanager
def readable(path: object) -> Iterator[None]:
    """Turn the errors of reading a file into a `DataError` that names it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder: name a file") from None
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} can't be read: {reason}. Check the file, or write it again") from error


def guarded(path: Path, items: Iterator[T]) -> Iterator[T]:
    """Yield items as `readable` has them: a file can be broken in its middle too."""
    with readable(path):
        yield from items
