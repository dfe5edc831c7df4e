"""Holds a file by a lock that goes with the process: nothing is left behind for the next one to doubt."""

from __future__ import annotations

import sys

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def lock(descriptor: int) -> None:
        """Hold a file's lock.

        Raises:
            OSError: another has it.
        """
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def lock(descriptor: int) -> None:
        """Hold a file's lock until it is closed here and in children.

        Raises:
            OSError: another has it, or the disk knows no locks.
        """
        # Not lockf: that lock is lost when any descriptor of the file is closed, and two journals in one
        # process would not see each other's.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
