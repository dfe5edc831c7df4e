"""The common part of kickserve's own model files, JSON that runs no code: fields, checks, log-odds."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct

from kickserve.features import BY_NAME, FEATURES, INDEX, NAMES
from kickserve.model import Answer, Profile, fingerprint_of
from kickserve.schemas import UNDECODABLE, ModelCard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from kickserve.errors import ModelUnusable
    from kickserve.model import Origin

T = TypeVar("T")

NORMAL_975: Final = 1.96
"""Quantile of the normal distribution for a two-sided 95 %."""

# Answers have 11 decimals: the digits behind those depend on the processor, and on how many kicks are asked
# together. Where a kick alone falls so near the middle of two such numbers that its last bits would decide,
# it is asked as one of many are.
_DECIMALS: Final = 1e11
_HALF: Final = _DECIMALS / 2
_DECIDED: Final = 0.499
_WHOLE: Final = 1.5 * 2**52  # added and taken away again, it leaves of a smaller number the nearest integer


class Header(Struct):
    """How a model file begins."""

    format: str = ""
    version: int | list[int] = 0  # a list in files of XGBoost


class Document(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The fields of every document, whatever its kind.

    Attributes:
        format: the name of its kind of file.
        version: of that format.
        name: of the model.
        revision: 12 hexadecimal digits, as `revision_of` makes them; a file written by hand may lack them.
        description: of the model, one paragraph.
        features: the names of the eleven features, in order.
        ability_sd: spread of the kickers' ability in log-odds; 0 where the model knows none.
        domain: the lowest and highest value of each feature in the training data, by name; beyond, it warns.
        assumed: names of features whose effects were assumed, as no data show them.
        interval: the meaning of its intervals, in words.
        trained_on: provenance, for its card.
        metrics: its quality, and on which kicks that was measured, for its card.
        reference: the profile of its training data, or null in an older file.
    """

    format: str
    version: int
    name: Annotated[str, Meta(min_length=1)]
    revision: str = ""
    description: str
    features: list[str]
    ability_sd: Annotated[float, Meta(ge=0, le=1e3)] = 0.0
    domain: dict[str, tuple[float, float]]
    assumed: list[str] = []
    interval: str
    trained_on: dict[str, Any]
    metrics: dict[str, Any]
    reference: Profile | None = None


D = TypeVar("D", bound=Document)


