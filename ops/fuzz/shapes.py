"""Requests that are too long, or that two servers in a row could take for different ones."""

from __future__ import annotations

import json
from typing import Final

from kickserve.openapi import EXAMPLE

KICK: Final = json.dumps(EXAMPLE).encode()
_PATH: Final = b"POST /api/v1/predict HTTP/1.1\r\n"
POST: Final = _PATH + b"Host: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(KICK), KICK)
SMUGGLED: Final = b"GET /api/v1/model HTTP/1.1\r\nHost: localhost\r\n\r\n"
_CHUNKED: Final = b"%x\r\n%b\r\n0\r\n\r\n" % (len(KICK), KICK)

OVERSIZED: Final = {
    "a header of 40 kB": _PATH + b"Host: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
    "a header without end": _PATH + b"Host: localhost\r\nX: " + b"a" * 200_000,
    "a name without end": _PATH + b"Host: localhost\r\n" + b"a" * 200_000,
    "10,000 headers": _PATH
    + b"Host: localhost\r\n"
    + b"".join(b"X-%d: a\r\n" % each for each in range(10_000))
    + b"\r\n",
    "a line of 1 MB": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a query of 1 MB": b"GET /api/v1/health?" + b"a" * 1_000_000,
}


def _with(*fields: bytes, body: bytes = _CHUNKED) -> bytes:
    return _PATH + b"Host: localhost\r\n" + b"\r\n".join(fields) + b"\r\n\r\n" + body + SMUGGLED


_LENGTH: Final = b"Content-Length: %d" % len(KICK)
_TE: Final = b"Transfer-Encoding: chunked"

AMBIGUOUS: Final = {
    "length and chunks": _with(b"Content-Length: 4", _TE),
    "chunks and length": _with(_TE, b"Content-Length: 4"),
    "two lengths": _with(_LENGTH, b"Content-Length: 0", body=KICK),
    "the same length twice": _with(_LENGTH, _LENGTH, body=KICK),
    "a list of lengths": _with(b"Content-Length: %d, %d" % (len(KICK), len(KICK)), body=KICK),
    "a length with a plus": _with(b"Content-Length: +%d" % len(KICK), body=KICK),
    "a length below zero": _with(b"Content-Length: -1", body=KICK),
    "a length in hexadecimal": _with(b"Content-Length: 0xd7", body=KICK),
    "a length that overflows": _with(b"Content-Length: 18446744073709551617", body=KICK),
    "an empty length": _with(b"Content-Length:", body=KICK),
    "a blank before the colon": _with(b"Transfer-Encoding : chunked"),
    "a blank before the length's colon": _with(b"Content-Length : %d" % len(KICK), body=KICK),
    "a folded encoding": _with(b"Transfer-Encoding:\r\n chunked", _LENGTH),
    "chunked, but not last": _with(b"Transfer-Encoding: chunked, identity"),
    "an unknown encoding": _with(b"Transfer-Encoding: xchunked"),
    "an encoding in quotes": _with(b'Transfer-Encoding: "chunked"'),
    "a vertical tab in the encoding": _with(b"Transfer-Encoding: \x0bchunked"),
    "two encodings": _with(_TE, b"Transfer-Encoding: identity"),
    "a bare CR in a header": _with(b"X: a\rTransfer-Encoding: chunked", _LENGTH, body=KICK),
    "a NUL in a header": _with(b"X: a\x00b", _LENGTH, body=KICK),
    "a size of a chunk with a sign": _with(_TE, body=b"+%x\r\n%b\r\n0\r\n\r\n" % (len(KICK), KICK)),
    "a size of a chunk with 0x": _with(_TE, body=b"0x%x\r\n%b\r\n0\r\n\r\n" % (len(KICK), KICK)),
    "a size of a chunk that overflows": _with(_TE, body=b"10000000000000001\r\na\r\n0\r\n\r\n"),
    "a chunk without its end": _with(_TE, body=b"2\r\n{}0\r\n\r\n"),
    "two hosts": _with(_LENGTH, b"Host: elsewhere", body=KICK),
    "no host": POST.replace(b"Host: localhost\r\n", b"") + SMUGGLED,
}
