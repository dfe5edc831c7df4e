"""Sessions of visitors: a random cookie in the browser, and the key that belongs to it."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from typing import TYPE_CHECKING, Final

import msgspec

from kickserve.plugins import NO_KEY, atomic_write

if TYPE_CHECKING:
    from pathlib import Path

    from kickserve.plugins import Authenticator, Key, Scope

LIFETIME: Final = 14 * 24 * 3600
"""Seconds until the page asks for the key again."""

_FILE: Final = "page.sessions"
_BYTES: Final = 32  # of a cookie
_MOST: Final = 1_000  # sessions: only who has a valid key can begin one

_log = logging.getLogger(__name__)


class _Session(msgspec.Struct, array_like=True):
    token: str  # of cookie and key; worthless where either is another
    expires: float  # in seconds since 1970


class Sessions:
    """The sessions of all visitors, in a file: they outlive a restart, and end for all who have the cookie.

    The file holds no cookie and no key, but digests that neither can be guessed from.

    Args:
        authenticator: knows the keys.
        folder: of the file: the journal's, which outlives a restart.

    Attributes:
        guarded: whether the service has a key.
    """

    def __init__(self, authenticator: Authenticator, folder: Path) -> None:
        self.guarded: bool = authenticator.guarded
        self._authenticator = authenticator
        self._file = folder / _FILE
        self._signature: object = None
        self._sessions: dict[str, _Session] = {}

    def key_of(self, cookie: str) -> Key | None:
        """Return the key behind a cookie while both are valid; None for a visitor who is not signed in."""
        if not self.guarded:
            return NO_KEY
        session, now = self._read().get(_digest(cookie)), time.time()
        if session is None or session.expires <= now:
            return None
        keys = (key for key in self._authenticator.keys if key.expires > now)
        return next((key for key in keys if secrets.compare_digest(session.token, _token(cookie, key))), None)

    def may(self, cookie: str, scope: Scope) -> bool:
        """Return whether the key behind a cookie has this scope now."""
        key = self.key_of(cookie)
        return key is not None and scope in key.scopes

    def sign_in(self, key: str, address: bytes, before: str) -> str:
        """Begin a session in the place of another, and return its cookie.

        Args:
            key: as the visitor typed it.
            address: the visitor's (`kickserve.plugins.identity`).
            before: cookie of the visitor so far; may be empty.

        Raises:
            Unauthorized: there is no such key.
            TooManyRequests: nor were there too many before it from this address.
        """
        found = self._authenticator.identify(key.encode(), address)
        cookie = secrets.token_urlsafe(_BYTES)
        sessions = self._read()
        sessions.pop(_digest(before), None)
        sessions[_digest(cookie)] = _Session(_token(cookie, found), time.time() + LIFETIME)
        self._write()
        return cookie

    def sign_out(self, cookie: str) -> None:
        """End the session of a cookie for all who have the cookie."""
        if self._read().pop(_digest(cookie), None) is not None:
            self._write()

    def _read(self) -> dict[str, _Session]:
        """Return the sessions; another service of the same journal directory may have changed the file."""
        if (signature := self._stat()) != self._signature:
            self._signature = signature
            try:
                self._sessions = msgspec.json.decode(self._file.read_bytes(), type=dict[str, _Session])
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                _log.warning("%s can't be read (%s): visitors of the page sign in again", self._file, error)
                self._sessions = {}
        return self._sessions

    def _write(self) -> None:
        now = time.time()
        valid = [each for each in self._sessions.items() if each[1].expires > now]
        self._sessions = dict(valid[-_MOST:])
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._file) as draft:
                draft.touch(0o600)
                draft.write_bytes(msgspec.json.encode(self._sessions))
        except OSError as error:
            _log.warning("%s can't be written (%s): sessions end with this process", self._file, error)
        self._signature = self._stat()

    def _stat(self) -> object:
        try:
            stat = self._file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()


def _token(cookie: str, key: Key) -> str:
    return hmac.new(cookie.encode(), key.digest, hashlib.sha256).hexdigest()
