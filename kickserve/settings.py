"""Every setting in one table: its variable, default and help. Read from the environment and `.env`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from kickserve import addresses, rates
from kickserve import setting_kinds as kinds
from kickserve.environment import surroundings, values_of, written

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta
    from pathlib import Path

_ON_A_SPACE: Final = {"KICKSERVE_FRAME_ANCESTORS": "https://huggingface.co"}


def _setting(
    variable: str, default: str, parse: Callable[[str], Any], description: str, *, secret: bool = False
) -> Any:
    metadata = {
        "variable": variable,
        "default": default,
        "parse": parse,
        "description": description,
        "secret": secret,
    }
    return field(default=parse(default), metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the service is told by its surroundings.

    Each line is a setting: its variable, its default as one would write it, what reads it, and its help.
    """

    api_key: str | None = _setting(
        "API_KEY",
        "",
        kinds.text,
        "Key that clients send as `X-API-Key`. Without it and `KICKSERVE_KEYS` the service answers on this"
        " machine alone.",
        secret=True,
    )
    keys: Path | None = _setting(
        "KICKSERVE_KEYS",
        "",
        kinds.perhaps(kinds.path),
        "File of more keys, each with a name and what it may do: `kickserve key new` adds one, without a"
        " restart.",
    )
    rate: rates.Rate | None = _setting(
        "KICKSERVE_RATE",
        "",
        rates.rate,
        "How often each key may ask, such as 100/s, 5000/m or 100000/h. Of a batch, 100 kicks count as one"
        " request. Empty: as often as it likes.",
    )
    rate_address: rates.Rate | None = _setting(
        "KICKSERVE_RATE_ADDRESS", "", rates.rate, "The same for each address of clients; of IPv6, each /64."
    )
    rate_failures: rates.Rate | None = _setting(
        "KICKSERVE_RATE_FAILURES",
        "20/m",
        rates.rate,
        "How many wrong keys an address may send before it is not listened to for a while; 0: any number.",
    )
    trusted_proxies: addresses.Trusted = _setting(
        "KICKSERVE_TRUSTED_PROXIES",
        "127.0.0.1,::1",
        addresses.proxies,
        "Whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed: addresses and networks of proxies; or"
        " how many there are, where nothing else can reach the service.",
    )
    database_url: str = _setting(
        "DATABASE_URL",
        "sqlite:///kickserve.db",
        str.strip,
        "Where predictions are kept: `sqlite:///file.db`, `sqlite://` for memory, or"
        " `postgresql://user:password@host/database`.",
        secret=True,  # a password may stand in it
    )
    debug: bool = _setting(
        "DEBUG", "0", kinds.switch, "Development: logs each request, and more of everything."
    )
    hf_repo_id: str | None = _setting(
        "HF_REPO_ID", "", kinds.text, "Repository on the Hugging Face hub to take the model from."
    )
    hf_revision: str = _setting(
        "HF_REVISION", "main", str.strip, "Branch, tag or commit of `HF_REPO_ID`; a commit never changes."
    )
    hf_token: str | None = _setting(
        "HF_TOKEN", "", kinds.text, "Token for a repository on the hub that is private or gated.", secret=True
    )
    hf_offline: bool = _setting(
        "HF_HUB_OFFLINE",
        "0",
        kinds.switch,
        "Whether to take the hub's files from this machine's cache alone.",
    )
    model: Path | None = _setting(
        "KICKSERVE_MODEL",
        "",
        kinds.perhaps(kinds.path),
        "A model file to serve. Without it and `HF_REPO_ID`: the model that ships with kickserve.",
    )
    allow_pickle: bool = _setting(
        "KICKSERVE_ALLOW_PICKLE",
        "0",
        kinds.switch,
        "Whether a model may be a pickle (.pkl, .pickle, .joblib): it runs the code that is in it.",
    )
    shadow: str | None = _setting(
        "KICKSERVE_SHADOW",
        "",
        kinds.text,
        "A second model that is asked as well, off the path, to compare it in `/quality`: a file,"
        " `hf:owner/name` (with `@revision` where wanted), or `default` for the one that ships.",
    )
    host: str = _setting("KICKSERVE_HOST", "127.0.0.1", str.strip, "Address to listen on.")
    port: int = _setting("KICKSERVE_PORT", "7860", kinds.port, "Port to listen on; 0 picks a free one.")
    workers: int = _setting(
        "KICKSERVE_WORKERS",
        "1",
        kinds.count,
        "Processes that serve, on one port. As many as there are cores.",
    )
    plugins: tuple[str, ...] | None = _setting(
        "KICKSERVE_PLUGINS",
        "",
        kinds.names,
        "Plugins to load, by name, separated by commas. Empty: all that are installed with what they need.",
    )
    cors_origins: tuple[str, ...] | None = _setting(
        "KICKSERVE_CORS_ORIGINS",
        "",
        kinds.asking_origins,
        "Origins whose pages may call the API from a browser, separated by commas. Empty: none.",
    )
    frame_ancestors: tuple[str, ...] | None = _setting(
        "KICKSERVE_FRAME_ANCESTORS",
        "",
        kinds.origins,
        "Origins that may show the page in a frame, such as https://huggingface.co, separated by commas."
        " Empty: only its own. Not set on a Space of Hugging Face: the hub's.",
    )
    hsts: timedelta | None = _setting(
        "KICKSERVE_HSTS",
        "",
        kinds.duration,
        "How long browsers are to come by HTTPS alone (`Strict-Transport-Security`), such as 365d. Only where"
        " all of the host is behind TLS.",
    )
    body_max: int = _setting(
        "KICKSERVE_BODY_MAX", "10MB", kinds.size, "Largest body of a request that is read."
    )
    batch_body_max: int = _setting(
        "KICKSERVE_BATCH_BODY_MAX",
        "40MB",
        kinds.size,
        "The same for batches (`/predict/batch`, `/v2`): 100,000 kicks fit.",
    )
    client_timeout: float = _setting(
        "KICKSERVE_CLIENT_TIMEOUT",
        "30",
        kinds.seconds,
        "Seconds that a client has for the head of a request, for its body (and one more for each 500 bytes)"
        " and for taking the answer (likewise). 0: no limit.",
    )
    connections_max: int = _setting(
        "KICKSERVE_CONNECTIONS_MAX",
        "10000",
        kinds.count,
        "Open connections of a process, at most; fewer where the system allows fewer open files. Others are"
        " answered 503.",
    )
    batch_max: int = _setting(
        "KICKSERVE_BATCH_MAX",
        "256",
        kinds.count,
        "Kicks that come in at the same time and are put to the model together, at most.",
    )
    fastlane: bool = _setting(
        "KICKSERVE_FASTLANE",
        "1",
        kinds.switch,
        "Whether `/predict` goes around the framework's router. It answers the same either way.",
    )
    journal: str = _setting(
        "KICKSERVE_JOURNAL",
        "write",
        kinds.one_of("write", "fsync"),
        "What an answered prediction survives: `write` the death of the process, `fsync` of the machine too.",
    )
    journal_dir: Path = _setting(
        "KICKSERVE_JOURNAL_DIR",
        "kickserve-journal",
        kinds.path,
        "Folder where predictions stand until the store has them. On a disk of this machine, not a share.",
    )
    journal_max: int = _setting(
        "KICKSERVE_JOURNAL_MAX",
        "1GB",
        kinds.size,
        "Largest journal of a process. Beyond it, new predictions are refused with 503 rather than lost; a"
        " batch needs room for all of it, 120 bytes a kick.",
    )
    log: str = _setting(
        "KICKSERVE_LOG",
        "auto",
        kinds.one_of("auto", "json", "console"),
        "How `kickserve serve` logs: `json`, a document a line; `console`, for people; `auto`, for people in"
        " a terminal and JSON elsewhere.",
    )
    log_level: str = _setting(
        "KICKSERVE_LOG_LEVEL",
        "info",
        kinds.one_of("critical", "error", "warning", "info", "debug"),
        "critical, error, warning, info or debug.",
    )
    postgres_statement_cache: int = _setting(
        "KICKSERVE_POSTGRES_STATEMENT_CACHE",
        "100",
        kinds.whole,
        "Statements that a Postgres connection keeps prepared. 0 behind pgbouncer.",
    )
    profile_dir: Path = _setting(
        "KICKSERVE_PROFILE_DIR",
        "profiles",
        kinds.path,
        "Folder for the profiles of requests.",
    )
    profile_every: int | None = _setting(
        "KICKSERVE_PROFILE_EVERY",
        "",
        kinds.perhaps(kinds.whole),
        "Profiles every n-th request; 0 none. Empty: each where `DEBUG` is on, none otherwise.",
    )
    profile_keep: int = _setting(
        "KICKSERVE_PROFILE_KEEP",
        "200",
        kinds.count,
        "Profiles of requests that are kept; the oldest go first.",
    )
    profile_max: int = _setting(
        "KICKSERVE_PROFILE_MAX", "50MB", kinds.size, "What they may take on the disk altogether."
    )
    retention: timedelta | None = _setting(
        "KICKSERVE_RETENTION",
        "",
        kinds.duration,
        "How long predictions are kept, such as 90d, 12h or 30m. Empty: for ever.",
    )
    reports: Path = _setting(
        "KICKSERVE_REPORTS",
        "data/drift_reports",
        kinds.path,
        "Folder of the reports of drift.",
    )
    drift_psi: float = _setting(
        "KICKSERVE_DRIFT_PSI",
        "0.1",
        kinds.number,
        "Population stability index from which a feature counts as drifted; with few kicks, a higher one.",
    )
    drift_share: float = _setting(
        "KICKSERVE_DRIFT_SHARE",
        "0.5",
        kinds.part,
        "Share of drifted features from which the kicks as a whole count as drifted.",
    )
    drift_window: int = _setting(
        "KICKSERVE_DRIFT_WINDOW",
        "500",
        kinds.count,
        "Newest kicks that the live figures of drift are of; more where they come in less than a minute.",
    )
    drift_every: timedelta | None = _setting(
        "KICKSERVE_DRIFT_EVERY",
        "",
        kinds.duration,
        "How often a full report of drift is made, such as 1d, 12h or 30m. Empty: when it is asked for.",
    )
    drift_webhook: str | None = _setting(
        "KICKSERVE_DRIFT_WEBHOOK",
        "",
        kinds.web_address,
        "Address that is told when the kicks have drifted, and when they have come back.",
        secret=True,  # often a token stands in it
    )
    drift_secret: str | None = _setting(
        "KICKSERVE_DRIFT_SECRET",
        "",
        kinds.text,
        "Signs what is sent to `KICKSERVE_DRIFT_WEBHOOK` (HMAC-SHA256), so that it can be trusted there.",
        secret=True,
    )
    evidently_url: str | None = _setting(
        "KICKSERVE_EVIDENTLY_URL",
        "",
        kinds.text,
        "Evidently workspace that reports are uploaded to: an address or a folder. Empty: none.",
    )
    evidently_project: str = _setting(
        "KICKSERVE_EVIDENTLY_PROJECT",
        "kickserve",
        str.strip,
        "Project in that workspace; made where it is missing.",
    )
    evidently_key: str | None = _setting(
        "KICKSERVE_EVIDENTLY_KEY",
        "",
        kinds.text,
        "Secret of that workspace, or API key of Evidently Cloud.",
        secret=True,
    )
    shutdown_timeout: float = _setting(
        "KICKSERVE_SHUTDOWN_TIMEOUT",
        "30",
        kinds.seconds,
        "Seconds that requests under way and the store get to finish after SIGTERM.",
    )

    @property
    def guarded(self) -> bool:
        """Whether clients need a key."""
        return self.api_key is not None or self.keys is not None

    def secrets(self) -> list[str]:
        """Return what must be in no log: keys, tokens, passwords."""
        values = [getattr(self, each.name) for each in fields(self) if each.metadata["secret"]]
        found = [each for each in values if each is not None and each != self.database_url]
        try:
            password = urlsplit(self.database_url).password
        except ValueError:  # no URL: who opens the store says so
            return [*found, self.database_url]
        return found if password is None else [*found, password, unquote(password)]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings.

        Args:
            environment: variables to read instead of the process's own and of the `.env` file in the
                current folder. The process's variables go before those of the file. On a Space of Hugging
                Face (`SPACE_ID`) the hub, which shows it in a frame, need not be named.

        Raises:
            SettingsError: a variable has a value that can't be used; the message names both.
        """
        said = surroundings() if environment is None else environment
        return cls(**values_of(fields(cls), {**_ON_A_SPACE, **said} if said.get("SPACE_ID") else said))

    @property
    def own_url(self) -> str:
        """The base URL at which a service with these settings answers on its own machine."""
        return url_of(self.host, self.port)

    def variables(self, *names: str) -> dict[str, str]:
        """Return some of these settings as variables, for a process that is to have the same.

        Args:
            names: of attributes whose value is a text, a path, a number, a switch or nothing.
        """
        by_name = {each.name: each.metadata["variable"] for each in fields(self)}
        return {by_name[name]: written(getattr(self, name)) for name in names}


def url_of(host: str, port: int) -> str:
    """Return the base URL at which what listens there answers on its own machine."""
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  it is asked, not opened
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Row(NamedTuple):
    """One line of the table of settings, for the documentation."""

    variable: str
    default: str
    description: str


def table() -> list[Row]:
    """Return the settings as rows for documentation and tests."""
    return [Row(*(each.metadata[key] for key in Row._fields)) for each in fields(Settings)]
