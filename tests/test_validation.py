"""The validation of kicks: any bytes are a kick, or an error of the client's that names all faults."""

from __future__ import annotations

import asyncio
import json
import tracemalloc

import msgspec
import numpy as np
import pytest
from bent import bent
from hypothesis import example, given
from hypothesis import strategies as st
from turns import counted_turns

from kickserve import validation
from kickserve.errors import InvalidInput, MalformedBody, RequestError
from kickserve.features import BY_NAME, FEATURES, FLAGS, NAMES
from kickserve.openapi import EXAMPLE
from kickserve.schemas import Kick
from kickserve.validation import (
    kick_or_error,
    out_of_range,
    read_good_lines,
    read_kick,
    read_kicks,
    read_kicks_in_turns,
    read_outcome,
    read_outcomes,
)

KICK = json.dumps(EXAMPLE).encode()
READERS = {
    "a kick": read_kick,
    "kicks": read_kicks,
    "lines": lambda body: read_kicks(body, lines=True),
    "an outcome": read_outcome,
    "outcomes": read_outcomes,
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def result_of(read, body):
    """Return the value, or the error with all that a client sees of it."""
    try:
        return read(body)
    except RequestError as error:
        return type(error), str(error), msgspec.json.encode(error.errors)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_any_bytes_are_read_or_refused_with_an_error_that_can_be_written(read):
    good = b'[{"id": "01900000-0000-7000-8000-000000000000", "success": true}]'

    @given(bent(KICK) | bent(b"[%b,%b]" % (KICK, KICK)) | bent(KICK + b"\n" + KICK) | bent(good))
    @example(b'"\\ud800"')
    @example(b"1" * 5000)
    @example(b"[" * 900)
    def holds(body):
        result_of(read, body)

    holds()


@given(st.lists(bent(KICK).map(lambda line: line.replace(b"\n", b" ")), min_size=1, max_size=4))
def test_each_line_has_a_kick_or_an_error_and_no_other_number_of_them(lines):
    each = [kick_or_error(line) for line in lines]
    assert all(isinstance(found, Kick | RequestError) for found in each)
    good = read_good_lines(b"\n".join(lines))
    assert good is None or good == each


@given(st.fixed_dictionaries({each.name: st.floats(each.low, each.high) for each in FEATURES}))
def test_a_kick_that_is_written_is_read_again_to_the_last_bit(numbers):
    kick = Kick(**{name: bool(round(at)) if name in FLAGS else at for name, at in numbers.items()})
    assert read_kick(msgspec.json.encode(kick)) == kick


@given(changes=st.dictionaries(st.sampled_from([*EXAMPLE, "moon"]), VALUES, min_size=1, max_size=4))
def test_a_refusal_names_exactly_the_fields_at_fault(changes):
    body = json.dumps({**EXAMPLE, **changes}).encode()
    try:
        kick = read_kick(body)
    except InvalidInput as error:
        assert {fault.field for fault in error.errors} <= set(changes)
        msgspec.json.encode(error.errors)
    except MalformedBody:
        assert "NaN" in body.decode() or "Infinity" in body.decode()
    else:
        for name, value in changes.items():
            assert getattr(kick, name) == value
            assert BY_NAME[name].low <= value <= BY_NAME[name].high


@given(st.lists(st.floats() | st.sampled_from([0.0, 1.0, 30.0]), min_size=len(NAMES), max_size=len(NAMES)))
def test_numbers_are_refused_exactly_where_a_body_of_them_would_be(row):
    faults = out_of_range(np.array([row]))
    body = {name: int(value) if value in {0, 1} else value for name, value in zip(NAMES, row, strict=True)}
    finite = {name: value if np.isfinite(value) else None for name, value in body.items()}
    if not faults:
        read_kick(msgspec.json.encode(body))
        return
    with pytest.raises(InvalidInput) as refusal:
        read_kick(msgspec.json.encode(finite))
    assert [(each.field, each.detail) for each in refusal.value.errors] == [
        (each.field, each.detail) for each in faults
    ]


def test_rows_of_ndjson_are_named_where_they_are_no_json():
    with pytest.raises(MalformedBody, match="row 1"):
        read_kicks(KICK + b"\n{\n" + KICK, lines=True)


@pytest.mark.parametrize(
    ("body", "lines"),
    [(b"[1" + b",1" * 2_000_000 + b"]", False), (b"1\n" * 2_000_000, True), (b"\r" * 4_000_000 + b"1", True)],
)
def test_a_body_with_more_pieces_than_any_batch_is_not_parsed(body, lines):
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=f"no batch, and {len(body):,} bytes long") as refused:
            read_kicks(body, lines=lines)
        assert tracemalloc.get_traced_memory()[1] < len(body)
    finally:
        tracemalloc.stop()
    assert [fault.field for fault in refused.value.errors] == ["body"]


