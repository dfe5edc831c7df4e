"""Reads the kicks to train a model on, under the column names of any file, and divides them into folds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.features import BY_NAME, COUNT, INDEX, NAMES, acceptable
from kickserve_data import DataError
from kickserve_data.columns import OUTCOMES
from kickserve_data.kicks import RefusedRow
from kickserve_data.reader import open_kicks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kickserve_data.kicks import Block, CellReader, Row

_KMH: Final = 3.6  # in a metre a second
_BLOCK: Final = 8_192  # rows that are Python objects at a time
_WIND: Final = INDEX["wind_speed"]


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """The names that a file has for the columns of a data set.

    Attributes:
        features: names in the file by name of the feature, where the two differ.
        outcome: the column of 1 or 0; None for one of `kickserve_data.columns.OUTCOMES`.
        kicker: the column that names the kicker; None where no column does.
        wind_in_ms: whether `wind_speed` is in metres a second there.
    """

    features: Mapping[str, str] = field(default_factory=dict)
    outcome: str | None = None
    kicker: str | None = None
    wind_in_ms: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Kicks with a known outcome.

    Attributes:
        matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.
        success: shape (n,), the outcome of each.
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

    def inverse_of_kickers(self) -> float:
        """Return Σn²/(Σn)² over kickers of n kicks: 1 over their number, if all have as many; 0 unnamed."""
        if self.kicker is None:
            return 0.0
        counts = np.bincount(self.kicker).astype(np.float64)
        return float(np.sum(counts**2) / np.sum(counts) ** 2)

    def take(self, which: NDArray[Any]) -> Dataset:
        """Return some of the kicks, by mask or by position."""
        return Dataset(
            self.matrix[which], self.success[which], None if self.kicker is None else self.kicker[which]
        )

    def with_success(self, success: NDArray[np.bool_]) -> Dataset:
        """Return the same kicks with other outcomes, shape (n,)."""
        return Dataset(self.matrix, success, self.kicker)

    def digest(self) -> str:
        """Return 16 hexadecimal digits (SHA-256) that are the same for the same kicks in any order."""
        rows = np.column_stack([self.matrix, self.success])
        ordered = np.ascontiguousarray(rows[np.lexsort(rows.T)])
        return hashlib.sha256(ordered.tobytes()).hexdigest()[:16]


def read_dataset(
    path: Path, names: ColumnNames, advance: Callable[[int], None]
) -> tuple[Dataset, list[RefusedRow]]:
    """Read kicks with a known outcome.

    Args:
        path: a CSV, Parquet or NDJSON file.
        names: of its columns.
        advance: called with each count of rows that were read.

    Returns:
        The kicks, and the rows that hold no kick to train on, by line.

    Raises:
        DataError: the file can't be read, or columns are missing.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    columns = [names.features.get(name, name) for name in NAMES] + ([names.kicker] if names.kicker else [])
    outcomes = (names.outcome,) if names.outcome else OUTCOMES
    source = open_kicks(path, columns, outcomes)
    if source.cells.outcome is None:
        raise DataError(f"{path} has no column {outcomes[0]}: name it with --outcome")
    reader = _Reader(names, source.cells)
    while rows := list(islice(source.rows, _BLOCK)):
        reader.add(rows)
        advance(len(rows))
    source.report()
    return reader.dataset(), sorted(reader.refusals, key=lambda refusal: refusal.line)


def groups_of(dataset: Dataset) -> NDArray[np.intp]:
    """Number the groups that must not be divided, shape (n,): the kicks of a kicker, or equal kicks.

    A kick that occurs twice would otherwise be learnt in one fold and predicted in another.
    """
    if dataset.kicker is not None:
        return dataset.kicker
    return np.unique(dataset.matrix, axis=0, return_inverse=True)[1].ravel()


