"""Figures of the kicks that are evaluated, added up part by part, in this process or on a Dask cluster."""

from __future__ import annotations

import pickle
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve.features import COUNT, FEATURES, INDEX, NAMES, acceptable
from kickserve.plugins import say
from kickserve_data import DataError
from kickserve_data.engines import start_engine
from kickserve_data.partitions import read_partition, sort_refusals
from kickserve_drift.expected import Expectation, Expected
from kickserve_drift.kicks import ROW, Sample, predict_blocks
from kickserve_drift.psi import COUNTS
from kickserve_drift.reference import PLOTTED
from kickserve_scores.quality import EXACT, Quality, RunningQuality

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from kickserve.plugins import Model, ModelFile
    from kickserve_data.kicks import RefusedRow
    from kickserve_data.partitions import EngineConfig, Partition, Plan
    from kickserve_drift.kicks import Part
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
        rows: number of rows, where known: of more than a million, quality is counted in cells.

    Attributes:
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
        rows: int | None = None,
    ) -> None:
        self._reference = reference
        self._low = np.array([feature.low for feature in FEATURES])
        self._high = np.array([feature.high for feature in FEATURES])
        for name, (low, high) in domain.items():
            self._low[INDEX[name]], self._high[INDEX[name]] = low, high
        self._holes = np.zeros((3, COUNT))  # missing, out of range, unknown
        self._quality = RunningQuality(EXACT if rows is None or rows <= EXACT else 0)
        self._known, self._open = Expectation(), Expectation()
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

    def add(self, part: Part) -> None:
        """Add some kicks."""
        self.counts += self._reference.count(part.matrix, part.prediction)
        self.sample.add(part.rows)
        known = ~np.isnan(part.outcome)
        self._quality.add(part.prediction[known], part.outcome[known])
        self._known.add(part.prediction[known])
        self._open.add(part.prediction[~known])
        odd = part.odd[:, :COUNT]
        self._holes += [
            np.isnan(odd).sum(axis=0),
            (~acceptable(odd) & ~np.isnan(odd)).sum(axis=0),
            ((part.matrix < self._low) | (part.matrix > self._high)).sum(axis=0),
        ]
        self.made_by += part.made_by
        self.failed += part.failed
        self._refuse(part.refusals, len(part.refusals))
        if part.times is not None:
            first, last = part.times
            self.first = first if self.first is None else min(self.first, first)
            self.last = last if self.last is None else max(self.last, last)

    def merge(self, other: Findings) -> None:
        """Add the figures of a partition of a file, but for the rows of its sample."""
        self.counts += other.counts
        self.sample.seen += other.sample.seen
        self._holes += other._holes
        self._quality.merge(other._quality)
        self._known.merge(other._known)
        self._open.merge(other._open)
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
        quality, expected = self._quality.result(), self._known.result()
        return None if quality is None or expected is None else Known(quality=quality, expected=expected)

    def open(self) -> Expected | None:
        """Return the expected quality of the predictions whose outcome is not known; None without any."""
        return self._open.result()

    def _refuse(self, refusals: Sequence[RefusedRow], count: int) -> None:
        self.refused += count
        self.refusals += refusals[: _REFUSALS_KEPT - len(self.refusals)]


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
        size = sample_size(partition.before, partition.rows, self.rows)
        sample = Sample(size, ROW, (self.seed, partition.number))
        findings = Findings(self.reference, self.domain, sample, self.rows)
        for part in predict_blocks(read_partition(partition).blocks, model):
            findings.add(part)
        return zlib.compress(pickle.dumps(findings), 1)


def evaluate_partitions(
    plan: Plan,
    evaluator: PartitionEvaluator,
    engine_config: EngineConfig,
    model: tuple[ModelFile, Model],
    on_progress: Callable[[float], None],
) -> Findings:
    """Evaluate all partitions; return their figures together.

    Args:
        plan: the partitions.
        evaluator: of each.
        engine_config: of the engine.
        model: its file, and the loaded model.
        on_progress: gets the evaluated share, 0 to 1.

    Raises:
        DataError: a partition can't be evaluated; a report on some of the kicks might mislead.
        ServiceAway: the scheduler is away.
    """
    findings = Findings(evaluator.reference, evaluator.domain, Sample(0, ROW, evaluator.seed), plan.rows)
    samples = {-1: findings.sample.rows}
    with start_engine(engine_config, *model, say) as engine:
        for result in engine.run(evaluator, plan.partitions(), engine_config.retries):
            partition = result.partition
            if result.value is None:
                raise DataError(
                    f"row group {partition.group} of {partition.url} can't be evaluated: {result.reason}"
                )
            found: Findings = pickle.loads(zlib.decompress(result.value))  # noqa: S301  our own
            findings.merge(found)
            samples[partition.number] = found.sample.rows
            on_progress((findings.kicks + findings.refused) / max(plan.rows, 1))
    findings.refusals = sort_refusals(findings.refusals, single=plan.single)
    findings.sample.rows = np.concatenate([samples[number] for number in sorted(samples)])
    return findings


def sample_size(before: int, rows: int, total: int, size: int = PLOTTED) -> int:
    """Return the share of a partition in a sample of all partitions, so that each row has the same chance.

    Args:
        before: rows of all partitions before this one.
        rows: of this one.
        total: of all of them.
        size: rows of the whole sample.
    """
    share = min(size / max(total, 1), 1.0)
    return round((before + rows) * share) - round(before * share)
