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
