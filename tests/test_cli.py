"""The command line, run in this process: what it prints, what it keeps, and how it ends."""

from __future__ import annotations

import json
import sqlite3

import pytest

from kickserve.cli import run
from kickserve.features import NAMES


@pytest.fixture
def kickserve(capsys):
    """Run a command; return exit code, standard output and standard error."""

    def call(*arguments):
        code = run([str(each) for each in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def kept(tmp_path):
    """Return a column of what is kept in the default store."""

    def column(name):
        with sqlite3.connect(tmp_path / "kickserve.db") as connection:
            rows = connection.execute(f"SELECT {name} FROM predictions ORDER BY id").fetchall()  # noqa: S608  ours
        connection.close()
        return [row[0] for row in rows]

    return column


@pytest.fixture
def kicks_csv(tmp_path, kickserve):
    kickserve("simulate", "--size", 300, "--seed", 5, "--output", tmp_path / "kicks.csv")
    return tmp_path / "kicks.csv"


class TestPredict:
    def test_shows_probability_interval_and_warnings_and_keeps_it(self, kickserve, kept):
        code, out, _ = kickserve("predict", "--distance", 75, "--angle", 5)
        assert code == 0
        assert "probability" in out
        assert "95 % interval" in out
        assert "distance beyond 60 m" in out
        assert kept("distance") == [75]
        assert kept("id")[0] in out

    def test_json_is_what_the_api_answers(self, kickserve, tmp_path):
        code, out, _ = kickserve("predict", "--distance", 38, "--angle", 24, "--no-keep", "--json")
        assert code == 0
        assert set(json.loads(out)) == {"id", "prediction", "confidence", "interval", "model"}
        assert not (tmp_path / "kickserve.db").exists()

    @pytest.mark.parametrize("distance", ["1", "nan", "101", "inf"])
    def test_a_value_out_of_range_is_refused_by_name(self, kickserve, distance):
        code, _, err = kickserve("predict", "--distance", distance, "--angle", 3)
        assert code == 2
        assert "distance must be a number from 2 to 100 m" in err

    def test_a_word_for_a_number_is_a_usage_error(self, kickserve):
        assert kickserve("predict", "--distance", "far", "--angle", 3)[0] == 2


class TestSimulateTrainModel:
    def test_the_same_seed_gives_the_same_file(self, kickserve, tmp_path):
        for name in ["a.csv", "b.csv"]:
            assert kickserve("simulate", "--size", 100, "--seed", 3, "--output", name)[0] == 0
        assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
        header = (tmp_path / "a.csv").read_text().splitlines()[0].split(",")
        assert header == [*NAMES, "success"]

    def test_a_file_that_can_not_be_written_is_said(self, kickserve):
        code, _, err = kickserve("simulate", "--output", "nowhere/a.csv")
        assert code == 2
        assert "nowhere" in err

    def test_an_unknown_ending_is_said(self, kickserve):
        code, _, err = kickserve("simulate", "--output", "a.xlsx")
        assert code == 2
        assert ".parquet" in err

    def test_a_trained_model_can_be_served(self, kickserve, monkeypatch):
        code, out, _ = kickserve("train", "--size", 20_000, "--output", "mine.json", "--json")
        assert code == 0
        revision = json.loads(out)["revision"]
        monkeypatch.setenv("KICKSERVE_MODEL", "mine.json")
        code, out, _ = kickserve("model", "show", "--json")
        assert code == 0
        assert json.loads(out)["revision"] == revision
        assert "revision" in kickserve("model", "show")[1]

    @pytest.mark.parametrize(("name", "content"), [("m.json", "{}"), ("none.json", None), ("m.bin", "x")])
    def test_a_model_that_is_none_is_refused_by_name(self, kickserve, tmp_path, monkeypatch, name, content):
        if content is not None:
            (tmp_path / name).write_text(content)
        monkeypatch.setenv("KICKSERVE_MODEL", name)
        code, _, err = kickserve("model", "show")
        assert code == 2
        assert name in err


class TestHelp:
    @pytest.mark.parametrize(
        "command", ["serve", "predict", "batch", "outcomes", "export", "simulate", "train"]
    )
    def test_every_command_has_help_with_examples(self, kickserve, command):
        code, out, _ = kickserve(command, "--help")
        assert "\\b" not in out
        assert code == 0
        assert "Examples" in out
        assert f"\n   kickserve {command}" in out, "examples stand apart from what is told"

    def test_help_is_there_where_settings_are_wrong(self, kickserve, monkeypatch):
        monkeypatch.setenv("KICKSERVE_PORT", "moon")
        code, out, err = kickserve("--help")
        assert code == 0
        assert "batch" in out
        assert "KICKSERVE_PORT" in err

    def test_an_unknown_command_is_a_usage_error(self, kickserve):
        assert kickserve("moon")[0] == 2

    def test_the_version_is_said(self, kickserve):
        assert "0.1.0" in kickserve("--version")[1]
