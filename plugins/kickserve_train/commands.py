"""`kickserve simulate` writes kicks from published figures; `kickserve train` fits a model to kicks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import rich_click as click

from kickserve.features import NAMES, columns
from kickserve.plugins import (
    ModelUnusable,
    Settings,
    discover,
    load_model,
    print_facts,
    print_json,
    progress,
    say,
    wrong_name,
)
from kickserve_data import DataError
from kickserve_data.columns import features_of
from kickserve_data.kicks import show_refusals
from kickserve_data.reader import count_rows
from kickserve_data.scoring import REFUSALS_KEPT, ROWS_REFUSED
from kickserve_data.simulate import blocks
from kickserve_data.writer import open_writer
from kickserve_train.checks import check
from kickserve_train.dataset import ColumnNames, read_dataset
from kickserve_train.default import DEFAULT_SEED, DEFAULT_SIZE, MEASURED, PASSES, train_default
from kickserve_train.families import KINDS
from kickserve_train.report import TrainingReport, show
from kickserve_train.serialization import Document, encode
from kickserve_train.training import FOLDS, STARTS, TrainingConfig, TrainingRun

if TYPE_CHECKING:
    from kickserve.plugins import Model
    from kickserve_data.kicks import RefusedRow
    from kickserve_train.dataset import Dataset

_NEED_DATA = ("kind", "start", "column", "outcome", "kicker", "wind_in_ms", "name", "force")
"""Options of a training on a file."""


@click.command("simulate")
@click.option("--size", type=click.IntRange(1), default=1_000, show_default=True, help="How many kicks.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same kicks.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="A file: .csv, .parquet or .ndjson.",
)
@click.option("--kickers", type=click.IntRange(1), help="How many kickers, named in a column `kicker`.")
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON.")
def simulate_command(size: int, seed: int, output: Path, kickers: int | None, *, as_json: bool) -> None:
    r"""Simulate kicks and their outcomes.

    \b
    Examples:
      kickserve simulate --size 100000 --seed 7 --output kicks.parquet
      kickserve simulate --output kicks.csv && kickserve batch kicks.csv
      kickserve simulate --size 2000 --kickers 12 --output season.csv && kickserve kickers season.csv
    """
    successes = 0
    names = np.array([f"kicker {number}" for number in range(1, (kickers or 0) + 1)])
    fields = [*NAMES, "success"] if kickers is None else [*NAMES, "kicker", "success"]
    with progress() as bar, open_writer(output, fields) as writer:
        task = bar.add_task("simulating", total=size)
        for kicks in blocks(size, seed, kickers=kickers):
            kicker = {} if kicks.kicker is None else {"kicker": names[kicks.kicker]}
            writer.write({**columns(kicks.matrix), **kicker, "success": kicks.success.astype(int)})
            successes += int(kicks.success.sum())
            bar.advance(task, len(kicks.success))
    if as_json:
        print_json({"file": str(output), "kicks": size, "seed": seed, "success_rate": successes / size})
    else:
        print_facts([("file", str(output)), ("kicks", f"{size:,}"), ("succeeded", f"{successes / size:.1%}")])


@click.command("train")
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(KINDS), help="Family to fit. Default: chosen by cross-validation.")
@click.option(
    "--start",
    type=click.Choice(STARTS),
    help="Model whose level and slope are moved, as one of the families.  [default: current, the one in use]",
)
@click.option(
    "--column", multiple=True, metavar="NAME=COLUMN", help="Column of a feature in DATA; repeatable."
)
@click.option("--outcome", help="Column of outcomes in DATA, 1 or 0.  [default: success]")
@click.option("--kicker", help="Column of kickers in DATA: the interval then covers ability.")
@click.option("--wind-in-ms", is_flag=True, help="wind_speed of DATA is in m/s: convert it to km/h.")
@click.option(
    "--force", is_flag=True, help="Train even where a column looks like the outcome, or 1 and 0 swapped."
)
@click.option("--name", help="Name of the model.  [default: name of the file]")
@click.option("--folds", type=click.IntRange(2, 20), default=FOLDS, show_default=True, help="Folds.")
@click.option("--size", type=click.IntRange(10_000), help=f"Without DATA: kicks.  [default: {DEFAULT_SIZE}]")
@click.option("--seed", type=click.IntRange(0), default=DEFAULT_SEED, show_default=True, help="Seed.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("model.json"),
    show_default=True,
    help="File of the new model.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the report as JSON.")
def train_command(data: Path | None, output: Path, seed: int, *, as_json: bool, **options: Any) -> int:
    r"""Train a model on the kicks of DATA (CSV, Parquet, JSON, …): the eleven features, and `success`.

    Cross-validation compares families of models: the model in use, its level and slope moved (recalibrated,
    from 30 kicks on), and from 200 kicks on families from scratch, which have to beat it by more than a
    standard error. The command calibrates the model if that helps, and compares it with the model in use.
    Boosted trees need the extra `train`. Without DATA the command fits the packaged model to simulated kicks
    again. The same seed gives the same bytes.

    \b
    Examples:
      kickserve train kicks.csv --output model.json
      kickserve train kicks.parquet --column distance=dist_m --outcome goal --kicker player
      kickserve train few.csv --kind recalibrated --start packaged
      KICKSERVE_MODEL=model.json kickserve serve
      kickserve train --output default.json
    """
    _check_output(output)
    if data is None:
        return _train_default(output, seed, options, as_json=as_json)
    if options["size"] is not None:
        raise click.UsageError("--size is for simulated kicks, without DATA")
    name = options["name"] or data.stem
    if reason := wrong_name(name):
        raise click.UsageError(f"the name of the model is not valid: {reason}; choose another --name")
    dataset, refusals = _read(data, options)
    if not as_json:
        show_refusals(refusals, len(refusals))
    config = TrainingConfig(
        name=name,
        data=data.name,
        kind=options["kind"],
        start=options["start"] or STARTS[0],
        force=options["force"],
        seed=seed,
        folds=options["folds"],
    )
    document, report = _train(dataset, refusals, config)
    _write(output, document)
    if as_json:
        shown = {"model": str(output), **msgspec.structs.asdict(report), "refusals": refusals[:REFUSALS_KEPT]}
        print_json(shown)
    else:
        show(report, str(output))
    return ROWS_REFUSED if refusals else 0


def _check_output(output: Path) -> None:
    """Refuse a path that the model can't be written to or loaded from: before the work, not after it."""
    if output.suffix.lower() != ".json":
        raise click.UsageError(f"--output {output} must end with .json, the ending of model files")
    if not output.parent.is_dir():
        raise DataError(f"can't write {output}: there is no folder {output.parent}")
    if output.exists():
        say(f"{output} exists, and is replaced when the training is done: --output names another file")


