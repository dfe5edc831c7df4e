"""Kicks as numbers: what the cells of a file mean, in the spellings of many programs and people."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass, field, replace
from itertools import compress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from kickserve.features import COUNT, FEATURES, NAMES, acceptable
from kickserve.model import TYPICAL
from kickserve.schemas import kicker_of
from kickserve.validation import kicker_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

UNREADABLE: Final = math.inf
"""The number of a cell that holds something else than its column."""

# Small letters without accents. A word with a space has `_` here. Excel's TRUE is in its user's language.
_YES: Final = (
    "1 1.0 t true y yes on vrai v oui o wahr ja j verdadero vero si sim verdadeiro waar adevarat ✓ ✔"
)
_NO: Final = "0 0.0 f false n no off faux non falsch nein falso nao onwaar nee fals ✗ ✘"
_MADE: Final = (
    "success successful succeeded succes s made make goal g good scored score converted hit over in ok pass"
    " passed but marque reussi reussie transforme transformee treffer verwandelt acierto anotado convertido"
    " convertida riuscito riuscita trasformato trasformata"
)
_MISSED: Final = (
    "failure failed fail unsuccessful miss missed no_goal not_made no_good not_good not_scored unconverted"
    " not_converted wide short out ko manque manquee rate ratee echec echoue echouee verfehlt daneben fallo"
    " fallado fallada errado errada fallito fallita sbagliato sbagliata"
)
_UNKNOWN: Final = " - -- \u2013 — . ? na n/a n.a. #n/a #na <na> nan nat null none nil \\n unknown inconnu"
_PLAIN: Final = frozenset({"", "true", "false"})  # nothing need be said of these
_DIGITS: Final = "01.,e+-"  # of numbers, which need no word either
_SHOWN: Final = 10  # refused rows that a person sees
_NAMED: Final = 4  # spellings, or outcomes that can't be read, that a person sees
_LONGEST_SHOWN: Final = 40  # characters of a cell
IS_FLAG: Final = (*(feature.kind == "flag" for feature in FEATURES), True)
"""Whether a column holds flags: the eleven features, then the outcome."""

_REMEMBERED: Final = 1_000  # spellings

Cells = tuple[Any, ...] | list[Any]
Row = tuple[int, Cells | str]
"""A row of a file: its line, and its cells, or the reason why it has none.

Plain tuples, because Python's collector of garbage soon leaves those of text and numbers alone: with a class
of their own, a file takes half as long again.
"""


# Words that are flags of one feature alone.
_SIDES: Final = (
    "left l gauche g links izquierda izq sinistra sx esquerda",
    "right r droite droit d rechts derecha der destra dx direita",
)
_WORDS: Final = {
    "is_left_side": _SIDES,
    "is_left_footed": _SIDES,
    "game_away": (
        "away a exterieur ext auswarts fuera visitante trasferta",
        "home h domicile dom heim casa local",
    ),
}


def _meanings(**words: str) -> dict[str, float]:
    values = {"yes": 1.0, "no": 0.0, "unknown": math.nan}
    return {word.replace("_", " "): values[name] for name, text in words.items() for word in text.split(" ")}


_FLAGS: Final = _meanings(yes=_YES, no=_NO, unknown=_UNKNOWN)
_OUTCOMES: Final = _FLAGS | _meanings(yes=_MADE, no=_MISSED)
_FLAGS_OF: Final = {name: _FLAGS | _meanings(yes=yes, no=no) for name, (yes, no) in _WORDS.items()}


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
        kickers: label of each kick's kicker, None for an unnamed one; None where they were not asked for, or
            the file has no such column.
        odd: shape (m, 12), features and outcome of the refused rows, NaN where a cell holds no number; rows
            without cells are left out.
    """

    lines: NDArray[np.int64]
    matrix: NDArray[np.float64]
    outcome: NDArray[np.float64] | None
    refusals: list[RefusedRow]
    others: Any = None
    kickers: list[str | None] | None = None
    odd: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, COUNT + 1)))

    def where(self, mask: NDArray[np.bool_]) -> Block:
        """Keep only the kicks where a mask of shape (n,) is true; and all refusals."""
        return replace(
            self,
            lines=self.lines[mask],
            matrix=self.matrix[mask],
            outcome=None if self.outcome is None else self.outcome[mask],
            others=None if self.others is None else self.others.filter(mask),
            kickers=None if self.kickers is None else [*compress(self.kickers, mask.tolist())],
        )


