"""The command `replay`: what learning from outcomes would have brought, on the kicks of a file."""

import csv
import json
import math

import numpy as np
import pytest

from kickserve.features import NAMES
from kickserve_data.simulate import logit, simulate


@pytest.fixture(scope="module")
def season(tmp_path_factory):
    """Write a season of twelve kickers in a competition that is weaker than the model's; return the file."""
    rng = np.random.default_rng(3)
    matrix = simulate(6_000, 3).matrix
    ability = rng.normal(0, 0.5, 12)
    kicker = rng.integers(0, 12, len(matrix))
    probability = 1 / (1 + np.exp(-(logit(matrix) + ability[kicker] - 0.4)))
    path = tmp_path_factory.mktemp("replay") / "season.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*NAMES, "kicker", "who", "success"])
        for row, number, success in zip(
            matrix.tolist(), kicker, rng.random(len(matrix)) < probability, strict=True
        ):
            writer.writerow([*row, f"K{number}", f"K{number}", int(success)])
    return path


def test_it_measures_the_model_alone_with_the_level_and_with_the_kickers(kickserve, season):
    code, out, _ = kickserve("replay", season, "--json")
    found = json.loads(out)
    assert code == 0
    assert [*found] == ["base", "level", "kickers", "alarm"]
    for each in ("base", "level", "kickers"):
        assert [*found[each]] == ["brier", "log_loss", "ece", "auc", "n"]
        assert found[each]["n"] == 6_000
    assert found["base"]["log_loss"] > found["level"]["log_loss"] > found["kickers"]["log_loss"]
    assert found["base"]["ece"] > 0.04 > found["level"]["ece"]
    assert found["alarm"]["what"] == "level down"
    assert 1 < found["alarm"]["at"] < 2_000
    assert [*found["alarm"]] == ["at", "what"]

    code, out, _ = kickserve("replay", season)
    assert code == 0
    for words in ("the model", "+ the level", "+ the kicker", "kickers: 12", "level down", "none"):
        assert words in out


def test_a_kick_is_predicted_before_its_outcome_is_heard(kickserve, season, tmp_path):
    head, kick, *_ = season.read_text().splitlines()
    one, total = tmp_path / "one.csv", dict.fromkeys(("base", "level", "kickers"), 0.0)
    for outcome in "01":
        one.write_text(f"{head}\n{kick[:-1]}{outcome}\n")
        found = json.loads(kickserve("replay", one, "--json")[1])
        assert found["alarm"] == {"at": None, "what": None}
        for row in total:  # of one kick the log loss is that of the probability which its outcome was given
            total[row] += math.exp(-found[row]["log_loss"])
    assert total == pytest.approx({"base": 1, "level": 1, "kickers": 1})


def test_a_file_without_kickers_has_no_row_of_them_and_says_how_to_name_them(kickserve, season, tmp_path):
    unnamed = tmp_path / "unnamed.csv"
    unnamed.write_text(season.read_text().replace(",kicker,", ",number,", 1))
    code, out, err = kickserve("replay", unnamed)
    assert code == 0
    assert "+ the kicker" not in out
    assert "--kicker" in err
    _, out, _ = kickserve("replay", unnamed, "--json")
    assert json.loads(out)["kickers"] is None
    named = json.loads(kickserve("replay", unnamed, "--kicker", "who", "--json")[1])
    assert named == json.loads(kickserve("replay", season, "--json")[1])


def test_rows_that_hold_no_kick_or_no_outcome_are_named_and_left_out(kickserve, season, tmp_path):
    lines = season.read_text().splitlines(keepends=True)
    broken = tmp_path / "broken.csv"
    broken.write_text(
        "".join([*lines[:100], lines[100].replace(",", ",x", 1), lines[101].rsplit(",", 1)[0] + ",?\n"])
    )
    code, out, err = kickserve("replay", broken, "--json")
    assert code == 3
    assert json.loads(out)["base"]["n"] == 99
    code, _, err = kickserve("replay", broken)
    assert code == 3
    assert "line 101: distance" in err
    assert "line 102: success is missing" in err


