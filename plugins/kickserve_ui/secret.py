"""The secret that signs sessions: made once, kept in a file that only the service's user can read."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from kickserve.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

NAME: Final = "page.secret"
_BYTES: Final = 32


def kept_secret(folder: Path) -> str:
    """Return the secret of this folder; make it where there is none.

    Args:
        folder: where the service keeps what must survive a restart: that of the journal.

    Raises:
        ConfigurationError: it can't be read or written.
    """
    file = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            _write_new(file)
        found = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the secret of the page's sessions can't be kept in {file} ({error}): let this user write"
            " there, or choose another folder with KICKSERVE_JOURNAL_DIR"
        ) from error
    if len(found) < _BYTES:
        raise ConfigurationError(f"{file} holds no secret: remove it, and the next start makes a new one")
    return found


def pass_for(digest: bytes, secret: str) -> str:
    """Return what a session holds once its user gave the key of this digest.

    Another key or secret makes it worthless.
    """
    return hmac.new(secret.encode(), digest, hashlib.sha256).hexdigest()


def _write_new(file: Path) -> None:
    # Whole or not at all: two services that start together must not read half of it.
    draft = file.with_name(f"{NAME}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(secrets.token_hex(_BYTES))
    try:
        os.link(draft, file)  # unlike a rename it leaves one that is there already
    finally:
        draft.unlink()
