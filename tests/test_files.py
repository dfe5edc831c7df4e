"""Files of kicks: reading with refusals by line, writing, and the stages of a stream."""

from __future__ import annotations

import json
import threading
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kickserve.errors import MissingExtra
from kickserve.features import FEATURES, NAMES
from kickserve_data import DataError, pipeline, reader
from kickserve_data.pipeline import prefetch, write_behind
from kickserve_data.reader import count_rows, other_columns, read_blocks
from kickserve_data.simulate import simulate
from kickserve_data.writer import open_writer

CELLS = "0.5,38,24,12,0.2,0,1,0,0,1,1"
HEADER = ",".join(NAMES)
KICK = dict(zip(NAMES, map(float, CELLS.split(",")), strict=True))
ENDINGS = ["csv", "ndjson", "parquet"]


def read(path, **options):
    """Read all blocks; return matrix, outcomes, lines and refusals."""
    blocks = list(read_blocks(path, **options))
    outcomes = [np.full(len(b.matrix), np.nan) if b.outcome is None else b.outcome for b in blocks]
    return (
        np.concatenate([np.empty((0, 11)), *(block.matrix for block in blocks)]).tolist(),
        np.concatenate([np.empty(0), *outcomes]).tolist(),
        [line for block in blocks for line in block.lines.tolist()],
        [(refused.line, refused.reason) for block in blocks for refused in block.refusals],
    )


def values(feature):
    return st.sampled_from([0.0, 1.0]) if feature.kind == "flag" else st.floats(feature.low, feature.high)


KICKS = st.lists(
    st.tuples(*map(values, FEATURES), st.sampled_from([0.0, 1.0, None])), min_size=1, max_size=20
)


@settings(deadline=None, max_examples=40)
@given(kicks=KICKS, ending=st.sampled_from(ENDINGS), size=st.integers(1, 7))
def test_a_written_file_is_read_again_to_the_last_bit(tmp_path_factory, kicks, ending, size):
    path = tmp_path_factory.mktemp("files") / f"kicks.{ending}"
    columns = dict(zip([*NAMES, "success"], map(list, zip(*kicks, strict=True)), strict=True))
    with open_writer(path, [*NAMES, "success"]) as writer:
        writer.write(columns)
    matrix, outcomes, lines, refusals = read(path, size=size)
    assert refusals == []
    assert matrix == [list(kick[:-1]) for kick in kicks]
    assert [None if np.isnan(each) else each for each in outcomes] == [kick[-1] for kick in kicks]
    assert lines == [at + (2 if ending == "csv" else 1) for at in range(len(kicks))]
    assert count_rows(path) == len(kicks)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "there is no file"),
        ("empty.csv", b"", "is empty"),
        ("kicks.xlsx", b"x", "unknown ending"),
        ("broken.parquet", b"no parquet", "is no Parquet file"),
        ("header.csv", b"a,b\n", "has no column"),
        ("case.csv", HEADER.replace("distance", "Distance").encode(), "no column distance; is it 'Distance'"),
        ("twice.csv", f"{HEADER},angle".encode(), "more than one column angle"),
        ("utf16.csv", f"{HEADER}\n{CELLS}\n".encode("utf-16"), "its header is not UTF-8"),
        ("latin1.csv", b"\xe9," + HEADER.encode(), "its header is not UTF-8"),
        ("quote.csv", f'"{HEADER}\n{CELLS}\n'.encode(), "its header can't be read"),
    ],
)
def test_a_file_that_can_not_be_read_says_why(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_blocks(tmp_path / name))


