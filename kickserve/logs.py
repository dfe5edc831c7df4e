"""How the service logs: a JSON document a line for machines, words in colour for a terminal.

The core and its plugins log with the standard library's `logging`; here is what becomes of it. Each line that
is written on the way of a request carries that request's id, and the name of its key (never the key).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from kickserve.auth import KEY_NAME
from kickserve.middleware import REQUEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kickserve.plugins import Plugin
    from kickserve.settings import Settings

_HIDDEN: Final = "(hidden)"
_SHORTEST: Final = 4  # letters of a secret that is looked for
_QUERY: Final = re.compile(r"\?(.*)", re.DOTALL)
_COLOURS: Final = {"DEBUG": 34, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 31}  # of a terminal (SGR)


def configure(settings: Settings, plugins: Sequence[Plugin] = (), worker: int | None = None) -> None:
    """Configure logging to standard error.

    Args:
        settings: form and level.
        plugins: whose secrets are hidden too.
        worker: its number, from 1, where there are several.
    """
    as_json = settings.log == "json" or (settings.log == "auto" and not sys.stderr.isatty())
    handler = _Handler(sys.stderr)
    handler.addFilter(_hide_queries)
    tables = [settings, *(plugin.table for plugin in plugins if plugin.table is not None)]
    handler.hides = _hiding(secret for table in tables for secret in table.secrets())
    handler.setFormatter(_JsonFormatter(worker) if as_json else _ConsoleFormatter(worker))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger("kickserve").setLevel("DEBUG" if settings.debug else settings.log_level.upper())
    if settings.debug or settings.access_log:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)


class _Handler(logging.StreamHandler[Any]):
    """A handler for standard error that ignores a closed pipe.

    Attributes:
        hides: finds what must not be written.
    """

    hides: re.Pattern[str]

    def format(self, record: logging.LogRecord) -> str:
        return self.hides.sub(_HIDDEN, super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the standard library's name
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


def _hiding(secrets: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern of secrets: those of the settings, and every generated key."""
    # As they are, and as JSON writes them. What is very short would be found in words.
    forms = {form for each in secrets for form in (each, json.dumps(each)[1:-1])}
    known = sorted((re.escape(each) for each in forms if len(each) >= _SHORTEST), key=len, reverse=True)
    return re.compile("|".join([*known, r"\bkick_[A-Za-z0-9_-]{20,}"]))


def _hide_queries(record: logging.LogRecord) -> bool:
    """Remove the values of a query from the log line of a request: a key may be among them."""
    if record.name == "uvicorn.access" and isinstance(record.args, tuple):
        record.args = tuple(
            _QUERY.sub(_hide_query, each) if isinstance(each, str) else each for each in record.args
        )
    return True


def _hide_query(found: re.Match[str]) -> str:
    return "?" + re.sub(r"=[^&]*", f"={_HIDDEN}", found[1])


class _Formatter(logging.Formatter):
    """Knows where a line comes from: number of the worker, id of the request, name of its key."""

    def __init__(self, worker: int | None) -> None:
        super().__init__("%(asctime)s")
        self._worker = worker

    def origin(self) -> dict[str, int | str]:
        request_id = REQUEST.get()
        found = {
            "worker": self._worker,
            "request_id": request_id and request_id.decode(),
            "key": KEY_NAME.get(),
        }
        return {name: value for name, value in found.items() if value}


class _JsonFormatter(_Formatter):
    """Writes a document a line; of errors without the values of variables: a key may be among those."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": self.formatTime(record),
            **self.origin(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _ConsoleFormatter(_Formatter):
    """Writes a line for people, and the traceback of an error behind it."""

    default_time_format = "%H:%M:%S"
    default_msec_format = ""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the standard library's name
        level = f"{record.levelname.lower():<8}"
        if sys.stderr.isatty():
            level = f"\x1b[{_COLOURS.get(record.levelname, 0)}m{level}\x1b[0m"
        origin = "".join(f" {name}={value}" for name, value in self.origin().items())
        return f"{record.asctime} {level} {record.message} [{record.name}]{origin}"
