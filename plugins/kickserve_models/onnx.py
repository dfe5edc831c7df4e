"""ONNX models, computed by onnxruntime in one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.errors import first_line, need_extra
from kickserve.features import COUNT, FLAGS, INDEX, NAMES
from kickserve.plugins import TYPICAL, Answer, call_within
from kickserve_models.external import (
    ExternalModel,
    card_of,
    is_label,
    random_kicks,
    success_at,
    wrong_inputs,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kickserve.plugins import ModelFile, Origin
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
_MAPS: Final = tuple(
    f"seq(map({key},tensor({number})))" for key in ("int64", "string") for number in ("float", "double")
)
_LABELS: Final = ("tensor(int64)", "tensor(int32)", "tensor(bool)", "tensor(string)")
_FOLDER: Final = "session.model_external_initializers_file_folder_path"  # else it is the working directory
_ROUNDING: Final = 1e-6  # by which a probability of single precision may miss 0 and 1, and a sum of two 1
_QUIET: Final = 4  # onnxruntime's level of fatal errors: each failure is raised as well
_PAIR: Final = 2
_TRIED: Final = 4_096  # kicks, to see which label goes with which probability


class OnnxModel(ExternalModel):
    """An ONNX model, without an interval.

    It has no `predict_one`: a call costs 20 µs whether for one kick or for ten, so kicks that come in
    together are better predicted together.

    Args:
        card: of the model.
        session: its `onnxruntime.InferenceSession`.
        feed: makes the inputs of kicks, shape (n, 11).
        output: name of the output with the probability.

    Attributes:
        read: finds the probability of success, shape (n,), in the output.
    """

    def __init__(self, card: ModelCard, session: Any, feed: Feed, output: str) -> None:
        super().__init__(card)
        self.read: Read = _of_array
        self._session = session
        self._feed = feed
        self._output = output
        self._options = _run_options()

    def predict(self, matrix: NDArray[np.float64]) -> Answer:
        """Predict n kicks.

        Args:
            matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within the ranges given there.
        """
        return Answer(_rounded(self.read(*self.run(matrix))), None, None)

    def run(self, matrix: NDArray[np.float64], *more: str) -> list[Any]:
        """Return the output with the probability, and more of them, as onnxruntime gives them."""
        outputs: list[Any] = self._session.run([self._output, *more], self._feed(matrix), self._options)
        return outputs

    def cancel(self) -> None:
        """End the call in progress between two of its steps, of loops too."""
        options, self._options = self._options, _run_options()
        options.terminate = True


def load_onnx(file: ModelFile, success_label: str | None, limit: float) -> OnnxModel:
    """Make a model of an ONNX file; weights in other files are read from its folder.

    It takes the eleven features as inputs of their names, each of shape (n, 1) and of floats (flags may be
    integers or booleans too), or as one input of shape (n, 11) in the order of `kickserve.features.NAMES`.
    It gives the probability as a sequence of maps {0: p, 1: p}, or as floats of shape (n, 2), (n, 1) or (n,);
    other labels than 0 and 1 need the setting.

    Args:
        file: the file.
        success_label: as for `kickserve_models.external.success_at`.
        limit: seconds that trying it may take.

    Raises:
        ModelUnusable: it can't be read, or has other inputs, outputs or labels; the message names them.
        MissingExtra: onnxruntime is not installed.
    """
    origin, session = file.origin, _session(file)
    feed = _feed(session.get_inputs(), origin)
    output, label = _outputs(session.get_outputs(), origin)
    # Other weights make another model, so their files count for its revision too.
    data = b"".join([file.data, *(each.read_bytes() for each in _weights(file))])
    model = OnnxModel(_card(session, data, origin), session, feed, output)
    try:
        call_within(limit, lambda: _find_success(model, label, success_label, origin), model.cancel)
    except TimeoutError as error:
        reason = f"tried on random kicks, {error}: mend the model, or raise KICKSERVE_MODEL_TIMEOUT"
        raise origin.unusable(reason) from error
    return model


def _weights(file: ModelFile) -> list[Path]:
    """Return the files beside a model that it names: they hold its weights."""
    folder = file.path and file.path.parent
    others = sorted(folder.iterdir()) if folder and folder.is_dir() else []  # it may be another machine's
    return [each for each in others if each.is_file() and each.name.encode() in file.data]


def _session(file: ModelFile) -> Any:
    need_extra("An ONNX model", "onnx", {"onnxruntime": "onnxruntime"})
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    if file.path is not None:
        options.add_session_config_entry(_FOLDER, str(file.path.parent))
    try:
        return onnxruntime.InferenceSession(file.data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have nothing else in common
        raise file.origin.unusable(
            f"onnxruntime can't read it ({first_line(error)}): export it again"
        ) from error


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


def _outputs(outputs: Sequence[Any], origin: Origin) -> tuple[str, str | None]:
    """Return the names of the output with the probability, and of that with the label, if there is one."""
    fitting = [each for each in outputs if each.type in _MAPS or each.type in _FLOATS]
    if len(fitting) > 1:
        fitting = [each for each in fitting if "prob" in each.name.lower()]
    if len(fitting) != 1:
        found = ", ".join(f"{each.name}, a {each.type}" for each in outputs)
        raise origin.unusable(f"export it with one output of probabilities; it has: {found}")
    labels = [each.name for each in outputs if each.type in _LABELS and fitting[0].type in _FLOATS]
    return fitting[0].name, labels[0] if len(labels) == 1 else None


def _find_success(model: OnnxModel, label: str | None, success_label: str | None, origin: Origin) -> None:
    """Find the probability of success in the output, and refuse a model that is not about two outcomes."""
    try:
        [found] = model.run(TYPICAL)
        if label is not None:
            pairs, labels = model.run(random_kicks(_TRIED), label)
    except Exception as error:  # onnxruntime's errors have nothing else in common
        raise origin.unusable(f"tried on random kicks, it fails ({first_line(error)})") from error
    pair = found
    if isinstance(found, list):  # of maps
        pair, keys = [*found[0].values()], [*found[0]]
        success = keys[success_at(keys, success_label, origin)]
        model.read = lambda maps: np.fromiter((each[success] for each in maps), np.float64, len(maps))
    elif label is not None and np.size(found) <= _PAIR:
        second = _of_array(pairs)
        if _second_fails(second, np.ravel(labels).tolist(), success_label, origin):
            model.read = lambda floats: 1 - _of_array(floats)
    if np.size(pair) == _PAIR and not abs(np.sum(pair) - 1) < _ROUNDING * 10:
        raise origin.unusable(
            f"the probabilities of a kick's two outcomes add up to {np.sum(pair):g} instead of 1:"
            " export it without raw scores"
        )


def _second_fails(
    second: NDArray[np.float64], labels: list[Any], success_label: str | None, origin: Origin
) -> bool:
    """Return whether the second probability of random kicks is that of a miss, by the label of each kick.

    No attribute of an ONNX session names the label of a column.
    """
    known = sorted(set(labels))
    if len(known) == 1:
        [label], likelier = known, int(second.mean() > 0.5)  # noqa: PLR2004  of two
        if success_label is not None and is_label(label, success_label):
            return not likelier
        if label == likelier:
            return False  # 0 goes with the first, or 1 with the second
        raise origin.unusable(
            f"its label is {label!r} for each of {_TRIED:,} random kicks, so that either probability may be"
            " that of success: export it with the probability of success as its only output"
        )
    success = known[success_at(known, success_label, origin)]
    succeeds = np.array([label == success for label in labels])
    return bool(second[succeeds].mean() < second[~succeeds].mean())


def _of_array(found: NDArray[Any]) -> NDArray[np.float64]:
    """Return the second of two probabilities of each kick, or the only one."""
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
