"""The file of keys (`KICKSERVE_KEYS`): names, scopes and SHA-256 digests.

A key is 256 random bits, so a fast digest reveals nothing about it. The file holds the digest alone.

    {"keys": [{"name": "scoreboard", "scopes": ["read", "predict"], "sha256": "9f86d0…",
               "created": "2026-11-25T10:00:00Z", "expires": "2027-05-25T10:00:00Z"}]}
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shlex
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from kickserve.plugins import DEFAULT_KEY, ConfigurationError, Key, Scope, atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


_PREFIX: Final = "kick_"  # by which a scanner of repositories can know a key that lies where it should not
_BYTES: Final = 32
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # nothing that could break a log line or a label
_MODE: Final = 0o600


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One entry of the file.

    Attributes:
        name: for logs. Two entries share a name while a key is rotated.
        scopes: granted scopes.
        sha256: digest of the key, as 64 hexadecimal digits.
        created: time of its making.
        expires: end of its validity; None for no end.
    """

    name: Annotated[str, msgspec.Meta(pattern=rf"^{_NAME}\Z")]
    scopes: Annotated[tuple[Scope, ...], msgspec.Meta(min_length=1)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F]{64}\Z")]
    created: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    expires: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[Entry]


def key_of(entry: Entry) -> Key:
    """Return the key that an entry describes; the scope admin implies the others."""
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
            f"the file of keys {file} does not exist: make it with"
            f"  kickserve key new NAME --scope predict --file {shlex.quote(str(file))}"
        ) from error
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"the file of keys {file} can't be used: {reason}") from error


def make(name: str, scopes: Iterable[Scope], expires: datetime | None) -> tuple[str, Entry]:
    """Make a key and its entry.

    Raises:
        ConfigurationError: the name can't be used.
    """
    if not re.fullmatch(_NAME, name) or name == DEFAULT_KEY:
        raise ConfigurationError(
            f"{name!r} is not a valid name of a key: use up to 64 letters, digits, dots, dashes and"
            f" underscores, starting with a letter or digit; '{DEFAULT_KEY}' is the key in API_KEY"
        )
    key = _PREFIX + secrets.token_urlsafe(_BYTES)
    digest = hashlib.sha256(key.encode()).hexdigest()
    now = datetime.now(UTC).replace(microsecond=0)
    return key, Entry(name=name, scopes=tuple(scopes), sha256=digest, created=now, expires=expires)


@contextmanager
def changing(file: Path) -> Iterator[list[Entry]]:
    """Open the entries of a file for changes, and write the file at the end: whole, or not at all.

    A missing file is made, readable by its owner alone.

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
    """Lock a folder against other processes that change a file in it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _write(file: Path, entries: list[Entry]) -> None:
    target = file.resolve()  # a link stays one
    mode = target.stat().st_mode & 0o777 if target.exists() else _MODE
    with atomic_write(target, durable=True) as draft:
        draft.touch(mode)
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(_File(entries)), indent=2) + b"\n")
