"""Has the scripts of NiceGUI's pages run by a nonce, so that no other script does.

NiceGUI writes scripts into its pages, and compiles templates in the browser, which needs `unsafe-eval`. What
visitors have written stands escaped in there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kickserve.middleware import nonce_of, with_nonce

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Send

    from kickserve.middleware import SecurityHeaders

_POLICY: Final = b"content-security-policy"
_LENGTH: Final = b"content-length"


def with_policy(app: ASGIApp, shield: SecurityHeaders) -> ASGIApp:
    """Return what serves an application whose pages have the nonce and the policy that asks for it.

    Args:
        app: answers, unpacked.
        shield: knows the policy.
    """

    async def served(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            send = _Page(scope, shield, send)
        await app(scope, receive, send)

    return served


class _Page:
    """Passes an answer on: a page without a policy of its own when it is whole, all else as it comes."""

    def __init__(self, scope: Any, shield: SecurityHeaders, send: Send) -> None:
        self._scope = scope
        self._shield = shield
        self._send = send
        self._start: Any = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            if headers.get(b"content-type", b"").startswith(b"text/html") and _POLICY not in headers:
                self._start = message
                return
        elif self._start is not None and message["type"] == "http.response.body":
            self._body += message["body"]
            if not message.get("more_body", False):
                await self._finish()
            return
        await self._send(message)

    async def _finish(self) -> None:
        nonce = nonce_of(self._scope)
        body = with_nonce(self._body, nonce)
        headers = [each for each in self._start["headers"] if each[0] != _LENGTH]
        policy = self._shield.policy(nonce, evaluates=True).encode()
        headers += [(_LENGTH, b"%d" % len(body)), (_POLICY, policy)]
        self._start["headers"] = headers
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
