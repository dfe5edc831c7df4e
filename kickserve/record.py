"""Payloads of the journal: batches of predictions, and the operations that add or change them in a store."""

from __future__ import annotations

import math
import re
import uuid
from collections import defaultdict
from datetime import datetime
from struct import Struct as Packing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from kickserve.features import COUNT, named
from kickserve.ids import COUNTERS, LATEST, Ids, first_id_at, instant
from kickserve.schemas import UNDECODABLE, Learned, LearnedKicker, Record, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

WIDTH: Final = COUNT + 4  # the features of a kick; probability, low and high; the latency in milliseconds
LEARNED_WIDTH: Final = 6  # a model's own probability; level, outcomes, ability, and the interval's ends
_TAIL: Final = re.compile("[0-9a-f]{12}")
NUMBER: Final = np.dtype("<f8")  # the same on every machine: the file may be read on another
# Ends of ids that are searched for in undecoded payloads; to search for more takes longer than to decode.
_NEEDLES: Final = 5
_pack: Final = Packing(f"<{LEARNED_WIDTH}d").pack
_FORGET: Final = b"forget"  # in the payload of an operation that may concern any record


class ShadowAnswers(Struct, array_like=True, frozen=True):
    """Predictions of a second model for the same kicks.

    Attributes:
        model: its name.
        revision: its exact revision.
        predictions: probabilities of success as float64, little endian, shape (n,).
    """

    model: str
    revision: str
    predictions: bytes

    @property
    def probability(self) -> NDArray[np.float64]:
        """The probabilities, shape (n,)."""
        return np.frombuffer(self.predictions, NUMBER)

    def part(self, start: int, end: int) -> ShadowAnswers:
        """Return the predictions from one position to before another."""
        return replace(self, predictions=_rows(self.predictions, start, end, 1))

    def of(self, at: int) -> dict[str, Any]:
        """Return the fields of the record at a position."""
        return {
            "shadow_model": self.model,
            "shadow_revision": self.revision,
            "shadow_prediction": float(self.probability[at]),
        }


