"""The keys of clients: what each may do, the file that they stand in, and how one is recognised.

A key is 256 random bits: its SHA-256 says nothing about it, and need not be slow. The file has that alone.

    {"keys": [{"name": "scoreboard", "scopes": ["read", "predict"], "sha256": "9f86d0…",
               "created": "2026-11-25T10:00:00Z", "expires": "2027-05-25T10:00:00Z"}]}
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from kickserve.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


class Scope(StrEnum):
    """What a key is good for. Each route asks for one of them; `MEANINGS` says which routes that are."""

    READ = "read"
    PREDICT = "predict"
    ADMIN = "admin"


MEANINGS: Final[Mapping[Scope, str]] = {
    Scope.READ: "look at predictions, quality, drift and its reports, the model, `/metrics`",
    Scope.PREDICT: "predict, one kick or many, explain, and tell what came of kicks",
    Scope.ADMIN: "all of that, and delete predictions, reload the model, profile, start reports of drift",
}
DEFAULT: Final = "default"
"""Name of the key that `API_KEY` holds."""

_PREFIX: Final = "kick_"  # by which a scanner of repositories can know a key that lies where it should not
_BYTES: Final = 32
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # nothing that could break a log line or a label
_MODE: Final = 0o600


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A key as it stands in the file.

    Attributes:
        name: whose it is, for logs. Two entries may share one while a key is changed for the next.
        scopes: what it may do.
        sha256: of the key, as 64 hexadecimal digits.
        created: when it was made.
        expires: from when on it opens nothing; None is never.
    """

    name: Annotated[str, msgspec.Meta(pattern=rf"^{_NAME}\Z")]
    scopes: Annotated[tuple[Scope, ...], msgspec.Meta(min_length=1)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F]{64}\Z")]
    created: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    expires: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[Entry]


@dataclass(frozen=True, slots=True)
class Key:
    """A key that opens something.

    Attributes:
        name: whose it is.
        scopes: what it may do, with what that includes.
        digest: its SHA-256.
        expires: seconds since 1970 from which on it opens nothing.
        guessable: whether a person may have chosen it.
    """

    name: str
    scopes: frozenset[Scope]
    digest: bytes = b""
    expires: float = float("inf")
    guessable: bool = False


ANYONE: Final = Key("", frozenset(Scope))
"""Who asks a service that has no keys."""


class KeyRing:
    """The keys of a service at one time.

    Args:
        keys: where two are the same, the first counts.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_digest: dict[bytes, Key] = {}
        for key in keys:
            self._by_digest.setdefault(key.digest, key)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_digest.values())

    def holds(self, key: Key) -> bool:
        """Say whether a key that was found before opens what it did; when it ends may have changed."""
        now = self._by_digest.get(key.digest)
        if now is None or (now.name, now.scopes) != (key.name, key.scopes):
            return False
        return now.expires > time.time()

    def find(self, sent: bytes) -> Key | None:
        """Return the key that was sent, if that opens anything now.

        What is looked up is a digest: who does not know the key can't steer it, so how long this takes
        says nothing about the key.
        """
        digest = hashlib.sha256(sent).digest()
        key = self._by_digest.get(digest)
        if (
            key is None
            or not sent
            or not secrets.compare_digest(key.digest, digest)
            or key.expires <= time.time()
        ):
            return None
        return key


def chosen(secret: str) -> Key:
    """Return the key that `API_KEY` holds: it may do everything."""
    digest = hashlib.sha256(secret.encode()).digest()
    return Key(DEFAULT, frozenset(Scope), digest, guessable=True)


def key_of(entry: Entry) -> Key:
    """Return what an entry of the file opens."""
    scopes = frozenset(Scope) if Scope.ADMIN in entry.scopes else frozenset(entry.scopes)
    expires = float("inf") if entry.expires is None else entry.expires.timestamp()
    return Key(entry.name, scopes, bytes.fromhex(entry.sha256), expires)


def read(file: Path) -> list[Entry]:
    """Read a file of keys.

    Raises:
        ConfigurationError: it can't be read, or is none.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=_File).keys
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"there is no file of keys at {file}: make one with  kickserve key new NAME --file {file}"
        ) from error
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the file of keys {file} can't be used: {error}") from error


def make(name: str, scopes: Iterable[Scope], expires: datetime | None) -> tuple[str, Entry]:
    """Make a key and its entry.

    Raises:
        ConfigurationError: the name can't be used.
    """
    if not re.fullmatch(_NAME, name) or name == DEFAULT:
        raise ConfigurationError(
            f"a key can't be called {name!r}: take up to 64 letters, digits, dots, dashes and underscores,"
            f" beginning with a letter or digit; '{DEFAULT}' is the key in API_KEY"
        )
    key = _PREFIX + secrets.token_urlsafe(_BYTES)
    digest = hashlib.sha256(key.encode()).hexdigest()
    now = datetime.now(UTC).replace(microsecond=0)
    return key, Entry(name=name, scopes=tuple(scopes), sha256=digest, created=now, expires=expires)


@contextmanager
def changing(file: Path) -> Iterator[list[Entry]]:
    """Give the entries of a file to be changed, and write them at the end: whole, or not at all.

    A file that is not there yet is made, for its owner alone.

    Raises:
        ConfigurationError: it can't be read or written, or another process is changing it.
    """
    try:
        with _held(file.parent):
            entries = read(file) if file.exists() else []
            yield entries
            _write(file, entries)
    except OSError as error:
        raise ConfigurationError(f"the file of keys {file} can't be changed: {error}") from error


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep others who change a file of this folder out, as far as the system can hold a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _write(file: Path, entries: list[Entry]) -> None:
    target = file.resolve()  # a link stays one
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    mode = target.stat().st_mode & 0o777 if target.exists() else _MODE
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(msgspec.json.format(msgspec.json.encode(_File(entries)), indent=2) + b"\n")
            opened.flush()
            os.fsync(opened.fileno())
        draft.replace(target)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
