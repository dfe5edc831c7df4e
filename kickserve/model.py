"""What the service needs of a model: protocols, the answer and its check, the test before it serves."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from kickserve.errors import ModelUnusable, PredictionFailed, PredictionTimeout
from kickserve.features import FEATURES
from kickserve.limited import call_within
from kickserve.wholefile import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kickserve.schemas import ModelCard


TYPICAL: Final = np.array([[0.5, 30.0, 20.0, 10.0, 0.2, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]])
"""A usual kick, shape (1, 11)."""
SMOKE_KICKS: Final = np.vstack(
    [TYPICAL, [feature.low for feature in FEATURES], [feature.high for feature in FEATURES]]
)
"""A usual kick, and the two corners of the features' ranges; shape (3, 11)."""
LONGEST_NAME: Final = 200
"""Characters of a model's name: each record holds it."""
_Share = Annotated[float, Meta(ge=0, le=1)]


class Answer(NamedTuple):
    """The answer of a model to n kicks.

    Attributes:
        probability: shape (n,), 0 to 1.
        low: shape (n,), lower end of the 95 % interval, or None where the model gives none.
        high: shape (n,), upper end, or None.
    """

    probability: NDArray[np.float64]
    low: NDArray[np.float64] | None
    high: NDArray[np.float64] | None


class Profile(Struct, kw_only=True, frozen=True):
    """The distribution of kicks and predictions when a model was made, to notice a drift later.

    Attributes:
        count: kicks that it was taken from.
        levels: the levels of the quantiles below, 0 to 1, rising.
        quantiles: of each feature that is a number, its quantiles at the levels.
        shares: of each flag, the share of kicks where it is set.
        prediction: quantiles of the predicted probability at the levels.
    """

    count: Annotated[int, Meta(ge=1)]
    levels: list[float]
    quantiles: dict[str, list[float]]
    shares: dict[str, _Share]
    prediction: list[_Share]