class RecordBatch(Struct, array_like=True, frozen=True):
    """Predictions that were made in one go.

    A record of its own for each costs several times as much time as the prediction; so they are made only
    when the store is to have them.

    Attributes:
        millisecond: the instant that the ids hold, in milliseconds since 1970.
        counter: that of the first id; the others follow (`kickserve.ids.Ids`).
        tail: the end that the ids share.
        model: name of the model.
        revision: its exact revision.
        cpu_percent: as in `kickserve.schemas.Record`.
        memory_mb: as in `Record`.
        numbers: float64, little endian, shape (n, 15): the features; probability, low and high, NaN where
            there is none; `latency_ms`.
        status_code: as in `Record`.
        error: as in `Record`.
        shadow: predictions of a second model, once it has been asked.
        source: what sent the kicks.
        kickers: label of the kicker of each kick; None where all are unnamed.
        learned: what is in each probability of `numbers`, as float64, little endian, shape (n, 6): the
            model's own probability, the level, and of a named kicker outcomes, ability and the ends of its
            interval; NaN where nothing learned is in it. None where nothing is in any.
    """

    millisecond: int
    counter: int
    tail: str
    model: str
    revision: str
    cpu_percent: float
    memory_mb: float
    numbers: bytes
    status_code: int = 200
    error: str | None = None
    shadow: ShadowAnswers | None = None
    source: Source = "api"
    kickers: list[str | None] | None = None
    learned: bytes | None = None

    def __len__(self) -> int:
        """How many predictions these are."""
        return len(self.numbers) // (WIDTH * NUMBER.itemsize)

    def check(self) -> None:
        """See that it is whole: one that another version wrote may be decoded and yet be none.

        Raises:
            ValueError: it is not, and says what.
        """
        count, rest = divmod(len(self.numbers), WIDTH * NUMBER.itemsize)
        if rest or not count:
            raise ValueError(f"{len(self.numbers)} bytes are no rows of {WIDTH} numbers")
        if not (0 <= self.millisecond <= LATEST and 0 <= self.counter <= COUNTERS - count):
            raise ValueError(f"no id has the instant {self.millisecond} and the counter {self.counter}")
        if _TAIL.fullmatch(self.tail) is None:
            raise ValueError(f"no id ends with {self.tail[:20]!r}")
        if self.shadow is not None and len(self.shadow.predictions) != count * NUMBER.itemsize:
            raise ValueError("the second model was asked of another number of kicks")
        if self.kickers is not None and len(self.kickers) != count:
            raise ValueError("the kickers are of another number of kicks")
        if self.learned is not None and len(self.learned) != count * LEARNED_WIDTH * NUMBER.itemsize:
            raise ValueError("what was learned is of another number of kicks")

    @property
    def ids(self) -> Ids:
        """The ids, in order."""
        return Ids(self.millisecond, self.counter, len(self), self.tail)

    def part(self, start: int, end: int) -> RecordBatch:
        """Return the sub-batch `[start, end)`."""
        return replace(
            self,
            counter=self.counter + start,
            numbers=_rows(self.numbers, start, end, WIDTH),
            shadow=self.shadow and self.shadow.part(start, end),
            kickers=self.kickers and self.kickers[start:end],
            learned=self.learned and _rows(self.learned, start, end, LEARNED_WIDTH),
        )

    def records(self) -> list[Record]:
        """Make the records, in order."""
        rows = numbers_of([self]).tolist()
        return [self._record(at, *pair) for at, pair in enumerate(zip(self.ids.texts(), rows, strict=True))]

    def find(self, record_id: str) -> Record | None:
        """Return the record with this id, if it is one of these."""
        at = self.ids.find(record_id)
        return None if at is None else self._record(at, record_id, numbers_of([self])[at].tolist())

    def _record(self, at: int, record_id: str, row: Sequence[float]) -> Record:
        probability, low, high, latency = row[COUNT:]
        known = not math.isnan(probability)
        kicker = self.kickers[at] if self.kickers else None
        base, learned = self._learned(at, kicker)
        return Record(
            id=record_id,
            created_at=instant(self.millisecond),
            **named(row[:COUNT]),  # type: ignore[arg-type] # flags come as booleans, numbers as floats
            prediction=probability if known else None,
            confidence=max(probability, 1 - probability) if known else None,
            interval=None if math.isnan(low) else (low, high),
            model=self.model,
            revision=self.revision,
            latency_ms=latency,
            cpu_percent=self.cpu_percent,
            memory_mb=self.memory_mb,
            status_code=self.status_code,
            error=self.error,
            **({} if self.shadow is None else self.shadow.of(at)),
            kicker=kicker,
            source=self.source,
            base=base,
            learned=learned,
        )

    def _learned(self, at: int, kicker: str | None) -> tuple[float | None, Learned | None]:
        if self.learned is None:
            return None, None
        values = np.frombuffer(self.learned, NUMBER).reshape(-1, LEARNED_WIDTH)[at].tolist()
        base, *learned = [None if math.isnan(each) else each for each in values]
        return base, None if base is None else decode_learned(kicker, *learned)


class EncodedLearned(NamedTuple):
    """What was learned, as answers and records have it: encoded once for many of them.

    Attributes:
        json: of a `kickserve.schemas.Learned`, for `Prediction.learned`; None where nothing was.
        numbers: a row of `RecordBatch.learned` with 0 in place of the model's own probability.
    """

    json: msgspec.Raw | None
    numbers: bytes


NOTHING_LEARNED: Final = EncodedLearned(None, _pack(*[math.nan] * LEARNED_WIDTH))


def encode_learned(learned: Learned) -> EncodedLearned:
    """Encode what was learned."""
    kicker = learned.kicker
    named = (math.nan,) * 4 if kicker is None else (kicker.outcomes, kicker.ability, kicker.low, kicker.high)
    return EncodedLearned(msgspec.Raw(msgspec.json.encode(learned)), _pack(0, learned.level, *named))


def pack_learned(numbers: Iterable[bytes], base: NDArray[np.float64] | float) -> bytes:
    """Return `RecordBatch.learned`.

    Args:
        numbers: `EncodedLearned.numbers` of each of n kicks.
        base: the model's own probabilities, shape (n,).
    """
    packed = bytearray().join(numbers)
    np.frombuffer(packed, NUMBER)[::LEARNED_WIDTH] += base
    return bytes(packed)


