"""DataFrames of pandas, polars or pyarrow as kicks, and answers as DataFrames: none is a dependency."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from typing import Any, Final, TypeVar

import msgspec

from kickserve.errors import InvalidInput
from kickserve.features import BY_NAME, FLAGS, NAMES
from kickserve.schemas import FieldError, Kick, Prediction, Record, cells_of, column_names

S = TypeVar("S", bound=Prediction | Record)
KickLike = Kick | Mapping[str, Any]
"""A kick: a `Kick`, or anything with the eleven features by name, such as a row of pandas.

Numbers may be numpy's. `kicker` is the label of its kicker, a text or a whole number; NaN or None for an
unnamed one. What else it holds, such as an outcome, is left out.
"""


class Answers(list[S]):
    """Answers or records in their order: a list that can become a DataFrame.

    Args:
        answers: any number.
        index: of a DataFrame of pandas that they answer; None for 0, 1, ….
    """

    def __init__(self, answers: Iterable[S] = (), index: Any = None) -> None:
        super().__init__(answers)
        self._index = index

    def columns(self) -> dict[str, list[Any]]:
        """Return values by name, in order: the interval as `low` and `high`, warnings as one text.

        What was learned makes columns that begin with `learned_`.
        """
        kind: Any = type(self[0]) if self else Prediction
        names = column_names(kind)
        cells = map(list, zip(*map(cells_of, self), strict=True)) if self else repeat([])
        columns: dict[str, list[Any]] = dict(zip(names, cells, strict=False))
        if "warnings" in columns:
            columns["warnings"] = ["; ".join(each) for each in columns["warnings"]]
        return columns

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame`, with the index of the one that was predicted."""
        import pandas as pd

        return pd.DataFrame(self.columns(), index=self._index)

    def to_polars(self) -> Any:
        """Return a `polars.DataFrame`."""
        import polars as pl

        return pl.DataFrame(self.columns())


def rows_of(kicks: Any) -> Iterator[KickLike]:
    """Yield kicks: the rows of a DataFrame, by the names of its columns, or the elements of anything else.

    Raises:
        InvalidInput: a DataFrame lacks features.
    """
    columns = getattr(kicks, "column_names", None) or getattr(kicks, "columns", None)
    if columns is None:
        return iter(kicks)
    missing = [name for name in NAMES if name not in columns]
    if missing:
        raise InvalidInput(f"the DataFrame has no column {', '.join(missing)}")
    names = [name for name in (*NAMES, "kicker") if name in columns]
    values = (kicks[name].to_numpy().tolist() for name in names)
    return (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))


def index_of(kicks: Any) -> Any:
    """Return the index of a DataFrame of pandas; None for anything else."""
    return getattr(kicks, "index", None) if hasattr(kicks, "columns") else None


def by_name(kick: KickLike) -> Mapping[str, Any]:
    """Return the fields of a kick, flags as booleans: what more a row holds is left out.

    Raises:
        InvalidInput: the kick has no names.
    """
    if isinstance(kick, Kick):
        # An older service knows neither `kicker` nor `source`: they are sent where they say something.
        values = {name: getattr(kick, name) for name in NAMES}
        labels = {"kicker": kick.kicker, "source": kick.source}
        return values | {name: text for name, text in labels.items() if text not in {None, "api"}}
    kick = kick._asdict() if hasattr(kick, "_asdict") else kick  # a named tuple
    if not hasattr(kick, "keys"):
        raise InvalidInput(f"a kick has its features by name, as a dict has: {type(kick).__name__} has none")
    names = kick.keys()
    values = {name: _plain(name, kick[name]) for name in NAMES if name in names}
    if "kicker" in names and not _is_missing(kick["kicker"]):
        values["kicker"] = _label(kick["kicker"])
    return values


def encode(kicks: KickLike | list[KickLike], first: int = 0) -> bytes:
    """Write a kick, or several, as JSON.

    Args:
        kicks: as `by_name` returns them.
        first: number of the first of several.

    Raises:
        InvalidInput: a value is no number, or NaN; the message names it, and its row among several.
    """
    try:
        content = _encode(kicks)
    except (TypeError, ValueError):  # from a value of any type
        content = b"null"
    if b"null" in content:  # JSON has no NaN
        for row, kick in enumerate(kicks if isinstance(kicks, list) else [kicks], first):
            _check(kick, row if isinstance(kicks, list) else None)
    return content


def _check(kick: KickLike, row: int | None) -> None:
    values = by_name(kick)
    for name in NAMES:
        try:
            good = name not in values or math.isfinite(values[name])
        except (TypeError, ValueError):
            good = False
        if not good:
            detail = f"is {values[name]!s:.40}: must be {BY_NAME[name].wanted}"
            number = msgspec.UNSET if row is None else row
            where = "" if row is None else f"row {row}: "
            raise InvalidInput(f"{where}{name} {detail}", [FieldError(field=name, detail=detail, row=number)])


def _is_missing(value: Any) -> bool:
    """Return whether a value of a DataFrame stands for none: None, NaN, NaT or NA."""
    try:
        return value is None or bool(value != value)  # noqa: PLR0124  so is NaN
    except TypeError:  # of pandas' NA
        return True


def _label(value: Any) -> Any:
    """Return the digits of a whole number: a column of numbers with a gap has floats."""
    number = _of_python(value)
    whole = isinstance(number, float) and number.is_integer()
    return str(int(number)) if whole or type(number) is int else value


def _plain(name: str, value: Any) -> Any:
    """Return a flag as a boolean, where it is one: a column with a gap has floats."""
    if name in FLAGS and isinstance(item := _of_python(value), int | float) and item in {0, 1}:
        return bool(item)
    return value


def _of_python(value: Any) -> Any:
    """Make a number of numpy's, or of pandas', one of Python's."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def _hook(value: Any) -> Any:
    item = _of_python(value)
    return float(item) if item is value else item  # a fraction is a number too


_encode: Final = msgspec.json.Encoder(enc_hook=_hook, decimal_format="number").encode
