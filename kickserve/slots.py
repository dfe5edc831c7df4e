"""Room for names in memory that workers share: a slot each, and the last for all that find none free.

    [name | what is counted | name | what is counted | …]

Memory is in cells of 8 bytes, a slot is where its first cell is. Names are bytes, with zeros behind them.
"""

from __future__ import annotations

from typing import Final

CELL: Final = 8  # bytes
OTHER: Final = "other"


def find(memory: memoryview[int], slots: range, name: str, cells: int) -> int:
    """Return the slot of a name: the one that has it, else the first free one, else the last.

    Args:
        memory: all of it, as bytes.
        slots: where they begin.
        name: which is cut off where it is longer than the room for it.
        cells: that a name has room in.
    """
    wanted = encoded(name, cells)
    for slot in slots[:-1]:
        held = memory[slot * CELL : (slot + cells) * CELL]
        if not any(held):
            held[:] = wanted
        if held == wanted:
            return slot
    last = slots[-1]
    memory[last * CELL : (last + cells) * CELL] = encoded(OTHER, cells)
    return last


def encoded(text: str, cells: int) -> bytes:
    """Write a text as that many cells hold it."""
    room = cells * CELL
    whole = text.encode()[:room].decode(errors="ignore")  # no half of a letter at the end
    return whole.encode().ljust(room, b"\0")


def decoded(held: bytes) -> str:
    """Read what `encoded` wrote."""
    return held.rstrip(b"\0").decode(errors="replace")