class CellReader:
    """Turns the cells of a file into kicks, and remembers which spellings it read as which values.

    Args:
        outcome: name of the outcome's column; None where the file has none.
        kicker: name of the column of kickers; None where the file has none, or labels are not wanted.
        usual: numbers by the places of features that may be missing in a row.

    Attributes:
        took: what was read as what, in words.
    """

    def __init__(
        self,
        outcome: str | None,
        kicker: str | None = None,
        usual: Mapping[int, float] = MappingProxyType({}),
    ) -> None:
        self.outcome = outcome
        self.kicker = kicker
        self._usual = usual
        self._filled: set[int] = set()
        self._labels = _Labels()
        self.took: list[str] = []
        flags = _Flags(_FLAGS)
        own = {name: _Flags(meanings) for name, meanings in _FLAGS_OF.items()}
        self._flags = [own.get(name, flags) for name in NAMES]
        self._outcomes = _Flags(_OUTCOMES)
        self._commas = False
        self._unreadable: list[str] = []  # the first of them, with their lines
        self._unreadable_count = 0

    def column(self, at: int, cells: Sequence[Any]) -> Sequence[float]:
        """Return the numbers in a column: all at once where each cell is spelt as usual.

        Args:
            at: 0 to 10 for a feature, 11 for the outcome.
            cells: of the column.

        Returns:
            NaN for an empty or unknown cell, `UNREADABLE` for one that holds something else.
        """
        if not IS_FLAG[at]:
            return self._numbers(cells, percent=FEATURES[at].high == 1)
        flags = self._outcomes if at == COUNT else self._flags[at]
        try:
            return [flags[cell] for cell in cells]
        except TypeError:  # a list or an object of JSON is no key
            return [flags.read(cell) for cell in cells]

    def labels(self, cells: Sequence[Any]) -> list[Label]:
        """Return the labels in the column of kickers."""
        return [self._labels[_unboxed(cell)] for cell in cells]

    def block(self, rows: Sequence[Row]) -> Block:
        """Turn rows into kicks, and refuse the others.

        Args:
            rows: cells are the eleven features, then the outcome, then the kicker, where the file has it.
        """
        whole = [(line, cells) for line, cells in rows if not isinstance(cells, str)]
        values = np.empty((len(whole), COUNT + 1))
        labels = None
        for at, column in enumerate(zip(*(cells for _, cells in whole), strict=True)):
            if at <= COUNT:
                values[:, at] = self.column(at, column)
            else:
                labels = self.labels(column)
        lines = np.array([line for line, _ in whole], dtype=np.int64)
        block, good = self.checked(values, lines, lambda at: whole[at][1][COUNT], labels=labels)
        refusals = [RefusedRow(line, cells) for line, cells in rows if isinstance(cells, str)]
        for at in np.flatnonzero(~good).tolist():
            line, cells = whole[at]
            fault = labels[at].fault if labels else None
            refusals.append(RefusedRow(line, _reason(cells, values[at], fault)))
        return replace(block, refusals=sorted(refusals, key=lambda refused: refused.line))

    def checked(
        self,
        values: NDArray[np.float64],
        lines: NDArray[np.int64],
        outcome_at: Callable[[int], Any],
        others: Any = None,
        labels: Sequence[Label] | None = None,
    ) -> tuple[Block, NDArray[np.bool_]]:
        """Divide rows into kicks and others; the outcome of a kick that can't be read is unknown.

        Args:
            values: shape (n, 12), features and outcome, as `column` returns them.
            lines: shape (n,).
            outcome_at: the cell of an outcome, 0 to n - 1.
            others: as `Block.others`.
            labels: of the kickers, where the file has them; a kick with a label that can't be is refused.

        Returns:
            The kicks, without the refusals; and a mask of shape (n,), true where a row is a kick.
        """
        success = values[:, COUNT]
        good = self._acceptable(values)
        if labels is not None:
            good &= [label.fault is None for label in labels]
        unreadable = good & ~(np.isnan(success) | (success == 0) | (success == 1))
        if unreadable.any():
            found = np.flatnonzero(unreadable).tolist()
            self._unreadable_count += len(found)
            left = _NAMED - len(self._unreadable)
            self._unreadable += [f"line {lines[at]}: {_shown(outcome_at(at))}" for at in found[:left]]
        outcome = None if self.outcome is None else np.where(unreadable, np.nan, success)
        odd = np.where(np.isinf(values[~good]), np.nan, values[~good])
        kickers = None if labels is None else [label.text for label in labels]
        block = Block(lines, values[:, :COUNT], outcome, [], others, kickers, odd)
        return (block, good) if good.all() else (block.where(good), good)

    def known(self, block: Block) -> Block:
        """Keep only the kicks whose outcome is known, and refuse the others; the file has an outcome."""
        outcome = np.full(len(block.lines), np.nan) if block.outcome is None else block.outcome
        unknown = np.isnan(outcome)
        reason = f"{self.outcome} is missing, or can't be read: must be 1 or 0"
        refusals = [RefusedRow(line, reason) for line in block.lines[unknown].tolist()]
        return replace(block.where(~unknown), refusals=[*block.refusals, *refusals])

    def _acceptable(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say which rows, shape (n, 12), hold the features of a kick, and fill in what they may lack."""
        missing = {at: np.isnan(values[:, at]) for at in self._usual}
        for at, rows in missing.items():
            values[rows, at] = TYPICAL[0, at]
        good = np.all(acceptable(values[:, :COUNT]), axis=1)
        for at, rows in missing.items():
            values[good & rows, at] = self._usual[at]  # of a flag its mean, which no cell may hold
            if rows.any():
                self._filled.add(at)
        result: NDArray[np.bool_] = good
        return result

    def outcome_of(self, cell: Any) -> float:
        """Return the number of an outcome: 1, 0, NaN for an unknown one, or `UNREADABLE`."""
        [value] = self.column(COUNT, [cell])
        return value

    def notes(self) -> list[str]:
        """Say what was read as what, and which outcomes can't be read: no sentence, one or two."""
        took = [*self.took]
        took += ["decimal commas"] if self._commas else []
        flags = [*dict.fromkeys(word for each in self._flags for word in each.spelt())][:_NAMED]
        outcomes = self._outcomes.spelt()
        took += [f"{'/'.join(flags)} as flags"] if flags else []
        took += [f"{'/'.join(outcomes)} as outcomes"] if outcomes and not {*outcomes} <= {*flags} else []
        unknown = self._outcomes.spelt(unknown=True)
        took += [f"{'/'.join(unknown)} as unknown"] if unknown else []
        notes = [f"read {', '.join(took)}"] if took else []
        if self._filled:
            usual = ", ".join(f"{FEATURES[at].name} {self._usual[at]:g}" for at in sorted(self._filled))
            notes.append(f"a kick without a feature counts as the mean kick: {usual}")
        if self._unreadable:
            more = ", …" if self._unreadable_count > len(self._unreadable) else ""
            notes.append(
                f"outcomes that can't be read count as unknown: {self._unreadable_count:,}"
                f" ({', '.join(self._unreadable)}{more})"
            )
        return notes

    def _numbers(self, cells: Sequence[Any], *, percent: bool) -> Sequence[float]:
        try:
            return msgspec.convert(cells, list[float], strict=False)
        except msgspec.ValidationError:
            pointed = [cell.replace(",", ".") if isinstance(cell, str) else cell for cell in cells]
        self._commas = self._commas or pointed != [*cells]
        try:
            return msgspec.convert(pointed, list[float], strict=False)
        except msgspec.ValidationError:
            return [*map(_part if percent else _number, pointed)]


class _Flags(dict[Any, float]):
    """The numbers of spellings: 1, 0, NaN for unknown ones, `UNREADABLE`; each is looked at once.

    Args:
        meanings: of words.
    """

    def __init__(self, meanings: Mapping[str, float]) -> None:
        super().__init__({None: math.nan})  # True and 1.0 are the same key as 1
        self._meanings = meanings

    def __missing__(self, cell: Any) -> float:
        value = self.read(cell)
        if len(self) < _REMEMBERED:
            self[cell] = value
        return value

    def read(self, cell: Any) -> float:
        """Return the number of a cell."""
        cell = _unboxed(cell)
        if isinstance(cell, bool):
            return float(cell)
        if isinstance(cell, str):
            word = without_accents(cell).strip().lower().replace("_", " ")
            if word in self._meanings:
                return self._meanings[word]
            cell = cell.replace(",", ".")
        value = _number(cell)
        return value if value in {0.0, 1.0} or math.isnan(value) else UNREADABLE

    def spelt(self, *, unknown: bool = False) -> list[str]:
        """Return the first spellings that were met and are not plain: of 1 and 0, or of unknown."""
        met = {cell.strip(): value for cell, value in self.items() if isinstance(cell, str)}
        words = [word for word, value in met.items() if value != UNREADABLE and math.isnan(value) == unknown]
        return [word for word in words if word.lower() not in _PLAIN and word.strip(_DIGITS)][:_NAMED]


class Label(NamedTuple):
    """What a cell says of the kicker.

    Attributes:
        text: the label; None for an unnamed kicker.
        fault: why the cell can be no label, as a clause; None where it can.
    """

    text: str | None
    fault: str | None = None


class _Labels(dict[Any, Label]):
    """The labels of cells; each spelling is looked at once."""

    def __missing__(self, cell: Any) -> Label:
        label = self._read(cell)
        if len(self) < _REMEMBERED:
            self[cell] = label
        return label

    @staticmethod
    def _read(cell: Any) -> Label:
        if cell is None or cell != cell:  # noqa: PLR0124  NaN
            return Label(None)
        text = kicker_of(str(cell)) or ""
        if text.endswith(".0") and text[:-2].isdecimal():  # a column of numbers with gaps has floats
            text = text[:-2]
        if math.isnan(_FLAGS.get(text.lower(), 0.0)):
            return Label(None)
        return Label(text, kicker_fault(text))


def without_accents(text: str) -> str:
    """Return a text without accents: é becomes e; letters of other scripts stay."""
    if text.isascii():
        return text
    return "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))


def must_be(name: str | None, cell: Any, wanted: str) -> str:
    """Say that a cell of this column must be something else."""
    return f"{name} {_shown(cell)} must be {wanted}"


def show_refusals(refusals: Sequence[RefusedRow], count: int) -> None:
    """Write the first refused rows and their reasons to the terminal; `count` is the number of all."""
    from kickserve.terminal import say

    for refused in refusals[:_SHOWN]:
        say(f"line {refused.line}: {refused.reason}")
    if count > _SHOWN:
        say(f"... and {count - _SHOWN:,} more refused lines (--json lists them)")


def _number(cell: Any) -> float:
    """Return the number in a cell, with a decimal point."""
    cell = _unboxed(cell)
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        cell = cell.strip()
        if math.isnan(_FLAGS.get(cell.lower(), 0.0)):
            return math.nan
        # `float` alone would take 3_0 and the digits of other scripts as well.
        if not cell.isascii() or "_" in cell:
            return UNREADABLE
    elif isinstance(cell, bytes | bool):
        return UNREADABLE
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return UNREADABLE


def _part(cell: Any) -> float:
    """Return a number from 0 to 1, which may be written as 20%."""
    if isinstance(cell, str) and cell.rstrip().endswith("%"):
        return _number(cell.rstrip()[:-1]) / 100
    return _number(cell)


def _unboxed(cell: Any) -> Any:
    """Return what a list of one holds: R's jsonlite writes each value so."""
    return cell[0] if isinstance(cell, list) and len(cell) == 1 else cell


def _shown(cell: Any) -> str:
    shown = repr(cell)
    return shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + "…"


def _reason(cells: Cells, values: NDArray[np.float64], fault: str | None) -> str:
    """Say why the first cell that does not fit is refused; `fault` is that of the kicker's."""
    if fault is not None and acceptable(values[None, :COUNT]).all():
        return f"kicker {_shown(cells[-1])} {fault}"
    at = int(np.argmin(acceptable(values[None, :COUNT])[0]))
    if math.isnan(values[at]):
        return f"{FEATURES[at].name} is missing: must be {FEATURES[at].wanted}"
    return must_be(FEATURES[at].name, cells[at], FEATURES[at].wanted)
