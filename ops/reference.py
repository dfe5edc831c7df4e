"""Makes the reference in ops/docs/reference out of the code: `just reference`.

A test compares the pages with what the code makes.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import tempfile
import time
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from prometheus_client.parser import text_string_to_metric_families

from kickserve.app import create_app
from kickserve.cli import cli
from kickserve.features import FEATURES
from kickserve.openapi import EXAMPLE
from kickserve.plugins import discover
from kickserve.settings import Settings
from kickserve_testing.app import client_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kickserve.plugins import App, Plugin

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "ops" / "docs" / "reference"
GROUPS: Final = ("kickserve.plugins", "kickserve.standard")
_MADE: Final = "<!-- made by `just reference`: change the code, not this page -->"
_EXAMPLES: Final = re.compile(r"(?:\\b|\x08)\n(.*?)(?=\n\n|\Z)", re.DOTALL)
_KICKS: Final = 60  # drift begins with 50
_PATIENCE: Final = 30  # seconds until each plugin has measured something
_MEASURED: Final = (
    "kickserve_drift_psi",
    "kickserve_drift_alarm",
    "kickserve_key_requests",
    "kickserve_learning",
)
# What an extra is for; pyproject.toml has its packages.
_EXTRAS: Final = {
    "ui": "the page at `/ui`, and the command `kickserve ui`",
    "metrics": "`/metrics` for Prometheus",
    "reports": "full reports of drift: `kickserve evaluate`",
    "postgres": "Postgres as the store",
    "parquet": "files of Parquet",
    "excel": "spreadsheets",
    "sklearn": "models of scikit-learn, XGBoost and LightGBM",
    "onnx": "models in ONNX",
    "train": "boosted trees in `kickserve train`",
    "profiling": "profiles of requests",
    "otel": "traces for OpenTelemetry",
    "dask": "batches on many cores and machines",
    "s3": "files at `s3://…`",
    "drift": "the name of `reports` in the version before",
    "all": "all of them",
}

_API: Final = """\
# The API

{made}

`/docs` of a running service documents every field and tries calls out. A service with a key takes it as
`X-API-Key`, or as `Authorization: Bearer`; the scope of a call is what the key must be good for
([keys](../keys.md)).

Every error is a problem document (RFC 9457) with `status`, `detail`, `request_id` and, for invalid fields,
`errors`; [troubleshooting](../troubleshooting.md) goes through them. 429 and 503 give the seconds until a
retry in `Retry-After`.

## A kick

{features}

Beside them a kick may have `kicker`, a label of 1 to 64 characters, and `source` (`api`, `page` or
`batch`): both are stored, and neither is a feature of the model.

{calls}
"""

_COMMANDS: Final = """\
# Commands

{made}

`kickserve COMMAND --help` shows the same in a terminal. Commands with results write JSON with `--json`.

## Exit codes

{codes}

{commands}

## Recipes

`just` alone lists them. Each makes the environment that it needs.

{recipes}
"""

_SETTINGS: Final = """\
# Settings

{made}

Settings come from the environment, or from a file `.env` in the current folder (see
[.env.example](../../../.env.example)). A misspelt `KICKSERVE_…` is an error. A setting marked *secret* may
stand in a file of its own, as containers are given secrets: `API_KEY_FILE=/run/secrets/key`.

In `.env`, `${{NAME}}` is replaced by that variable and any other `$` stays. Compose, which reads the same
file, replaces `$NAME` too and takes `$$` for `$`: a secret with a `$` is safest in a file of its own.

Libraries read settings of their own from the environment alone: `HF_HOME` (the cache), `HF_ENDPOINT`,
`HF_HUB_ETAG_TIMEOUT` and `HF_HUB_DOWNLOAD_TIMEOUT` (seconds, 10 each) are those of the hub's library,
`OTEL_*` those of OpenTelemetry.

{settings}
"""

_METRICS: Final = """\
# Metrics

{made}

`GET /metrics`, with `pip install 'kickserve[metrics]'`, answers in the text of Prometheus or as
OpenMetrics. Any worker gives the figures of all. A metric appears once there is something to say: drift
from 50 kicks on, the alarm once an outcome is known. [Watch the service](../watch.md) shows what to do with
them.

{metrics}
"""

_PACKAGES: Final = """\
# Extras and plugins

{made}

`pip install 'kickserve[ui,metrics]'` installs the packages of extras. Without any, kickserve serves and
predicts, with SQLite and the packaged model. Whatever lacks a package names its extra. In a clone, activate
`.venv` first.

