"""Documents are true: every snippet prints its text, every name in them exists, and none is missing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from collections import defaultdict
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from conftest import settings_rows
from dotenv import dotenv_values
from serving import serving
from snippets import Reader, Snippet, matches, problem_of, read, simple_commands

from kickserve import __version__
from kickserve.cli import cli
from kickserve.settings import Settings
from kickserve_storage import postgres, sqlite
from ops.bench.__main__ import NAMES as BENCHMARKS
from ops.chaos.__main__ import NAMES as DRILLS
from ops.fuzz.__main__ import NAMES as ATTACKS
from ops.reference import FOLDER, GROUPS, examples, pages

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / ".github").glob("*.md")),
    *sorted((ROOT / "ops/docs").rglob("*.md")),
]
JUSTFILE = (ROOT / "justfile").read_text()
RECIPES = {*re.findall(r"^(?:\[group.*\n|alias )([a-z][\w-]*)", JUSTFILE, re.MULTILINE)}
BY_NAME = {"bench": BENCHMARKS, "chaos": DRILLS, "fuzz": ATTACKS}
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = "".join(path.read_text() for room in ("kickserve", "plugins") for path in (ROOT / room).rglob("*.py"))

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


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
        reader = Reader(
            home / str(document.relative_to(ROOT)).replace("/", "-"),
            url,
            DATABASE_URL=f"sqlite:///{home}/kickserve.db",
        )
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
    def test_every_command_can_be_parsed(self, document, monkeypatch):
        monkeypatch.setattr(click.Path, "convert", lambda _, value, *__: value)  # files of the reader
        scripts = [command for snippet in read(document.read_text()) for command, _ in snippet.commands]
        commands = [words for script in scripts for words in simple_commands(script)]
        assert not [fault for words in commands if (fault := unparsable(words))]

    @documents
    def test_every_command_and_recipe_exists(self, document):
        text = document.read_text()
        scripts = [command for snippet in read(text) for command, _ in snippet.commands]
        prose = FENCED.sub("", text)
        scripts += re.findall(r"(?<!`)`((?:kickserve|just) [^`]+)`", prose)
        commands = [words for script in scripts for words in simple_commands(script)]
        assert not [fault for words in commands if (fault := misnamed(words))]

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
            ("kickserve export kicks.csv", False),
            ("just bench paging --records 5 && just precommit", True),
            ("A=b kickserve batch kicks.csv --output x.csv | cat", True),
        ],
    )
    def test_a_wrong_command_is_found(self, command, exists):
        words = [*simple_commands(command)]
        assert (any(map(misnamed, words)) or any(map(unparsable, words))) is not exists


def unparsable(words):
    """Return what click says of a command of ours that it can't parse; None where it can."""
    program, *arguments = words
    if program != "kickserve" or not arguments:
        return None
    try:
        parse(cli, arguments)
    except click.exceptions.Exit:  # --help, --version
        return None
    except click.ClickException as error:
        return f"{' '.join(words)}: {error.format_message()}"
    return None


def misnamed(words):
    """Return the fault in the names of a command of ours; None where there is none."""
    program, *rest = words
    if program == "kickserve":
        return _misnamed_in(cli, rest)
    if program != "just" or not rest or rest[0].startswith("-"):
        return None
    recipe, *arguments = (word for word in rest if word != "NAME")
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
                if below is None and re.fullmatch(r"\[?[A-Z]+]?", word):
                    return None  # COMMAND or [OPTIONS] stands for any
                if below is None:
                    return f"there is no command {context.command_path} {word}"
                return _misnamed_in(below, [*left])
    return None


class TestNames:
    @documents
    def test_every_link_leads_somewhere(self, document):
        assert dead_links(document, document.read_text()) == []

    @documents
    def test_every_setting_exists(self, document):
        compose = re.findall(r"\$\{(KICKSERVE_\w+)", (ROOT / "compose.yaml").read_text())
        known = {row.variable for row in settings_rows()} | {*compose}
        known |= {f"{row.variable}_FILE" for row in settings_rows() if row.secret}
        text = document.read_text()
        known |= {*re.findall(r'"(KICKSERVE_FOOT_\w+)"', text)}  # of a plugin that is an example
        assert {*re.findall(r"\bKICKSERVE_[A-Z_]*[A-Z]\b", text)} - known == set()

    @documents
    def test_every_metric_and_table_exists(self, document):
        text = document.read_text()
        known = {*re.findall(r"\bkickserve_\w+", CODE + (FOLDER / "metrics.md").read_text())}
        known |= {*re.findall(r'Metric\("(\w+)"', text)}  # of a plugin that is an example
        known |= {path.name for path in (ROOT / "plugins").iterdir()}
        assert {*re.findall(r"\bkickserve_\w*\w\b", text)} - known == set()

    @pytest.mark.parametrize(
        ("text", "dead"),
        [
            ("[a](README.md#limits) [b](#here)\n## Here", []),
            ("[a](nowhere.md)", ["nowhere.md"]),
            ("[a](README.md#nowhere)", ["README.md#nowhere"]),
            ("[a](#there)\n## Here", ["#there"]),
        ],
    )
    def test_a_dead_link_is_found(self, text, dead):
        assert dead_links(ROOT / "README.md", text) == dead


def dead_links(document, text):
    """Return the links in the text of a document to files that are missing, or to headings."""
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", FENCED.sub("", text))
    return [link for pair in links for link in pair if link and not _leads(document, text, link)]


