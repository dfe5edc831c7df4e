"""CSV read in pieces gives what CSV read line by line gives: kicks, outcomes, lines and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve.features import FEATURES, NAMES
from kickserve_data import csv_blocks, reader
from kickserve_data.reader import read_blocks

GOOD = "0.5,38,24,12,0.2,0,1,0,0,1,1,1,Ann"
HEADER = ",".join([*NAMES, "success", "who"])
NUMBERS = ["38", "38.0", " 38", "38 ", "+38", "38.", "038", "3.8e1", "1e-999", "-0", "-0.0", "0.1", "2"]
NO_NUMBERS = ["", " ", "nan", "inf", "1e999", "-1", "3_8", "0x1e", "٣٠", "3,5", "1e", "1d1", "NULL", "NA"]
FLAGS = ["0", "1", "true", "TRUE", "False", "tRUE", "1.0", "0.0", " 1", "1e0", "-0", "", " ", "2", "nan", "y"]
LINES = ["", " ", "\t", "1,2", ",", "\0", *(GOOD + each for each in [",more", "\0", "\udce9", "é", "\u2028"])]
QUOTED = ['"', f'{GOOD}"', f'"{GOOD}', GOOD.replace("Ann", '"Ann"'), GOOD.replace("Ann", '"An\nn"')]


def cell(feature):
    if feature.kind == "flag":
        return st.one_of(st.sampled_from(["0", "1", "true", "False"]), st.sampled_from(FLAGS))
    numbers = usual(feature)
    return st.one_of(numbers, numbers, numbers, st.sampled_from(NUMBERS), st.sampled_from(NO_NUMBERS))


def usual(feature):
    return st.sampled_from("01") if feature.kind == "flag" else st.floats(feature.low, feature.high).map(repr)


USUAL = st.tuples(
    *map(usual, FEATURES), st.sampled_from(["0", "1", ""]), st.sampled_from(["", "Ann", "Zoë"])
).map(",".join)
ODD = st.tuples(*map(cell, FEATURES), st.sampled_from(FLAGS), st.just("Ann")).map(",".join)
LINE = st.one_of(USUAL, USUAL, USUAL, ODD, st.sampled_from(LINES), st.sampled_from([*LINES, *QUOTED]))


def joined(blocks):
    """Matrix, outcomes, lines and refusals of all blocks."""
    return (
        [row for block in blocks for row in block.matrix.tolist()],
        [str(each) for block in blocks for each in block.outcome.tolist()],
        [line for block in blocks for line in block.lines.tolist()],
        [refusal for block in blocks for refusal in block.refusals],
    )


@st.composite
def files(draw):
    """The bytes of a file: a header, and lines of which most are usual."""
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    text = end.join([HEADER, *draw(st.lists(LINE, max_size=30))]) + end * draw(st.booleans())
    mark = b"\xef\xbb\xbf" * draw(st.booleans())
    return mark + text.encode(errors="surrogateescape")


@given(content=files(), size=st.integers(1, 20), piece=st.integers(1, 2_000))
def test_in_pieces_and_line_by_line_the_same_is_read(tmp_path_factory, content, size, piece):
    path = tmp_path_factory.mktemp("pieces") / "kicks.csv"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_blocks, "_PIECE", piece)
        in_pieces = list(read_blocks(path, size=size))
        patch.setattr(reader, "find_spec", lambda _: None)
        by_line = list(read_blocks(path, size=size))
    assert joined(in_pieces) == joined(by_line)
    assert all(len(block.lines) + len(block.refusals) <= size for block in in_pieces)


def test_most_lines_are_read_at_once_and_only_odd_pieces_line_by_line(tmp_path, monkeypatch):
    path = tmp_path / "kicks.csv"
    path.write_text("\n".join([HEADER] + [GOOD] * 500 + [GOOD.replace("38", "far")] + [GOOD] * 499))
    monkeypatch.setattr(csv_blocks, "_PIECE", 100 * (len(GOOD) + 1))
    rows = []
    block_of = csv_blocks.block_of
    monkeypatch.setattr(
        csv_blocks, "block_of", lambda some, *a, **k: rows.extend(some) or block_of(some, *a, **k)
    )
    read = list(read_blocks(path))
    assert sum(len(block.lines) for block in read) == 999
    assert [(each.line, each.reason) for block in read for each in block.refusals] == [
        (502, "distance 'far' must be a number from 2 to 100 m")
    ]
    assert len(rows) < 110


def test_a_line_without_end_is_read_no_further_than_needed(tmp_path, monkeypatch):
    path = tmp_path / "kicks.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n{'x' * 5_000}\n{GOOD}\n")
    monkeypatch.setattr(csv_blocks, "_PIECE", 1_000)
    matrix, _, lines, refusals = joined(list(read_blocks(path)))
    assert (len(matrix), lines) == (2, [2, 4])
    assert [(each.line, each.reason) for each in refusals] == [(3, "has 1 cells where the header has 13")]


@pytest.mark.parametrize("header", [f'"{HEADER.replace(",", chr(34) + "," + chr(34))}"', f"\n{HEADER}"])
def test_an_unusual_header_is_no_hindrance(tmp_path, header):
    path = tmp_path / "kicks.csv"
    path.write_text(f"{header}\n{GOOD}\n")
    [block] = read_blocks(path)
    assert np.array_equal(block.outcome, [1])
