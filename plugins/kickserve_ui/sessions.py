"""Sessions of visitors: the secret that signs them, their cookie, and the key that began them."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from starlette.middleware.sessions import SessionMiddleware

from kickserve.plugins import NO_KEY, ConfigurationError, identity
from kickserve_ui.rendering import PATH

if TYPE_CHECKING:
    from pathlib import Path

    from fastapi import Request
    from litestar.types import ASGIApp, Receive, Scope, Send

    from kickserve.plugins import Authenticator, Key
    from kickserve.plugins import Scope as KeyScope

SECRET_FILE: Final = "page.secret"  # noqa: S105  a name
_BYTES: Final = 32
_LIFETIME: Final = 14 * 24 * 3600  # seconds until the page asks for the key again
_SIGNED_IN: Final = "admitted"  # in the session


class Sessions:
    """Visitors, and the keys that they signed in with.

    A session holds no key, but a token that another key or secret makes worthless.

    Args:
        authenticator: knows the keys.
        secret: signs the sessions.

    Attributes:
        guarded: whether the service has a key.
    """

    def __init__(self, authenticator: Authenticator, secret: str) -> None:
        self._authenticator = authenticator
        self._secret = secret
        self.guarded: bool = authenticator.guarded

    def key_of(self, request: Request) -> Key | None:
        """Return the key of a visitor while it is valid; None for a visitor who is not signed in."""
        if not self.guarded:
            return NO_KEY
        shown = str(request.session.get(_SIGNED_IN, ""))
        keys = self._authenticator.keys
        found = (key for key in keys if secrets.compare_digest(shown, self._token(key)))
        return next((key for key in found if keys.holds(key)), None)

    def may(self, key: Key | None, scope: KeyScope) -> bool:
        """Say whether a key has this scope now: it may have been removed since the page was made."""
        return key is not None and self._authenticator.opens(key, scope)

    def sign_in(self, request: Request, key: str) -> None:
        """Begin a session.

        Raises:
            Unauthorized: there is no such key.
            TooManyRequests: too many wrong keys came from this address.
        """
        address = identity(request.client.host) if request.client else b""
        found = self._authenticator.identify(key.encode(), address)
        request.session[_SIGNED_IN] = self._token(found)

    def sign_out(self, request: Request) -> None:
        """End a session."""
        request.session.pop(_SIGNED_IN, None)

    def _token(self, key: Key) -> str:
        return hmac.new(self._secret.encode(), key.digest, hashlib.sha256).hexdigest()


def with_sessions(app: Any, secret: str, *, framed: bool) -> ASGIApp:
    """Give an application sessions, by a cookie that no script can read and that TLS keeps to TLS.

    Args:
        app: the application (ASGI).
        secret: signs the cookie.
        framed: whether pages of other origins may frame ours: behind TLS the cookie is sent there too.
    """

    def middleware(same_site: Literal["lax", "none"], *, secure: bool) -> Any:
        return SessionMiddleware(
            app,
            secret,
            session_cookie="kickserve",
            max_age=_LIFETIME,
            path=PATH,
            same_site=same_site,
            https_only=secure,
        )

    plain = middleware("lax", secure=False)
    secure = middleware("none" if framed else "lax", secure=True)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await (secure if scope["scheme"] in {"https", "wss"} else plain)(scope, receive, send)

    return serve


def load_secret(folder: Path) -> str:
    """Return the secret in a folder; make one where there is none.

    Args:
        folder: of the files that must survive a restart: the journal's.

    Raises:
        ConfigurationError: it can't be read or written.
    """
    file = folder / SECRET_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            _write_new(file)
        found = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the secret of the page's sessions can't be written to {file} ({error}): give this user"
            " write access, or set another directory in KICKSERVE_JOURNAL_DIR"
        ) from error
    if len(found) < _BYTES:
        raise ConfigurationError(f"{file} holds no secret: remove it, and the next start makes a new one")
    return found


def _write_new(file: Path) -> None:
    # Whole or not at all: another service that starts at the same time must not read half of it.
    draft = file.with_name(f"{SECRET_FILE}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(secrets.token_hex(_BYTES))
    try:
        os.link(draft, file)  # unlike a rename this fails where the file is there already
    finally:
        draft.unlink()
