"""`kickserve batch` from file to file: what is written, what is kept, and what is left when it fails."""

from __future__ import annotations

import csv
import json
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve.cli import run
from kickserve.errors import PredictionFailed
from kickserve.features import FLAGS, NAMES
from kickserve.linear import load_default
from kickserve.model import Answer, predict
from kickserve_data.simulate import simulate
from kickserve_data.writer import open_writer

ENDINGS = ["csv", "parquet", "ndjson"]
ANSWERS = ["prediction", "confidence", "low", "high", "model", "revision"]


@pytest.fixture
def kickserve(capsys):
    """Run `kickserve batch --json`; return exit code, summary and standard error."""

    def call(*arguments):
        capsys.readouterr()
        code = run(["batch", "--json", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return call


@pytest.fixture
def kicks(tmp_path):
    """Write simulated kicks with columns beside them, and return the path."""

    def write(size=100, name="kicks.parquet", **others):
        drawn = simulate(size, 4)
        columns = dict(zip(NAMES, drawn.matrix.T.copy(), strict=True))
        columns |= {flag: columns[flag] == 1 for flag in FLAGS}
        pq.write_table(pa.table({**columns, "success": drawn.success, **others}), tmp_path / name)
        return tmp_path / name

    return write


def read(path):
    """Return the rows of a table as dictionaries."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".csv":
        return list(csv.DictReader(path.read_text().splitlines()))
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("source", ENDINGS)
def test_an_output_has_the_models_answers_and_nothing_is_kept(kickserve, tmp_path, source, ending):
    run(["simulate", "--size", "50", "--output", f"kicks.{source}"])
    code, summary, _ = kickserve(f"kicks.{source}", "--output", f"answers.{ending}")
    assert code == 0
    assert (summary["sent"], summary["kept"], summary["not_carried"]) == (50, False, [])
    rows = read(tmp_path / f"answers.{ending}")
    assert list(rows[0]) == ["line", *NAMES, "success", *ANSWERS]
    drawn, model = simulate(50, 0), load_default()
    probability, low, high = model.predict(drawn.matrix)
    expected = {"prediction": probability, "confidence": np.maximum(probability, 1 - probability)}
    for name, values in {**expected, "low": low, "high": high}.items():
        assert [float(row[name]) for row in rows] == pytest.approx(values.tolist(), rel=1e-12)
    assert {(row["model"], row["revision"]) for row in rows} == {(model.card.name, model.card.revision)}
    assert [[float(row[name]) for name in NAMES] for row in rows] == drawn.matrix.tolist()
    assert [int(row["success"]) for row in rows] == drawn.success.tolist()
    assert [int(row["line"]) for row in rows] == [at + (2 if source == "csv" else 1) for at in range(50)]
    assert not (tmp_path / "kickserve.db").exists()


@pytest.mark.parametrize("ending", ENDINGS)
def test_written_and_kept_at_once_has_the_ids(kickserve, tmp_path, ending):
    code, summary, _ = kickserve("--size", 30, "--output", f"answers.{ending}", "--keep")
    assert (code, summary["kept"]) == (0, True)
    rows = read(tmp_path / f"answers.{ending}")
    assert list(rows[0])[-1] == "id"
    assert run(["export", "--output", "kept.ndjson"]) == 0
    assert [row["id"] for row in rows] == [row["id"] for row in read(tmp_path / "kept.ndjson")]


def test_without_an_output_answers_are_kept_whether_told_to_or_not(kickserve):
    assert kickserve("--size", 3)[1]["kept"]
    assert kickserve("--size", 3, "--keep")[1]["kept"]


def test_what_is_not_kept_is_said(capsys):
    assert run(["batch", "--size", "3", "--output", "answers.csv"]) == 0
    assert "no, only written" in capsys.readouterr().out


@pytest.mark.parametrize("keep", [[], ["--keep"]])
def test_columns_beside_are_carried_along_unchanged(kickserve, kicks, tmp_path, keep):
    others = {
        "match": pa.array([f"match {at % 7}" for at in range(100)]).dictionary_encode(),
        "tags": [[at, None] for at in range(100)],
        "at": pa.array(range(100), pa.timestamp("us", "Europe/Paris")),
        "nothing": pa.nulls(100),
        "place": [{"ground": "north", "row": at} for at in range(100)],
    }
    path = kicks(**others)
    assert kickserve(path, "--output", "answers.parquet", *keep, "--min-distance", 30)[0] == 0
    before, after = pq.read_table(path), pq.read_table(tmp_path / "answers.parquet")
    taken = before.take([line - 1 for line in after["line"].to_pylist()])
    assert 0 < len(taken) < 100
    for name in others:
        assert after[name].type == before[name].type
        assert after[name].to_pylist() == taken[name].to_pylist()
    assert after["distance"].to_pylist() == taken["distance"].to_pylist()


def test_an_id_of_the_users_own_is_carried_unless_ours_takes_its_name(kickserve, kicks, tmp_path, capsys):
    path = kicks(id=[f"mine {at}" for at in range(100)])
    assert kickserve(path, "--output", "answers.parquet")[1]["not_carried"] == []
    assert [row["id"] for row in read(tmp_path / "answers.parquet")] == [f"mine {at}" for at in range(100)]
    assert kickserve(path, "--output", "answers.parquet", "--keep")[1]["not_carried"] == ["id"]
    assert read(tmp_path / "answers.parquet")[0]["id"] != "mine 0"
    assert run(["batch", str(path), "--output", "answers.parquet", "--keep"]) == 0
    assert "id: the output has columns of its own" in " ".join(capsys.readouterr().out.split())


def test_answers_can_be_answered_again(kickserve, kicks, tmp_path):
    kickserve(kicks(), "--output", "answers.parquet")
    code, summary, _ = kickserve("answers.parquet", "--output", "again.parquet")
    assert (code, summary["sent"]) == (0, 100)
    assert summary["not_carried"] == ["line", *ANSWERS]
    assert pq.read_table(tmp_path / "again.parquet").equals(pq.read_table(tmp_path / "answers.parquet"))


def test_the_types_of_the_output_do_not_depend_on_the_way(kickserve, kicks, tmp_path):
    path = kicks()
    kickserve(path, "--output", "direct.parquet")
    kickserve(path, "--output", "kept.parquet", "--keep")
    direct, kept = (pq.read_schema(tmp_path / name) for name in ["direct.parquet", "kept.parquet"])
    assert list(kept)[:-1] == list(direct)
    assert [direct.field(name).type for name in FLAGS] == [pa.int8()] * len(FLAGS)
    assert direct.field("line").type == pa.int64()
    assert direct.field("model").type == direct.field("revision").type == pa.string()


def test_refused_rows_are_named_and_the_others_written(kickserve, kicks, tmp_path):
    path = kicks(match=[f"{at}" for at in range(100)])
    table = pq.read_table(path)
    distance = table["distance"].to_pylist()
    distance[6], distance[70] = 1.0, None
    pq.write_table(
        table.set_column(table.column_names.index("distance"), "distance", pa.array(distance)), path
    )
    code, summary, _ = kickserve(path, "--output", "answers.parquet")
    assert (code, summary["sent"]) == (3, 98)
    assert [(each["line"], each["reason"]) for each in summary["refusals"]] == [
        (7, "distance 1.0 must be a number from 2 to 100 m"),
        (71, "distance is missing: must be a number from 2 to 100 m"),
    ]
    assert [row["match"] for row in read(tmp_path / "answers.parquet")] == [
        f"{at}" for at in range(100) if at not in {6, 70}
    ]


@pytest.mark.parametrize("ending", ENDINGS)
def test_where_all_rows_are_refused_a_table_without_rows_is_written(kickserve, tmp_path, ending):
    (tmp_path / "kicks.csv").write_text(",".join(NAMES) + "\n" + ",".join(["x"] * 11) + "\n")
    code, summary, _ = kickserve("kicks.csv", "--output", f"answers.{ending}")
    assert (code, summary["sent"], summary["mean_prediction"]) == (3, 0, None)
    assert read(tmp_path / f"answers.{ending}") == []


def test_many_blocks_come_out_in_their_order_with_the_quality_of_all(kickserve, kicks, tmp_path):
    path = kicks(200_000)
    _, summary, _ = kickserve(path, "--output", "answers.parquet")
    table = pq.read_table(tmp_path / "answers.parquet")
    assert table["line"].to_pylist() == list(range(1, 200_001))
    assert table["time_norm"].equals(pq.read_table(path)["time_norm"])
    prediction = table["prediction"].to_numpy()
    assert summary["mean_prediction"] == pytest.approx(prediction.mean(), rel=1e-12)
    success = table["success"].to_numpy()
    assert summary["quality"]["brier"] == pytest.approx(np.mean((prediction - success) ** 2), rel=1e-12)
    outside = (table["distance"].to_numpy() > 60) | (table["angle"].to_numpy() > 60)
    assert summary["warned"] == outside.sum()
    groups = pq.ParquetFile(tmp_path / "answers.parquet").metadata
    assert groups.num_row_groups == 1


def test_a_file_that_breaks_off_leaves_no_output(kickserve, kicks, tmp_path):
    path = kicks(300_000)
    pq.write_table(pq.read_table(path), path, row_group_size=200_000)
    broken = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[broken : broken + 400] = b"\xff" * 400
    path.write_bytes(content)
    code, _, err = kickserve(path, "--output", "answers.parquet")
    assert code == 2
    assert "can't be read" in err
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_disk_that_is_full_leaves_no_output_and_says_so(tmp_path, ending):
    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    # In a folder of its own: where coverage is measured, it leaves a file of its own in the current one.
    folder = tmp_path / "out"
    folder.mkdir()
    command = [
        sys.executable,
        "-m",
        "kickserve",
        "batch",
        "--size",
        "300000",
        "--output",
        f"out/answers.{ending}",
    ]
    ended = subprocess.run(
        command, cwd=tmp_path, preexec_fn=small, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert f"can't write out/answers.{ending}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "ignored" not in ended.stderr
    assert list(folder.iterdir()) == []


def test_a_run_that_is_interrupted_leaves_no_output(tmp_path):
    running = subprocess.Popen(
        [sys.executable, "-m", "kickserve", "batch", "--size", "50000000", "--output", "answers.parquet"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size > 1_000_000 for path in tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, complaint = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "Traceback" not in complaint
    assert list(tmp_path.iterdir()) == []


class Broken:
    """A model that fails in a way of its own."""

    card = load_default().card

    def __init__(self, answer):
        self._answer = answer

    def predict(self, matrix):
        return self._answer(len(matrix))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: 1 / 0, "raised ZeroDivisionError"),
        (lambda n: Answer(np.full(n, np.nan), None, None), "no probability"),
        (lambda n: Answer(np.full(n, 0.5), np.full(n, -0.1), np.ones(n)), "no probability"),
        (lambda n: Answer(np.full(n + 1, 0.5), None, None), "no probability"),
    ],
)
def test_a_model_that_fails_is_said_by_name(answer, said):
    with pytest.raises(PredictionFailed, match=f"the model simulated.* {said}"):
        predict(Broken(answer), np.zeros((3, 11)))


@pytest.mark.parametrize("ending", ENDINGS)
@given(outcomes=st.lists(st.sampled_from([0.0, 1.0, float("nan")]), min_size=1, max_size=20))
def test_a_column_of_whole_numbers_may_come_as_an_array_with_gaps(tmp_path_factory, ending, outcomes):
    path = tmp_path_factory.mktemp("gaps") / f"out.{ending}"
    with open_writer(path, ["line", "success", "model", "low"]) as writer:
        lines = np.arange(len(outcomes))
        writer.write({"line": lines, "success": np.array(outcomes), "model": "one", "low": None})
        writer.write({"line": lines, "success": None, "model": ["one"] * len(outcomes), "low": lines / 2})
    rows = read(path)
    told = [row["success"] if row["success"] != "" else None for row in rows]
    expected = [None if np.isnan(each) else int(each) for each in outcomes] + [None] * len(outcomes)
    assert [None if each is None else int(each) for each in told] == expected
    assert {row["model"] for row in rows} == {"one"}


def test_groups_of_rows_are_cut_by_their_size(tmp_path, monkeypatch):
    monkeypatch.setattr("kickserve_data.writer._GROUP_ROWS", 10)
    monkeypatch.setattr("kickserve_data.writer._GROUP_BYTES", 1_000)
    schema = pa.schema([("note", pa.string())])
    with open_writer(tmp_path / "out.parquet", ["line"], schema) as writer:
        for length, text in [(4, "a"), (7, "b"), (2, "x" * 600), (1, "c")]:
            batch = pa.RecordBatch.from_pydict({"note": [text] * length}, schema)
            writer.write({"line": np.arange(length)}, batch)
    metadata = pq.ParquetFile(tmp_path / "out.parquet").metadata
    assert [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)] == [11, 2, 1]
    assert len(read(tmp_path / "out.parquet")) == 14
