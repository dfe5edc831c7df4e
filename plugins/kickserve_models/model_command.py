"""`kickserve model`: what is known of the model, and of one that may take its place."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from kickserve.errors import DataError
from kickserve.loading import load_file, load_model
from kickserve.settings import Settings
from kickserve.terminal import print_facts, print_json, print_table
from kickserve_data import reader
from kickserve_data.kicks import show_refusals
from kickserve_data.scoring import ROWS_REFUSED
from kickserve_models import publish_command as publish
from kickserve_models.checking import MANY, check, compare
from kickserve_models.reliability_plot import reliability_plot

if TYPE_CHECKING:
    from kickserve_data.kicks import RefusedRow
    from kickserve_models.checking import Check, Comparison
    from kickserve_scores.quality import Bin


@click.group("model")
def command() -> None:
    """Look at a model, check one, or publish it."""


command.add_command(publish.command)


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, as GET /api/v1/model answers.")
def show(*, as_json: bool) -> None:
    r"""Show what model is served: what it was trained on, and how well it does.

    \b
    Examples:
      kickserve model show
      KICKSERVE_MODEL=mine.json kickserve model show --json
    """
    card = load_model(Settings.load()).card
    if as_json:
        print_json(card)
        return
    print_facts(
        [
            ("name", f"{card.name}, revision {card.revision}"),
            ("kind", card.kind),
            ("source", card.source),
            ("description", card.description),
            (
                "knows",
                ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in card.domain.items())
                or "not told",
            ),
            ("interval", card.interval or "none"),
            *((f"trained on: {name}", _text(value)) for name, value in card.trained_on.items()),
            *((f"metrics: {name}", _text(value)) for name, value in card.metrics.items()),
        ]
    )


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Kicks with the column success (CSV, Parquet, NDJSON), to compare it with the model in use.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the reliability of both on --data into this file, as SVG.",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def check_command(file: Path, data: Path | None, plot: Path | None, *, as_json: bool) -> int:
    r"""Load a model file, ask it, time it, and compare it with the model in use.

    \b
    Examples:
      kickserve model check kicks.onnx
      kickserve model check kicks.skops --data kicks.csv --plot reliability.svg
      KICKSERVE_ALLOW_PICKLE=1 kickserve model check model.pkl --json
    """
    if plot is not None and data is None:
        raise click.UsageError("--plot needs kicks whose outcome is known: give them with --data")
    settings = Settings.load()
    model = load_file(file, allow_pickle=settings.allow_pickle)
    checked = check(model)
    comparison: Comparison | None = None
    refusals: list[RefusedRow] = []
    if data is not None:
        comparison, refusals = compare(model, load_model(settings), reader.read_blocks(data))
    if plot is not None and comparison is not None:
        _draw(comparison, model.card.name, plot)
    if as_json:
        print_json({"check": checked, "comparison": comparison, "refusals": refusals})
    else:
        _show_check(checked)
        _show_comparison(comparison, refusals)
    return ROWS_REFUSED if refusals else 0


def _show_check(checked: Check) -> None:
    card = checked.model
    print_facts(
        [
            ("name", f"{card.name}, revision {card.revision}"),
            ("kind", card.kind),
            ("description", card.description),
            ("interval", card.interval or "none"),
            ("a typical kick", f"{checked.probability:.1%}"),
            ("one kick", f"{checked.one_us:,.1f} µs"),
            (f"{MANY:,} kicks", f"{checked.many_ms:,.2f} ms"),
        ]
    )


def _show_comparison(comparison: Comparison | None, refusals: list[RefusedRow]) -> None:
    if comparison is None:
        return
    show_refusals(refusals, comparison.refused)
    this, that = comparison.candidate, comparison.current
    name = comparison.in_use.name
    rows = [
        ("kicks", f"{this.count:,}", f"{that.count:,}"),
        ("share that succeeded", f"{this.success_rate:.1%}", f"{that.success_rate:.1%}"),
        ("mean probability", f"{this.mean_prediction:.1%}", f"{that.mean_prediction:.1%}"),
        ("Brier score", f"{this.brier:.4f}", f"{that.brier:.4f}"),
        ("log loss", f"{this.log_loss:.4f}", f"{that.log_loss:.4f}"),
        ("ECE", f"{this.ece:.4f}", f"{that.ece:.4f}"),
        ("AUC", _auc(this.auc), _auc(that.auc)),
    ]
    print_table(["on these kicks", "this model", f"in use: {name}"], rows)
    heads = ["kicks", "this model", "succeeded", "", "kicks", "in use", "succeeded", ""]
    print_table(heads, [(*_bin(a), *_bin(b)) for a, b in zip_longest(this.bins, that.bins)])


def _draw(comparison: Comparison, name: str, file: Path) -> None:
    models = {f"{name} (this model)": comparison.candidate}
    models[f"{comparison.in_use.name} (in use)"] = comparison.current
    try:
        file.write_text(reliability_plot(models), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{file} can't be written: {error.strerror}") from error


def _auc(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _bin(found: Bin | None) -> tuple[str, str, str, str]:
    """Return the cells of one bin: the last says which way the model errs, beyond chance."""
    if found is None:
        return "", "", "", ""
    off = found.success_rate - found.mean_prediction
    mark = "=" if abs(off) <= found.by_chance else "too low" if off > 0 else "too high"
    return f"{found.count:,}", f"{found.mean_prediction:.1%}", f"{found.success_rate:.1%}", mark


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
    return str(value)