class TestCsv:
    @pytest.fixture
    def write(self, tmp_path):
        def write(text, header=HEADER):
            path = tmp_path / "kicks.csv"
            path.write_bytes(text if isinstance(text, bytes) else f"{header}\n{text}".encode())
            return path

        return write

    def test_columns_come_in_any_order_with_others_beside_them(self, write):
        header = ",".join(["kicker", *reversed(NAMES)])
        row = '"Ann, \nthe first",' + ",".join(reversed(CELLS.split(",")))
        matrix, _, lines, _ = read(write(f"{row}\n{row}\n", header))
        assert (matrix, lines) == ([list(KICK.values())] * 2, [2, 4])

    @pytest.mark.parametrize("delimiter", [";", "\t"])
    def test_the_delimiter_is_the_one_that_parts_the_known_names(self, write, delimiter):
        header = HEADER.replace(",", delimiter) + delimiter + "a," * 30
        assert len(read(write(CELLS.replace(",", delimiter) + delimiter, header))[0]) == 1

    def test_byte_order_mark_windows_line_ends_and_blank_lines_do_not_matter(self, write):
        text = b"\xef\xbb\xbf" + f"{HEADER}\r\n{CELLS}\r\n\r\n \r\n{CELLS}".encode()
        matrix, _, lines, refusals = read(write(text))
        assert (len(matrix), lines, refusals) == (2, [2, 5], [])

    def test_the_header_may_follow_blank_lines_and_hold_quoted_line_ends(self, write):
        matrix, _, lines, _ = read(write(f'\n \n{HEADER},"no\nte"\n{CELLS},x\n'.encode()))
        assert (len(matrix), lines) == (1, [5])

    @pytest.mark.parametrize("cell", ["38", " 38", "+38", "38.", "038", "3.8e1", "38.0", '"38"'])
    def test_a_number_may_be_spelt_in_many_ways(self, write, cell):
        row = CELLS.replace("38", cell).replace(",0,1,0,0,1,1", ",false,True,FALSE,0.0,true,1.0")
        assert read(write(row))[0] == [list(KICK.values())]

    @pytest.mark.parametrize("cell", ["far", "nan", "1e999", "3_0", "٣٠", "true", "0x1e", "3,5", "1e", "--3"])
    def test_other_spellings_are_refused_by_name(self, write, cell):
        [(line, reason)] = read(write(CELLS.replace("38", f'"{cell}"')))[3]
        assert line == 2
        assert reason.startswith(f"distance {cell!r} must be a number from 2 to 100 m")
        assert reason.endswith("decimal point") == ("," in cell)

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (CELLS.replace("38", ""), "distance is missing: must be a number from 2 to 100 m"),
            (CELLS.replace("0.2,0", "0.2,2"), "is_left_footed '2' must be true, false, 1 or 0"),
            (CELLS + ",1", "has 12 cells where the header has 11"),
            ("1", "has 1 cells where the header has 11"),
            (CELLS.replace("38", "a\0b"), "is not UTF-8: save the file as UTF-8"),
            (
                f'"{"x" * 200_000}"{CELLS}',
                "can't be read: field larger than field limit (131072). Is a quote left open?",
            ),
        ],
    )
    def test_a_row_that_holds_no_kick_is_refused_and_the_rest_is_read(self, write, row, reason):
        matrix, _, lines, refusals = read(write(f"{CELLS}\n{row}\n{CELLS}\n"))
        assert (len(matrix), lines, refusals) == (2, [2, 4], [(3, reason)])

    @pytest.mark.parametrize("spoilt", [b"Jos\xe9", b"a\0b", b'"two\n\xe9"'])
    def test_other_columns_must_be_text_as_well(self, write, spoilt):
        row = CELLS.encode()
        text = HEADER.encode() + b",who\n" + row + b"," + spoilt + b"\n" + row + ",José\n".encode()
        matrix, _, _, refusals = read(write(text))
        assert (len(matrix), refusals) == (1, [(2, "is not UTF-8: save the file as UTF-8")])

    @pytest.mark.parametrize("kicks_after", [1, 10_000])
    def test_a_quote_left_open_costs_its_own_line_only(self, write, kicks_after):
        text = f'{CELLS},a\n{CELLS},"b\n' + f"{CELLS},c\n" * kicks_after
        matrix, _, lines, [(line, reason)] = read(write(text, f"{HEADER},note"))
        assert (len(matrix), lines) == (kicks_after + 1, [2, *range(4, kicks_after + 4)])
        assert (line, "Is a quote left open?" in reason) == (3, True)

    def test_an_outcome_may_be_empty_but_not_anything(self, write):
        text = "".join(f"{CELLS},{each}\n" for each in ["1", "0", "", "true", "2", "x"])
        _, outcomes, _, refusals = read(write(text, f"{HEADER},is_successful"))
        assert [None if np.isnan(each) else each for each in outcomes] == [1, 0, None, 1]
        assert refusals == [
            (6, "is_successful '2' must be 1, 0 or empty"),
            (7, "is_successful 'x' must be 1, 0 or empty"),
        ]


