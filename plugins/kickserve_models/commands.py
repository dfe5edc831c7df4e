"""`kickserve model`: shows the model in use, checks another against it, and publishes one."""

from __future__ import annotations

import asyncio
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from kickserve.errors import RemoteError
from kickserve.plugins import (
    ServiceUrl,
    Settings,
    discover,
    load_model,
    load_source,
    print_facts,
    print_json,
    print_table,
    say,
    stdout,
)
from kickserve_client.client import connected
from kickserve_data import reader
from kickserve_data.kicks import show_refusals
from kickserve_data.scoring import ROWS_REFUSED
from kickserve_models.checking import EXIT_CODES, MANY, check, compare
from kickserve_models.settings import ModelsSettings

if TYPE_CHECKING:
    from kickserve.schemas import ModelCard
    from kickserve_data.kicks import RefusedRow
    from kickserve_models.checking import Check, Comparison
    from kickserve_models.publishing import Publication
    from kickserve_scores.quality import Bin


@click.group("model")
def command() -> None:
    r"""Show, check or publish a model.

    \b
    Examples:
      kickserve model show
      kickserve model check mine.skops --data season.csv
    """


@command.command("show")
@click.option(
    "--url", type=ServiceUrl(), help="Base URL of a running service. Default: the model of the settings."
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON, like the answer of GET /api/v1/model.")
def show(*, url: str | None, as_json: bool) -> None:
    r"""Show the model in use: its training data, and its quality.

    \b
    Examples:
      kickserve model show
      kickserve model show --url http://127.0.0.1:7860
      KICKSERVE_MODEL=mine.json kickserve model show --json
    """
    settings = Settings.load()
    card = (
        load_model(settings, discover(settings)).card if url is None else asyncio.run(_served(url, settings))
    )
    if as_json:
        print_json(card)
        return
    domain = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in card.domain.items())
    facts = _facts(card)
    facts.insert(2, ("source", card.source))
    facts.insert(4, ("training range", domain or "unknown"))
    facts += [(f"trained on: {name}", _text(value)) for name, value in card.trained_on.items()]
    facts += [(f"metrics: {name}", _text(value)) for name, value in card.metrics.items()]
    print_facts(facts)


async def _served(url: str, settings: Settings) -> ModelCard:
    async with connected(url, settings) as client:
        return await client.model()


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Kicks with the column success (CSV, Parquet, NDJSON), for a comparison with the model in use.",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def check_command(file: Path, data: Path | None, *, as_json: bool) -> int:
    r"""Load a model file, measure its speed, and compare it with the model in use.

    \b
    Examples:
      kickserve model check kicks.onnx
      kickserve model check kicks.skops --data kicks.csv
      KICKSERVE_ALLOW_PICKLE=1 kickserve model check model.pkl --json

    With --data the exit code is 8 for a model that should not be served, because it is upside down or worse
    than always saying the share of successes, and 9 for one that is worse than the model in use.
    """
    settings = Settings.load()
    plugins = discover(settings)
    model = load_source(str(file), plugins)
    checked = check(model)
    comparison: Comparison | None = None
    refusals: list[RefusedRow] = []
    if data is not None:
        comparison, refusals = compare(model, load_model(settings, plugins), reader.read_blocks(data))
    if as_json:
        print_json({"check": checked, "comparison": comparison, "refusals": refusals})
    else:
        _show_check(checked)
        if comparison is not None:
            show_refusals(refusals, comparison.refused)
            _show_comparison(comparison)
    code = EXIT_CODES[comparison.verdict.kind] if comparison is not None else 0
    return code or (ROWS_REFUSED if refusals else 0)


@command.command("publish")
@click.argument("repository", metavar="REPO_ID")
@click.option("--file", type=click.Path(path_type=Path), help="Model file. Default: KICKSERVE_MODEL.")
@click.option("--upload", is_flag=True, help="Upload model and card. Default: show card and files.")
@click.option("--public", is_flag=True, help="Make a new repository public instead of private.")
@click.option("--license", "licence", help="Identifier of the licence on the hub, such as mit.")
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON.")
def publish_command(
    repository: str,
    file: Path | None,
    licence: str | None,
    *,
    upload: bool,
    public: bool,
    as_json: bool,
) -> None:
    r"""Publish a model on the Hugging Face hub, with a card of its origin and quality.

    Nothing is uploaded without --upload. Files of the same names are replaced, and stay in the repository's
    history.

    \b
    Examples:
      kickserve model publish me/kicks --file model.json
      HF_TOKEN=... kickserve model publish me/kicks --file model.json --public --license mit --upload
    """
    from kickserve_models.publishing import (  # the hub's library takes its time
        check_publishable,
        prepare,
        publish,
    )

    settings = Settings.load()
    chosen = file or settings.model
    if chosen is None:
        raise click.UsageError("name a model with --file model.json, or in KICKSERVE_MODEL")
    # Loaded as the service would: a model that can't serve is not published.
    check_publishable(repository, chosen)
    card = load_source(str(chosen), discover(settings)).card
    publication = prepare(repository, chosen, card, private=not public, licence=licence)
    hub = ModelsSettings.load(settings.environ)
    if upload and hub.hf_offline:
        raise RemoteError("HF_HUB_OFFLINE is set: unset it to publish")
    if upload:
        publication = publish(publication, hub.hf_token)
    if as_json:
        print_json(_summary(publication))
    else:
        _show_publication(publication)


def _facts(card: ModelCard) -> list[tuple[str, str]]:
    return [
        ("name", f"{card.name}, revision {card.revision}"),
        ("kind", card.kind),
        ("description", card.description),
        *([("assumed effects", ", ".join(card.assumed))] if card.assumed else []),
        ("interval", card.interval or "none"),
    ]


def _show_check(checked: Check) -> None:
    print_facts(
        [
            *_facts(checked.model),
            ("a typical kick", f"{checked.probability:.1%}"),
            ("one kick", f"{checked.one_us:,.1f} µs"),
            (f"{MANY:,} kicks", f"{checked.many_ms:,.2f} ms"),
        ]
    )


def _show_comparison(comparison: Comparison) -> None:
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
    stdout().print(f"\nThe model is {comparison.verdict.text}.", soft_wrap=True)


def _auc(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _bin(found: Bin | None) -> tuple[str, str, str, str]:
    """Return the cells of one bin: the last names the direction of an error beyond chance."""
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


def _summary(publication: Publication) -> dict[str, object]:
    return {
        "repository": publication.repository,
        "private": publication.private,
        "files": {name: len(data) for name, data in publication.files.items()},
        "uploaded": publication.commit is not None,
        "commit": publication.commit,
        "url": publication.url,
    }


def _show_publication(publication: Publication) -> None:
    if publication.commit is None:
        stdout().print(publication.files["README.md"].decode(), markup=False, soft_wrap=True)
    kind = "private" if publication.private else "public"
    facts = [("repository", f"{publication.repository}, {kind} where it is new")]
    facts += [("file", f"{name}, {len(data):,} bytes") for name, data in publication.files.items()]
    if publication.commit is not None:
        serve = f"HF_REPO_ID={publication.repository} HF_REVISION={publication.commit} kickserve serve"
        facts += [("published", publication.url or ""), ("serve it with", serve)]
    print_facts(facts)
    if publication.commit is None:
        say("Nothing was uploaded: --upload publishes the model with the card above.")
