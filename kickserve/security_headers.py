"""What browsers are told, so that a page of somebody else can do nothing with ours: headers, and origins.

Every answer says that it is what it says it is (`nosniff`). An answer that is a page also says what it may
load, who may frame it, and that it wants no camera. A script that stands in a page runs by its nonce alone.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kickserve.settings import Settings

    Headers = list[tuple[bytes, bytes]]

SANDBOX: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';"
    " style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
"""For a page that another program made: it may run its own scripts, but neither as a page of this service nor
against any other host."""

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

_POLICY: Final = b"content-security-policy"
_PAGE: Final = [
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
]
_NO_STORE: Final = (b"cache-control", b"no-store")


class Shield:
    """The headers of answers, and whose pages may ask.

    Args:
        settings: who may frame pages, which origins may ask, and whether there is TLS.

    Attributes:
        always: headers of every answer.
    """

    def __init__(self, settings: Settings) -> None:
        self.always: Headers = [(b"x-content-type-options", b"nosniff")]
        if settings.hsts is not None:
            seconds = int(settings.hsts.total_seconds())
            self.always.append((b"strict-transport-security", b"max-age=%d" % seconds))
        self.framed = settings.frame_ancestors is not None
        self._ancestors = " ".join(["'self'", *(settings.frame_ancestors or ())])
        self._origins = frozenset(settings.cors_origins or ())

    def of_answer(self, scope: Any, headers: Headers) -> Headers:
        """Return what an answer has beside its own headers (ASGI).

        What only those may see who have been let in (`Gate.check`) is not to be kept on the way.
        """
        own = dict(headers)
        more = [*self.always]
        if own.get(b"content-type", b"").startswith(b"text/html"):
            more += _PAGE
            if _POLICY not in own:
                more.append((_POLICY, self.policy(nonce_of(scope)).encode()))
        if scope["method"] == "GET" and "caller" in scope["state"] and b"cache-control" not in own:
            more.append(_NO_STORE)
        return more

    def policy(self, nonce: str, *, evaluates: bool = False) -> str:
        """Return the Content-Security-Policy of a page: nothing comes from anywhere else.

        Styles may stand anywhere in it: colours and lengths that are computed do.

        Args:
            nonce: that the page's scripts have.
            evaluates: whether these make code out of text.
        """
        evaluating = " 'unsafe-eval'" if evaluates else ""
        return (
            f"default-src 'none'; script-src 'self' 'nonce-{nonce}'{evaluating};"
            " style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:;"
            " connect-src 'self'; form-action 'self'; base-uri 'none';"
            f" frame-ancestors {self._ancestors}"
        )

    def is_ours(self, headers: Mapping[bytes, bytes]) -> bool:
        """Say whether no page of a foreign origin asks: browsers tell the origin, other clients have none.

        Args:
            headers: of a request or a websocket. A page can't choose `Host` or `X-Forwarded-Host` itself.
        """
        sent = headers.get(b"origin")
        if sent is None:
            return True
        origin = sent.decode("latin-1")
        if origin in self._origins or "*" in self._origins:
            return True
        hosts = {headers.get(name, b"").decode("latin-1") for name in (b"host", b"x-forwarded-host")}
        return origin.partition("://")[2] in hosts - {""}  # not taken apart: it may be any text


def nonce_of(scope: Any) -> str:
    """Return the nonce of an answer's scripts: the same whoever asks, another for every request."""
    nonce: str = scope["state"].setdefault("nonce", secrets.token_urlsafe(16))
    return nonce


def with_nonce(page: bytes, nonce: str) -> bytes:
    """Give the scripts of a page its nonce. What comes from outside must be escaped in it by now."""
    return page.replace(b"<script", b'<script nonce="%b"' % nonce.encode())
