"""What kickserve's own model files have in common, whatever computes the answers: JSON that runs no code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from kickserve.features import BY_NAME, FEATURES, INDEX, NAMES
from kickserve.origin import fingerprint_of
from kickserve.schemas import UNDECODABLE, ModelCard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve.errors import ModelUnusable
    from kickserve.origin import Origin

T = TypeVar("T")


class Profile(Struct, kw_only=True, frozen=True):
    """What kicks and predictions looked like when the model was made, to notice a drift later.

    Attributes:
        count: kicks that it was taken from.
        levels: the levels of the quantiles below, 0 to 1, rising.
        quantiles: of each feature that is a number, its quantiles at the levels.
        shares: of each flag, the share of kicks where it is set.
        prediction: quantiles of the predicted probability at the levels.
    """

    count: int
    levels: list[float]
    quantiles: dict[str, list[float]]
    shares: dict[str, float]
    prediction: list[float]


class Header(Struct):
    """How a model file begins."""

    format: str = ""
    version: int = 0


class Document(Protocol):
    """What every document says of its model, whatever its kind."""

    @property
    def format(self) -> str:
        """The name of its kind of file."""

    @property
    def version(self) -> int:
        """The version of that format."""

    @property
    def name(self) -> str:
        """What the model is called."""

    @property
    def revision(self) -> str:
        """Twelve hexadecimal digits that change with its answers; see `revision_of`."""

    @property
    def description(self) -> str:
        """What it is, for a person."""

    @property
    def features(self) -> list[str]:
        """The names of the features that it takes, in their order."""

    @property
    def ability_sd(self) -> float:
        """Spread of the kickers' ability in log-odds; 0 where the model knows none."""

    @property
    def domain(self) -> dict[str, tuple[float, float]]:
        """The lowest and highest value of each feature that it was trained on, by name."""

    @property
    def interval(self) -> str:
        """What its intervals cover, in words."""

    @property
    def trained_on(self) -> dict[str, Any]:
        """What it was trained on, for its card."""

    @property
    def metrics(self) -> dict[str, Any]:
        """How good it was found to be, for its card."""

    @property
    def reference(self) -> Profile | None:
        """What the kicks and predictions looked like when it was made; None of an older file."""


D = TypeVar("D", bound=Document)


