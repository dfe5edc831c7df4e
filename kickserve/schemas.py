"""What goes in and out over the API and into the store, as msgspec Structs."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from struct import Struct as Packing
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from kickserve.features import BY_NAME, COUNT, FEATURES, NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The errors of msgspec for bytes that it can't decode: also for no UTF-8, and for brackets without end."""

Flag = bool | Annotated[float, Meta(ge=0, le=1, multiple_of=1)]
"""True or false, 1 or 0, 1.0 or 0.0: pandas and numpy write flags as numbers."""


def _meta(name: str) -> Meta:
    feature = BY_NAME[name]
    if feature.kind == "flag":
        return Meta(description=feature.meaning)
    return Meta(ge=feature.low, le=feature.high, description=feature.doc)


KICKER_LONGEST: Final = 64
_CONTROL: Final = r"[\u0000-\u001f\u007f-\u009f\u2028\u2029]"
KICKER_PATTERN: Final = rf"^(?![\s\S]*{_CONTROL})[\s\S]*\S"
"""Of the text of a label: no control character, and something else than white space."""

KickerName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=KICKER_LONGEST,
        pattern=KICKER_PATTERN,
        description="Label of the kicker, such as a name or a pseudonym. No feature of the model.",
    ),
]
Source = Literal["api", "page", "batch"]
"""How a kick came to the service: by a program, from a visitor of the page, or from a file."""


