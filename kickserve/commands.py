"""The commands `serve` and `predict`."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import rich_click as click
from rich.text import Text

from kickserve import logs, openapi
from kickserve.app import create_app
from kickserve.auth import weakness
from kickserve.errors import ConfigurationError, KickserveError
from kickserve.features import FEATURES
from kickserve.journal import Journal
from kickserve.loading import load_model
from kickserve.plugins import API, create_authenticator, create_store, discover, open_store
from kickserve.predictor import Scorer
from kickserve.process import ProcessSampler
from kickserve.recorder import Recorder
from kickserve.schemas import kicker_of, matrix
from kickserve.server import bind, run
from kickserve.settings import Settings, local_url, read_environ
from kickserve.terminal import print_facts, print_json, stdout
from kickserve.validation import read_kick

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from kickserve.metrics import Metrics
    from kickserve.middleware import App
    from kickserve.plugins import Plugin
    from kickserve.schemas import Kick, Prediction

Facts = Sequence[tuple[str, str]]
_PATHS: Final = frozenset({"page", "API", "docs"})  # facts that are paths of the service
# Values of options that are left out; distance and angle have none.
_DEFAULTS: dict[str, float | bool] = {"time_norm": 0.5, "wind_speed": 0.0, "precipitation_probability": 0.0}


_log = logging.getLogger(__name__)


@click.command("serve")
@click.option("--host", help="Address to listen on; overrides KICKSERVE_HOST.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="Port to listen on; overrides KICKSERVE_PORT; 0 picks a free port.",
)
@click.option("--workers", type=click.IntRange(1), help="Number of processes; overrides KICKSERVE_WORKERS.")
def serve(host: str | None, port: int | None, workers: int | None) -> int:
    r"""Serve predictions until SIGTERM or Ctrl-C.

    \b
    Examples:
      kickserve serve
      kickserve serve --workers 4
      KICKSERVE_PORT=8000 API_KEY=secret kickserve serve --host 0.0.0.0
    """
    if read_environ().get("KICKSERVE_LOG", "").strip().lower() != "json":
        return _serve(host, port, workers)
    logs.configure(Settings(log="json"))  # for what the settings refuse
    try:
        return _serve(host, port, workers)
    except KickserveError as error:
        _log.critical("%s", error)
        return error.exit_code
    except Exception:  # noqa: BLE001  a bug's traceback must not be what no machine can read
        _log.critical("the service failed with an unexpected error", exc_info=True)
        return 1


def _serve(host: str | None, port: int | None, workers: int | None) -> int:
    settings = Settings.load()
    settings = replace(
        settings,
        host=host or settings.host,
        port=settings.port if port is None else port,
        workers=workers or settings.workers,
    )
    logs.configure(settings)
    plugins = discover(settings)
    logs.configure(settings, plugins)
    if advice := weakness(settings):
        _log.warning(advice)
    code = _serve_alone(settings, plugins) if settings.workers == 1 else _serve_workers(settings, plugins)
    if code == 0:
        _announce(settings, "stopped")
    return code


def _serve_alone(settings: Settings, plugins: Sequence[Plugin]) -> int:
    authenticator = create_authenticator(plugins, settings)
    [listener] = bind(settings, 1, guarded=authenticator.guarded)
    with listener:
        for plugin in plugins:
            plugin.share_memory(1)
        return serve_app(settings, plugins, listener, partial(report_ready, settings, listener))


def _serve_workers(settings: Settings, plugins: Sequence[Plugin]) -> int:
    for plugin in plugins:
        if (code := plugin.serve_workers(settings, plugins)) is not None:
            return code
    raise ConfigurationError("no plugin serves with several workers: serve with KICKSERVE_WORKERS=1")


def serve_app(
    settings: Settings,
    plugins: Sequence[Plugin],
    listener: socket.socket,
    ready: Callable[[Facts], None],
    *,
    metrics: Metrics | None = None,
    lifeline: int | None = None,
) -> int:
    """Make the application, and serve it until SIGTERM or SIGINT.

    Args:
        settings: of the core.
        plugins: made by `discover`.
        listener: a bound socket.
        ready: called with facts about the service when it accepts requests.
        metrics: counters that workers share.
        lifeline: of a worker, as for `server.run`.

    Returns:
        The exit code: 0 where it started and stopped as it should, else 1.
    """
    app = create_app(settings, metrics=metrics, plugins=plugins)
    served = run(app, settings, [listener], lambda: ready(_facts_of_service(app)), lifeline=lifeline)
    return 0 if served else 1


def _facts_of_service(app: App) -> Facts:
    """Return names and values that describe a service to a person."""
    card = app.predictor.model.card
    found = [
        ("API", API),
        ("docs", openapi.PATH),
        ("model", f"{card.name} ({card.source})"),
        ("store", app.store.label),
        (
            "key",
            "needed, in the header X-API-Key" if app.authenticator.guarded else "none: this machine only",
        ),
    ]
    return [("page", app.state.home), *found] if "home" in app.state else found


def report_ready(settings: Settings, listener: socket.socket, found: Facts) -> None:
    """Print that the service is ready, and where."""
    base = local_url(*listener.getsockname()[:2])
    facts = [(name, base + value if name in _PATHS else value) for name, value in found]
    _announce(settings, "[bold]kickserve[/] is ready", facts)


def _announce(settings: Settings, event: str, facts: Facts = ()) -> None:
    """Print an event of the service: for people, or as a JSON document with KICKSERVE_LOG=json."""
    if settings.log == "json":
        said = {"event": Text.from_markup(event).plain, "level": "info", "logger": __name__}
        document = {**said, "timestamp": datetime.now(UTC), **dict(facts)}
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
        sys.stdout.flush()
    else:
        stdout().print(event)
        print_facts(facts)


def _feature_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for feature in reversed(FEATURES):
        name = "--" + feature.name.replace("_", "-")
        if feature.kind == "flag":
            option = click.option(name, feature.name, is_flag=True, help=feature.meaning + ".")
        else:
            option = click.option(
                name,
                feature.name,
                type=float,
                help=feature.doc + ".",
                **_default(feature.name),
            )
        function = option(function)
    return function


def _default(name: str) -> dict[str, Any]:
    # A default of None would count as given.
    return {"default": _DEFAULTS[name], "show_default": True} if name in _DEFAULTS else {"required": True}


@click.command("predict")
@_feature_options
@click.option("--kicker", help="Label of the kicker, which is stored with the prediction.")
@click.option("--keep/--no-keep", default=True, show_default=True, help="Whether to store the prediction.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, like the answer of the API.")
def predict(*, keep: bool, as_json: bool, **fields: float | bool | str | None) -> None:
    r"""Predict one kick.

    \b
    Examples:
      kickserve predict --distance 38 --angle 24
      kickserve predict --distance 52 --angle 5 --wind-speed 25 --is-endgame --json
    """
    kick = read_kick(msgspec.json.encode(fields))
    prediction = asyncio.run(_predict(Settings.load(), kick, keep=keep))
    if as_json:
        print_json(prediction)
    else:
        print_facts(_facts(prediction, kept=keep))


async def _predict(settings: Settings, kick: Kick, *, keep: bool) -> Prediction:
    scorer = Scorer(load_model(settings, discover(settings)), ProcessSampler())
    kicker = kicker_of(kick.kicker)
    batch = scorer.answer(matrix([kick]), None if kicker is None else [kicker])
    if keep:
        async with open_store(settings) as store:
            await store.add([batch])
    return scorer.predictions(batch)[0]


def _facts(prediction: Prediction, *, kept: bool) -> list[tuple[str, str]]:
    facts = [("probability", f"{prediction.prediction:.1%}")]
    if prediction.interval is not None:
        low, high = prediction.interval
        facts.append(("95 % interval", f"{low:.1%} to {high:.1%}"))
    facts += [("warning", warning) for warning in prediction.warnings]
    facts += [("model", prediction.model)]
    return [*facts, ("kept as", prediction.id)] if kept else facts


@click.command("recover")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
def recover(*, as_json: bool) -> int:
    r"""Store dead letters, and what dead processes left in the journal.

    Dead letters are predictions and changes that the store refused, and damaged parts of the journal, as
    /health reports them. What is refused again stays, with exit code 3.

    \b
    Examples:
      kickserve recover
    """
    operations, parts, state = asyncio.run(_recover(Settings.load()))
    if as_json:
        print_json({"operations": operations, "damaged": parts, "state": state})
    else:
        print_facts([("operations", f"{operations:,}"), ("damaged parts", f"{parts:,}"), ("state", state)])
    return 0 if state == "ok" else 3


async def _recover(settings: Settings) -> tuple[int, int, str]:
    store = create_store(discover(settings), settings.database_url)
    journal = Journal.from_settings(settings, store.label)
    recorder = Recorder(store, journal)
    counts = recorder.dead_letters.put_back()
    await recorder.start()
    try:
        await recorder.flush()
    finally:
        await recorder.stop(settings.shutdown_timeout)
    return *counts, recorder.dead_letters.state
