"""Writes requests that are nearly right: bodies, headers, targets and framings, bent where servers break."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Final

from kickserve.openapi import EXAMPLE
from ops.fuzz.words import (
    BLANKS,
    CHUNK_ENDS,
    KEY,
    METHODS,
    NAMES,
    NUMBERS,
    ODD_BLANKS,
    ODD_HEADERS,
    PATH,
    TARGETS,
    VALUES,
    VERSIONS,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


class Grammar:
    """Writes conversations: the segments that a client sends over one connection.

    Args:
        random: where all choices come from, so that the same seed writes the same.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._bend = random.random
        self._number = 0

    def conversation(self) -> list[bytes]:
        """Write one request, or several without waiting, cut into segments anywhere."""
        many = 1 if self._bend() < 0.85 else self._random.randint(2, 6)
        sent = b"".join(self.request() for _ in range(many))
        if self._bend() < 0.02:
            sent += self._random.choice((b"\r\n", b"\x00", b"moon\r\n\r\n", b"GET", b"\x16\x03\x01\x02\x00"))
        if self._bend() < 0.02:
            sent = sent[: self._random.randrange(len(sent) + 1)]
        return self._cut(sent)

    def _cut(self, sent: bytes) -> list[bytes]:
        chance = self._bend()
        if chance < 0.75 or len(sent) < 2:
            return [sent]
        if chance < 0.77 and len(sent) < 600:
            return [sent[at : at + 1] for at in range(len(sent))]
        cuts = sorted({self._random.randrange(1, len(sent)) for _ in range(self._random.randint(1, 3))})
        return [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]

    def request(self) -> bytes:
        """Write one request: two in five are bent in their body, two in their head, one not at all."""
        body = self.body() if self._bend() < 0.5 else self.kick()
        method, target, version = "POST", PATH, "1.1"
        self._number += 1
        headers = ["Host: test", f"X-API-Key: {KEY}", f"X-Request-ID: asked-{self._number}"]
        headers.append("Content-Type: application/json")
        framed = self._framed(body)
        if self._bend() < 0.4:
            method = self._perhaps(method, METHODS, 0.1)
            target = self._perhaps(target, TARGETS, 0.2)
            version = self._perhaps(version, VERSIONS, 0.1)
            self._bend_headers(headers)
        headers.insert(self._random.randint(0, len(headers)), framed[0])
        line = f"{method} {target} HTTP/{version}"
        if self._bend() < 0.005:
            line = self._random.choice(
                (f"{method} {target}", f"{method}  {target} HTTP/1.1", line + " ", f" {line}")
            )
        end = "\n" if self._bend() < 0.005 else "\r\n"
        head = end.join([line, *(each for each in headers if each), "", ""])
        return head.encode("latin-1", "replace") + framed[1]

    def _perhaps(self, usual: str, odd: tuple[str, ...], chance: float) -> str:
        return self._random.choice(odd) if self._bend() < chance else usual

    def _bend_headers(self, headers: list[str]) -> None:
        random = self._random
        for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
            at = random.randrange(len(headers) + 1)
            chance = self._bend()
            if chance < 0.7:
                headers.insert(at, random.choice(ODD_HEADERS))
            elif chance < 0.8 and at < len(headers):
                headers[at] = random.choice(
                    (headers[at].upper(), headers[at].lower(), headers[at].replace(": ", ":\t"))
                )
            elif chance < 0.9 and at < len(headers):
                headers.pop(at)
            elif at < len(headers):
                headers[at] = headers[at].replace(":", random.choice((" :", "", "::", "\x00:")), 1)
        if self._bend() < 0.01:
            headers += [f"X-{number}: {'a' * random.choice((1, 60, 330))}" for number in range(100)]

    def _framed(self, body: bytes) -> tuple[str, bytes]:
        """Return the header that says where the body ends, and the body as it is sent."""
        chance = self._bend()
        if chance < 0.85:
            return f"Content-Length: {len(body)}", body
        if chance < 0.94:
            return "Transfer-Encoding: chunked", self._chunked(body)
        if chance < 0.97:
            return f"Content-Length: {max(0, len(body) + self._random.choice((-9, -1, 1, 9)))}", body
        if chance < 0.98:
            return f"Content-Length: {len(body)}\r\nTransfer-Encoding: chunked", self._chunked(body)
        if chance < 0.99:
            return f"Content-Length: 00{len(body)}", body
        return "", body

    def _chunked(self, body: bytes) -> bytes:
        random = self._random
        middle = random.randrange(len(body) + 1)
        size = random.choice(
            ("%x", "%X", "0%x", "%x;a", '%x;a="b"', "%x", "%x", " %x", "0x%x", "+%x", "%x ", "%xg")
        )
        written = b"".join(
            (size % len(part)).encode() + b"\r\n" + part + b"\r\n"
            for part in (body[:middle], body[middle:])
            if part
        )
        end = CHUNK_ENDS[0] if self._bend() < 0.8 else random.choice(CHUNK_ENDS)
        return written + end.encode()

    def kick(self) -> bytes:
        """Write a kick that is right, with other numbers each time."""
        changed = {**EXAMPLE, "distance": self._random.randint(2, 100), "angle": self._random.random() * 90}
        return json.dumps(changed).encode()

    def body(self) -> bytes:
        """Write a body that is bent somewhere."""
        bent = self._bent_kick()
        if self._bend() < 0.7:
            return bent.encode("utf-8", "surrogatepass")
        return self._random.choice(_WHOLE)(bent, self._random)

    def _bent_kick(self) -> str:
        random = self._random
        pairs = [(name, json.dumps(value)) for name, value in EXAMPLE.items()]
        for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
            at = random.randrange(len(pairs))
            name, value = pairs[at]
            chance = self._bend()
            odd = random.choice(NUMBERS if self._bend() < 0.6 else VALUES)
            if chance < 0.6:
                pairs[at] = name, odd
            elif chance < 0.7:
                pairs.append((random.choice(NAMES), random.choice((value, odd))))
            elif chance < 0.8:
                pairs.pop(at)
            elif chance < 0.9:
                pairs.append((name, random.choice((value, odd))))
            else:
                random.shuffle(pairs)
        spaced = self._bend()
        blanks = ODD_BLANKS if spaced < 0.05 else BLANKS
        blank = (lambda: random.choice(blanks)) if spaced < 0.3 else str
        text = ",".join(f'{blank()}"{name}"{blank()}:{blank()}{value}{blank()}' for name, value in pairs)
        if self._bend() < 0.05:
            text = random.choice(
                (text + ",", "," + text, text.replace(",", ",,", 1), text.replace(":", "", 1))
            )
        return f"{blank()}{{{text}}}{blank()}"


