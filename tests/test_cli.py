"""The command line: what commands print, keep and refuse, and how they end; batches are in test_batch."""

from __future__ import annotations

import csv
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from serving import BARE, serving

from kickserve.features import NAMES
from kickserve.settings import Settings


@pytest.fixture
def refused(kickserve):
    """Run a command with arguments that can't be used, and return its message."""

    def call(*arguments):
        code, _, err = kickserve(*arguments)
        assert code == 2
        return err

    return call


class TestPredict:
    def test_it_shows_probability_interval_and_warnings_and_keeps_the_prediction(self, kickserve, tmp_path):
        code, out, _ = kickserve("predict", "--distance", 75, "--angle", 5)
        assert code == 0
        for words in ("probability", "95 % interval", "distance beyond 60 m"):
            assert words in out
        connection = sqlite3.connect(tmp_path / "kickserve.db")
        [(record_id, distance)] = connection.execute("SELECT id, distance FROM predictions")
        connection.close()
        assert record_id in out
        assert distance == 75

    def test_json_is_the_answer_of_the_api(self, kickserve, tmp_path):
        code, out, _ = kickserve("predict", "--distance", 38, "--angle", 24, "--no-keep", "--json")
        assert code == 0
        assert set(json.loads(out)) == {"id", "prediction", "confidence", "interval", "model"}
        assert not (tmp_path / "kickserve.db").exists()

    @pytest.mark.parametrize("distance", ["1", "nan", "101", "inf"])
    def test_a_value_out_of_range_is_refused_by_name(self, refused, distance):
        said = refused("predict", "--distance", distance, "--angle", 3)
        assert "distance must be a number from 2 to 100 m" in said

    def test_a_missing_option_and_a_word_for_a_number_are_refused(self, refused):
        assert "--distance" in refused("predict", "--angle", 3)
        assert "--angle" in refused("predict", "--distance", 30)
        assert "far" in refused("predict", "--distance", "far", "--angle", 3)


class TestSimulateTrainModel:
    def test_the_same_seed_gives_the_same_file(self, kickserve, tmp_path):
        for name in ["a.csv", "b.csv"]:
            assert kickserve("simulate", "--size", 100, "--seed", 3, "--output", name)[0] == 0
        first, second = ((tmp_path / name).read_text() for name in ("a.csv", "b.csv"))
        assert first == second
        assert first.splitlines()[0].split(",") == [*NAMES, "success"]

    @pytest.mark.parametrize(("output", "words"), [("nowhere/a.csv", "nowhere"), ("a.xlsx", ".parquet")])
    def test_an_output_that_can_not_be_written_is_refused_by_name(self, refused, output, words):
        assert words in refused("simulate", "--output", output)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--wind-in-ms"], "--wind-in-ms needs DATA"),
            (["--output", "nowhere/model.json"], "there is no folder nowhere"),
            (["kicks.csv", "--output", "kicks.csv"], "must end with .json"),
            (["kicks.csv", "--name", "two\nlines"], "choose another --name"),
        ],
    )
    def test_training_refuses_before_it_begins(self, refused, arguments, words):
        assert words in refused("train", *arguments)

    @pytest.mark.parametrize(("name", "content"), [("m.json", "{}"), ("none.json", None), ("m.bin", "x")])
    def test_a_model_that_can_not_be_used_is_refused_by_name(
        self, refused, tmp_path, monkeypatch, name, content
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        monkeypatch.setenv("KICKSERVE_MODEL", name)
        assert name in refused("model", "show")


class TestOutput:
    def end(self, *arguments, stdout=subprocess.PIPE, **options):
        command = [sys.executable, "-m", "kickserve", *arguments]
        return subprocess.run(command, check=False, stdout=stdout, stderr=subprocess.PIPE, **options)

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
    def test_a_terminal_of_any_encoding_shows_it_and_json_stays_whole(self, encoding):
        environ = {**os.environ, "PYTHONIOENCODING": encoding}
        kick = ["predict", "--distance", "30", "--angle", "80", "--no-keep"]
        shown = self.end(*kick, env=environ)
        degree = "angle beyond 60°".encode(encoding, "replace")
        assert (shown.returncode, shown.stderr, degree in shown.stdout) == (0, b"", True)
        answer = json.loads(self.end(*kick, "--json", env=environ).stdout.decode(encoding))
        assert answer["warnings"] == ["angle beyond 60°"]

    @pytest.mark.parametrize("command", [["model", "show"], ["model", "show", "--json"], ["export"]])
    def test_an_output_that_can_not_be_written_is_said_and_a_closed_one_is_no_error(self, command):
        with Path("/dev/full").open("wb") as full:
            ended = self.end(*command, stdout=full)
        said = b"Error: the output can't be written: No space left on device\n"
        assert (ended.returncode, ended.stderr) == (1, said)
        reading, writing = os.pipe()
        os.close(reading)
        ended = self.end(*command, stdout=writing)
        os.close(writing)
        assert (ended.returncode, ended.stderr) == (0, b"")

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [("model show >&-", 0, b""), ("model show 2>&-", 0, b""), ("batch - <&-", 2, b"Error: - is empty\n")],
    )
    def test_a_stream_that_is_closed_counts_as_empty(self, arguments, code, said):
        ended = subprocess.run(
            ["/bin/sh", "-c", f"{sys.executable} -m kickserve {arguments}"], check=False, capture_output=True
        )
        assert (ended.returncode, ended.stderr) == (code, said)

    def test_a_table_in_a_pipe_is_as_wide_as_it_needs(self):
        assert max(map(len, self.end("model", "show").stdout.splitlines())) > 120

    def test_an_export_without_a_file_is_csv(self, kickserve):
        kickserve("predict", "--distance", 30, "--angle", 5)
        ended = self.end("export", "--since", "24h")
        [row] = csv.DictReader(ended.stdout.decode().splitlines())
        assert (row["distance"], ended.stderr) == ("30.0", b"1 predictions\n")


