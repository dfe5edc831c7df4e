"""Figures of the kicks that are evaluated, added up part by part, in this process or on a Dask cluster."""

from __future__ import annotations

import pickle
import zlib
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve.features import COUNT, FEATURES, INDEX, NAMES, acceptable
from kickserve.plugins import say
from kickserve_data import DataError
from kickserve_data.engines import work_through
from kickserve_data.partitions import read_partition, sort_refusals
from kickserve_drift.expected import Expected, expected
from kickserve_drift.kicks import Sample, countable, predicted_rows, rows_of
from kickserve_drift.psi import COUNTS
from kickserve_drift.reference import PLOTTED
from kickserve_scores.calibration import CalibrationTest
from kickserve_scores.quality import Quality, RunningQuality

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from kickserve.plugins import Model, ModelFile
    from kickserve.schemas import Record
    from kickserve_data.kicks import Block, RefusedRow
    from kickserve_data.partitions import EngineConfig, Partition, Plan
    from kickserve_drift.psi import Reference

_REFUSALS_KEPT: Final = 100


class Holes(Struct, kw_only=True, frozen=True):
    """Values of one feature without information, as shares of all rows.

    Attributes:
        name: of the feature.
        missing: no value, or no number.
        out_of_range: a number that the feature can't take, so the row was refused.
        unknown: a number beyond the range that the model was trained on.
    """

    name: str
    missing: float
    out_of_range: float
    unknown: float


class Known(Struct, kw_only=True, frozen=True):
    """Quality of the predictions whose outcome is known.

    Attributes:
        quality: as measured.
        expected: of these very kicks, if the probabilities are right.
    """

    quality: Quality
    expected: Expected


class Findings:
    """Figures of the kicks that are evaluated.

    Args:
        reference: compared with.
        domain: by feature, the range in which the model was trained.
        sample: for the plots.
        timed: whether outcomes have a time; otherwise they have lines of a file.

    Attributes:
        test: of the predictions by their outcomes, as far as these were heard.
        pending: outcomes that wait to be heard, shape (4, n) each: answer, the model's own probability,
            outcome, and time or line.
        counts: by bin of the reference, shape `kickserve_drift.psi.COUNTS`.
        sample: for the plots.
        made_by: number of predictions by name and revision of the model.
        first: when the oldest was predicted; None where unknown.
        last: when the newest was.
        failed: predictions where the model failed.
        refused: lines of a file that hold no valid kick.
        refusals: the first hundred of them, with reasons.
    """

    def __init__(
        self,
        reference: Reference,
        domain: Mapping[str, tuple[float, float]],
        sample: Sample,
        *,
        timed: bool = False,
    ) -> None:
        self._reference = reference
        self._low = np.array([feature.low for feature in FEATURES])
        self._high = np.array([feature.high for feature in FEATURES])
        for name, (low, high) in domain.items():
            self._low[INDEX[name]], self._high[INDEX[name]] = low, high
        self._holes = np.zeros((3, COUNT))  # missing, out of range, unknown
        self._quality = RunningQuality()
        self.test = CalibrationTest(timed=timed)
        self.pending: list[NDArray[np.float64]] = []
        self.counts = np.zeros(COUNTS)
        self.sample = sample
        self.made_by: Counter[str] = Counter()
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.failed = self.refused = 0
        self.refusals: list[RefusedRow] = []

    @property
    def kicks(self) -> int:
        """Number of kicks."""
        return self.sample.seen

    def add_records(self, records: Sequence[Record]) -> None:
        """Add stored predictions, from 1, newest first, and older than those before; none of the page."""
        whole = countable(records)
        self._add(rows_of(whole))
        self.made_by.update(f"{record.model} {record.revision}" for record in whole)
        self.failed += sum(record.prediction is None for record in records)
        self.first, self.last = records[-1].created_at, self.last or records[0].created_at
        self.pending.append(
            np.array([_outcome_of(each) for each in whole if each.outcome is not None]).reshape(-1, 4).T
        )

    def add_block(self, block: Block, model: Model) -> None:
        """Predict the kicks of a file, and add them.

        Raises:
            PredictionFailed: the model raised, or returned something that is no probability.
        """
        rows, odd = predicted_rows(block, model), block.odd[:, :COUNT]
        self._add(rows)
        self._holes[:2] += np.isnan(odd).sum(axis=0), (~acceptable(odd) & ~np.isnan(odd)).sum(axis=0)
        self.made_by[f"{model.card.name} {model.card.revision}"] += len(rows)
        known = ~np.isnan(rows[:, COUNT + 1])
        prediction, outcome = rows[known, COUNT:].T
        self.pending.append(np.array([prediction, prediction, outcome, block.lines[known]]))
        self._refuse(block.refusals, len(block.refusals))

    def _add(self, rows: NDArray[np.float64]) -> None:
        self.counts += self._reference.count(rows)
        self.sample.add(rows)
        self._quality.add(*rows[:, COUNT:].T)
        matrix = rows[:, :COUNT]
        self._holes[2] += ((matrix < self._low) | (matrix > self._high)).sum(axis=0)

    def hear(self) -> None:
        """Hear the outcomes that wait, in the order of their time or line."""
        waiting = np.concatenate([np.empty((4, 0)), *self.pending], axis=1)
        self.pending = []
        self.test.hear(*waiting[:, np.argsort(waiting[3], kind="stable")])

    def merge(self, other: Findings) -> None:
        """Add the figures of a partition of a file, but for the rows of its sample, and the outcomes."""
        self.counts += other.counts
        self.sample.seen += other.sample.seen
        self._holes += other._holes
        self._quality.merge(other._quality)
        self.made_by += other.made_by
        self._refuse(other.refusals, other.refused)

    def holes(self) -> list[Holes]:
        """Return the shares of values without information, by feature."""
        shares = (self._holes / max(self.kicks + self.refused, 1)).T.tolist()
        return [
            Holes(name=name, missing=missing, out_of_range=out, unknown=unknown)
            for name, (missing, out, unknown) in zip(NAMES, shares, strict=True)
        ]

    def known(self) -> Known | None:
        """Return the quality of the predictions whose outcome is known; None without any."""
        quality, by_chance = self._quality.result(), expected(*self._quality.cells(known=True))
        return None if quality is None or by_chance is None else Known(quality=quality, expected=by_chance)

    def open(self) -> Expected | None:
        """Return the expected quality of the predictions whose outcome is not known; None without any."""
        return expected(*self._quality.cells(known=False))

    def _refuse(self, refusals: Sequence[RefusedRow], count: int) -> None:
        self.refused += count
        self.refusals += refusals[: _REFUSALS_KEPT - len(self.refusals)]


