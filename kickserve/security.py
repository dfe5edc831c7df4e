"""Security of browsers: headers of answers, and the check of the origin of a page.

Every answer has `nosniff`. An HTML answer also has a Content-Security-Policy (what it may load, who may frame
it) and a Permissions-Policy. An inline script runs by its nonce alone.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from kickserve.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kickserve.settings import Settings

    Headers = list[tuple[bytes, bytes]]

SANDBOX: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';"
    " style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
"""Policy of a page that another program made: its scripts run, but neither with the origin of this service
nor with
access to any host."""

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


class SecurityHeaders:
    """The security headers of answers, and the check of origins.

    Args:
        settings: origins that may frame pages or call the API, and `KICKSERVE_HSTS`.

    Attributes:
        always: headers of every answer.
        framed: whether other origins may frame the page.
    """

    def __init__(self, settings: Settings) -> None:
        self.always: Headers = [(b"x-content-type-options", b"nosniff")]
        if settings.hsts is not None:
            seconds = int(settings.hsts.total_seconds())
            self.always.append((b"strict-transport-security", b"max-age=%d" % seconds))
        self.framed = settings.frame_ancestors is not None
        self._ancestors = " ".join(["'self'", *(settings.frame_ancestors or ())])
        self._origins = frozenset(settings.cors_origins or ())

    def headers(self, scope: Any, headers: Headers) -> Headers:
        """Return the security headers of an answer (ASGI).

        Args:
            scope: of the request. An answer for an authenticated principal gets `Cache-Control: no-store`.
            headers: that the answer has already.
        """
        own = dict(headers)
        more = [*self.always]
        if own.get(b"content-type", b"").startswith(b"text/html"):
            more += _PAGE
            if _POLICY not in own:
                more.append((_POLICY, self.policy(nonce_of(scope)).encode()))
        if scope["method"] == "GET" and "principal" in scope["state"] and b"cache-control" not in own:
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

    def is_same_origin(self, headers: Mapping[bytes, bytes]) -> bool:
        """Return whether no page of a foreign origin sends a request or opens a websocket.

        Browsers send `Origin`, and a page can choose neither that nor `Host` and `X-Forwarded-Host`. Other
        clients send no `Origin`.
        """
        sent = headers.get(b"origin")
        if sent is None:
            return True
        origin = sent.decode("latin-1")
        if origin in self._origins or "*" in self._origins:
            return True
        hosts = {headers.get(name, b"").decode("latin-1") for name in (b"host", b"x-forwarded-host")}
        return origin.partition("://")[2] in hosts - {""}  # not parsed: it may be any text

    def refuse_foreign_change(self, scope: Any) -> None:
        """Refuse a request of a foreign page that may change something.

        Raises:
            Forbidden: it is one.
        """
        if scope["method"] not in SAFE and not self.is_same_origin(dict(scope["headers"])):
            raise Forbidden(
                "a page of another origin asks: name its origin in KICKSERVE_CORS_ORIGINS to allow it"
            )


def nonce_of(scope: Any) -> str:
    """Return the nonce of the scripts of an answer: one for each request."""
    nonce: str = scope["state"].setdefault("nonce", secrets.token_urlsafe(16))
    return nonce


def with_nonce(page: bytes, nonce: str) -> bytes:
    """Add the nonce to the scripts of a page, in which text from outside is escaped already."""
    return page.replace(b"<script", b'<script nonce="%b"' % nonce.encode())
