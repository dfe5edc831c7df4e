"""From the rows of a file to kicks as numbers; a row that holds none is refused, with what is wrong in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from kickserve.features import COUNT, FEATURES, acceptable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve_data.csv_rows import Cells, Row

_WORDS: Final = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "": math.nan}
_BITS: Final = {0: 0.0, 1: 1.0, None: math.nan}  # true and false as well: they equal 1 and 0
IS_FLAG: Final = (*(feature.kind == "flag" for feature in FEATURES), True)
"""Whether each of the eleven features, and what came of the kick, is a flag."""

_SHOWN: Final = 10  # refused rows that a person sees
_LONGEST_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class RefusedRow:
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
        others: the columns beside, where they were asked for: a `pyarrow.RecordBatch` of n rows.
        odd: shape (m, 12), features and outcome of the refused lines, NaN where a cell holds no number; lines
            that have no cells are not among them.
    """

    lines: NDArray[np.int64]
    matrix: NDArray[np.float64]
    outcome: NDArray[np.float64] | None
    refusals: list[RefusedRow]
    others: Any = None
    odd: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, COUNT + 1)))

    def where(self, mask: NDArray[np.bool_]) -> Block:
        """Keep only the kicks where a mask of shape (n,) is true; and all refusals."""
        return replace(
            self,
            lines=self.lines[mask],
            matrix=self.matrix[mask],
            outcome=None if self.outcome is None else self.outcome[mask],
            others=None if self.others is None else self.others.filter(mask),
        )


def block_of(rows: Sequence[Row], outcome: str | None, *, text: bool = False) -> Block:
    """Turn rows into kicks, and refuse those that hold none.

    Args:
        rows: each with the eleven features and what came of the kick, or with why it has no cells.
        outcome: the column that tells what came of the kicks; None where there is none.
        text: whether all cells are text, as in CSV; elsewhere `"1"` is no number.
    """
    refusals = [RefusedRow(line, cells) for line, cells in rows if isinstance(cells, str)]
    whole = [(line, cells) for line, cells in rows if not isinstance(cells, str)]
    cells = [cells for _, cells in whole]
    values = _numbers(cells, text=text)
    success = values[:, COUNT]
    told = np.array([_is_told(row[COUNT]) for row in cells], dtype=bool)
    good = acceptable(values[:, :COUNT]).all(axis=1) & (~told | (success == 0) | (success == 1))
    refusals += [
        RefusedRow(whole[at][0], _reason(whole[at][1], values[at], outcome)) for at in np.flatnonzero(~good)
    ]
    return Block(
        lines=np.array([line for line, _ in whole], dtype=np.int64)[good],
        matrix=values[good, :COUNT],
        outcome=None if outcome is None else success[good],
        refusals=sorted(refusals, key=lambda refusal: refusal.line),
        odd=values[~good],
    )


def block_of_numbers(
    values: NDArray[np.float64],
    lines: NDArray[np.int64],
    outcome: str | None,
    rows_at: Callable[[NDArray[np.intp]], Iterable[Row]],
    *,
    text: bool = False,
    others: Any = None,
) -> Block:
    """Make a block of kicks that were read all at once, column by column.

    Args:
        values: shape (n, 12), features and what came of the kick; NaN where a cell tells nothing.
        lines: shape (n,), where each kick stands.
        outcome: as for `block_of`, and so is `text`.
        rows_at: reads some of the n again, cell by cell: those that hold no kick, for the reasons.
        text: see there.
        others: columns beside, as the block has them.
    """
    block = Block(lines, values[:, :COUNT], None if outcome is None else values[:, COUNT], [], others)
    success = values[:, COUNT]
    good = acceptable(values[:, :COUNT]).all(axis=1)
    good &= np.isnan(success) | (success == 0) | (success == 1)
    if good.all():
        return block
    refused = block_of(list(rows_at(np.flatnonzero(~good))), outcome, text=text)
    return replace(block.where(good), refusals=refused.refusals, odd=refused.odd)


def _numbers(rows: Sequence[Cells], *, text: bool) -> NDArray[np.float64]:
    values = np.empty((len(rows), COUNT + 1))
    for at, cells in enumerate(zip(*rows, strict=True)):
        values[:, at] = _column(cells, flag=IS_FLAG[at], text=text)
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
    return [number(cell, flag=flag, text=text) for cell in cells]


def number(cell: Any, *, flag: bool, text: bool) -> float:
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


def _reason(cells: Cells, values: NDArray[np.float64], outcome: str | None) -> str:
    """Say what is wrong with the first cell that is."""
    fits = acceptable(values[None, :COUNT])[0]
    for feature, cell, fit in zip(FEATURES, cells, fits, strict=False):
        if not fit and not _is_told(cell):
            return f"{feature.name} is missing: must be {feature.wanted}"
        if not fit:
            return must_be(feature.name, cell, feature.wanted)
    return must_be(outcome, cells[COUNT], "1, 0 or empty")


def must_be(name: str | None, cell: Any, wanted: str) -> str:
    """Say that a cell of this column must be something else."""
    comma = isinstance(cell, str) and "," in cell
    return f"{name} {_shown(cell)} must be {wanted}{', with a decimal point' if comma else ''}"


def _shown(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def show_refusals(refusals: Sequence[RefusedRow], count: int) -> None:
    """Write the first refused rows and their reasons; `count` is how many there are in all."""
    from kickserve.terminal import say

    for refused in refusals[:_SHOWN]:
        say(f"line {refused.line}: {refused.reason}")
    if count > _SHOWN:
        say(f"... and {count - _SHOWN:,} more refused lines (--json lists them)")
