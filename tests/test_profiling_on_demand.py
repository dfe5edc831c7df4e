"""A profile of the running process: over HTTP, from the terminal, and what can be made of it."""

from __future__ import annotations

import asyncio
import json
import pstats
import subprocess
import sys
import time
from dataclasses import replace
from xml.etree import ElementTree as ET

import httpx
import psutil
import pytest
import yappi
from serving import serving

from kickserve.cli import run
from kickserve_profiling.calls import WAITING, Place, calls_of, named, part, tree
from kickserve_profiling.engine import ENGINE
from kickserve_profiling.formats import FORMATS, callgrind, speedscope, svg
from kickserve_profiling.waits import Wait

SHORT = "/profile?seconds=0.3"


async def under_load(client, kick, path):
    asked = asyncio.create_task(client.post(path))
    await asyncio.sleep(0.05)
    while not asked.done():
        await client.post("/predict", json=kick)
        await client.get("/model")
        await asyncio.sleep(0)  # the calls above wait for nothing
    return asked.result()


async def test_it_answers_with_what_the_process_did_meanwhile(client, kick, tmp_path):
    response = await under_load(client, kick, SHORT)
    assert response.status_code == 200
    assert response.headers["content-disposition"].endswith('.pstat"')
    (tmp_path / "file").write_bytes(response.content)
    profile = pstats.Stats(str(tmp_path / "file"))
    assert any(name.endswith("record_each") for _, _, name in calls_of(profile))
    assert not yappi.is_running()


@pytest.mark.parametrize("form", FORMATS)
async def test_each_format_has_its_media_type_and_name(client, kick, form):
    response = await under_load(client, kick, f"{SHORT}&format={form}&clock=wall")
    assert response.headers["content-type"].startswith(FORMATS[form].media_type)
    assert FORMATS[form].suffix in response.headers["content-disposition"]
    assert response.content


async def test_one_at_a_time(client):
    first = asyncio.create_task(client.post(SHORT))
    await asyncio.sleep(0.1)
    refused = await client.post(SHORT)
    assert refused.status_code == 409
    assert "being profiled already" in refused.json()["detail"]
    assert refused.headers["retry-after"]
    assert (await first).status_code == 200
    assert (await client.post(SHORT)).status_code == 200


@pytest.mark.parametrize("query", ["seconds=0", "seconds=61", "seconds=x", "format=gif", "clock=sun"])
async def test_a_query_that_does_not_fit_is_refused(client, query):
    assert (await client.post(f"/profile?{query}")).status_code == 422


async def test_where_there_is_a_key_it_is_needed(start, settings):
    client = await start(replace(settings, api_key="sesame"))
    assert (await client.post(SHORT)).status_code == 401
    assert (await client.post(SHORT, headers={"X-API-Key": "sesame"})).status_code == 200


async def test_it_goes_before_profiles_of_requests(start, settings, kick, tmp_path):
    client = await start(replace(settings, profile_every=1, profile_dir=tmp_path / "profiles"))
    long = ENGINE.begin()
    asked = asyncio.create_task(client.post(SHORT))
    await asyncio.sleep(0.1)
    assert "x-profile" not in (await client.post("/predict", json=kick)).headers
    assert (await asked).status_code == 200
    assert ENGINE.end(long) is None
    assert "x-profile" in (await client.post("/predict", json=kick)).headers


def asking(pid):
    """Whether somebody has a connection to this process."""
    return any(each.status == psutil.CONN_ESTABLISHED for each in psutil.Process(pid).net_connections())


