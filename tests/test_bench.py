"""The arithmetic of the benchmark: what wrk says, medians, ratios, counts. Needs neither wrk nor peers."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from kickserve.openapi import EXAMPLE
from ops.bench import figures, processes, report, wrk
from ops.bench.figures import Measurement, Tally
from ops.bench.peers import bare

SAID = """Running 4s test @ http://127.0.0.1:7860/predict
  1 threads and 32 connections
Requests/sec:   5000.00

{"requests": 20000, "seconds": 4.000000, "refused": 1, "socket_errors": 2, "timeouts": 3, "p50_ms": 1.5, \
"p90_ms": 2.0, "p99_ms": 3.25, "max_ms": 40.0}
"""


def measured(server="kickserve", connections=32, **given):
    rest = dict.fromkeys(figures.FIGURES, 1.0)
    return Measurement(server=server, connections=connections, **{"round": 1, **rest, **given})


def test_the_json_among_the_words_of_wrk_is_read():
    load = wrk.parse(SAID)
    assert (load.requests, load.seconds, load.p99_ms) == (20_000, 4, 3.25)
    assert load.errors == 6


def test_words_without_json_are_an_error_that_shows_them():
    with pytest.raises(ValueError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:7860 Connection refused\n")


def test_without_wrk_one_is_told_how_to_install_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match=r"apt-get install wrk.*brew install wrk"):
        wrk.find()


def test_medians_are_taken_by_server_and_connections():
    rounds = [measured(round=number, throughput=rate) for number, rate in enumerate([10.0, 30.0, 20.0], 1)]
    found = figures.medians([*rounds, measured(connections=1, throughput=5.0)])
    assert found["kickserve", 32]["throughput"] == 20
    assert found["kickserve", 1]["throughput"] == 5


def test_a_ratio_is_taken_within_each_round_so_that_a_slow_round_changes_nothing():
    machine = {1: 1.0, 2: 0.1, 3: 1.0}  # in the second round others had the machine
    turns = [
        measured(server, round=number, throughput=rate * speed, p99_ms=1.0)
        for number, speed in machine.items()
        for server, rate in (("kickserve", 600.0), ("bare", 1_000.0))
    ]
    found = {each.goal.text: each for each in figures.ratios(turns)}
    throughput = found["kickserve / bare, throughput"]
    assert throughput.lowest == pytest.approx(throughput.highest) == pytest.approx(0.6)
    assert throughput.met
    assert set(found) == {"kickserve / bare, throughput", "kickserve / bare, p99"}, (
        "the rest was not measured"
    )


@pytest.mark.parametrize(("value", "met"), [(0.49, False), (0.5, True)])
def test_a_goal_of_at_least(value, met):
    [goal] = [each for each in figures.GOALS if each.text == "kickserve / bare, throughput"]
    assert goal.met(value) is met
    assert goal.wanted == "at least 0.5"


@pytest.mark.parametrize(("value", "met"), [(3, True), (3.1, False)])
def test_a_goal_of_at_most(value, met):
    [goal] = [each for each in figures.GOALS if each.text == "kickserve / bare, p99"]
    assert goal.met(value) is met
    assert goal.wanted == "at most 3"


@pytest.mark.parametrize(
    ("stored", "agrees"), [(99, False), (100, True), (132, True), (133, False), (None, True)]
)
def test_only_what_was_cut_off_may_be_stored_beyond_what_was_answered(stored, agrees):
    tally = Tally("kickserve", stored=stored)
    tally.add(60, cut=16)
    tally.add(40, cut=16)
    assert tally.agrees is agrees
    assert tally.passed is agrees


def test_a_failed_request_fails_the_run_though_the_counts_agree():
    tally = Tally("bare")
    tally.add(100, errors=1)
    assert tally.agrees
    assert not tally.passed


def test_tallies_of_rounds_are_added_up():
    rounds = [Tally("kickserve", 10, 2, 11), Tally("bare", 50), Tally("kickserve", 20, 2, 20)]
    assert figures.merge(rounds) == [Tally("kickserve", 30, 4, 31), Tally("bare", 50)]


def test_a_loss_in_one_round_does_not_vanish_in_what_others_have_too_many():
    [total] = figures.merge([Tally("kickserve", 10, 5, 9), Tally("kickserve", 10, 5, 12)])
    assert not total.agrees


def test_the_report_has_every_server_and_its_plot_is_well_formed():
    turns = [
        measured(server, connections, throughput=rate * connections)
        for server, rate in (("bare", 900.0), ("kickserve", 500.0), ("fastapi", 8.0))
        for connections in (1, 32)
    ]
    run = report.Run(
        surroundings={
            "date": "2026-11-24",
            "cpu": "a CPU",
            "pinning": processes.Cores(None, None).note,
            "rounds": 1,
            "seconds": 1,
            "versions": {"Python": "3.11"},
        },
        servers={"bare": "the least", "kickserve": "ours", "fastapi": "a peer"},
        measurements=turns,
        tallies=[Tally("kickserve", 10, 2, 9)],
        failures=["kickserve: 10 answered, 9 stored"],
    )
    text = report.markdown(run)
    assert "| kickserve | 500 | 16,000 |" in text
    assert "| kickserve / fastapi, throughput | 62.5 |" in text
    assert "- kickserve: 10 answered, 9 stored" in text
    svg = ET.fromstring(report.plot(run))  # noqa: S314  it is our own
    names = [each.text for each in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"bare", "kickserve", "fastapi", "1", "32"} <= {*names}
    assert [each["server"] for each in run.as_dict()["medians"]][::2] == ["bare", "kickserve", "fastapi"]


def test_servers_are_told_nothing_by_the_surroundings_but_what_the_benchmark_says(monkeypatch):
    monkeypatch.setenv("KICKSERVE_JOURNAL", "fsync")
    monkeypatch.setenv("API_KEY", "another")
    found = processes.environment(API_KEY="ours")
    assert found["API_KEY"] == "ours"
    assert "KICKSERVE_JOURNAL" not in found
    assert "PATH" in found


def test_where_servers_can_be_pinned_they_have_a_core_of_their_own():
    cores = processes.cores()
    assert (cores.server is None) == (cores.load is None)
    assert cores.server is None or cores.server != cores.load
    assert replace(cores, server=None).note.endswith("nothing is pinned")


async def test_the_bare_server_answers_as_many_bytes_as_a_prediction_has(client):
    answer = await client.post("/predict", json=EXAMPLE)
    assert abs(len(answer.content) - len(bare.ANSWER)) <= 12  # digits of a float may be fewer
