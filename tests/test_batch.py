"""`kickserve batch`, `outcomes` and `export`: what is written, what is kept, and what a failure leaves."""

from __future__ import annotations

import csv
import json
import resource
import signal
import sqlite3
import subprocess
import sys

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from partitions import table_of
from serving import BARE, serving, until

from kickserve.features import FLAGS, NAMES
from kickserve.linear import load_default
from kickserve_batch.keeping import keep_by_service
from kickserve_client import AsyncClient
from kickserve_data.kicks import Block
from kickserve_data.simulate import simulate

ENDINGS = ["csv", "parquet", "ndjson"]
ANSWERS = ["prediction", "confidence", "low", "high", "model", "revision"]


@pytest.fixture
def batch(kickserve):
    """Run `kickserve batch --json`; return exit code, summary and standard error."""

    def call(*arguments):
        code, out, err = kickserve("batch", "--json", *arguments)
        return code, json.loads(out) if out else None, err

    return call


@pytest.fixture
def kept(tmp_path):
    """Return a column of the predictions in the default store."""

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


@pytest.fixture
def kicks(tmp_path):
    """Write simulated kicks as Parquet with other columns beside them, and return the path."""

    def write(size=100, **others):
        table = table_of(size, 4, **others)
        for flag in FLAGS:
            at = table.column_names.index(flag)
            table = table.set_column(at, flag, table[flag].cast(pa.bool_()))
        pq.write_table(table, tmp_path / "kicks.parquet")
        return tmp_path / "kicks.parquet"

    return write