class TestNdjson:
    def test_rows_that_are_no_kick_are_refused_by_line(self, tmp_path):
        path = tmp_path / "kicks.jsonl"
        rows = [json.dumps(KICK), "{", "[]", "", json.dumps({**KICK, "angle": None}), json.dumps(KICK)]
        path.write_text("\n".join(rows), encoding="utf-8-sig")
        _, _, lines, refusals = read(path)
        assert lines == [1, 6]
        assert [line for line, _ in refusals] == [2, 3, 5]

    @pytest.mark.parametrize(
        ("name", "value"),
        [("angle", "24"), ("angle", True), ("is_start", "true"), ("is_start", [1]), ("success", "1")],
    )
    def test_types_are_as_strict_as_those_of_the_api(self, tmp_path, name, value):
        path = tmp_path / "kicks.ndjson"
        path.write_text(json.dumps({**KICK, name: value}) + "\n" + json.dumps({**KICK, "is_start": True}))
        _, _, lines, [(line, reason)] = read(path)
        assert (lines, line) == ([2], 1)
        assert reason.startswith(f"{name} {value!r} must be ")


class TestParquet:
    @pytest.fixture
    def write(self, tmp_path):
        def write(rows=3, **columns):
            path = tmp_path / "kicks.parquet"
            pq.write_table(
                pa.table({**{name: [cell] * rows for name, cell in KICK.items()}, **columns}), path
            )
            return path

        return write

    @pytest.mark.parametrize(
        "column",
        [
            pa.array([38, 1, None], pa.int8()),
            pa.array([38, 1, None], pa.uint64()),
            pa.array([38, 1, None], pa.float32()),
            pa.array([38, 1, None], pa.float64()).dictionary_encode(),
            pa.array([Decimal(38), Decimal(1), None], pa.decimal128(9, 2)),
        ],
        ids=lambda column: str(column.type),
    )
    def test_a_number_may_be_of_any_type_of_numbers(self, write, column):
        matrix, _, lines, refusals = read(write(distance=column))
        assert (matrix, lines) == ([list(KICK.values())], [1])
        assert [(line, reason.rpartition(":")[2]) for line, reason in refusals] == [
            (2, refusals[0][1]),
            (3, " must be a number from 2 to 100 m"),
        ]

    @pytest.mark.parametrize(
        "column",
        [["38"] * 3, [b"38"] * 3, [True] * 3, [[38.0]] * 3, pa.array([38] * 3, pa.timestamp("ms"))],
        ids=["text", "bytes", "boolean", "list", "time"],
    )
    def test_other_types_are_refused_row_by_row(self, write, column):
        matrix, _, _, refusals = read(write(distance=column))
        assert matrix == []
        assert [line for line, reason in refusals if reason.startswith("distance ")] == [1, 2, 3]

    def test_outcomes_and_flags_may_be_booleans_but_not_text(self, write):
        flags = {"is_start": [True, False, True]}
        _, outcomes, _, refusals = read(write(**flags, success=[True, None, False]))
        assert ([str(each) for each in outcomes], refusals) == (["1.0", "nan", "0.0"], [])
        refusals = read(write(success=["1", None, "x"]))[3]
        assert [line for line, _ in refusals] == [1, 3]

    def test_other_columns_are_carried_along_for_the_kicks_that_are_read(self, write):
        path = write(distance=[38.0, -1.0, 40.0], match=list("abc"), tags=[[1], [2], []])
        assert other_columns(path).names == ["match", "tags"]
        [block] = read_blocks(path, others=["tags", "match"])
        assert block.others.to_pydict() == {"tags": [[1], []], "match": ["a", "c"]}
        assert block.where(np.array([False, True])).others["match"].to_pylist() == ["c"]

    def test_columns_that_share_a_name_are_not_carried(self, tmp_path):
        path = tmp_path / "kicks.parquet"
        arrays = [pa.array([cell]) for cell in [*KICK.values(), 1, 1, 1]]
        pq.write_table(pa.Table.from_arrays(arrays, names=[*NAMES, "a", "a", "b"]), path)
        assert other_columns(path).names == ["b"]

    def test_a_file_that_is_broken_in_its_middle_says_so(self, write):
        path = write(500)
        content = bytearray(path.read_bytes())
        content[4:400] = b"\xff" * 396  # the footer stays whole
        path.write_bytes(content)
        with pytest.raises(DataError, match="can't be read"):
            list(read_blocks(path))

    def test_without_pyarrow_the_extra_is_named(self, write, monkeypatch):
        path = write()
        monkeypatch.setattr(reader, "find_spec", lambda _: None)
        with pytest.raises(MissingExtra, match=r"pip install 'kickserve\[parquet\]'"):
            list(read_blocks(path))


