"""Settings: one table of variables, defaults and help for the core, and the base of the tables of plugins."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values

from kickserve import addresses, kinds
from kickserve.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

# The hub frames the page, and is the only way to a Space.
_ON_A_SPACE: Final = {
    "KICKSERVE_FRAME_ANCESTORS": "https://huggingface.co",
    "KICKSERVE_TRUSTED_PROXIES": "1",
}


class Setting(NamedTuple):
    """A setting.

    Attributes:
        variable: name of the environment variable.
        default: as one would write it.
        description: help.
        parse: reads the text of the variable.
        secret: whether logs and errors hide the value.
    """

    variable: str
    default: str
    description: str
    parse: Callable[[str], Any]
    secret: bool


def setting(
    variable: str, default: str, parse: Callable[[str], Any], description: str, *, secret: bool = False
) -> Any:
    """Make a field of a settings table.

    Args:
        variable: name of the environment variable.
        default: value of the setting where the variable is unset or empty, as one would write it.
        parse: reads the text of the variable, and raises ValueError with a clause that begins with "must".
        description: help, one or two sentences.
        secret: whether logs and errors hide the value.
    """
    made = Setting(variable, default, description, parse, secret)
    return field(default=parse(default), metadata={"setting": made}, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsTable:
    """A table of settings: a field made by `setting` for each."""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings from environment variables; a secret also from the file that `…_FILE` names.

        Args:
            environ: variables by name; by default those of the process, and behind them those of the file
                `.env` in the current folder.

        Raises:
            SettingsError: a variable has a value that can't be used; the message names both.
        """
        environ = read_environ() if environ is None else environ
        return cls(**{name: _parse(each, environ) for name, each in _settings_of(cls).items()})

    @classmethod
    def variables_known(cls) -> set[str]:
        """Return the names of the variables that `load` reads."""
        files = {f"{each.variable}_FILE" for each in cls.rows() if each.secret}
        return {each.variable for each in cls.rows()} | files

    @classmethod
    def rows(cls) -> list[Setting]:
        """Return the settings in their order."""
        return [*_settings_of(cls).values()]

    def secrets(self) -> list[str]:
        """Return the values that no log may show: keys, tokens, passwords."""
        values = [getattr(self, name) for name, each in _settings_of(type(self)).items() if each.secret]
        return [value for value in values if value is not None]

    def variables(self, *names: str) -> dict[str, str]:
        """Return some settings as environment variables, for a child process.

        Args:
            names: of fields whose value is a text, a path, a number, a switch or None.
        """
        settings = _settings_of(type(self))
        return {settings[name].variable: _format(getattr(self, name)) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(SettingsTable):
    """The settings of the core, and the environment that the tables of plugins are read from.

    Attributes:
        environ: variables that `load` was given. Empty where the object was made by hand: plugins then have
            their defaults.
    """

    environ: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    api_key: str | None = setting(
        "API_KEY",
        "",
        kinds.text,
        "Key that clients send as `X-API-Key`. Without `API_KEY` and `KICKSERVE_KEYS`, the service answers"
        " on this machine alone.",
        secret=True,
    )
    trusted_proxies: addresses.Trusted = setting(
        "KICKSERVE_TRUSTED_PROXIES",
        "",
        addresses.proxies,
        "Proxies whose `X-Forwarded-…` headers are trusted: addresses and networks, such as 127.0.0.1 for a"
        " proxy on this machine, or the number of proxies where clients can reach the service only through"
        " them. Empty: none. Unset on a Space of Hugging Face: 1.",
    )
    allowed_hosts: tuple[str, ...] | None = setting(
        "KICKSERVE_ALLOWED_HOSTS",
        "",
        kinds.hosts,
        "Further names in the header `Host` that a service without a key answers, separated by commas; `*`"
        " is any. Names of this machine, such as localhost and 127.0.0.1, are always answered.",
    )
    database_url: str = setting(
        "DATABASE_URL",
        "sqlite:///kickserve.db",
        str.strip,
        "Store of predictions: `sqlite:///file.db`, `sqlite://` for memory, or"
        " `postgresql://user:password@host/database`.",
        secret=True,  # a password may stand in it
    )
    debug: bool = setting(
        "DEBUG", "0", kinds.switch, "Development mode: logs each request, and with more detail."
    )
    access_log: bool = setting(
        "KICKSERVE_ACCESS_LOG",
        "0",
        kinds.switch,
        "Logs each request: address, method, path and status. Costs a part of the fast lane's speed.",
    )
    model: Path | None = setting(
        "KICKSERVE_MODEL",
        "",
        kinds.perhaps(kinds.path),
        "Model to serve: a file, or `hf:owner/name` with an optional `@revision`. Without `KICKSERVE_MODEL`"
        " and `HF_REPO_ID`, the service uses the packaged model.",
    )
    model_timeout: float = setting(
        "KICKSERVE_MODEL_TIMEOUT",
        "10",
        kinds.limit,
        "Seconds that a call of a slow or foreign model may take before it is given up, with 503; of a second"
        " model (`KICKSERVE_SHADOW`) half.",
    )
    host: str = setting("KICKSERVE_HOST", "127.0.0.1", str.strip, "Address to listen on.")
    port: int = setting("KICKSERVE_PORT", "7860", kinds.port, "Port to listen on; 0 picks a free port.")
    workers: int = setting(
        "KICKSERVE_WORKERS",
        "1",
        kinds.count,
        "Number of processes that serve on one port. Recommended: the number of cores.",
    )
    plugins: tuple[str, ...] | None = setting(
        "KICKSERVE_PLUGINS",
        "",
        kinds.names,
        "Names of optional plugins to load, separated by commas. Empty: every plugin whose requirements are"
        " installed.",
    )
    cors_origins: tuple[str, ...] | None = setting(
        "KICKSERVE_CORS_ORIGINS",
        "",
        kinds.asking_origins,
        "Origins whose pages may call the API from a browser, separated by commas. Empty: none.",
    )
    frame_ancestors: tuple[str, ...] | None = setting(
        "KICKSERVE_FRAME_ANCESTORS",
        "",
        kinds.origins,
        "Origins that may show the page in a frame, separated by commas, such as https://huggingface.co."
        " Empty: the page's own origin alone. Unset on a Space of Hugging Face: https://huggingface.co.",
    )
    root_path: str = setting(
        "KICKSERVE_ROOT_PATH",
        "",
        kinds.root_path,
        "Path under which a proxy serves, such as /kicks, whether the proxy removes the path or not."
        " `X-Forwarded-Prefix` of a trusted proxy goes before it.",
    )
    hsts: timedelta | None = setting(
        "KICKSERVE_HSTS",
        "",
        kinds.duration,
        "Time for which browsers must use HTTPS (`Strict-Transport-Security`), such as 365d. Set it only"
        " where the whole host is behind TLS.",
    )
    body_max: int = setting(
        "KICKSERVE_BODY_MAX", "10MB", kinds.size, "Largest request body that the service accepts."
    )
    batch_body_max: int = setting(
        "KICKSERVE_BATCH_BODY_MAX",
        "40MB",
        kinds.size,
        "Largest request body of a batch (`/predict/batch`, `/v2`); the default has room for 100,000 kicks.",
    )
    batch_max: int = setting(
        "KICKSERVE_BATCH_MAX",
        "256",
        kinds.count,
        "Largest number of simultaneous kicks that the model predicts in one call.",
    )
    journal: str = setting(
        "KICKSERVE_JOURNAL",
        "write",
        kinds.one_of("write", "fsync"),
        "Durability of answered predictions: with `write` they survive the death of the process, with"
        " `fsync` also the death of the machine.",
    )
    journal_dir: Path = setting(
        "KICKSERVE_JOURNAL_DIR",
        "kickserve-journal",
        kinds.path,
        "Journal directory: holds predictions until the store has them. Use a local disk, not a network"
        " share.",
    )
    journal_max: int = setting(
        "KICKSERVE_JOURNAL_MAX",
        "1GB",
        kinds.room,
        "Largest journal of a process, 1MB or more. When the journal is full, the service refuses new"
        " predictions with 503; a batch needs 120 bytes for each kick.",
    )
    log: str = setting(
        "KICKSERVE_LOG",
        "auto",
        kinds.one_of("auto", "json", "console"),
        "Log format of `kickserve serve`: `json` writes one document per line, `console` writes for people,"
        " `auto` means `console` in a terminal and `json` elsewhere.",
    )
    log_level: str = setting(
        "KICKSERVE_LOG_LEVEL",
        "info",
        kinds.one_of("critical", "error", "warning", "info", "debug"),
        "Log level: critical, error, warning, info or debug.",
    )
    retention: timedelta | None = setting(
        "KICKSERVE_RETENTION",
        "",
        kinds.duration,
        "Age at which predictions are deleted, such as 90d, 12h or 30m. Empty: never.",
    )
    keep_alive: int = setting(
        "KICKSERVE_KEEP_ALIVE",
        "75",
        kinds.count,
        "Seconds after which an idle connection is closed. Must be longer than a load balancer keeps its own:"
        " 60 of nginx and AWS, 600 of Google Cloud (set 620).",
    )
    shutdown_timeout: float = setting(
        "KICKSERVE_SHUTDOWN_TIMEOUT",
        "30",
        kinds.seconds,
        "Seconds in which the service ends after SIGTERM, whatever hangs: half for requests in progress, the"
        " rest for the store.",
    )

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings as `SettingsTable.load` does.

        On a Space of Hugging Face (`SPACE_ID`) the hub is a trusted proxy, and may show the page in a frame.

        Raises:
            SettingsError: a variable has a value that can't be used; the message names both.
        """
        environ = read_environ() if environ is None else environ
        if environ.get("SPACE_ID"):
            environ = {**_ON_A_SPACE, **environ}
        if environ.get("KICKSERVE_PORT", "").startswith(
            "tcp://"
        ):  # Kubernetes, for a Service named kickserve
            environ = {**environ, "KICKSERVE_PORT": ""}
        return replace(super(Settings, cls).load(environ), environ=environ)

    def secrets(self) -> list[str]:
        """Return the values that no log may show; of the database URL its password alone."""
        found = [each for each in super(Settings, self).secrets() if each != self.database_url]
        try:
            password = urlsplit(self.database_url).password
        except ValueError:  # no URL: the store's error says so
            return [*found, self.database_url]
        return found if password is None else [*found, password, unquote(password)]

    @property
    def own_url(self) -> str:
        """The base URL at which a service with these settings answers on its own machine."""
        return local_url(self.host, self.port)


def local_url(host: str, port: int) -> str:
    """Return the base URL at which a server that listens on `host` answers on its own machine."""
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  asked, not opened
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def read_environ() -> dict[str, str]:
    """Return the environment variables of the process, and behind them those of `.env` in the current folder.

    Raises:
        SettingsError: the file can't be read.
    """
    file = Path(".env")
    try:
        written = dotenv_values(file) if file.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the file {file.absolute()} can't be read: {error}") from error
    return {**{name: value for name, value in written.items() if value is not None}, **os.environ}


def _settings_of(table: type[SettingsTable]) -> dict[str, Setting]:
    """Return the settings of a table by the names of their fields."""
    return {each.name: each.metadata["setting"] for each in fields(table) if each.metadata}


def _parse(setting: Setting, environ: Mapping[str, str]) -> Any:
    text = environ.get(setting.variable, "")
    if setting.secret and (file := environ.get(f"{setting.variable}_FILE")):
        text = _read_secret(setting.variable, text, file)
    try:
        return setting.parse(text if text.strip() else setting.default)
    except ValueError as error:
        shown = "(hidden)" if setting.secret else repr(text)
        raise SettingsError(f"{setting.variable}={shown} can't be used: it {error}") from None


def _read_secret(variable: str, text: str, file: str) -> str:
    """Return the secret in a file, as containers are given secrets.

    Raises:
        SettingsError: the file can't be read or is empty, or the variable itself is set too.
    """
    if text.strip():
        raise SettingsError(f"{variable} and {variable}_FILE are both set: leave one out")
    try:
        secret = Path(file).read_text("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(
            f"{variable}_FILE={file!r} can't be read ({reason}): give the service's user access to it"
        ) from error
    if not secret:
        raise SettingsError(f"{variable}_FILE={file!r} is empty: write the secret into it")
    return secret


def _format(value: Any) -> str:
    """Write a value as its variable has it: a text, a path, a number, a switch or None."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)
