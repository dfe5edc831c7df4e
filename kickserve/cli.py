"""The command line: finds the commands, and turns errors into words and exit codes.

Exit codes: 0 done; 1 failed; 2 used or set up in a way that can't work; 3 done, but rows were refused;
4 drift, where it was to fail on it; 5 too few kicks to say anything; 6 the store or a service is away;
7 done in part: partitions failed, and the same command tries them again.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from kickserve import __version__
from kickserve.errors import KickserveError
from kickserve.terminal import complain, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from click import Command, Context, Group

_INTERRUPTED: Final = 130
_EXAMPLES: Final = re.compile(r"\\b\n(.*\n)")
# Imported when used: `kickserve --version` need not wait for the server's libraries.
COMMANDS: Final[Mapping[str, str]] = {
    "serve": "kickserve.serve_command",
    "predict": "kickserve.predict_command",
    "health": "kickserve.health_command",
    "key": "kickserve.key_command",
}


class _Commands(click.RichGroup):
    """The commands of the core, and below them what plugins bring (`CLIPlugin.on_cli_init`)."""

    def list_commands(self, ctx: Context) -> list[str]:
        try:
            self._ask_plugins(ctx)
        except KickserveError as error:  # help is needed most where something is not set up right
            say(f"the commands of plugins are missing below: {error}")
        return [*COMMANDS, *sorted(super().list_commands(ctx))]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        if cmd_name in COMMANDS:
            command: Command | None = import_module(COMMANDS[cmd_name]).command
        else:
            self._ask_plugins(ctx)
            command = super().get_command(ctx, cmd_name)
        if command is not None:
            _keep_lines(command)
        return command

    def _ask_plugins(self, ctx: Context) -> None:
        if ctx.meta.get(__name__):
            return
        ctx.meta[__name__] = True
        from litestar.plugins import CLIPlugin

        from kickserve.plugins import load_plugins
        from kickserve.settings import Settings

        group: Group = self
        for plugin in load_plugins(Settings.from_environment()):
            if isinstance(plugin, CLIPlugin):
                plugin.on_cli_init(group)


def _keep_lines(command: Command) -> None:
    r"""Have examples shown line by line: what tells click so stands as two letters in a raw docstring.

    Another `\b` stands before the first example: rich-click would else take the margin off all of them.
    """
    command.help = _EXAMPLES.sub("\b\n\\1\b", cleandoc(command.help or ""))
    for each in getattr(command, "commands", {}).values():
        _keep_lines(each)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kickserve")
def cli() -> None:
    """The honest probability that a rugby place kick goes over.

    Settings come from the environment and from the file .env: see README.md, or .env.example.

    Exit codes: 0 done, 1 failed, 2 used or set up in a way that can't work, 3 done but rows were refused,
    4 drift (with --fail-on-drift), 5 too few kicks, 6 the store or a service is away, 7 done in part: some
    partitions failed, and the same command tries them again.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, and exit."""
    sys.exit(run(arguments))


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
    except BrokenPipeError:
        # Whoever read our output has had enough: `kickserve … | head` is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0