def test_a_file_without_outcomes_is_refused_with_the_remedy(kickserve, season, tmp_path):
    silent = tmp_path / "silent.csv"
    silent.write_text(season.read_text().replace(",success", ",remark", 1))
    code, _, err = kickserve("replay", silent)
    assert code == 2
    assert "--outcome" in err
    assert kickserve("replay", silent, "--outcome", "remark")[0] == 0


def test_a_file_of_place_kicker_and_outcome_alone_is_enough(kickserve, season, tmp_path):
    few, named = tmp_path / "few.csv", tmp_path / "named.csv"
    rows = [line.split(",") for line in season.read_text().splitlines()[1:]]
    places = [NAMES.index("distance"), NAMES.index("angle")]
    lines = [
        ",".join([*(row[at] for at in places), row[-3], "Made" if row[-1] == "1" else "Missed"])
        for row in rows
    ]
    few.write_text("\n".join(["distance,angle,player,result", *lines]))
    code, out, err = kickserve("replay", few, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["kickers"]["n"] == len(rows)
    assert "time_norm 0.5, wind_speed 16.8" in err
    whole = json.loads(kickserve("replay", season, "--json")[1])
    for each in ("base", "level", "kickers"):  # what is missing costs little, and does not move the level
        assert found[each]["log_loss"] == pytest.approx(whole[each]["log_loss"], abs=0.004)

    named.write_text(few.read_text().replace("distance,angle", "dist_m,deg", 1))
    code, _, err = kickserve("replay", named)
    assert code == 2
    assert "distance, angle" in err
    columns = ("--column", "distance=dist_m", "--column", "angle=deg")
    assert json.loads(kickserve("replay", named, *columns, "--json")[1]) == found
    code, _, err = kickserve("replay", named, "--column", "dist_m")
    assert code == 2
    assert "distance=dist_m" in err


def test_a_missing_cell_counts_as_usual_and_one_that_can_not_be_is_named(kickserve, season, tmp_path):
    head, *lines = season.read_text().splitlines()[:50]
    wind, distance = NAMES.index("wind_speed"), NAMES.index("distance")
    cells = [line.split(",") for line in lines]
    cells[3][wind] = cells[4][wind] = ""
    cells[4][distance] = "far"
    broken = tmp_path / "broken.csv"
    broken.write_text("\n".join([head, *map(",".join, cells)]))
    code, out, err = kickserve("replay", broken)
    assert code == 3
    assert "48" in out
    assert "line 6: distance 'far'" in err
    assert "wind_speed 16.8" in err


@pytest.mark.parametrize("ending", ["csv", "ndjson", "parquet"])
def test_kicks_are_heard_in_the_order_of_their_dates(kickserve, season, tmp_path, ending):
    days = [f"20{at // 372:02}-{at // 31 % 12 + 1:02}-{at % 31 // 2 + 1:02}" for at in range(6_000)]
    head, *lines = season.read_text().splitlines()
    rows = [f"{line},{day}" for line, day in zip(lines, days, strict=True)]
    # The later half before the earlier one: kicks of a day, which are neighbours, keep their order.
    table = [row.split(",") for row in (*rows[3_000:], *rows[:3_000])]
    columns = [*head.split(","), "date"]
    path = tmp_path / f"mixed.{ending}"
    if ending == "csv":
        path.write_text("\n".join(map(",".join, [columns, *table])))
    elif ending == "ndjson":
        path.write_text("\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in table))
    else:
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(
            arrow.table(dict(zip(columns, map(list, zip(*table, strict=True)), strict=True))), path
        )
    code, out, err = kickserve("replay", path, "--json")
    assert code == 0
    assert "order of their dates" in err
    found, whole = json.loads(out), json.loads(kickserve("replay", season, "--json")[1])
    assert [found[each] for each in ("base", "level", "kickers")] == [
        pytest.approx(whole[each], rel=1e-12) for each in ("base", "level", "kickers")
    ]


def test_dates_that_could_be_read_in_two_ways_leave_the_order_of_the_file(kickserve, season, tmp_path):
    head, *lines = season.read_text().splitlines()[:50]
    dated = tmp_path / "dated.csv"
    dated.write_text("\n".join([f"{head},date", *(f"{line},03/04/2005" for line in lines)]))
    code, _, err = kickserve("replay", dated)
    assert code == 0
    assert "'03/04/2005' is no date as 2012-03-17" in err
