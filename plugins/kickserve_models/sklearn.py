"""scikit-learn models: linear ones and trees are computed without it, any other is called with arrays."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec.structs import replace

from kickserve.errors import first_line, need_extra
from kickserve.features import COUNT, INDEX, NAMES
from kickserve.plugins import SMOKE_KICKS, Answer, KickserveError, profile_of
from kickserve_models.external import (
    ExternalModel,
    LogisticModel,
    card_of,
    random_kicks,
    success_at,
    usual_kicks,
    wrong_inputs,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from kickserve.plugins import Model, Origin
    from kickserve.schemas import ModelCard

    PredictProba = Callable[[NDArray[np.float64]], Any]  # columns as in training, shape (n, 11), to (n, 2)

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
_SAME: Final = 1e-12  # largest difference between the extracted weights and the model itself, in probability
_SAME_TREES: Final = 1e-9
_COMPARED: Final = 256  # kicks of each kind on which both are compared
_log = logging.getLogger(__name__)


class SklearnModel(ExternalModel):
    """A fitted scikit-learn classifier, without an interval.

    Args:
        card: of the model.
        predict_proba: of the classifier.
        order: place of each column that it was trained with among `kickserve.features.NAMES`.
        success: the place of a kick that succeeds among its two classes, 0 or 1.
    """

    def __init__(
        self, card: ModelCard, predict_proba: PredictProba, order: Sequence[int], success: int
    ) -> None:
        super().__init__(card)
        self._predict_proba = predict_proba
        self._order = None if list(order) == list(range(COUNT)) else list(order)
        self._success = success

    def predict(self, matrix: NDArray[np.float64]) -> Answer:
        """Predict n kicks.

        Args:
            matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within the ranges given there.
        """
        if not len(matrix):  # scikit-learn refuses that
            return Answer(np.empty(0), None, None)
        ordered = matrix if self._order is None else matrix[:, self._order]
        probabilities = np.asarray(self._predict_proba(ordered), dtype=np.float64)
        return Answer(probabilities[:, self._success], None, None)

    def cancel(self) -> None:
        """Do nothing: its thread is given up, and ends where Python code runs."""


def load_skops(data: bytes, origin: Origin, success_label: str | None) -> Model:
    """Make a model of the bytes of a skops file; raises MissingExtra, and as `of_estimator` does."""
    return _of_file(*_unpack_skops(data, origin), data, origin, success_label)


def load_pickle(data: bytes, origin: Origin, success_label: str | None) -> Model:
    """Make a model of the bytes of a pickle, and run its code; raises as `load_skops` does."""
    return _of_file(*_unpickle(data, origin), data, origin, success_label)


def _unpack_skops(data: bytes, origin: Origin) -> tuple[Any, list[warnings.WarningMessage]]:
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
        advice = "Nothing of it was run. Export the model to ONNX instead: ops/docs/models.md shows how"
        raise origin.unusable(f"{_untrusted(data, error)}. {advice}") from error
    except Exception as error:  # a spoilt file fails wherever it is spoilt
        raise origin.unusable(
            f"skops can't read it ({first_line(error)}): save it again with skops"
        ) from error
    if reason:
        raise origin.unusable(f"{reason}: train and save it again")
    return estimator, warned


def _untrusted(data: bytes, error: Exception) -> str:
    """Name the types: the error's own message advises to trust them."""
    import skops.io

    try:
        found = sorted(set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED))
    except Exception:  # noqa: BLE001  the file may be spoilt as well
        return first_line(error)
    return f"it holds types that kickserve does not trust: {', '.join(found)}"


def _unpickle(data: bytes, origin: Origin) -> tuple[Any, list[warnings.WarningMessage]]:
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
        reason = f"it needs the module {error.name}, which is not installed: install it, or export to ONNX"
        raise origin.unusable(reason) from error
    except Exception as error:  # it runs anyone's code
        advice = "save it again with the libraries of this machine, or export it to ONNX"
        if "__main__" in str(error):  # a function or class by its name alone
            advice = "it lacks what its script defines: pickle it with cloudpickle, or export it to ONNX"
        raise origin.unusable(f"it can't be unpickled ({first_line(error)}): {advice}") from error


