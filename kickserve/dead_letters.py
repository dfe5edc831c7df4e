"""What the store refuses for good: found among what it takes, and put aside, so that the others can pass."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from kickserve.operations import Add

if TYPE_CHECKING:
    from pathlib import Path

    from kickserve.operations import Operation

# Where a store refuses so many in a row, the store is wrong, and not they: then all wait in the journal.
IN_A_ROW: Final = 1_000

_log = logging.getLogger(__name__)


class Refused:
    """Operations that the store can't carry out, in a file beside the journal, a line each, for a person.

    Args:
        folder: the journal's.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "refused.jsonl"
        self._in_a_row = 0

    def accepted(self) -> None:
        """Remember that the store has taken something."""
        self._in_a_row = 0

    def put_aside(self, operation: Operation, reason: Exception) -> bool:
        """Write down an operation and why it was refused; return when the medium has it.

        Returns:
            Whether it may be passed over: not where the store refuses everything.

        Raises:
            OSError: it can't be written down, and must not be passed over.
        """
        if self._in_a_row >= IN_A_ROW:
            return False
        what = operation.batch.records() if isinstance(operation, Add) else operation
        line = msgspec.json.encode({"at": datetime.now(UTC), "reason": str(reason), "refused": what})
        with self.file.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._in_a_row += 1
        _log.error("the store refuses what now stands in %s: %s", self.file, reason)
        return True

    @property
    def state(self) -> str:
        """`ok`, or in words that there is something to look at."""
        try:
            size = self.file.stat().st_size
        except OSError:
            return "ok"
        return (
            f"{size:,} bytes of what it refused stand in {self.file}, each with its reason: see to them, and"
            " move the file away"
        )


def halves(operations: list[Operation]) -> list[list[Operation]]:
    """Cut a group in two, predictions of one batch as well; return nothing where it is one alone."""
    if len(operations) > 1:
        middle = len(operations) // 2
        return [operations[:middle], operations[middle:]]
    match operations:
        case [Add(batch)] if len(batch) > 1:
            middle = len(batch) // 2
            return [[Add(batch.part(0, middle))], [Add(batch.part(middle, len(batch)))]]
    return []
