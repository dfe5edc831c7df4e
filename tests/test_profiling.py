"""Profiles of the running process, over HTTP and from the terminal, and of requests."""

from __future__ import annotations

import asyncio
import json
import os
import pstats
import re
import subprocess
import sys

import httpx
import psutil
import pytest
import yappi
from conftest import configured
from litestar import get
from litestar.params import FromQuery
from serving import eventually, serving, until

from kickserve import app as app_module
from kickserve.cli import run
from kickserve.plugins import Plugin, discover
from kickserve.settings import Settings
from kickserve_profiling.formats import FORMATS, callgrind, speedscope
from kickserve_profiling.profile import WAITING, calls_of, correct, label, read
from kickserve_profiling.profiler import LIFETIME, MOST, PROFILER

SHORT = "/profile?seconds=0.3"


def functions(profile):
    return {name.rpartition(".")[2] for _, _, name in calls_of(profile)}


# The running process.


async def under_load(client, kick, path):
    answer = asyncio.create_task(client.post(path))
    await eventually(yappi.is_running)
    while not answer.done():
        await client.post("/predict", json=kick)
        await asyncio.sleep(0)
    return answer.result()


@pytest.mark.parametrize(("form", "clock"), [("pstat", "cpu"), ("callgrind", "wall"), ("speedscope", "wall")])
async def test_a_profile_of_the_process_is_a_file_of_its_format(client, kick, form, clock, tmp_path):
    response = await under_load(client, kick, f"{SHORT}&format={form}&clock={clock}")
    assert response.headers["content-type"].startswith(FORMATS[form].media_type)
    assert response.headers["content-disposition"].endswith(f'{FORMATS[form].suffix}"')
    assert not yappi.is_running()
    if form == "pstat":
        (tmp_path / "file").write_bytes(response.content)
        assert "_answer_to" in functions(pstats.Stats(str(tmp_path / "file")))
    else:
        assert b"/kickserve/" in response.content


async def test_one_profile_at_a_time(client):
    first = asyncio.create_task(client.post(SHORT))
    await eventually(yappi.is_running)
    refused = await client.post(SHORT)
    assert refused.status_code == 409
    assert "another profile of this process" in refused.json()["detail"]
    assert refused.headers["retry-after"]
    assert (await first).status_code == 200
    assert (await client.post(SHORT)).status_code == 200


@pytest.mark.parametrize("query", ["seconds=0", "seconds=61", "seconds=x", "format=gif", "clock=sun"])
async def test_a_query_out_of_range_is_refused(client, query):
    assert (await client.post(f"/profile?{query}")).status_code == 422


async def test_the_format_svg_of_earlier_versions_names_the_others_and_their_tools(client):
    answer = await client.post("/profile?format=svg")
    assert answer.status_code == 422
    for wanted in ("pstat", "snakeviz", "callgrind", "speedscope draws its flame graph"):
        assert wanted in answer.json()["detail"]


@pytest.mark.slow
def test_a_service_that_ends_meanwhile_still_answers_the_command(tmp_path):
    with serving(tmp_path, API_KEY="sesame") as server:
        base = str(httpx.URL(server.url).copy_with(path=""))
        command = [sys.executable, "-m", "kickserve", "profile", "--url", base, "--seconds", "50"]
        asked = subprocess.Popen(
            [*command, "--output", "found.json"],
            cwd=tmp_path,
            env={"API_KEY": "sesame"},
            stderr=subprocess.PIPE,
        )
        process = psutil.Process(server.process.pid)
        # The first profile has begun where yappi is loaded.
        until(lambda: any("_yappi" in each.path for each in process.memory_maps()))
        assert server.end() == 0
        assert asked.wait(60) == 0
        assert b"wrote found.json" in asked.stderr.read()
        asked.stderr.close()
    assert json.loads((tmp_path / "found.json").read_bytes())["profiles"]


def test_the_command_says_that_no_service_answers(capsys):
    assert run(["profile", "--url", "http://127.0.0.1:9", "--seconds", "1"]) == 6
    assert "no service answers" in capsys.readouterr().err


# A profile with known seconds: `a` calls `b` (6 s) and `c` (2 s); `b` calls `c` (4 s); `d` calls itself.

A, B, C, D = (
    ("/x/kickserve/a.py", 1, "a"),
    ("/x/b.py", 2, "b"),
    ("~", 0, "<c>"),
    ("/x/site-packages/d.py", 9, "d"),
)


