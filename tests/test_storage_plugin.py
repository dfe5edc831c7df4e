"""The storage plugin: which store a URL leads to, and what is told where that can't be."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

import kickserve_storage
from kickserve.errors import MissingExtra, StoreMisconfigured
from kickserve.features import FLAGS
from kickserve.plugins import discover
from kickserve.settings import Settings
from kickserve.store import StoreProvider
from kickserve_storage import columns, create_plugin
from kickserve_testing.contract import START, record_at


@pytest.fixture
def plugin():
    return create_plugin(Settings())


def test_the_plugin_is_found_by_its_entry_point():
    plugins = discover(Settings(plugins=("storage",)))
    assert [isinstance(each, StoreProvider) for each in plugins] == [True]


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite", "SQLite"])
def test_sqlite_is_known_by_any_driver(plugin, scheme):
    assert plugin.create_store(f"{scheme}:////tmp/kicks.db").label == "sqlite:////tmp/kicks.db"


@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg2", "postgres+psycopg"]
)
def test_postgres_is_known_by_any_driver(plugin, scheme):
    store = plugin.create_store(f"{scheme}://app:secret@db.example:5433/kicks")
    assert store.label == "postgresql://app@db.example:5433/kicks"


def test_another_scheme_is_refused(plugin):
    with pytest.raises(StoreMisconfigured, match="mysql"):
        plugin.create_store("mysql://app:secret@db/kicks")


def test_the_statement_cache_of_the_settings_reaches_postgres():
    store = create_plugin(Settings(postgres_statement_cache=0)).create_store("postgresql://db/kicks")
    assert store._server._statement_cache == 0


def test_missing_asyncpg_names_the_extra(plugin, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        kickserve_storage, "find_spec", lambda name: None if name == "asyncpg" else real(name)
    )
    with pytest.raises(MissingExtra, match=r"kickserve\[postgres\]"):
        plugin.create_store("postgresql://db/kicks")


def test_sqlite_does_not_load_the_driver_of_postgres():
    code = (
        "import sys; from kickserve.settings import Settings; from kickserve_storage import create_plugin;"
        "plugin = create_plugin(Settings()); assert 'aiosqlite' not in sys.modules;"
        "plugin.create_store('sqlite://'); assert 'asyncpg' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_record_becomes_a_row_and_back():
    record = record_at(START, error="odd: \N{RUGBY FOOTBALL}")
    row = columns.row_of(record, lambda moment: moment)
    assert len(row) == len(columns.COLUMNS)
    assert columns.record_of(row) == record


def test_flags_stand_where_the_columns_say():
    assert [columns.COLUMNS[at] for at in columns.FLAGS] == list(FLAGS)


@pytest.mark.parametrize(
    ("text", "kept"), [("a\0b", "a\ufffdb"), ("\ud800", "?"), ("é", "é"), ("plain", "plain")]
)
def test_text_is_kept_as_far_as_a_database_can(text, kept):
    assert columns.storable(text) == kept


def test_the_id_after_an_id_carries_over():
    assert columns.after("01900000-0000-7000-8000-00ffffffffff") == "01900000-0000-7000-8000-010000000000"
