"""Bytes that are nearly right, and those that break decoders: a strategy for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

# No UTF-8, brackets without end, numbers beyond all, and parts of a right body.
NASTY = [
    b"\xff\xfe",
    b'"\xff"',
    b'"\\ud800"',
    b'{"a": "\xc3("}',
    b"[" * 100_000,
    b'"' + b'\\"' * 30_000,
    b'{"a":' * 100_000,
    b"9" * 5_000,
    b"1e999",
    b"NaN",
    b"\xef\xbb\xbf{}",
    b"\0" * 64,
    b"",
]


def bent(good):
    """Strategy: bytes that are nearly these: cut, with parts doubled, bytes changed, or wholly other ones."""

    def bend(change):
        kind, at, value = change
        at %= len(good) + 1
        return {
            "cut": good[:at],
            "skip": good[:at] + good[at + 1 + value % 8 :],
            "double": good[:at] + good[max(0, at - value) :],
            "change": good[:at] + bytes([value]) + good[at + 1 :],
        }[kind]

    changes = st.tuples(
        st.sampled_from(["cut", "skip", "double", "change"]), st.integers(0, 1 << 20), st.integers(0, 255)
    )
    return st.one_of(changes.map(bend), changes.map(bend), st.binary(max_size=60), st.sampled_from(NASTY))
