"""Runs a batch over many partitions, and resumes a stopped run where it stopped.

    OUTPUT/part-000012.parquet       the answers of partition 12, with its figures in the footer
    OUTPUT/_kickserve/run.json       input, model and options of the run

Each file appears whole or not at all. So a run may stop anywhere: a partition without its file is done again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import Struct, field, structs

from kickserve.plugins import __version__, discover, fetch_model, load_file, source_of
from kickserve_data import DataError, scoring
from kickserve_data.engines import work_through
from kickserve_data.locations import GLOB, File, Location, locate
from kickserve_data.partitions import LOCAL, plan_of, read_partition, sort_refusals
from kickserve_data.pipeline import prefetch, write_behind
from kickserve_data.scoring import PartialStats, RunStats
from kickserve_data.writer import KINDS, open_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kickserve.plugins import Model, Settings
    from kickserve_data.kicks import Block
    from kickserve_data.partitions import EngineConfig, Partition, Plan
    from kickserve_data.scoring import ScoredBlock
    from kickserve_data.writer import Writer

    Progress = Callable[[int, int], None]

PARTITIONS_FAILED: Final = 7
"""The exit code of a run in which partitions failed; the same command tries them again."""

_FILE: Final = "file"  # the column that names the file of a line, where there are several
_FAILURES_KEPT: Final = 1_000
_REFUSALS_KEPT: Final = 100  # of a partition
_TEXT_FILES: Final = tuple(ending for ending, kind in KINDS.items() if kind != "parquet")
_FOLDER: Final = "_kickserve"
_RUN: Final = "run.json"
_PART: Final = "part-"
_STATS: Final = b"kickserve.stats"  # key of the figures in a footer
_READERS: Final = 16  # files whose footers are read at once; that is waiting, not work


class BatchJob(NamedTuple):
    """A batch over many partitions.

    Attributes:
        source: a file, folder, pattern or URL with kicks.
        output: folder or URL for the answers.
        min_distance: only kicks from so many metres.
        restart: remove the answers of an earlier run.
    """

    source: str
    output: str
    min_distance: float = 0.0
    restart: bool = False


class FailedPartition(Struct, frozen=True):
    """A partition that could not be done.

    Attributes:
        partition: its number, from 0.
        file: with its kicks.
        row_group: of that file, from 0.
        reason: why.
    """

    partition: int
    file: str
    row_group: int
    reason: str


class RunSummary(scoring.Summary, kw_only=True):
    """The result of a run over many partitions; all but `seconds` and `rate` is of the whole run.

    Attributes:
        partitions: how many there are.
        taken_up: of them, how many an earlier start of the run had done.
        failed: the first thousand partitions that could not be done.
        failures: how many could not be done.
    """

    partitions: int = 0
    taken_up: int = 0
    failures: int = 0
    failed: list[FailedPartition] = field(default_factory=list)


def run_partitions(
    job: BatchJob, config: EngineConfig, settings: Settings, progress: Progress, say: Callable[[str], None]
) -> RunSummary:
    """Do all partitions that are not done.

    Args:
        job: input and output.
        config: the engine.
        settings: which model.
        progress: gets the rows that are done and all rows.
        say: gets words about the run.

    Raises:
        DataError: files can't be read, or the output holds something else.
        ModelUnusable: the model can't be used.
        MissingExtra: a package is not installed.
        ServiceAway: the scheduler is away.
    """
    plan, output, plugins = plan_of(job.source), locate(job.output), discover(settings)
    file = fetch_model(source_of(settings), plugins)
    model = load_file(file, plugins)
    work = _work(job, plan, output, pipelined=config.engine == LOCAL)
    _begin(output, _Run.of(plan, model, work), restart=job.restart)
    stats = RunStats()
    done: dict[int, int] = {}  # kicks of each partition that an earlier start has done
    for number, part in _done(output):
        done[number] = part.summary.sent
        stats.merge(part)
    if done:
        say(f"resumed: {len(done):,} of {plan.size:,} partitions are done")
    progress(stats.rows, plan.rows)
    failed: list[FailedPartition] = []
    if len(done) < plan.size:
        left = (each for each in plan.partitions() if each.number not in done)
        with closing(work_through(work, left, config, (file, model), say)) as results:
            for partition, new, reason in results:
                if new is None:
                    failed.append(FailedPartition(partition.number, partition.url, partition.group, reason))
                    continue
                stats.merge(new)
                progress(stats.rows, plan.rows)
    return _summarize(stats, plan, work, done, failed)


def output_folder(output: str | None, source: str) -> str:
    """Check the folder for the answers of a source.

    Raises:
        DataError: there is none, or the name can be no folder.
    """
    if output is None:
        raise DataError(f"the answers of {source} go into a folder: name one with --output")
    if output.lower().endswith(_TEXT_FILES) or Path(output).is_file():
        raise DataError(
            f"the answers of {source} go into a folder of Parquet files, and {output} names a file"
        )
    if "://" in output and not GLOB.isdisjoint(output):  # --restart would remove all that it fits
        raise DataError(f"{output} is a pattern: name one folder, without {' '.join(sorted(GLOB))}")
    return output


@dataclass(frozen=True, slots=True)
class ScorePartition:
    """Scores the kicks of a partition into a file of its own, in whatever process it is called.

    Attributes:
        output: address of the folder of the output.
        columns: to write, our own.
        others: to carry along from the input.
        min_distance: only kicks from so many metres.
        pipelined: whether reading and writing may have threads beside the one that asks the model.
    """

    output: str
    columns: tuple[str, ...]
    others: tuple[str, ...]
    min_distance: float
    pipelined: bool

    def __call__(self, partition: Partition, model: Model) -> PartialStats:
        """Do it all; return the figures.

        Raises:
            DataError: a file can't be read or written.
            PredictionFailed: the model can't answer.
        """
        schema, blocks = read_partition(partition, self.others)
        stats = RunStats(keep=_REFUSALS_KEPT)
        far = scoring.only_from(blocks, self.min_distance, stats)
        with (
            locate(self.output).child(f"{_PART}{partition.number:06d}.parquet").filled() as path,
            open_writer(path, self.columns, schema if self.others else None, durable=True) as writer,
        ):
            self._score(far, model, writer, stats, partition.name)
            part = stats.partial()
            writer.annotate(_STATS, msgspec.json.encode(part))
        return part

    def _score(
        self, blocks: Iterator[Block], model: Model, writer: Writer, stats: RunStats, name: str | None
    ) -> None:
        def write(scored: ScoredBlock) -> None:
            writer.write(scoring.to_columns(scored) | {_FILE: name}, scored.block.others)

        with ExitStack() as stack:
            put: Callable[[ScoredBlock], None] = write
            if self.pipelined:
                blocks = stack.enter_context(closing(prefetch(blocks)))
                put = stack.enter_context(write_behind(write))
            for scored in scoring.score(blocks, model):
                stats.add(scored)
                put(scored)


def _summarize(
    stats: RunStats, plan: Plan, work: ScorePartition, done: dict[int, int], failed: list[FailedPartition]
) -> RunSummary:
    whole = structs.asdict(stats.summary(kept=False))
    whole["not_carried"] = [name for name in plan.others if name not in work.others]
    whole["rate"] = round((whole["sent"] - sum(done.values())) / max(whole["seconds"], 0.001), 1)
    whole["refusals"] = sort_refusals(whole["refusals"], single=plan.single)
    whole |= {"partitions": plan.size, "taken_up": len(done), "failures": len(failed)}
    return RunSummary(**whole, failed=failed[:_FAILURES_KEPT])


def _work(job: BatchJob, plan: Plan, output: Location, *, pipelined: bool) -> ScorePartition:
    columns = scoring.COLUMNS if plan.single else (_FILE, *scoring.COLUMNS)
    others = tuple(name for name in plan.others if name not in columns)
    return ScorePartition(output.address, columns, others, job.min_distance, pipelined)


class _Run(Struct, frozen=True):
    """Input, model and options of a run: it is resumed only with the same of all these."""

    files: list[File]
    model: str
    options: dict[str, str]
    kickserve: str = __version__

    @classmethod
    def of(cls, plan: Plan, model: Model, work: ScorePartition) -> _Run:
        columns = ", ".join([*work.columns, *work.others])
        options = {"--min-distance": f"{work.min_distance:g} m", "the columns": columns}
        return cls(plan.files, f"{model.card.name} {model.card.revision}", options)

    def difference(self, earlier: bytes) -> str:
        """Say in a clause how the run on disk differs from this one; empty for the same."""
        try:
            old = msgspec.json.decode(earlier, type=_Run)
        except msgspec.MsgspecError as error:
            return f"its {_FOLDER}/{_RUN} can't be read ({error})"
        if old.model != self.model:
            return f"it was begun with the model {old.model}, and this one is {self.model}"
        if old.kickserve != self.kickserve:
            return f"it was begun by kickserve {old.kickserve}, and this is {self.kickserve}"
        for name, option in self.options.items():
            if (earlier_option := old.options.get(name)) != option:
                return f"{name}: it was begun with {earlier_option}, and now that is {option}"
        return _changed_file(old.files, self.files)


def _changed_file(old: list[File], new: list[File]) -> str:
    before, now = ({file.url: file for file in files} for files in (old, new))
    for url in before | now:
        if url not in now:
            return f"{url} is missing now, or no longer part of the input"
        if url not in before:
            return f"{url} was missing, or not part of the input, at the start of the run"
        if before[url] != now[url]:
            return f"{url} has changed since the start of the run"
    return ""


def _begin(output: Location, run: _Run, *, restart: bool) -> None:
    """Begin a run, or resume it.

    Raises:
        DataError: the folder holds another run, or files of no run; nothing was changed.
    """
    record = output.child(_FOLDER).child(_RUN)
    earlier = record.read()
    names = output.names()
    strangers = [name for name in names if not name.startswith(".")]
    if earlier is None and strangers:
        raise DataError(
            f"{output.url} holds files that belong to no run, such as {min(strangers)}: name a new or"
            " empty folder"
        )
    if earlier is not None and not restart and (differs := run.difference(earlier)):
        raise DataError(
            f"the run in {output.url} can't be resumed: {differs}. Name another folder, or start over"
            " with --restart"
        )
    if restart:
        output.child(_FOLDER).remove()
    for name in names:
        half_written = name.startswith(f".{_PART}") and name.endswith(".part")
        if half_written or (restart and name.startswith(_PART) and name.endswith(".parquet")):
            output.child(name).remove()
    if restart or earlier is None:
        record.write(msgspec.json.encode(run))


def _done(output: Location) -> Iterator[tuple[int, PartialStats]]:
    """Yield numbers and figures of the partitions that are done."""
    names = sorted(name for name in output.names() if name.startswith(_PART) and name.endswith(".parquet"))
    with ThreadPoolExecutor(_READERS) as readers:
        for name, part in zip(names, readers.map(_stats_in, map(output.child, names)), strict=True):
            number = name.removeprefix(_PART).removesuffix(".parquet")
            if part is not None and number.isdecimal():
                yield int(number), part


def _stats_in(part: Location) -> PartialStats | None:
    try:
        with part.open_parquet() as file:
            return msgspec.json.decode(file.metadata.metadata[_STATS], type=PartialStats)
    except (DataError, KeyError, msgspec.MsgspecError):
        return None  # of a disk that failed, or of an older kickserve: the partition is done again