def test_no_more_than_a_hundred_faults_are_listed_at_length():
    with pytest.raises(InvalidInput) as raised:
        read_kicks(b"[" + b",".join([b"{}"] * 1000) + b"]")
    assert 100 <= len(raised.value.errors) <= 111


def test_a_huge_body_is_refused_as_no_json_or_as_no_kick():
    text = b'{"moon": "' + b"x" * 100_000
    with pytest.raises(InvalidInput, match="100,0"):
        read_kick(text + b'"}')
    with pytest.raises(MalformedBody):
        read_kick(text)
    with pytest.raises(MalformedBody):
        read_kicks(b"[" + b"," * 2_000_000)


@pytest.mark.parametrize("count", [0, 100_001])
def test_outcomes_come_in_a_list_that_is_neither_empty_nor_endless(count):
    with pytest.raises(InvalidInput, match="outcomes can be set at once"):
        read_outcomes(msgspec.json.encode([{"id": "x", "success": True}] * count))


async def all_in_turns(body, lines, size):
    async def chunks():
        for start in range(0, len(body), size):
            yield body[start : start + size]

    return [kick async for some in read_kicks_in_turns(chunks(), lines=lines) for kick in some]


# What a body may be made of, so that many are nearly an array or lines of kicks.
PIECES = st.sampled_from([KICK, KICK, KICK, b"{}", b"[", b"]", b"}", b",", b", ", b"\n", b" ", b"x", b'"}"'])


@given(
    body=st.builds(b"[%b]".__mod__, st.lists(st.sampled_from([KICK, b"{}"]), max_size=6).map(b",".join))
    | st.lists(PIECES, max_size=9).map(b"".join),
    lines=st.booleans(),
    part=st.sampled_from([0, 1, len(KICK), 2 * len(KICK)]),
    size=st.sampled_from([1, len(KICK) // 2, len(KICK), 65_536]),
)
@example(body=b"[%b,]" % KICK, lines=False, part=0, size=65_536)
@example(body=b"[%b\f,%b]" % (KICK, KICK), lines=False, part=0, size=1)
@example(body=b"[%b],[%b]" % (KICK, KICK), lines=False, part=0, size=1)
@example(body=KICK.replace(b",", b",\n") + b"\n" + KICK, lines=True, part=1, size=65_536)
@example(body=b"\xef\xbb\xbf[%b,%b]" % (KICK, KICK), lines=False, part=1, size=65_536)
@example(body=b"\xef\xbb\xbf[%b,%b]" % (KICK, KICK), lines=False, part=1, size=1)
def test_many_kicks_are_read_the_same_in_turns_and_at_once(body, lines, part, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "_PART", part)
        in_turns = result_of(lambda body: asyncio.run(all_in_turns(body, lines, size)), body)
    assert in_turns == result_of(lambda body: read_kicks(body, lines=lines), body)


@pytest.mark.parametrize("size", [65_536, 10_000_000])
@pytest.mark.parametrize("lines", [False, True])
async def test_others_get_their_turns_while_many_kicks_are_read(lines, size):
    body = b"\n".join([KICK] * 9_000) if lines else b"[%b]" % b",".join([KICK] * 9_000)
    async with counted_turns() as turns:
        assert len(await all_in_turns(body, lines, size)) == 9_000
    assert len(turns) >= len(body) // validation._PART
