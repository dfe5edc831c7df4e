"""`kickserve train`: fits a model to kicks of one's own, or makes the packaged one again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from kickserve.errors import DataError, ModelUnusable
from kickserve.loading import load_model
from kickserve.model import wrong_name
from kickserve.settings import Settings
from kickserve.terminal import print_facts, print_json, progress, say
from kickserve_data.kicks import show_refusals
from kickserve_data.reader import count_rows
from kickserve_data.scoring import REFUSALS_KEPT, ROWS_REFUSED
from kickserve_train.checks import check
from kickserve_train.data import Naming, read_known
from kickserve_train.default import DEFAULT_SEED, DEFAULT_SIZE, train_default
from kickserve_train.families import KINDS
from kickserve_train.making import encode
from kickserve_train.teach import FOLDS, Order, teach
from kickserve_train.train_report import show

if TYPE_CHECKING:
    from kickserve.model import Model
    from kickserve_data.kicks import RefusedRow
    from kickserve_train.data import Known
    from kickserve_train.making import Document
    from kickserve_train.teach import Report

_FEWEST_FOLDS, _MOST_FOLDS = 2, 20


@click.command("train")
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(KINDS), help="Fit this family, instead of the one that does best.")
@click.option(
    "--column", "columns", multiple=True, metavar="NAME=COLUMN", help="A feature's name in DATA; repeatable."
)
@click.option("--outcome", help="The column of DATA that says 1 or 0.  [default: success]")
@click.option("--kicker", help="The column of DATA that names the kicker: the interval then covers ability.")
@click.option("--wind-in-ms", is_flag=True, help="wind_speed of DATA is in m/s: convert it to km/h.")
@click.option("--name", help="Name of the model.  [default: that of the file]")
@click.option(
    "--folds",
    type=click.IntRange(_FEWEST_FOLDS, _MOST_FOLDS),
    default=FOLDS,
    show_default=True,
    help="Folds.",
)
@click.option("--size", type=click.IntRange(10_000), help=f"Without DATA: kicks.  [default: {DEFAULT_SIZE}]")
@click.option("--seed", type=click.IntRange(0), default=DEFAULT_SEED, show_default=True, help="Seed.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("model.json"),
    show_default=True,
    help="Where to write the model.",
)
@click.option("--json", "as_json", is_flag=True, help="Write what came out as JSON.")
def command(data: Path | None, output: Path, seed: int, *, as_json: bool, **options: Any) -> int:
    r"""Train a model on the kicks of a CSV, Parquet or NDJSON file DATA: the eleven features, and `success`.

    Families of models are compared by cross-validation, and the simplest that does about as well as the best
    is taken, calibrated if that helps, and compared with the model in use. Boosted trees need the extra
    `train`. Without DATA the default model is fitted to simulated kicks again. The same seed gives the same
    bytes.

    \b
    Examples:
      kickserve train kicks.csv --output model.json
      kickserve train kicks.parquet --column distance=dist_m --outcome goal --kicker player
      KICKSERVE_MODEL=model.json kickserve serve
      kickserve train --output default.json
    """
    _check_place(output)
    if data is None:
        return _default(output, seed, options, as_json=as_json)
    if options["size"] is not None:
        raise click.UsageError("--size is for simulated kicks, without DATA")
    name = options["name"] or data.stem
    if reason := wrong_name(name):
        raise click.UsageError(f"the model can't be called so: {reason}; take another --name")
    known, refusals = _read(data, options)
    if not as_json:
        show_refusals(refusals, len(refusals))
    order = Order(
        name=name,
        data=data.name,
        kind=options["kind"],
        seed=seed,
        folds=options["folds"],
    )
    document, report = _teach(known, refusals, order)
    _write(output, encode(document))
    if as_json:
        print_json(
            {"model": str(output), **msgspec.structs.asdict(report), "refusals": refusals[:REFUSALS_KEPT]}
        )
    else:
        show(report, str(output))
    return ROWS_REFUSED if refusals else 0


def _check_place(output: Path) -> None:
    """Refuse a place that the model can't be written to or loaded from: before the work, not after it."""
    if output.suffix.lower() != ".json":
        raise click.UsageError(f"--output {output} must end with .json: by that a model is known for one")
    if not output.parent.is_dir():
        raise DataError(f"can't write {output}: there is no folder {output.parent}")


def _default(output: Path, seed: int, options: dict[str, Any], *, as_json: bool) -> int:
    needless = [
        name for name in ("kind", "columns", "outcome", "kicker", "wind_in_ms", "name") if options[name]
    ]
    if needless:
        option = "column" if needless[0] == "columns" else needless[0].replace("_", "-")
        raise click.UsageError(f"--{option} needs DATA: name a file of kicks")
    with progress() as bar:
        task = bar.add_task("training", total=None)
        document = train_default(
            size=options["size"] or DEFAULT_SIZE,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _write(output, encode(document))
    if as_json:
        print_json({"model": str(output), "revision": document.revision, "metrics": document.metrics})
        return 0
    facts = [("model", str(output)), ("revision", document.revision)]
    print_facts([*facts, *((name, str(value)) for name, value in document.metrics.items())])
    return 0


def _read(data: Path, options: dict[str, Any]) -> tuple[Known, list[RefusedRow]]:
    naming = Naming(
        columns=_columns(options["columns"]),
        outcome=options["outcome"],
        kicker=options["kicker"],
        wind_in_ms=options["wind_in_ms"],
    )
    with progress() as bar:
        task = bar.add_task("reading", total=count_rows(data))
        return read_known(data, naming, lambda count: bar.advance(task, count))


def _columns(pairs: tuple[str, ...]) -> dict[str, str]:
    parts = [pair.partition("=") for pair in pairs]
    wrong = [pair for pair, (name, _, column) in zip(pairs, parts, strict=True) if not (name and column)]
    if wrong:
        raise click.UsageError(f"--column {wrong[0]} must read NAME=COLUMN, such as distance=dist_m")
    return {name.strip(): column.strip() for name, _, column in parts}


def _teach(known: Known, refusals: list[RefusedRow], order: Order) -> tuple[Document, Report]:
    findings = check(known, refusals)
    in_use = _in_use()
    with progress() as bar:
        task = bar.add_task("comparing", total=None)
        return teach(
            known,
            findings,
            order,
            in_use,
            lambda done, total, what: bar.update(task, completed=done, total=total, description=what),
        )


def _in_use() -> Model | None:
    try:
        return load_model(Settings.load())
    except ModelUnusable as error:
        # The file that is to be written may well be what KICKSERVE_MODEL names.
        say(f"no comparison with the model in use: {error}")
        return None


def _write(output: Path, data: bytes) -> None:
    try:
        output.write_bytes(data)
    except OSError as error:
        raise DataError(f"can't write {output}: {error.strerror}") from error
