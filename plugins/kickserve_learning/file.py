"""Reads a file of kicks with outcomes and kickers, in its order, and scores the kicks with a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.features import INDEX, NAMES
from kickserve.plugins import predict, say
from kickserve_data import DataError
from kickserve_data.columns import DATES, KICKERS, OUTCOMES, USUAL
from kickserve_data.reader import open_kicks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from kickserve.plugins import Model
    from kickserve_data.kicks import Block, CellReader, RefusedRow

_AS_THEY_ARE: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """The kicks of a file whose outcome is known, in the order of time.

    Attributes:
        base: shape (n,), the model's own probabilities.
        kicker: label of each kick's kicker; None for an unnamed one.
        success: shape (n,), the outcomes.
        lines: shape (n,), the line of each kick in the file.
        refusals: rows that hold no kick, or no outcome.
        named: whether the file names kickers.
    """

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
    features: Mapping[str, str] = _AS_THEY_ARE,
    advance: Callable[[int], object] = lambda _: None,
) -> Heard:
    """Read a file, and score its kicks; but for distance and angle, what they lack is taken to be as usual.

    Args:
        path: a CSV, Parquet or NDJSON file, or a spreadsheet.
        model: scores the kicks.
        kicker: the column of kickers; None for one of `kickserve_data.columns.KICKERS`, if the file has one.
        outcome: the column of outcomes; None for one of `kickserve_data.columns.OUTCOMES`.
        features: columns by the names of the features, where the two differ.
        advance: called with each count of rows that were read.

    Raises:
        DataError: the file can't be read, columns are missing, or it has no kick with an outcome.
        MissingExtra: a package for this kind of file is not installed.
        PredictionFailed: the model failed.
    """
    outcomes = (outcome,) if outcome else OUTCOMES
    columns = [features.get(name, name) for name in NAMES]
    usual = {features.get(name, name): value for name, value in USUAL.items()}
    source = open_kicks(path, columns, outcomes, (kicker,) if kicker else KICKERS, usual=usual)
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
    heard = Heard(
        base=np.concatenate([part.base for part in parts]),
        kicker=[each for part in parts for each in part.kicker],
        success=np.concatenate([part.success for part in parts]),
        lines=np.concatenate([part.lines for part in parts]),
        refusals=sorted((each for part in parts for each in part.refusals), key=lambda each: each.line),
        named=source.cells.kicker is not None,
    )
    return _in_time(path, columns[INDEX["distance"]], heard)


def _in_time(path: Path, column: str, heard: Heard) -> Heard:
    """Put kicks into the order of the file's dates, if it has such a column; those of a day stay as they are.

    Args:
        path: of the file; a pipe can't be read again.
        column: any that the file has.
        heard: its kicks.
    """
    if not path.is_file():
        return heard
    source = open_kicks(path, (column,), DATES)
    cells = {line: row[-1] for line, row in source.rows if not isinstance(row, str)}
    dates = [cells.get(line) for line in heard.lines.tolist()]
    if not any(dates):
        return heard
    moments = [*map(_moment, dates)]
    if None in moments:
        unread = dates[moments.index(None)]
        say(f"note: kicks in the order of the file: {unread!r} is no date as 2012-03-17")
        return heard
    order = np.argsort(np.array(moments), kind="stable")
    if (np.diff(order) > 0).all():
        return heard
    say("note: kicks in the order of their dates, not in that of the file")
    return replace(
        heard,
        base=heard.base[order],
        kicker=[heard.kicker[at] for at in order.tolist()],
        success=heard.success[order],
        lines=heard.lines[order],
    )


def _moment(cell: Any) -> float | None:
    """Return the seconds since 1970 of a date, or a date and a time, in ISO 8601; None for another cell."""
    try:
        found = datetime.fromisoformat(str(cell).strip())
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _part(block: Block, cells: CellReader, model: Model) -> Heard:
    known = cells.known(block)
    return Heard(
        base=predict(model, known.matrix).probability if len(known.lines) else np.empty(0),
        kicker=[None] * len(known.lines) if known.kickers is None else known.kickers,
        success=np.asarray(known.outcome) == 1,
        lines=known.lines,
        refusals=known.refusals,
        named=known.kickers is not None,
    )
