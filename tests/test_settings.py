"""Settings: their sources, and the message about a value that can't be used."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import settings_rows

from kickserve.errors import SettingsError, StoreMisconfigured
from kickserve.plugins import create_store, discover
from kickserve.settings import Settings


def test_unset_variables_have_their_defaults():
    assert Settings.load({}) == Settings()


def test_an_empty_variable_counts_as_unset():
    assert Settings.load({"KICKSERVE_PORT": "", "API_KEY": " "}) == Settings()


def test_values_are_read():
    settings = Settings.load(
        {
            "API_KEY": "sesame",
            "DEBUG": "Yes",
            "KICKSERVE_PORT": "0",
            "KICKSERVE_PLUGINS": "storage, ui",
            "KICKSERVE_BODY_MAX": "500 kB",
            "KICKSERVE_JOURNAL": "FSYNC",
            "KICKSERVE_RETENTION": "90d",
            "KICKSERVE_MODEL": "m.json",
            "KICKSERVE_LOG_LEVEL": "Warning",
        }
    )
    assert settings == Settings(
        api_key="sesame",
        debug=True,
        port=0,
        plugins=("storage", "ui"),
        body_max=500_000,
        journal="fsync",
        retention=timedelta(days=90),
        model=Path("m.json"),
        log_level="warning",
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DEBUG", "perhaps"),
        ("KICKSERVE_PORT", "65536"),
        ("KICKSERVE_PORT", "-1"),
        ("KICKSERVE_WORKERS", "0"),
        ("KICKSERVE_WORKERS", "many"),
        ("KICKSERVE_BODY_MAX", "0"),
        ("KICKSERVE_BODY_MAX", "10 elephants"),
        ("KICKSERVE_SHUTDOWN_TIMEOUT", "soon"),
        ("KICKSERVE_SHUTDOWN_TIMEOUT", "inf"),
        ("KICKSERVE_JOURNAL_MAX", "1"),
        ("KICKSERVE_JOURNAL", "never"),
        ("KICKSERVE_RETENTION", "0d"),
        ("KICKSERVE_RETENTION", "90"),
        ("KICKSERVE_POSTGRES_STATEMENT_CACHE", "-1"),
        ("KICKSERVE_LOG_LEVEL", "loud"),
        ("KICKSERVE_KEYS", "~nobody-of-this-name/keys.json"),
        ("KICKSERVE_RATE", "9" * 5_000 + "/s"),
        ("KICKSERVE_TRUSTED_PROXIES", "9" * 5_000),
        ("KICKSERVE_CORS_ORIGINS", "https://example.org/"),
        ("KICKSERVE_CORS_ORIGINS", "example.org"),
        ("KICKSERVE_ALLOWED_HOSTS", "*.example.org"),
    ],
)
def test_a_value_that_can_not_be_used_is_named_with_its_variable(variable, value):
    with pytest.raises(SettingsError, match=re.escape(f"{variable}='{value}' can't be used: it must be")):
        discover(Settings.load({variable: value}))


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("KICKSERVE_JORNAL", "KICKSERVE_JOURNAL"),
        ("KICKSERVE_WORKER", "KICKSERVE_WORKERS"),
        ("KICKSERVE_API_KEY", "API_KEY"),
        ("KICKSERVE_DRIFT_PSY", "KICKSERVE_DRIFT_PSI"),  # of a plugin that is not loaded
    ],
)
def test_a_misspelt_setting_is_refused_with_the_right_name(variable, meant):
    with pytest.raises(SettingsError, match=f"{variable} is no setting: did you mean {meant}[?]"):
        discover(Settings.load({variable: "1", "KICKSERVE_PLUGINS": "storage"}))


def test_an_unknown_variable_is_warned_of_unless_another_program_sets_it(caplog):
    compose = re.findall(r"\$\{(KICKSERVE_\w+)", (Path(__file__).parents[1] / "compose.yaml").read_text())
    others = {**dict.fromkeys(compose, ""), "KICKSERVE_DRIFT_PSI": "0.3", "KICKSERVE_PLUGINS": "storage"}
    links = {
        "KICKSERVE_PORT": "tcp://10.0.0.1:80",
        "KICKSERVE_SERVICE_HOST": "10.0.0.1",
        "KICKSERVE_SERVICE_PORT_HTTP": "80",
        "KICKSERVE_PORT_80_TCP_ADDR": "10.0.0.1",
        "KICKSERVE_POSTGRES_PORT": "tcp://10.0.0.2:5432",
    }
    settings = Settings.load({**others, **links, "KICKSERVE_QUITE_ANOTHER_THING": "1"})
    discover(settings)
    assert settings.port == 7860
    assert [each.getMessage().split()[2] for each in caplog.records] == ["KICKSERVE_QUITE_ANOTHER_THING"]


def test_a_secret_comes_from_a_file_that_must_hold_one(tmp_path):
    (tmp_path / "key").write_text("\ufeffsesame\r\n")  # as Windows writes it
    (tmp_path / "empty").touch()
    assert Settings.load({"API_KEY_FILE": f"{tmp_path}/key"}).api_key == "sesame"
    for variables, words in [
        ({"API_KEY_FILE": f"{tmp_path}/none"}, "No such file"),
        ({"DATABASE_URL_FILE": f"{tmp_path}/empty"}, "is empty"),
        ({"API_KEY_FILE": f"{tmp_path}/key", "API_KEY": "k"}, "both set"),
    ]:
        with pytest.raises(SettingsError, match=words):
            Settings.load(variables)


@pytest.mark.parametrize(
    "url",
    [
        "sesame",
        "u:sesame@h/d",
        "sqlite://u:sesame@h/x",
        "postgresql://u:sesame@[h",
        "postgresql://u:sesame@℀",
        "sqlite://u:sesame@℀",
    ],
)
def test_no_error_shows_a_password_of_a_database_url(url):
    settings = Settings.load({"DATABASE_URL": url})
    with pytest.raises(StoreMisconfigured) as error:
        create_store(discover(settings), settings.database_url)
    assert "sesame" not in str(error.value)


@pytest.mark.parametrize(
    "origin", ["*", "https://a.example", "http://localhost:3000", "http://[::1]:3000", "tauri://localhost"]
)
def test_an_origin_that_a_browser_may_send_can_be_allowed(origin):
    settings = Settings.load({"KICKSERVE_CORS_ORIGINS": f"{origin}, https://b.example"})
    assert settings.cors_origins == (origin, "https://b.example")


def test_the_environment_comes_before_the_file(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("KICKSERVE_PORT=1234\nAPI_KEY='from file'\nEMPTY\n")
    monkeypatch.setenv("KICKSERVE_PORT", "4321")
    settings = Settings.load()
    assert (settings.port, settings.api_key) == (4321, "from file")


def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / ".env").write_bytes(b"API_KEY=\xff")
    with pytest.raises(SettingsError, match=r"\.env can't be read"):
        Settings.load()


def test_secrets_are_not_shown():
    assert "sesame" not in repr(Settings(api_key="sesame", database_url="postgresql://u:sesame@h/d"))


@pytest.mark.parametrize("url", ["postgresql://u:sesame@[h/d", "postgresql://u:sesame@a]h/d"])
def test_all_of_a_broken_database_url_is_secret(url):
    assert Settings(database_url=url, api_key="a key").secrets() == ["a key", url]


def test_every_setting_has_a_help_that_is_a_sentence():
    assert all(row.description.endswith(".") for row in settings_rows())
