"""Evaluates kicks in many row groups of Parquet, in this process or on a cluster, in one pass over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kickserve.errors import DataError
from kickserve.terminal import say
from kickserve_data.engines import start_engine
from kickserve_data.partitions import read_partition, sort_refusals
from kickserve_drift.findings import SHOWN, WIDTH, Findings
from kickserve_drift.kicks import parts_of
from kickserve_drift.sampling import Sample, quota

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kickserve.model import Model, ModelFile
    from kickserve_data.engines import EngineConfig
    from kickserve_data.partitions import Partition, Plan
    from kickserve_drift.drift_bins import Reference
    from kickserve_drift.findings import Share
    from kickserve_drift.telling import Tell


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Evaluates a partition.

    Attributes:
        reference: what kicks are held against.
        domain: by feature, the range in which the model was trained.
        rows: of all partitions.
        seed: of samples.
    """

    reference: Reference
    domain: Mapping[str, tuple[float, float]]
    rows: int
    seed: int

    def __call__(self, partition: Partition, model: Model) -> Share:
        """Do it; return what it came to.

        Raises:
            DataError: it can't be read.
            PredictionFailed: the model can't answer.
        """
        size = quota(SHOWN, partition.before, partition.rows, self.rows)
        sample = Sample(size, WIDTH, (self.seed, partition.number))
        findings = Findings(self.reference, self.domain, sample, self.rows)
        for part in parts_of(read_partition(partition).blocks, model):
            findings.add(part)
        return findings.share()


def evaluate_partitions(
    plan: Plan, work: Evaluation, where: EngineConfig, model: tuple[ModelFile, Model], tell: Tell
) -> Findings:
    """Evaluate all partitions; return what was found.

    Args:
        plan: which they are.
        work: what is done with each.
        where: what does it.
        model: as it was read, and loaded.
        tell: gets how far it has come.

    Raises:
        DataError: a partition could not be evaluated; a report of a part of the kicks might mislead.
        ServiceAway: the scheduler is away.
    """
    findings = Findings(work.reference, work.domain, Sample(0, WIDTH, work.seed), plan.rows)
    drawn: dict[int, NDArray[np.float64]] = {-1: np.empty((0, WIDTH))}
    seen = 0
    with start_engine(where, *model, say) as engine:
        for result in engine.run(work, plan.partitions(), where.retries):
            partition, share = result.partition, result.value
            if share is None:
                raise DataError(
                    f"row group {partition.group} of {partition.url} can't be evaluated: {result.reason}"
                )
            findings.take(share)
            drawn[partition.number] = share.sample
            seen += share.seen
            tell("reading", (seen + findings.refused) / max(plan.rows, 1))
    findings.refusals = sort_refusals(findings.refusals, single=plan.single)
    findings.sample = Sample.gathered([drawn[number] for number in sorted(drawn)], seen)
    return findings
