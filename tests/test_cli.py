"""The command line, run in this process: what it prints, what it keeps, and how it ends."""

from __future__ import annotations

import csv
import json
import sqlite3

import pyarrow.parquet
import pytest
from serving import BARE, serving

from kickserve.cli import run
from kickserve.features import NAMES
from kickserve_data.simulate import simulate


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


class TestBatch:
    @pytest.mark.parametrize(
        ("hours", "why"),
        [
            ("14:00", "no pair of hours"),
            ("14:00-25:00", "no pair of hours"),
            ("14:00Z-22:00Z", "the hours are UTC"),
            ("14:00-22:00+01:00", "the hours are UTC"),
        ],
    )
    def test_hours_are_a_pair_in_utc(self, kickserve, hours, why):
        code, _, err = kickserve("batch", "--size", 1, "--between", hours)
        assert (code, why in " ".join(err.split())) == (2, True)

    def test_a_file_with_outcomes_is_predicted_kept_and_judged(self, kickserve, kept, kicks_csv):
        code, out, _ = kickserve("batch", kicks_csv)
        assert code == 0
        for word in ["predicted", "300", "Brier score", "log loss", "ECE", "AUC", "mean probability"]:
            assert word in out
        success = simulate(300, 5).success.tolist()
        assert [bool(each) for each in kept("outcome")] == success

    def test_refused_lines_are_named_and_the_rest_is_done(self, kickserve, kept, kicks_csv):
        lines = kicks_csv.read_text().splitlines()
        lines[4] = lines[4].replace(",", ",moon", 1)
        lines[9] = "1,2,3"
        kicks_csv.write_text("\n".join(lines))
        code, out, err = kickserve("batch", kicks_csv)
        assert code == 3
        assert "line 5: distance 'moon" in err
        assert "line 10: has 3 cells where the header has 12" in err
        assert "298" in out
        assert len(kept("id")) == 298
        code, out, _ = kickserve("batch", kicks_csv, "--json")
        summary = json.loads(out)
        assert (summary["sent"], summary["refused"]) == (298, 2)
        assert [each["line"] for each in summary["refusals"]] == [5, 10]

    def test_simulated_kicks_can_be_far_ones_only(self, kickserve, kept):
        code, _, _ = kickserve("batch", "--size", 200, "--min-distance", 40)
        assert code == 0
        assert len(kept("distance")) == 200
        assert min(kept("distance")) >= 40

    def test_a_file_can_be_cut_by_distance_too(self, kickserve, kept, kicks_csv):
        _, out, _ = kickserve("batch", kicks_csv, "--min-distance", 40)
        assert "left out" in out
        assert min(kept("distance")) >= 40

    @pytest.mark.parametrize("ending", ["csv", "parquet", "ndjson"])
    def test_output_has_the_kicks_in_their_order_with_their_answers(self, kickserve, kept, kicks_csv, ending):
        output = kicks_csv.with_name(f"answers.{ending}")
        assert kickserve("batch", kicks_csv, "--output", output, "--keep")[0] == 0
        if ending == "csv":
            rows = list(csv.DictReader(output.read_text().splitlines()))
        elif ending == "parquet":
            rows = pyarrow.parquet.read_table(output).to_pylist()
        else:
            rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert [int(row["line"]) for row in rows] == list(range(2, 302))
        assert [float(row["prediction"]) for row in rows] == kept("prediction")
        assert [row["id"] for row in rows] == kept("id")
        assert [int(row["success"]) for row in rows] == simulate(300, 5).success.astype(int).tolist()

    def test_what_it_wrote_it_can_read(self, kickserve, kicks_csv):
        kickserve("batch", kicks_csv, "--output", kicks_csv.with_name("answers.parquet"))
        assert kickserve("batch", kicks_csv.with_name("answers.parquet"))[0] == 0

    @pytest.mark.parametrize("arguments", [[], ["kicks.csv", "--size", "5"]])
    def test_a_file_or_a_size_is_needed(self, kickserve, arguments):
        assert kickserve("batch", *arguments)[0] == 2

    def test_no_service_at_the_url_is_said_with_advice(self, kickserve):
        code, _, err = kickserve("batch", "--size", 5, "--url", "http://127.0.0.1:9")
        assert code == 6
        assert "kickserve serve" in err
        assert "http://" in kickserve("batch", "--size", 5, "--url", "moon")[2]

    def test_a_store_that_can_not_be_opened_is_said(self, kickserve, monkeypatch):
        monkeypatch.setenv("DATABASE_URL", "sqlite:///nowhere/x.db")
        code, _, err = kickserve("batch", "--size", 5)
        assert code == 2
        assert "there is no folder" in err


