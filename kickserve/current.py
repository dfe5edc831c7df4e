"""Whose request is being worked on: its id, and the name of its key, for whatever is logged on its way."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST: Final[ContextVar[bytes | None]] = ContextVar("kickserve_request", default=None)
"""Id of the request; None where none is worked on."""

KEY: Final[ContextVar[str]] = ContextVar("kickserve_key", default="")
"""Name of the key that it came with."""


@contextmanager
def of_request(request_id: bytes, key: str = "") -> Iterator[None]:
    """Have what is logged in the block carry the id of this request, and the name of its key."""
    tokens = REQUEST.set(request_id), KEY.set(key)
    try:
        yield
    finally:
        REQUEST.reset(tokens[0])
        KEY.reset(tokens[1])
