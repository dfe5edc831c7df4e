"""Every snippet of the documentation runs, and prints what the text says; every name in it exists."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest
from serving import serving
from snippets import Reader, Snippet, matches, problem_of, read, simple_commands

from kickserve.cli import cli

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / ".github/CONTRIBUTING.md",
    *sorted((ROOT / "ops/docs").glob("*.md")),
]
RECIPE = re.compile(r"^([a-z][\w-]*)[^:=\n]*(?:=[^:\n]*)?:(?!=)", re.MULTILINE)
RECIPES = {*RECIPE.findall((ROOT / "justfile").read_text())}

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("reader")


@pytest.fixture(scope="module")
def server(home):
    with serving(home, DATABASE_URL=f"sqlite:///{home}/kickserve.db") as server:
        yield server


@documents
def test_every_snippet_runs_and_prints_what_the_text_says(document, home, server):
    url = server.url.removesuffix("/api/v1")
    reader = Reader(home / document.stem, url, DATABASE_URL=f"sqlite:///{home}/kickserve.db")
    with closing(reader):
        wrong = [
            f"{document.name}, line {snippet.line}:\n{said}"
            for snippet in read(document.read_text())
            if (said := reader.follow(snippet))
        ]
    assert not wrong, "\n\n".join(wrong)


@documents
def test_every_snippet_can_be_read(document):
    wrong = [
        f"line {snippet.line} {said}"
        for snippet in read(document.read_text())
        if (said := problem_of(snippet))
    ]
    assert not wrong, "\n".join(wrong)


@documents
def test_every_command_and_recipe_that_is_named_exists(document):
    text = document.read_text()
    scripts = [command for snippet in read(text) for command, _ in snippet.commands]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    scripts += re.findall(r"(?<!`)`((?:kickserve|just) [^`]+)`", prose)
    wrong = [said for script in scripts for words in simple_commands(script) if (said := misnamed(words))]
    assert not wrong, "\n".join(wrong)


@documents
def test_every_link_to_a_file_leads_to_one(document):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|src=\"([^\":]+)\"", document.read_text())
    gone = [each for pair in links for each in pair if each and not (document.parent / each).exists()]
    assert not gone


def misnamed(words):
    """Say what is wrong with the names in a command of ours; None where nothing is."""
    program, *rest = words
    if program == "just":
        names = [each for each in rest if not each.startswith("-")]
        return f"there is no recipe {names[0]!r}" if names and names[0] not in RECIPES else None
    return _misnamed_of(cli, rest) if program == "kickserve" else None


def _misnamed_of(command, words):
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
                return _misnamed_of(below, [*left])
    return None


TEXT = """
Words.

<!-- not run: it would take long -->
```sh
just bench
```

```console
$ echo "two
lines" && echo 3.14159
two
lines
3.14160
$ cat <<'END'
x
END
x
```
"""


class TestReading:
    def test_snippets_are_found_with_their_marks_and_lines(self):
        first, second = read(TEXT)
        assert (first.language, first.line, first.marks) == ("sh", 5, {"not run": "it would take long"})
        assert not first.runs
        assert second.runs
        assert second.commands == [
            ('echo "two\nlines" && echo 3.14159', "two\nlines\n3.14160"),
            ("cat <<'END'\nx\nEND", "x"),
        ]

    def test_a_mark_is_of_the_snippet_right_below_it_alone(self):
        [snippet] = read("<!-- not run: why -->\nWords.\n```sh\nls\n```")
        assert snippet.runs

    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("sh", "echo 'x"),
            ("console", "$ if"),
            ("python", "x ="),
            ("json", "{"),
            ("toml", "x"),
            ("", "x"),
            ("nginx", "x"),
        ],
    )
    def test_what_can_not_be_read_is_seen(self, language, text):
        assert problem_of(Snippet(language, text, 1))

    def test_what_no_test_can_run_needs_a_mark(self):
        assert problem_of(Snippet("nginx", "x", 1, {"not run": "needs nginx"})) is None


class TestMatching:
    @pytest.mark.parametrize(
        ("expected", "printed"),
        [
            ("a  b\n c", "a b\nc\n"),
            ("a\n...\nz", "a\nb\nc\nz"),
            ("rate ... a second", "rate 1,234 a second"),
            ("0.12", "0.13"),
            ("2,000 kicks", "2,000  kicks"),
            (
                '{"id":"01a20c5b-b7fa-7000-8000-aefcc455ff30"}',
                '{"id":"01a20c5b-0ffb-7000-8000-e7c5b414ac2a"}',
            ),
        ],
    )
    def test_what_is_alike_matches(self, expected, printed):
        assert matches(expected, printed)

    @pytest.mark.parametrize(
        ("expected", "printed"),
        [
            ("a", "b"),
            ("a\n...\nz", "a\nb"),
            ("0.12", "0.14"),
            ("2,000", "2,001"),
            ("a", "a\nb"),
            ("7", "7.5"),
        ],
    )
    def test_what_is_not_does_not(self, expected, printed):
        assert not matches(expected, printed)


class TestFollowing:
    @pytest.fixture
    def follow(self, tmp_path):
        reader = Reader(tmp_path / "reader", "http://127.0.0.1:9")
        with closing(reader):
            yield reader.follow

    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("sh", "false\ntrue"),
            ("console", "$ echo 1\n2"),
            ("console", "$ false"),
            ("python", "print(1)\n# -> 2"),
            ("python", "1 / 0"),
        ],
    )
    def test_what_goes_wrong_is_told(self, follow, language, text):
        assert follow(Snippet(language, text, 1))

    def test_what_goes_right_is_not(self, follow):
        assert follow(Snippet("python", "x", 1, {"file": "a/x.py"})) is None
        assert follow(Snippet("console", "$ cat a/x.py\nx\n$ echo x127.0.0.1:7860\nx...:7860", 1)) is None
        assert follow(Snippet("console", "$ echo 1; exit 4\n1", 1, {"exits": "4"})) is None
        assert follow(Snippet("console", "$ date\nyesterday", 1, {"not compared": "it changes"})) is None
        assert follow(Snippet("python", "print(1)\n# -> 1", 1)) is None
        assert follow(Snippet("sh", "false", 1, {"not run": "it fails"})) is None

    def test_a_service_that_is_started_is_spoken_to_from_then_on(self, follow):
        serve = "$ KICKSERVE_PLUGINS=storage kickserve serve\nkickserve is ready\n...\nkey none..."
        assert follow(Snippet("console", serve, 1)) is None
        ask = '$ curl -s http://127.0.0.1:7860/api/v1/health/live\n{"status":"live",...}'
        assert follow(Snippet("console", ask, 1)) is None


@pytest.mark.parametrize(
    "command",
    [
        "just moon",
        "kickserve moon",
        "kickserve batch --moon",
        "kickserve model moon",
        "kickserve model check --moon",
    ],
)
def test_a_name_that_does_not_exist_is_seen(command):
    [words] = simple_commands(command)
    assert misnamed(words)


@pytest.mark.parametrize(
    "command",
    [
        "just batch 500",
        "just bench-page",
        "kickserve --version",
        "A=b kickserve batch kicks.csv --output x.csv | cat",
        "kickserve ui --no-browser && ls --moon",
        "kickserve model check m.json --data=k.csv",
        "kickserve profile --seconds 5 --clock=wall show x.pstat --top 5",
    ],
)
def test_names_that_exist_are_right(command):
    assert not any(map(misnamed, simple_commands(command)))
