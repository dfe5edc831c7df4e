"""What the journal says is to happen to the store: operations, each of which can be carried out twice."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from kickserve.record.record_batch import RecordBatch
from kickserve.schemas import UNDECODABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kickserve.schemas import Record

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
    # The end of an id stands in all that can concern it: an operation's own text, or what a batch shares.
    needle = record_id.rpartition("-")[2].encode()
    found: Record | None = None
    for operation in operations_in(payload for payload in payloads if needle in payload):
        match operation:
            case Add(batch):
                found = batch.find(record_id) or found
            case Delete(each) if each == record_id:
                found = None
            case Judge(each, success, at) if each == record_id and found is not None:
                found.outcome, found.outcome_at = success, at
    return found