@pytest.fixture
def made():
    holder = type("Made", (), {"create_stats": lambda _: None})()
    holder.stats = {
        A: (1, 1, 2.0, 10.0, {}),
        B: (3, 3, 2.0, 6.0, {A: (3, 3, 2.0, 6.0)}),
        C: (9, 9, 6.0, 6.0, {A: (3, 3, 2.0, 2.0), B: (6, 6, 4.0, 4.0)}),
        D: (5, 1, 1.0, 1.0, {D: (4, 4, 0.5, 0.5)}),
    }
    return pstats.Stats(holder)


def stacks_in(document):
    [profile] = document["profiles"]
    names = [frame["name"] for frame in document["shared"]["frames"]]
    stacks = [tuple(names[at] for at in stack) for stack in profile["samples"]]
    assert profile["endValue"] == pytest.approx(sum(profile["weights"]))
    return dict(zip(stacks, profile["weights"], strict=True))


def test_speedscope_gets_each_second_once(made):
    a, b, c, d = map(label, (A, B, C, D))
    found = stacks_in(json.loads(speedscope(made, "made")))
    assert found == {(a,): 2.0, (a, b): 2.0, (a, b, c): 4.0, (a, c): 2.0, (d,): 1.0}
    calls_of(made)[A] = (1, 1, 2.0, 10.0, {C: (1, 1, 2.0, 10.0)})  # a recursion
    assert stacks_in(json.loads(speedscope(made, "recursion")))
    calls_of(made).clear()
    assert stacks_in(json.loads(speedscope(made, "nothing"))) == {}


def test_callgrind_has_the_costs_of_each_function_and_of_its_calls(made):
    calls_of(made)[("~", 0, "odd\nname\t")] = (1, 1, 0.0, 0.0, {})
    head, *blocks = callgrind(made, "a\nb").decode().split("\n\n")
    assert head.splitlines()[-1] == "summary: 11000000000"
    assert "cmd: a b" in head
    assert blocks[0].splitlines() == [
        "fl=(1) /x/kickserve/a.py",
        "fn=(1) a",
        "1 2000000000",
        *("cfi=(2) /x/b.py", "cfn=(2) b", "calls=3 2", "1 6000000000"),
        *("cfi=(3) ~", "cfn=(3) <c>", "calls=3 0", "1 2000000000"),
    ]
    assert blocks[-1].splitlines() == ["fl=(3)", "fn=(5) odd name", "0 0"]


def test_waiting_is_taken_from_own_seconds_and_generators_have_none(made):
    calls = calls_of(correct(made, {B[:2]: (3, 1.5), D[:2]: (1, 99.0)}, {A[:2]}, set()))
    assert calls[B][2:4] == (0.5, 6.0)
    assert calls[B][4][A] == (3, 3, 0.5, 6.0)
    assert calls[D][2] == 0.0
    assert calls[WAITING][:4] == (4, 4, 2.5, 2.5)
    assert calls[A][2:4] == (0.0, 8.0), "of an asynchronous generator only the calls are known"


@pytest.fixture
def written(made, tmp_path):
    made.dump_stats(str(tmp_path / "made.pstat"))
    return str(tmp_path / "made.pstat")


@pytest.mark.parametrize(("name", "begins"), [("f.json", "{"), ("f.callgrind", "# callgrind")])
def test_show_prints_a_table_and_writes_for_other_tools(tmp_path, capsys, monkeypatch, written, name, begins):
    monkeypatch.setenv("COLUMNS", "120")
    assert run(["profile", "show", written, "--top", "2", "--flame", str(tmp_path / name)]) == 0
    out = capsys.readouterr().out
    assert "kickserve/a.py:1 a" in out
    assert "x/b.py:2 b" not in out
    assert "4 functions, 11.00 s altogether" in out
    assert (tmp_path / name).read_text().startswith(begins)
    assert run(["profile", "show", written, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == {"name": "<c> (~)", "calls": 9, "own": 6.0, "total": 6.0}


def test_show_without_a_file_takes_the_newest_profile_here_or_of_requests(tmp_path, capsys, made):
    assert run(["profile", "show"]) == 2
    assert "there is no profile here or in profiles" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "profiles").mkdir()
    for age, name in ((3, "old.pstat"), (1, "profiles/new.pstat"), (2, "profiles/older.pstat")):
        made.dump_stats(name)
        os.utime(name, (1e9 - age, 1e9 - age))
    assert run(["profile", "show"]) == 0
    out, err = capsys.readouterr()
    assert "the newest profile is profiles/new.pstat" in err
    assert "kickserve/a.py:1 a" in out


@pytest.mark.parametrize("content", [b"", b"nothing", b"{\xe9\x01\x00\x00\x00i\x01\x00\x00\x000"])
def test_show_refuses_a_file_that_is_no_profile(tmp_path, capsys, content):
    (tmp_path / "no.pstat").write_bytes(content)
    assert run(["profile", "show", str(tmp_path / "no.pstat")]) == 2
    assert "is no profile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("f.svg", ".json (speedscope draws its flame graph)"), ("no/f.json", "can't be written")],
)
def test_show_says_which_files_can_be_written(tmp_path, capsys, written, name, wanted):
    assert run(["profile", "show", written, "--flame", str(tmp_path / name)]) == 2
    assert wanted in " ".join(capsys.readouterr().err.split())


