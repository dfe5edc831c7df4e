"""Logs: JSON where no terminal is, with the request's id, and never a key or a kick."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager

import httpx
import psutil
import pytest
from serving import BARE, serving

from kickserve import logs
from kickserve.middleware import request_context
from kickserve.settings import Settings


@pytest.fixture
def said(capsys):
    """What has been logged to the standard error; all of logging is as before when the test ends."""
    root, kept = logging.getLogger(), logging.getLogger().handlers[:]
    level, ours = root.level, logging.getLogger("kickserve").level
    yield lambda: capsys.readouterr().err
    logging.captureWarnings(capture=False)
    root.handlers[:] = kept
    root.setLevel(level)
    logging.getLogger("kickserve").setLevel(ours)


def test_a_line_is_a_document_with_level_worker_key_and_request(said):
    logs.configure(Settings(), worker=2)
    with request_context(b"abc", "scoreboard"):
        logging.getLogger("kickserve.x").warning("%d bytes of %s", 7, "l\udc82éa.csv")
    logging.getLogger("kickserve.x").info("after")
    logging.getLogger("kickserve.x").debug("unheard")
    first, second = map(json.loads, said().splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "7 bytes of l\udc82éa.csv",
        "level": "warning",
        "logger": "kickserve.x",
        "worker": 2,
        "request_id": "abc",
        "key": "scoreboard",
    }
    assert not {"request_id", "key"} & second.keys()


def failing(key):
    raise ValueError(len(key))


def test_a_traceback_shows_no_values(said):
    logs.configure(Settings())
    try:
        failing("sesame")
    except ValueError:
        logging.getLogger("kickserve").exception("it failed")
    [line] = said().splitlines()
    assert "Traceback" in json.loads(line)["exception"]
    assert "failing" in line
    assert "sesame" not in line.replace('failing(\\"sesame\\")', "")


def test_console_logs_have_colours_in_a_terminal_alone(said, monkeypatch):
    logs.configure(Settings(log="console"))
    logging.getLogger("kickserve").warning("plain")
    assert "plain" in (text := said())
    assert "\x1b" not in text
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    logs.configure(Settings())
    logging.getLogger("kickserve").warning("bright")
    assert "\x1b" in said()


@pytest.mark.usefixtures("said")
def test_a_closed_pipe_stops_nothing(monkeypatch):
    logs.configure(Settings())

    def broken(_):
        raise BrokenPipeError

    monkeypatch.setattr(sys.stderr, "write", broken)
    logging.getLogger("kickserve").warning("unheard")


@contextmanager
def logging_json(folder, *options, **environment):
    """Run `kickserve serve` for a machine; yields the process, and its lines on both streams, decoded."""
    command = [sys.executable, "-m", "kickserve", "serve", "--port", "0", *options]
    environment = {**os.environ, **BARE, "KICKSERVE_LOG": "json", **environment}
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, **both) as process:
        yield process, map(json.loads, process.stdout)


def up_to(event, lines):
    """Yield lines up to the first one of an event."""
    for line in lines:
        yield line
        if line["event"].startswith(event):
            return


@pytest.mark.parametrize("workers", ["1", "2"])
def test_for_a_machine_every_line_is_a_document_from_the_start_to_the_end(tmp_path, workers):
    with logging_json(tmp_path, "--workers", workers) as (process, coming):
        lines = [*up_to("kickserve is ready", coming)]
        if workers == "2":
            psutil.Process(process.pid).children()[0].kill()
            lines += up_to("started: ", coming)  # another one replaces it
        process.send_signal(signal.SIGTERM)
        lines += coming
    assert process.returncode == 0, lines
    [ready] = [line for line in lines if line["event"] == "kickserve is ready"]
    assert httpx.URL(ready["API"]).path == "/api/v1"
    assert all({"event", "level", "logger", "timestamp"} <= set(line) for line in lines)
    assert sum("signal 9" in line["event"] for line in lines) == int(workers) - 1
    assert lines[-1]["event"] == "stopped"


@pytest.mark.parametrize(
    ("options", "environment", "code", "words"),
    [
        ((), {"KICKSERVE_PORT": "many"}, 2, "KICKSERVE_PORT='many' can't be used"),
        ((), {"KICKSERVE_MODEL": "missing.json"}, 2, "missing.json"),
        (("--host", "0.0.0.0"), {}, 2, "set API_KEY"),
        (("--workers", "2"), {"DATABASE_URL": "oracle://x"}, 2, "which no loaded plugin supports"),
    ],
)
def test_for_a_machine_what_is_refused_at_the_start_is_a_document(
    tmp_path, options, environment, code, words
):
    with logging_json(tmp_path, *options, **environment) as (process, coming):
        lines = [*coming]
    assert process.returncode == code
    assert words in lines[-1]["event"]
    assert {"level", "logger", "timestamp"} <= lines[-1].keys()


@pytest.mark.usefixtures("said")
def test_for_a_machine_a_bug_at_the_start_is_a_document_with_its_traceback(monkeypatch, kickserve):
    def broken(settings):
        warnings.warn("an old call", stacklevel=1)
        raise ZeroDivisionError(len(settings.host))

    monkeypatch.setenv("KICKSERVE_LOG", "json")
    monkeypatch.setattr("kickserve.commands.discover", broken)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, err = kickserve("serve")
    warned, failed = map(json.loads, err.splitlines())
    assert (code, "an old call" in warned["event"]) == (1, True)
    assert "ZeroDivisionError: 9" in failed["exception"]


@pytest.mark.parametrize("variable", ["DEBUG", "KICKSERVE_ACCESS_LOG"])
def test_a_server_logs_requests_with_their_ids_and_neither_keys_nor_kicks(tmp_path, kick, variable):
    kick = {**kick, "distance": 41.8765, "angle": 33.4567}
    bad = {**kick, "wind_speed": 4321.25}
    variables = {"API_KEY": "open-sesame", variable: "1", "KICKSERVE_PROFILE_EVERY": "0"}
    with serving(tmp_path, **variables, KICKSERVE_WORKERS="2") as server:
        for key in ("open-sesame", "wrong-barley"):
            for path, body in [("predict", kick), ("predict", bad), ("predict/batch", [kick, bad])]:
                httpx.post(f"{server.url}/{path}", json=body, headers={"X-API-Key": key})
        httpx.get(f"{server.url}/health", headers={"X-Request-ID": "find-me"})
        server.process.send_signal(signal.SIGHUP)  # loads the model anew, and logs it
        assert server.end() == 0
    lines = [json.loads(line) for line in server.log]
    assert all({"event", "level", "logger", "timestamp"} <= set(line) for line in lines)
    [line] = [line for line in lines if line.get("request_id") == "find-me"]
    assert "GET /api/v1/health" in line["event"]
    assert sum('"POST /api/v1/predict HTTP/1.1" 200' in line["event"] for line in lines) == 1
    for word in ("started: kickserve", "stopped"):
        assert {line["worker"] for line in lines if line["event"].startswith(word)} == {1, 2}
    refused = [line["event"] for line in lines if line["event"].startswith("Unauthorized")]
    assert 1 <= len(refused) <= 3
    assert refused[0].startswith("Unauthorized, from 127.0.0.1: the key in X-API-Key or Authorization: ")
    text = "".join(server.log)
    for secret in ("sesame", "barley", "41.8765", "33.4567", "4321.25"):
        assert secret not in text
