"""Files of kicks: the spellings of many programs, refusals by line, and writing."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import threading
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kickserve.errors import MissingExtra
from kickserve.features import FEATURES, FLAGS, NAMES
from kickserve_data import DataError, parquet, pipeline
from kickserve_data.columns import KICKERS
from kickserve_data.pipeline import write_behind
from kickserve_data.reader import count_rows, open_kicks, read_blocks
from kickserve_data.season import NO_DAY, read_season
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
        [None if np.isnan(each) else each for each in np.concatenate([np.empty(0), *outcomes])],
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
    assert outcomes == [kick[-1] for kick in kicks]
    assert lines == [at + (2 if ending == "csv" else 1) for at in range(len(kicks))]
    assert count_rows(path) == len(kicks)


# Three kicks with the outcomes 1, 0 and unknown.
KICKS_BY_NAME = [
    {**KICK, "success": 1.0},
    {**KICK, "distance": 48.5, "angle": 0.25, "is_start": 1.0, "success": 0.0},
    {**KICK, "wind_speed": 20.0, "is_left_footed": 1.0, "success": None},
]


def table(
    delimiter=",", *, header=(*NAMES, "success"), flags="01", outcomes="10", unknown="", end="\n", **each
):
    """Write the three kicks as text: `each` changes every cell, `first` and `last` go around each row."""
    change, first, last = (each.get(name, "") for name in ("change", "first", "last"))
    rows = [
        [
            *(flags[int(kick[name])] if name in FLAGS else f"{kick[name]:g}" for name in NAMES),
            {1.0: outcomes[0], 0.0: outcomes[1], None: unknown}[kick["success"]],
        ]
        for kick in KICKS_BY_NAME
    ]
    lines = [
        delimiter.join(header),
        *(first + delimiter.join(map(change or str, row)) + last for row in rows),
    ]
    return end.join(lines) + end


def comma(cell):
    return cell.replace(".", ",")


def quoted(cell):
    return cell if cell[:1].isdigit() or cell == "NA" else f'"{cell}"'


def lines(change):
    return "\n".join(
        json.dumps({name: change(value) for name, value in kick.items()}) for kick in KICKS_BY_NAME
    )


def workbook():
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["nothing here"])
    sheet = book.create_sheet("kicks")
    sheet.append(["Kicks of a season"])
    sheet.append(["kicker", *NAMES, "success"])
    for kick in KICKS_BY_NAME:
        sheet.append(["Ann", *(bool(kick[n]) if n in FLAGS else kick[n] for n in NAMES), kick["success"]])
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def parquet_of_texts():
    content = io.BytesIO()
    pq.write_table(pa.table({n: [str(k[n]) for k in KICKS_BY_NAME] for n in KICKS_BY_NAME[0]}), content)
    return content.getvalue()


BOOLEANS = ("FALSE", "TRUE")
TITLES = [name.replace("_", " ").title() for name in (*NAMES, "success")]
CAMEL = [name.title().replace("_", "") for name in (*NAMES, "success")]
WITH_UNITS = ["time_norm", "Distance (m)", "angle [°]", "wind_speed_kmh", *NAMES[4:], "Result"]
SPELLINGS = {
    "psql": (table(flags="ft", outcomes="tf"), "f/t as flags"),
    "yes or no": (table(flags=("No", "yes"), outcomes=("YES", "no")), "No/yes as flags"),
    "on or off": (table(flags=("off", "On")), "off/On as flags"),
    "y or n": (table(flags="NY", outcomes="yn", unknown="n/a"), "n/a as unknown"),
    "floats": (table(flags=("0.0", "1.0"), outcomes=("1.0", "0.0"), unknown="nan"), "nan as unknown"),
    "R": (table(change=quoted, flags=BOOLEANS, outcomes=BOOLEANS[::-1], unknown="NA"), "NA as unknown"),
    "R with names of rows": (table(" ", flags=BOOLEANS, unknown="NA", first='"1" '), "spaces"),
    "French": (
        "sep=;\r\n" + table(";", flags=("FAUX", "VRAI"), outcomes=("VRAI", "FAUX"), change=comma, end="\r\n"),
        "`;`, decimal commas, FAUX/VRAI as flags",
    ),
    "French words": (
        table("\t", flags=("non", "oui"), outcomes=("Réussi", "manqué"), unknown="inconnu"),
        "tabs, non/oui as flags, Réussi/manqué as outcomes, inconnu as unknown",
    ),
    "Portuguese": (
        table("\t", flags=("FALSO", "VERDADEIRO"), outcomes=("Convertida", "errada"), unknown="—"),
        "FALSO/VERDADEIRO as flags, Convertida/errada as outcomes, — as unknown",
    ),
    "Dutch": (table(";", change=comma, flags=("ONWAAR", "WAAR"), outcomes="✓✗"), "✓/✗ as outcomes"),
    "cp1252": ("Saison d'été;;\n" + table(";", header=(*NAMES, "réussi")), "réussi as success"),
    "quoted decimal commas": (table(change=lambda cell: f'"{comma(cell)}"'), "decimal commas"),
    "comments": ("# distance in metres, angle in degrees\n\n" + table(), ""),
    "the header as a comment": ("# " + table(), ""),
    "empty cells left out": (table().replace(",\n", "\n"), ""),
    "empty cells and rows too many": (table(last=",,") + ",,,\n \n" + ",\n" * 3, ""),
    "titles": (table(header=TITLES), "Time Norm as time_norm (and 11 more)"),
    "camels": (table(header=CAMEL), "TimeNorm as time_norm (and 11 more)"),
    "units": (table(header=WITH_UNITS, outcomes=("Goal", "Miss"), unknown="-"), "Goal/Miss as outcomes"),
    "made or missed": (table(outcomes=("made", "MISSED"), unknown="\\N"), "made/MISSED as outcomes"),
    "success or fail": (table(outcomes=("Success", "fail"), unknown="NULL"), "Success/fail as outcomes"),
    "letters": (table(outcomes="SN", unknown="None"), "S/N as outcomes"),
    "psql's own table": (
        table(" | ", flags="ft", outcomes="tf").replace("success\n", "success\n---+----+---\n")
        + "(3 rows)\n\n",
        "`|`, f/t as flags",
    ),
    "print of pandas": (table("  ", unknown="NaN", first="  "), "spaces, NaN as unknown"),
    "savetxt of numpy": ("# " + table(" ", unknown="nan", flags=("0.0e+00", "1.0e+00")), "nan as unknown"),
    "per cent": (table().replace(",0.2,", ",20 %,"), ""),
    "old Macs": (table(end="\r"), ""),
    "JSON with texts": (lines(str), "None as unknown"),
    "JSON in boxes": (lines(lambda value: [value]), ""),
    "JSON with NaN": (lines(lambda value: float("nan") if value is None else value), ""),
    "an array of JSON": (json.dumps(KICKS_BY_NAME, indent=1), ""),
    "JSON by column": (
        json.dumps(
            {
                name: {str(at): kick[name] for at, kick in enumerate(KICKS_BY_NAME)}
                for name in KICKS_BY_NAME[0]
            }
        ),
        "",
    ),
    "JSON of lists": (
        json.dumps({name: [kick[name] for kick in KICKS_BY_NAME] for name in KICKS_BY_NAME[0]}),
        "",
    ),
    "JSON split": (
        json.dumps({"columns": [*KICKS_BY_NAME[0]], "data": [[*kick.values()] for kick in KICKS_BY_NAME]}),
        "",
    ),
    "JSON by row": (json.dumps({str(at): kick for at, kick in enumerate(KICKS_BY_NAME)}), ""),
    "JSON below a name": (json.dumps({"count": 3, "kicks": KICKS_BY_NAME}, indent=1), ""),
    "JSON of jq": ("\n".join(json.dumps(kick, indent=2) for kick in KICKS_BY_NAME), ""),
    "JSON with commas": (lines(str).replace("}", "},"), "None as unknown"),
    "JSON of camels": (lines(str).replace("time_norm", "timeNorm"), "timeNorm as time_norm"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_the_spellings_of_many_programs_are_read_and_named(tmp_path, capsys, name):
    text, note = SPELLINGS[name]
    path = tmp_path / "kicks"
    path.write_bytes(text.encode("cp1252" if name == "cp1252" else "utf-8"))
    check(path)
    said = " ".join(capsys.readouterr().err.split())
    assert note in said
    assert said.count("kicks: read") == bool(said)


def check(path):
    matrix, outcomes, _, refusals = read(path)
    assert (matrix, refusals) == ([[kick[name] for name in NAMES] for kick in KICKS_BY_NAME], [])
    assert outcomes == [1, 0, None]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(pack(table().encode(encoding)), id=f"{pack.__module__} {encoding}")
        for pack in (bytes, gzip.compress, bz2.compress, lzma.compress)
        for encoding in ("utf-8-sig", "utf-16", "utf-16-le")
    ]
    + [
        pytest.param(gzip.compress(lines(str).encode("utf-16")), id="packed JSON"),
        pytest.param(parquet_of_texts(), id="Parquet of texts"),
    ],
)
def test_the_content_says_what_a_file_is(tmp_path, content):
    path = tmp_path / "kicks.dat"
    path.write_bytes(content)
    check(path)


def test_a_spreadsheet_is_read_from_the_sheet_that_has_kicks(tmp_path):
    path = tmp_path / "kicks.xlsx"
    path.write_bytes(workbook())
    check(path)
    path.write_bytes(workbook()[:-30])
    with pytest.raises(DataError, match="is no spreadsheet"):
        read(path)


@pytest.mark.parametrize("content", [table().encode(), parquet_of_texts()], ids=["text", "Parquet"])
def test_a_pipe_and_standard_input_are_read_once(tmp_path, content):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    writing = threading.Thread(target=fifo.write_bytes, args=(content,))
    writing.start()
    check(fifo)
    writing.join()
    command = [sys.executable, "-m", "kickserve", "batch", "-", "--output", tmp_path / "answers.csv"]
    ended = subprocess.run(command, input=content, cwd=tmp_path, capture_output=True, check=False)
    assert (ended.returncode, b"-: read" in ended.stderr) == (0, content.startswith(b"PAR1"))
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "there is no file"),
        ("empty.csv", b"", "is empty"),
        ("blank.csv", b"\n\n", "has no column"),
        ("folder.csv", "folder", "is a folder"),
        ("cut.csv.gz", gzip.compress(b"x" * 1000, mtime=0)[:20], "can't be read"),
        ("broken.parquet", b"no parquet", "is no Parquet file"),
        ("broken.json", b"[" * 100_000, "can't be read"),
        ("header.csv", b"a,b\n", r"has no column time_norm.*\(it has: a, b\)"),
        (
            "near.csv",
            HEADER.replace("distance", "distnce").encode(),
            "no column distance .*; is 'distnce' its distance?",
        ),
        (
            "unit.csv",
            HEADER.replace("wind_speed", "wind_speed (m/s)").encode(),
            "no column wind_speed .*; is .* its wind_speed?",
        ),
        ("twice.csv", f"{HEADER},angle".encode(), "more than one column angle"),
        ("quote.csv", f'"{HEADER}\n{CELLS}\n'.encode(), "its header can't be read"),
    ],
)
def test_a_file_that_can_not_be_read_says_why(tmp_path, name, content, message):
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_blocks(tmp_path / name))


@pytest.fixture
def write(tmp_path):
    def write(text, header=HEADER):
        path = tmp_path / "kicks.csv"
        path.write_text(f"{header}\n{text}")
        return path

    return write


def test_an_outcome_that_can_not_be_read_costs_no_prediction(write, capsys):
    text = "".join(f"{CELLS},{each}\n" for each in ["1", "2", "", "moon", "true", "да"])
    _, outcomes, _, refusals = read(write(text, f"{HEADER},is_successful"))
    assert (outcomes, refusals) == ([1, None, None, None, 1, None], [])
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "outcomes that can't be read count as unknown: 3 (line 3: '2', line 5: 'moon', line 7: 'да')" in said
    )


def test_columns_come_in_any_order_with_others_beside_them(write):
    header = ",".join(["kicker", *reversed(NAMES)])
    row = '"Ann, \nthe first",' + ",".join(reversed(CELLS.split(",")))
    matrix, _, lines, _ = read(write(f"{row}\n{row}\n", header))
    assert (matrix, lines) == ([list(KICK.values())] * 2, [2, 4])


@pytest.mark.parametrize("column", ["kicker", "Player", "kicker_name", "Joueur"])
@pytest.mark.parametrize("kind", ["csv", "ndjson", "json", "parquet", "xlsx"])
def test_the_labels_of_kickers_are_read_from_every_kind_of_file(tmp_path, kind, column):
    labels = [" Le\u0301o ", 'O\'Hara, "Jo"', None, "N/A", "17", "x" * 65]
    rows = [{**KICK, column: label, "success": 1} for label in labels]
    path = tmp_path / f"kicks.{kind}"
    if kind == "csv":
        with path.open("w") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "xlsx":
        book = pytest.importorskip("openpyxl").Workbook()
        for row in ([*rows[0]], *([*each.values()] for each in rows)):
            book.active.append(row)
        book.save(path)
    else:
        del rows[2][column]
        path.write_text("\n".join(map(json.dumps, rows)) if kind == "ndjson" else json.dumps(rows, indent=1))
    file = open_kicks(path, kickers=KICKERS)
    assert file.cells.kicker == column
    [block] = file.blocks(10)
    assert block.kickers == ["Léo", 'O\'Hara, "Jo"', None, None, "17"]
    [refused] = block.refusals
    assert refused.reason.endswith("must be a text of 1 to 64 characters, and has 65")
    assert block.where(np.array([False, True] * 2 + [False])).kickers == ['O\'Hara, "Jo"', None]
    assert next(open_kicks(path).blocks(10)).kickers is None


@pytest.mark.parametrize("kind", ["csv", "ndjson", "json", "parquet", "xlsx"])
def test_columns_of_any_name_are_matched_and_words_of_sides_and_minutes_read(tmp_path, kind):
    rows = [
        {"Player": "Ann", "dist_m": 30, "Kick angle": 20, "Side": "Left", "min": 40, "Kick": "goal"},
        {"Player": None, "dist_m": 41, "Kick angle": 33, "Side": "droite", "min": 80, "Kick": "miss"},
    ]
    path = tmp_path / f"kicks.{kind}"
    if kind == "csv":
        lines = [
            ";".join(str(cell or "") for cell in each) for each in (rows[0], *(r.values() for r in rows))
        ]
        path.write_text("Our season\n" + "\n".join(lines))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "xlsx":
        book = pytest.importorskip("openpyxl").Workbook()
        for row in (["Our season"], [*rows[0]], *([*each.values()] for each in rows)):
            book.active.append(row)
        book.save(path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)) if kind == "ndjson" else json.dumps(rows, indent=1))
    usual = [*KICK.values()]
    season = read_season(path.read_bytes(), usual)
    assert season.guessed == ["distance", "angle", "is_left_side", "minute"]
    assert (season.missing, season.matrix) == (["success"], b"")
    season = read_season(path.read_bytes(), usual, {**season.columns, "success": "Kick"})
    matrix = np.frombuffer(season.matrix).reshape(-1, len(NAMES))
    named = [dict(zip(NAMES, each, strict=True)) for each in matrix.tolist()]
    told = {"time_norm": 0.5, "distance": 30, "angle": 20, "is_left_side": 1, "is_start": 0, "is_endgame": 0}
    assert named[0] == {**KICK, **told}
    assert [named[1][name] for name in ("time_norm", "is_endgame", "is_left_side")] == [1, 1, 0]
    assert (season.labels, np.frombuffer(season.kicker, "i4").tolist()) == (["Ann"], [0, -1])
    assert season.success == b"\x01\x00"


@pytest.mark.parametrize(
    ("cells", "days"),
    [
        (["2025-10-05", "2025/10/12 15:00"], (5, 12)),
        (["05/10/2025", "12.10.25"], (5, 12)),
        (["10/05/2025", "10/13/2025"], (5, 13)),
        (["45935", "45942,6"], (5, 12)),  # Excel's own
        (["5 Oct 2025", "October 12, 2025"], (5, 12)),
        (["first round", ""], (None, None)),
    ],
)
def test_dates_of_a_season_are_read_in_the_forms_of_people_and_spreadsheets(cells, days):
    lines = [f"30;20;1;{cell}" for cell in cells]
    season = read_season("\n".join(["distance;angle;made;date", *lines]).encode(), [*KICK.values()])
    wanted = [NO_DAY if day is None else (date(2025, 10, day) - date(1970, 1, 1)).days for day in days]
    assert np.frombuffer(season.day, "i4").tolist() == wanted


def test_names_in_other_units_are_no_guesses():
    season = read_season(b"dist_yards,angle_rad,made\n30,0.3,1\n", [*KICK.values()])
    assert season.missing == ["distance", "angle"]


def test_numbers_are_labels_and_of_several_columns_one_is_taken(tmp_path):
    columns = {
        **{name: [value] * 2 for name, value in KICK.items()},
        "player": ["a", "b"],
        "kicker": [17.0, None],
    }
    pq.write_table(pa.table(columns), tmp_path / "kicks.parquet")
    file = open_kicks(tmp_path / "kicks.parquet", kickers=KICKERS)
    assert next(file.blocks(10)).kickers == ["17", None]
    assert file.others.names == ["player", "kicker"]
    path = tmp_path / "kicks.csv"
    path.write_text(f"{HEADER},kicker\n{CELLS},17.0\n{CELLS},\n{CELLS},17\n")
    assert next(open_kicks(path, kickers=KICKERS).blocks(10)).kickers == ["17", None, "17"]
    path.write_text(f"{HEADER},player,Player \n{CELLS},a,b\n")
    assert open_kicks(path, kickers=KICKERS).cells.kicker == "player"
    path.write_text(f"{HEADER},PLAYER,Player \n{CELLS},a,b\n")
    assert open_kicks(path, kickers=KICKERS).cells.kicker is None


@pytest.mark.parametrize("cell", [" 38", "+38", "38.", "038", "3.8e1", "38,0", '"38"', "\xa038"])
def test_a_number_may_be_spelt_in_many_ways(write, cell):
    row = CELLS.replace("38", f'"{cell}"' if "," in cell else cell)
    assert read(write(row))[0] == [list(KICK.values())]


@pytest.mark.parametrize("cell", ["far", "1e999", "3_0", "٣٠", "true", "0x1e", "3,5.1", "1e", "--3", "inf"])
def test_other_spellings_are_refused_by_name(write, cell):
    [(line, reason)] = read(write(CELLS.replace("38", f'"{cell}"')))[3]
    assert (line, reason) == (2, f"distance {cell!r} must be a number from 2 to 100 m")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (CELLS.replace("38", ""), "distance is missing: must be a number from 2 to 100 m"),
        (CELLS.replace("38", "NA"), "distance is missing: must be a number from 2 to 100 m"),
        (CELLS.replace("0.2,0", "0.2,2"), "is_left_footed '2' must be true, false, 1 or 0"),
        (CELLS.replace("0.2,0", "0.2,ЛОЖЬ"), "is_left_footed 'ЛОЖЬ' must be true, false, 1 or 0"),
        (CELLS + ",1", "has 12 cells where the header has 11"),
        ("1", "has 1 cell where the header has 11"),
        (
            f'"{"x" * 200_000}"{CELLS}',
            "can't be read: field larger than field limit (131072). Is a quote left open?",
        ),
    ],
)
def test_a_row_that_holds_no_kick_is_refused_and_the_rest_is_read(write, row, reason):
    matrix, _, lines, refusals = read(write(f"{CELLS}\n{row}\n{CELLS}\n"))
    assert (len(matrix), lines, refusals) == (2, [2, 4], [(3, reason)])


@pytest.mark.parametrize("kicks_after", [1, 10_000])
def test_a_quote_left_open_costs_its_own_line_only(write, kicks_after):
    text = f'{CELLS},a\n{CELLS},"b\n' + f"{CELLS},c\n" * kicks_after
    matrix, _, lines, [(line, reason)] = read(write(text, f"{HEADER},note"))
    assert (len(matrix), lines) == (kicks_after + 1, [2, *range(4, kicks_after + 4)])
    assert (line, "Is a quote left open?" in reason) == (3, True)


def test_rows_of_json_that_are_no_kick_are_refused_by_line(tmp_path):
    path = tmp_path / "kicks.jsonl"
    rows = [
        KICK,
        *({**KICK, "angle": each} for each in (None, True, [1, 2], {})),
        {**KICK, "is_start": [1, 0]},
    ]
    texts = [*map(json.dumps, rows), "{", "[]", "", json.dumps({**KICK, "is_start": True})]
    path.write_text("\n".join(texts))
    _, _, lines, refusals = read(path)
    assert lines == [1, 10]
    assert [line for line, _ in refusals] == [*range(2, 9)]
    assert refusals[1][1] == "angle True must be a number from 0 to 90 °"


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
            pa.array(["38", "1", None]),
            pa.array([[38], [1], None]),
        ],
        ids=lambda column: str(column.type),
    )
    def test_a_number_may_be_of_any_type(self, write, column):
        matrix, _, lines, refusals = read(write(distance=column))
        assert (matrix, lines) == ([list(KICK.values())], [1])
        assert [(line, reason.rpartition(":")[2]) for line, reason in refusals] == [
            (2, refusals[0][1]),
            (3, " must be a number from 2 to 100 m"),
        ]

    @pytest.mark.parametrize(
        "column",
        [[b"38"] * 3, [True] * 3, [[38.0, 1]] * 3, pa.array([38] * 3, pa.timestamp("ms"))],
        ids=["bytes", "boolean", "list", "time"],
    )
    def test_other_types_are_refused_row_by_row(self, write, column):
        matrix, _, _, refusals = read(write(distance=column))
        assert matrix == []
        assert [line for line, reason in refusals if reason.startswith("distance ")] == [1, 2, 3]

    def test_outcomes_and_flags_may_be_booleans(self, write):
        _, outcomes, _, refusals = read(write(is_start=[True, False, True], success=[True, None, False]))
        assert (outcomes, refusals) == ([1, None, 0], [])

    def test_other_columns_are_carried_along_for_the_kicks_that_are_read(self, write):
        path = write(distance=[38.0, -1.0, 40.0], match=list("abc"), tags=[[1], [2], []])
        file = open_kicks(path)
        assert file.others.names == ["match", "tags"]
        [block] = file.blocks(10, ["tags", "match"])
        assert block.others.to_pydict() == {"tags": [[1], []], "match": ["a", "c"]}
        assert block.where(np.array([False, True])).others["match"].to_pylist() == ["c"]

    def test_columns_that_share_a_name_are_not_carried(self, tmp_path):
        path = tmp_path / "kicks.parquet"
        arrays = [pa.array([cell]) for cell in [*KICK.values(), 1, 1, 1]]
        pq.write_table(pa.Table.from_arrays(arrays, names=[*NAMES, "a", "a", "b"]), path)
        assert open_kicks(path).others.names == ["b"]

    def test_without_pyarrow_the_extra_is_named(self, write, monkeypatch):
        path = write()
        monkeypatch.setattr(parquet, "find_spec", lambda _: None)
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
        assert read(path)[1] == [1, None, 0, None, None, None]

    def test_no_cell_of_csv_is_run_by_a_spreadsheet(self, tmp_path):
        texts = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "-1", "+2.5e3", "a=b", ""]
        with open_writer(tmp_path / "out.csv", ["line", "model"]) as writer:
            writer.write({"line": np.arange(len(texts)), "model": texts})
        with (tmp_path / "out.csv").open(newline="") as file:
            cells = [row["model"] for row in csv.DictReader(file)]
        assert cells == ["'=1+1", "'+x", "'-x", "'@x", "'\tx", "'\nx", *texts[6:]]


def test_a_second_interrupt_leaves_no_work_under_way(monkeypatch):
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