class Kick(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A kick to be predicted: all eleven features; and who kicks, and where it comes from, which are none.

    Attributes:
        kicker: label of the kicker; null for an unnamed one.
        source: what sent the kick.
    """

    time_norm: Annotated[float, _meta("time_norm")]
    distance: Annotated[float, _meta("distance")]
    angle: Annotated[float, _meta("angle")]
    wind_speed: Annotated[float, _meta("wind_speed")]
    precipitation_probability: Annotated[float, _meta("precipitation_probability")]
    is_left_footed: Annotated[Flag, _meta("is_left_footed")]
    game_away: Annotated[Flag, _meta("game_away")]
    is_endgame: Annotated[Flag, _meta("is_endgame")]
    is_start: Annotated[Flag, _meta("is_start")]
    is_left_side: Annotated[Flag, _meta("is_left_side")]
    has_previous_attempts: Annotated[Flag, _meta("has_previous_attempts")]
    kicker: KickerName | None = None
    source: Annotated[Source, Meta(description="What sent the kick: a program, the page, or a file.")] = "api"


BATCH_MAX: Final = 100_000
"""Kicks, or outcomes, in one request."""

Kicks = Annotated[list[Kick], Meta(min_length=1, max_length=BATCH_MAX)]

Probability = Annotated[float, Meta(ge=0, le=1)]
Interval = tuple[float, float]


class LearnedKicker(Struct, kw_only=True, frozen=True, gc=False):
    """What the outcomes of a kicker's kicks have taught.

    Attributes:
        name: label of the kicker.
        outcomes: how many outcomes of theirs were heard.
        ability: what the kicker adds to the log-odds of a kick.
        low: lower end of the 95 % interval of the ability; `from` in JSON.
        high: its upper end; `to` in JSON.
    """

    name: str
    outcomes: int
    ability: float
    low: float = msgspec.field(name="from")
    high: float = msgspec.field(name="to")


class Learned(Struct, kw_only=True, frozen=True, gc=False):
    """What outcomes have taught, and a prediction has taken into account.

    Attributes:
        level: what is added to the log-odds of every kick; 0 where the level is not learned.
        kicker: of a named kicker; null for an unnamed one.
    """

    level: float
    kicker: LearnedKicker | None


class Prediction(Struct, omit_defaults=True, frozen=True, gc=False):
    """The answer to a kick.

    Attributes:
        id: the record's id, a UUID of version 7 (RFC 9562).
        prediction: probability that the kick succeeds, 0 to 1, with what was learned.
        confidence: probability of the likelier outcome, max(p, 1 - p), 0.5 to 1.
        interval: 95 % interval of the probability; null where the model can't give one.
        model: name of the model that answered.
        warnings: how this kick is outside the domain of the model; left out where it is inside.
        base: the model's own probability; left out where nothing learned was taken into account.
        learned: what was; left out where `base` is.
    """

    id: str
    prediction: Probability
    confidence: Probability
    interval: Interval | None
    model: str
    warnings: tuple[str, ...] = ()
    base: Probability | None = None
    learned: Learned | None = None


class Record(Struct, kw_only=True):
    """A prediction as it is kept, the kick's eleven features included.

    Attributes:
        id: a UUID of version 7: sorting by id is sorting by time.
        created_at: when, UTC, to the millisecond (the same instant that the id holds).
        prediction: probability of success; null where the model failed.
        confidence: probability of the likelier outcome.
        interval: 95 % interval of the probability, or null.
        model: name of the model.
        revision: its exact revision.
        latency_ms: from the reading of the kick to its answer, in milliseconds; of a batch, a kick's share.
        cpu_percent: of the service's process, sampled once a second; 100 is one core.
        memory_mb: resident memory of the process in MB (10⁶ bytes), sampled once a second.
        status_code: the HTTP status that it was answered with.
        error: what went wrong, or null.
        outcome: whether the kick succeeded; null while unknown.
        outcome_at: when the outcome was set, UTC.
        shadow_model: name of a second model that was asked as well, off the path; null where none was.
        shadow_revision: its exact revision.
        shadow_prediction: the probability of success that it gave.
        kicker: label of the kicker; null for an unnamed or forgotten one.
        source: what sent the kick: `api`, `page` or `batch`.
        base: the model's own probability, where `prediction` has something learned in it; else null.
        learned: what that is; null where `base` is.
    """

    id: str
    created_at: datetime
    time_norm: float
    distance: float
    angle: float
    wind_speed: float
    precipitation_probability: float
    is_left_footed: bool
    game_away: bool
    is_endgame: bool
    is_start: bool
    is_left_side: bool
    has_previous_attempts: bool
    prediction: float | None
    confidence: float | None
    interval: Interval | None
    model: str
    revision: str
    latency_ms: float
    cpu_percent: float
    memory_mb: float
    status_code: int = 200
    error: str | None = None
    outcome: bool | None = None
    outcome_at: datetime | None = None
    shadow_model: str | None = None
    shadow_revision: str | None = None
    shadow_prediction: float | None = None
    kicker: str | None = None
    source: Source = "api"
    base: float | None = None
    learned: Learned | None = None


Success = Annotated[Flag, Meta(description="Whether the ball went over.")]


class Outcome(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """The outcome of a kick."""

    success: Success


class OutcomeOf(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """The outcome of the kick with this id."""

    id: str
    success: Success


Outcomes = Annotated[list[OutcomeOf], Meta(min_length=1, max_length=BATCH_MAX)]


class OutcomesKept(Struct, kw_only=True, frozen=True):
    """The result of setting many outcomes.

    Attributes:
        kept: number of outcomes that are kept.
        unknown: ids without a prediction.
    """

    kept: int
    unknown: list[str]


class FieldError(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """One fault in a request.

    Attributes:
        field: name of the field.
        detail: the values that it may have.
        value: the value that was sent; left out where it was missing.
        row: position in the batch, from 0; left out for a single kick.
    """

    field: str
    detail: str
    value: Any = msgspec.UNSET
    row: int | msgspec.UnsetType = msgspec.UNSET


class Problem(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """An error, as RFC 9457 has it (`application/problem+json`).

    Attributes:
        type: URI of the kind of problem, stable.
        title: the kind of problem in words.
        status: the HTTP status.
        detail: what happened this time and what to do about it.
        instance: path of the request.
        request_id: the id that the log and the `X-Request-ID` header carry.
        errors: the faults field by field, where fields are to blame.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[FieldError] = []


class Health(Struct, kw_only=True, frozen=True):
    """Health as one word: `ok`, `degraded`, `live`, `ready` or `not ready`; `parts` says of what."""

    status: str
    version: str
    parts: dict[str, str] = {}


class ModelCard(Struct, kw_only=True, frozen=True):
    """The current model.

    Attributes:
        name: name of the model.
        revision: its exact revision.
        kind: what computes it, such as `linear`.
        source: where it was loaded from.
        description: one paragraph.
        features: the features it takes, in order.
        domain: ranges of features within which it was trained; outside it warns.
        assumed: features whose effects were assumed, as no data show them.
        interval: what the interval covers, or null where it gives none.
        trained_on: provenance: data, size, seed, date.
        metrics: Brier score and the like, and on what they were measured.
    """

    name: str
    revision: str
    kind: str
    source: str
    description: str
    features: list[str]
    domain: dict[str, Interval]
    assumed: list[str] = []
    interval: str | None
    trained_on: dict[str, Any]
    metrics: dict[str, Any]


class Drifted(Struct, kw_only=True, frozen=True):
    """How far the values of one feature, or the predictions, have drifted.

    Attributes:
        name: of the feature, or `prediction`.
        psi: population stability index against the reference, from 0.
        limit: from where on it counts as drifted.
        drifted: whether it does.
        mean: of the current values.
        reference_mean: of the reference.
    """

    name: str
    psi: float
    limit: float
    drifted: bool
    mean: float
    reference_mean: float


class CalibrationChange(Struct, kw_only=True, frozen=True):
    """What has changed between predictions and outcomes.

    Attributes:
        what: `level up` or `level down` where more or fewer kicks succeed than predicted; `too flat` or
            `too steep` where the predictions are too near to the middle or too far from it.
        heard_at: when the outcome became known that raised the alarm, UTC; of a file its line.
        since: the same of the outcome with which the change began, as estimated.
        outcomes: number of outcomes since then.
        difference: share of successes less mean prediction over these.
        difference_interval: its 95 % interval.
        factor: on the log-odds of the predictions, with which they would fit these best; 1 where they do.
        factor_interval: its 95 % interval.
        text: what has changed, and by how much, in words.
    """

    what: str
    heard_at: datetime | int
    since: datetime | int
    outcomes: int
    difference: float
    difference_interval: Interval
    factor: float
    factor_interval: Interval
    text: str


class Calibration(Struct, kw_only=True, frozen=True):
    """The test of predictions by the outcomes of their kicks, one after the other.

    Attributes:
        outcomes: how many were heard.
        evidence: that answers no longer fit outcomes, 1 at the beginning; an alarm is raised at 150, which
            comes by chance in one of 150 services at most, ever; 1,000,000,000 is the most that is shown.
        change: of the present alarm on the answers; null where there is none.
        base_change: of the present alarm on the model's own probabilities: what is learned from outcomes
            heals the answers, and hides there that the model no longer fits.
        note: what to know of it; empty where there is nothing.
    """

    outcomes: int
    evidence: float
    change: CalibrationChange | None
    base_change: CalibrationChange | None
    note: str = ""


class DriftSummary(Struct, kw_only=True, frozen=True):
    """What has drifted from what the model was trained on.

    Attributes:
        at: when this was computed, UTC.
        model: name of the model, whose profile is the reference.
        kicks: how many current kicks it was computed from.
        since: when the oldest of them was predicted, UTC.
        drifted: whether the share is at its limit or above, or the predictions have drifted, or there is an
            alarm on outcomes.
        share: drifted features by all features, 0 to 1.
        limit: of the share.
        features: one by one.
        prediction: the same for what the model says.
        note: what to know of the reference; empty where there is nothing.
        report: path of the newest full report; null where there is none.
        calibration: what outcomes say; null where they were not read.
    """

    at: datetime
    model: str
    kicks: int
    since: datetime
    drifted: bool
    share: float
    limit: float
    features: list[Drifted]
    prediction: Drifted
    note: str = ""
    report: str | None = None
    calibration: Calibration | None = None


def matrix(kicks: Sequence[Kick]) -> NDArray[np.float64]:
    """Kicks as numbers.

    Args:
        kicks: n kicks.

    Returns:
        Shape (n, 11), in the order of `kickserve.features.NAMES`, flags as 0 and 1.
    """
    rows = plain_matrix(kicks)
    return matrix_of([*map(row_of, kicks)]) if rows is None else rows


def plain_matrix(kicks: Sequence[Kick]) -> NDArray[np.float64] | None:
    """Kicks as numbers, as `matrix` returns them, at a third of the time.

    Args:
        kicks: n kicks.

    Returns:
        None where one of them has a label, another source than `api`, or a flag that is a number; or where
        they are too few or too many.
    """
    # All others are as long as each other in MessagePack: their numbers are read from where they lie.
    packed = _pack(kicks) if _FEW <= len(kicks) <= _MANY else b""
    if len(packed) != _HEAD + len(kicks) * _PACKED.itemsize:
        return None
    table, columns = np.frombuffer(packed, _PACKED, offset=_HEAD), np.empty((COUNT, len(kicks)))
    for at, feature in enumerate(FEATURES):
        columns[at] = table[feature.name] == _TRUE if feature.kind == "flag" else table[feature.name]
    return columns.T


def _packed() -> np.dtype[Any]:
    """Return where the numbers of a kick lie in the shortest MessagePack that a kick has."""
    offsets, end = [], 1  # the number of fields
    for feature in FEATURES:
        begin = end + 1 + len(feature.name) + (feature.kind == "number")  # a byte gives the kind of a number
        offsets.append(begin)
        end = begin + (1 if feature.kind == "flag" else 8)
    kinds = ["u1" if feature.kind == "flag" else ">f8" for feature in FEATURES]
    rest = len(b"\xa6kicker\xc0\xa6source\xa3api")
    return np.dtype({"names": NAMES, "formats": kinds, "offsets": offsets, "itemsize": end + rest})


_pack: Final = msgspec.msgpack.Encoder().encode
_pack_row: Final = Packing(f"{COUNT}d").pack
_PACKED: Final = _packed()
_TRUE: Final = 0xC3
_HEAD: Final = 3  # bytes before the first of 16 to 65,535 kicks
_FEW: Final = 16
_MANY: Final = 65_535


def row_of(kick: Kick) -> tuple[float, ...]:
    """Return a kick's eleven numbers, in the order of `kickserve.features.NAMES`."""
    return msgspec.structs.astuple(kick)[:COUNT]


LEARNED_COLUMNS: Final = (
    "learned_level",
    "learned_outcomes",
    "learned_ability",
    "learned_from",
    "learned_to",
)


def column_names(kind: type[Prediction | Record]) -> list[str]:
    """Return the columns of a table of answers or records: pairs and objects make several."""
    several = {"interval": ("low", "high"), "learned": LEARNED_COLUMNS}
    return [name for field in kind.__struct_fields__ for name in several.get(field, (field,))]


def cells_of(answer: Prediction | Record) -> list[Any]:
    """Return the cells of an answer or a record in a table, in the order of `column_names`."""
    cells: list[Any] = []
    for name in answer.__struct_fields__:
        value = getattr(answer, name)
        if name == "interval":
            cells += value or (None, None)
        elif name == "learned":
            cells += _learned_cells(value)
        else:
            cells.append(value)
    return cells


def _learned_cells(learned: Learned | None) -> tuple[float | None, ...]:
    if learned is None:
        return (None,) * len(LEARNED_COLUMNS)
    if (kicker := learned.kicker) is None:
        return learned.level, None, None, None, None
    return learned.level, kicker.outcomes, kicker.ability, kicker.low, kicker.high


def kicker_of(label: str | None) -> str | None:
    """Return the label of a kicker as it is kept, so that one spelling is one kicker.

    Args:
        label: as it came, without a fault (`kickserve.validation.kicker_fault`).

    Returns:
        Without white space around it, in Unicode's composed form (NFC); None for none.
    """
    return label if label is None else unicodedata.normalize("NFC", label.strip())


def matrix_of(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Rows of eleven numbers each as an array, shape (n, 11)."""
    # Quicker than numpy's own ways from sequences, which look at the type of each number.
    numbers = bytearray().join([_pack_row(*row) for row in rows])
    return np.frombuffer(numbers).reshape(len(rows), COUNT)
