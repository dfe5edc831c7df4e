"""Makes a fitted scikit-learn estimator take arrays where it was fitted to a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMES: Final = "feature_names_in_"
_FORGOTTEN: Final = (_NAMES, "_sklearn_output_config")  # the latter may ask for DataFrames between the steps


def parts(whole: Any) -> Iterator[BaseEstimator]:
    """Find the estimators in an estimator, itself included, where scikit-learn's structures hold them."""
    waiting, seen = [whole], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, BaseEstimator):
            yield each
        waiting += held(each)


def held(each: Any) -> list[Any]:
    """Return what an estimator, or a structure within one, holds; nothing of what is neither."""
    if isinstance(each, dict):
        return list(each.values())
    if isinstance(each, list | tuple):
        return list(each)
    if isinstance(each, np.ndarray):
        return list(each.flat) if each.dtype == object else []
    if isinstance(each, BaseEstimator) or type(each).__module__.startswith("sklearn."):
        return list(getattr(each, "__dict__", {}).values())
    return []


def take_arrays(estimator: Any) -> None:
    """Change an estimator and all in it: columns by name become columns by position, names are forgotten.

    Otherwise a column transformer refuses an array, and all others warn, each time, that it has no names.
    It is also told to work in one thread.
    """
    for each in list(parts(estimator)):
        if isinstance(each, ColumnTransformer):
            _select_by_position(each)
        for name in _FORGOTTEN:
            each.__dict__.pop(name, None)
        if getattr(each, "n_jobs", None) is not None:
            each.n_jobs = 1


def _select_by_position(each: ColumnTransformer) -> None:
    names = list(getattr(each, _NAMES, []))
    if names:
        each.transformers_ = [
            (name, step, _positions(columns, names)) for name, step, columns in each.transformers_
        ]


def _positions(columns: Any, names: list[str]) -> Any:
    if isinstance(columns, str):
        return names.index(columns)
    if isinstance(columns, slice):
        return slice(_end(columns.start, names, 0), _end(columns.stop, names, 1), columns.step)
    if np.size(columns) and all(isinstance(each, str) for each in columns):
        return [names.index(each) for each in columns]
    return columns


def _end(end: Any, names: list[str], beyond: int) -> Any:
    return names.index(end) + beyond if isinstance(end, str) else end  # a slice of names includes its end