class DocumentModel(Generic[D]):
    """A model that a document holds: all of `kickserve.model.Model` but `predict`.

    Args:
        document: the model.
        origin: where it came from.
        kind: of the model, for its card.
        revision: as `revision_of` makes it of the document; the model's revision, unless the hub has one.
        checks: of this kind of document; each returns a clause with the fault, or nothing.

    Raises:
        ModelUnusable: the document contradicts itself.
    """

    def __init__(
        self, document: D, origin: Origin, *, kind: str, revision: str, checks: Sequence[Callable[[D], str]]
    ) -> None:
        every: tuple[Callable[[D], str], ...] = (
            _wrong_features,
            *checks,
            _wrong_domain,
            _wrong_assumed,
            _wrong_profile,
            partial(_wrong_revision, revision),
        )
        if reason := next(filter(None, (check(document) for check in every)), ""):
            raise unusable(origin, reason)
        self.document = document
        self.profile = document.reference
        self.card = ModelCard(
            name=document.name,
            revision=origin.commit or revision,
            kind=kind,
            source=origin.source,
            description=document.description,
            features=document.features,
            domain=document.domain,
            assumed=document.assumed,
            interval=document.interval,
            trained_on=document.trained_on,
            metrics=document.metrics,
        )
        self._limits = [_limit(name, *ends) for name, ends in document.domain.items()]
        everything = (-math.inf, math.inf)
        self._low, self._high = np.array([document.domain.get(name, everything) for name in NAMES]).T

    def predict(self, matrix: NDArray[np.float64]) -> Answer:
        """Predict n kicks, as `kickserve.model.Model` does."""
        raise NotImplementedError

    def predict_among(self, row: Sequence[float]) -> tuple[float, float, float]:
        """Predict one kick as one of many: where `answer_one` leaves it open.

        Args:
            row: its eleven numbers.
        """
        [[probability, low, high]] = np.array(self.predict(np.array([row], np.float64))).T.tolist()
        return probability, low, high

    def out_of_domain(self, matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return for n kicks, shape (n, 11), whether `warnings` would warn of each; shape (n,)."""
        outside = (matrix < self._low) | (matrix > self._high)
        result: NDArray[np.bool_] = np.logical_or.reduce(outside, axis=1)
        return result

    def warnings(self, row: Sequence[float]) -> list[str]:
        """Return in which way one kick is unlike the training data.

        Args:
            row: its eleven numbers, in the order of `kickserve.features.NAMES`.

        Returns:
            One phrase a feature, such as `distance beyond 60 m`; nothing where all is within the domain.
        """
        found = []
        for at, low, high, below, beyond in self._limits:
            if row[at] > high:
                found.append(beyond)
            elif row[at] < low:
                found.append(below)
        return found


def revision_of(document: Document, *numbers: Any) -> str:
    """Return 12 hexadecimal digits that change with any change of a prediction of the model.

    Args:
        document: the model.
        numbers: the fields of its kind that it predicts with.
    """
    content = (
        document.format,
        document.version,
        document.features,
        *numbers,
        document.ability_sd,
        sorted(document.domain.items()),
    )
    return fingerprint_of(msgspec.json.encode(content))


def header_of(data: bytes, origin: Origin) -> Header:
    """Read how a model file begins.

    Raises:
        ModelUnusable: it is no JSON of a model.
    """
    try:
        return msgspec.json.decode(data, type=Header)
    except UNDECODABLE as error:
        raise unusable(origin, f"the file is not the JSON of a model ({error})") from error


def read(data: bytes, origin: Origin, kind: type[T], expected: Header) -> T:
    """Read a document of the format and version expected.

    Raises:
        ModelUnusable: it is of another, or lacks a field.
    """
    header = header_of(data, origin)
    if header.format != expected.format:
        raise unusable(origin, f"its format is {header.format!r} instead of {expected.format!r}")
    if header.version != expected.version:
        raise unusable(
            origin,
            f"the file has version {header.version} of the format, and this kickserve reads version"
            f" {expected.version}",
        )
    try:
        return msgspec.json.decode(data, type=kind)
    except UNDECODABLE as error:
        raise unusable(origin, str(error)) from error


def unusable(origin: Origin, reason: str) -> ModelUnusable:
    """Make the error for a document that can't be used; it names the next step."""
    return origin.unusable(f"{reason}. Train it again, or choose another with KICKSERVE_MODEL.")


# The checks of every document: each returns its fault as a clause, or nothing.


def _wrong_features(document: Document) -> str:
    right = document.features == list(NAMES)
    return "" if right else f"its features must be, in this order, {', '.join(NAMES)}"


def _wrong_domain(document: Document) -> str:
    for name, (low, high) in document.domain.items():
        if name not in BY_NAME:
            return f"its domain names {name!r}, which is no feature"
        if not low <= high:
            return f"its domain of {name} runs backwards, from {low:g} to {high:g}"
    return ""


def _wrong_assumed(document: Document) -> str:
    unknown = [name for name in document.assumed if name not in BY_NAME]
    return f"it assumes an effect of {unknown[0]!r}, which is no feature" if unknown else ""


def _wrong_profile(document: Document) -> str:
    profile = document.reference
    if profile is None:
        return ""
    missing = [
        each.name
        for each in FEATURES
        if each.name not in (profile.shares if each.kind == "flag" else profile.quantiles)
    ]
    if missing:
        return f"its reference lacks {', '.join(missing)}"
    levels = profile.levels
    if levels[:1] + levels[-1:] != [0, 1] or levels != sorted(set(levels)):
        return "the levels of its reference must rise from 0 to 1"
    for name, values in (*profile.quantiles.items(), ("the prediction", profile.prediction)):
        if len(values) != len(levels) or values != sorted(values):
            return f"its reference has quantiles of {name} that don't rise, or are not one for each level"
    return ""


def _wrong_revision(right: str, document: Document) -> str:
    if document.revision in ("", right):
        return ""
    return (
        f"its revision is {document.revision}, but its numbers give {right}: the file was edited after"
        " training (if you edited the file on purpose, remove the line with the revision)"
    )


def _limit(name: str, low: float, high: float) -> tuple[int, float, float, str, str]:
    unit = BY_NAME[name].unit
    behind = unit if unit == "°" else f" {unit}".rstrip()
    return INDEX[name], low, high, f"{name} below {low:g}{behind}", f"{name} beyond {high:g}{behind}"


# From log-odds to probabilities, for many kicks and for one.


def expit(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn log-odds, of any shape, into probabilities: by way of tanh, which can't overflow."""
    result: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(0.5 * np.asarray(z, np.float64))
    return result


def mean_shrink(ability_sd: float) -> float:
    """Return the divisor, 1 or more, of log-odds for the mean over ability.

    √(1 + π·s²/8): the probit approximation to the mean of a logistic function over a normal distribution
    (MacKay 1992, "The evidence framework applied to classification networks").

    Args:
        ability_sd: spread s of ability in log-odds, 0 or more.
    """
    return math.sqrt(1 + math.pi * ability_sd**2 / 8)


def answer_one(z: float, low: float, high: float) -> tuple[float, float, float] | None:
    """Turn the log-odds of one kick into probabilities, to the bit as `answer_in_place` does.

    Args:
        z: log-odds of the probability.
        low: of the interval's lower end.
        high: of its upper end.

    Returns:
        Probability, low and high; None where the last bits would decide: then ask by arrays.
    """
    tanh = math.tanh
    probability, low, high = (
        _HALF + _HALF * tanh(0.5 * z),
        _HALF + _HALF * tanh(0.5 * low),
        _HALF + _HALF * tanh(0.5 * high),
    )
    low = low if low < probability else probability  # noqa: FURB136  min() and max() cost more than all this
    high = high if high > probability else probability  # noqa: FURB136
    first, second, third = probability + _WHOLE - _WHOLE, low + _WHOLE - _WHOLE, high + _WHOLE - _WHOLE
    if (
        -_DECIDED < probability - first < _DECIDED
        and -_DECIDED < low - second < _DECIDED
        and -_DECIDED < high - third < _DECIDED
    ):
        return first / _DECIMALS, second / _DECIMALS, third / _DECIMALS
    return None


def answer_in_place(rows: NDArray[np.float64]) -> Answer:
    """Turn log-odds into probabilities of 11 decimals, in the same memory.

    Args:
        rows: shape (3, n), the log-odds of the probability and of the interval's ends, low before high.
            Far out, the mean over ability can lie beyond the interval of a middling kicker: then the interval
            is widened to it.
    """
    rows *= 0.5
    np.tanh(rows, out=rows)
    rows *= _HALF
    rows += _HALF
    probability, low, high = rows
    np.minimum(low, probability, out=low)
    np.maximum(high, probability, out=high)
    np.rint(rows, out=rows)
    rows /= _DECIMALS
    return Answer(probability, low, high)
