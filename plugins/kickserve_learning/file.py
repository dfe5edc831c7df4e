"""Reads a file of kicks with outcomes and kickers, in its order, and scores the kicks with a model."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.features import NAMES
from kickserve.plugins import predict
from kickserve.schemas import kicker_of
from kickserve_data import DataError
from kickserve_data.columns import OUTCOMES
from kickserve_data.kicks import RefusedRow
from kickserve_data.reader import open_kicks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kickserve.plugins import Model
    from kickserve_data.kicks import CellReader, Row

KICKER: Final = "kicker"
"""The column of kickers that is looked for where none is named."""
_BLOCK: Final = 8_192  # rows at a time


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """The kicks of a file whose outcome is known, in the order of the file.

    Attributes:
        matrix: shape (n, 11), in the order of `kickserve.features.NAMES`.
        base: shape (n,), the model's own probabilities.
        kicker: label of each kick's kicker; None for an unnamed one.
        success: shape (n,), the outcomes.
        lines: shape (n,), the line of each kick in the file.
        refusals: rows that hold no kick, or no outcome.
        named: whether the file names kickers.
    """

    matrix: NDArray[np.float64]
    base: NDArray[np.float64]
    kicker: list[str | None]
    success: NDArray[np.bool_]
    lines: NDArray[np.int64]
    refusals: list[RefusedRow]
    named: bool


def read_heard(
    path: Path,
    model: Model,
    *,
    kicker: str | None = None,
    outcome: str | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> Heard:
    """Read a file, and score its kicks.

    Args:
        path: a CSV, Parquet or NDJSON file, or a spreadsheet.
        model: scores the kicks.
        kicker: the column of kickers; None for `kicker`, where the file has it.
        outcome: the column of outcomes; None for one of `kickserve_data.columns.OUTCOMES`.
        advance: called with each count of rows that were read.

    Raises:
        DataError: the file can't be read, columns are missing, or it has no kick with an outcome.
        MissingExtra: a package for this kind of file is not installed.
        PredictionFailed: the model failed.
    """
    column = kicker or (KICKER if _has_column(path, KICKER) else None)
    outcomes = (outcome,) if outcome else OUTCOMES
    source = open_kicks(path, [*NAMES, column] if column else NAMES, outcomes)
    if source.cells.outcome is None:
        raise DataError(f"{path} has no column {outcomes[0]}: name the column of outcomes with --outcome")
    parts: list[Heard] = []
    while rows := list(islice(source.rows, _BLOCK)):
        parts.append(_part(rows, source.cells, model, named=column is not None))
        advance(len(rows))
    source.report()
    if not any(len(part.base) for part in parts):
        reason = next((f": line {each.line}: {each.reason}" for part in parts for each in part.refusals), "")
        raise DataError(f"{path} has no kick with an outcome{reason}")
    return Heard(
        matrix=np.concatenate([part.matrix for part in parts]),
        base=np.concatenate([part.base for part in parts]),
        kicker=[each for part in parts for each in part.kicker],
        success=np.concatenate([part.success for part in parts]),
        lines=np.concatenate([part.lines for part in parts]),
        refusals=sorted((each for part in parts for each in part.refusals), key=lambda each: each.line),
        named=column is not None,
    )


def _has_column(path: Path, name: str) -> bool:
    """Say whether a file has a column; a pipe, which can be read once, has none."""
    if path.is_file():
        with suppress(DataError):
            open_kicks(path, [name])
            return True
    return False


def _part(rows: Sequence[Row], cells: CellReader, model: Model, *, named: bool) -> Heard:
    kickers: dict[int, str | None] = {}
    if named:
        rows = [_without_kicker(row, kickers) for row in rows]
    block: Any = cells.block(rows)  # with outcomes: the column is there
    unknown = np.isnan(block.outcome)
    refusals = [
        RefusedRow(line, f"{cells.outcome} is missing, or can't be read: must be 1 or 0")
        for line in block.lines[unknown].tolist()
    ]
    block = block.where(~unknown)
    return Heard(
        matrix=block.matrix,
        base=predict(model, block.matrix).probability if len(block.lines) else np.empty(0),
        kicker=[kickers.get(line) for line in block.lines.tolist()],
        success=block.outcome == 1,
        lines=block.lines,
        refusals=[*block.refusals, *refusals],
        named=named,
    )


def _without_kicker(row: Row, kickers: dict[int, str | None]) -> Row:
    """Take the kicker's cell, the one before the outcome, out of a row."""
    line, cells = row
    if isinstance(cells, str):
        return row
    *features, kicker, outcome = cells
    missing = kicker is None or kicker != kicker  # noqa: PLR0124  the quick test for NaN, as of Parquet
    kickers[line] = None if missing else kicker_of(str(kicker)) or None
    return line, (*features, outcome)
