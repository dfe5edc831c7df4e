"""What reports are called: in their folder, and as paths of the API."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

PATH: Final = "/api/v1/drift/reports"
NAME: Final = re.compile(r"drift-(\d{8}T\d{12}Z)\.(html|json)")

_STAMP: Final = "%Y%m%dT%H%M%S%fZ"


def name_of(at: datetime) -> str:
    """Return the name of a report that is made now, UTC, without an ending."""
    return f"drift-{at:{_STAMP}}"


def made_at(name: str) -> datetime:
    """Return when the report in a file of this name was made, UTC.

    Raises:
        ValueError: it is no name of a report.
    """
    found = NAME.fullmatch(name)
    stamp = found[1] if found else ""
    return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
