"""`POST /api/v1/profile`: profiles the running process, and answers with the file."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from litestar import Request, Response, post
from litestar.openapi.spec import OpenAPIMediaType, Operation, Schema
from litestar.params import QueryParameter

from kickserve.openapi import refusals
from kickserve_profiling.formats import FORMATS

LONGEST: Final = 60.0  # seconds
Seconds = Annotated[
    float, QueryParameter(ge=0.1, le=LONGEST, description="For how long. The service is slower meanwhile.")
]
FormatName = Annotated[
    Literal["pstat", "callgrind", "speedscope", "svg"],
    QueryParameter(
        name="format",
        description="For snakeviz and `kickserve profile show`, kcachegrind, speedscope, or a browser.",
    ),
]
ClockName = Annotated[
    Literal["cpu", "wall"],
    QueryParameter(description="Time on a processor, or also the time in which threads wait."),
]


@dataclass
class _File(Operation):
    """Documents an answer that is a file of one of the formats."""

    def __post_init__(self) -> None:
        """Describe them."""
        answer: Any = (self.responses or {})["200"]
        answer.content = {
            each.media_type.partition(";")[0]: OpenAPIMediaType(schema=Schema()) for each in FORMATS.values()
        }


@post("/profile", status_code=200, operation_class=_File, responses=refusals(409), tags=["service"])
async def profile(
    request: Request[Any, Any, Any],
    seconds: Seconds = 10.0,
    format_: FormatName = "pstat",
    clock: ClockName = "cpu",
) -> Response[bytes]:
    """Profile this process while it serves, and return the profile as a file.

    One at a time (409 otherwise). Of several workers it is the one that answers.
    """
    from kickserve_profiling.engine import ENGINE  # not before: whoever never asks never imports yappi

    app: Any = request.app
    name = f"kickserve-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    found = await ENGINE.look(seconds, clock, lambda: app.draining)
    written = FORMATS[format_]
    return Response(
        await asyncio.to_thread(written.write, found, name),
        media_type=written.media_type,
        headers={"Content-Disposition": f'attachment; filename="{name}{written.suffix}"'},
    )
