"""`kickserve batch`: many kicks at once, from a file, a folder or a URL, or simulated."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from kickserve.features import BY_NAME
from kickserve.plugins import (
    AUTO,
    FiniteRange,
    ProcessSampler,
    Scorer,
    ServiceUrl,
    Settings,
    discover,
    load_model,
    open_store,
    print_facts,
    print_json,
    progress,
    say,
)
from kickserve_batch.keeping import CHUNK, keep_by_service, keep_in_store, score_and_keep, simulated
from kickserve_batch.runs import PARTITIONS_FAILED, BatchJob, RunSummary, output_folder, run_partitions
from kickserve_data import reader, scoring
from kickserve_data.columns import KICKERS
from kickserve_data.engines import DASK, engine_config_of, engine_options
from kickserve_data.kicks import show_refusals
from kickserve_data.locations import is_many
from kickserve_data.parquet import select_fields
from kickserve_data.pipeline import prefetch, write_behind
from kickserve_data.writer import kind_of, open_writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

    from kickserve_batch.keeping import Keep
    from kickserve_data.kicks import Block
    from kickserve_data.partitions import EngineConfig
    from kickserve_data.scoring import ScoredBlock

    Take = Callable[[ScoredBlock], None]

_PULSE: Final = 0.25  # seconds between two chunks, about, where kicks come at a rate
_SHOWN: Final = 10  # failed partitions that a person sees


@click.command("batch")
@click.argument("file", required=False)
@click.option("--size", type=click.IntRange(1), help="Number of kicks to simulate, without a file.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of simulated kicks.")
@click.option(
    "--url",
    type=ServiceUrl(auto=True),
    help="Base URL of a running service, which stores the predictions; `auto`: the service at KICKSERVE_HOST"
    " and KICKSERVE_PORT, if one answers. Default: this process predicts.",
)
@click.option(
    "--min-distance",
    type=FiniteRange(0, BY_NAME["distance"].high),
    default=0.0,
    help="Only kicks from this many metres or more.",
)
@click.option(
    "--output",
    help="Write kicks and predictions to a .csv, .parquet or .ndjson file, instead of storing them; for many"
    " files or a cluster, a folder (path or URL).",
)
@click.option(
    "--rate", type=FiniteRange(0, min_open=True), help="Kicks per second; the command pauses in between."
)
@click.option("--keep", is_flag=True, help="With --output: also store the predictions in DATABASE_URL.")
@engine_options
@click.option(
    "--restart", is_flag=True, help="With an output folder: start over, and discard parts of a stopped run."
)
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON.")
def command(file: str | None, size: int | None, *, as_json: bool, **options: Any) -> int:
    r"""Predict the kicks of a FILE, or simulated kicks.

    The command stores predictions in DATABASE_URL; with --output it writes them to a file instead, which is
    much faster, and with --keep it does both. A service (--url) always stores predictions. Only a stored
    prediction has an `id`.

    FILE is CSV, Parquet, JSON or a spreadsheet, or - for standard input. An optional column `success` (1 or
    0, or words for them) is compared with the predictions, written beside them, and stored as outcome. The
    label of a column `kicker` (or `player`) is stored too, and written beside them. From Parquet to Parquet
    the output keeps all other columns.

    FILE may also be a folder of Parquet files, a pattern (kicks/*.parquet) or a URL (s3://...), and with
    --engine dask a cluster does the work. Then --output is a folder, with a file for each row group; the
    same command resumes a stopped run.

    Exit codes: 0 done; 2 wrong use or wrong settings; 3 done, but rows were refused; 6 the service, store
    or cluster can't be reached; 7 partitions failed, and the same command retries them.

    \b
    Examples:
      kickserve batch kicks.parquet --output answers.parquet
      kickserve batch kicks.csv --output answers.csv --keep
      kickserve batch --size 500 --min-distance 40
      kickserve batch kicks.csv --url http://127.0.0.1:7860
      kickserve batch --size 5000 --url auto --rate 20
      kickserve batch archive/ --output answers/ --engine dask
      kickserve batch s3://kicks/2026/ --output s3://answers/2026/ --engine dask --scheduler tcp://dask:8786
    """
    if (file is None) == (size is None):
        raise click.UsageError("give either a file of kicks, or --size for simulated ones")
    config, restart = engine_config_of(options), options.pop("restart")
    if config.engine == DASK or (file is not None and is_many(file)):
        summary: scoring.Summary = _run_partitions(_partitioned(file, restart=restart, **options), config)
    elif restart:
        raise click.UsageError("--restart is for an --output that is a folder")
    else:
        summary = _run(_Job.of(file, size, **options))
    if as_json:
        print_json(summary)
    else:
        show_refusals(summary.refusals, summary.refused)
        print_facts([*_facts_of_partitions(summary), *_facts_of(summary)])
    if isinstance(summary, RunSummary) and summary.failures:
        return PARTITIONS_FAILED
    return scoring.ROWS_REFUSED if summary.refused else 0


def _partitioned(file: str | None, *, restart: bool, **options: Any) -> BatchJob:
    if file is None:
        raise click.UsageError("--engine dask reads Parquet: give a file, a folder, a pattern or a URL")
    wrong = [f"--{name}" for name in ("url", "rate", "keep") if options[name]]
    if wrong:
        raise click.UsageError(f"{', '.join(wrong)}: not with a folder, a pattern, a URL or --engine dask")
    return BatchJob(file, output_folder(options["output"], file), options["min_distance"], restart)


def _run_partitions(job: BatchJob, config: EngineConfig) -> RunSummary:
    with progress() as bar:
        task = bar.add_task("predicting", total=None)

        def show(done: int, rows: int) -> None:
            bar.update(task, completed=done, total=rows)

        return run_partitions(job, config, Settings.load(), show, say)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A batch over one file, or over simulated kicks."""

    file: Path | None
    size: int
    seed: int
    url: str | None
    min_distance: float
    output: Path | None
    rate: float | None
    keep: bool

    @classmethod
    def of(cls, file: str | None, size: int | None, output: str | None, **options: Any) -> _Job:
        source, target = Path(file) if file else None, Path(output) if output else None
        if source and target and source.exists() and target.exists() and source.samefile(target):
            raise click.UsageError(
                f"the predictions would overwrite the kicks: name another file than {output}"
            )
        job = cls(file=source, size=size or 0, output=target, **options)
        if job.rate is not None and not job.keeps:
            raise click.UsageError("--rate applies to stored predictions: leave --output out, or add --keep")
        return job

    @property
    def keeps(self) -> bool:
        return self.keep or self.output is None or self.url is not None

    @property
    def columns(self) -> tuple[str, ...]:
        return (*scoring.COLUMNS, "id") if self.keeps else scoring.COLUMNS

    def block_size(self, most: int) -> int:
        """Return how many kicks go together: where they are kept, few enough for a steady rate."""
        if not self.keeps:
            return most
        return CHUNK if self.rate is None else min(max(int(self.rate * _PULSE), 1), CHUNK)


def _run(job: _Job) -> scoring.Summary:
    settings = Settings.load()
    total = job.size if job.file is None else reader.count_rows(job.file)
    stats = scoring.RunStats()
    schema, others, columns = None, [], job.columns
    if job.file is None:
        blocks = simulated(job.size, job.seed, job.min_distance, chunk=job.block_size(scoring.BLOCK))
    else:
        kicks = reader.open_kicks(job.file, kickers=KICKERS)
        if job.output is not None and kind_of(job.output) == "parquet":
            schema = kicks.others
        others = [name for name in schema.names if name not in job.columns] if schema else []
        if kicks.cells.kicker is not None and schema is None:  # else it is carried along, as it is
            columns = (*columns, KICKERS[0])
        blocks = kicks.blocks(job.block_size(kicks.block_size), others)
    with ExitStack() as stack:
        blocks = stack.enter_context(closing(prefetch(blocks)))
        write = stack.enter_context(_writing(job, columns, select_fields(schema, others) if others else None))
        bar = stack.enter_context(progress())
        task = bar.add_task("predicting", total=total)

        def take(scored: ScoredBlock) -> None:
            stats.add(scored)
            write(scored)
            bar.advance(task, len(scored.block.lines) + len(scored.block.refusals))

        far = scoring.only_from(blocks, job.min_distance, stats)
        if job.keeps:
            asyncio.run(_run_keeping(settings, job, far, take))
        else:
            for scored in scoring.score(far, load_model(settings, discover(settings))):
                take(scored)
    not_carried = [name for name in (schema.names if schema else []) if name not in others]
    return stats.summary(kept=job.keeps, not_carried=not_carried)


async def _run_keeping(settings: Settings, job: _Job, blocks: Iterable[Block], take: Take) -> None:
    async with _keeper(settings, job.url) as keep:
        async for scored in score_and_keep(blocks, keep, job.rate):
            take(scored)


@asynccontextmanager
async def _keeper(settings: Settings, url: str | None) -> AsyncIterator[Keep]:
    if url == AUTO:
        from kickserve_client import running_url

        url = await running_url(settings, say)
    if url is not None:
        from kickserve_client import connected

        say(f"through the service at {url}")
        async with connected(url, settings) as client:
            yield keep_by_service(client)
        return
    model = load_model(settings, discover(settings))
    async with open_store(settings) as store:
        yield keep_in_store(Scorer(model, ProcessSampler()), store)


@contextmanager
def _writing(job: _Job, columns: Sequence[str], schema: Any) -> Iterator[Take]:
    """Give a function that writes scored blocks to the output, or does nothing without an output."""
    if job.output is None:
        yield lambda _: None
        return
    with open_writer(job.output, columns, schema) as writer:

        def write(scored: ScoredBlock) -> None:
            writer.write(scoring.to_columns(scored), scored.block.others)

        with write_behind(write) as put:
            yield put


def _facts_of_partitions(summary: scoring.Summary) -> list[tuple[str, str]]:
    """Return how many there are, and write the failed ones to the terminal."""
    if not isinstance(summary, RunSummary):
        return []
    for failed in summary.failed[:_SHOWN]:
        say(f"partition {failed.partition} (row group {failed.row_group} of {failed.file}): {failed.reason}")
    if summary.failures > _SHOWN:
        say(f"... and {summary.failures - _SHOWN:,} more that failed (--json lists them)")
    parts = f"{summary.partitions:,}"
    if summary.taken_up:
        parts += f", {summary.taken_up:,} of them done by an earlier start"
    if summary.failures:
        parts += f"; {summary.failures:,} failed: the same command tries them again"
    return [("partitions", parts)]


def _facts_of(summary: scoring.Summary) -> list[tuple[str, str]]:
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
    if not summary.kept:
        facts.append(("kept", "no, only written: --keep does both"))
    if summary.not_carried:
        names = ", ".join(summary.not_carried)
        facts.append(("not carried along", f"{names}: the output has its own columns with these names"))
    if (quality := summary.quality) is not None:
        facts += [
            ("outcomes known", f"{quality.count:,}, of which {quality.success_rate:.1%} succeeded"),
            ("Brier score", f"{quality.brier:.4f}"),
            ("log loss", f"{quality.log_loss:.4f}"),
            ("ECE", f"{quality.ece:.4f}"),
            ("AUC", "none: all came out alike" if quality.auc is None else f"{quality.auc:.4f}"),
        ]
    return facts
