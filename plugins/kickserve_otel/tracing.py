"""Spans of requests, made by OpenTelemetry's own instrumentation and named by route."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from kickserve.plugins import ConfigurationError, __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from litestar.types import ASGIApp, Message, Receive, Scope, Send
    from opentelemetry.sdk.trace.export import SpanExporter


_PROTOCOL: Final = "http/protobuf"
_MAX_PATIENCE: Final = 5.0  # seconds for a collector that does not answer when the service stops


class Tracing:
    """Makes spans, and sends them in a thread beside the requests.

    Create it in the process that serves: its thread would not survive a fork. The SDK itself reads the
    variables `OTEL_*` for resource, sampling, limits, batches and the exporter.

    Args:
        patience: seconds that the last spans get to be sent, 5 at most.

    Raises:
        ConfigurationError: the variables name an exporter or a protocol that is not supported.
    """

    def __init__(self, patience: float) -> None:
        resource = Resource.create({SERVICE_VERSION: __version__})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # not named by a variable
            resource = resource.merge(Resource({SERVICE_NAME: "kickserve"}))
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(_exporter()))
        self._patience = min(_MAX_PATIENCE, patience)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return an application that makes a span of each request to `app`."""
        traced: Any = OpenTelemetryMiddleware(
            _named_by_route(app), tracer_provider=self.provider, exclude_spans=["receive", "send"]
        )
        return traced  # type: ignore[no-any-return]

    async def stop(self) -> None:
        """Send the last spans, as far as patience allows: the exporter tries again and again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await asyncio.to_thread(self.provider.shutdown)


def _exporter() -> SpanExporter:
    name = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    if name == "console":
        return ConsoleSpanExporter()
    if name != "otlp":
        raise ConfigurationError(
            f"OTEL_TRACES_EXPORTER={name!r} can't be used: it must be otlp, console or none"
        )
    protocol = (
        os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or _PROTOCOL
    )
    if protocol != _PROTOCOL:
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r} can't be used: traces are sent as {_PROTOCOL}, which"
            " collectors take at port 4318"
        )
    return OTLPSpanExporter()


def _named_by_route(app: ASGIApp) -> ASGIApp:
    """Name the span of a request by its route: the path itself may contain an id."""
    serve: Any = app

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        span = trace.get_current_span()
        request: Any = scope

        def answer(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                route = request.get("path_template")
                span.update_name(f"{request['method']} {route}" if route else request["method"])
                if route:
                    span.set_attribute("http.route", route)
                state = request["state"]
                span.set_attribute("kickserve.request_id", state["request_id"].decode())
                if "principal" in state and (key := state["principal"].key.name):
                    span.set_attribute("kickserve.key", key)
            return send(message)

        await serve(scope, receive, answer)

    return named