def _outcome_of(record: Record) -> tuple[float, ...]:
    answer, at = record.prediction or 0.0, record.outcome_at or record.created_at
    base = answer if record.base is None else record.base
    return answer, base, float(record.outcome or False), at.timestamp()


@dataclass(frozen=True, slots=True)
class PartitionEvaluator:
    """Evaluates partitions of a file, each by itself.

    Attributes:
        reference: compared with.
        domain: by feature, the range in which the model was trained.
        rows: of all partitions.
        seed: of samples.
    """

    reference: Reference
    domain: Mapping[str, tuple[float, float]]
    rows: int
    seed: int

    def __call__(self, partition: Partition, model: Model) -> bytes:
        """Return the `Findings` of a partition, compressed: most cells of its histograms are 0.

        Raises:
            DataError: the partition can't be read.
            PredictionFailed: the model raised.
        """
        # The partition's part of a sample of all rows, so that each row has the same chance.
        share = min(PLOTTED / max(self.rows, 1), 1.0)
        size = round((partition.before + partition.rows) * share) - round(partition.before * share)
        findings = Findings(self.reference, self.domain, Sample(size, (self.seed, partition.number)))
        for block in read_partition(partition)[1]:
            findings.add_block(block, model)
        return zlib.compress(pickle.dumps(findings), 1)


def evaluate_partitions(
    findings: Findings,
    plan: Plan,
    evaluator: PartitionEvaluator,
    engine_config: EngineConfig,
    model: tuple[ModelFile, Model],
    on_progress: Callable[[float], None],
) -> None:
    """Evaluate all partitions, and add their figures to `findings`.

    Args:
        findings: still empty.
        plan: the partitions.
        evaluator: of each.
        engine_config: of the engine.
        model: its file, and the loaded model.
        on_progress: gets the evaluated share, 0 to 1.

    Raises:
        DataError: a partition can't be evaluated; a report on some of the kicks might mislead.
        ServiceAway: the scheduler is away.
    """
    samples = {-1: findings.sample.rows}
    rows = [sum(file.groups) for file in plan.files]
    before = {file.url: end - size for file, end, size in zip(plan.files, np.cumsum(rows), rows, strict=True)}
    pending: dict[int, list[NDArray[np.float64]]] = {}  # of partitions that are done before an earlier one
    heard = 0
    with closing(work_through(evaluator, plan.partitions(), engine_config, model, say)) as running:
        for result in running:
            partition = result.partition
            if result.value is None:
                raise DataError(
                    f"row group {partition.group} of {partition.url} can't be evaluated: {result.reason}"
                )
            found: Findings = pickle.loads(zlib.decompress(result.value))  # noqa: S301  our own
            findings.merge(found)
            samples[partition.number] = found.sample.rows
            for each in found.pending:
                each[3] += before[partition.url]  # lines of all files
            pending[partition.number] = found.pending
            while heard in pending:
                findings.pending += pending.pop(heard)
                findings.hear()
                heard += 1
            on_progress((findings.kicks + findings.refused) / max(plan.rows, 1))
    findings.refusals = sort_refusals(findings.refusals, single=plan.single)
    findings.sample.rows = np.concatenate([samples[number] for number in sorted(samples)])
