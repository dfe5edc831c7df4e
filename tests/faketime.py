"""A clock that a test sets for another process: libfaketime, installed where one may."""

from __future__ import annotations

from pathlib import Path

import debian


def library() -> Path:
    """Find libfaketime, as it is for programs with threads.

    Raises:
        debian.Missing: there is none.
    """
    found = _installed() or (debian.install("faketime") and _installed())
    if not found:
        raise debian.Missing("no libfaketime: install Debian's package faketime")
    return found


def _installed() -> Path | None:
    return next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


class Clock:
    """The clock of processes that are started with its environment; how fast time goes stays as it is."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """What such a process is started with."""
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, days: float) -> None:
        """Set it so many days ahead of the real one, or behind it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{days * 86_400:+.3f}")
        new.replace(self._file)
