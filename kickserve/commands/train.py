"""`kickserve train`: makes the model that ships with kickserve again, from simulated kicks."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from kickserve.errors import DataError
from kickserve.terminal import print_facts, print_json, progress
from kickserve.training import DEFAULT_SEED, DEFAULT_SIZE, write_default


@click.command("train")
@click.option("--size", type=click.IntRange(10_000), default=DEFAULT_SIZE, show_default=True, help="Kicks.")
@click.option("--seed", type=click.IntRange(0), default=DEFAULT_SEED, show_default=True, help="Seed.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("model.json"),
    show_default=True,
    help="Where to write the model.",
)
@click.option("--json", "as_json", is_flag=True, help="Write what came out as JSON.")
def command(size: int, seed: int, output: Path, *, as_json: bool) -> None:
    r"""Fit the default model to simulated kicks; the same seed gives the same bytes.

    \b
    Examples:
      kickserve train --output model.json
      KICKSERVE_MODEL=model.json kickserve serve
    """
    with progress() as bar:
        task = bar.add_task("training", total=None)
        try:
            document = write_default(
                output,
                size=size,
                seed=seed,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        except OSError as error:
            raise DataError(f"can't write {output}: {error.strerror}") from error
    if as_json:
        print_json({"model": str(output), "revision": document.revision, "metrics": document.metrics})
        return
    print_facts(
        [
            ("model", str(output)),
            ("revision", document.revision),
            *((name, str(value)) for name, value in document.metrics.items()),
        ]
    )
