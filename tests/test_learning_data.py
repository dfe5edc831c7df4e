"""Training reads files under their own names, looks at the kicks, and divides them into folds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning_help import known_of, of_kickers

from kickserve.errors import DataError
from kickserve.features import INDEX, NAMES
from kickserve_data.simulate import simulate
from kickserve_train.checks import FEWEST, check
from kickserve_train.data import Naming, read_known
from kickserve_train.folds import folds_of, groups_of, sample_of
from kickserve_train.profiles import domain_of


def write(path, rows, header=(*NAMES, "success")):
    lines = [",".join(header), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


GOOD = [0.5, 30, 10, 5, 0, 0, 1, 0, 0, 1, 1, 1]


class TestData:
    @pytest.mark.parametrize("ending", ["csv", "ndjson", "parquet"])
    def test_names_of_ones_own_are_read_from_each_kind_of_file(self, tmp_path, ending):
        import pyarrow as pa
        import pyarrow.parquet as pq

        header = ["who", *("dist_m" if name == "distance" else name for name in NAMES), "goal"]
        rows = [["Ann", *GOOD], ["Bob", *GOOD[:-1], 0], ["Ann", *GOOD]]
        path = tmp_path / f"kicks.{ending}"
        if ending == "csv":
            write(path, rows, header)
        elif ending == "ndjson":
            path.write_text("\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in rows))
        else:
            columns = {name: list(cells) for name, cells in zip(header, zip(*rows, strict=True), strict=True)}
            pq.write_table(pa.table(columns), path)
        known, refusals = read_known(
            path, Naming(columns={"distance": "dist_m"}, outcome="goal", kicker="who")
        )
        assert not refusals
        assert known.matrix.tolist() == [GOOD[:-1]] * 3
        assert known.success.tolist() == [True, False, True]
        assert known.kicker.tolist() == [0, 1, 0]

    def test_lines_that_can_not_be_used_are_refused_with_the_reason(self, tmp_path):
        rows = [GOOD, [*GOOD[:-1], ""], [0.5, "", *GOOD[2:]], [0.5, 300, *GOOD[2:]], [*GOOD[:-1], 2], [1, 2]]
        known, refusals = read_known(write(tmp_path / "kicks.csv", rows), Naming())
        assert len(known) == 1
        assert [each.line for each in refusals] == [3, 4, 5, 6, 7]
        for refusal, reason in zip(
            refusals,
            ["success is missing", "distance is missing", "2 to 100 m", "1, 0", "cells"],
            strict=True,
        ):
            assert reason in refusal.reason

    def test_a_kick_of_nobody_is_refused_where_kickers_are_named(self, tmp_path):
        path = write(tmp_path / "kicks.csv", [[*GOOD, "Ann"], [*GOOD, " "]], (*NAMES, "success", "who"))
        known, refusals = read_known(path, Naming(kicker="who"))
        assert known.kickers == len(known) == 1
        assert [(each.line, each.reason) for each in refusals] == [(3, "who is missing")]

    def test_wind_in_metres_a_second_is_converted_and_then_checked(self, tmp_path):
        rows = [GOOD, [*GOOD[:3], 14, *GOOD[4:]]]
        known, refusals = read_known(write(tmp_path / "kicks.csv", rows), Naming(wind_in_ms=True))
        assert known.matrix[:, INDEX["wind_speed"]].tolist() == [18.0]
        assert refusals[0].reason.startswith("wind_speed 14 m/s is 50.4 km/h: must be")

    def test_what_is_no_feature_can_not_be_renamed(self):
        with pytest.raises(DataError, match="moon is no feature of a kick; the features are time_norm"):
            Naming(columns={"moon": "x"})

    def test_without_outcomes_nothing_can_be_learnt(self, tmp_path):
        path = write(tmp_path / "kicks.csv", [GOOD[:-1]], NAMES)
        with pytest.raises(DataError, match="no column success or outcome or is_successful: name it with"):
            read_known(path, Naming())

    def test_the_digest_knows_the_same_kicks_in_another_order(self):
        known = known_of(300, 1)
        assert known.take(np.arange(300)[::-1]).digest() == known.digest()
        assert known.take(np.arange(299)).digest() != known.digest()


class TestChecks:
    def warned(self, known):
        return " | ".join(check(known, []).warnings)

    def test_simulated_kicks_are_nothing_odd(self):
        findings = check(known_of(2_000, 1), [])
        assert findings.warnings == []
        assert (findings.kicks, findings.duplicates, findings.kickers) == (2_000, 0, None)
        assert findings.columns["distance"].low < findings.columns["distance"].mean < 60

    @pytest.mark.parametrize(
        ("name", "change", "warning"),
        [
            ("wind_speed", lambda x: x / 3.6, "looks like m/s, not km/h"),
            ("wind_speed", lambda x: x * 0, "wind_speed is always 0"),
            ("angle", np.radians, "looks like radians"),
            ("time_norm", lambda x: np.where(x > 0.7, 1, x), "time_norm is 1 in 3"),
            ("angle", lambda x: np.minimum(x + 40, 90), "beyond the touchline"),
        ],
    )
    def test_what_is_odd_is_said(self, name, change, warning):
        known = known_of(2_000, 1)
        known.matrix[:, INDEX[name]] = change(known.matrix[:, INDEX[name]])
        assert warning in self.warned(known)

    def test_kicks_that_stand_there_twice_are_counted(self):
        known = known_of(2_000, 1).take(np.r_[:2_000, :100])
        assert check(known, []).duplicates == 100
        assert "100 kicks are the same as an earlier one" in self.warned(known)

    def test_few_kicks_are_warned_of_and_too_few_refused_with_the_number_needed(self):
        assert "300 kicks are few" in self.warned(known_of(300, 1))
        with pytest.raises(DataError, match=f"199 kicks that can be used, and training needs {FEWEST}"):
            check(known_of(199, 1), [])
        known = known_of(400, 1)
        few = known.take(np.r_[np.flatnonzero(known.success), np.flatnonzero(~known.success)[:20]])
        with pytest.raises(DataError, match=r"20 misses among .* training needs 50"):
            check(few, [])
        same = known.take(np.r_[np.arange(400) % 40, :40])
        with pytest.raises(DataError, match=r"40 different kicks among 440, and training needs 50"):
            check(same, [])
        with pytest.raises(DataError, match=r"9 kickers, .* needs 10: leave --kicker out"):
            check(of_kickers(9, 50, 1), [])

    def test_the_domain_is_where_the_kicks_lie(self):
        domain = domain_of(simulate(20_000, 1).matrix)
        assert set(domain) <= {"distance", "angle", "wind_speed"}
        assert 5 < domain["distance"][0] < 12
        assert 50 < domain["distance"][1] < 65


class TestFolds:
    @given(st.lists(st.integers(0, 30), min_size=40, max_size=200), st.integers(2, 6), st.integers(0, 9))
    def test_a_group_is_never_divided(self, numbers, count, seed):
        groups = np.unique(numbers, return_inverse=True)[1]
        folds = folds_of(groups, count, seed)
        assert all(len(np.unique(folds[groups == group])) == 1 for group in np.unique(groups))
        assert set(folds.tolist()) <= set(range(count))
        assert np.array_equal(folds, folds_of(groups, count, seed))

    def test_folds_are_about_as_large(self):
        folds = folds_of(groups_of(known_of(1_000, 1)), 5, 0)
        assert np.bincount(folds).tolist() == [200] * 5

    def test_equal_kicks_belong_together(self):
        known = known_of(300, 1).take(np.r_[:300, :300])
        groups = groups_of(known)
        assert np.array_equal(groups[:300], groups[300:])

    def test_a_sample_has_whole_groups(self):
        groups = np.repeat(np.arange(50), 10)
        chosen = sample_of(groups, 105, 3)
        assert len(chosen) == 100
        assert sorted(np.bincount(groups[chosen]).tolist())[-10:] == [10] * 10
        assert len(sample_of(groups, 500, 3)) == 500
