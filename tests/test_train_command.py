"""`kickserve train` on a file: what it prints and writes, what it refuses, and that its models are served."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import httpx
import pytest
from serving import BARE, serving

from kickserve_train.families import KINDS


@pytest.fixture
def kicks_csv(kickserve):
    kickserve("simulate", "--size", 600, "--seed", 5, "--output", "kicks.csv")
    return Path("kicks.csv")


def test_it_says_what_it_found_compared_chose_and_wrote(kickserve, kicks_csv):
    code, out, err = kickserve("train", kicks_csv, "--folds", 2)
    assert code == 0
    for word in [
        "600, of which",
        "duplicates",
        "constant",
        *KINDS,
        "±",
        "recalibrated: no family",
        "log-odds",
    ]:
        assert word in out
    assert "in use" in out
    assert "difference" in out
    assert "warning: 600 kicks are few" in err
    document = json.loads(Path("model.json").read_text())
    assert (document["name"], document["trained_on"]["data"]) == ("kicks", "kicks.csv")
    assert document["trained_on"]["simulated"] is False
    assert document["revision"] in out


@pytest.mark.parametrize("kind", KINDS)
def test_the_family_asked_for_is_written_with_the_same_bytes_and_predicts(
    kickserve, kicks_csv, monkeypatch, kind
):
    arguments = ("train", kicks_csv, "--kind", kind, "--name", "ours", "--json", "--folds", 3)
    code, out, _ = kickserve(*arguments)
    report = json.loads(out)
    assert code == 0
    assert (report["kind"], report["name"], report["refusals"]) == (kind, "ours", [])
    assert set(report["measured"]) == {"brier", "log_loss", "ece", "auc"}
    assert report["in_use"]["name"] == "simulated"
    kickserve(*arguments, "--output", "again.json")
    assert Path("again.json").read_bytes() == Path("model.json").read_bytes()
    monkeypatch.setenv("KICKSERVE_MODEL", "model.json")
    _, out, _ = kickserve("predict", "--distance", 38, "--angle", 24, "--no-keep", "--json")
    answer = json.loads(out)
    assert answer["interval"][0] < answer["prediction"] < answer["interval"][1]
    shown = json.loads(kickserve("model", "show", "--json")[1])
    assert shown["revision"] == report["revision"]
    assert shown["kind"] == ("trees" if kind == "boosted" else "linear")


def test_lines_that_can_not_be_used_are_named_and_the_rest_is_learnt(kickserve, kicks_csv):
    lines = kicks_csv.read_text().splitlines()
    lines[4] = lines[4].replace(",", ",moon", 1)
    lines[9] = lines[9].rpartition(",")[0] + ","
    kicks_csv.write_text("\n".join(lines))
    code, out, err = kickserve("train", kicks_csv, "--kind", "logistic")
    assert code == 3
    assert "line 5: distance 'moon" in err
    assert "line 10: success is missing" in err
    assert "missing success" in out
    _, out, _ = kickserve("train", kicks_csv, "--kind", "logistic", "--json")
    assert [each["line"] for each in json.loads(out)["refusals"]] == [5, 10]
    assert json.loads(out)["findings"]["missing"] == {"success": 1}


def test_other_names_the_kicker_and_the_unit_of_wind_come_by_option(kickserve, kicks_csv):
    header, *lines = kicks_csv.read_text().splitlines()
    at = header.split(",").index("wind_speed")
    slow = [
        [*row[:at], str(float(row[at]) / 3.6), *row[at + 1 :], f"player {number % 30}"]
        for number, row in enumerate(csv.reader(lines))
    ]
    names = header.replace("distance", "dist_m").replace("success", "goal") + ",who"
    kicks_csv.write_text("\n".join([names, *map(",".join, slow)]))
    arguments = ["train", kicks_csv, "--column", "distance=dist_m", "--outcome", "goal", "--kind", "logistic"]
    assert "looks like m/s" in kickserve(*arguments)[2]
    code, out, err = kickserve(*arguments, "--kicker", "who", "--wind-in-ms")
    assert (code, "looks like m/s" in err, "spread of ability" in out) == (0, False, True)
    document = json.loads(Path("model.json").read_text())
    assert document["trained_on"]["kickers"] == 30
    assert "for a kicker of unknown ability" in document["interval"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv"], "there is no file none.csv"),
        (["kicks.csv", "--outcome", "goal"], "no column goal: name it with --outcome"),
        (["kicks.csv", "--kicker", "who"], "no column who"),
        (["kicks.csv", "--column", "distance"], "must read NAME=COLUMN"),
        (["kicks.csv", "--column", "moon=distance"], "moon is no feature"),
        (["kicks.csv", "--kind", "forest"], "forest"),
        (["kicks.csv", "--start", "kicks"], "kicks"),
        (["kicks.csv", "--kind", "recalibrated", "--start", "none"], "no model to recalibrate"),
        (["kicks.csv", "--column", "wind_speed=success"], "wind_speed tells the outcome"),
        (["few.csv", "--start", "none"], "59 valid kicks, and a model from scratch needs 200"),
        (["kicks.csv", "--size", "20000"], "--size is for simulated kicks"),
        (["kicks.csv", "--kind", "logistic", "--output", "nowhere/m.json"], "can't write nowhere/m.json"),
        (["--kind", "logistic"], "--kind needs DATA"),
        (["--start", "packaged"], "--start needs DATA"),
        (["--force"], "--force needs DATA"),
        (["--column", "a=b"], "--column needs DATA"),
    ],
)
def test_what_can_not_be_done_is_said(kickserve, kicks_csv, arguments, message):
    Path("few.csv").write_text("\n".join(kicks_csv.read_text().splitlines()[:60]))
    code, out, err = kickserve("train", *arguments)
    assert code == 2
    assert message in " ".join((out + err).split())


def test_thirty_kicks_move_the_model_in_use(kickserve, kicks_csv):
    Path("few.csv").write_text("\n".join(kicks_csv.read_text().splitlines()[:31]))
    code, out, err = kickserve("train", "few.csv", "--start", "current", "--json")
    report, document = json.loads(out), json.loads(Path("model.json").read_text())
    assert (code, report["kind"]) == (0, "recalibrated")
    assert set(report["recalibration"]) == {"slope", "offset"}
    assert "only a recalibrated model is fitted" in err + " ".join(report["warnings"])
    assert document["trained_on"]["recalibrated"] == "simulated"
    assert "wind_speed" in document["assumed"]


def test_swapped_outcomes_are_refused_unless_forced_and_copies_count_once(kickserve, kicks_csv):
    header, *lines = kicks_csv.read_text().splitlines()
    swapped = [f"{line[:-1]}{1 - int(line[-1])}" for line in lines]
    Path("swapped.csv").write_text("\n".join([header, *swapped]))
    code, _, err = kickserve("train", "swapped.csv", "--kind", "logistic")
    assert (code, "are 1 and 0 swapped?" in " ".join(err.split())) == (2, True)
    assert kickserve("train", "swapped.csv", "--kind", "logistic", "--force")[0] == 0
    Path("often.csv").write_text("\n".join([header, *lines * 10]))
    documents = []
    for name in ("often.csv", "kicks.csv"):
        code, out, _ = kickserve("train", name, "--kind", "logistic", "--name", "ours")
        assert code == 0
        assert ("5,400, counted once" in out) == (name == "often.csv")
        documents.append(json.loads(Path("model.json").read_text()))
    assert documents[0]["covariance"] == documents[1]["covariance"]


def test_a_model_in_use_that_is_not_there_yet_is_no_hindrance(kickserve, kicks_csv, monkeypatch):
    monkeypatch.setenv("KICKSERVE_MODEL", "model.json")
    code, out, err = kickserve("train", kicks_csv, "--kind", "logistic", "--json")
    assert code == 0
    assert "no comparison with the model in use" in err
    assert json.loads(out)["in_use"] is None
    _, out, err = kickserve("train", kicks_csv, "--kind", "logistic")
    assert "trained on these very kicks" in " ".join(out.split())
    assert "model.json exists, and is replaced" in err


def test_a_trained_model_is_served(kickserve, kicks_csv, tmp_path, kick):
    kickserve("train", kicks_csv, "--kind", "boosted", "--folds", 2)
    with serving(tmp_path, **BARE, KICKSERVE_MODEL="model.json") as server:
        assert "boosted" in kickserve("model", "show", "--url", server.url)[1]
        answer = httpx.post(f"{server.url}/predict", json=kick).json()
        assert answer["model"] == "kicks"
        assert answer["interval"][0] < answer["prediction"] < answer["interval"][1]
        assert "distance beyond" in httpx.post(f"{server.url}/predict", json=kick | {"distance": 99}).text
        assert httpx.get(f"{server.url}/model").json()["trained_on"]["family"] == "boosted"
        assert server.end() == 0


def test_without_scikit_learn_the_rest_is_compared_and_boosting_says_what_to_install(
    kickserve, kicks_csv, monkeypatch
):
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not installed
    code, out, err = kickserve("train", kicks_csv, "--folds", 2)
    assert code == 0
    assert "boosted" not in out
    assert "kickserve[train]" in err
    code, _, err = kickserve("train", kicks_csv, "--kind", "boosted")
    assert code == 2
    assert "boosting needs scikit-learn" in err
