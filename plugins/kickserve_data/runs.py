"""Runs a batch over many partitions from its beginning, or from where it stopped, to its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct, field, structs

from kickserve.errors import DataError
from kickserve.loading import file_of
from kickserve_data import scoring
from kickserve_data.engines import HERE, engine_of
from kickserve_data.locations import GLOB, place_of
from kickserve_data.manifest import Manifest, Run
from kickserve_data.partition_work import FILE, Scoring
from kickserve_data.partitions import in_order, plan_of
from kickserve_data.reader import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kickserve.model import Model
    from kickserve.settings import Settings
    from kickserve_data.engines import EngineConfig
    from kickserve_data.partitions import Partition, Plan

    Tell = Callable[[int, int], None]

FAILED: Final = 7
"""The exit code of a run in which partitions failed; the same command tries them again."""

_FAILURES_KEPT: Final = 1_000
_FILES: Final = tuple(ending for ending, kind in KINDS.items() if kind != "parquet")


class Failed(Struct, frozen=True):
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


class PartsSummary(scoring.Summary, kw_only=True):
    """What a run over many partitions came to; all but `seconds` and `rate` is of the whole run.

    Attributes:
        partitions: how many there are.
        taken_up: of them, how many an earlier start of the run had done.
        failed: the first thousand of those that could not be done.
        failures: how many could not be done.
    """

    partitions: int = 0
    taken_up: int = 0
    failures: int = 0
    failed: list[Failed] = field(default_factory=list)


class Job(NamedTuple):
    """What is asked for.

    Attributes:
        source: a file, folder, pattern or URL with kicks.
        output: folder or URL for the answers.
        min_distance: only kicks from so many metres.
        restart: forget what an earlier run left.
    """

    source: str
    output: str
    min_distance: float = 0.0
    restart: bool = False


def run(
    job: Job, where: EngineConfig, settings: Settings, tell: Tell, say: Callable[[str], None]
) -> PartsSummary:
    """Do all partitions that are not done.

    Args:
        job: what is asked for.
        where: what does the work.
        settings: which model.
        tell: gets the rows that are done and all rows.
        say: gets words about the run.

    Raises:
        DataError: files can't be read, or the output holds something else.
        ModelUnusable: the model can't be used.
        MissingExtra: a package is not installed.
        ServiceAway: the scheduler is away.
    """
    where.check()
    plan = plan_of(job.source)
    file = file_of(settings)
    model = file.load()
    scoring = _scoring(job, plan, pipelined=where.engine == HERE)
    manifest = Manifest(place_of(job.output))
    manifest.begin(_run(plan, model, scoring), restart=job.restart)
    state = _State(plan, tell)
    for done in manifest.done():
        state.take_up(done.number, done.share)
    if state.taken_up:
        say(f"taken up where it stopped: {state.taken_up:,} of {plan.count:,} partitions are done")
    if state.taken_up < plan.count:
        with engine_of(where, file, model, say) as engine:
            for result in engine.run(scoring, state.left(), where.retries):
                state.add(result.partition, result.value, result.reason)
    left_out = [name for name in plan.others if name not in scoring.others]
    return state.summary(left_out)


def _scoring(job: Job, plan: Plan, *, pipelined: bool) -> Scoring:
    columns = scoring.COLUMNS if plan.single else (FILE, *scoring.COLUMNS)
    return Scoring(
        output=place_of(job.output).address,
        columns=columns,
        others=tuple(name for name in plan.others if name not in columns),
        rows=plan.rows,
        min_distance=job.min_distance,
        pipelined=pipelined,
    )


def _run(plan: Plan, model: Model, scoring: Scoring) -> Run:
    options = {
        "--min-distance": f"{scoring.min_distance:g} m",
        "the columns": ", ".join([*scoring.columns, *scoring.others]),
    }
    return Run(plan.files, f"{model.card.name} {model.card.revision}", options)


class _State:
    """Where a run stands."""

    def __init__(self, plan: Plan, tell: Tell) -> None:
        self._plan = plan
        self._tell = tell
        self._tally = scoring.Tally(plan.rows)
        self._done: set[int] = set()
        self._rows = 0
        self._failed: list[Failed] = []
        self._failures = 0
        self._earlier = 0  # kicks that an earlier start had answered
        self.taken_up = 0

    def take_up(self, number: int, share: scoring.Share) -> None:
        """Count a partition that an earlier start of the run has done."""
        self._done.add(number)
        self.taken_up += 1
        self._earlier += share.sent
        self._count(share)

    def left(self) -> Iterator[Partition]:
        """Yield the partitions that are to be done."""
        return (each for each in self._plan.partitions() if each.number not in self._done)

    def add(self, partition: Partition, share: scoring.Share | None, reason: str) -> None:
        """Count what came of a partition."""
        if share is not None:
            self._count(share)
            return
        self._failures += 1
        if len(self._failed) < _FAILURES_KEPT:
            self._failed.append(Failed(partition.number, partition.url, partition.group, reason))

    def summary(self, not_carried: list[str]) -> PartsSummary:
        """Say what it came to."""
        whole = structs.asdict(self._tally.summary(kept=False, not_carried=not_carried))
        whole["rate"] = round((whole["sent"] - self._earlier) / max(whole["seconds"], 0.001), 1)
        whole["refusals"] = in_order(whole["refusals"], single=self._plan.single)
        return PartsSummary(
            **whole,
            partitions=self._plan.count,
            taken_up=self.taken_up,
            failures=self._failures,
            failed=self._failed,
        )

    def _count(self, share: scoring.Share) -> None:
        self._tally.take(share)
        self._rows += share.sent + share.refused + share.skipped
        self._tell(self._rows, self._plan.rows)


def folder_for(output: str | None, source: str) -> str:
    """Return the folder for the answers of a source.

    Raises:
        DataError: there is none, or what is named can be no folder.
    """
    if output is None:
        raise DataError(f"the answers of {source} go into a folder: name one with --output")
    if output.lower().endswith(_FILES) or Path(output).is_file():
        raise DataError(
            f"the answers of {source} go into a folder of Parquet files, and {output} names a file"
        )
    if "://" in output and not GLOB.isdisjoint(output):  # --restart would remove all that it fits
        raise DataError(f"{output} is a pattern: name one folder, without {' '.join(sorted(GLOB))}")
    return output
