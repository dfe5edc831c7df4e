"""`kickserve batch`: many kicks at once, from a file or simulated."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from datetime import time as clock_time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from kickserve.cli import AUTO, FiniteRange, ServiceUrl
from kickserve.features import BY_NAME
from kickserve.loading import load_model
from kickserve.plugins import open_store
from kickserve.process import ProcessSampler
from kickserve.scorer import Scorer
from kickserve.settings import Settings
from kickserve.terminal import print_facts, print_json, progress, say
from kickserve_batch import batch_parts
from kickserve_batch.batch_words import facts_of
from kickserve_data import reader, scoring
from kickserve_data.engine_options import engine_config_of, engine_options
from kickserve_data.engines import DASK
from kickserve_data.kicks import show_refusals
from kickserve_data.locations import is_many
from kickserve_data.pacing import Hours, Pace
from kickserve_data.pipeline import ahead, behind
from kickserve_data.runs import Job as PartsJob
from kickserve_data.runs import folder_for
from kickserve_data.writer import open_writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from kickserve_data.kicks import Block
    from kickserve_data.scoring import Answered

    Take = Callable[[Answered], None]

_PULSE: Final = 0.25  # seconds between two chunks, about, where kicks come at a rate
_BLOCK_OF_TEXT: Final = 8_192  # while they are read as rows of text


def _hours(_: Any, __: Any, value: str | None) -> Hours | None:
    if value is None:
        return None
    try:
        begin, end = (clock_time.fromisoformat(each.strip()) for each in value.split("-"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no pair of hours such as 14:00-22:30") from None
    if begin.tzinfo or end.tzinfo:
        raise click.BadParameter(f"{value!r} names a time zone: the hours are UTC, such as 14:00-22:30")
    return Hours(begin, end)


@click.command("batch")
@click.argument("file", required=False)
@click.option("--size", type=click.IntRange(1), help="Without a file: how many kicks to simulate.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="For simulated kicks.")
@click.option(
    "--url",
    type=ServiceUrl(auto=True),
    help="Base URL of a running service, which keeps the answers; `auto`: the one at KICKSERVE_HOST and"
    " KICKSERVE_PORT if it answers. Without it: this process.",
)
@click.option(
    "--min-distance",
    type=FiniteRange(0, BY_NAME["distance"].high),
    default=0.0,
    help="Only kicks from this many metres or more.",
)
@click.option(
    "--output",
    help="Write kicks and answers to a .csv, .parquet or .ndjson file, instead of keeping the answers; to a"
    " folder (path or URL) where many files or a cluster are at work.",
)
@click.option("--rate", type=FiniteRange(0, min_open=True), help="Kicks a second, with pauses between.")
@click.option("--between", "hours", callback=_hours, help="Only at these hours, UTC: 14:00-22:30.")
@click.option("--keep", is_flag=True, help="With --output: keep the answers in DATABASE_URL as well.")
@engine_options
@click.option(
    "--restart", is_flag=True, help="Into a folder: begin anew, and forget what a stopped run left."
)
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON.")
def command(file: str | None, size: int | None, *, as_json: bool, **options: Any) -> int:
    r"""Predict the kicks of a CSV, Parquet or NDJSON FILE, or simulated ones.

    The answers are kept in DATABASE_URL; with --output they are written to a file instead, which is much
    faster, and with --keep both. A service (--url) always keeps them. Only what is kept has an `id`.

    A column `success` (1 or 0), where there is one, is compared with the predictions, written beside them,
    and kept as outcome. From Parquet to Parquet all other columns are carried along.

    FILE may be a folder of Parquet files, a pattern (kicks/*.parquet) or a URL (s3://...) as well, and with
    --engine dask a cluster does the work. Then --output is a folder, with a file for each row group; a run
    that was stopped is taken up again by the same command.

    Exit codes: 0 done; 2 what can't be used; 3 done, but rows were refused; 6 the service, store or cluster
    is away; 7 partitions failed, and the same command tries them again.

    \b
    Examples:
      kickserve batch kicks.parquet --output answers.parquet
      kickserve batch kicks.csv --output answers.csv --keep
      kickserve batch --size 500 --min-distance 40
      kickserve batch kicks.csv --url http://127.0.0.1:7860
      kickserve batch --size 5000 --url auto --rate 20 --between 14:00-22:00
      kickserve batch archive/ --output answers/ --engine dask
      kickserve batch s3://kicks/2026/ --output s3://answers/2026/ --engine dask --scheduler tcp://dask:8786
    """
    if (file is None) == (size is None):
        raise click.UsageError("give either a file of kicks, or --size for simulated ones")
    where, restart = engine_config_of(options), options.pop("restart")
    if where.engine == DASK or (file is not None and is_many(file)):
        parts = _parts(file, options)._replace(restart=restart)
        return batch_parts.run(parts, where, as_json=as_json)
    if restart:
        raise click.UsageError("--restart is for an --output that is a folder")
    output = options.pop("output")
    job = _Job(
        file=None if file is None else Path(file),
        size=size or 0,
        output=None if output is None else Path(output),
        **options,
    )
    if job.file is not None and job.output is not None and _same(job.file, job.output):
        raise click.UsageError(
            f"the answers would take the place of the kicks: name another file than {output}"
        )
    if job.paced and not job.keeps:
        raise click.UsageError("--rate and --between spread what is kept: leave --output out, or add --keep")
    summary = _run(job)
    if as_json:
        print_json(summary)
    else:
        _show(summary)
    return scoring.ROWS_REFUSED if summary.refused else 0


def _same(file: Path, output: Path) -> bool:
    return file.exists() and output.exists() and file.samefile(output)


def _parts(file: str | None, options: dict[str, Any]) -> PartsJob:
    if file is None:
        raise click.UsageError("--engine dask reads Parquet: give a file, a folder, a pattern or a URL")
    wrong = [f"--{name}" for name in ("url", "rate", "keep") if options[name]]
    wrong += ["--between"] if options["hours"] else []
    if wrong:
        raise click.UsageError(f"{', '.join(wrong)}: not with a folder, a pattern, a URL or --engine dask")
    return PartsJob(file, folder_for(options["output"], file), options["min_distance"])


@dataclass(frozen=True, slots=True)
class _Job:
    """What the command line asks for."""

    file: Path | None
    size: int
    seed: int
    url: str | None
    min_distance: float
    output: Path | None
    rate: float | None
    hours: Hours | None
    keep: bool

    @property
    def paced(self) -> bool:
        return (self.rate, self.hours) != (None, None)

    @property
    def chunk(self) -> int:
        """How many kicks go together where they are kept: few enough that a rate is one."""
        return scoring.CHUNK if self.rate is None else min(max(int(self.rate * _PULSE), 1), scoring.CHUNK)

    @property
    def keeps(self) -> bool:
        return self.keep or self.output is None or self.url is not None

    @property
    def columns(self) -> tuple[str, ...]:
        return (*scoring.COLUMNS, "id") if self.keeps else scoring.COLUMNS

    def beside(self) -> list[str]:
        """Name the columns of the input that the output could have too."""
        if self.file is None or self.output is None or reader.kind_of(self.output) != "parquet":
            return []
        return reader.other_columns(self.file)

    def blocks(self, others: list[str]) -> Iterator[Block]:
        if self.file is None:
            size = self.chunk if self.keeps else scoring.BLOCK
            return scoring.simulated(self.size, self.seed, self.min_distance, chunk=size)
        most = scoring.BLOCK if reader.kind_of(self.file) == "parquet" else _BLOCK_OF_TEXT
        return reader.read_blocks(self.file, size=self.chunk if self.keeps else most, others=others)

    def total(self) -> int | None:
        return self.size if self.file is None else reader.count_rows(self.file)


def _run(job: _Job) -> scoring.Summary:
    settings = Settings.load()
    total = job.total()
    tally = scoring.Tally(total)
    beside = job.beside()
    others = [name for name in beside if name not in job.columns]
    with ExitStack() as stack:
        blocks = stack.enter_context(closing(ahead(job.blocks(others))))
        write = stack.enter_context(_writing(job, others))
        bar = stack.enter_context(progress())
        task = bar.add_task("predicting", total=total)

        def take(answered: Answered) -> None:
            tally.add(answered)
            write(answered)
            bar.advance(task, len(answered.block.lines) + len(answered.block.refusals))

        far = scoring.only_from(blocks, job.min_distance, tally)
        if job.keeps:
            asyncio.run(_run_keeping(settings, job, far, take))
        else:
            for answered in scoring.run_direct(far, load_model(settings)):
                take(answered)
    left_out = [name for name in beside if name not in others]
    return tally.summary(kept=job.keeps, not_carried=left_out)


async def _run_keeping(settings: Settings, job: _Job, blocks: Iterable[Block], take: Take) -> None:
    pace = Pace(job.rate, job.hours) if job.paced else None
    async with _answerer(settings, job.url) as answerer:
        async for answered in scoring.run(blocks, answerer, pace):
            take(answered)


@asynccontextmanager
async def _answerer(settings: Settings, url: str | None) -> AsyncIterator[scoring.Answerer]:
    if url is not None:
        from kickserve_client.remote import connected, running

        url = await running(settings) if url == AUTO else url
    if url is not None:
        say(f"through the service at {url}")
        async with connected(url, settings) as client:
            yield scoring.Remote(client)
        return
    model = load_model(settings)
    async with open_store(settings) as store:
        yield scoring.Local(Scorer(model, ProcessSampler()), store)


@contextmanager
def _writing(job: _Job, others: list[str]) -> Iterator[Take]:
    """Give what writes answers to the output while others work; it does nothing where there is no output."""
    if job.output is None:
        yield lambda _: None
        return
    schema = reader.schema_of(job.file, others) if job.file is not None and others else None
    with open_writer(job.output, job.columns, schema) as writer:

        def write(answered: Answered) -> None:
            writer.write(scoring.table_of(answered), answered.block.others)

        with behind(write) as put:
            yield put


def _show(summary: scoring.Summary) -> None:
    show_refusals(summary.refusals, summary.refused)
    print_facts(facts_of(summary))