def _leads(document, text, link):
    if re.match(r"\w+:", link):
        return True  # no test needs a network
    name, _, anchor = link.partition("#")
    path = document.parent / name if name else document
    if not path.exists():
        return False
    return not anchor or anchor in anchors_of(path.read_text() if name else text)


def anchors_of(text):
    """Return the anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class TestReadme:
    def test_it_begins_with_the_two_commands_and_is_one_page(self):
        lines = (ROOT / "README.md").read_text().splitlines()
        assert "pip install uv rust-just && just serve" in "\n".join(lines[:20])
        assert "pip install uv rust-just && just test" in "\n".join(lines[:20])
        assert len(lines) < 250

    def test_every_document_can_be_reached_from_it(self):
        reached, left = set(), [ROOT / "README.md"]
        while left:
            document = left.pop()
            reached.add(document)
            links = re.findall(r"\]\(([^)#:\s]+\.md)", document.read_text())
            left += {(document.parent / link).resolve() for link in links} - reached
        assert {*DOCUMENTS} - reached == {ROOT / ".github/pull_request_template.md"}

    def test_the_architecture_names_every_plugin_and_library(self):
        text = (ROOT / "ops/docs/architecture.md").read_text()
        packages = [path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")]
        assert [name for name in packages if f"`{name.removeprefix('kickserve_')}`" not in text] == []

    def test_no_paragraph_is_in_two_documents(self):
        where = defaultdict(set)
        for document in DOCUMENTS:
            for paragraph in document.read_text().split("\n\n"):
                if len(paragraph) > 150 and not paragraph.startswith(("```", "<!--")):
                    where[re.sub(r"\s+", " ", paragraph)].add(document)
        assert [text for text, documents in where.items() if len(documents) > 1] == []


@pytest.fixture(scope="module")
def made():
    return pages()


class TestReference:
    @pytest.mark.parametrize("path", sorted(FOLDER.glob("*.md")), ids=lambda path: path.name)
    def test_it_is_what_the_code_makes(self, path, made):
        assert path.read_text() == made[path.name], "run `just reference`"

    def test_no_page_is_missing(self, made):
        assert made.keys() == {path.name for path in FOLDER.glob("*.md")}

    def test_it_has_every_setting_plugin_and_recipe(self, made):
        variables = [row.variable for row in settings_rows()]
        assert [name for name in variables if f"| `{name}` |" not in made["settings.md"]] == []
        ours = [
            each for group in GROUPS for each in entry_points(group=group) if each.dist.name == "kickserve"
        ]
        assert [point.name for point in ours if f"| `{point.name}` |" not in made["extras.md"]] == []
        assert [name for name in RECIPES - {"precommit"} if f"`just {name}`" not in made["commands.md"]] == []


def commands_below(command, path):
    """Yield every command with its path."""
    yield pytest.param(command, path, id=" ".join(path))
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands_below(command.get_command(context, name), (*path, name))


@pytest.mark.parametrize(("command", "path"), [*commands_below(cli, ("kickserve",))])
def test_the_help_of_a_command_shows_examples_that_can_be_parsed(command, path, kickserve, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = kickserve(*path[1:], "--help")[1].splitlines()
    assert {*examples(command)} <= {line.strip() for line in shown}
    assert all("kickserve" in line for line in examples(command))
    monkeypatch.setattr(click.Path, "convert", lambda _, value, *__: value)  # their files are examples too
    found = [words for line in examples(command) for words in simple_commands(line)]
    assert any(tuple(words[: len(path)]) == path for words in found)
    for program, *arguments in found:
        if program == "kickserve":
            parse(cli, arguments)


def parse(command, arguments):
    """Parse the arguments of a command and of the commands below it, and run none."""
    with command.make_context("kickserve", [*arguments]) as context:
        if isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
            below = command.get_command(context, rest[0])
            assert below is not None, rest[0]
            parse(below, rest[1:])


def test_every_message_in_troubleshooting_is_one_of_the_code():
    text = (ROOT / "ops/docs/troubleshooting.md").read_text()
    rows = re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)
    assert len(rows) > 50
    assert [message for message in rows if not is_ours(message) and message not in FOREIGN] == []


@pytest.mark.parametrize(
    ("message", "ours"),
    [
        ("the journal is full: … bytes of predictions wait for the store", True),
        ("the journal is full of … bytes", False),
        ("moon", False),
    ],
)
def test_a_message_that_is_not_ours_is_found(message, ours):
    assert is_ours(message) is ours


FOREIGN = {"502 Bad Gateway", "/ui"}  # what nginx says; a path


def is_ours(message):
    """Say whether a message is in the code; `…` in it, and what the code fills in, may be anything."""
    pieces = [re.escape(piece.strip()) for piece in message.split("…") if piece.strip()]
    return re.search(".*?".join(pieces), MESSAGES) is not None


def _texts(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.replace("\n", " ")


MESSAGES = "\n".join(
    text
    for room in ("kickserve", "plugins")
    for path in (ROOT / room).rglob("*.py")
    for text in _texts(ast.parse(path.read_text()))
)


def test_the_guide_to_upgrades_names_the_schema():
    minor = __version__.rpartition(".")[0]
    row = f"| {minor} | {len(sqlite.MIGRATIONS)} | {len(postgres.MIGRATIONS)} |"
    assert row in (ROOT / "ops/docs/upgrade.md").read_text()


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
