"""Reads the snippets of a document, runs them as a reader would, and holds what they print against the text.

.github/CONTRIBUTING.md lists the marks of a snippet.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

MARKER = re.compile(r"^<!-- (not run|not compared|file|exits|needs): (.+) -->$")
FENCE = re.compile(r"^```([\w-]*)$")
PROMPT = "$ "
PRINTED = "# -> "  # in a Python snippet: what it prints
RUN = {"sh", "console", "python"}
DATA = {
    "json": json.loads,
    "toml": tomllib.loads,
    "mermaid": str,
}  # what must be readable, as far as can be told
PORT = "127.0.0.1:7860"
PATIENCE = 600  # seconds; what takes longer has failed, however busy the machine is
BASH = shutil.which("bash") or "bash"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?|\.\d+")


@dataclass
class Snippet:
    """A fenced block of a document.

    Attributes:
        language: the word after the fence.
        text: between the fences.
        line: where it begins, from 1.
        marks: what the comments right above it say, by word.
    """

    language: str
    text: str
    line: int
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def runs(self):
        return self.language in RUN and not {"not run", "file"} & {*self.marks}

    @property
    def commands(self):
        """Commands, each with its output."""
        if self.language == "sh":
            return [(self.text, "")]
        return [*_session(self.text)] if self.language == "console" else []


def read(text):
    """Yield the snippets of a document."""
    marks, lines = {}, enumerate(text.splitlines(), 1)
    for number, line in lines:
        if found := MARKER.match(line):
            marks[found[1]] = found[2]
        elif found := FENCE.match(line.strip()):
            inside = [each for _, each in takewhile(lambda pair: pair[1].strip() != "```", lines)]
            yield Snippet(found[1], "\n".join(inside), number, marks)
            marks = {}
        elif line.strip():
            marks = {}


def _session(text):
    before, *parts = re.split(rf"^{re.escape(PROMPT)}", text, flags=re.MULTILINE)
    assert not before, f"a console begins with a command, not with {before!r}"
    for part in parts:
        command, *printed = part.splitlines()
        while unfinished(command):
            command += "\n" + printed.pop(0)
        yield command, "\n".join(printed)


def unfinished(command):
    """Say whether a command goes on in the next line: in quotes, in a here-document, or after a backslash."""
    if found := re.search(r"<<'?(\w+)'?", command):
        return found[1] not in command.splitlines()[1:]
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return True
    return command.endswith("\\")


def problem_of(snippet):
    """Return the fault of a snippet that shows before it is run, or None."""
    if snippet.language in DATA:
        try:
            DATA[snippet.language](snippet.text)
        except ValueError as error:
            return f"is no {snippet.language}: {error}"
    elif snippet.language == "python":
        try:
            compile(snippet.text, "snippet", "exec")
        except SyntaxError as error:
            return f"is no Python: {error}"
    elif snippet.language in RUN:
        script = "\n".join(command for command, _ in snippet.commands)
        arguments = [BASH, "-n"]
        checked = subprocess.run(arguments, input=script, text=True, capture_output=True, check=False)
        return checked.stderr or None
    elif not {"not run", "file"} & {*snippet.marks}:
        return f"is in a language that no test runs ({snippet.language or 'none'}): mark it, and say why"
    return None


def simple_commands(script):
    """Yield the simple commands of a script, as lists of words, without assignments before them."""
    script = re.sub(r"<<'?(\w+)'?.*?^\1$", "", script, flags=re.DOTALL | re.MULTILINE)  # here-documents
    lexer = shlex.shlex(script.replace("\\\n", " ").replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = []
    for word in [*lexer, ";"]:
        if set(word) <= set("();<>|&"):
            if words:
                yield words
            words = []
        elif words or not re.match(r"\w+=", word):
            words.append(word)


def matches(expected, printed):
    """Return whether this was printed: `...` is any text, white space is ignored.

    Ids are alike. Numbers are, if they differ by no more than one in the last digit that the text has.
    """
    expected, printed = (_UUID.sub("ID", re.sub(r"\s+", "", each)) for each in (expected, printed))
    numbers, pattern = [], ""
    for part in re.split(r"(\.\.\.)", expected):
        if part == "...":
            pattern += ".*?"
            continue
        numbers += _NUMBER.findall(part)
        texts = _NUMBER.split(part)
        pattern += f"({_NUMBER.pattern})".join(map(re.escape, texts))
    found = re.fullmatch(pattern, printed, re.DOTALL)
    return found is not None and all(map(_alike, numbers, found.groups()))


def _alike(told, printed):
    decimals = len(told.partition(".")[2])
    a, b = (float(each.replace(",", "")) for each in (told, printed))
    return abs(a - b) <= (max(1.01 * 10.0**-decimals, 1e-9) if decimals else 0)


class Reader:
    """Follows a document in a folder of its own, with a service that runs.

    Args:
        folder: where it works.
        url: of the service, such as `http://127.0.0.1:4711`.
        environment: what the commands get, beside PATH and HOME.
    """

    def __init__(self, folder, url, **environment):
        folder.mkdir(parents=True)
        self.folder = folder
        self.place = url.removeprefix("http://")
        self._environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "COLUMNS": "120",
            # What a document installs goes into its own folder, from what is there already.
            "PIP_TARGET": str(folder / "site"),
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one the wrong way round
            "PYTHONPATH": str(folder / "site"),
            **{name: os.environ[name] for name in os.environ if name.startswith("COVERAGE")},
            **environment,
        }
        self._server = None

    def follow(self, snippet):
        """Do what a snippet says; return what went wrong, or None."""
        if "needs" in snippet.marks:
            find_spec(snippet.marks["needs"])  # skips the test where the package is missing: see conftest.py
        if "file" in snippet.marks:
            path = self.folder / snippet.marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(snippet.text + "\n")
        elif snippet.runs and snippet.language == "python":
            printed = "\n".join(
                line.strip().removeprefix(PRINTED)
                for line in snippet.text.splitlines()
                if line.strip().startswith(PRINTED)
            )
            return self._try(snippet, [sys.executable, "-"], self._here(snippet.text), printed)
        elif snippet.runs:
            for command, printed in snippet.commands:
                if wrong := self._do(snippet, command, printed):
                    return wrong
        return None

    def _do(self, snippet, command, printed):
        if any(words[:2] == ["kickserve", "serve"] for words in simple_commands(command)):
            return self._serve(command, printed)
        script = f"set -euo pipefail\n{self._here(command)}\n"
        return self._try(snippet, [BASH, "-s"], script, printed)

    def _try(self, snippet, arguments, script, expected):
        done = subprocess.run(
            arguments,
            input=script,
            text=True,
            cwd=self.folder,
            env=self._environment | {"KICKSERVE_PORT": self.place.rpartition(":")[2]},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode != int(snippet.marks.get("exits", 0)):
            return f"{script}\nended with {done.returncode}:\n{done.stdout}"
        return None if "not compared" in snippet.marks else self._compare(script, done.stdout, expected)

    def _compare(self, command, printed, expected):
        """Return how the output of a command differs from the text, or None; no text is any output."""
        printed = printed.replace(self.place, PORT)
        if not expected.strip() or matches(expected, printed):
            return None
        return f"{command}\nprinted\n{printed}\nand not\n{expected}"

    def _serve(self, command, expected):
        """Start a service; from now on it is the one that the document speaks to."""
        self.close()
        self._server = subprocess.Popen(
            [BASH, "-c", command],
            cwd=self.folder,
            env=self._environment | {"KICKSERVE_PORT": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        printed = ""
        watchdog = threading.Timer(PATIENCE, self._server.kill)
        watchdog.start()
        for line in self._server.stdout:
            printed += line
            if line.startswith("key "):
                break
        watchdog.cancel()
        found = re.search(r"API\s+http://(\S+)/api/v1", printed)
        if found is None:
            return f"{command}\ndid not start: {printed}"
        self.place = found[1]
        return self._compare(command, printed, expected)

    def _here(self, text):
        return text.replace(PORT, self.place).replace(PORT.replace("127.0.0.1", "localhost"), self.place)

    def close(self):
        """End the service that the document has started."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGTERM)
            assert self._server.wait(PATIENCE) == 0
            self._server.stdout.close()
            self._server = None