def decode_learned(kicker: str | None, level: Any, outcomes: float | None, *ability: Any) -> Learned:
    """Put together what was learned.

    Args:
        kicker: label; None for an unnamed or forgotten kicker.
        level: as in `kickserve.schemas.Learned`.
        outcomes: as in `LearnedKicker`; None for an unnamed kicker.
        ability: of a named kicker, and the ends of its interval.
    """
    if kicker is None or outcomes is None:
        return Learned(level=level, kicker=None)
    mean, low, high = ability
    named = LearnedKicker(name=kicker, outcomes=int(outcomes), ability=mean, low=low, high=high)
    return Learned(level=level, kicker=named)


def _rows(numbers: bytes, start: int, end: int, width: int) -> bytes:
    size = width * NUMBER.itemsize
    return numbers[start * size : end * size]


def numbers_of(batches: Iterable[RecordBatch]) -> NDArray[np.float64]:
    """Return the numbers of all of these, shape (n, 15)."""
    return np.frombuffer(b"".join(batch.numbers for batch in batches), NUMBER).reshape(-1, WIDTH)


class Delete(Struct, tag="delete", array_like=True):
    """A record is to be removed.

    Attributes:
        id: of the record.
    """

    id: str


class SetOutcome(Struct, tag="judge", array_like=True):
    """The outcome of a kick is to be set, or taken back.

    Attributes:
        id: of the record.
        success: whether the kick went over; None takes the outcome back.
        at: when the outcome became known, or turned out to be wrong.
    """

    id: str
    success: bool | None
    at: datetime


class Forget(Struct, tag="forget", array_like=True):
    """The label of a kicker is to be taken off all records.

    Attributes:
        kicker: the label.
        at: only of records that were made before this instant.
    """

    kicker: str
    at: datetime

    def strip(self, record: Record) -> None:
        """Take the label off a record, where it has it."""
        if record.kicker == self.kicker and record.id < first_id_at(self.at):
            record.kicker = None
            if record.learned is not None:
                record.learned = replace(record.learned, kicker=None)


class Add(Struct, tag="add", array_like=True):
    """Predictions are to be kept.

    Attributes:
        batch: predictions that were made together.
    """

    batch: RecordBatch


Operation = Add | Delete | SetOutcome | Forget
encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Operation).decode


def operations_in(
    payloads: Iterable[bytes], on_unreadable: Callable[[bytes, Exception], object] | None = None
) -> Iterator[Operation]:
    """Decode payloads of the journal.

    Args:
        payloads: of the journal.
        on_unreadable: called with each payload that can't be decoded, and why. It is whole, so it is of
            another version of kickserve.
    """
    for payload in payloads:
        try:
            operation = _decode(payload)
            if isinstance(operation, Add):
                operation.batch.check()
        except (*UNDECODABLE, ValueError) as error:
            if on_unreadable is not None:
                on_unreadable(payload, error)
        else:
            yield operation


def replay(record_ids: Collection[str], payloads: Iterable[bytes]) -> dict[str, Record]:
    """Carry out in memory the operations of a journal on some records.

    Args:
        record_ids: ids in the stored spelling.
        payloads: of the journal, in its order.

    Returns:
        By id the records that were added and not deleted again, with their outcomes.
    """
    sought = defaultdict[tuple[int, str], list[str]](list)
    for each in record_ids:
        sought[uuid.UUID(each).int >> 80, each[-12:]].append(each)
    found: dict[str, Record] = {}
    for operation in operations_in(_with_any({_FORGET, *(tail.encode() for _, tail in sought)}, payloads)):
        match operation:
            case Add(batch):
                records = map(batch.find, sought.get((batch.millisecond, batch.tail), ()))
                # As in a store, a record that is there stays.
                found = {record.id: record for record in records if record is not None} | found
            case Delete(each):
                found.pop(each, None)
            case SetOutcome(each, success, at) if each in found and at >= (found[each].outcome_at or at):
                found[each].outcome, found[each].outcome_at = success, None if success is None else at
            case Forget():
                for record in found.values():
                    operation.strip(record)
    return found


def _with_any(needles: set[bytes], payloads: Iterable[bytes]) -> Iterable[bytes]:
    """Pass over payloads that can't concern ids with these ends: an operation holds the end of its ids."""
    if len(needles) > _NEEDLES:
        return payloads
    return (payload for payload in payloads if any(needle in payload for needle in needles))
