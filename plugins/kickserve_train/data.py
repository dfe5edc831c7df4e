"""Reads kicks whose outcome is known, under whatever names a file has them, to train a model on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.errors import DataError
from kickserve.features import BY_NAME, COUNT, INDEX, NAMES, acceptable
from kickserve_data.kicks import RefusedRow, block_of
from kickserve_data.reader import OUTCOMES, open_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kickserve_data.csv_rows import Row
    from kickserve_data.kicks import Block

KMH: Final = 3.6
"""Kilometres an hour in a metre a second."""

_BLOCK: Final = 8_192  # rows that are Python objects at a time
_WIND: Final = INDEX["wind_speed"]


@dataclass(frozen=True, slots=True)
class Naming:
    """How a file names what training needs.

    Attributes:
        columns: names in the file by name of the feature, where the two differ.
        outcome: the column that says 1 or 0; None for one of `kickserve_data.reader.OUTCOMES`.
        kicker: the column that names the kicker; None where no column does.
        wind_in_ms: whether `wind_speed` is in metres a second there.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    outcome: str | None = None
    kicker: str | None = None
    wind_in_ms: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.columns if name not in NAMES]
        if unknown:
            raise DataError(f"{unknown[0]} is no feature of a kick; the features are {', '.join(NAMES)}")

    @property
    def wanted(self) -> list[str]:
        """The columns to read, the kicker's last where there is one."""
        return [*(self.columns.get(name, name) for name in NAMES), *([self.kicker] if self.kicker else [])]


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Kicks whose outcome is known.

    Attributes:
        matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.
        success: shape (n,), what came of each.
        kicker: shape (n,), a number for each kicker, from 0; None where the data name none.
    """

    matrix: NDArray[np.float64]
    success: NDArray[np.bool_]
    kicker: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def kickers(self) -> int | None:
        """How many kickers there are; None where the data name none."""
        return None if self.kicker is None else len(np.unique(self.kicker))

    def take(self, which: NDArray[Any]) -> Known:
        """Return some of the kicks, by mask or by position."""
        return Known(
            self.matrix[which], self.success[which], None if self.kicker is None else self.kicker[which]
        )

    def with_success(self, success: NDArray[np.bool_]) -> Known:
        """Return the same kicks with other outcomes, shape (n,)."""
        return Known(self.matrix, success, self.kicker)

    def digest(self) -> str:
        """Return 16 hexadecimal digits (SHA-256) that tell the same kicks again, whatever their order."""
        rows = np.column_stack([self.matrix, self.success])
        ordered = np.ascontiguousarray(rows[np.lexsort(rows.T)])
        return hashlib.sha256(ordered.tobytes()).hexdigest()[:16]


def read_known(
    path: Path, naming: Naming, progress: Callable[[int], None] | None = None
) -> tuple[Known, list[RefusedRow]]:
    """Read kicks whose outcome is known.

    Args:
        path: a CSV, Parquet or NDJSON file.
        naming: how it names what is needed.
        progress: called with each count of rows that were read.

    Returns:
        The kicks, and the lines that hold none that can be used, by line.

    Raises:
        DataError: the file can't be read, or columns are missing.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    outcomes = (naming.outcome,) if naming.outcome else OUTCOMES
    source = open_rows(path, naming.wanted, outcomes)
    if source.outcome is None:
        raise DataError(f"{path} has no column {' or '.join(outcomes)}: name it with --outcome")
    reader = _Reader(naming, source.outcome, text=source.text)
    for count in reader.take(source.rows):
        if progress:
            progress(count)
    return reader.result()


class _Reader:
    """Collects the kicks of a file."""

    def __init__(self, naming: Naming, outcome: str, *, text: bool) -> None:
        self._naming = naming
        self._outcome = outcome
        self._text = text
        self._blocks: list[Block] = []
        self._numbers: dict[str, int] = {}  # of the kickers
        self._kickers: list[NDArray[np.intp]] = []
        self._refusals: list[RefusedRow] = []

    def take(self, rows: Iterator[Row]) -> Iterator[int]:
        while some := list(islice(rows, _BLOCK)):
            self._add(some)
            yield len(some)

    def result(self) -> tuple[Known, list[RefusedRow]]:
        empty = np.empty((0, COUNT))
        matrix = np.concatenate([empty, *(block.matrix for block in self._blocks)])
        told = [block.outcome for block in self._blocks if block.outcome is not None]
        success = np.concatenate([np.empty(0), *told]) == 1
        kicker = np.concatenate([np.empty(0, np.intp), *self._kickers]) if self._naming.kicker else None
        refusals = sorted(self._refusals, key=lambda refusal: refusal.line)
        return Known(matrix, success, kicker), refusals

    def _add(self, rows: Sequence[Row]) -> None:
        named, rows = self._without_kicker(rows)
        block = self._usable(block_of(rows, self._outcome, text=self._text))
        unnamed = np.array([named.get(line) is None for line in block.lines.tolist()], dtype=bool)
        if self._naming.kicker:
            block = self._without(block, unnamed, lambda _: f"{self._naming.kicker} is missing")
            self._kickers.append(self._numbered([named[line] for line in block.lines.tolist()]))
        self._refusals += block.refusals
        self._blocks.append(block)

    def _without_kicker(self, rows: Sequence[Row]) -> tuple[dict[int, str | None], Sequence[Row]]:
        """Take the kicker's cell, the one before the last, out of each row."""
        if not self._naming.kicker:
            return {}, rows
        whole = [(row.line, row.cells) for row in rows if not isinstance(row.cells, str)]
        named = {line: _name(cells[COUNT]) for line, cells in whole}
        return named, [
            row if isinstance(row.cells, str) else row._replace(cells=[*row.cells[:COUNT], row.cells[-1]])
            for row in rows
        ]

    def _numbered(self, names: Sequence[str | None]) -> NDArray[np.intp]:
        numbers = self._numbers
        return np.array([numbers.setdefault(str(name), len(numbers)) for name in names], dtype=np.intp)

    def _usable(self, block: Block) -> Block:
        """Leave out kicks without outcome, and those whose wind is none once it is in km/h."""
        told = np.zeros(len(block.lines)) if block.outcome is None else block.outcome
        block = self._without(block, np.isnan(told), lambda _: f"{self._outcome} is missing: must be 1 or 0")
        if not self._naming.wind_in_ms:
            return block
        wind = block.matrix[:, _WIND].copy()
        block.matrix[:, _WIND] *= KMH
        wanted = BY_NAME["wind_speed"].wanted
        return self._without(
            block,
            np.logical_not(acceptable(block.matrix).all(axis=1)),
            lambda at: f"wind_speed {wind[at]:g} m/s is {wind[at] * KMH:g} km/h: must be {wanted}",
        )

    def _without(self, block: Block, mask: NDArray[np.bool_], reason: Callable[[int], str]) -> Block:
        """Refuse the kicks of a block where a mask is true."""
        if not mask.any():
            return block
        refused = [RefusedRow(int(block.lines[at]), reason(at)) for at in np.flatnonzero(mask).tolist()]
        kept = block.where(~mask)
        kept.refusals.extend(refused)
        return kept


def _name(cell: Any) -> str | None:
    text = "" if cell is None else str(cell).strip()
    return text or None
