"""The command line: finds the commands, and turns errors into words and exit codes.

The help of `kickserve` lists the exit codes.
"""

from __future__ import annotations

import errno
import gc
import http.client
import io
import json
import os
import re
import sys
from importlib import import_module
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import rich_click as click

from kickserve import __version__
from kickserve.errors import KickserveError
from kickserve.settings import Settings
from kickserve.terminal import FiniteRange, ServiceUrl, complain, print_facts, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from click import Command, Context, Group

_INTERRUPTED: Final = 130
# Objects that come to be before the collector looks for cycles among them, and rounds before it looks among
# older ones. Imports and predictions make hardly any cycles, and Python's default takes a tenth of the start
# and half of the time of a batch. A plugin that makes many has them collected itself, as the page does.
_COLLECT: Final = (20_000, 5, 50)
_HEALTH: Final = "/api/v1/health/ready"
_EXAMPLES: Final = re.compile(r"\\b\n(.*\n)")
# Imported when used: `kickserve --version` and `kickserve health` need none of the server's libraries.
_COMMANDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("serve", "predict", "recover"), "kickserve.commands"),
    "doctor": "kickserve.doctor",
}


class _Commands(click.RichGroup):
    """The commands of the core, and below them what plugins bring (`CLIPlugin.on_cli_init`)."""

    def list_commands(self, ctx: Context) -> list[str]:
        try:
            self._ask_plugins(ctx)
        except KickserveError as error:  # help is needed most where something is not set up right
            say(f"commands of plugins are missing: {error}")
        return [*_COMMANDS, *sorted(super().list_commands(ctx))]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        if cmd_name in _COMMANDS:
            command: Command | None = getattr(import_module(_COMMANDS[cmd_name]), cmd_name)
        else:
            if super().get_command(ctx, cmd_name) is None:
                self._ask_plugins(ctx)
            command = super().get_command(ctx, cmd_name)
        if command is not None:
            _keep_lines(command)
        return command

    def invoke(self, ctx: Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, where an error can still be said
        except SystemExit:
            return 0  # rich ends so at a closed pipe
        except OSError as error:
            if error.errno not in {errno.EPIPE, errno.ENOSPC}:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest is dropped
            if error.errno == errno.EPIPE:
                return 0  # the reader has closed the pipe: `kickserve … | head` is no error
            complain(f"the output can't be written: {error.strerror}")
            return 1
        return result

    def _ask_plugins(self, ctx: Context) -> None:
        if ctx.meta.get(__name__):
            return
        ctx.meta[__name__] = True
        from kickserve.plugins import discover

        group: Group = self
        for plugin in discover(Settings.load()):
            plugin.on_cli_init(group)


def _keep_lines(command: Command) -> None:
    r"""Mark the examples of a docstring so that click keeps their lines.

    Commands write `\b` as two letters in raw docstrings. A second one goes before the first example, because
    rich-click would remove the margin of all of them.
    """
    command.help = _EXAMPLES.sub("\b\n\\1\b", cleandoc(command.help or ""))
    for each in getattr(command, "commands", {}).values():
        _keep_lines(each)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kickserve")
def cli() -> None:
    r"""The honest probability that a rugby place kick goes over.

    Settings come from the environment and from the file .env: .env.example lists them.

    Exit codes: 0 done, 1 failed, 2 wrong use or wrong settings, 3 done but rows were refused, 4 drift (with
    --fail-on-drift), 5 too few kicks, 6 the store or a service can't be reached: retry later, 7 done in part:
    the same command retries the failed partitions, 8 a model that should not be served, 9 a model worse than
    the one in use (both of model check), 130 interrupted.

    \b
    Examples:
      kickserve predict --distance 38 --angle 24
      kickserve batch kicks.csv --output answers.csv
      kickserve serve
    """


_keep_lines(cli)


@cli.command("health")
@click.option(
    "--url", type=ServiceUrl(), help="Base URL of the service. Default: the address in the settings."
)
@click.option("--timeout", type=FiniteRange(0.1), default=2.0, help="Seconds to wait for an answer.")
def health(url: str | None, timeout: float) -> int:
    r"""Check whether a running service accepts predictions: exit code 0 if so, else 1.

    A service without its store still accepts predictions: the journal holds them.

    \b
    Examples:
      kickserve health
      kickserve health --url http://127.0.0.1:8000
    """
    base = url or Settings.load().own_url
    try:
        status, answer = _ask(base, timeout)
    except (OSError, ValueError, http.client.HTTPException) as error:
        say(f"no service answers at {base} ({type(error).__name__}: {error})")
        return 1
    if not isinstance(answer, dict) or "parts" not in answer:
        say(f"the service at {base} is not kickserve; is the URL right?")
        return 1
    print_facts([("status", answer["status"]), *answer["parts"].items()])
    return 0 if status == http.client.OK else 1


def _ask(base: str, timeout: float) -> tuple[int, Any]:
    address = urlsplit(base)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.netloc, timeout=timeout)
    try:
        connection.request("GET", address.path.rstrip("/") + _HEALTH)
        response = connection.getresponse()
        return response.status, _decoded(response.read())
    finally:
        connection.close()


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, and exit."""
    gc.set_threshold(*_COLLECT)
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal has a °, and not every name is UTF-8
    sys.exit(run(arguments))


def _open_closed_streams() -> None:
    """Open the standard streams that the caller closed: else the next files would take their numbers."""
    for name, flag in (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flag), "w" if flag else "r"))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; those of the process where not given.

    Returns:
        The exit code.
    """
    try:
        result: Any = cli.main(arguments, prog_name="kickserve", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return _INTERRUPTED
    except KickserveError as error:
        complain(str(error))
        return error.exit_code
    return result if isinstance(result, int) else 0
