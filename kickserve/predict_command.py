"""`kickserve predict`: one kick, in the terminal, without a server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from kickserve.features import FEATURES
from kickserve.loading import load_model
from kickserve.plugins import opened_store
from kickserve.process import ProcessSampler
from kickserve.schemas import matrix
from kickserve.scorer import Scorer
from kickserve.settings import Settings
from kickserve.terminal import print_facts, print_json
from kickserve.validation import read_kick

if TYPE_CHECKING:
    from collections.abc import Callable

    from kickserve.schemas import Kick, Prediction

# What a kick is taken for where nothing else is said; distance and angle must be given.
_USUAL: dict[str, float | bool] = {"time_norm": 0.5, "wind_speed": 0.0, "precipitation_probability": 0.0}


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
    return {"default": _USUAL[name], "show_default": True} if name in _USUAL else {"required": True}


@click.command("predict")
@_feature_options
@click.option("--keep/--no-keep", default=True, show_default=True, help="Whether to store the prediction.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, as the API answers.")
def command(*, keep: bool, as_json: bool, **features: float | bool) -> None:
    r"""Predict one kick.

    \b
    Examples:
      kickserve predict --distance 38 --angle 24
      kickserve predict --distance 52 --angle 5 --wind-speed 25 --is-endgame --json
    """
    kick = read_kick(msgspec.json.encode(features))
    prediction = asyncio.run(_predict(Settings.from_environment(), kick, keep=keep))
    if as_json:
        print_json(prediction)
    else:
        print_facts(_facts(prediction, kept=keep))


async def _predict(settings: Settings, kick: Kick, *, keep: bool) -> Prediction:
    scorer = Scorer(load_model(settings), ProcessSampler())
    batch = scorer.answer(matrix([kick]))
    if keep:
        async with opened_store(settings) as store:
            await store.add(batch.records())
    return scorer.predictions(batch)[0]


def _facts(prediction: Prediction, *, kept: bool) -> list[tuple[str, str]]:
    facts = [("probability", f"{prediction.prediction:.1%}")]
    if prediction.interval is not None:
        low, high = prediction.interval
        facts.append(("95 % interval", f"{low:.1%} to {high:.1%}"))
    facts += [("warning", warning) for warning in prediction.warnings]
    facts += [("model", prediction.model)]
    return [*facts, ("kept as", prediction.id)] if kept else facts