# Requests.


@pytest.fixture
def profiles(tmp_path):
    return tmp_path / "profiles"


@pytest.fixture
def profiling(settings, profiles):
    return configured(settings, KICKSERVE_PROFILE_EVERY="1", KICKSERVE_PROFILE_DIR=str(profiles))


async def settled(number, folder):
    """Wait until there are so many profiles, and read them by the endpoint's name."""
    await eventually(lambda: len([*folder.glob("*.callgrind")]) >= number)
    return [read(file.with_suffix(".pstat")) for file in sorted(folder.glob("*.callgrind"))]


def call_of(profile, wanted):
    [call] = [call for (_, _, name), call in calls_of(profile).items() if name == wanted]
    return call


@pytest.mark.parametrize(
    ("given", "profiled"),
    [
        ({}, False),
        ({"DEBUG": "1"}, True),
        ({"KICKSERVE_PROFILE_EVERY": "100"}, True),
        ({"DEBUG": "1", "KICKSERVE_PROFILE_EVERY": "0"}, False),
    ],
)
def test_requests_are_profiled_in_development_or_where_asked_for(given, profiled):
    [plugin] = discover(configured(Settings(), KICKSERVE_PLUGINS="profiling", **given))[-1:]
    assert (plugin.wrap(plugin) is not plugin) is profiled


async def test_a_prediction_has_a_profile_that_its_answer_names(start, profiling, profiles, kick):
    client = await start(profiling)
    response = await client.post("/predict", json=kick, headers={"X-Request-ID": "abc"})
    assert float(response.headers["x-process-time"]) > 0
    name = response.headers["x-profile"]
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{6}Z-POST-api-v1-predict-abc", name)
    [profile] = await settled(1, profiles)
    assert {file.name for file in profiles.iterdir()} == {f"{name}.pstat", f"{name}.callgrind"}
    assert "_answer_to" in functions(profile)
    files = {file for file, _, _ in calls_of(profile)}
    assert not any("kickserve_profiling" in file for file in files), "the profiler does not show itself"


async def test_some_requests_are_not_profiled(start, profiling, kick):
    client = await start(configured(profiling, KICKSERVE_PROFILE_EVERY="2"))
    for value in ("1", "true"):
        response = await client.post("/predict", json=kick, headers={"X-Skip-Profiling": value})
        assert "x-profile" not in response.headers
        assert "x-process-time" in response.headers
    assert "x-profile" not in (await client.get("/health")).headers
    assert "x-process-time" not in (await client.get("http://test/docs")).headers
    answers = [await client.post("/predict", json=kick, headers={"X-Skip-Profiling": "0"}) for _ in range(6)]
    assert ["x-profile" in answer.headers for answer in answers] == [True, False] * 3


async def test_a_profile_of_the_process_goes_first(start, profiling, kick):
    client = await start(profiling)
    long = PROFILER.begin()
    whole = asyncio.create_task(client.post(SHORT))
    await eventually(lambda: PROFILER.request_of(long.tag) is None)
    assert "x-profile" not in (await client.post("/predict", json=kick)).headers
    assert (await whole).status_code == 200
    assert PROFILER.end(long) is None
    assert "x-profile" in (await client.post("/predict", json=kick)).headers


class Busy(Plugin):
    """Calls whose work and waits are known."""

    def on_app_init(self, app_config):
        app_config.route_handlers.append(answer)
        return app_config


def step():
    pass


def thread_step():
    pass


def repeat(function, number):
    for _ in range(number):
        function()


@get("/api/busy")
async def answer(number: FromQuery[int]) -> str:
    async def part() -> None:
        repeat(step, number)
        await asyncio.sleep(0.01)

    await part()
    await asyncio.gather(part(), part())
    await asyncio.to_thread(repeat, thread_step, number)
    return ""


