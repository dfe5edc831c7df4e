"""Loads scikit-learn estimators from their files: skops, which runs no code, and pickle, which does."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Final

from kickserve.errors import first_line, need_extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from kickserve.plugins import Origin

# Types beyond those that skops itself trusts, in models of kicks: data, and functions that only compute.
# The list is fixed: no file can add to it. The numbers in trees are checked after loading.
TRUSTED: Final = (
    "numpy.dtype",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "scipy.interpolate._bsplines.BSpline",
    "scipy.interpolate._bsplines._BSpline",  # since SciPy 1.18
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.compose._column_transformer._RemainderColsList",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.model_selection._split.StratifiedKFold",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
)
_SKLEARN: Final = {"sklearn": "scikit-learn"}


def unpack_skops(data: bytes, origin: Origin) -> tuple[Any, list[warnings.WarningMessage]]:
    """Load an estimator from the bytes of a skops file.

    Returns:
        The estimator, and the warnings meanwhile.

    Raises:
        ModelUnusable: it can't be read, holds types that are not on the list, or trees that are spoilt.
        MissingExtra: scikit-learn or skops is not installed.
    """
    need_extra("A skops model", "sklearn", {**_SKLEARN, "skops": "skops"})
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    from kickserve_models.estimators import wrong_tree

    try:
        estimator, warned = _watched(lambda: skops.io.loads(data, trusted=list(TRUSTED)))
        reason = wrong_tree(estimator)
    except UntrustedTypesFoundException as error:
        raise origin.unusable(f"{_untrusted(data, error)}. Nothing of it was run") from error
    except Exception as error:  # a spoilt file fails wherever it is spoilt
        raise origin.unusable(f"skops can't read it ({first_line(error)})") from error
    if reason:
        raise origin.unusable(reason)
    return estimator, warned


def _untrusted(data: bytes, error: Exception) -> str:
    """Name the types: the error's own message advises to trust them."""
    import skops.io

    try:
        found = sorted(set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED))
    except Exception:  # noqa: BLE001  the file may be spoilt as well
        return first_line(error)
    return f"it holds types that kickserve does not trust: {', '.join(found)}"


def unpickle(data: bytes, origin: Origin) -> tuple[Any, list[warnings.WarningMessage]]:
    """Load an estimator from the bytes of a pickle, also one of joblib's: this runs the code in it.

    Returns:
        The estimator, and the warnings meanwhile.

    Raises:
        ModelUnusable: it can't be read.
        MissingExtra: scikit-learn is not installed.
    """
    need_extra("A pickled model", "sklearn", _SKLEARN)
    import joblib

    try:
        return _watched(lambda: joblib.load(io.BytesIO(data)))
    except ModuleNotFoundError as error:
        raise origin.unusable(f"it needs the module {error.name}, which is not installed") from error
    except Exception as error:  # it runs anyone's code
        raise origin.unusable(f"it can't be unpickled ({first_line(error)})") from error


def _watched(load: Callable[[], Any]) -> tuple[Any, list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        return load(), warned
