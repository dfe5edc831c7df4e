"""The API's own documentation: the OpenAPI document, and a page for it that needs no network."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from litestar.exceptions import NotFoundException
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import (
    Components,
    Example,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.static_files import create_static_files_router

from kickserve import __version__
from kickserve.answers import CompleteConfig
from kickserve.bodies import BATCH_MAX
from kickserve.errors import KickserveError
from kickserve.features import FEATURES
from kickserve.security import nonce_of, with_nonce

if TYPE_CHECKING:
    from litestar import Request
    from litestar.openapi import OpenAPIConfig
    from litestar.router import Router

    from kickserve.features import Feature

PATH: Final = "/docs"
ASSETS: Final = "/docs-assets"
NDJSON: Final = "application/x-ndjson"
EXAMPLE: Final[dict[str, float | bool]] = {
    "time_norm": 0.5,
    "distance": 38,
    "angle": 24,
    "wind_speed": 12,
    "precipitation_probability": 0.2,
    "is_left_footed": False,
    "game_away": True,
    "is_endgame": False,
    "is_start": False,
    "is_left_side": True,
    "has_previous_attempts": True,
}
_KEY: Final = "X-API-Key"
_ABOUT: Final = """The honest probability that a rugby place kick goes over.

Errors are problem documents (RFC 9457) of one shape. What never becomes a whole request is answered before
any call is chosen, and the connection closed: 400 for what is no HTTP, 408 for what comes too slowly, 431 for
a head that is too long, 503 where there are too many connections.
"""


@dataclass
class Open(Operation):
    """Documents a call that needs no key."""

    def __post_init__(self) -> None:
        """Say so."""
        self.security = []


@dataclass
class ListsRecords(Operation):
    """Documents an answer that comes as an array or as lines."""

    def __post_init__(self) -> None:
        """Describe the lines."""
        _also_lines(self, "One record a line, oldest first")


@dataclass
class TakesKick(Operation):
    """Documents a body that is one kick. The handler reads the bytes itself, strictly."""

    def __post_init__(self) -> None:
        """Describe the body."""
        self.request_body = _body({"application/json": _media(_KICK, EXAMPLE)})


@dataclass
class TakesKicks(Operation):
    """Documents a body that is many kicks."""

    def __post_init__(self) -> None:
        """Describe the body."""
        kicks = Schema(type=OpenAPIType.ARRAY, items=_KICK, min_items=1, max_items=BATCH_MAX)
        self.request_body = _body(
            {
                "application/json": _media(kicks, [EXAMPLE]),
                NDJSON: OpenAPIMediaType(schema=Schema(description="One kick a line")),
            }
        )
        _also_lines(self, "One prediction or problem a line")


@dataclass
class TakesOutcome(Operation):
    """Documents a body that is an outcome."""

    def __post_init__(self) -> None:
        """Describe the body."""
        self.request_body = _body({"application/json": _media(_OUTCOME, {"success": True})})


@dataclass
class TakesOutcomes(Operation):
    """Documents a body that is many outcomes."""

    def __post_init__(self) -> None:
        """Describe the body."""
        each = Schema(
            type=OpenAPIType.OBJECT,
            properties={"id": Schema(type=OpenAPIType.STRING), "success": _SUCCESS},
            required=["id", "success"],
            additional_properties=False,
        )
        schema = Schema(type=OpenAPIType.ARRAY, items=each, min_items=1, max_items=BATCH_MAX)
        example = {"id": "01900000-0000-7000-8000-000000000000", "success": True}
        self.request_body = _body({"application/json": _media(schema, [example])})


def openapi_config(*, with_key: bool) -> OpenAPIConfig:
    """Describe the API.

    Args:
        with_key: whether clients need a key.
    """
    return CompleteConfig(
        with_key=with_key,
        title="kickserve",
        version=__version__,
        description=_ABOUT,
        path=PATH,
        use_handler_docstrings=True,
        components=Components(
            security_schemes={
                "key": SecurityScheme(type="apiKey", name=_KEY, security_scheme_in="header"),
                "bearer": SecurityScheme(type="http", scheme="bearer", description="The same key."),
            },
        ),
        security=[{"key": []}, {"bearer": []}] if with_key else None,
        render_plugins=[
            _Swagger(
                js_url=f"{ASSETS}/swagger-ui-bundle.js",
                css_url=f"{ASSETS}/swagger-ui.css",
                standalone_preset_js_url=f"{ASSETS}/swagger-ui-standalone-preset.js",
                favicon=f"<link rel='icon' href='{ASSETS}/favicon-32x32.png'>",  # the default comes from afar
            )
        ],
    )


class _Swagger(SwaggerRenderPlugin):
    """Swagger UI, whose script in the page runs by its nonce."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return with_nonce(super().render(request, openapi_schema), nonce_of(request.scope))


def assets() -> Router:
    """Serve Swagger UI's files from where they are installed."""
    # Found, not imported: the package's own code is for other frameworks.
    found = find_spec("swagger_ui")
    if found is None or found.origin is None:
        raise KickserveError(
            "the package swagger-ui-py is broken: pip install --force-reinstall swagger-ui-py"
        )
    folder = Path(found.origin).parent / "static"
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}

    async def refuse_unknown(request: Request[Any, Any, Any]) -> None:
        # The framework would ask the system, which takes neither a NUL in a name nor one of any length.
        if request.path_params["file_path"].lstrip("/") not in names:
            raise NotFoundException

    return create_static_files_router(
        path=ASSETS, directories=[folder], include_in_schema=False, before_request=refuse_unknown
    )


def _also_lines(operation: Operation, description: str) -> None:
    answer: Any = (operation.responses or {})["200"]
    answer.content[NDJSON] = OpenAPIMediaType(schema=Schema(description=description))


def _body(content: dict[str, OpenAPIMediaType]) -> RequestBody:
    return RequestBody(content=content, required=True)


def _media(schema: Schema, example: Any) -> OpenAPIMediaType:
    return OpenAPIMediaType(schema=schema, examples={"example": Example(value=example)})


def _kick_schema() -> Schema:
    return Schema(
        type=OpenAPIType.OBJECT,
        title="Kick",
        description="A kick to be predicted: all eleven features, and nothing else.",
        properties={feature.name: _feature_schema(feature) for feature in FEATURES},
        required=[feature.name for feature in FEATURES],
        additional_properties=False,
    )


def _feature_schema(feature: Feature) -> Schema:
    if feature.kind == "flag":
        either = [Schema(type=OpenAPIType.BOOLEAN), Schema(type=OpenAPIType.INTEGER, enum=[0, 1])]
        return Schema(any_of=either, description=feature.meaning)
    return Schema(type=OpenAPIType.NUMBER, minimum=feature.low, maximum=feature.high, description=feature.doc)


_SUCCESS: Final = Schema(type=OpenAPIType.BOOLEAN, description="Whether the ball went over.")
_OUTCOME: Final = Schema(
    type=OpenAPIType.OBJECT,
    properties={"success": _SUCCESS},
    required=["success"],
    additional_properties=False,
)
_KICK: Final = _kick_schema()