def _flipped(text: str, random: Random) -> bytes:
    body = bytearray(text.encode())
    for _ in range(random.randint(1, 3)):
        body[random.randrange(len(body))] = random.randrange(256)
    return bytes(body)


def _truncated(text: str, random: Random) -> bytes:
    return text.encode()[: random.randrange(len(text))]


_WHOLE: Final[tuple[Callable[[str, Random], bytes], ...]] = (
    _flipped,
    _flipped,
    _truncated,
    lambda text, _: b"\xef\xbb\xbf" + text.encode(),
    lambda text, _: text.encode("utf-16"),
    lambda text, _: text.encode("utf-16-le"),
    lambda text, _: text.encode("utf-32-be"),
    lambda text, _: text.encode("latin-1", "replace"),
    lambda text, _: gzip.compress(text.encode()),
    lambda text, _: f"{text}\n{text}".encode(),
    lambda text, _: f"[{text}]".encode(),
    lambda text, _: text.replace('"', "'").encode(),
    lambda text, random: text.encode() + b" " * random.choice((59_000, 59_999, 60_001, 64_000, 66_000)),
    lambda _, random: random.choice(
        (b"", b" ", b"\n", b"null", b"0", b'""', b"[]", b"{}", b"\x00", b"\xff\xff")
    ),
    lambda _, random: random.choice((b"[", b'{"a":', b"[{")) * random.choice((10, 400, 1_200, 20_000)),
    lambda _, random: random.randbytes(random.randint(1, 60)),
)
