"""Documents are true: every snippet prints its text, every name in them exists, and none is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from conftest import settings_rows
from dotenv import dotenv_values
from serving import serving
from snippets import Reader, Snippet, matches, problem_of, read, simple_commands

from kickserve.cli import cli
from kickserve.features import FEATURES
from kickserve.settings import Settings
from ops.bench.__main__ import NAMES as BENCHMARKS
from ops.chaos.__main__ import NAMES as DRILLS
from ops.fuzz.__main__ import NAMES as ATTACKS

ROOT = Path(__file__).parent.parent
# The front matter above the title is for the hub.
README = re.sub(r"\A---\n.*?\n---\n\s*", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / ".github/CONTRIBUTING.md",
    *sorted((ROOT / "ops/docs").glob("*.md")),
]
JUSTFILE = (ROOT / "justfile").read_text()
RECIPES = {*re.findall(r"^(?:\[group.*\n|alias )([a-z][\w-]*)", JUSTFILE, re.MULTILINE)}
BY_NAME = {"bench": BENCHMARKS, "chaos": DRILLS, "fuzz": ATTACKS}
OURS = [point for point in entry_points(group="kickserve.plugins") if point.dist.name == "kickserve"]

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("reader")


@pytest.fixture(scope="module")
def server(home):
    with serving(home, DATABASE_URL=f"sqlite:///{home}/kickserve.db") as server:
        yield server


class TestSnippets:
    @pytest.mark.slow
    @documents
    def test_every_snippet_runs_and_prints_its_text(self, document, home, server):
        url = server.url.removesuffix("/api/v1")
        reader = Reader(home / document.stem, url, DATABASE_URL=f"sqlite:///{home}/kickserve.db")
        with closing(reader):
            wrong = [
                f"{document.name}, line {snippet.line}:\n{fault}"
                for snippet in read(document.read_text())
                if (fault := reader.follow(snippet))
            ]
        assert not wrong, "\n\n".join(wrong)

    @documents
    def test_every_snippet_can_be_read(self, document):
        snippets = read(document.read_text())
        assert not [(each.line, fault) for each in snippets if (fault := problem_of(each))]

    @documents
    def test_every_command_and_recipe_exists(self, document):
        text = document.read_text()
        scripts = [command for snippet in read(text) for command, _ in snippet.commands]
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        scripts += re.findall(r"(?<!`)`((?:kickserve|just) [^`]+)`", prose)
        commands = [words for script in scripts for words in simple_commands(script)]
        assert not [fault for words in commands if (fault := misnamed(words))]

    @documents
    def test_every_link_to_a_file_leads_to_one(self, document):
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|src=\"([^\":]+)\"", document.read_text())
        assert not [each for pair in links for each in pair if each and not (document.parent / each).exists()]

    @pytest.mark.parametrize(
        ("expected", "printed", "alike"),
        [
            ("a  b\n...\nz", "a b\nc\nz", True),
            ("0.12", "0.13", True),
            ("0.12", "0.14", False),
            ("2,000", "2,001", False),
            ("a", "a\nb", False),
        ],
    )
    def test_a_number_may_differ_in_its_last_digit_and_dots_stand_for_anything(
        self, expected, printed, alike
    ):
        assert matches(expected, printed) is alike

    @pytest.mark.parametrize(
        "snippet",
        [
            Snippet("sh", "false\ntrue", 1),
            Snippet("console", "$ echo 1\n2", 1),
            Snippet("python", "print(1)\n# -> 2", 1),
            Snippet("console", "$ echo 1; exit 4\n1", 1, {"exits": "3"}),
        ],
        ids=lambda snippet: snippet.text,
    )
    def test_a_wrong_snippet_is_found(self, snippet, tmp_path):
        with closing(Reader(tmp_path / "reader", "http://127.0.0.1:9")) as reader:
            assert reader.follow(snippet)

    @pytest.mark.parametrize(
        ("command", "exists"),
        [
            ("just bench moon", False),
            ("kickserve moon", False),
            ("kickserve model check --moon", False),
            ("just bench paging --records 5 && just precommit", True),
            ("A=b kickserve batch kicks.csv --output x.csv | cat", True),
        ],
    )
    def test_a_wrong_name_is_found(self, command, exists):
        assert (not any(map(misnamed, simple_commands(command)))) is exists


def misnamed(words):
    """Return the fault in the names of a command of ours; None where there is none."""
    program, *rest = words
    if program == "kickserve":
        return _misnamed_in(cli, rest)
    if program != "just" or not rest or rest[0].startswith("-"):
        return None
    recipe, *arguments = rest
    if recipe not in RECIPES:
        return f"there is no recipe {recipe!r}"
    wrong = (
        arguments and not arguments[0].startswith("-") and arguments[0] not in BY_NAME.get(recipe, arguments)
    )
    return f"there is no `just {recipe} {arguments[0]}`" if wrong else None


def _misnamed_in(command, words):
    with command.make_context("kickserve", [], resilient_parsing=True) as context:
        options = {
            name: each for each in command.get_params(context) for name in each.opts + each.secondary_opts
        }
        left = iter(words)
        for word in left:
            name, equals, _ = word.partition("=")
            if name.startswith("--") and name not in options:
                return f"{context.command_path} has no option {name}"
            if name in options:
                if not equals and not options[name].is_flag and not options[name].count:
                    next(left, None)  # its value
            elif hasattr(command, "get_command"):
                below = command.get_command(context, word)
                if below is None:
                    return f"there is no command {context.command_path} {word}"
                return _misnamed_in(below, [*left])
    return None


class TestReadme:
    def test_it_begins_with_the_two_commands(self):
        head = "\n".join(README.splitlines()[:20])
        assert "pip install uv rust-just && just serve" in head
        assert "pip install uv rust-just && just test" in head

    @pytest.mark.parametrize("row", settings_rows(), ids=lambda row: row.variable)
    def test_it_has_every_setting_with_its_default(self, row):
        [line] = [line for line in README.splitlines() if line.startswith(f"| `{row.variable}` |")]
        assert (f"| `{row.default}` |" if row.default else "|  |") in line
        assert row.description in line

    @pytest.mark.parametrize("command", cli.list_commands(click.Context(cli)))
    def test_it_has_every_command(self, command):
        assert f"`kickserve {command}" in README or f"kickserve {command} " in README

    def test_it_has_every_plugin_library_and_recipe(self):
        assert [point.name for point in OURS if f"| `{point.name}` |" not in README] == []
        packages = [path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")]
        assert [name for name in packages if f"`{name.removeprefix('kickserve_')}`" not in README] == []
        assert [name for name in RECIPES if f"`just {name}" not in README] == []

    @pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
    def test_it_has_every_feature_with_its_range(self, feature):
        wanted = feature.wanted.removeprefix("a number from ")
        assert f"| `{feature.name}` | {feature.meaning} | {wanted} |" in README


def test_the_example_of_an_env_file_has_every_setting_and_its_default():
    assert dotenv_values(ROOT / ".env.example", interpolate=False) == {}, "all lines are commented out"
    lines = {line.strip("# \n") for line in (ROOT / ".env.example").read_text().splitlines()}
    assert [row for row in settings_rows() if f"{row.variable}={row.default}" not in lines] == []
    assert Settings.load({row.variable: row.default for row in settings_rows()}) == Settings()


def test_the_wheel_holds_core_and_plugins_under_clean_names(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    names = {*zipfile.ZipFile(wheel).namelist()}
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"kickserve", *(path.name for path in (ROOT / "plugins").iterdir() if path.is_dir())}
    tracked = ["git", "ls-files", "kickserve", "plugins"]
    files = subprocess.check_output(tracked, cwd=ROOT, text=True).split()
    assert {name.removeprefix("plugins/") for name in files} - names == set()
    assert any(name.endswith("licenses/LICENSE") for name in names)
