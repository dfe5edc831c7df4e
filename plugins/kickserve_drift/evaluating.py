"""Makes a full report of drift: reads the kicks, compares them, has them drawn, and writes it all down."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import structs

from kickserve.errors import KickserveError, TooFewKicks
from kickserve.loading import fetch_model, load_file, source_of
from kickserve.plugins import discover, open_store
from kickserve_data import reader
from kickserve_data.engines import DASK
from kickserve_data.locations import is_many
from kickserve_data.partitions import plan_of
from kickserve_drift import baseline
from kickserve_drift.drift import LEAST, Limits, summarize
from kickserve_drift.findings import SHOWN, WIDTH, Findings
from kickserve_drift.kicks import FromService, kept, of_file, part_of
from kickserve_drift.names import PATH, name_of
from kickserve_drift.partitions import Evaluation, evaluate_partitions
from kickserve_drift.report import Current, Report, full
from kickserve_drift.sampling import Sample
from kickserve_drift.saving import save_page, save_report
from kickserve_drift.window import NEWEST, chosen, newest_report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kickserve.model import Model, ModelFile
    from kickserve.settings import Settings
    from kickserve_data.engines import EngineConfig
    from kickserve_drift.drift_bins import Reference
    from kickserve_drift.kicks import Pages, Window
    from kickserve_drift.telling import Tell
    from kickserve_drift.window import Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be evaluated, and how.

    Attributes:
        file: kicks to evaluate: a file, a folder, a pattern or a URL; None for those that are kept.
        reference: kicks to hold them against; None for the model's own profile.
        url: of the service that keeps the kicks; None for the store.
        window: which of the kept kicks.
        limits: from where on something has drifted.
        seed: of samples.
        where: what does the work, where the kicks are in files.
    """

    file: str | None
    reference: Path | None
    url: str | None
    window: Window
    limits: Limits
    seed: int
    where: EngineConfig

    @property
    def in_partitions(self) -> bool:
        """Whether row groups of Parquet are evaluated one by one."""
        return self.file is not None and (self.where.engine == DASK or is_many(self.file))

    @property
    def chooses(self) -> bool:
        """Whether somebody said which of the kept kicks are meant."""
        return (self.window.since, self.window.until, self.window.last) != (None, None, None)


class Made(NamedTuple):
    """A report that was made.

    Attributes:
        report: what it says.
        page: its HTML.
        trouble: what failed afterwards; None where nothing did.
    """

    report: Report
    page: Path
    trouble: KickserveError | None


def evaluate(job: Job, settings: Settings, tell: Tell) -> Made:
    """Make a report, and write it into the folder of reports.

    Raises:
        TooFewKicks: there are hardly any kicks to evaluate, or to hold them against.
        DataError: a file can't be read or written.
        StoreError: the store can't be read.
        RemoteError: the service is away, or refuses.
        PredictionFailed: the model can't be asked.
    """
    at = datetime.now(UTC)
    plugins = discover(settings)
    file = fetch_model(source_of(settings), plugins)
    model = load_file(file, plugins)
    base = baseline.of_model(model, job.seed)
    if job.reference is not None:
        base = baseline.of_kicks(job.reference, model, job.seed)
    if job.in_partitions:
        findings = _read_partitions(job, (file, model), base.reference, tell)
        current = _current("file", str(job.file), "all of it", findings)
    else:
        rows = None if job.file is None else reader.count_rows(Path(job.file))
        sample = Sample(SHOWN, WIDTH, job.seed)
        findings = Findings(base.reference, model.card.domain, sample, rows)
        current = _read(job, settings, model, findings, tell)
    _check(findings, current)
    name = name_of(at)
    summary = summarize(
        base.reference,
        findings.counts,
        job.limits,
        at=at,
        since=findings.first or at,
        report=f"{PATH}/{name}.html",
    )
    report = full(summary, findings, current, base.about, job.seed)
    return _drawn(report, findings, base, settings, tell)


def _drawn(
    report: Report, findings: Findings, base: baseline.Baseline, settings: Settings, tell: Tell
) -> Made:
    """Draw a report and write it down."""
    tell("drawing", 0.0)
    from kickserve_drift import pictures
    from kickserve_drift.front import with_front

    tell("drawing", 0.6)
    rows = findings.sample.rows()
    # What is kept was read newest first; time goes to the right in pictures.
    snapshot = pictures.draw(rows[::-1] if findings.first else rows, base.rows, report)
    tell("drawing", 1.0)
    name, folder = name_of(report.at), settings.reports
    page = save_page(folder, name, with_front(pictures.html_of(snapshot), report))
    uploaded, trouble = _upload(snapshot, settings)
    details = structs.replace(report.details, evidently=pictures.values_of(snapshot), uploaded=uploaded)
    report = structs.replace(report, details=details)
    save_report(folder, name, report)
    tell("writing", 1.0)
    return Made(report, page, trouble)


