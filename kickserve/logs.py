"""How the service logs: a JSON document a line for machines, words in colour for a terminal.

The core and its plugins log with the standard library's `logging`; here is what becomes of it. Each line that
is written on the way of a request carries that request's id, and the name of its key (never the key).
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from kickserve.auth import KEY_NAME
from kickserve.middleware import REQUEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from structlog.typing import EventDict, Processor

    from kickserve.plugins import Plugin
    from kickserve.settings import Settings

_HIDDEN: Final = "(hidden)"
_SHORTEST: Final = 4  # letters of a secret that is looked for
_QUERY: Final = re.compile(r"\?(.*)", re.DOTALL)


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
    handler.setFormatter(_formatter(worker, as_json=as_json))
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
    forms = {form for each in secrets for form in (each, msgspec.json.encode(each).decode()[1:-1])}
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


def _formatter(worker: int | None, *, as_json: bool) -> logging.Formatter:
    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper("iso" if as_json else "%H:%M:%S", utc=as_json),
        _Origin(worker),
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *(_for_machines() if as_json else _for_people()),
        ],
    )


def _for_machines() -> list[Processor]:
    # As text, and without the values of variables: a key or a kick may be among those.
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]


def _for_people() -> list[Processor]:
    colours = sys.stderr.isatty()
    return [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]


def _json(event: EventDict, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


class _Origin:
    """Adds worker, request id and name of the key to a line."""

    def __init__(self, worker: int | None) -> None:
        self._worker = worker

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        if self._worker is not None:
            event["worker"] = self._worker
        request_id = REQUEST.get()
        if request_id is not None:
            event["request_id"] = request_id.decode()
        if key := KEY_NAME.get():
            event["key"] = key
        return event