{extras}

The core knows no plugin by name. A plugin is an entry point in the group `kickserve.plugins`; each whose
packages are installed is loaded, and `KICKSERVE_PLUGINS` picks some. Those of the group
`kickserve.standard` belong to every service. [Write a plugin](../plugins.md).

## Optional plugins

{optional}

## Plugins of every service

{standard}
"""


def pages() -> dict[str, str]:
    """Return the text of each page of the reference by the name of its file."""
    optional, standard = map(_plugins, GROUPS)
    return {
        "api.md": _API.format(made=_MADE, features=_features(), calls=_calls()),
        "commands.md": _COMMANDS.format(
            made=_MADE, codes=_exit_codes(), commands=_commands(), recipes=_recipes()
        ),
        "settings.md": _SETTINGS.format(made=_MADE, settings=_settings()),
        "metrics.md": _METRICS.format(made=_MADE, metrics=_metrics()),
        "extras.md": _PACKAGES.format(made=_MADE, extras=_extras(), optional=optional, standard=standard),
    }


def _table(header: str, rows: Iterable[Iterable[str]]) -> str:
    lines = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows)
    rule = "|" + " --- |" * (header.count("|") + 1)
    return "\n".join([f"| {header} |", rule, *(f"| {line} |" for line in lines)])


def _sections(tables: Iterable[tuple[str, str]]) -> str:
    return "\n\n".join(f"## {title}\n\n{table}" for title, table in tables)


def _plain(text: str | None) -> str:
    """Put a text of several lines into one."""
    return re.sub(r"\s+", " ", text or "").strip()


def _settings() -> str:
    tables = [("The service", Settings.rows())]
    tables += [
        (f"The plugin {_name(each)}", each.table.rows()) for each in discover(Settings()) if each.table
    ]
    return _sections(
        (
            title,
            _table(
                "variable | default | meaning",
                (
                    (
                        f"`{row.variable}`",
                        f"`{row.default}`" if row.default else "",
                        row.description + (" *secret*" if row.secret else ""),
                    )
                    for row in rows
                ),
            ),
        )
        for title, rows in tables
    )


def _name(plugin: Plugin) -> str:
    """Return the name of the entry point of a plugin."""
    package = type(plugin).__module__.partition(".")[0]
    points = (point for group in GROUPS for point in entry_points(group=group))
    return next(point.name for point in points if point.module.partition(".")[0] == package)


def _exit_codes() -> str:
    [codes] = [text for text in _paragraphs(cli) if text.startswith("Exit codes:")]
    found = re.findall(r"(\d+) (.+?)(?:, (?=\d)|\.$)", codes)
    return _table("code | means", found)


def _commands() -> str:
    names = sorted(cli.list_commands(click.Context(cli)))
    return "\n\n".join(part for name in names for part in _command(cli, name, "kickserve"))


def _command(group: click.Group, name: str, before: str) -> Iterator[str]:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    path = f"{before} {name}"
    with click.Context(command, info_name=path) as context:
        yield f"## {path}"
        yield f"`{' '.join([path, *command.collect_usage_pieces(context)])}`"
        yield from _paragraphs(command)
        yield "\n".join(["<!-- not run: examples of the help -->", "```sh", *examples(command), "```"])
        options = (each for each in command.get_params(context) if isinstance(each, click.Option))
        records = (each.get_help_record(context) for each in options if "--help" not in each.opts)
        if rows := [(f"`{names}`", _plain(words)) for names, words in filter(None, records)]:
            yield _table("option | does", rows)
        if isinstance(command, click.Group):
            for below in sorted(command.list_commands(context)):
                yield from _command(command, below, path)


def _paragraphs(command: click.Command) -> list[str]:
    text = _EXAMPLES.sub("", inspect.cleandoc(command.help or ""))
    return [_plain(each) for each in text.split("\n\n") if each.strip()]


def examples(command: click.Command) -> list[str]:
    """Return the examples in the help of a command, line by line."""
    texts = _EXAMPLES.findall(inspect.cleandoc(command.help or ""))
    lines = (line.strip(" \b") for text in texts for line in text.splitlines()[1:])
    return [line for line in lines if line]


def _recipes() -> str:
    text = (ROOT / "justfile").read_text("utf-8")
    found = re.findall(r"^# (.+)\n\[group.*\n([a-z][\w-]*)", text, re.MULTILINE)
    return _table("recipe | does", ((f"`just {name}`", what) for what, name in found))


def _features() -> str:
    rows = ((f"`{each.name}`", each.meaning, each.wanted.removeprefix("a number from ")) for each in FEATURES)
    return _table("feature | is | from, to", rows)


def _calls() -> str:
    app = create_app(Settings.load({"DATABASE_URL": "sqlite://", "API_KEY": "x"}))
    tables: dict[str, list[tuple[str, str, str]]] = {}
    for path, calls in sorted(app.openapi_schema.to_schema()["paths"].items()):
        if "/versions/" in path:  # the same call, with a revision in the path
            continue
        for method, call in calls.items():
            row = (f"`{method.upper()} {path}`", _scope(app, path, method.upper()), _about_call(call))
            tables.setdefault(call["tags"][0].capitalize(), []).append(row)
    return _sections((tag, _table("call | scope | does", rows)) for tag, rows in sorted(tables.items()))


def _about_call(call: dict[str, Any]) -> str:
    described = (each for each in call.get("parameters", []) if each.get("description"))
    parameters = (f"`{each['name']}`: {_plain(each['description'])}" for each in described)
    return "<br>".join([_plain(call.get("description")), *parameters])


def _scope(app: App, path: str, method: str) -> str:
    """Return the scope that a call requires, as its guard (`kickserve.plugins.requires`) has it."""
    for route in app.routes:
        if re.sub(r":\w+(?=})", "", route.path) != path:
            continue
        for handler in route.route_handlers:
            if method in getattr(handler, "http_methods", ()):
                for guard in handler.resolve_guards():
                    if scope := inspect.getclosurevars(inspect.unwrap(guard)).nonlocals.get("scope"):
                        return f"`{scope.value}`"
    return "open"


def _metrics() -> str:
    families = sorted(text_string_to_metric_families(asyncio.run(_measured())), key=lambda each: each.name)
    return _table(
        "metric | kind | labels | is",
        (
            (
                f"`{each.name}{'_total' if each.type == 'counter' else ''}`",
                each.type,
                ", ".join(f"`{label}`" for label in sorted({*each.samples[0].labels} - {"le"})),
                each.documentation,
            )
            for each in families
        ),
    )


async def _measured() -> str:
    """Return the metrics of a service with a key, whose predictions have outcomes."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load(
            {
                "DATABASE_URL": f"sqlite:///{folder}/kicks.db",
                "KICKSERVE_JOURNAL_DIR": f"{folder}/journal",
                "API_KEY": "x" * 48,
                "KICKSERVE_LEARN": "level,kickers",
            }
        )
        async with client_of(create_app(settings)) as client:
            client.headers["X-API-Key"] = "x" * 48
            answers = (
                await client.post("/predict/batch", json=[EXAMPLE | {"kicker": "Ann"}] * _KICKS)
            ).json()
            outcomes = [{"id": each["id"], "success": True} for each in answers]
            await client.put("/predictions/outcomes", json=outcomes)
            deadline = time.monotonic() + _PATIENCE
            while True:
                text = (await client.get("http://test/metrics")).text
                if all(name in text for name in _MEASURED):
                    return text
                assert time.monotonic() < deadline, text
                await asyncio.sleep(0.1)