class TestWriter:
    def test_a_run_that_is_cut_off_leaves_no_half_file(self, tmp_path):
        def broken():
            with open_writer(tmp_path / "out.csv", ["line"]) as writer:
                writer.write({"line": [1]})
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            broken()
        assert list(tmp_path.iterdir()) == []

    def test_two_runs_that_write_one_file_do_not_disturb_each_other(self, tmp_path):
        path = tmp_path / "out.csv"
        with open_writer(path, ["line"]) as first:
            with open_writer(path, ["line"]) as second:
                second.write({"line": [2]})
            first.write({"line": [1]})
        assert path.read_text() == "line\n1\n"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_a_column_of_whole_numbers_may_have_gaps(self, tmp_path, ending):
        path = tmp_path / f"out.{ending}"
        with open_writer(path, ["line", "success", "model", *NAMES]) as writer:
            kicks = dict(zip(NAMES, simulate(3, 1).matrix.T, strict=True))
            lines = np.arange(3)
            writer.write({"line": lines, "success": np.array([1, np.nan, 0]), "model": "one", **kicks})
            writer.write({"line": lines, "success": None, "model": ["one"] * 3, **kicks})
        assert [str(each) for each in read(path)[1]] == ["1.0", "nan", "0.0", *["nan"] * 3]


class TestPipeline:
    @pytest.fixture(autouse=True)
    def no_thread_is_left(self):
        yield
        assert not [
            each for each in threading.enumerate() if each.name.startswith(("prefetch", "write-behind"))
        ]

    @pytest.mark.parametrize(("count", "depth"), [(0, 1), (1, 3), (100, 1), (100, 3)])
    def test_prefetched_items_come_in_their_order(self, count, depth):
        assert list(prefetch(range(count), depth)) == list(range(count))

    def test_an_error_comes_in_the_place_of_its_item(self):
        def items():
            yield 1
            raise ValueError("here")

        taken = prefetch(items())
        assert next(taken) == 1
        with pytest.raises(ValueError, match="here"):
            next(taken)

    @pytest.mark.parametrize("at", [0, 49, 99])
    def test_an_error_in_writing_is_raised_where_items_are_put(self, at):
        written = []

        def write(item):
            if item == at:
                raise OSError("disk full")
            written.append(item)

        def put_all():
            with write_behind(write) as put:
                for each in range(100):
                    put(each)

        with pytest.raises(OSError, match="disk full"):
            put_all()
        assert len(written) <= at + 3

    def test_a_second_interrupt_leaves_no_work_under_way(self, monkeypatch):
        shutdown, waited, written = pipeline.ThreadPoolExecutor.shutdown, [], []

        def interrupted(self, **options):
            waited.append(options)
            if len(waited) == 1:
                raise KeyboardInterrupt
            shutdown(self, **options)

        monkeypatch.setattr(pipeline.ThreadPoolExecutor, "shutdown", interrupted)
        with write_behind(written.append) as put:
            put(1)
        assert (len(waited), written) == (2, [1])