@pytest.fixture
async def busy(start, profiling, monkeypatch):
    load = app_module.discover
    monkeypatch.setattr(app_module, "discover", lambda settings: [*load(settings), Busy(Settings())])
    return await start(profiling)


async def test_of_interleaved_requests_each_file_holds_its_own_alone(busy, profiles, kick):
    sizes = (1, 10, 100)
    await asyncio.gather(
        *(busy.get("http://test/api/busy", params={"number": number}) for number in sizes),
        busy.post("/predict", json=kick),
        busy.get("/model"),
    )
    found = await settled(5, profiles)
    assert sum("_answer_to" in functions(profile) for profile in found) == 1
    theirs = [each for each in found if "step" in functions(each)]
    assert not any("_answer_to" in functions(each) for each in theirs)
    # Known by the request: the work of the request itself, and of its two tasks.
    assert sorted(call_of(each, "step")[0] for each in theirs) == [3, 30, 300]
    # Of a thread that has just been started yappi may miss calls; it gives them to no other request.
    for each in found:
        if "thread_step" in functions(each):
            assert call_of(each, "thread_step")[0] * 3 == call_of(each, "step")[0]


async def test_waiting_is_separate_from_working(busy, profiles):
    await busy.get("http://test/api/busy", params={"number": 5})
    [profile] = await settled(1, profiles)
    calls = calls_of(profile)
    count, _, own, total, callers = calls[WAITING]
    assert own == total == pytest.approx(sum(each[3] for each in callers.values()))
    assert count >= 3
    # What a coroutine waited is no longer its own: its own seconds and its calls are all that it took.
    [sleep] = [function for function in callers if function[2] == "sleep"]
    assert callers[sleep][0] == 3
    called = sum(above[sleep][3] for *_, above in calls.values() if sleep in above)
    assert calls[sleep][2] + called == pytest.approx(calls[sleep][3])


async def test_a_stream_has_the_waits_of_its_tasks(start, profiling, profiles, kick):
    client = await start(profiling)
    await client.post("/predict", json=kick, headers={"X-Skip-Profiling": "1"})
    text = (await client.get("/predictions", headers={"Accept": "application/x-ndjson"})).text
    assert len(text.splitlines()) == 1
    [profile] = await settled(1, profiles)
    assert "SqliteStore.stream" in {name for _, _, name in calls_of(profile)}
    assert WAITING in calls_of(profile)


@pytest.mark.parametrize(
    ("limits", "left"), [({"KICKSERVE_PROFILE_KEEP": "3"}, 3), ({"KICKSERVE_PROFILE_MAX": "1"}, 1)]
)
async def test_the_oldest_profiles_are_removed_and_other_files_stay(
    start, profiling, profiles, kick, limits, left
):
    profiles.mkdir()
    (profiles / "mine.pstat").write_bytes(b"x" * 10**6)
    client = await start(configured(profiling, **limits))
    names = [(await client.post("/predict", json=kick)).headers["x-profile"] for _ in range(6)]
    await eventually((profiles / f"{names[-1]}.callgrind").exists)
    await eventually(lambda: not {file.stem for file in profiles.iterdir()} & {*names[:-left]})
    assert {file.stem for file in profiles.iterdir()} == {"mine", *names[-left:]}


async def test_a_folder_that_can_not_be_written_to_hurts_no_request(start, profiling, tmp_path, kick, caplog):
    (tmp_path / "file").write_text("")
    client = await start(configured(profiling, KICKSERVE_PROFILE_DIR="file/profiles"))
    for _ in range(3):
        assert (await client.post("/predict", json=kick)).status_code == 200
    await eventually(lambda: "profiles can't be written" in caplog.text)


async def test_a_request_without_end_blocks_others_only_for_a_while(monkeypatch):
    long = PROFILER.begin()
    for _ in range(MOST - 1):
        PROFILER.end(PROFILER.begin())
    assert PROFILER.begin() is None
    monkeypatch.setattr("kickserve_profiling.profiler.LONGEST", 0.0)
    another = PROFILER.begin()
    assert another is not None
    assert PROFILER.end(long) is None, "it has been dropped"
    assert PROFILER.end(another) is not None
    assert not yappi.is_running()


async def test_a_process_stops_profiling_before_yappi_takes_too_much_memory(monkeypatch, caplog):
    monkeypatch.setattr(PROFILER, "_ever", LIFETIME - 1)
    last = PROFILER.begin()
    assert [PROFILER.begin() for _ in range(3)] == [None] * 3
    PROFILER.end(last)
    assert caplog.text.count("restart the service") == 1
