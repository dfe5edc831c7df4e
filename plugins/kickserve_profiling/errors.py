"""What this plugin refuses."""

from __future__ import annotations

import math

from kickserve.errors import DataError, RequestError


class Busy(RequestError):
    """The process is being profiled already.

    Args:
        left: seconds until that ends.
    """

    status = 409
    title = "A profile is being taken"
    retry_after = 5

    def __init__(self, left: float) -> None:
        super().__init__(
            f"this process is being profiled already, for {max(1, math.ceil(left))} s more: ask again then"
        )


class NoProfile(DataError):
    """A file is no profile that can be read."""

    title = "Unreadable profile"
