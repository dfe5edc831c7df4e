"""`kickserve batch` over a folder: each row group is done once, and a stopped run is resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from importlib.resources import files

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace
from partitions import answers, folder_of, lasting, table_of
from partitions import batch as run_batch

from kickserve.cli import run
from kickserve.errors import MissingExtra, PredictionFailed
from kickserve_batch.runs import PARTITIONS_FAILED, _Run
from kickserve_data import DataError
from kickserve_data.engines import work_through
from kickserve_data.locations import locate
from kickserve_data.partitions import EngineConfig, Partition


@pytest.fixture
def batch(capsys):
    return partial(run_batch, capsys)


@pytest.fixture
def kicks(tmp_path):
    return folder_of(tmp_path / "kicks", [2_500, 1_200, 3_000])


def parts(folder):
    return sorted((folder / "answers").glob("part-*.parquet"))


def spoil(path, group):
    """Damage a row group of a file, so that the others can be read."""
    column = pq.read_metadata(path).row_group(group).column(1)
    content = bytearray(path.read_bytes())
    begins = column.dictionary_page_offset or column.data_page_offset
    content[begins : begins + 60] = b"\xff" * 60
    path.write_bytes(content)


class TestARun:
    def test_over_a_folder_answers_each_row_as_its_file_alone_is_answered(self, batch, kicks, tmp_path):
        code, summary, _ = batch(kicks, "--output", "answers")
        assert (code, summary["sent"], summary["partitions"]) == (0, 6_700, 8)
        whole = answers(tmp_path / "answers")
        alone = []
        for path in sorted(kicks.iterdir()):
            batch(path, "--output", "alone.parquet")
            alone.append(pq.read_table("alone.parquet"))
        assert whole.drop_columns(["file"]).equals(pa.concat_tables(alone).combine_chunks())
        assert whole["file"].unique().to_pylist() == [path.name for path in sorted(kicks.iterdir())]

    def test_makes_a_file_of_each_row_group_in_order(self, batch, kicks, tmp_path):
        batch(kicks, "--output", "answers")
        sizes = [pq.read_metadata(part).num_rows for part in parts(tmp_path)]
        assert sizes == [1000, 1000, 500, 1000, 200, *[1000] * 3]
        assert pq.read_table(parts(tmp_path)[2])["line"].to_pylist() == [*range(2_001, 2_501)]

    @pytest.mark.parametrize(
        "source", ["kicks/*.parquet", "kicks/kicks-[012].parquet", "file://{}/kicks", "kicks[1]"]
    )
    def test_takes_a_pattern_or_a_url_as_well(self, batch, kicks, tmp_path, source):
        batch(kicks, "--output", "one")
        kicks.with_name("kicks[1]").symlink_to(kicks)
        assert batch(source.format(tmp_path), "--output", "other[1]")[0] == 0
        assert answers(tmp_path / "one").equals(answers(tmp_path / "other[1]"))
        assert batch(source.format(tmp_path), "--output", "other[1]")[1]["taken_up"] == 8

    def test_reads_folders_below_but_nothing_that_is_hidden(self, batch, kicks, tmp_path):
        for name in ["2026", "_old", ".trash"]:
            folder_of(kicks / name, [10])
        (kicks / "readme.txt").write_text("hello")
        _, summary, _ = batch(kicks, "--output", "answers")
        assert summary["sent"] == 6_710
        files = answers(tmp_path / "answers")["file"].unique().to_pylist()
        assert files == ["2026/kicks-0.parquet", *[f"kicks-{at}.parquet" for at in range(3)]]

    def test_carries_other_columns_along_but_for_its_own(self, batch, tmp_path):
        path = tmp_path / "kicks" / "some.parquet"
        path.parent.mkdir()
        others = {"match": [f"m{at}" for at in range(30)], "file": ["theirs"] * 30}
        pq.write_table(table_of(30, **others), path, row_group_size=10)
        _, summary, _ = batch(path.parent, "--output", "answers")
        assert summary["not_carried"] == ["file"]
        assert answers(tmp_path / "answers")["match"].to_pylist() == others["match"]

    def test_names_refused_lines_with_their_file(self, batch, kicks):
        path = kicks / "kicks-1.parquet"
        table = pq.read_table(path)
        distance = table["distance"].to_numpy().copy()
        distance[[4, 1_100]] = 1.0
        at = table.column_names.index("distance")
        pq.write_table(table.set_column(at, "distance", pa.array(distance)), path, row_group_size=1_000)
        code, summary, _ = batch(kicks, "--output", "answers")
        assert (code, summary["sent"], summary["refused"]) == (3, 6_698, 2)
        assert [(each["line"], each["reason"][:25]) for each in summary["refusals"]] == [
            (5, "kicks-1.parquet: distance"),
            (1_101, "kicks-1.parquet: distance"),
        ]

    def test_leaves_out_what_is_too_near(self, batch, kicks, tmp_path):
        _, summary, _ = batch(kicks, "--output", "answers", "--min-distance", 30)
        assert summary["sent"] + summary["skipped"] == 6_700
        assert min(answers(tmp_path / "answers")["distance"].to_pylist()) >= 30


class TestResuming:
    def test_does_only_what_is_left_and_has_the_same_figures(self, batch, kicks, tmp_path):
        _, first, _ = batch(kicks, "--output", "answers")
        whole = answers(tmp_path / "answers")
        for part in parts(tmp_path)[2:5]:
            part.unlink()
        written = {path: path.stat().st_mtime_ns for path in parts(tmp_path)}
        code, second, err = batch(kicks, "--output", "answers")
        assert (code, second["taken_up"]) == (0, 5)
        assert "5 of 8 partitions are done" in err
        assert lasting(second) == lasting(first)
        assert all(path.stat().st_mtime_ns == before for path, before in written.items())
        assert answers(tmp_path / "answers").equals(whole)

    def test_does_again_what_was_damaged_or_half_written(self, batch, kicks, tmp_path):
        batch(kicks, "--output", "answers")
        whole = answers(tmp_path / "answers")
        parts(tmp_path)[3].write_bytes(b"half of it")
        pq.write_table(pq.read_table(parts(tmp_path)[6]), parts(tmp_path)[6])  # by an older kickserve
        (tmp_path / "answers" / ".part-000006.parquet.0123abcd.part").write_text("half written")
        assert batch(kicks, "--output", "answers")[1]["taken_up"] == 6
        assert not [*(tmp_path / "answers").glob(".*")]
        assert answers(tmp_path / "answers").equals(whole)

    def test_after_a_kill_misses_no_row_and_has_none_twice(self, batch, tmp_path):
        source = folder_of(tmp_path / "many", [30_000, 30_000], rows=500)
        command = [sys.executable, "-m", "kickserve", "batch", str(source), "--output", "answers"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(parts(tmp_path)) < 5:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        _, summary, _ = batch(source, "--output", "answers")
        assert 5 <= summary["taken_up"] < 120
        table = answers(tmp_path / "answers")
        assert table["line"].to_pylist() == [*range(1, 30_001)] * 2
        batch(source, "--output", "again")
        assert table.equals(answers(tmp_path / "again"))

    def test_is_refused_for_another_run_and_changes_nothing(self, batch, kicks, tmp_path, monkeypatch):
        batch(kicks, "--output", "answers")
        before = {path: path.read_bytes() for path in (tmp_path / "answers").rglob("*") if path.is_file()}
        of = _Run.of

        def refused(*arguments):
            code, _, err = batch(kicks, "--output", "answers", *arguments)
            assert code == 2
            assert "--restart" in err
            return err

        assert "--min-distance: it was begun with 0 m, and now that is 20 m" in refused("--min-distance", 20)
        monkeypatch.setattr(_Run, "of", lambda *each: replace(of(*each), kickserve="9.9"))
        assert "and this is 9.9" in refused()
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        document = json.loads(files("kickserve").joinpath("default.json").read_bytes())
        (tmp_path / "mine.json").write_text(json.dumps({**document, "name": "another"}))
        monkeypatch.setenv("KICKSERVE_MODEL", "mine.json")
        assert "with the model simulated" in refused()
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        os.utime(kicks / "kicks-2.parquet", (1, 1))
        assert "kicks-2.parquet has changed" in refused()
        (kicks / "kicks-2.parquet").unlink()
        assert "kicks-2.parquet is missing now" in refused()
        after = {path: path.read_bytes() for path in (tmp_path / "answers").rglob("*") if path.is_file()}
        assert after == before

    def test_restart_begins_anew(self, batch, kicks, tmp_path):
        batch(kicks, "--output", "answers")
        (tmp_path / "answers" / "_kickserve" / "done").mkdir()  # of an older kickserve
        (kicks / "kicks-0.parquet").unlink()
        code, summary, _ = batch(kicks, "--output", "answers", "--restart")
        assert (code, summary["taken_up"], summary["partitions"]) == (0, 0, 5)
        assert len(answers(tmp_path / "answers")) == 4_200
        assert [path.name for path in (tmp_path / "answers" / "_kickserve").iterdir()] == ["run.json"]

    def test_files_of_somebody_else_are_left_alone(self, batch, kicks, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letters.parquet").write_text("dear")
        code, _, err = batch(kicks, "--output", "mine")
        assert code == 2
        assert "letters.parquet" in err
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letters.parquet"]


class TestFailures:
    def test_of_a_partition_are_named_and_the_others_done(self, batch, kicks, tmp_path, capsys):
        spoil(kicks / "kicks-1.parquet", 1)
        code, summary, _ = batch(kicks, "--output", "answers", "--retries", 0)
        assert (code, summary["failures"], summary["sent"]) == (PARTITIONS_FAILED, 1, 6_500)
        [failed] = summary["failed"]
        assert (failed["partition"], failed["row_group"]) == (4, 1)
        assert failed["file"].endswith("kicks-1.parquet")
        assert failed["reason"]
        assert len(parts(tmp_path)) == 7
        assert run(["batch", str(kicks), "--output", "answers", "--retries", "0"]) == PARTITIONS_FAILED
        out, err = capsys.readouterr()
        assert "1 failed: the same command tries them again" in " ".join(out.split())
        assert "partition 4 (row group 1 of" in err

    def test_that_pass_are_tried_again(self, monkeypatch):
        monkeypatch.setattr("kickserve_data.engines._PAUSE", 0)
        tries = []

        def work(partition, model):
            tries.append(partition)
            if len(tries) < 3:
                raise OSError("the disk is busy")
            return model

        def run(retries):
            partition = Partition(0, "somewhere", None, 0, 0, 1)
            config = EngineConfig(retries=retries)
            [result] = work_through(work, [partition], config, (None, "the model"), print)
            return result

        assert (run(2).value, len(tries)) == ("the model", 3)
        tries.clear()
        result = run(1)
        assert (result.value, result.reason) == (None, "the disk is busy")

    def test_of_the_model_fail_all_partitions(self, batch, kicks, monkeypatch):
        def fails(*_):
            raise PredictionFailed("the model is tired")

        monkeypatch.setattr("kickserve_data.scoring.predict", fails)
        code, summary, _ = batch(kicks, "--output", "answers", "--retries", 0)
        assert (code, summary["failures"], summary["mean_prediction"]) == (PARTITIONS_FAILED, 8, None)
        assert {each["reason"] for each in summary["failed"]} == {"the model is tired"}


class TestWords:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["kicks"], "name one with --output"),
            (["kicks", "--output", "answers.csv"], "names a file"),
            (["kicks", "--output", "s3://season/answers[1]"], "is a pattern: name one folder"),
            (["kicks", "--output", "answers", "--keep"], "--keep: not with a folder"),
            (["kicks", "--output", "answers", "--rate", "3"], "--rate: not with a folder"),
            (["--size", "10", "--engine", "dask", "--output", "answers"], "reads Parquet"),
            (["kicks", "--output", "answers", "--workers", "3"], "are for --engine dask"),
            (
                ["kicks", "--engine", "dask", "--scheduler", "tcp://x:1", "--workers", "3"],
                "leave --scheduler out",
            ),
            (["--size", "10", "--restart"], "--restart is for"),
            (["empty", "--output", "answers"], "holds no Parquet files"),
            (["nothing-*.parquet", "--output", "answers"], "holds no Parquet files"),
            (["nowhere://bucket", "--output", "answers"], "nowhere"),
            (
                ["kicks/kicks-0.parquet", "--output", "kicks/kicks-1.parquet", "--engine", "dask"],
                "names a file",
            ),
        ],
    )
    @pytest.mark.usefixtures("kicks")
    def test_say_what_can_not_be(self, batch, tmp_path, arguments, words):
        if "dask" in arguments:
            pytest.importorskip("distributed")
        (tmp_path / "empty").mkdir()
        code, _, err = batch(*arguments)
        assert code == 2
        assert words in err.replace("│ ", "").replace(" │", "")

    def test_name_the_file_that_lacks_a_column_or_has_another(self, batch, kicks):
        pq.write_table(table_of(10, match=["m"] * 10), kicks / "x.parquet")
        assert "differ in columns beside the features" in batch(kicks, "--output", "a")[2]
        pq.write_table(table_of(10).drop_columns(["angle"]), kicks / "x.parquet")
        assert "x.parquet has no column angle" in batch(kicks, "--output", "a")[2]
        (kicks / "x.parquet").write_text("no Parquet at all")
        assert "x.parquet is no Parquet file" in batch(kicks, "--output", "a")[2]

    def test_say_which_extra_is_missing(self, monkeypatch, batch, kicks):
        def missing(_):
            raise ImportError("Install s3fs to access S3")

        monkeypatch.setattr("fsspec.core.url_to_fs", missing)
        with pytest.raises(MissingExtra, match=r"kickserve\[s3\]"):
            locate("s3://bucket/kicks")
        with pytest.raises(DataError, match="gs://bucket"):
            locate("gs://bucket/kicks")
        monkeypatch.setattr("kickserve.errors.find_spec", lambda _: None)
        code, _, err = batch(kicks, "--output", "a", "--engine", "dask")
        assert (code, "kickserve[dask]" in err) == (2, True)
