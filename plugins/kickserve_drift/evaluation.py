"""Makes a full report of drift: reads the kicks, compares them, has the page drawn, and writes both."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from kickserve.plugins import (
    ConfigurationError,
    KickserveError,
    discover,
    fetch_model,
    load_file,
    open_store,
    printable,
    source_of,
)
from kickserve_data import reader
from kickserve_data.engines import DASK
from kickserve_data.locations import is_many
from kickserve_data.partitions import plan_of
from kickserve_drift.findings import Findings, PartitionEvaluator, evaluate_partitions
from kickserve_drift.kicks import NEWEST, Sample, choose, newest_evaluated, read_stored
from kickserve_drift.psi import MIN_KICKS, Limits, TooFewKicks, summarize, with_outcomes
from kickserve_drift.reference import PLOTTED, Baseline, baseline_of_file, baseline_of_model
from kickserve_drift.report import Current, Report, make_report
from kickserve_drift.reports import PATH, ReportFolder, name_of, need_reports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kickserve.plugins import Model, ModelFile, Settings, Store
    from kickserve.schemas import Record
    from kickserve_data.partitions import EngineConfig
    from kickserve_drift.kicks import GetPage, Selection
    from kickserve_drift.settings import DriftSettings

    OnProgress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """An evaluation of kicks.

    Attributes:
        file: kicks to evaluate: a file, a folder, a pattern or a URL; None for stored predictions.
        reference: kicks to compare with; None for the model's own profile.
        url: of the service that stores the predictions; None for the store.
        selection: which of the stored predictions.
        limits: from which on something has drifted.
        seed: of samples.
        engine: for kicks in files.
        settings: of the core.
        drift: of drift.
        on_progress: gets the stage (`reading`, `drawing` or `writing`) and the share of it that is done.
    """

    file: str | None
    reference: Path | None
    url: str | None
    selection: Selection
    limits: Limits
    seed: int
    engine: EngineConfig
    settings: Settings
    drift: DriftSettings
    on_progress: OnProgress

    def run(self) -> tuple[Report, Path, KickserveError | None]:
        """Make a report, and write it into the folder of reports.

        Returns:
            The report, the path of its page, and the failure of its upload; None where there was none.

        Raises:
            MissingExtra: what draws the page is not installed.
            TooFewKicks: there are hardly any kicks to evaluate, or to compare with.
            DataError: a file can't be read or written.
            StoreError: the store can't be read.
            RemoteError: the service is away, or refuses.
            PredictionFailed: the model raised.
        """
        need_reports("A report of drift")
        at = datetime.now(UTC)
        plugins = discover(self.settings)
        file = fetch_model(source_of(self.settings), plugins)
        model = load_file(file, plugins)
        if self.reference is None:
            baseline = baseline_of_model(model, self.seed)
        else:
            baseline = baseline_of_file(self.reference, model, self.seed)
        self.on_progress("reading", 0.0)
        findings = Findings(
            baseline.reference, model.card.domain, Sample(PLOTTED, self.seed), timed=self.file is None
        )
        kind, place, rule = self._read(findings, baseline, file, model)
        current = Current(
            kind=kind,
            place=place,
            rule=rule,
            first=findings.first,
            last=findings.last,
            models=dict(findings.made_by),
        )
        _check(findings, current)
        summary = summarize(
            baseline.reference,
            findings.counts,
            self.limits,
            at=at,
            since=findings.first or at,
            report=f"{PATH}/{name_of(at)}.html",
        )
        summary = with_outcomes(summary, findings.test.result())
        report = make_report(summary, findings, current, baseline.info, self.seed)
        return self._draw(report, findings, baseline)

    def _read(
        self, findings: Findings, baseline: Baseline, file: ModelFile, model: Model
    ) -> tuple[str, str, str]:
        """Read all kicks; return the kind of their source, its name, and which of its kicks they are."""
        on_read = partial(self.on_progress, "reading")
        if self.file is None:
            return asyncio.run(self._read_stored(findings, model.card.revision))
        if self.engine.engine == DASK or is_many(self.file):
            plan = plan_of(self.file)
            evaluator = PartitionEvaluator(baseline.reference, model.card.domain, plan.rows, self.seed)
            evaluate_partitions(findings, plan, evaluator, self.engine, (file, model), on_read)
        else:
            rows = reader.count_rows(Path(self.file))
            for block in reader.read_blocks(Path(self.file)):
                findings.add_block(block, model)
                findings.hear()
                on_read((findings.kicks + findings.refused) / (rows or 1))
        return "file", printable(self.file), "all of it"

    async def _read_stored(self, findings: Findings, revision: str) -> tuple[str, str, str]:
        selection = self.selection
        async with self._source() as (kind, place, get_page, store):
            if rule := selection.rule:
                async for records in read_stored(get_page, selection):
                    findings.add_records(records)
                    self.on_progress("reading", findings.kicks / selection.last if selection.last else 0.5)
            else:
                groups = read_stored(get_page, replace(selection, last=NEWEST))
                newest = [each async for records in groups for each in records]
                chosen, rule = choose(newest, newest_evaluated(self.drift.reports, place))
                if chosen:
                    findings.add_records(chosen)
                if (
                    store is not None
                ):  # all outcomes of the model in use: a change may be older than these kicks
                    findings.pending = []
                    async for outcomes in store.known_outcomes(revision=revision):
                        findings.test.take(outcomes)
            findings.hear()
        return kind, place, rule if selection.model is None else f"{rule}, of the model {selection.model}"

    @asynccontextmanager
    async def _source(self) -> AsyncIterator[tuple[str, str, GetPage, Store | None]]:
        """Open the source of stored predictions.

        Yields:
            Its kind and name; what gets a page of predictions; the store, where it is none of a service.
        """
        if self.url is None:
            async with open_store(self.settings, read_only=True) as store:
                yield "store", store.label, store.page, store
            return
        from kickserve_client import calls, connected

        async with connected(self.url, self.settings) as client:

            async def get_page(limit: int, **query: Any) -> list[Record]:
                return (await client.send(calls.page({"limit": limit, **query}))).records

            yield "service", self.url, get_page, None

    def _draw(
        self, report: Report, findings: Findings, baseline: Baseline
    ) -> tuple[Report, Path, KickserveError | None]:
        """Draw and write the page, upload it where the settings ask for it, and write the summary."""
        self.on_progress("drawing", 0.0)
        try:
            from kickserve_drift.page import draw, html_of, upload, values_of
        except ImportError as error:  # of a pandas that this Evidently does not know, for example
            raise ConfigurationError(
                f"Evidently can't be imported ({error}): versions that fit come with"
                "  pip install 'kickserve[reports]'"
            ) from error

        self.on_progress("drawing", 0.6)
        # Stored predictions were read newest first; in plots, time goes to the right.
        rows = findings.sample.rows[::-1] if findings.first else findings.sample.rows
        snapshot = draw(rows, baseline.rows, report)
        self.on_progress("drawing", 1.0)
        folder = ReportFolder(self.drift.reports)
        name = name_of(report.at)
        path = folder.write(f"{name}.html", html_of(snapshot, report).encode())
        uploaded, failure = None, None
        if self.drift.evidently_url is not None:
            try:
                uploaded = upload(snapshot, self.drift)
            except KickserveError as error:  # the report is still written
                failure = error
        details = structs.replace(report.details, evidently=values_of(snapshot), uploaded=uploaded)
        report = structs.replace(report, details=details)
        folder.write(f"{name}.json", msgspec.json.format(msgspec.json.encode(report), indent=1))
        self.on_progress("writing", 1.0)
        return report, path, failure


def _check(findings: Findings, current: Current) -> None:
    """Raise TooFewKicks where there are hardly any."""
    if findings.kicks >= MIN_KICKS:
        return
    much = f"{findings.kicks} kicks" if findings.kicks else "no kicks"
    if current.kind != "file":
        raise TooFewKicks(
            f"{current.place} has {much} to evaluate ({current.rule}): an evaluation needs {MIN_KICKS} or"
            " more. Select a longer time, or predict more kicks: `kickserve batch --size 1000`"
        )
    for first in findings.refusals[:1]:
        much += f", and {findings.refused:,} lines that hold none; line {first.line}: {first.reason}"
    raise TooFewKicks(f"{current.place} holds {much}: an evaluation needs {MIN_KICKS} or more")
