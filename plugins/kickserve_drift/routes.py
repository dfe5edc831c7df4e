"""The routes of `/api/v1/drift`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, Schema
from litestar.params import FromPath, QueryParameter
from litestar.response import File

from kickserve.plugins import API, SANDBOX, Scope, app_of, newest_drift, refusals, requires
from kickserve.schemas import DriftSummary
from kickserve_drift.psi import MIN_KICKS, TooFewKicks
from kickserve_drift.reports import PATH, ReportFolder, ReportList, Run

TheReports = NamedDependency[ReportFolder]
TheWindow = NamedDependency[int]
Limit = Annotated[int, QueryParameter(ge=1, le=1_000, description="Largest number of reports.")]


@dataclass
class _ReportOperation(Operation):
    """Documents an answer that is a page or a summary."""

    def __post_init__(self) -> None:
        """Describe both."""
        answer: Any = (self.responses or {})["200"]
        answer.content = {
            "text/html": OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING)),
            "application/json": OpenAPIMediaType(schema=Schema(type=OpenAPIType.OBJECT)),
        }
        answer.headers.pop("last-modified", None)  # the framework says of it that it is no date of HTTP


def router(reports: ReportFolder, window: int) -> Router:
    """Make the routes; `window` is the number of kicks that live figures are of, 0 for none."""
    return Router(
        f"{API}/drift",
        route_handlers=[drift, start_report, list_reports, get_report],
        dependencies={
            "reports": Provide(lambda: reports, sync_to_thread=False),
            "window": Provide(lambda: window, sync_to_thread=False),
        },
        tags=["drift"],
    )


@get("/", responses=refusals(409), guards=[requires(Scope.READ)])
async def drift(request: Request[Any, Any, Any], window: TheWindow) -> DriftSummary:
    """Return how far the newest kicks of all workers have drifted from the kicks that the model knows.

    `drifted` is true where half of the features have (`KICKSERVE_DRIFT_SHARE`), or the predictions, or where
    there is an alarm on outcomes (`calibration`). With fewer than 50 kicks, or without live figures
    (`KICKSERVE_DRIFT_WINDOW` is 0): 409.
    """
    summary = newest_drift(app_of(request))
    if summary is None and not window:
        raise TooFewKicks("no kicks are counted, as KICKSERVE_DRIFT_WINDOW is 0: set the number of kicks")
    if summary is None:
        raise TooFewKicks(
            f"fewer than {MIN_KICKS} new kicks are available: predict more kicks, and try again"
        )
    return summary


@post("/reports", status_code=202, responses=refusals(409), guards=[requires(Scope.ADMIN)])
async def start_report(request: Request[Any, Any, Any], reports: TheReports) -> Response[Run]:
    """Start a full report, in a process of its own; one at a time, otherwise 409; so too without Evidently.

    `GET /drift/reports` says how far it has come, and has its link once it is done.
    """
    return Response(await reports.start(app_of(request)), headers={"Location": PATH})


@get("/reports", sync_to_thread=True, guards=[requires(Scope.READ)])
def list_reports(reports: TheReports, limit: Limit = 20) -> ReportList:
    """List the reports, newest first, and the progress of the one that was asked for last."""
    return ReportList(newest_run=reports.newest_run(), reports=reports.entries(limit))


@get(
    "/reports/{name:str}",
    operation_class=_ReportOperation,
    sync_to_thread=True,
    guards=[requires(Scope.READ)],
)
def get_report(name: FromPath[str], reports: TheReports) -> File:
    """Return a report, as a page (`.html`) or as a summary (`.json`)."""
    path = reports.find(name)
    if path.suffix == ".json":
        return File(path, filename=name, media_type="application/json", content_disposition_type="inline")
    return File(
        path,
        filename=name,
        media_type="text/html",
        content_disposition_type="inline",
        headers={"Content-Security-Policy": SANDBOX},
    )