def folds_of(groups: NDArray[np.intp], count: int, seed: int) -> NDArray[np.intp]:
    """Give each kick the number of its fold.

    Args:
        groups: shape (n,), from 0.
        count: of the folds.
        seed: of the order in which groups fill the folds, one after the other.

    Returns:
        Shape (n,), 0 to `count` - 1; a group is in one fold as a whole.
    """
    sizes = np.bincount(groups)
    order = np.random.default_rng([seed, 1]).permutation(len(sizes))
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    fold_of_group = np.empty(len(sizes), dtype=np.intp)
    fold_of_group[order] = np.minimum(middle * count / len(groups), count - 1).astype(np.intp)
    result: NDArray[np.intp] = fold_of_group[groups]
    return result


def sample_of(groups: NDArray[np.intp], most: int, seed: int) -> NDArray[np.intp]:
    """Choose whole groups at random until they hold about `most` kicks; return the positions, rising."""
    if len(groups) <= most:
        return np.arange(len(groups))
    sizes = np.bincount(groups)
    order = np.random.default_rng([seed, 2]).permutation(len(sizes))
    chosen = order[: max(int(np.searchsorted(np.cumsum(sizes[order]), most, side="right")), 1)]
    return np.flatnonzero(np.isin(groups, chosen))


class _Reader:
    """Collects the kicks of a file."""

    def __init__(self, names: ColumnNames, cells: CellReader) -> None:
        self._names = names
        self._cells = cells
        self._parts = [Dataset(np.empty((0, COUNT)), np.empty(0, bool), np.empty(0, np.intp))]
        self._numbers: dict[str, int] = {}  # of the kickers
        self.refusals: list[RefusedRow] = []

    def add(self, rows: Sequence[Row]) -> None:
        kickers, rows = _split_kickers(rows) if self._names.kicker else ({}, rows)
        block: Any = self._cells.block(rows)  # with outcomes: the column is there
        self.refusals += block.refusals
        unknown = np.isnan(block.outcome)
        block = self._refuse(
            block, unknown, lambda _: f"{self._cells.outcome} is missing, or can't be read: must be 1 or 0"
        )
        if self._names.wind_in_ms:
            block = self._in_kmh(block)
        if self._names.kicker:
            unnamed = np.array([not kickers[line] for line in block.lines.tolist()], dtype=bool)
            block = self._refuse(block, unnamed, lambda _: f"{self._names.kicker} is missing")
        numbers = [
            self._numbers.setdefault(kickers.get(line, ""), len(self._numbers))
            for line in block.lines.tolist()
        ]
        self._parts.append(Dataset(block.matrix, block.outcome == 1, np.array(numbers, dtype=np.intp)))

    def dataset(self) -> Dataset:
        columns = zip(*((each.matrix, each.success, each.kicker) for each in self._parts), strict=True)
        matrix, success, kicker = map(np.concatenate, columns)
        return Dataset(matrix, success, kicker if self._names.kicker else None)

    def _in_kmh(self, block: Block) -> Block:
        wind = block.matrix[:, _WIND].copy()
        block.matrix[:, _WIND] *= _KMH
        wanted = BY_NAME["wind_speed"].wanted
        return self._refuse(
            block,
            np.logical_not(acceptable(block.matrix).all(axis=1)),
            lambda at: f"wind_speed {wind[at]:g} m/s is {wind[at] * _KMH:g} km/h: must be {wanted}",
        )

    def _refuse(self, block: Block, mask: NDArray[np.bool_], reason: Callable[[int], str]) -> Block:
        """Refuse the kicks of a block where a mask is true; return the others."""
        self.refusals += [
            RefusedRow(int(block.lines[at]), reason(at)) for at in np.flatnonzero(mask).tolist()
        ]
        return block.where(~mask)


def _split_kickers(rows: Sequence[Row]) -> tuple[dict[int, str], list[Row]]:
    """Take the kicker's cell, the one before the last, out of each row; return the names by line."""
    names: dict[int, str] = {}
    others: list[Row] = []
    for line, cells in rows:
        if isinstance(cells, str):
            others.append((line, cells))
            continue
        *features, kicker, outcome = cells
        names[line] = "" if kicker is None else str(kicker).strip()
        others.append((line, (*features, outcome)))
    return names, others
