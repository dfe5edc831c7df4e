"""What schemathesis can't know of this service: loaded by it, see contract.py."""

from __future__ import annotations

import json
import os
from typing import Any, Final

import schemathesis

SHORT: Final = 0.1  # seconds of a profile: what may be asked for is up to a minute
_LONGEST: Final = 60


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Profile for a moment only, and ask for the report that there is in one of two cases."""
    del context, kwargs
    if case.path.endswith("/profile"):
        query = {} if case.query is None else case.query
        if _is_time(query.get("seconds", SHORT)):
            case.query = {**query, "seconds": SHORT}
    report = os.environ.get("CONTRACT_REPORT")
    if report and case.path.endswith("/reports/{name}") and len(str(case.path_parameters)) % 2:
        case.path_parameters["name"] = report


def _is_time(value: Any) -> bool:
    try:
        return SHORT <= float(value) <= _LONGEST
    except (TypeError, ValueError):
        return False


@schemathesis.deserializer("application/x-ndjson")
def lines(context: Any, response: Any) -> Any:
    """Read an answer of lines: each must be JSON."""
    del context
    return [json.loads(line) for line in response.content.splitlines()]


@schemathesis.deserializer("application/octet-stream")
def nothing(context: Any, response: Any) -> Any:
    """Take a profile as it is."""
    del context
    return response.content.decode("latin-1")
