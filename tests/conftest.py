"""What all tests share: the real app on a real store in a temporary folder, and a kick."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import AsyncExitStack
from functools import cache
from importlib.abc import MetaPathFinder
from pathlib import Path

import httpx
import hypothesis
import pytest
from debian import Missing
from serving import PATIENCE

from kickserve.app import create_app
from kickserve.cli import run
from kickserve.openapi import EXAMPLE
from kickserve.plugins import discover
from kickserve.settings import Settings
from kickserve_testing.app import client_of

pytest_plugins = ["pages", "postgres"]


hypothesis.settings.register_profile("kickserve", deadline=None)  # a busy machine is no fault of an example
hypothesis.settings.load_profile("kickserve")


@pytest.fixture
def kickserve(capsys):
    """Run a command; return exit code, standard output and standard error."""

    def call(*arguments):
        capsys.readouterr()  # what came before is none of its own
        code = run([str(each) for each in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path, monkeypatch):
    """No setting of the environment reaches a test, and each writes into a folder of its own."""
    for name in [*os.environ]:
        if name.startswith(("KICKSERVE_", "HF_")) or name in {"API_KEY", "DATABASE_URL", "DEBUG", "SPACE_ID"}:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def certificates_are_read_once():
    """Clients that a test makes by the dozen share what they know of certificates: it takes 40 ms to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx._transports.default, "create_ssl_context", cache(httpx.create_ssl_context))
        yield


@pytest.fixture(scope="session", autouse=True)
def clients_are_patient():
    """On a busy machine an answer may take longer than the 5 s that httpx waits by default."""
    with pytest.MonkeyPatch.context() as patch:
        for part in ("connect", "read", "write", "pool"):
            patch.setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, part, PATIENCE)
        yield


@pytest.fixture
def settings(tmp_path):
    return Settings.load(
        {
            "DATABASE_URL": f"sqlite:///{tmp_path}/kicks.db",
            "KICKSERVE_JOURNAL_DIR": f"{tmp_path}/journal",
            "KICKSERVE_SHUTDOWN_TIMEOUT": "5",
        }
    )


def configured(settings, **variables):
    """Return settings with some variables set, of the core and of plugins."""
    return Settings.load({**settings.environ, **variables})


KEYS = {scope: f"kick_{scope}-{'x' * 40}" for scope in ("read", "predict", "admin")}


def key_entry(name, key, scopes, **more):
    """Return an entry of a file of keys."""
    return {"name": name, "scopes": scopes, "sha256": hashlib.sha256(key.encode()).hexdigest(), **more}


def write_keys(file, *more):
    """Write a file with `KEYS`, each named after its scope, and more entries; return its path as text."""
    entries = [key_entry(scope, key, [scope]) for scope, key in KEYS.items()]
    file.write_text(json.dumps({"keys": [*entries, *more]}))
    return str(file)


def settings_rows():
    """Return the rows of all tables of settings: the core's, and those of plugins."""
    tables = [Settings, *(type(plugin.table) for plugin in discover(Settings()) if plugin.table)]
    return [row for table in tables for row in table.rows()]


@pytest.fixture
async def start():
    """Start an app and return a client of it; it is stopped when the test ends."""
    async with AsyncExitStack() as stack:

        async def start(settings, **arguments):
            app = create_app(settings, **arguments)
            client = await stack.enter_async_context(client_of(app))
            client.app = app
            return client

        yield start


@pytest.fixture
async def client(start, settings):
    return await start(settings)


@pytest.fixture
def kick():
    return dict(EXAMPLE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup():
    return (yield from skipping())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    return (yield from skipping())


def skipping():
    """Skip a test for a program that is missing, with the reason."""
    try:
        return (yield)
    except Missing as reason:
        pytest.skip(str(reason))


class SkipsMissing(MetaPathFinder):
    """Skips a test that imports a package that `just test` does not install, `just test-all` does."""

    PACKAGES = frozenset(
        {"axe_playwright_python", "dask", "distributed", "moto", "onnx", "onnxruntime", "playwright"}
        | {"s3fs", "skl2onnx", "tritonclient"}
    )

    def find_spec(self, name, path, target=None):  # noqa: ARG002  as importlib calls it
        if name in self.PACKAGES and _of_tests(sys._getframe()):
            pytest.skip(f"needs {name}: `just test-all` installs it", allow_module_level=True)


def _of_tests(frame):
    """Say whether a file of the tests makes the import; kickserve itself deals with missing packages."""
    while "importlib" in frame.f_code.co_filename or frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return Path(frame.f_code.co_filename).parent == Path(__file__).parent


sys.meta_path.append(SkipsMissing())  # the last, which is asked when no other has found the package

WORKERS_MAX = 4  # more have not been tried


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Spread a whole suite over the cores; picked tests run in one process."""
    option = config.option
    picked = option.keyword or getattr(option, "lf", False) or not all(map(os.path.isdir, config.args))
    return 0 if picked or option.capture == "no" else min(len(os.sched_getaffinity(0)), WORKERS_MAX)


def pytest_sessionfinish(session, exitstatus):
    """In CI nothing may be skipped: the requirements of every test must be there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and exitstatus == 0 and reporter and reporter.stats.get("skipped"):
        reporter.write_line("CI is set, and tests were skipped: that counts as a failure", red=True)
        session.exitstatus = 1