def test_from_the_terminal_and_a_service_that_ends_meanwhile_still_answers(tmp_path):
    with serving(tmp_path, API_KEY="sesame") as server:
        base = str(httpx.URL(server.url).copy_with(path=""))
        command = [sys.executable, "-m", "kickserve", "profile", "--url", base, "--seconds", "50"]
        asked = subprocess.Popen(
            [*command, "--output", "found.svg"],
            cwd=tmp_path,
            env={"API_KEY": "sesame"},
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 20
        while not asking(server.process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        assert server.end() == 0
        assert asked.wait(30) == 0
        assert b"wrote found.svg" in asked.stderr.read()
        asked.stderr.close()
    assert b"<svg" in (tmp_path / "found.svg").read_bytes()


def test_where_no_service_answers_it_is_said(capsys):
    assert run(["profile", "--url", "http://127.0.0.1:9", "--seconds", "1"]) == 6
    assert "no service answers" in capsys.readouterr().err


A, B, C, D = (
    ("/x/kickserve/a.py", 1, "a"),
    ("/x/b.py", 2, "b"),
    ("~", 0, "<c>"),
    ("/x/site-packages/d.py", 9, "d"),
)


def made():
    """`a` calls `b` (6 s) and `c` (2 s); `b` calls `c` (4 s); `d` stands alone, and calls itself."""
    holder = type("Made", (), {"create_stats": lambda _: None})()
    holder.stats = {
        A: (1, 1, 2.0, 10.0, {}),
        B: (3, 3, 2.0, 6.0, {A: (3, 3, 2.0, 6.0)}),
        C: (9, 9, 6.0, 6.0, {A: (3, 3, 2.0, 2.0), B: (6, 6, 4.0, 4.0)}),
        D: (5, 1, 1.0, 1.0, {D: (4, 4, 0.5, 0.5)}),
    }
    return pstats.Stats(holder)


def test_the_tree_has_each_second_once():
    roots = tree(made())
    assert [(node.function, node.total, node.own) for node in roots] == [(A, 10.0, 2.0), (D, 1.0, 1.0)]
    [b, c] = roots[0].children
    assert (b.function, b.total, b.own) == (B, 6.0, 2.0)
    assert (c.function, c.total, b.children[0].total) == (C, 2.0, 4.0)


def test_the_flame_graphs_hold_the_same_seconds():
    document = json.loads(speedscope(made(), "made"))
    [profile] = document["profiles"]
    assert profile["endValue"] == sum(profile["weights"]) == pytest.approx(11.0)
    names = [frame["name"] for frame in document["shared"]["frames"]]
    stacks = {tuple(names[at] for at in stack) for stack in profile["samples"]}
    assert (named(A), named(B), named(C)) in stacks
    picture = ET.fromstring(svg(made(), "a < b & c"))  # noqa: S314  it is our own
    titles = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert f"{named(B)}: 6.00 s (54.5%), 2.00 s in itself" in titles
    assert "http" not in svg(made(), "").decode().replace("http://www.w3.org/2000/svg", ""), "opens offline"


def test_a_long_recursion_and_an_empty_profile_have_trees_too():
    profile = made()
    calls_of(profile)[A] = (1, 1, 2.0, 10.0, {C: (1, 1, 2.0, 10.0)})
    assert tree(profile)
    calls_of(profile).clear()
    assert tree(profile) == []
    assert svg(profile, "nothing").startswith(b"<svg")


def test_waiting_is_taken_from_the_own_time_and_generators_have_none():
    waits = {Place(B[0], 2): Wait(3, 1.5), Place(D[0], 9): Wait(1, 99.0)}
    calls = calls_of(part(made(), waits, {Place(A[0], 1)}, set()))
    assert calls[B][2:4] == (0.5, 6.0)
    assert calls[B][4][A] == (3, 3, 0.5, 6.0)
    assert calls[D][2] == 0.0
    assert calls[WAITING][:4] == (4, 4, 2.5, 2.5)
    assert calls[A][2:4] == (0.0, 8.0), "of an asynchronous generator only what it called is known"


def test_names_with_line_breaks_do_not_break_the_format():
    profile = made()
    calls_of(profile)[("~", 0, "odd\nname\t")] = (1, 1, 0.0, 0.0, {})
    assert "odd name" in callgrind(profile, "a\nb").decode()


def written(tmp_path):
    made().dump_stats(str(tmp_path / "made.pstat"))
    return str(tmp_path / "made.pstat")


@pytest.mark.parametrize(
    ("name", "begins"), [("f.svg", "<svg"), ("f.json", "{"), ("f.callgrind", "# callgrind")]
)
def test_show_prints_a_table_and_writes_flames(tmp_path, capsys, monkeypatch, name, begins):
    monkeypatch.setenv("COLUMNS", "120")
    assert run(["profile", "show", written(tmp_path), "--top", "2", "--flame", str(tmp_path / name)]) == 0
    out = capsys.readouterr().out
    assert "kickserve/a.py:1 a" in out
    assert "x/b.py:2 b" not in out
    assert "4 functions, 11.00 s altogether" in out
    assert (tmp_path / name).read_text().startswith(begins)


def test_show_writes_json(tmp_path, capsys):
    assert run(["profile", "show", written(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == {"name": "<c> (~)", "calls": 9, "own": 6.0, "total": 6.0}


def test_what_can_not_be_read_or_written_is_said(tmp_path, capsys):
    file = tmp_path / "no.pstat"
    for content in (b"", b"nothing", b"{\xe9\x01\x00\x00\x00i\x01\x00\x00\x000"):
        file.write_bytes(content)
        assert run(["profile", "show", str(file)]) == 2
        assert "is no profile" in capsys.readouterr().err
    assert run(["profile", "show", written(tmp_path), "--flame", str(tmp_path / "f.gif")]) == 2
    assert "may end with .pstat" in capsys.readouterr().err
    assert run(["profile", "show", written(tmp_path), "--flame", str(tmp_path / "no" / "f.svg")]) == 2
    assert "can't be written" in capsys.readouterr().err