class TestOptions:
    @pytest.mark.parametrize(
        "command", ["serve", "predict", "batch", "outcomes", "export", "simulate", "train"]
    )
    def test_help_has_examples(self, kickserve, command):
        code, out, _ = kickserve(command, "--help")
        assert code == 0
        assert "\\b" not in out
        assert "Examples" in out
        assert f"\n   kickserve {command}" in out

    def test_help_works_with_wrong_settings_and_names_them(self, kickserve, monkeypatch):
        monkeypatch.setenv("KICKSERVE_PORT", "moon")
        code, out, err = kickserve("--help")
        assert code == 0
        assert "batch" in out
        assert "KICKSERVE_PORT" in err

    def test_an_unknown_command_is_refused_and_the_version_shown(self, kickserve, refused):
        assert "moon" in refused("moon")
        assert "1.0.0" in kickserve("--version")[1]

    @pytest.mark.parametrize(
        "arguments",
        [("batch", "--min-distance", "nan"), ("health", "--timeout", "inf"), ("evaluate", "--psi", "nan")],
        ids=" ".join,
    )
    def test_a_number_that_is_not_finite_is_refused(self, refused, arguments):
        assert arguments[1] in refused(*arguments)

    @pytest.mark.parametrize("url", ["moon", "ftp://example.org", "http://", "http://[::1", "http://a:b"])
    def test_a_url_that_can_not_be_asked_is_refused(self, refused, url):
        said = refused("health", "--url", url)
        assert url in said
        assert "http://HOST:PORT" in said

    def test_auto_is_a_url_of_batch_alone(self, refused):
        assert "auto" in refused("health", "--url", "auto")

    def test_an_export_that_ends_before_it_begins_is_refused(self, refused):
        said = refused("export", "--output", "a.csv", "--since", "2026-02-01", "--until", "2026-01-01")
        assert "--until must be later than --since" in said

    @pytest.mark.parametrize(("distance", "words"), [(90, "0 to 65 m"), (-1, "range")])
    def test_a_distance_that_no_simulated_kick_has_is_refused(self, refused, distance, words):
        assert words in refused("batch", "--size", "5", "--min-distance", distance)


