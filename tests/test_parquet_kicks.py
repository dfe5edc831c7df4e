"""Parquet read by columns gives what Parquet read row by row gives: kicks, outcomes, lines and refusals."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve.features import FEATURES, NAMES
from kickserve_data import parquet_kicks
from kickserve_data.kicks import block_of
from kickserve_data.parquet_kicks import blocks, rows
from kickserve_data.reader import other_columns, read_blocks, schema_of
from kickserve_data.simulate import simulate

ODD = (float("nan"), float("inf"), -1.0, 0.5, 2.0, 1e9, -0.0)
NAMED = [*NAMES, "success"]


def numbers(feature):
    """Values of which most are such as the feature takes."""
    if feature is None or feature.kind == "flag":
        return st.sampled_from([0.0, 1.0] * 8 + list(ODD))
    return st.one_of(st.integers(feature.low, feature.high).map(float), st.sampled_from(ODD))


def whole(value):
    return int(value) if value == value and abs(value) < 100 else 7  # noqa: PLR0124  NaN


# How numbers may stand in a file: the type, and what becomes of a number that is to be written as it.
KINDS = {
    "float64": (pa.float64(), float),
    "float32": (pa.float32(), float),
    "float16": (pa.float16(), lambda value: np.float16(min(value, 60_000))),
    "int8": (pa.int8(), whole),
    "int64": (pa.int64(), lambda value: whole(value) * (2**55 + 1 if value == 1e9 else 1)),
    "uint64": (pa.uint64(), lambda value: abs(whole(value))),
    "boolean": (pa.bool_(), lambda value: value == 1),
    "null": (pa.null(), lambda _: None),
    "text": (pa.string(), str),
    "decimal": (pa.decimal128(20, 2), lambda value: Decimal(whole(value))),
    "categories": (pa.dictionary(pa.int8(), pa.float64()), float),
    "list": (pa.list_(pa.float64()), lambda value: [value]),
    "time": (pa.timestamp("ms"), whole),
}
USUAL = ["float64", "float32", "int8", "int64"]


@st.composite
def tables(draw):
    """A file's columns; one or two may be of an unusual type, and any cell may be null."""
    length = draw(st.integers(1, 30))
    unusual = draw(st.dictionaries(st.sampled_from(NAMED), st.sampled_from([*KINDS]), max_size=2))
    nulls = draw(st.booleans())
    columns = {}
    for name, feature in zip(NAMED, [*FEATURES, None], strict=True):
        flag = feature is None or feature.kind == "flag"
        usual = draw(st.sampled_from([*USUAL, "boolean"] if flag else USUAL))
        kind, convert = KINDS[unusual.get(name, usual)]
        cells = draw(st.lists(numbers(feature), min_size=length, max_size=length))
        empty = draw(st.sets(st.integers(0, length - 1), max_size=2)) if nulls else set()
        values = [None if at in empty else convert(cell) for at, cell in enumerate(cells)]
        columns[name] = pa.array(values, kind)
    if draw(st.booleans()):
        del columns["success"]
    return pa.table(columns)


def joined(read):
    """Matrix, outcomes, lines and refusals of all blocks."""
    return (
        np.concatenate([np.empty((0, len(NAMES))), *(block.matrix for block in read)]).tolist(),
        [
            None if np.isnan(each) else each
            for block in read
            if block.outcome is not None
            for each in block.outcome
        ],
        [line for block in read for line in block.lines.tolist()],
        [refusal for block in read for refusal in block.refusals],
    )


@given(table=tables(), size=st.integers(1, 40))
def test_by_columns_and_by_rows_the_same_is_read(tmp_path_factory, table, size):
    path = tmp_path_factory.mktemp("columns") / "kicks.parquet"
    pq.write_table(table, path, row_group_size=13)
    names = [name if name in table.column_names else None for name in NAMED]
    by_rows = block_of(list(rows(pq.ParquetFile(path), names)), names[-1])
    by_columns = list(blocks(pq.ParquetFile(path), names, size))
    assert joined(by_columns) == joined([by_rows])
    assert all((block.outcome is None) == (names[-1] is None) for block in by_columns)


@pytest.fixture
def kicks_parquet(tmp_path):
    """Write ten kicks with columns beside them."""

    def write(**others):
        path = tmp_path / "kicks.parquet"
        matrix = simulate(10, 1).matrix
        table = dict(zip(NAMES, matrix.T.copy(), strict=True))
        table["distance"][3] = -1
        pq.write_table(pa.table({**others, **table}), path)
        return path

    return write


def test_columns_beside_are_carried_along_for_the_kicks_that_are_read(kicks_parquet):
    path = kicks_parquet(match=list("abcdefghij"), tags=[[each] for each in range(10)])
    assert other_columns(path) == ["match", "tags"]
    assert schema_of(path, ["match"]).types == [pa.string()]
    read = list(read_blocks(path, size=4, others=["tags", "match"]))
    assert [each for block in read for each in block.others["match"].to_pylist()] == list("abcefghij")
    assert [each for block in read for [each] in block.others["tags"].to_pylist()] == [
        *range(3),
        *range(4, 10),
    ]
    far = read[0].where(np.array([False, True, False]))
    assert far.others["match"].to_pylist() == ["b"]
    assert len(far.matrix) == len(far.lines) == 1


def test_columns_beside_are_carried_along_where_cells_are_read_one_by_one(kicks_parquet):
    path = kicks_parquet(match=list("abcdefghij"))
    table = pq.read_table(path)
    index = table.column_names.index("angle")
    table = table.set_column(index, "angle", table["angle"].cast(pa.decimal128(30, 20), safe=False))
    pq.write_table(table, path)
    [block] = read_blocks(path, others=["match"])
    assert block.others["match"].to_pylist() == list("abcefghij")


def test_what_is_not_asked_for_is_not_read(kicks_parquet):
    [block] = read_blocks(kicks_parquet(match=list("abcdefghij")))
    assert block.others is None


def test_long_rows_make_small_blocks(kicks_parquet, monkeypatch):
    monkeypatch.setattr(parquet_kicks, "_BYTES", 1_000_000)
    path = kicks_parquet()
    [kick] = simulate(1, 0).matrix
    columns = {name: [value] * 600 for name, value in zip(NAMES, kick, strict=True)}
    notes = [f"{at}{'x' * 3_000}" for at in range(600)]
    pq.write_table(pa.table({**columns, "note": notes}), path, use_dictionary=False)
    read = list(read_blocks(path, size=100_000, others=["note"]))
    assert len(read) > 1
    assert [each for block in read for each in block.others["note"].to_pylist()] == notes


def test_a_column_beside_that_stands_there_twice_is_left_out(tmp_path):
    path = tmp_path / "kicks.parquet"
    arrays = [pa.array([cell]) for cell in simulate(1, 1).matrix[0]] + [pa.array([1])] * 3
    pq.write_table(pa.Table.from_arrays(arrays, names=[*NAMES, "a", "a", "b"]), path)
    assert other_columns(path) == ["b"]
    [block] = read_blocks(path, others=["b"])
    assert block.others.column_names == ["b"]


def test_only_parquet_has_columns_that_can_be_carried(tmp_path):
    (tmp_path / "kicks.csv").write_text(",".join([*NAMES, "match"]))
    assert other_columns(tmp_path / "kicks.csv") == []
