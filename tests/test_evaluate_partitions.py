"""`kickserve evaluate` over many partitions: one pass, and the figures that one file on one machine gives."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from partitions import evaluate as run_evaluate
from partitions import folder_of, rounded, table_of, without_pictures

from kickserve.linear import load_default
from kickserve_data.kicks import Block, RefusedRow
from kickserve_data.simulate import simulate
from kickserve_drift.drift import reference_of
from kickserve_drift.findings import WIDTH, Findings
from kickserve_drift.kicks import parts_of
from kickserve_drift.sampling import Sample, quota


@pytest.fixture
def evaluate(capsys, monkeypatch):
    without_pictures(monkeypatch)
    return partial(run_evaluate, capsys)


def test_a_folder_has_the_figures_of_its_rows_in_one_file(evaluate, tmp_path):
    kicks = folder_of(tmp_path / "kicks", [2_500, 700], rows=400)
    pq.write_table(pa.concat_tables([pq.read_table(path) for path in sorted(kicks.iterdir())]), "one.parquet")
    code, folder, _ = evaluate(kicks)
    _, one, _ = evaluate("one.parquet")
    assert code == 0
    assert folder.pop("reference") == one.pop("reference")
    assert rounded(folder) == rounded(one)
    assert folder["kicks"] == 3_200
    assert folder["known"]["quality"]["count"] == 3_200


def test_refused_lines_are_counted_and_name_their_file(evaluate, tmp_path):
    kicks = folder_of(tmp_path / "kicks", [300, 300], rows=100)
    table = table_of(300, 1)
    distance = table["distance"].to_numpy().copy()
    distance[205] = np.nan
    at = table.column_names.index("distance")
    path = kicks / "kicks-1.parquet"
    pq.write_table(table.set_column(at, "distance", pa.array(distance)), path, row_group_size=100)
    code, report, _ = evaluate(kicks)
    assert (code, report["kicks"], report["refused"]) == (3, 599, 1)
    [refused] = report["refusals"]
    assert (refused["line"], refused["reason"][:36]) == (206, "kicks-1.parquet: distance is missing")
    [hole] = [each for each in report["holes"] if each["name"] == "distance"]
    assert hole["missing"] == 1 / 600


def test_what_can_not_be_read_is_named_and_no_report_made(evaluate, tmp_path):
    kicks = folder_of(tmp_path / "kicks", [300, 300], rows=100)
    path = kicks / "kicks-1.parquet"
    column = pq.read_metadata(path).row_group(1).column(1)
    content = bytearray(path.read_bytes())
    begins = column.dictionary_page_offset or column.data_page_offset
    content[begins : begins + 60] = b"\xff" * 60
    path.write_bytes(content)
    code, report, err = evaluate(kicks, "--retries", 0)
    assert (code, report) == (2, None)
    assert f"row group 1 of {path} can't be evaluated" in err


def test_too_few_kicks_are_too_few_in_a_folder_as_well(evaluate, tmp_path):
    assert evaluate(folder_of(tmp_path / "kicks", [20, 20]))[0] == 5
    empty = folder_of(tmp_path / "empty", [1])
    pq.write_table(table_of(1).slice(0, 0), empty / "kicks-0.parquet")
    assert evaluate(empty)[0] == 5


MODEL = load_default()
KICKS = simulate(300, 5)
OUTCOME = np.where(np.arange(300) % 5 == 0, np.nan, KICKS.success.astype(float))
ODD = np.full((2, 12), np.nan)


def found(parts, rows):
    """Evaluate rows in parts, each by itself, and put together what they came to."""
    whole = Findings(reference_of(MODEL), MODEL.card.domain, Sample(0, WIDTH, 0), rows)
    for part in parts:
        mine = Findings(reference_of(MODEL), MODEL.card.domain, Sample(9, WIDTH, 0), rows)
        refusals = [RefusedRow(7, "distance is missing")] * 2
        block = Block(np.flatnonzero(part), KICKS.matrix[part], OUTCOME[part], refusals, odd=ODD)
        for each in parts_of([block], MODEL):
            mine.add(each)
        whole.take(mine.share())
    return whole


@pytest.mark.parametrize("rows", [300, 10**9])
def test_any_split_into_partitions_gives_the_same_figures(rows):
    chosen = np.random.default_rng(0).integers(4, size=300)
    one, many = found([np.ones(300, dtype=bool)], rows), found([chosen == part for part in range(4)], rows)
    assert many.counts.cells == pytest.approx(one.counts.cells)
    assert many.known().quality.brier == pytest.approx(one.known().quality.brier)
    assert many.known().expected.auc.value == pytest.approx(one.known().expected.auc.value)
    assert many.open().log_loss.value == pytest.approx(one.open().log_loss.value)
    assert many.made_by == one.made_by
    assert (many.refused, one.refused) == (8, 2)
    assert one.counts.cells[:, 0] == pytest.approx(
        [*KICKS.matrix.sum(axis=0), MODEL.predict(KICKS.matrix).probability.sum()], rel=1e-9
    )


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=60), st.integers(1, 3_000))
def test_partitions_give_their_share_of_a_sample(rows, size):
    total = sum(rows)
    before = np.cumsum([0, *rows])
    shares = [quota(size, int(first), each, total) for first, each in zip(before, rows, strict=False)]
    assert sum(shares) == min(size, total)
    assert all(0 <= share <= each for share, each in zip(shares, rows, strict=True))


def test_a_sample_of_partitions_is_whole_where_all_rows_are_in_it():
    parts = [np.zeros((3, 2)), np.ones((2, 2))]
    assert Sample.gathered(parts, 5).whole
    assert not Sample.gathered(parts, 6).whole
    assert Sample.gathered(parts, 6).rows().tolist() == [[0, 0]] * 3 + [[1, 1]] * 2