@pytest.fixture
def answering():
    """Return a function that starts a server with one answer below a path, and returns its URL."""
    servers = []

    def start(status, body):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body if self.path.startswith("/kicks/api/v1/") else b"")

            def log_message(self, *_):
                """Log nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/kicks"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class TestHealth:
    """`kickserve health`, which a container engine runs again and again."""

    def test_a_running_service_is_ready_and_a_stopped_one_is_not(self, tmp_path, kickserve, monkeypatch):
        with serving(tmp_path, **BARE) as server:
            base = server.url.removesuffix("/api/v1")
            code, out, _ = kickserve("health", "--url", base)
            assert (code, "ready" in out) == (0, True)
            monkeypatch.setenv("KICKSERVE_PORT", base.rpartition(":")[2])
            monkeypatch.setenv("KICKSERVE_HOST", "0.0.0.0")
            assert kickserve("health")[0] == 0, "the settings give the URL"
            assert server.end() == 0
        code, _, err = kickserve("health", "--url", base)
        assert (code, f"no service answers at {base}" in err) == (1, True)

    def test_a_service_that_is_not_ready_is_shown_with_its_parts(self, answering, kickserve):
        body = b'{"status": "not ready", "version": "1", "parts": {"service": "stopping", "journal": "ok"}}'
        code, out, _ = kickserve("health", "--url", answering(503, body))
        assert (code, "stopping" in out) == (1, True)

    @pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}"])
    def test_another_program_is_no_kickserve(self, answering, body, kickserve):
        code, _, err = kickserve("health", "--url", answering(200, body))
        assert (code, "is not kickserve" in err) == (1, True)

    def test_a_service_without_an_answer_is_given_up(self, kickserve):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            assert kickserve("health", "--timeout", "0.2", "--url", url)[0] == 1

    def test_it_imports_neither_server_nor_model(self):
        code = (
            "import sys; from kickserve.cli import run; run(['health', '--url', 'http://127.0.0.1:9']);"
            "print(*sorted({'litestar', 'numpy', 'httpx', 'uvicorn', 'msgspec'} & sys.modules.keys()))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "msgspec"  # for JSON, quick

    @pytest.mark.parametrize(
        ("host", "url"),
        [
            ("0.0.0.0", "http://127.0.0.1:7860"),
            ("", "http://127.0.0.1:7860"),
            ("::", "http://[::1]:7860"),
            ("kicks.example", "http://kicks.example:7860"),
        ],
    )
    def test_a_service_that_listens_to_all_is_asked_on_this_machine(self, host, url):
        assert Settings(host=host).own_url == url


class TestDoctor:
    @pytest.fixture
    def found(self, kickserve, tmp_path, monkeypatch):
        """Return the exit code, and what was found of each part, beside the settings given."""

        def call(**environment):
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            before = {*tmp_path.rglob("*")}
            code, out, _ = kickserve("doctor", "--json")
            assert {*tmp_path.rglob("*")} == before, "it changes nothing"
            return code, {each["part"]: (each["state"], each["detail"]) for each in json.loads(out)}

        return call

    def test_before_the_first_start_all_is_well(self, found):
        code, parts = found(KICKSERVE_PORT="0")
        assert code == 0
        assert [*parts] == ["settings", "plugins", "key", "store", "journal", "disk", "model", "port"]
        assert {state for state, _ in parts.values()} == {"ok"}

    @pytest.mark.parametrize(
        ("environment", "part", "state", "words"),
        [
            ({"KICKSERVE_PORT": "abc"}, "settings", "fault", "KICKSERVE_PORT='abc'"),
            ({"KICKSERVE_PLUGINS": "nope"}, "plugins", "fault", "nope"),
            ({"API_KEY": "short"}, "key", "warning", "openssl rand"),
            ({"DATABASE_URL": "postgresql://a:secret@127.0.0.1:1/x"}, "store", "fault", "is the server up"),
            ({"KICKSERVE_JOURNAL_DIR": "/dev/null/journal"}, "journal", "fault", "KICKSERVE_JOURNAL_DIR"),
            ({"KICKSERVE_JOURNAL_MAX": "900000GB"}, "disk", "warning", "KICKSERVE_JOURNAL_MAX"),
            ({"KICKSERVE_JOURNAL_DIR": "/proc/journal"}, "disk", "fault", "0 bytes are free at /proc"),
            ({"KICKSERVE_MODEL": "nope.onnx"}, "model", "fault", "does not exist"),
            ({"KICKSERVE_HOST": "0.0.0.0"}, "key", "fault", "set API_KEY"),
            ({"KICKSERVE_KEYS": "/nope"}, "key", "fault", "kickserve key new"),
            ({"API_KEY_FILE": "/nope"}, "settings", "fault", "No such file"),
            ({"DATABASE_URL": "oracle://x"}, "store", "fault", "use sqlite: or postgresql:"),
            ({"DATABASE_URL": "oracle://x"}, "journal", "warning", "DATABASE_URL: mend that first"),
            ({"KICKSERVE_PROT": "80"}, "plugins", "fault", "did you mean KICKSERVE_PORT?"),
        ],
    )
    def test_each_part_says_what_to_do(self, found, environment, part, state, words):
        code, parts = found(**environment)
        assert parts[part][0] == state
        assert words in parts[part][1]
        assert "secret" not in str(parts)
        assert code == (2 if "fault" in {each for each, _ in parts.values()} else 0)

    def test_beside_a_running_service_it_asks_that(self, found, kickserve, tmp_path):
        kickserve("predict", "--distance", 38, "--angle", 24)
        with serving(tmp_path, **BARE) as server:
            base = server.url.removesuffix("/api/v1")
            code, parts = found(KICKSERVE_PORT=base.rpartition(":")[2])
        assert code == 0
        assert f"answers at {base}" in parts["port"][1]
        assert "1 predictions" in parts["store"][1]
