"""ONNX models, computed by onnxruntime in one thread."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.errors import first_line, need_extra
from kickserve.features import COUNT, FLAGS, INDEX, NAMES
from kickserve.plugins import TYPICAL, Answer
from kickserve_models.external import ExternalModel, card_of, wrong_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve.plugins import Origin
    from kickserve.schemas import ModelCard

    Feed = Callable[[NDArray[np.float64]], dict[str, NDArray[Any]]]
    Read = Callable[[Any], NDArray[np.float64]]

_FLOATS: Final[Mapping[str, Any]] = {"tensor(float)": np.float32, "tensor(double)": np.float64}
_OF_FLAGS: Final[Mapping[str, Any]] = {
    **_FLOATS,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
_MAPS: Final = ("seq(map(int64,tensor(float)))", "seq(map(int64,tensor(double)))")
_ROUNDING: Final = 1e-6  # by which a probability of single precision may miss 0 and 1, and a sum of two 1
_QUIET: Final = 4  # onnxruntime's level of fatal errors: each failure is raised as well
_PAIR: Final = 2


class OnnxModel(ExternalModel):
    """An ONNX model, without an interval.

    It has no `predict_one`: a call costs 20 µs whether for one kick or for ten, so kicks that come in
    together are better predicted together.

    Args:
        card: of the model.
        session: its `onnxruntime.InferenceSession`.
        output: name of the output with the probability.
        feed: makes the inputs of kicks, shape (n, 11).
        read: finds the probability of success, shape (n,), in the output.
    """

    def __init__(self, card: ModelCard, session: Any, output: str, feed: Feed, read: Read) -> None:
        super().__init__(card)
        self._run = partial(session.run, [output])
        self._options = _run_options()
        self._feed = feed
        self._read = read

    def predict(self, matrix: NDArray[np.float64]) -> Answer:
        """Predict n kicks.

        Args:
            matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within the ranges given there.
        """
        return Answer(_rounded(self._read(self.raw(matrix))), None, None)

    def raw(self, matrix: NDArray[np.float64]) -> Any:
        """Return the output as onnxruntime gives it."""
        return self._run(self._feed(matrix), self._options)[0]

    def cancel(self) -> None:
        """End the call in progress between two of its steps, of loops too."""
        options, self._options = self._options, _run_options()
        options.terminate = True


def load_onnx(data: bytes, origin: Origin) -> OnnxModel:
    """Make a model of the bytes of an ONNX file; weights in files beside it are not read.

    It takes the eleven features as inputs of their names, each of shape (n, 1) and of floats (flags may be
    integers or booleans too), or as one input of shape (n, 11) in the order of `kickserve.features.NAMES`.
    It gives the probability as a sequence of maps {0: p, 1: p}, or as floats of shape (n, 2), (n, 1) or (n,).

    Raises:
        ModelUnusable: it can't be read, or has other inputs or outputs; the message names them.
        MissingExtra: onnxruntime is not installed.
    """
    session = _session(data, origin)
    feed = _feed(session.get_inputs(), origin)
    output, read = _output(session.get_outputs(), origin)
    model = OnnxModel(_card(session, data, origin), session, output, feed, read)
    _check_two(model, origin)
    return model


def _session(data: bytes, origin: Origin) -> Any:
    need_extra("An ONNX model", "onnx", {"onnxruntime": "onnxruntime"})
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have nothing else in common
        raise origin.unusable(f"onnxruntime can't read it ({first_line(error)})") from error


def _run_options() -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = _QUIET
    return options


def _card(session: Any, data: bytes, origin: Origin) -> ModelCard:
    import onnxruntime

    meta = session.get_modelmeta()
    maker = meta.producer_name or "an unnamed program"
    count = len(session.get_inputs())
    description = meta.description or (
        f"An ONNX model with {count} input{'s' if count > 1 else ''}, written by {maker} and computed by"
        f" onnxruntime {onnxruntime.__version__}."
    )
    return card_of(origin, data, "onnx", description, {"made with": maker, **meta.custom_metadata_map})


# Inputs.


def _feed(inputs: Sequence[Any], origin: Origin) -> Feed:
    if len(inputs) == 1 and inputs[0].name not in INDEX:
        return _one_input(inputs[0], origin)
    if reason := wrong_inputs([each.name for each in inputs]):
        raise origin.unusable(reason)
    for each in inputs:
        _check_shape(each, 1, _OF_FLAGS if each.name in FLAGS else _FLOATS, origin)
    places = [(each.name, INDEX[each.name], _OF_FLAGS[each.type]) for each in inputs]
    return lambda matrix: {name: matrix[:, at : at + 1].astype(kind) for name, at, kind in places}


def _one_input(single: Any, origin: Origin) -> Feed:
    _check_shape(single, COUNT, _FLOATS, origin)
    name, kind = single.name, _FLOATS[single.type]
    return lambda matrix: {name: np.ascontiguousarray(matrix, dtype=kind)}


def _check_shape(each: Any, width: int, kinds: Mapping[str, Any], origin: Origin) -> None:
    """Refuse an input that is no (n, width), for any n, of one of these kinds. Open sizes are no numbers."""
    shape = each.shape
    fits = len(shape) == _PAIR and not isinstance(shape[0], int)
    if not fits or (isinstance(shape[1], int) and shape[1] != width):
        reason = f"its input {each.name} has the shape {shape}, and must have (n, {width}) for any n"
        raise origin.unusable(f"{reason}: the eleven features are {', '.join(NAMES)}")
    if each.type not in kinds:
        raise origin.unusable(f"its input {each.name} is a {each.type}, and must be a {' or '.join(kinds)}")


# Outputs.


def _output(outputs: Sequence[Any], origin: Origin) -> tuple[str, Read]:
    fitting = [each for each in outputs if each.type in _MAPS or each.type in _FLOATS]
    if len(fitting) > 1:
        fitting = [each for each in fitting if "prob" in each.name.lower()]
    if len(fitting) != 1:
        found = ", ".join(f"{each.name}, a {each.type}" for each in outputs)
        raise origin.unusable(f"it must have one output with a probability, and has: {found}")
    return fitting[0].name, _of_maps if fitting[0].type in _MAPS else _of_array


def _of_maps(found: Sequence[Mapping[int, float]]) -> NDArray[np.float64]:
    return np.fromiter((each[1] for each in found), np.float64, len(found))


def _of_array(found: NDArray[Any]) -> NDArray[np.float64]:
    wide = found.astype(np.float64)
    if wide.ndim == _PAIR and wide.shape[1] == _PAIR:
        return wide[:, 1]
    if wide.size != len(wide):
        raise ValueError(f"it gave numbers of shape {wide.shape} for {len(wide)} kicks")
    return wide.reshape(-1)


def _rounded(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clip to 0 and 1 by no more than the error of single precision; more is a fault of the model."""
    np.copyto(probability, 1.0, where=(probability > 1) & (probability < 1 + _ROUNDING))
    np.copyto(probability, 0.0, where=(probability < 0) & (probability > -_ROUNDING))
    return probability


def _check_two(model: OnnxModel, origin: Origin) -> None:
    """Refuse a model whose answers are not about two outcomes; one that raises fails the smoke test."""
    try:
        found = model.raw(TYPICAL)
    except Exception:  # noqa: BLE001  onnxruntime's errors have nothing else in common
        return
    pair = found[0]
    if isinstance(pair, dict):
        if set(pair) != {0, 1}:
            raise origin.unusable(f"its classes are {', '.join(map(str, pair))}, and must be 0 and 1")
        pair = list(pair.values())
    if np.size(pair) == _PAIR and not abs(np.sum(pair) - 1) < _ROUNDING * 10:
        raise origin.unusable(
            f"the probabilities of a kick's two outcomes add up to {np.sum(pair):g} instead of 1"
        )