def read(path):
    """Return the rows of a table as dictionaries."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".csv":
        return list(csv.DictReader(path.read_text().splitlines()))
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestOutput:
    @pytest.mark.parametrize(
        ("source", "ending"), [*((e, e) for e in ENDINGS), ("csv", "parquet"), ("parquet", "csv")]
    )
    def test_has_the_models_answers_and_nothing_is_kept(self, kickserve, batch, tmp_path, source, ending):
        kickserve("simulate", "--size", 50, "--output", f"kicks.{source}")
        code, summary, _ = batch(f"kicks.{source}", "--output", f"answers.{ending}")
        assert (code, summary["sent"], summary["kept"], summary["not_carried"]) == (0, 50, False, [])
        rows = read(tmp_path / f"answers.{ending}")
        assert list(rows[0]) == ["line", *NAMES, "success", *ANSWERS]
        drawn, model = simulate(50, 0), load_default()
        probability, low, high = model.predict(drawn.matrix)
        expected = {"prediction": probability, "confidence": np.maximum(probability, 1 - probability)}
        for name, values in {**expected, "low": low, "high": high}.items():
            assert [float(row[name]) for row in rows] == pytest.approx(values.tolist(), rel=1e-10)
        assert {(row["model"], row["revision"]) for row in rows} == {(model.card.name, model.card.revision)}
        assert [[float(row[name]) for name in NAMES] for row in rows] == drawn.matrix.tolist()
        assert [int(row["success"]) for row in rows] == drawn.success.tolist()
        assert [int(row["line"]) for row in rows] == [at + 1 + (source == "csv") for at in range(50)]
        assert not (tmp_path / "kickserve.db").exists()

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_may_be_written_beside_what_is_kept_with_the_ids(self, batch, kicks_csv, kept, ending):
        output = kicks_csv.with_name(f"answers.{ending}")
        assert batch(kicks_csv, "--output", output, "--keep")[1]["kept"]
        rows = read(output)
        assert list(rows[0])[-1] == "id"
        assert [row["id"] for row in rows] == kept("id")
        assert {row["revision"] for row in rows} == {*kept("revision")} != {None}
        assert [float(row["prediction"]) for row in rows] == kept("prediction")
        assert [int(row["success"]) for row in rows] == kept("outcome")

    @pytest.mark.parametrize("keep", [[], ["--keep"]])
    def test_carries_other_columns_unchanged(self, batch, kicks, tmp_path, keep):
        others = {
            "match": pa.array([f"match {at % 7}" for at in range(100)]).dictionary_encode(),
            "tags": [[at, None] for at in range(100)],
            "at": pa.array(range(100), pa.timestamp("us", "Europe/Paris")),
            "nothing": pa.nulls(100),
            "place": [{"ground": "north", "row": at} for at in range(100)],
        }
        path = kicks(**others)
        assert batch(path, "--output", "answers.parquet", *keep, "--min-distance", 30)[0] == 0
        before, after = pq.read_table(path), pq.read_table(tmp_path / "answers.parquet")
        taken = before.take([line - 1 for line in after["line"].to_pylist()])
        assert 0 < len(taken) < 100
        for name in [*others, "distance"]:
            assert after[name].type == before[name].type
            assert after[name].to_pylist() == taken[name].to_pylist()

    def test_carries_an_id_of_the_users_own_unless_its_own_takes_the_name(self, kickserve, batch, kicks):
        path = kicks(id=[f"mine {at}" for at in range(100)])
        assert batch(path, "--output", "answers.parquet")[1]["not_carried"] == []
        assert batch(path, "--output", "answers.parquet", "--keep")[1]["not_carried"] == ["id"]
        out = kickserve("batch", path, "--output", "answers.parquet", "--keep")[1]
        assert "id: the output has its own columns" in " ".join(out.split())

    def test_can_be_predicted_again(self, batch, kicks, tmp_path):
        batch(kicks(), "--output", "answers.parquet")
        code, summary, _ = batch("answers.parquet", "--output", "again.parquet")
        assert (code, summary["sent"], summary["not_carried"]) == (0, 100, ["line", *ANSWERS])
        assert pq.read_table(tmp_path / "again.parquet").equals(pq.read_table(tmp_path / "answers.parquet"))

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_is_a_table_without_rows_where_all_are_refused(self, batch, tmp_path, ending):
        (tmp_path / "kicks.csv").write_text(",".join(NAMES) + "\n" + ",".join(["x"] * 11) + "\n")
        code, summary, _ = batch("kicks.csv", "--output", f"answers.{ending}")
        assert (code, summary["sent"], summary["mean_prediction"]) == (3, 0, None)
        assert read(tmp_path / f"answers.{ending}") == []

    def test_of_many_blocks_is_in_order_with_the_quality_of_all(self, batch, kicks, tmp_path):
        path = kicks(200_000)
        _, summary, _ = batch(path, "--output", "answers.parquet")
        table = pq.read_table(tmp_path / "answers.parquet")
        assert table["line"].to_pylist() == list(range(1, 200_001))
        assert table["time_norm"].equals(pq.read_table(path)["time_norm"])
        prediction, success = table["prediction"].to_numpy(), table["success"].to_numpy()
        assert summary["mean_prediction"] == pytest.approx(prediction.mean(), rel=1e-10)
        assert summary["quality"]["brier"] == pytest.approx(np.mean((prediction - success) ** 2), rel=1e-9)
        out_of_domain = (table["distance"].to_numpy() > 60) | (table["angle"].to_numpy() > 60)
        assert summary["warned"] == out_of_domain.sum()


class TestRefusals:
    def test_are_named_by_line_and_the_rest_is_done(self, kickserve, batch, kept, kicks_csv):
        lines = kicks_csv.read_text().splitlines()
        lines[4] = lines[4].replace(",", ",moon", 1)
        lines[9] = "1,2,3"
        kicks_csv.write_text("\n".join(lines))
        code, out, err = kickserve("batch", kicks_csv)
        assert (code, "298" in out, len(kept("id"))) == (3, True, 298)
        assert "line 5: distance 'moon" in err
        assert "line 10: has 3 cells where the header has 12" in err
        code, summary, _ = batch(kicks_csv)
        assert (code, summary["sent"], summary["refused"]) == (3, 298, 2)
        assert [each["line"] for each in summary["refusals"]] == [5, 10]


class TestFailures:
    def test_in_the_middle_of_a_file_leave_no_output(self, batch, kicks, tmp_path):
        path = kicks(300_000)
        pq.write_table(pq.read_table(path), path, row_group_size=200_000)
        broken = pq.read_metadata(path).row_group(1).column(0).data_page_offset
        content = bytearray(path.read_bytes())
        content[broken : broken + 400] = b"\xff" * 400
        path.write_bytes(content)
        code, _, err = batch(path, "--output", "answers.parquet")
        assert (code, "can't be read" in err) == (2, True)
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_of_a_full_disk_leave_no_output(self, tmp_path, ending):
        def small():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

        # In a folder of its own: a measurement of coverage leaves a file in the current one.
        folder = tmp_path / "out"
        folder.mkdir()
        command = [sys.executable, "-m", "kickserve", "batch", "--size", "100000"]
        ended = subprocess.run(
            [*command, "--output", f"out/answers.{ending}"],
            cwd=tmp_path,
            preexec_fn=small,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 2
        assert f"can't write out/answers.{ending}" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert "ignored" not in ended.stderr
        assert list(folder.iterdir()) == []

    def test_by_an_interrupt_leave_no_output(self, tmp_path):
        running = subprocess.Popen(
            [sys.executable, "-m", "kickserve", "batch", "--size", "50000000", "--output", "answers.parquet"],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: any(path.stat().st_size > 1_000_000 for path in tmp_path.iterdir()))
        running.send_signal(signal.SIGINT)
        _, complaint = running.communicate(timeout=120)
        assert (running.returncode, "Traceback" in complaint) == (130, False)
        assert list(tmp_path.iterdir()) == []

    def test_no_service_at_the_url_is_said_with_advice(self, batch, monkeypatch):
        code, _, err = batch("--size", 5, "--url", "http://127.0.0.1:9")
        assert (code, "kickserve serve" in err) == (6, True)
        monkeypatch.setenv("KICKSERVE_PORT", "9")
        code, summary, err = batch("--size", 5, "--url", "auto")
        assert (code, summary["sent"]) == (0, 5)
        assert "not through a service: no service answers at http://127.0.0.1:9" in err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "give either a file of kicks, or --size"),
            (["kicks.csv", "--size", 5], "give either a file of kicks, or --size"),
            (["kicks.csv", "--output", "kicks.csv"], "overwrite the kicks"),
            (["--size", 5, "--rate", 3, "--output", "answers.csv"], "--rate applies to stored predictions"),
            (["--size", 5, "--url", "moon"], "it must read http://HOST:PORT"),
        ],
    )
    @pytest.mark.usefixtures("kicks_csv")
    def test_of_the_arguments_are_said(self, batch, arguments, message):
        code, _, err = batch(*arguments)
        assert (code, message in " ".join(err.replace("│", "").split())) == (2, True)


class TestKeeping:
    def test_a_file_with_outcomes_is_predicted_kept_and_compared(self, kickserve, kept, kicks_csv):
        code, out, _ = kickserve("batch", kicks_csv)
        assert code == 0
        for word in ["predicted", "300", "Brier score", "log loss", "ECE", "AUC", "mean probability"]:
            assert word in out
        assert [bool(each) for each in kept("outcome")] == simulate(300, 5).success.tolist()

    def test_simulated_kicks_and_those_of_a_file_can_be_cut_by_distance(self, kickserve, kept, kicks_csv):
        assert kickserve("batch", "--size", 200, "--min-distance", 40)[0] == 0
        assert len(kept("distance")) == 200
        assert "left out" in kickserve("batch", kicks_csv, "--min-distance", 40)[1]
        assert min(kept("distance")) >= 40

    def test_through_a_service_outcomes_follow_the_predictions(
        self, kickserve, kept, kicks_csv, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("API_KEY", "sesame")
        with serving(tmp_path, **BARE) as server:
            url = server.url.removesuffix("/api/v1")
            code, out, _ = kickserve("batch", kicks_csv, "--url", url, "--output", "answers.csv")
            assert (code, "Brier score" in out) == (0, True)
            rows = read(tmp_path / "answers.csv")
            lines = [f"{row['id']},0" for row in rows[:10]]
            (tmp_path / "results.csv").write_text("\n".join(["id,success", *lines, "nonsense,1"]))
            code, out, err = kickserve("outcomes", "results.csv", "--url", url)
            assert code == 3
            assert "line 12: no stored prediction has the id 'nonsense'" in err
            monkeypatch.setenv("API_KEY", "wrong")
            code, _, err = kickserve("batch", kicks_csv, "--url", url)
            assert (code, "401" in err) == (1, True)
            assert server.end() == 0
        assert kept("id") == [row["id"] for row in rows]
        assert kept("outcome")[:10] == [0] * 10


@pytest.fixture
def named_kicks(tmp_path):
    """Write three kicks as CSV: of a named kicker, of one whose name looks like a formula, of an unnamed."""
    rows = [",".join(map(str, row)) for row in simulate(3, 5).matrix.tolist()]
    names = ["Léo", "=1+1", ""]
    lines = [f"{row},{name}" for row, name in zip(rows, names, strict=True)]
    (tmp_path / "named.csv").write_text("\n".join([",".join([*NAMES, "player"]), *lines]))
    return tmp_path / "named.csv"


class TestKickers:
    @pytest.mark.parametrize("ending", ENDINGS)
    @pytest.mark.parametrize("keep", [True, False])
    def test_are_written_beside_the_answers_and_kept(self, batch, named_kicks, kept, tmp_path, ending, keep):
        assert batch(named_kicks, "--output", f"answers.{ending}", *(["--keep"] if keep else []))[0] == 0
        rows = read(tmp_path / f"answers.{ending}")
        assert list(rows[0])[-1] == "kicker"
        escaped, none = ("'=1+1", "") if ending == "csv" else ("=1+1", None)
        assert [row["kicker"] for row in rows] == ["Léo", escaped, none]
        if keep:
            assert (kept("kicker"), kept("source")) == (["Léo", "=1+1", None], ["batch"] * 3)

    def test_of_parquet_are_carried_along_as_they_are(self, batch, kicks, kept, tmp_path):
        path = kicks(player=pa.array([7, None] * 50, pa.int64()))
        assert batch(path, "--output", "answers.parquet", "--keep")[0] == 0
        found = pq.read_table(tmp_path / "answers.parquet")
        assert (found["player"].to_pylist(), "kicker" in found.column_names) == ([7, None] * 50, False)
        assert kept("kicker") == ["7", None] * 50

    def test_are_kept_by_a_service_and_exported(self, kickserve, named_kicks, tmp_path):
        with serving(tmp_path, **BARE) as server:
            url = server.url.removesuffix("/api/v1")
            code, _, err = kickserve("batch", named_kicks, "--url", url)
            assert (code, "older" in err) == (0, False)
            assert server.end() == 0
        kickserve("export", "--output", "all.csv")
        rows = read(tmp_path / "all.csv")
        assert [(row["kicker"], row["source"]) for row in rows] == [
            ("Léo", "batch"),
            ("'=1+1", "batch"),
            ("", "batch"),
        ]
        assert list(rows[0])[-8:] == [
            *("kicker", "source", "base"),
            *("learned_level", "learned_outcomes", "learned_ability", "learned_from", "learned_to"),
        ]

    async def test_are_left_out_where_the_service_is_older_than_they(self, start, settings, capsys):
        client = await start(settings)
        transport = OlderService(app=client.app)
        async with AsyncClient("http://localhost", transport=transport) as asked:
            keep = keep_by_service(asked)
            block = Block(np.arange(2), simulate(2, 5).matrix, np.ones(2), [], kickers=["Léo", None])
            ids = [each for _ in range(2) for each in (await keep(block)).ids]
        assert len({*ids}) == 4
        assert capsys.readouterr().err.count("keeps no labels of kickers") == 1


class OlderService(httpx.ASGITransport):
    """A service, but fields that a kickserve of before does not know are refused, as that one does."""

    async def handle_async_request(self, request):
        if b'"source"' not in await request.aread():
            return await super().handle_async_request(request)
        fault = {"field": "source", "detail": "is no feature of a kick: leave it out", "row": 0}
        problem = dict.fromkeys(("type", "title", "detail", "instance", "request_id"), "")
        return httpx.Response(422, json={**problem, "status": 422, "errors": [fault]})


class TestOutcomesAndExport:
    def test_outcomes_go_straight_into_the_store(self, kickserve, kept, tmp_path):
        kickserve("predict", "--distance", 30, "--angle", 5)
        rows = [{"id": kept("id")[0], "success": True}, {"id": "x"}]
        (tmp_path / "results.ndjson").write_text("\n".join(map(json.dumps, rows)))
        code, out, _ = kickserve("outcomes", "results.ndjson", "--json")
        assert (code, json.loads(out)["kept"], kept("outcome")) == (3, 1, [1])

    def test_refused_outcomes_are_named_by_line(self, kickserve, tmp_path):
        (tmp_path / "results.csv").write_text("when,id,success\n2,,0\n3,b,x\n4,c\n5,d,false\n")
        summary = json.loads(kickserve("outcomes", "results.csv", "--json")[1])
        assert [(each["line"], each["reason"]) for each in summary["refusals"]] == [
            (2, "id is missing"),
            (3, "success 'x' must be 1 or 0"),
            (4, "success '' must be 1 or 0"),
            (5, "no stored prediction has the id 'd'"),
        ]

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_export_writes_everything(self, kickserve, kept, kicks_csv, tmp_path, ending):
        kickserve("batch", kicks_csv)
        code, out, _ = kickserve("export", "--output", f"all.{ending}", "--json")
        assert (code, json.loads(out)["predictions"]) == (0, 300)
        rows = read(tmp_path / f"all.{ending}")
        assert [row["id"] for row in rows] == kept("id")
        assert [float(row["low"]) < float(row["prediction"]) for row in rows] == [True] * 300
        out = kickserve("export", "--output", "none.csv", "--until", "2020-01-01")[1]
        assert "predictions  0" in out
