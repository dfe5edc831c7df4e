"""What commands make of options that can't be meant: a word, and exit code 2, before any work."""

from __future__ import annotations

import pytest

from kickserve.cli import run


@pytest.fixture
def refused(capsys):
    """Run a command that is used wrongly, and return what it says."""

    def call(*arguments):
        assert run([*arguments]) == 2
        return capsys.readouterr().err

    return call


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize(
    "command",
    [
        ["batch", "--size", "5", "--rate"],
        ["batch", "--size", "5", "--min-distance"],
        ["health", "--timeout"],
        ["profile", "--seconds"],
        ["evaluate", "--psi"],
    ],
)
def test_a_number_that_is_none_is_refused(refused, command, number):
    assert command[-1] in refused(*command, number)


@pytest.mark.parametrize("url", ["moon", "ftp://example.org", "http://", "http://[::1", "http://a:b"])
@pytest.mark.parametrize(
    "command", [["health"], ["profile"], ["evaluate"], ["outcomes", "told.csv"], ["batch", "--size", "5"]]
)
def test_a_url_that_is_none_is_refused_before_it_is_asked(refused, command, url):
    said = refused(*command, "--url", url)
    assert url in said
    assert "http://HOST:PORT" in said


def test_auto_is_for_batch_alone(refused):
    assert "auto" in refused("health", "--url", "auto")


@pytest.mark.parametrize("hours", ["14:00", "14:00-25:00", "14:00-15:00-16:00", "14:00+02:00-15:00+02:00"])
def test_hours_that_are_none_are_refused(refused, hours):
    assert "14:00-22:30" in refused("batch", "--size", "5", "--between", hours)


def test_an_option_that_is_needed_is_named(refused):
    assert "--distance" in refused("predict", "--angle", "3")
    assert "--angle" in refused("predict", "--distance", "30")


def test_an_option_that_needs_data_is_named_in_full(refused):
    assert "--wind-in-ms needs DATA" in refused("train", "--wind-in-ms")
    assert "--column needs DATA" in refused("train", "--column", "distance=far")


def test_a_time_that_ends_before_it_begins_is_refused(refused):
    said = refused("export", "--output", "a.csv", "--since", "2026-02-01", "--until", "2026-01-01")
    assert "--until must be the later one" in said


def test_kicks_that_are_too_rare_are_not_waited_for(refused):
    assert "0 to 65 m" in refused("batch", "--size", "5", "--min-distance", "90")
    assert "range" in refused("batch", "--size", "5", "--min-distance", "-1")


def test_the_place_for_a_model_is_looked_at_before_training(refused):
    assert "there is no folder nowhere" in refused("train", "--output", "nowhere/model.json")
    assert "must end with .json" in refused("train", "kicks.csv", "--output", "kicks.csv")


def test_a_model_gets_no_name_that_it_could_not_be_loaded_with(refused):
    assert "take another --name" in refused("train", "kicks.csv", "--name", "two\nlines")


def test_answers_do_not_take_the_place_of_the_kicks(refused, tmp_path):
    kicks = tmp_path / "kicks.csv"
    kicks.write_text("distance,mine\n30,1\n")
    assert "name another file" in refused("batch", "kicks.csv", "--output", str(kicks))
    assert kicks.read_text() == "distance,mine\n30,1\n"
