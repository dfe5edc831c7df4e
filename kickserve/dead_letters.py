"""Dead letters: what can't be stored, in files beside the journal, for a person or `kickserve recover`."""

from __future__ import annotations

import logging
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kickserve.journal import PREAMBLE, JournalDir
from kickserve.journal import encode as frames_of
from kickserve.record import Add, encode
from kickserve.wholefile import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kickserve.record import Operation

# A store that refuses so many in a row is at fault itself: then all wait in the journal.
IN_A_ROW: Final = 1_000
_LOG_EVERY: Final = 1.0  # seconds

_log = logging.getLogger(__name__)


class _Line(msgspec.Struct):
    """A line of the file: a dead letter.

    Attributes:
        at: when it was refused.
        reason: in words.
        refused: the records or the change, for a person; None where it can't be read.
        payload: of the journal; None in the files of an older version.
    """

    at: datetime
    reason: str
    refused: Any = None
    payload: bytes | None = None


class DeadLetters:
    """Operations that the store refuses for good, a line each, and damaged parts of the journal.

    Args:
        folder: the journal's.

    Attributes:
        file: of refused operations.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "refused.jsonl"
        self._folder = folder
        self._in_a_row = 0
        self._log_at = 0.0

    def accepted(self) -> None:
        """Remember that the store has accepted a group."""
        self._in_a_row = 0

    def add(self, refused: Operation | bytes, reason: Exception) -> bool:
        """Write down an operation and why it was refused; return when the medium has it.

        Args:
            refused: the operation, or the payload of another version, which can't be decoded.
            reason: why.

        Returns:
            Whether it may be passed over: not where the store refuses everything.

        Raises:
            OSError: it can't be written down, and must not be passed over.
        """
        if isinstance(refused, bytes):
            line = _Line(datetime.now(UTC), f"it can't be read: {reason}", None, refused)
        elif self._in_a_row < IN_A_ROW:
            self._in_a_row += 1
            shown = refused.batch.records() if isinstance(refused, Add) else refused
            line = _Line(datetime.now(UTC), str(reason), shown, encode(refused))
        else:
            return False
        self._write([msgspec.json.encode(line)])
        if time.monotonic() >= self._log_at:  # a store that refuses one thing may refuse thousands
            self._log_at = time.monotonic() + _LOG_EVERY
            _log.error("an operation can't be stored, now a dead letter in %s: %s", self.file, line.reason)
        return True

    def _write(self, lines: Sequence[bytes]) -> None:
        with self.file.open("ab") as file:
            file.writelines(line + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())

    @property
    def state(self) -> str:
        """`ok`, or in words that a person must see to the files."""
        found = [*self._folder.glob("refused*.jsonl"), *self._folder.glob("*.damaged")]
        if not found:
            return "ok"
        size, names = sum(map(_size, found)), ", ".join(file.name for file in found[:3])
        return (
            f"{size:,} bytes of dead letters are in {self._folder} ({names}): see the reasons, store what"
            " can be stored by `kickserve recover`, and move the rest away"
        )

    def put_back(self) -> tuple[int, int]:
        """Put all back into the journal, as a dead process would have left it: a recorder tries to store it.

        May be called beside a running service. Lines without a payload, of an older version, stay.

        Returns:
            How many operations, and how many damaged parts, these are.
        """
        if self.file.exists():  # the service begins another
            self.file.rename(self.file.with_stem(f"refused-{time.time_ns()}"))
        refused, damaged = [*self._folder.glob("refused-*.jsonl")], [*self._folder.glob("*.damaged")]
        if not refused and not damaged:
            return 0, 0
        orphan, count = JournalDir.create(self._folder), 0
        for number, file in enumerate(refused):
            payloads, kept = _payloads_in(file.read_bytes().splitlines())
            with atomic_write(orphan.path / f"{number:020}.log", durable=True) as draft:
                draft.write_bytes(PREAMBLE + frames_of(payloads))
            if kept:
                self._write(kept)
            file.unlink()
            count += len(payloads)
        for number, file in enumerate(damaged, len(refused)):
            file.rename(orphan.path / f"{number:020}.log")
        orphan.release()
        return count, len(damaged)


def _payloads_in(lines: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return the payloads of dead letters, and the lines that have none or can't be read."""
    payloads, others = [], []
    for line in lines:
        try:
            payload = msgspec.json.decode(line, type=_Line).payload
        except msgspec.DecodeError:
            payload = None
        if payload is None:
            others.append(line)
        else:
            payloads.append(payload)
    return payloads, others


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # a person has just moved it away
        return 0