def _train_default(output: Path, seed: int, options: dict[str, Any], *, as_json: bool) -> int:
    if needless := [name.replace("_", "-") for name in _NEED_DATA if options[name]]:
        raise click.UsageError(f"--{needless[0]} needs DATA: name a file of kicks")
    size = options["size"] or DEFAULT_SIZE
    with progress() as bar:
        task = bar.add_task("training", total=PASSES * size + MEASURED)
        document = train_default(size=size, seed=seed, advance=lambda count: bar.advance(task, count))
    _write(output, document)
    if as_json:
        print_json({"model": str(output), "revision": document.revision, "metrics": document.metrics})
        return 0
    facts = [("model", str(output)), ("revision", document.revision)]
    print_facts([*facts, *((name, str(value)) for name, value in document.metrics.items())])
    return 0


def _read(data: Path, options: dict[str, Any]) -> tuple[Dataset, list[RefusedRow]]:
    names = ColumnNames(
        features=features_of(options["column"]),
        outcome=options["outcome"],
        kicker=options["kicker"],
        wind_in_ms=options["wind_in_ms"],
    )
    with progress() as bar:
        task = bar.add_task("reading", total=count_rows(data))
        return read_dataset(data, names, lambda count: bar.advance(task, count))


def _train(
    dataset: Dataset, refusals: list[RefusedRow], config: TrainingConfig
) -> tuple[Document, TrainingReport]:
    dataset, summary = check(dataset, refusals, force=config.force)
    current = _current_model()
    with progress() as bar:
        task = bar.add_task("comparing", total=None)
        return TrainingRun(
            dataset,
            summary,
            config,
            current,
            lambda done, total, work: bar.update(task, completed=done, total=total, description=work),
        ).run()


def _current_model() -> Model | None:
    try:
        settings = Settings.load()
        return load_model(settings, discover(settings))
    except ModelUnusable as error:
        # KICKSERVE_MODEL may well name the file that is to be written.
        say(f"no comparison with the model in use: {error}")
        return None


def _write(output: Path, document: Document) -> None:
    try:
        output.write_bytes(encode(document))
    except OSError as error:
        raise DataError(f"can't write {output}: {error.strerror}") from error