class Model(Protocol):
    """A model that predicts how likely a kick is to succeed."""

    @property
    def card(self) -> ModelCard:
        """Its name, revision, kind and provenance."""
        ...

    def predict(self, matrix: NDArray[np.float64]) -> Answer:
        """Predict n kicks.

        Args:
            matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within the ranges given there.
        """
        ...

    def warnings(self, row: Sequence[float]) -> list[str]:
        """Return in which way one kick (its eleven numbers) is unlike the training data, a phrase each."""
        ...

    def out_of_domain(self, matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return for n kicks, shape (n, 11), whether `warnings` would warn of each; shape (n,)."""
        ...


@runtime_checkable
class AnswersOne(Protocol):
    """A model that predicts one kick more quickly than a matrix of one row. A model need not be one."""

    def predict_one(self, row: Sequence[float]) -> tuple[float, float, float]:
        """Predict one kick.

        Args:
            row: its eleven numbers, in the order of `kickserve.features.NAMES`; flags may be booleans.

        Returns:
            Probability, low and high, as `predict` gives; NaN for low and high of a model without intervals.
        """
        ...


@runtime_checkable
class Cancellable(Protocol):
    """A model made elsewhere, whose calls may never end: each is made in a thread, with a time limit.

    Attributes:
        limit: seconds that a call for many kicks may take, as of a file.
    """

    limit: float

    def cancel(self) -> None:
        """End the call in progress, where that is possible; called from another thread."""
        ...


@runtime_checkable
class HasProfile(Protocol):
    """A model that brings the profile of its training data; `kickserve.loading.profile_of` helps others."""

    @property
    def profile(self) -> Profile | None:
        """The distribution of the kicks that it was trained on, and of its predictions of them."""
        ...


class Origin(NamedTuple):
    """Where a model came from.

    Attributes:
        source: for messages and the card: a path, or `hf:owner/name@commit`.
        name: the model's name in predictions, where its file gives none.
        commit: of the hub; None for a file.
    """

    source: str
    name: str
    commit: str | None = None

    @classmethod
    def of_file(cls, path: Path) -> Origin:
        """Return the origin of a model in a file."""
        return cls(printable(path), path.stem)

    def revision(self, data: bytes) -> str:
        """Return the hub's commit, or 12 hexadecimal digits (SHA-256) of the file."""
        return self.commit or fingerprint_of(data)

    def unusable(self, reason: str) -> ModelUnusable:
        """Make the error for a model that can't be used: `reason` is a clause, such as "it is empty"."""
        return ModelUnusable(f"the model {self.source} can't be used: {reason}")


class ModelFile(NamedTuple):
    """The file of a model before it is loaded, which can go to another process or machine.

    Attributes:
        data: its bytes; empty for the packaged model.
        ending: of its name, with the dot and in lower case, such as `.onnx`: the kind of file.
        origin: where it came from.
        path: of the file, beside which others of the model may lie; None for the packaged model.
    """

    data: bytes
    ending: str
    origin: Origin
    path: Path | None = None


def fingerprint_of(data: bytes) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()[:12]


def predict(model: Model, matrix: NDArray[np.float64]) -> Answer:
    """Predict n kicks with a model of any origin, within its time limit where it may hang.

    Args:
        model: any model.
        matrix: n kicks, shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.

    Raises:
        PredictionFailed: the model raised, or returned something that is no probability.
        PredictionTimeout: it did not answer in time.
    """
    if not isinstance(model, Cancellable):
        return predict_checked(model, matrix)
    try:
        return call_within(model.limit, lambda: predict_checked(model, matrix), model.cancel)
    except TimeoutError as error:
        reason = f"{error}: raise KICKSERVE_MODEL_TIMEOUT if it is only slow"
        raise PredictionTimeout(f"the model {model.card.name} hangs, {reason}") from error


def predict_checked(model: Model, matrix: NDArray[np.float64]) -> Answer:
    """Predict n kicks as `predict` does, without a time limit: for a caller that has one of its own."""
    name = model.card.name
    try:
        answer = model.predict(matrix)
        sound = is_sound(answer, len(matrix))
    except Exception as error:
        raise PredictionFailed(f"the model {name} raised {type(error).__name__}: {error}") from error
    if not sound:
        raise PredictionFailed(f"the model {name} returned an invalid probability")
    return answer


def is_sound(answer: Answer, count: int) -> bool:
    """Return whether an answer holds `count` probabilities; an end of the interval may be None.

    Raises:
        Exception: any, where the answer is no `Answer` at all.
    """
    probability, *ends = answer
    parts: list[Any] = [probability, *[end for end in ends if end is not None]]
    for part in parts:
        # A model of any origin may leave the probability out: then there is no shape.
        if part is None or part.shape != (count,):
            return False
    found = np.array(parts)
    return not count or bool(found.min() >= 0 and found.max() <= 1)


def wrong_name(name: str) -> str:
    """Return why a model can't have this name, as a clause; empty where it can."""
    # Postgres takes no NUL, and UTF-8 no half of a surrogate: such a prediction could never be stored.
    if name.isprintable() and len(name) <= LONGEST_NAME:
        return ""
    return (
        f"its name must have at most {LONGEST_NAME} characters, all printable, and is {name[:LONGEST_NAME]!r}"
    )


def cancel_of(model: Model) -> Callable[[], None]:
    """Return a function that ends the call of a model in progress, where that is possible."""
    return model.cancel if isinstance(model, Cancellable) else lambda: None


def smoke_test(model: Model, origin: Origin, limit: float) -> None:
    """Predict one kick, and three together, before a model serves, and check its name.

    Args:
        model: the model.
        origin: where it came from.
        limit: seconds that it may take.

    Raises:
        ModelUnusable: it raised, or returned something that is no probability; or no record could hold its
            name.
    """
    if reason := wrong_name(model.card.name):
        raise origin.unusable(f"{reason}: name it otherwise")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a library would repeat its warnings for each kick
            kicks = (TYPICAL, SMOKE_KICKS)
            call_within(limit, lambda: [predict_checked(model, each) for each in kicks], cancel_of(model))
    except TimeoutError as error:
        raise origin.unusable(
            f"tried on a few kicks, {error}: mend the model, or raise KICKSERVE_MODEL_TIMEOUT"
        ) from error
    except PredictionFailed as error:
        note = f". {model.card.description}" if model.card.description else ""
        raise origin.unusable(f"tried on a few kicks, {error}{note}") from error
