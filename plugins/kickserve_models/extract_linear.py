"""Extracts the weights of a linear scikit-learn pipeline: scalers and a logistic regression in one map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Affine(NamedTuple):
    """x -> matrix · x + offset.

    Attributes:
        matrix: shape (k, m).
        offset: shape (k,).
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    def after(self, first: Affine) -> Affine:
        """Return this map after the map `first`."""
        return Affine(self.matrix @ first.matrix, self.matrix @ first.offset + self.offset)


class _NotAffine(Exception):
    """A part of a model is no affine map, or none that is known here."""


def extract_linear(estimator: Any, width: int) -> tuple[NDArray[np.float64], float] | None:
    """Return the weights, shape (width,), and the intercept of the log-odds of the second class.

    Known are pipelines of the common scalers, of imputers (no feature is ever missing here) and of column
    transformers that take columns by position, ended by a logistic regression. The caller compares the
    probabilities of both: another version of scikit-learn may compute something else.

    Args:
        estimator: fitted, its column transformers by position.
        width: how many features it takes.

    Returns:
        None where a part of it is unknown.
    """
    try:
        affine = _affine(estimator, width)
    except _NotAffine:
        return None
    return (affine.matrix[0], float(affine.offset[0])) if affine.matrix.shape == (1, width) else None


def _affine(part: Any, width: int) -> Affine:
    if part is None or (isinstance(part, str) and part == "passthrough"):
        return _same(width)
    # By the exact name: a class that inherits may compute something else.
    extract = _EXTRACTORS.get(f"{type(part).__module__.partition('.')[0]}.{type(part).__name__}")
    if extract is None:
        raise _NotAffine
    return extract(part, width)


def _same(width: int) -> Affine:
    return Affine(np.eye(width), np.zeros(width))


def _scaled(scale: Any, shift: Any, width: int) -> Affine:
    """Return x -> x · scale + shift, a feature each."""
    return Affine(np.diag(np.broadcast_to(scale, (width,))), np.broadcast_to(shift, (width,)) * 1.0)


def _centred(center: Any, scale: Any, width: int) -> Affine:
    """Return x -> (x - center) / scale, either of which may be missing."""
    center = 0.0 if center is None else np.asarray(center, dtype=np.float64)
    scale = 1.0 if scale is None else np.asarray(scale, dtype=np.float64)
    return _scaled(1 / scale, -center / scale, width)


def _min_max(part: Any, width: int) -> Affine:
    if part.clip:
        raise _NotAffine
    return _scaled(part.scale_, part.min_, width)


def _robust(part: Any, width: int) -> Affine:
    center = part.center_ if part.with_centering else None
    return _centred(center, part.scale_ if part.with_scaling else None, width)


def _function(part: Any, width: int) -> Affine:
    if part.func is not None:
        raise _NotAffine
    return _same(width)


def _imputer(part: Any, width: int) -> Affine:
    missing = part.missing_values
    if part.add_indicator or not isinstance(missing, float) or not np.isnan(missing):
        raise _NotAffine
    if np.isnan(part.statistics_.astype(np.float64)).any():  # it drops such a feature
        raise _NotAffine
    return _same(width)


def _pipeline(part: Any, width: int) -> Affine:
    affine = _same(width)
    for _, step in part.steps:
        affine = _affine(step, len(affine.matrix)).after(affine)
    return affine


def _columns(part: Any, width: int) -> Affine:
    if part.transformer_weights:
        raise _NotAffine
    parts = [
        _affine(step, len(places)).after(Affine(np.eye(width)[places], np.zeros(len(places))))
        for _, step, columns in part.transformers_
        if not (isinstance(step, str) and step == "drop") and len(places := _places(columns, width))
    ]
    if not parts:
        raise _NotAffine
    return Affine(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _places(columns: Any, width: int) -> NDArray[np.intp]:
    if isinstance(columns, str | int) or callable(columns):
        raise _NotAffine  # a single one selects an array of one dimension: no scaler takes that
    if not isinstance(columns, slice) and not len(columns):
        return np.empty(0, dtype=np.intp)
    try:
        return np.atleast_1d(np.arange(width)[columns if isinstance(columns, slice) else np.asarray(columns)])
    except (IndexError, TypeError):
        raise _NotAffine from None


def _logistic(part: Any, width: int) -> Affine:
    if np.shape(part.coef_) != (1, width):
        raise _NotAffine
    offset = np.broadcast_to(np.asarray(part.intercept_, dtype=np.float64), (1,))
    return Affine(np.asarray(part.coef_, dtype=np.float64), offset)


_EXTRACTORS: Final[Mapping[str, Callable[[Any, int], Affine]]] = {
    "sklearn.StandardScaler": lambda part, width: _centred(
        part.mean_ if part.with_mean else None, part.scale_, width
    ),
    "sklearn.MaxAbsScaler": lambda part, width: _centred(None, part.scale_, width),
    "sklearn.MinMaxScaler": _min_max,
    "sklearn.RobustScaler": _robust,
    "sklearn.FunctionTransformer": _function,
    "sklearn.SimpleImputer": _imputer,
    "sklearn.Pipeline": _pipeline,
    "sklearn.ColumnTransformer": _columns,
    "sklearn.LogisticRegression": _logistic,
    "sklearn.LogisticRegressionCV": _logistic,
}
