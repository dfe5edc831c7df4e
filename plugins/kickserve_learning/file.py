"""Reads a file of kicks with outcomes and kickers, in its order, and scores the kicks with a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kickserve.features import NAMES
from kickserve.plugins import predict
from kickserve_data import DataError
from kickserve_data.columns import KICKERS, OUTCOMES
from kickserve_data.reader import open_kicks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from kickserve.plugins import Model
    from kickserve_data.kicks import Block, CellReader, RefusedRow


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
        kicker: the column of kickers; None for one of `kickserve_data.columns.KICKERS`, if the file has one.
        outcome: the column of outcomes; None for one of `kickserve_data.columns.OUTCOMES`.
        advance: called with each count of rows that were read.

    Raises:
        DataError: the file can't be read, columns are missing, or it has no kick with an outcome.
        MissingExtra: a package for this kind of file is not installed.
        PredictionFailed: the model failed.
    """
    outcomes = (outcome,) if outcome else OUTCOMES
    source = open_kicks(path, NAMES, outcomes, (kicker,) if kicker else KICKERS)
    if source.cells.outcome is None:
        raise DataError(f"{path} has no column {outcomes[0]}: name the column of outcomes with --outcome")
    if kicker and source.cells.kicker is None:
        raise DataError(f"{path} has no column {kicker}, or more than one: --kicker names that of kickers")
    parts: list[Heard] = []
    for block in source.blocks(source.block_size):
        parts.append(_part(block, source.cells, model))
        advance(len(block.lines) + len(block.refusals))
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
        named=source.cells.kicker is not None,
    )


def _part(block: Block, cells: CellReader, model: Model) -> Heard:
    known = cells.known(block)
    return Heard(
        matrix=known.matrix,
        base=predict(model, known.matrix).probability if len(known.lines) else np.empty(0),
        kicker=[None] * len(known.lines) if known.kickers is None else known.kickers,
        success=np.asarray(known.outcome) == 1,
        lines=known.lines,
        refusals=known.refusals,
        named=known.kickers is not None,
    )
