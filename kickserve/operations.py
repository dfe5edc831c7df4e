"""What the journal says is to happen to the store: operations, each of which can be carried out twice."""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from kickserve.record import RecordBatch
from kickserve.schemas import UNDECODABLE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from kickserve.schemas import Record

# Ends of ids that are looked for in what is not read yet; to look for more takes longer than to read it.
_NEEDLES: Final = 4

_log = logging.getLogger(__name__)


class Delete(Struct, tag="delete", array_like=True):
    """A record is to be removed.

    Attributes:
        id: which.
    """

    id: str


class Judge(Struct, tag="judge", array_like=True):
    """It is known what came of a kick.

    Attributes:
        id: which.
        success: whether it went over.
        at: when that was told.
    """

    id: str
    success: bool
    at: datetime


class Add(Struct, tag="add", array_like=True):
    """Predictions are to be kept.

    Attributes:
        batch: those that were made together.
    """

    batch: RecordBatch


Operation = Add | Delete | Judge
encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Operation).decode


def operations_in(payloads: Iterable[bytes]) -> Iterator[Operation]:
    """Read what stands in the journal; what can't be read is logged, and left out."""
    for payload in payloads:
        try:
            operation = _decode(payload)
            if isinstance(operation, Add):
                operation.batch.check()
            yield operation
        except (*UNDECODABLE, ValueError):
            # Whole by its checksum, so another version of kickserve wrote it.
            _log.exception("a record of the journal can't be read, and is left out (%d bytes)", len(payload))


def replay(record_id: str, payloads: Iterable[bytes]) -> Record | None:
    """Carry out what concerns one record, in memory; return what it comes to."""
    found: Record | None = None
    for operation in operations_in(_with_any({record_id[-12:].encode()}, payloads)):
        match operation:
            case Add(batch):
                found = batch.find(record_id) or found
            case Delete(each) if each == record_id:
                found = None
            case Judge(each, success, at) if each == record_id and found is not None:
                found.outcome, found.outcome_at = success, at
    return found


def standing(record_ids: Collection[str], payloads: Iterable[bytes]) -> set[str]:
    """Return those of these records that are added and not removed again; by ids in the stored spelling."""
    sought = defaultdict[tuple[int, str], list[str]](list)
    for each in record_ids:
        sought[uuid.UUID(each).int >> 80, each[-12:]].append(each)
    found: set[str] = set()
    for operation in operations_in(_with_any({tail.encode() for _, tail in sought}, payloads)):
        match operation:
            case Add(batch):
                candidates = sought.get((batch.millisecond, batch.tail), ())
                found.update(each for each in candidates if batch.ids.find(each) is not None)
            case Delete(each):
                found.discard(each)
    return found


def _with_any(needles: set[bytes], payloads: Iterable[bytes]) -> Iterable[bytes]:
    """Pass over what can't concern ids with these ends.

    They stand in all that can: in an operation's own id, or in what a batch shares.
    """
    if len(needles) > _NEEDLES:
        return payloads
    return (payload for payload in payloads if any(needle in payload for needle in needles))