def _upload(snapshot: Any, settings: Settings) -> tuple[str | None, KickserveError | None]:
    """Upload a report where the settings ask for it; what fails must not cost the report."""
    if settings.evidently_url is None:
        return None, None
    from kickserve_drift.upload import upload

    try:
        return upload(snapshot, settings), None
    except KickserveError as error:
        return None, error


def _read_partitions(job: Job, model: tuple[ModelFile, Model], reference: Reference, tell: Tell) -> Findings:
    tell("reading", 0.0)
    plan = plan_of(str(job.file))
    work = Evaluation(reference, model[1].card.domain, plan.rows, job.seed)
    return evaluate_partitions(plan, work, job.where, model, tell)


def _read(job: Job, settings: Settings, model: Model, findings: Findings, tell: Tell) -> Current:
    tell("reading", 0.0)
    if job.file is None:
        return asyncio.run(_read_kept(job, settings, findings, tell))
    rows = reader.count_rows(Path(job.file)) or 1
    for part in of_file(Path(job.file), model):
        findings.add(part)
        tell("reading", (findings.kicks + findings.refused) / rows)
    return _current("file", str(job.file), "all of it", findings)


async def _read_kept(job: Job, settings: Settings, findings: Findings, tell: Tell) -> Current:
    async with _pages(job.url, settings) as (kind, place, pages):
        if not job.chooses:
            rule = await _read_newest(job.window, pages, newest_report(settings.reports, place), findings)
        else:
            rule = _rule(job.window)
            async for records in kept(pages, job.window):
                findings.add(part_of(records))
                tell("reading", _part_read(job.window, findings))
    of_model = "" if job.window.model is None else f", of the model {job.window.model}"
    return _current(kind, place, rule + of_model, findings)


async def _read_newest(window: Window, pages: Pages, seen: Seen | None, findings: Findings) -> str:
    """Read the kicks that are looked at where nobody says which; say which."""
    newest = kept(pages, replace(window, last=NEWEST))
    records = [each async for group in newest for each in group]
    choice = chosen(records, seen)
    if choice.records:
        findings.add(part_of(choice.records))
    return choice.rule


@asynccontextmanager
async def _pages(url: str | None, settings: Settings) -> AsyncIterator[tuple[str, str, Pages]]:
    """Open what keeps the predictions; give its kind, its name and its pages."""
    if url is None:
        async with open_store(settings) as store:
            yield "store", store.label, store
        return
    from kickserve_client.remote import connected

    async with connected(url, settings) as client:
        yield "service", url, FromService(client)


def _current(kind: str, place: str, rule: str, findings: Findings) -> Current:
    return Current(
        kind=kind,
        place=place,
        rule=rule,
        first=findings.first,
        last=findings.last,
        models=dict(findings.made_by),
    )


def _rule(window: Window) -> str:
    """Say in words which kept predictions somebody asked for."""
    parts = [] if window.last is None else [f"the newest {window.last:,}"]
    for word, moment in (("since", window.since), ("until", window.until)):
        if moment is not None:
            parts.append(f"{word} {moment:%Y-%m-%d %H:%M:%S} UTC")
    return ", ".join(parts)


def _part_read(window: Window, findings: Findings) -> float:
    """Say about how far reading has come: by count, or by time; reading goes from the newest back."""
    if window.last is not None:
        return findings.kicks / window.last
    if window.since is None or findings.first is None or findings.last is None:
        return 0.5
    return (findings.last - findings.first) / max(findings.last - window.since, findings.last.resolution)


def _check(findings: Findings, current: Current) -> None:
    """Refuse to judge what are hardly any kicks.

    Raises:
        TooFewKicks: that is so.
    """
    if findings.kicks >= LEAST:
        return
    much = f"{findings.kicks} kicks" if findings.kicks else "no kicks"
    if current.kind == "file":
        raise TooFewKicks(
            f"{current.place} holds {much}{_refused(findings)}: {LEAST} or more are needed to say anything"
        )
    raise TooFewKicks(
        f"{current.place} keeps {much} to evaluate ({current.rule}): {LEAST} or more are needed."
        " Look at a longer time, or predict some: `kickserve batch --size 1000`"
    )


def _refused(findings: Findings) -> str:
    if not findings.refused:
        return ""
    first = f"; line {findings.refusals[0].line}: {findings.refusals[0].reason}" if findings.refusals else ""
    return f", and {findings.refused:,} lines that hold none{first}"
