"""Dead letters: operations that the store refuses for good, in a file beside the journal, for a person."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from kickserve.record import Add

if TYPE_CHECKING:
    from pathlib import Path

    from kickserve.record import Operation

# A store that refuses so many in a row is at fault itself: then all wait in the journal.
IN_A_ROW: Final = 1_000

_log = logging.getLogger(__name__)


class DeadLetters:
    """Operations that the store can't carry out, in a file beside the journal, a line each, for a person.

    Args:
        folder: the journal's.

    Attributes:
        file: the file.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "refused.jsonl"
        self._in_a_row = 0

    def accepted(self) -> None:
        """Remember that the store has accepted a group."""
        self._in_a_row = 0

    def add(self, operation: Operation, reason: Exception) -> bool:
        """Write down an operation and why it was refused; return when the medium has it.

        Returns:
            Whether it may be passed over: not where the store refuses everything.

        Raises:
            OSError: it can't be written down, and must not be passed over.
        """
        if self._in_a_row >= IN_A_ROW:
            return False
        refused = operation.batch.records() if isinstance(operation, Add) else operation
        line = msgspec.json.encode({"at": datetime.now(UTC), "reason": str(reason), "refused": refused})
        with self.file.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._in_a_row += 1
        _log.error("the store refused an operation, now a dead letter in %s: %s", self.file, reason)
        return True

    @property
    def state(self) -> str:
        """`ok`, or in words that a person must see to the files."""
        found = [file for file in (self.file, *self.file.parent.glob("*.damaged")) if file.exists()]
        if not found:
            return "ok"
        size, names = sum(file.stat().st_size for file in found), ", ".join(file.name for file in found[:3])
        return (
            f"{size:,} bytes of dead letters are in {self.file.parent} ({names}): inspect them, and move the"
            " files away"
        )
