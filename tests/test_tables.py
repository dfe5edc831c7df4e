"""Files of kicks: what is read, what is refused by line, and what is written can be read again."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve.errors import DataError, MissingExtra
from kickserve.features import FEATURES, NAMES
from kickserve_data import reader
from kickserve_data.reader import count_rows, read_blocks, read_outcomes
from kickserve_data.writer import open_writer

GOOD = "0.5,38,24,12,0.2,0,1,0,0,1,1"
HEADER = ",".join(NAMES)


def read(path, **options):
    """Read all blocks; return matrix, outcomes, lines and refusals."""
    blocks = list(read_blocks(path, **options))
    outcomes = [np.full(len(b.matrix), np.nan) if b.outcome is None else b.outcome for b in blocks]
    return (
        np.concatenate([block.matrix for block in blocks]),
        np.concatenate(outcomes),
        [line for block in blocks for line in block.lines.tolist()],
        [(refusal.line, refusal.reason) for block in blocks for refusal in block.refusals],
    )


def cells(feature):
    if feature.kind == "flag":
        return st.sampled_from([0.0, 1.0])
    return st.floats(feature.low, feature.high)


KICKS = st.lists(st.tuples(*map(cells, FEATURES), st.sampled_from([0.0, 1.0, None])), min_size=1, max_size=20)


@given(kicks=KICKS, ending=st.sampled_from(["csv", "ndjson", "parquet"]), size=st.integers(1, 7))
def test_what_is_written_is_read_again_to_the_last_bit(tmp_path_factory, kicks, ending, size):
    path = tmp_path_factory.mktemp("tables") / f"kicks.{ending}"
    columns = dict(zip([*NAMES, "success"], map(list, zip(*kicks, strict=True)), strict=True))
    with open_writer(path, [*NAMES, "success"]) as writer:
        writer.write(columns)
    matrix, outcomes, lines, refusals = read(path, size=size)
    assert refusals == []
    assert matrix.tolist() == [list(kick[:-1]) for kick in kicks]
    assert [None if np.isnan(each) else each for each in outcomes] == [kick[-1] for kick in kicks]
    assert lines == [at + (2 if ending == "csv" else 1) for at in range(len(kicks))]
    assert count_rows(path) == len(kicks)


class TestCsv:
    @pytest.fixture
    def write(self, tmp_path):
        def write(text, header=HEADER):
            path = tmp_path / "kicks.csv"
            path.write_bytes(text if isinstance(text, bytes) else f"{header}\n{text}".encode())
            return path

        return write

    def test_columns_may_come_in_any_order_with_others_beside_them(self, write):
        header = ",".join(["kicker", *reversed(NAMES)])
        row = '"Ann, \nthe first",' + ",".join(reversed(GOOD.split(",")))
        matrix, _, lines, _ = read(write(f"{row}\n{row}\n", header))
        assert matrix.tolist() == [[float(each) for each in GOOD.split(",")]] * 2
        assert lines == [2, 4]

    @pytest.mark.parametrize("delimiter", [";", "\t"])
    def test_other_delimiters_are_seen(self, write, delimiter):
        path = write(GOOD.replace(",", delimiter), HEADER.replace(",", delimiter))
        assert len(read(path)[0]) == 1

    def test_byte_order_mark_windows_line_ends_and_blank_lines_do_not_matter(self, write):
        text = b"\xef\xbb\xbf" + f"{HEADER}\r\n{GOOD}\r\n\r\n{GOOD}\r\n".encode()
        matrix, _, lines, refusals = read(write(text))
        assert (len(matrix), lines, refusals) == (2, [2, 4], [])

    def test_flags_may_be_words(self, write):
        row = GOOD.replace(",0,1,0,0,1,1", ",false,True,FALSE,0.0,true,1.0")
        assert read(write(row))[0].tolist() == read(write(GOOD))[0].tolist()

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (GOOD.replace("38", "far"), "distance 'far' must be a number from 2 to 100 m"),
            (GOOD.replace("38", "nan"), "distance 'nan' must be a number from 2 to 100 m"),
            (GOOD.replace("38", "1e999"), "distance '1e999' must be a number from 2 to 100 m"),
            (GOOD.replace("38", ""), "distance is missing: must be a number from 2 to 100 m"),
            (GOOD.replace("0.2,0", "0.2,2"), "is_left_footed '2' must be true, false, 1 or 0"),
            (GOOD + ",1", "has 12 cells where the header has 11"),
            ("1", "has 1 cells where the header has 11"),
        ],
    )
    def test_a_line_that_holds_no_kick_is_refused_and_the_rest_is_read(self, write, row, reason):
        matrix, _, lines, refusals = read(write(f"{GOOD}\n{row}\n{GOOD}\n"))
        assert len(matrix) == 2
        assert lines == [2, 4]
        assert refusals == [(3, reason)]

    def test_what_is_no_text_is_refused_by_line(self, write):
        text = f"{HEADER}\n{GOOD}\n".encode() + GOOD.replace("38", "\udcff").encode(errors="surrogateescape")
        matrix, _, _, refusals = read(write(text + f"\n{GOOD}\n".encode()))
        assert len(matrix) == 2
        assert refusals[0][0] == 3

    def test_a_cell_without_end_is_refused_not_a_crash(self, write):
        text = f'{GOOD}\n"{"x" * 200_000}"{GOOD}\n{GOOD}\n'
        matrix, _, _, refusals = read(write(text))
        assert len(matrix) == 2
        assert "can't be read" in refusals[0][1]

    @pytest.mark.parametrize("cell", ["3_0", "٣٠", "true", "0x1e", "3,5", "1e", "--3"])
    def test_what_only_a_programming_language_takes_for_a_number_is_refused(self, write, cell):
        _, _, _, refusals = read(write(GOOD.replace("38", f'"{cell}"')))
        assert [line for line, _ in refusals] == [2]
        assert refusals[0][1].startswith(f"distance {cell!r} must be a number from 2 to 100 m")

    @pytest.mark.parametrize("cell", [" 38", "+38", "38.", "038", "3.8e1", "38.0"])
    def test_unusual_spellings_of_a_number_are_read(self, write, cell):
        assert read(write(GOOD.replace("38", cell)))[0].tolist() == read(write(GOOD))[0].tolist()

    @pytest.mark.parametrize("kicks_after", [1, 10_000])
    def test_a_quote_left_open_costs_its_own_line_only(self, write, kicks_after):
        text = f'{GOOD},a\n{GOOD},"b\n' + f"{GOOD},c\n" * kicks_after
        matrix, _, lines, refusals = read(write(text, f"{HEADER},note"))
        assert len(matrix) == kicks_after + 1
        assert lines == [2, *range(4, kicks_after + 4)]
        [(line, reason)] = refusals
        assert line == 3
        assert "Is a quote left open?" in reason

    @pytest.mark.parametrize("spoilt", [b"Jos\xe9", b"a\0b", b'"two\n\xe9"'])
    def test_a_column_that_is_not_read_must_be_text_all_the_same(self, write, spoilt):
        good = GOOD.encode()
        text = HEADER.encode() + b",who\n" + good + b"," + spoilt + b"\n" + good + ",José\n".encode()
        matrix, _, _, refusals = read(write(text))
        assert len(matrix) == 1
        assert refusals[0][0] == 2
        assert "save the file as UTF-8" in refusals[0][1]

    def test_the_header_may_follow_blank_lines_and_hold_quoted_line_ends(self, write):
        matrix, _, lines, _ = read(write(f'\n \n{HEADER},"no\nte"\n{GOOD},x\n'.encode()))
        assert (len(matrix), lines) == (1, [5])

    def test_the_delimiter_is_the_one_that_parts_the_known_names(self, write):
        header = HEADER.replace(",", ";") + ";" + "a," * 30
        assert len(read(write(GOOD.replace(",", ";") + ";x", header))[0]) == 1

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (f"{HEADER}\n{GOOD}\n".encode("utf-16"), "header holds a NUL byte: save the file as UTF-8"),
            (b"\xe9," + HEADER.encode(), "header is not UTF-8"),
            (f'"{HEADER}\n{GOOD}\n'.encode(), "header can't be read"),
        ],
    )
    def test_a_header_that_is_no_text_says_what_to_do(self, write, content, said):
        with pytest.raises(DataError, match=said):
            list(read_blocks(write(content)))

    def test_a_refused_outcome_goes_by_the_name_of_its_column(self, write):
        _, _, _, refusals = read(write(f"{GOOD},7\n", f"{HEADER},is_successful"))
        assert refusals == [(2, "is_successful '7' must be 1, 0 or empty")]

    @given(
        notes=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1),
        size=st.integers(1, 5),
    )
    def test_whatever_text_stands_beside_a_kick_lines_are_counted_as_an_editor_does(
        self, tmp_path_factory, notes, size
    ):
        text, starts = io.StringIO(newline=""), []
        table = csv.writer(text)
        table.writerow([*NAMES, "note"])
        for note in notes:
            starts.append(1 + len(io.StringIO(text.getvalue(), newline="").readlines()))
            table.writerow([*GOOD.split(","), note])
        path = tmp_path_factory.mktemp("notes") / "kicks.csv"
        path.write_bytes(text.getvalue().encode())
        matrix, _, lines, refusals = read(path, size=size)
        assert (len(matrix), lines, refusals) == (len(notes), starts, [])

    @given(junk=st.binary(max_size=60).filter(lambda junk: not set(b'\r\n"') & set(junk)))
    def test_whatever_stands_in_one_line_the_others_are_read(self, tmp_path_factory, junk):
        path = tmp_path_factory.mktemp("junk") / "kicks.csv"
        path.write_bytes(f"{HEADER}\n{GOOD}\n".encode() + junk + f"\n{GOOD}\n".encode())
        _, _, lines, refusals = read(path)
        assert [line for line in lines if line != 3] == [2, 4]
        assert [line for line, _ in refusals] in ([], [3])

    def test_an_outcome_may_be_empty_but_not_anything(self, write):
        text = "".join(f"{GOOD},{each}\n" for each in ["1", "0", "", "true", "2", "x"])
        matrix, outcomes, _, refusals = read(write(text, f"{HEADER},outcome"))
        assert len(matrix) == 4
        assert outcomes.tolist()[:2] == [1, 0]
        assert np.isnan(outcomes[2])
        assert [line for line, _ in refusals] == [6, 7]

    def test_missing_columns_are_named_with_what_is_near(self, write):
        with pytest.raises(DataError, match="no column distance; is it 'Distance'"):
            list(read_blocks(write(GOOD, HEADER.replace("distance", "Distance"))))

    def test_a_column_that_stands_there_twice_is_refused(self, write):
        with pytest.raises(DataError, match="more than one column angle"):
            list(read_blocks(write(GOOD, HEADER.replace("wind_speed", "angle") + ",wind_speed")))


class TestNdjson:
    def test_rows_that_are_no_kick_are_refused_by_line(self, tmp_path):
        good = dict(zip(NAMES, map(float, GOOD.split(",")), strict=True))
        path = tmp_path / "kicks.jsonl"
        path.write_text(
            "\n".join(
                [json.dumps(good), "{", "[]", "", json.dumps({**good, "angle": None}), json.dumps(good)]
            )
        )
        matrix, _, lines, refusals = read(path)
        assert len(matrix) == 2
        assert lines == [1, 6]
        assert [line for line, _ in refusals] == [2, 3, 5]

    @pytest.mark.parametrize(
        ("name", "value"),
        [("angle", "24"), ("angle", True), ("is_start", "true"), ("is_start", [1]), ("success", "1")],
    )
    def test_types_are_as_strict_as_those_of_the_api(self, tmp_path, name, value):
        good = dict(zip(NAMES, map(float, GOOD.split(",")), strict=True))
        path = tmp_path / "kicks.ndjson"
        path.write_text(json.dumps({**good, name: value}) + "\n" + json.dumps({**good, "is_start": True}))
        matrix, _, _, refusals = read(path)
        assert len(matrix) == 1
        [(line, reason)] = refusals
        assert line == 1
        assert reason.startswith(f"{name} {value!r} must be ")

    def test_a_byte_order_mark_does_not_matter(self, tmp_path):
        path = tmp_path / "kicks.ndjson"
        good = dict(zip(NAMES, map(float, GOOD.split(",")), strict=True))
        path.write_text(json.dumps(good), encoding="utf-8-sig")
        assert len(read(path)[0]) == 1


class TestParquet:
    def test_a_file_that_is_broken_in_its_middle_says_so(self, tmp_path):
        path = tmp_path / "kicks.parquet"
        columns = {name: [float(cell)] * 500 for name, cell in zip(NAMES, GOOD.split(","), strict=True)}
        pa.parquet.write_table(pa.table(columns), path)
        content = bytearray(path.read_bytes())
        content[4:400] = b"\xff" * 396  # the footer stays whole
        path.write_bytes(content)
        with pytest.raises(DataError, match="can't be read"):
            list(read_blocks(path))

    def test_nulls_are_refused_by_row(self, tmp_path):
        columns = {name: [float(cell)] * 2 for name, cell in zip(NAMES, GOOD.split(","), strict=True)}
        columns["angle"] = [None, 3.0]
        path = tmp_path / "kicks.parquet"
        pa.parquet.write_table(pa.table(columns), path)
        matrix, _, _, refusals = read(path)
        assert len(matrix) == 1
        assert refusals == [(1, "angle is missing: must be a number from 0 to 90 °")]

    def test_without_pyarrow_the_extra_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr(reader, "find_spec", lambda _: None)
        (tmp_path / "kicks.parquet").write_bytes(b"PAR1")
        with pytest.raises(MissingExtra, match=r"pip install 'kickserve\[parquet\]'"):
            list(read_blocks(tmp_path / "kicks.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", None, "there is no file"),
        ("empty.csv", b"", "is empty"),
        ("kicks.xlsx", b"x", "unknown ending"),
        ("broken.parquet", b"no parquet", "is no Parquet file"),
        ("header.csv", b"a,b\n", "has no column"),
    ],
)
def test_a_file_that_can_not_be_read_says_why(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        list(read_blocks(tmp_path / name))
    assert count_rows(tmp_path / name) in {None, 0}


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        list(read_blocks(tmp_path / "folder.csv"))


def test_a_run_that_is_cut_off_leaves_no_half_file(tmp_path):
    def broken():
        with open_writer(tmp_path / "out.csv", ["line"]) as writer:
            writer.write({"line": [1]})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert list(tmp_path.iterdir()) == []


def test_two_runs_that_write_one_file_do_not_tread_on_each_other(tmp_path):
    path = tmp_path / "out.csv"
    with open_writer(path, ["line"]) as first:
        with open_writer(path, ["line"]) as second:
            second.write({"line": [2]})
        first.write({"line": [1]})
    assert path.read_text() == "line\n1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_outcomes_are_read_by_id_and_refused_by_line(tmp_path):
    path = tmp_path / "told.csv"
    path.write_text("when,id,success\n1,a,1\n2,,0\n3,b,x\n4,c\n5,d,false\n")
    [(told, refusals)] = read_outcomes(path)
    assert told == [(2, "a", True), (6, "d", False)]
    assert [refusal.line for refusal in refusals] == [3, 4, 5]
