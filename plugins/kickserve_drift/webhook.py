"""Tells another program by HTTP what happened: signed, in order, and again until it is taken.

What is sent and how it is signed is as in Standard Webhooks (https://www.standardwebhooks.com), for which
there are libraries: the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`, the last one `v1,`
and the base64 of HMAC-SHA256 over `id.timestamp.body`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import time
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from kickserve.batching import cancel_task

if TYPE_CHECKING:
    import httpx

TRIES: Final = 10
LONGEST: Final = 300.0  # seconds between two tries
_TIMEOUT: Final = 10.0
_MAY_PASS: Final = frozenset({408, 425, 429})  # of the refusals, those that another try may not meet
_REFUSED, _BROKEN = 400, 500
_SECRET: Final = "whsec_"  # noqa: S105  how a secret begins that is written in base64

_log = logging.getLogger(__name__)


class Event(Struct, kw_only=True, frozen=True):
    """Something that happened.

    Attributes:
        type: what, such as `drift.started`.
        timestamp: when, UTC.
        data: what there is to know of it.
    """

    type: str
    timestamp: datetime
    data: Any


class Webhook:
    """Sends events to one address.

    Args:
        url: the address.
        secret: signs what is sent; without one it is not signed. With `whsec_` before it, it is base64.
        pause: seconds before the second try; each later pause is twice as long, up to `LONGEST`.
    """

    def __init__(self, url: str, secret: str | None = None, *, pause: float = 1.0) -> None:
        self._url = url
        self._key = None if secret is None else _key(secret)
        self._pause = pause
        self._waiting: asyncio.Queue[Event] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def send(self, event: Event) -> None:
        """Have an event sent, after those before it."""
        self._waiting.put_nowait(event)
        if self._task is None:
            self._task = asyncio.create_task(self._go_on(), name="webhook")

    async def stop(self) -> None:
        """End. What has not been taken by then is lost, and the log says so."""
        unsent = self._waiting.qsize()
        await cancel_task(self._task)
        self._task = None
        if unsent:
            _log.warning("%d messages to the webhook were not sent", unsent)

    async def _go_on(self) -> None:
        import httpx  # a service without a webhook need not wait for it

        async with httpx.AsyncClient(timeout=_TIMEOUT) as client:
            while True:
                event = await self._waiting.get()
                await self._deliver(client, event)

    async def _deliver(self, client: httpx.AsyncClient, event: Event) -> None:
        body, name = msgspec.json.encode(event), f"msg_{uuid.uuid4().hex}"
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(min(self._pause * 2 ** (attempt - 1), LONGEST))
            again, problem = await self._try(client, body, name)
            if not problem:
                return
            _log.info("the webhook did not take %s: %s", event.type, problem)
            if not again:
                break
        _log.error("the webhook was not told of %s: %s", event.type, problem)

    async def _try(self, client: httpx.AsyncClient, body: bytes, name: str) -> tuple[bool, str]:
        """Send once; return whether another try may help, and what is wrong, nothing where it was taken."""
        import httpx

        try:
            response = await client.post(self._url, content=body, headers=self._headers(body, name))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return True, f"{type(error).__name__} {error}".strip()
        if response.is_success:
            return False, ""
        final = _REFUSED <= response.status_code < _BROKEN and response.status_code not in _MAY_PASS
        return not final, f"it answered {response.status_code}"

    def _headers(self, body: bytes, name: str) -> dict[str, str]:
        stamp = str(int(time.time()))
        headers = {"content-type": "application/json", "webhook-id": name, "webhook-timestamp": stamp}
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, name, stamp, body)
        return headers


def signature(key: bytes, name: str, stamp: str, body: bytes) -> str:
    """Sign a message.

    Args:
        key: the secret's bytes.
        name: the message's id, the same however often it is sent.
        stamp: seconds since 1970 when it is sent.
        body: what is sent.
    """
    digest = hmac.new(key, b".".join((name.encode(), stamp.encode(), body)), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(secret: str) -> bytes:
    if secret.startswith(_SECRET):
        try:
            return base64.b64decode(secret.removeprefix(_SECRET), validate=True)
        except binascii.Error:
            pass  # then it only looks like one
    return secret.encode()
