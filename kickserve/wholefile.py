"""Files: written whole or not at all, and so that the medium has them; their paths as text."""

from __future__ import annotations

import os
from contextlib import contextmanager
from secrets import token_hex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def printable(path: str | Path) -> str:
    """Return a path as text, with bytes that are no UTF-8, as old disks have them, as escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


@contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give the path of a draft, which gets its name when the block has ended well: whole or not at all.

    Args:
        path: the file; its folder is there.
        durable: whether the medium has all of it before it appears.

    Raises:
        OSError: it can't be written.
    """
    part = path.with_name(f".{path.name}.{token_hex(4)}.part")  # others may write the same file
    try:
        yield part
        if durable:
            sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the medium has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