def _watched(load: Callable[[], Any]) -> tuple[Any, list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = load()
    # Some classifiers of others warn so of each array, though its columns are in their order.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    return found, warned


def _of_file(
    estimator: Any,
    warned: Sequence[warnings.WarningMessage],
    data: bytes,
    origin: Origin,
    success_label: str | None,
) -> Model:
    try:
        return of_estimator(estimator, warned, data, origin, success_label)
    except KickserveError:
        raise
    except Exception as error:  # a file may hold anything where scikit-learn would have something
        raise origin.unusable(
            f"it is not as scikit-learn makes it ({first_line(error)}): save it again"
        ) from error


def of_estimator(
    estimator: Any,
    warned: Sequence[warnings.WarningMessage],
    data: bytes,
    origin: Origin,
    success_label: str | None = None,
) -> Model:
    """Make a model of a fitted classifier.

    It is called with arrays, their columns in the order of its `feature_names_in_` or else of
    `kickserve.features.NAMES`. Only where a step of it looks for columns by name itself (a function of the
    user's own) it gets a DataFrame, which costs half a millisecond a call and needs pandas.

    Args:
        estimator: the classifier.
        warned: the warnings when it was loaded: it may be of another version of scikit-learn.
        data: its file, for the revision.
        origin: where it came from.
        success_label: as for `success_at`.

    Raises:
        ModelUnusable: it is no classifier of two classes over the eleven features.
    """
    notes = list(dict.fromkeys(_shortened(each.message) for each in warned))
    for note in notes:
        _log.warning("the model %s: %s", origin.source, note)
    order, success = _order(estimator, origin), _success(estimator, success_label, origin)
    predict_proba, by_position = _callable(estimator, order, origin)
    description = " ".join(f"{each}." for each in [f"A scikit-learn model: {_steps(estimator)}", *notes])
    card = card_of(origin, data, "sklearn", description, {})
    model = SklearnModel(card, predict_proba, order, success)
    return model if by_position is None else _quicker(model, by_position, order, success)


def _shortened(message: Warning | str) -> str:
    """Shorten the warning about a model from another version, which comes once for each of its parts."""
    then = getattr(message, "original_sklearn_version", None)
    if then is None:
        return str(message).partition("\n")[0].rstrip(".")
    now = getattr(message, "current_sklearn_version", "another")
    return (
        f"The model was made with scikit-learn {then} and is loaded with {now}, which may change its"
        " predictions"
    )


def _steps(estimator: Any) -> str:
    steps = [step for _, step in getattr(estimator, "steps", [])] or [estimator]
    return ", then ".join(step if isinstance(step, str) else type(step).__name__ for step in steps)


def _order(estimator: Any, origin: Origin) -> list[int]:
    """Return the place of each column that it was trained with among the eleven features."""
    parts = [estimator, *(step for _, step in getattr(estimator, "steps", []))]  # "passthrough" has no names
    names = [
        str(name)
        for name in next((each.feature_names_in_ for each in parts if hasattr(each, "feature_names_in_")), ())
    ]
    if not names:
        count = getattr(estimator, "n_features_in_", COUNT)
        if count != COUNT:
            raise origin.unusable(f"it takes {count} features, and must take the eleven: {', '.join(NAMES)}")
        return list(range(COUNT))
    reason = wrong_inputs(names)
    if reason:
        raise origin.unusable(reason)
    return [INDEX[name] for name in names]


def _success(estimator: Any, success_label: str | None, origin: Origin) -> int:
    """Return the place of a kick that succeeds among its classes."""
    if not hasattr(estimator, "predict_proba"):
        kind = type(estimator).__name__
        raise origin.unusable(f"it is a {kind} without predict_proba: wrap it in CalibratedClassifierCV")
    return success_at(np.asarray(getattr(estimator, "classes_", [])).tolist(), success_label, origin)


def _callable(estimator: Any, order: Sequence[int], origin: Origin) -> tuple[PredictProba, Any]:
    """Return a `predict_proba` of arrays, and the estimator changed for arrays; None where it can't be."""
    from kickserve_models.estimators import drop_feature_names

    try:
        changed = copy.deepcopy(estimator)
        drop_feature_names(changed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            changed.predict_proba(SMOKE_KICKS[:, order])
    except Exception as error:  # noqa: BLE001  its steps may be anyone's code
        if not hasattr(estimator, "feature_names_in_"):
            return estimator.predict_proba, None  # the smoke test refuses it with its error
        return _by_name(estimator, order, origin, error), None
    return changed.predict_proba, changed


def _by_name(estimator: Any, order: Sequence[int], origin: Origin, error: Exception) -> PredictProba:
    if find_spec("pandas") is None:
        reason = f"it can't be asked with arrays ({first_line(error)}), and to ask it by name takes pandas"
        raise origin.unusable(f"{reason}: pip install pandas") from error
    import pandas as pd

    names = [NAMES[at] for at in order]
    return lambda ordered: estimator.predict_proba(pd.DataFrame(ordered, columns=names))


def _quicker(model: SklearnModel, by_position: Any, order: Sequence[int], success: int) -> Model:
    """Return what was extracted of the model where its predictions equal the model's; else the model."""
    kicks = np.vstack([random_kicks(_COMPARED), usual_kicks(_COMPARED, profile_of(model))])
    expected = model.predict(kicks).probability
    for extract in (_linear, _walked):
        try:
            quick, tolerance = extract(model.card, by_position, order, success)
            off = quick.predict(kicks).probability - expected
        except ValueError as error:
            _log.debug("%s stays as it is: %s", model.card.source, error)
        else:
            if np.max(np.abs(off)) <= tolerance:
                return quick
    return model


def _linear(card: ModelCard, by_position: Any, order: Sequence[int], success: int) -> tuple[Model, float]:
    from kickserve_models.estimators import extract_linear

    weights = np.empty(COUNT)
    weights[list(order)], intercept = extract_linear(by_position)
    sign = 1 if success else -1
    words = "The model is linear: kickserve computes it from its coefficients, without scikit-learn."
    return LogisticModel(_of_kind(card, "linear", words), sign * weights, sign * intercept), _SAME


def _walked(card: ModelCard, by_position: Any, order: Sequence[int], success: int) -> tuple[Model, float]:
    from kickserve_models.forests import read_parts
    from kickserve_models.walked import WalkedModel

    try:
        parts = read_parts(by_position, lambda kicks: kicks[:, order])
    except Exception as error:  # another version of a library may keep its trees elsewhere
        raise ValueError(first_line(error)) from error
    # XGBoost computes in single precision, and the last bit of an exponential is its C library's.
    precision = float(np.finfo(parts[0].trees[0].value.dtype).eps)
    words = "kickserve walks its trees without the library that made them."
    return WalkedModel(_of_kind(card, "trees", words), parts, success), max(_SAME_TREES, precision)


def _of_kind(card: ModelCard, kind: str, words: str) -> ModelCard:
    return replace(card, kind=f"{card.kind}-{kind}", description=f"{card.description} {words}")