class TestThroughAService:
    def test_batch_outcomes_and_export_agree(self, kickserve, kept, kicks_csv, tmp_path, monkeypatch):
        monkeypatch.setenv("API_KEY", "sesame")
        with serving(tmp_path, **BARE) as server:
            url = server.url.removesuffix("/api/v1")
            code, out, _ = kickserve("batch", kicks_csv, "--url", url, "--output", "answers.csv")
            assert code == 0
            assert "Brier score" in out
            rows = list(csv.DictReader((tmp_path / "answers.csv").read_text().splitlines()))
            (tmp_path / "told.csv").write_text(
                "id,success\n" + "".join(f"{row['id']},0\n" for row in rows[:10]) + "nonsense,1\n"
            )
            code, out, err = kickserve("outcomes", "told.csv", "--url", url)
            assert code == 3
            assert "line 12: no prediction is kept under the id 'nonsense'" in err
            monkeypatch.setenv("API_KEY", "wrong")
            code, _, err = kickserve("batch", kicks_csv, "--url", url)
            assert code == 1
            assert "401" in err
            assert server.end() == 0
        assert kept("id") == [row["id"] for row in rows]
        assert kept("outcome")[:10] == [0] * 10


class TestOutcomesAndExport:
    def test_outcomes_go_straight_into_the_store(self, kickserve, kept, tmp_path):
        kickserve("predict", "--distance", 30, "--angle", 5)
        [record_id] = kept("id")
        (tmp_path / "told.ndjson").write_text(
            json.dumps({"id": record_id, "success": True}) + "\n" + json.dumps({"id": "x"}) + "\n"
        )
        code, out, _ = kickserve("outcomes", "told.ndjson", "--json")
        assert code == 3
        assert json.loads(out)["kept"] == 1
        assert kept("outcome") == [1]

    def test_of_many_refused_outcomes_the_first_are_named(self, kickserve, tmp_path):
        (tmp_path / "told.csv").write_text("id,success\n" + ",1\n" * 2_500)
        summary = json.loads(kickserve("outcomes", "told.csv", "--json")[1])
        assert (summary["refused"], len(summary["refusals"])) == (2_500, 1_000)

    def test_a_file_without_the_columns_is_refused(self, kickserve, tmp_path):
        (tmp_path / "told.csv").write_text("id,when\nx,1\n")
        assert "success" in kickserve("outcomes", "told.csv")[2]

    @pytest.mark.parametrize("ending", ["csv", "parquet", "ndjson"])
    def test_export_writes_everything(self, kickserve, kept, kicks_csv, tmp_path, ending):
        kickserve("batch", kicks_csv)
        code, out, _ = kickserve("export", "--output", f"all.{ending}", "--json")
        assert code == 0
        assert json.loads(out)["predictions"] == 300
        file = tmp_path / f"all.{ending}"
        if ending == "parquet":
            assert pyarrow.parquet.read_table(file)["id"].to_pylist() == kept("id")
        else:
            assert all(record_id in file.read_text() for record_id in kept("id"))
        out = kickserve("export", "--output", "none.csv", "--until", "2020-01-01")[1]
        assert "predictions  0" in out


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
