"""What requests are bent with: numbers, values, names, methods, targets and headers that break servers."""

from __future__ import annotations

from typing import Final

from kickserve.openapi import EXAMPLE

KEY: Final = "sesame"
PATH: Final = "/api/v1/predict"
ORIGIN: Final = "https://elsewhere.org"

NUMBERS: Final = (
    *("0", "1", "-0", "-0.0", "0.5", "38", "1.0", "1E5", "1e5", "1E+1", "1e-5", "1e999", "-1e999", "1e-999"),
    *(
        "01",
        "+1",
        ".5",
        "5.",
        "1.e1",
        "1e",
        "0x10",
        "1_0",
        "1,0",
        "--1",
        "1e1.5",
        "NaN",
        "Infinity",
        "-Infinity",
    ),
    *(
        "123456789012345678901234567890",
        "9" * 400,
        "-" + "9" * 25,
        "0." + "3" * 400,
        "1" + "0" * 400 + "e-400",
    ),
    *(
        "4.9e-324",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "9007199254740993",
        "18446744073709551616",
    ),
)
VALUES: Final = (
    *(
        "true",
        "false",
        "null",
        "True",
        "nul",
        "tru",
        '"1"',
        '"true"',
        '""',
        "[]",
        "{}",
        "[1]",
        '{"a":1}',
        "",
        " ",
    ),
    *(r'"\ud800"', r'"\udc00\ud800"', r'"\ud83d\ude00"', r'"\u0000"', r'"\x41"', r'"\u12"', '"\x00"', '"\t"'),
    *(
        '"a',
        "'a'",
        '"é"',
        '"\ufeff"',
        "\ufeff1",
        "/*1*/1",
        "1//",
        "undefined",
        "-",
        "[" * 200,
        "[" * 1100 + "1",
    ),
)
BLANKS: Final = ("", "", "", " ", "\n", "\r\n", "\t", "  ")
ODD_BLANKS: Final = (*BLANKS, "\x0b", "\x0c", "\xa0", "\ufeff", "\u2028", "/**/", "//\n", "\x00")
NAMES: Final = (
    *EXAMPLE,
    "moon",
    "",
    "Distance",
    "distance ",
    r"\u0064istance",
    "dist\\ance",
    r"\ud800",
    "__class__",
)
METHODS: Final = (
    *(
        "GET",
        "PUT",
        "DELETE",
        "HEAD",
        "OPTIONS",
        "PATCH",
        "TRACE",
        "CONNECT",
        "post",
        "POSTS",
        "PRI",
        "M-SEARCH",
    ),
    *("P\x00ST", "", "QUERY", "SOURCE", "LINK"),
)
TARGETS: Final = (
    *(
        PATH + "/",
        PATH + "?",
        PATH + "?a=b",
        PATH + "#x",
        PATH + ";a",
        PATH + "%20",
        PATH + "%00",
        PATH + "//",
    ),
    *(
        "/api/v1//predict",
        "//api/v1/predict",
        "/api/v1/./predict",
        "/api/v1/x/../predict",
        "/api/v1/%70redict",
    ),
    *("/api%2Fv1%2Fpredict", "/API/v1/predict", "/api/v1/predict/batch", "/api/v1/explain", "/api/v1/model"),
    *(
        "/api/v1/health/live",
        "/api/v1/nothing",
        "/",
        "*",
        "",
        "api/v1/predict",
        "/\xff",
        "/api/v1/predict\xe9",
    ),
    *(
        "http://test" + PATH,
        "https://user:word@elsewhere:1" + PATH,
        "test:80",
        "http://[::1" + PATH,
        "?",
        "#",
    ),
    *(
        "/api/v1/predict?" + "a" * 3000,
        "/%",
        "/%zz",
        "/api/v1/predict%2e",
        "/api/v1/predict\\",
        "/../api/v1/predict",
    ),
    *("/api/v1/predictions/x", "/docs-assets/../app.py", "/docs-assets/%2e%2e/app.py", "/api/v1/predict?a b"),
)
VERSIONS: Final = ("1.0", "1.0", "0.9", "2.0", "1.2", "1.10", "1", "", "x", "1.1 ", "01.1", "1.1\x00")
ODD_HEADERS: Final = (
    *(
        "Expect: 100-continue",
        "Expect: 100-Continue",
        "Expect: moon",
        "Connection: close",
        "Connection: keep-alive",
    ),
    *("Connection: upgrade", "Connection: Keep-Alive, Upgrade\r\nUpgrade: h2c", "Connection: close, upgrade"),
    *(
        "Connection: upgrade\r\nUpgrade: chocolate",
        "Upgrade: h2c",
        "Connection: \x80",
        "Connection: x-api-key",
    ),
    *(
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
    ),
    *(
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding:\tchunked",
        "TE: trailers",
    ),
    *(
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\r\n: chunked",
        "transfer-encoding: Chunked",
        "X: a\r\n b",
    ),
    *(
        "Content-Length: 0",
        "Content-Length: 5",
        "Content-Length:",
        "Content-Length: 5,5",
        "Content-Length: +5",
    ),
    *(
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 99999999999999999999",
        "Content-Length: 1e1",
    ),
    *(
        "Content-Encoding: gzip",
        "Content-Encoding: identity",
        "Content-Encoding: br, gzip",
        "Content-Encoding:",
    ),
    *(
        "X-API-Key: wrong",
        "X-API-Key: s\xe9same",
        f"X-API-Key: {KEY}",
        "X-API-Key:",
        f"x-api-key: {KEY} ",
        f"X_API_Key: {KEY}",
    ),
    *(
        "X-Request-ID: a b",
        'X-Request-ID: "',
        "X-Request-ID:",
        "X-Request-ID: " + "a" * 128,
        "X-Request-ID: é",
    ),
    *(
        f"Origin: {ORIGIN}",
        "Origin: null",
        "Origin: https://other.org",
        "Origin:",
        "Accept: application/x-ndjson",
    ),
    *(
        "No colon",
        ": no name",
        "Bad name: x",
        "B\x00d: x",
        "Null: a\x00b",
        "Bare: a\rb",
        "Caf\xe9: x",
        "X: \xff\xfe",
    ),
    *(
        "Host: twice",
        "Cookie: a=b; c=d",
        "X: " + "a" * 4000,
        "Forwarded: for=1.2.3.4",
        "X-HTTP-Method-Override: GET",
    ),
    *("Content-Type: application/x-ndjson", "Content-Type: text/html", "Content-Type:", "Trailer: X-API-Key"),
    *(
        "Range: bytes=0-1",
        "If-None-Match: *",
        "Keep-Alive: timeout=0",
        "Proxy-Connection: close",
        " X: folded",
    ),
)
CHUNK_ENDS: Final = (
    "0\r\n\r\n",
    "0\r\nX-API-Key: wrong\r\n\r\n",
    "0;a=b\r\n\r\n",
    "0\r\nContent-Length: 9\r\n\r\n",
    "0\r\n",
)
