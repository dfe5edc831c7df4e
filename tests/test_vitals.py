"""The verdict of the long run: what it takes for growth, and what for the work of the machine."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "ops" / "chaos"))

import vitals
from vitals import Sample, Watched, thirds, verdicts

LEVEL = {
    "pss_mb": 120.0,
    "rss_mb": 130.0,
    "children": 0,
    "handles": 50,
    "threads": 9,
    "journal_bytes": 1000,
    "cores": {"service": 0.5},
    "rate": 1000.0,
    "p50_ms": 1.0,
    "p99_ms": 9.0,
    "bare_p99_ms": 3.0,
    "troubled": False,
}


def run(**changes):
    """Make a hundred samples, ten seconds apart; a change says what a sample shows by its number."""
    return [
        Sample(**{**LEVEL, "seconds": 10.0 * at, **{name: of(at) for name, of in changes.items()}})
        for at in range(100)
    ]


def failed(samples):
    return {each.what for each in verdicts(*thirds(samples, 200.0)) if not each.passed}


def test_a_run_in_which_nothing_changes_passes():
    assert failed(run()) == set()


@pytest.mark.parametrize(
    ("name", "grows"),
    [
        ("pss_mb", lambda at: 120 + at / 4),
        ("handles", lambda at: 50 + at // 10),
        ("threads", lambda at: 9 + at // 10),
        ("journal_bytes", lambda at: 10**6 + 10**5 * at),
    ],
)
def test_what_grows_all_the_time_fails(name, grows):
    assert failed(run(**{name: grows})) == {name}


def test_what_grew_during_the_warm_up_only_passes():
    assert failed(run(pss_mb=lambda at: min(at, 20) * 6, handles=lambda at: min(at, 20) * 3)) == set()


def test_pages_that_are_open_more_often_late_are_no_leak():
    assert failed(run(handles=lambda at: 68 if at % 3 == 0 or at % 2 == at // 60 else 46)) == set()


def test_a_leak_is_seen_below_pages_that_come_and_go():
    assert failed(run(handles=lambda at: (68 if at % 3 == 0 else 46) + at // 15)) == {"handles"}


def test_samples_of_an_outage_are_left_out():
    early, late = thirds(run(troubled=lambda at: at in (25, 90)), 200.0)
    assert [each.seconds for each in (early[0], early[-1], late[0], late[-1])] == [210, 460, 740, 990]
    assert not {250, 900} & {each.seconds for each in (*early, *late)}
    assert len(early) == len(late) == 25


@pytest.mark.parametrize(
    ("late", "bare", "passed"),
    [
        (124, 10, True),
        (126, 10, False),
        (240, 20, True),  # the bare app has become half as fast as well
        (260, 20, False),
        (124, 5, True),  # a bare app that has become faster asks nothing of the service
    ],
)
def test_times_may_grow_a_quarter_more_than_those_of_the_bare_app(late, bare, passed):
    samples = run(
        p99_ms=lambda at: 100 if at < 50 else late,
        bare_p99_ms=lambda at: 10 if at < 50 else bare,
    )
    assert failed(samples) == (set() if passed else {"p99_ms"})


def test_a_process_is_seen_with_its_files_threads_and_work(tmp_path):
    (tmp_path / "1.log").write_bytes(b"x" * 100)
    watched = Watched(os.getpid(), tmp_path, gone=lambda: 2**22)
    watched.look()
    with (tmp_path / "open").open("w"):
        before = time.process_time()
        while time.process_time() - before < 0.2:
            pass
        seen = watched.look()
    assert seen["handles"] == watched.look()["handles"] + 1
    assert seen["journal_bytes"] == 100
    assert seen["pss_mb"] > 10
    assert seen["cores"]["service"] > 0.1
    assert seen["cores"]["gone"] == 0


def test_a_line_of_bars_is_drawn_from_zero():
    assert vitals.sparkline([0, 4, 8]) == "▁▅█"
    assert vitals.sparkline([]) == ""
