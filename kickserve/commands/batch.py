"""`kickserve batch`: many kicks at once, from a file or simulated."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from kickserve import batch, tables
from kickserve.features import NAMES, columns
from kickserve.gauge import Gauge
from kickserve.loader import opened_store
from kickserve.models.loading import load_model
from kickserve.predictor import Predictor
from kickserve.settings import Settings
from kickserve.table_writer import open_writer
from kickserve.terminal import print_facts, print_json, progress, show_refusals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from kickserve.kick_rows import Block
    from kickserve.quality import Quality

_ANSWER_COLUMNS: Final = ("prediction", "confidence", "low", "high", "model", "id")
_OUTPUT: Final = ("line", *NAMES, "success", *_ANSWER_COLUMNS)


@click.command("batch")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--size", type=click.IntRange(1), help="Without a file: how many kicks to simulate.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="For simulated kicks.")
@click.option("--url", help="Base URL of a running service. Without it: in this process, into DATABASE_URL.")
@click.option("--min-distance", type=float, default=0.0, help="Only kicks from this many metres or more.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write kicks and answers to a .csv, .parquet or .ndjson file.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON.")
def command(file: Path | None, size: int | None, *, as_json: bool, **options: Any) -> int:
    r"""Predict and keep the kicks of a CSV, Parquet or NDJSON FILE, or simulated ones.

    A column `success` (1 or 0), where there is one, is compared with the predictions and kept as outcome.

    \b
    Examples:
      kickserve batch kicks.csv --output answers.parquet
      kickserve batch --size 500 --min-distance 40
      kickserve batch kicks.csv --url http://127.0.0.1:7860
    """
    if (file is None) == (size is None):
        raise click.UsageError("give either a file of kicks, or --size for simulated ones")
    summary = asyncio.run(_run(file, size or 0, **options))
    if as_json:
        print_json(summary)
    else:
        _show(summary)
    return batch.ROWS_REFUSED if summary.refused else 0


async def _run(
    file: Path | None, size: int, *, seed: int, url: str | None, min_distance: float, output: Path | None
) -> batch.Summary:
    settings = Settings.from_environment()
    tally = batch.Tally()
    if file is None:
        blocks = batch.simulated(size, seed, min_distance)
    else:
        blocks = batch.only_from(tables.read_blocks(file, size=batch.CHUNK), min_distance, tally)
    async with AsyncExitStack() as stack:
        answerer = await stack.enter_async_context(_answerer(settings, url))
        writer = None if output is None else stack.enter_context(open_writer(output, _OUTPUT))
        bar = stack.enter_context(progress())
        task = bar.add_task("predicting", total=size if file is None else tables.count_rows(file))
        async for answered in batch.run(blocks, answerer, tally, lambda count: bar.advance(task, count)):
            if writer is not None:
                writer.write(_columns(answered))
    return tally.summary()


@asynccontextmanager
async def _answerer(settings: Settings, url: str | None) -> AsyncIterator[batch.Answerer]:
    if url is not None:
        from kickserve.remote import connected

        async with connected(url, settings) as client:
            yield batch.Remote(client)
        return
    model = load_model(settings)
    async with opened_store(settings) as store:
        yield batch.Local(Predictor(model, store.add, Gauge()), store)


def _columns(answered: batch.Answered) -> dict[str, Sequence[Any]]:
    block, predictions = answered
    intervals = [each.interval or (None, None) for each in predictions]
    return {
        "line": block.lines.tolist(),
        **columns(block.matrix),
        "success": _outcomes(block),
        "prediction": [each.prediction for each in predictions],
        "confidence": [each.confidence for each in predictions],
        "low": [low for low, _ in intervals],
        "high": [high for _, high in intervals],
        "model": [each.model for each in predictions],
        "id": [each.id for each in predictions],
    }


def _outcomes(block: Block) -> list[int | None]:
    if block.outcome is None:
        return [None] * len(block.matrix)
    return [None if math.isnan(each) else int(each) for each in block.outcome.tolist()]


def _show(summary: batch.Summary) -> None:
    show_refusals(summary.refusals, summary.refused)
    mean = "none" if summary.mean_prediction is None else f"{summary.mean_prediction:.1%}"
    facts = [
        ("predicted", f"{summary.sent:,}"),
        ("refused", f"{summary.refused:,}"),
        ("mean probability", mean),
        ("rate", f"{summary.rate:,.0f} kicks a second"),
    ]
    if summary.skipped:
        facts.insert(2, ("left out", f"{summary.skipped:,}, by --min-distance"))
    if summary.warned:
        facts.append(("with a warning", f"{summary.warned:,}"))
    print_facts([*facts, *([] if summary.quality is None else quality_facts(summary.quality))])


def quality_facts(quality: Quality) -> list[tuple[str, str]]:
    """Say in words how good predictions were."""
    return [
        ("outcomes known", f"{quality.count:,}, of which {quality.success_rate:.1%} succeeded"),
        ("Brier score", f"{quality.brier:.4f}"),
        ("log loss", f"{quality.log_loss:.4f}"),
        ("ECE", f"{quality.ece:.4f}"),
        ("AUC", "none: all came out alike" if quality.auc is None else f"{quality.auc:.4f}"),
    ]
