"""Plugins: how they are found, their errors, and what a foreign one can do."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
from conftest import configured
from snippets import read

from kickserve.app import create_app
from kickserve.cli import run
from kickserve.errors import ConfigurationError, MissingExtra, StoreMisconfigured, UnknownPlugin
from kickserve.openapi import EXAMPLE
from kickserve.plugins import Plugin, discover
from kickserve.settings import Settings


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with one plugin, as a package from elsewhere would be."""

    def install(name, code, metadata=""):
        module = f"foreign_{name}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {module}\nVersion: 1.0\n{metadata}")
        (info / "entry_points.txt").write_text(f"[kickserve.plugins]\n{name} = {module}:create_plugin\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


FOREIGN = """
    import click
    from litestar import get
    from litestar.plugins import CLIPlugin, InitPlugin

    @get("/greeting", sync_to_thread=False)
    def greeting() -> str:
        return "hello"

    class Greeter(InitPlugin, CLIPlugin):
        def __init__(self, settings):
            self.port = settings.port

        def on_app_init(self, app_config):
            app_config.route_handlers.append(greeting)
            app_config.state["home"] = "/greeting"
            return app_config

        def on_cli_init(self, cli):
            @cli.command("greet")
            def greet():
                click.echo(f"hello on {self.port}")

    def create_plugin(settings):
        return Greeter(settings)
"""


async def test_a_foreign_plugin_brings_routes_and_a_home(install, start, settings):
    install("greeter", FOREIGN)
    client = await start(settings)
    assert (await client.get("http://test/greeting")).text == "hello"
    assert (await client.get("http://test/")).headers["location"] == "/greeting"


def test_a_foreign_plugin_brings_commands(install, capsys):
    install("greeter", FOREIGN)
    assert run(["greet"]) == 0
    assert "hello on 7860" in capsys.readouterr().out
    assert run(["--help"]) == 0
    assert "greet" in capsys.readouterr().out


def test_the_setting_names_the_plugins_to_load(install):
    install("greeter", FOREIGN)
    names = {type(plugin).__module__.partition(".")[0] for plugin in discover(Settings(plugins=("greeter",)))}
    assert "kickserve_access" in names
    assert "kickserve_storage" not in names


def test_without_a_plugin_for_the_store_the_message_names_it(install, capsys, monkeypatch):
    install("greeter", FOREIGN)
    monkeypatch.setenv("KICKSERVE_PLUGINS", "greeter")
    assert run(["batch", "--size", "1"]) == StoreMisconfigured.exit_code
    assert "KICKSERVE_PLUGINS includes the plugin storage" in capsys.readouterr().err


def test_an_unknown_plugin_is_refused_in_one_line_with_the_installed_ones(capsys, monkeypatch):
    with pytest.raises(UnknownPlugin, match=r"'moon'.*installed: .*storage"):
        discover(Settings(plugins=("storage", "moon")))
    monkeypatch.setenv("KICKSERVE_PLUGINS", "moon")
    assert run(["serve"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


EXTRA = "Provides-Extra: greeter\nRequires-Dist: no-such-package-at-all>=1; extra == 'greeter'\n"


def test_a_missing_extra_names_the_command_that_installs_it(install):
    install("greeter", FOREIGN, EXTRA)
    with pytest.raises(MissingExtra, match="no-such-package-at-all: install it with  pip install"):
        discover(Settings(plugins=("greeter",)))


def test_a_plugin_without_its_extra_is_left_out_unless_named(install):
    install("greeter", FOREIGN, EXTRA)
    names = [type(plugin).__name__ for plugin in discover(Settings())]
    assert "StoragePlugin" in names
    assert "Greeter" not in names


def test_a_broken_plugin_shows_its_own_traceback(install):
    install("broken", "import no_such_module_at_all")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        discover(Settings())


async def test_a_plugin_that_forgets_to_return_the_configuration_is_named(install, settings):
    install("forgetful", FOREIGN.replace("return app_config", "return None"))
    with pytest.raises(ConfigurationError, match=r"foreign_forgetful.*must return app_config"):
        create_app(settings)


def test_a_factory_that_returns_something_else_is_named(install):
    install("odd", "def create_plugin(settings): return 7")
    with pytest.raises(ConfigurationError, match=r"'odd'.*returned int"):
        discover(Settings())


@pytest.mark.parametrize("chosen", [True, False])
async def test_a_path_of_a_plugin_that_the_service_is_without_names_the_plugin_and_the_way_to_it(
    start, settings, chosen
):
    few = configured(settings, KICKSERVE_PLUGINS="storage")
    client = await start(few if chosen else settings, plugins=discover(few))
    for path, name in (
        ("/api/v1/profile", "profiling"),
        ("/metrics", "metrics"),
        ("/ui/", "ui"),
        ("/v2/health/live", "oip"),
    ):
        detail = (await client.get(f"http://test{path}")).json()["detail"]
        assert f"the plugin {name} answers" in detail
        assert ("add it to KICKSERVE_PLUGINS" if chosen else f"'kickserve[{name}]'") in detail
    assert "/docs lists all calls" in (await client.get("http://test/metricsish")).json()["detail"]


async def test_the_plugin_of_the_documents_works(install, start, settings):
    document = (Path(__file__).parent.parent / "ops/docs/plugins.md").read_text()
    [code] = [each.text for each in read(document) if each.marks.get("file", "").endswith(".py")]
    install("longest", code)
    client = await start(configured(settings, API_KEY="k"))
    assert (await client.get("/longest")).status_code == 401
    client.headers["X-API-Key"] = "k"
    await client.post("/predict", json=EXAMPLE)
    assert (await client.get("/longest")).json() == {"metres": EXAMPLE["distance"]}
    assert "kickserve_longest_metres 38.0" in (await client.get("http://test/metrics")).text


class Broken(Plugin):
    """A plugin whose hooks all fail."""

    def on_predictions(self, batch):
        raise ZeroDivisionError(len(batch))

    def health(self):
        raise ZeroDivisionError

    def metrics(self):
        raise ZeroDivisionError


async def test_the_bugs_of_a_plugin_concern_that_plugin_alone(start, settings, kick):
    client = await start(settings, plugins=[*discover(settings), Broken(settings)])
    assert (await client.post("/predict", json=kick)).status_code == 200
    parts = (await client.get("/health")).json()["parts"]
    assert parts["model"] == "ok"
    assert "ZeroDivisionError" in parts["Broken"]
    assert "kickserve_predictions_total" in (await client.get("http://test/metrics")).text


def test_two_plugins_of_one_name_are_refused(install):
    install("storage", FOREIGN)
    with pytest.raises(ConfigurationError, match="two plugins are called 'storage'"):
        discover(Settings())
