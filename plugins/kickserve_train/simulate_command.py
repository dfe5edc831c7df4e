"""`kickserve simulate`: kicks from published figures, into a file."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from kickserve.features import NAMES, columns
from kickserve.terminal import print_facts, print_json, progress
from kickserve_data.simulate import blocks
from kickserve_data.writer import open_writer


@click.command("simulate")
@click.option("--size", type=click.IntRange(1), default=1_000, show_default=True, help="How many kicks.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same kicks.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="A file: .csv, .parquet or .ndjson.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON.")
def command(size: int, seed: int, output: Path, *, as_json: bool) -> None:
    r"""Simulate kicks and what came of them.

    \b
    Examples:
      kickserve simulate --size 100000 --seed 7 --output kicks.parquet
      kickserve simulate --output kicks.csv && kickserve batch kicks.csv
    """
    successes = 0
    with progress() as bar, open_writer(output, [*NAMES, "success"]) as writer:
        task = bar.add_task("simulating", total=size)
        for kicks in blocks(size, seed):
            writer.write({**columns(kicks.matrix), "success": kicks.success.astype(int)})
            successes += int(kicks.success.sum())
            bar.advance(task, len(kicks.success))
    if as_json:
        print_json({"file": str(output), "kicks": size, "seed": seed, "success_rate": successes / size})
    else:
        print_facts([("file", str(output)), ("kicks", f"{size:,}"), ("succeeded", f"{successes / size:.1%}")])