class Domain:
    """The ranges of features that a model was trained on.

    Args:
        ranges: lowest and highest value by name of the feature.
    """

    def __init__(self, ranges: Mapping[str, tuple[float, float]]) -> None:
        self._limits = [_limit(name, *ends) for name, ends in ranges.items()]

    def outside(self, matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say of n kicks, shape (n, 11), which `warnings` would warn of; shape (n,)."""
        result = np.zeros(len(matrix), dtype=np.bool_)
        for at, low, high, *_ in self._limits:
            values = matrix[:, at]
            result |= (values < low) | (values > high)
        return result

    def warnings(self, row: Sequence[float]) -> list[str]:
        """Say what makes one kick unlike those that the model was trained on.

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


class OwnModel(Generic[D]):
    """The part of `kickserve.model.Model` that does not answer, of a model that a document holds.

    Args:
        document: the model.
        origin: where it came from.
        kind: of the model, for its card.
        revision: what `revision_of` makes of it; that of the model, where it is not the hub's.
        looks: what to look at beside what all documents have: each says in a clause what is wrong.

    Raises:
        ModelUnusable: the document contradicts itself.
    """

    def __init__(
        self, document: D, origin: Origin, *, kind: str, revision: str, looks: Sequence[Callable[[D], str]]
    ) -> None:
        reasons = (
            look(document)
            for look in (_wrong_names, *looks, _wrong_domain, _wrong_profile, _wrong_revision(revision))
        )
        if reason := next(filter(None, reasons), ""):
            raise unusable(origin, reason)
        self.document = document
        self._card = ModelCard(
            name=document.name,
            revision=origin.commit or revision,
            kind=kind,
            source=origin.source,
            description=document.description,
            features=document.features,
            domain=document.domain,
            interval=document.interval,
            trained_on=document.trained_on,
            metrics=document.metrics,
        )
        self._domain = Domain(document.domain)

    @property
    def card(self) -> ModelCard:
        """What it is."""
        return self._card

    @property
    def profile(self) -> Profile | None:
        """What the kicks that it was trained on looked like, where its file tells."""
        return self.document.reference

    def outside(self, matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say of n kicks, shape (n, 11), which `warnings` would warn of; shape (n,)."""
        return self._domain.outside(matrix)

    def warnings(self, row: Sequence[float]) -> list[str]:
        """Say what makes one kick unlike those that the model was trained on; see `Domain.warnings`."""
        return self._domain.warnings(row)


def revision_of(document: Document, *numbers: Any) -> str:
    """Return 12 hexadecimal digits that change with whatever changes an answer of the model.

    Args:
        document: the model.
        numbers: what it answers with.
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
        raise unusable(origin, f"it is no JSON of a model ({error})") from error


def read(data: bytes, origin: Origin, kind: type[T], expected: Header) -> T:
    """Read a document of the format and version expected.

    Raises:
        ModelUnusable: it is of another, or does not hold what it must.
    """
    header = header_of(data, origin)
    if header.format != expected.format:
        raise unusable(origin, f"its format is {header.format!r} instead of {expected.format!r}")
    if header.version != expected.version:
        raise unusable(
            origin,
            f"it has version {header.version} of the format, and this kickserve reads version"
            f" {expected.version}",
        )
    try:
        return msgspec.json.decode(data, type=kind)
    except UNDECODABLE as error:
        raise unusable(origin, str(error)) from error


def unusable(origin: Origin, reason: str) -> ModelUnusable:
    """Make the error for a document that can't be used, with what to do next."""
    return origin.unusable(f"{reason}. Train it again, or choose another with KICKSERVE_MODEL.")


# What may be wrong with a document, each as a clause; nothing where nothing is.


def _wrong_names(document: Document) -> str:
    if not document.name:
        return "it has no name"
    if document.features != list(NAMES):
        return f"its features must be, in this order, {', '.join(NAMES)}"
    return ""


def _wrong_domain(document: Document) -> str:
    for name, (low, high) in document.domain.items():
        if name not in BY_NAME:
            return f"its domain speaks of {name!r}, which is no feature"
        if not low <= high:
            return f"its domain of {name} runs from {low:g} to {high:g}, that is backwards"
    return ""


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
        return f"its reference says nothing of {', '.join(missing)}"
    if profile.count < 1:
        return f"its reference was taken from {profile.count} kicks, and must be from 1 or more"
    beyond = [name for name, share in profile.shares.items() if not 0 <= share <= 1]
    if beyond:
        return f"its reference has a share of {beyond[0]} that is not from 0 to 1"
    return _wrong_quantiles(profile)


def _wrong_quantiles(profile: Profile) -> str:
    levels = profile.levels
    if levels[:1] + levels[-1:] != [0, 1] or levels != sorted(set(levels)):
        return "the levels of its reference must rise from 0 to 1"
    for name, values in (*profile.quantiles.items(), ("the prediction", profile.prediction)):
        if len(values) != len(levels) or values != sorted(values):
            return f"its reference has quantiles of {name} that don't rise, or are not one for each level"
    if not 0 <= profile.prediction[0] <= profile.prediction[-1] <= 1:
        return "its reference has quantiles of the prediction that are not from 0 to 1"
    return ""


def _wrong_revision(right: str) -> Callable[[Document], str]:
    def look(document: Document) -> str:
        if document.revision in ("", right):
            return ""
        return (
            f"its revision is {document.revision}, but its numbers make it {right}: it was changed after it"
            " was written (if that was you, take the line with the revision out)"
        )

    return look


def _limit(name: str, low: float, high: float) -> tuple[int, float, float, str, str]:
    unit = BY_NAME[name].unit
    behind = unit if unit == "°" else f" {unit}".rstrip()
    return INDEX[name], low, high, f"{name} below {low:g}{behind}", f"{name} beyond {high:g}{behind}"
