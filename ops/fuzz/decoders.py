"""Feeds the decoders bytes that atheris makes up, seeing what their code does: no error but ours may come.

`just fuzz decoders` (a minute), with atheris installed (`pip install atheris`; not every system has a wheel).
`just fuzz decoders -max_total_time=600 -seed=7` and the other flags of libFuzzer. Ends with 77 and prints the
bytes where one raises something else, or does not read its own output.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

try:
    import atheris
except ModuleNotFoundError:
    sys.exit("atheris is not installed: pip install atheris")

with atheris.instrument_imports(include=["kickserve"]):
    from kickserve import ids, journal, kinds, validation
    from kickserve.errors import RequestError
    from kickserve.openapi import EXAMPLE

SECONDS: Final = 60
KINDS: Final = ("count", "duration", "number", "part", "path", "port", "seconds", "size", "switch", "whole")


def read(decode: Any, data: Any, expected: type[Exception]) -> None:
    """Decode, and take the error that there may be."""
    with contextlib.suppress(expected):
        decode(data)


def one(data: bytes) -> None:
    """Give bytes to every decoder."""
    for decode in (
        validation.read_kick,
        validation.read_kicks,
        validation.read_outcome,
        validation.read_outcomes,
    ):
        read(decode, data, RequestError)
    read(lambda body: validation.read_kicks(body, lines=True), data, RequestError)
    good = validation.read_good_lines(data)
    assert good is None or good == [validation.kick_or_error(line) for line in data.split(b"\n")]
    payloads, length = journal.decode(data)
    assert journal.encode(payloads) == data[:length]
    text = data.decode("latin-1")
    ids.canonical(text)
    for kind in KINDS:
        read(getattr(kinds, kind), text, ValueError)


def decoders(*flags: str) -> None:
    """Feed the decoders bytes that atheris makes up, beginning with valid ones, for a minute.

    Args:
        flags: of libFuzzer, such as -max_total_time=600 and -seed=7.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kick").write_text(json.dumps(EXAMPLE))
        Path(folder, "kicks").write_text(json.dumps([EXAMPLE, EXAMPLE]))
        Path(folder, "frames").write_bytes(journal.encode([b"one", b"two"]))
        usual = [folder, f"-max_total_time={SECONDS}", "-max_len=1000"]
        atheris.Setup([sys.argv[0], *usual, *flags], one)
        atheris.Fuzz()