def _extras() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    assert extras.keys() == _EXTRAS.keys(), "each extra has its line in ops/reference.py"
    rows = ((f"`{name}`", what, ", ".join(map(_package, extras[name]))) for name, what in _EXTRAS.items())
    return _table("extra | brings | packages", rows)


def _package(requirement: str) -> str:
    """Return the name of a required package; of kickserve itself its extras."""
    if included := re.match(r"kickserve\[(.+)]", requirement):
        return f"those of {included[1].replace(',', ', ')}"
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return f"`{found[0]}`"


def _plugins(group: str) -> str:
    points = sorted(entry_points(group=group), key=lambda point: point.name)
    ours = (point for point in points if point.dist is not None and point.dist.name == "kickserve")
    return _table("plugin | is", ((f"`{point.name}`", _about_package(point.module)) for point in ours))


def _about_package(module: str) -> str:
    """Return the first sentence about a plugin, without its name."""
    text = (ROOT / "plugins" / module.partition(".")[0] / "__init__.py").read_text("utf-8")
    found = re.match(r'"""The plugin `\w+`: (.+?)\.?(?: \(standard\)\.)?(?:"""|\n\n)', text, re.DOTALL)
    assert found is not None, module
    return _plain(found[1])


def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")
        print(f"wrote {(FOLDER / name).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
