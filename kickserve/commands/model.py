"""`kickserve model`: what is known of the model."""

from __future__ import annotations

from typing import Any

import rich_click as click

from kickserve.models.loading import load_model
from kickserve.settings import Settings
from kickserve.terminal import print_facts, print_json


@click.group("model")
def command() -> None:
    """Look at the model that the settings name."""


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, as GET /api/v1/model answers.")
def show(*, as_json: bool) -> None:
    r"""Show what model is served: what it was trained on, and how well it does.

    \b
    Examples:
      kickserve model show
      KICKSERVE_MODEL=mine.json kickserve model show --json
    """
    card = load_model(Settings.from_environment()).card
    if as_json:
        print_json(card)
        return
    print_facts(
        [
            ("name", f"{card.name}, revision {card.revision}"),
            ("kind", card.kind),
            ("source", card.source),
            ("description", card.description),
            ("knows", ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in card.domain.items())),
            ("interval", card.interval or "none"),
            *((f"trained on: {name}", _text(value)) for name, value in card.trained_on.items()),
            *((f"metrics: {name}", _text(value)) for name, value in card.metrics.items()),
        ]
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
    return str(value)
