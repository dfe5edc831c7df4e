"""Kicks as numbers: checks the rows of a file, and refuses each that holds no kick with a reason."""

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

IS_FLAG: Final = (*(feature.kind == "flag" for feature in FEATURES), True)
"""Whether a column holds flags: the eleven features, then the outcome."""

_WORDS: Final = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "": math.nan}
_BITS: Final = {0: 0.0, 1: 1.0, None: math.nan}  # true and false as well: they equal 1 and 0
_SHOWN: Final = 10  # refused rows that a person sees
_LONGEST_SHOWN: Final = 40  # characters of a cell

Cells = tuple[Any, ...]
Row = tuple[int, Cells | str]
"""A row of a file: its line, and its cells, or the reason why it has none.

Plain tuples, because Python's collector of garbage soon leaves those of text and numbers alone: with a class
of their own, a file takes half as long again.
"""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that holds no kick.

    Attributes:
        line: as an editor counts, from 1; in Parquet the row, from 1.
        reason: column, value, and what the value must be.
    """

    line: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some kicks of a file.

    Attributes:
        lines: shape (n,), the line of each kick.
        matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.
        outcome: shape (n,), 1 for a success, 0 for a miss, NaN where unknown; None without such a column.
        refusals: the rows among them that hold no kick.
        others: other columns of the file, where asked for: a `pyarrow.RecordBatch` of n rows.
        odd: shape (m, 12), features and outcome of the refused rows, NaN where a cell holds no number; rows
            without cells are left out.
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
    """Turn rows into kicks, and refuse rows that hold none.

    Args:
        rows: cells are the eleven features, then the outcome.
        outcome: name of the outcome's column; None where the file has none.
        text: whether all cells are text, as in CSV; elsewhere `"1"` is no number.
    """
    whole = [(line, cells) for line, cells in rows if not isinstance(cells, str)]
    values = _numbers([cells for _, cells in whole], text=text)
    success = values[:, COUNT]
    good = acceptable(values[:, :COUNT]).all(axis=1) & (np.isnan(success) | (success == 0) | (success == 1))
    for at in np.flatnonzero(np.isnan(success)).tolist():
        good[at] &= not _is_filled(whole[at][1][COUNT])
    refusals = [RefusedRow(line, cells) for line, cells in rows if isinstance(cells, str)]
    for at in np.flatnonzero(~good).tolist():
        line, cells = whole[at]
        refusals.append(RefusedRow(line, _reason(cells, values[at], outcome)))
    return Block(
        lines=np.array([line for line, _ in whole], dtype=np.int64)[good],
        matrix=values[good, :COUNT],
        outcome=None if outcome is None else success[good],
        refusals=sorted(refusals, key=lambda refused: refused.line),
        odd=values[~good],
    )


def block_of_columns(
    values: NDArray[np.float64],
    lines: NDArray[np.int64],
    outcome: str | None,
    rows_at: Callable[[NDArray[np.intp]], Iterable[Row]],
    others: Any,
) -> Block:
    """Make a block of kicks that were read column by column.

    Args:
        values: shape (n, 12), features and outcome; NaN for an empty cell, infinity for no number.
        lines: shape (n,), the line of each kick.
        outcome: name of the outcome's column; None where the file has none.
        rows_at: reads some of the n rows again, cell by cell: the refused ones, for their reasons.
        others: other columns, as `Block.others`.
    """
    block = Block(lines, values[:, :COUNT], None if outcome is None else values[:, COUNT], [], others)
    success = values[:, COUNT]
    good = acceptable(values[:, :COUNT]).all(axis=1)
    good &= np.isnan(success) | (success == 0) | (success == 1)
    if good.all():
        return block
    refused = block_of(list(rows_at(np.flatnonzero(~good))), outcome)
    return replace(block.where(good), refusals=refused.refusals, odd=refused.odd)


def number(cell: Any, *, flag: bool, text: bool) -> float:
    """Return the number in a cell; NaN for anything else, and for true and false in a column of numbers."""
    if isinstance(cell, str):
        cell = cell.strip().lower()
        # `float` alone would take 3_0 and the digits of other scripts as well.
        if not text or not cell.isascii() or "_" in cell:
            return math.nan
        if flag and cell in _WORDS:
            return _WORDS[cell]
    elif isinstance(cell, bytes) or (isinstance(cell, bool) and not flag):
        return math.nan
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def must_be(name: str | None, cell: Any, wanted: str) -> str:
    """Say that a cell of this column must be something else."""
    comma = isinstance(cell, str) and "," in cell
    shown = repr(cell)
    shown = shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + "…"
    return f"{name} {shown} must be {wanted}{', with a decimal point' if comma else ''}"


def show_refusals(refusals: Sequence[RefusedRow], count: int) -> None:
    """Write the first refused rows and their reasons to the terminal; `count` is the number of all."""
    from kickserve.terminal import say

    for refused in refusals[:_SHOWN]:
        say(f"line {refused.line}: {refused.reason}")
    if count > _SHOWN:
        say(f"... and {count - _SHOWN:,} more refused lines (--json lists them)")


def _numbers(rows: Sequence[Cells], *, text: bool) -> NDArray[np.float64]:
    values = np.empty((len(rows), COUNT + 1))
    for at, cells in enumerate(zip(*rows, strict=True)):
        values[:, at] = _column(cells, flag=IS_FLAG[at], text=text)
    return values


def _column(cells: Sequence[Any], *, flag: bool, text: bool) -> list[float]:
    """Convert cells all at once where each is spelt as usual, else one by one."""
    try:
        if not flag:
            return msgspec.convert(cells, list[float], strict=not text)
        usual: Mapping[Any, float] = _WORDS if text else _BITS
        return [usual[cell] for cell in cells]
    except (KeyError, TypeError, msgspec.ValidationError):  # TypeError: a list or object of JSON
        return [number(cell, flag=flag, text=text) for cell in cells]


def _is_filled(cell: Any) -> bool:
    if isinstance(cell, str):
        return bool(cell.strip())
    return cell is not None and not (isinstance(cell, float) and math.isnan(cell))


def _reason(cells: Cells, values: NDArray[np.float64], outcome: str | None) -> str:
    """Say why the first cell that does not fit is refused."""
    fits = acceptable(values[None, :COUNT])[0]
    for feature, cell, fit in zip(FEATURES, cells, fits, strict=False):
        if not fit and not _is_filled(cell):
            return f"{feature.name} is missing: must be {feature.wanted}"
        if not fit:
            return must_be(feature.name, cell, feature.wanted)
    return must_be(outcome, cells[COUNT], "1, 0 or empty")
