"""Keeps profiles of requests as files: written beside the event loop, the oldest removed."""

from __future__ import annotations

import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import yappi

from kickserve.wholefile import atomic_write
from kickserve_profiling import calls, engine, formats, waits

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kickserve_profiling.waits import Waits

# What this module names files, and nothing else: files of others are neither counted nor removed.
_OURS: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[\w.{}-]+\.(pstat|callgrind)")
_WRITTEN: Final = ("pstat", "callgrind")
_MOST_WAITING: Final = 50  # profiles, of which each holds some hundred kB until it is written

_log = logging.getLogger(__name__)


class Shelf:
    """A folder of profiles.

    Args:
        folder: where; made when there is something to keep.
        most: profiles that are kept.
        limit: bytes that they may take altogether.
        hidden: files whose functions no profile shows.
    """

    def __init__(self, folder: Path, *, most: int, limit: int, hidden: Iterable[str] = ()) -> None:
        self._folder = folder
        self._most = most
        self._limit = limit
        self._hidden = frozenset({*hidden, waits.__file__, engine.__file__})
        self._thread = ThreadPoolExecutor(1, "profiles")
        self._waiting = 0
        self._trouble = False

    def keep(self, name: str, figures: yappi.YFuncStats, waited: Waits) -> None:
        """Have a profile written, soon. Where the disk can't keep up, it is dropped.

        Args:
            name: of the file, without what it ends with.
            figures: what was measured.
            waited: where the request waited.
        """
        if self._waiting >= _MOST_WAITING:
            _log.debug("the profile %s is dropped: too many wait to be written", name)
            return
        self._waiting += 1
        self._thread.submit(self._write, name, figures, waited)

    def close(self) -> None:
        """Wait until all that is to be kept is written."""
        self._thread.shutdown()

    def _write(self, name: str, figures: yappi.YFuncStats, waited: Waits) -> None:
        try:
            profile = calls.part(
                yappi.convert2pstats(figures), waited, engine.generators(figures), self._hidden
            )
            self._folder.mkdir(parents=True, exist_ok=True)
            for each in _WRITTEN:
                format_ = formats.FORMATS[each]
                self._put(name + format_.suffix, format_.write(profile, name))
            self._tidy()
        except OSError as error:
            if not self._trouble:  # said once, and again when it had got better in between
                _log.warning("profiles can't be written to %s: %s", self._folder, error.strerror)
            self._trouble = True
        except Exception:  # noqa: BLE001  nobody looks at what comes of this thread's work
            _log.exception("the profile %s could not be written", name)
        else:
            self._trouble = False
        finally:
            self._waiting -= 1

    def _put(self, name: str, content: bytes) -> None:
        """Write a file so that whoever looks sees all of it or nothing."""
        with atomic_write(self._folder / name) as unfinished:
            unfinished.write_bytes(content)

    def _tidy(self) -> None:
        """Remove the oldest until the rest is within its bounds; the newest stays in any case."""
        sizes: dict[str, int] = {}
        for entry in os.scandir(self._folder):
            if _OURS.fullmatch(entry.name):
                stem = entry.name.rpartition(".")[0]
                sizes[stem] = sizes.get(stem, 0) + entry.stat().st_size
        total = sum(sizes.values())
        for number, stem in enumerate(sorted(sizes)[:-1]):
            if len(sizes) - number <= self._most and total <= self._limit:
                break
            total -= sizes[stem]
            for each in _WRITTEN:
                (self._folder / (stem + formats.FORMATS[each].suffix)).unlink(missing_ok=True)
