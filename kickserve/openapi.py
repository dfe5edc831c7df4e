"""The API's own documentation: the OpenAPI document, and a page for it that needs no network.

The framework documents what a handler takes and returns. Three things are added to it: bodies that a handler
reads itself (`takes`), refusals (`refusals`, `complete`), and links from one call to the next.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    Operation,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.static_files import create_static_files_router

from kickserve import __version__
from kickserve.errors import KickserveError
from kickserve.middleware import app_of, nonce_of, with_nonce
from kickserve.problems import MEDIA_TYPE
from kickserve.schemas import Kick, Kicks, Outcome, Outcomes, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from litestar import Request
    from litestar.router import Router

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

Errors are problem documents (RFC 9457) of one shape. A request that never becomes whole is refused before any
call is chosen, and its connection closed: 400 for broken HTTP, 408 for a request that comes too slowly, 431
for a head that is too long, 503 where there are too many connections.
"""
_WORDS: Final = {
    400: "The request is malformed HTTP, or its body is malformed JSON.",
    401: "The key is missing or wrong.",
    403: "The key lacks the required scope, which `detail` names.",
    404: "No resource has this name.",
    409: "The request conflicts with the current state; `detail` gives the reason.",
    413: "The body is too large.",
    415: "The body is compressed: the service reads plain bodies only.",
    422: "Values of the request are invalid; `errors` names the fields.",
    429: "Too many requests, or too many wrong keys.",
    500: "The model could not answer.",
    503: "The service is temporarily unable to answer: retry later.",
}
_PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_RETRY: Final = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_PREDICTIONS: Final = "/api/v1/predictions"
_ONE: Final = f"{_PREDICTIONS}/{{record_id}}"


@dataclass
class Open(Operation):
    """Documents a call that needs no key."""

    def __post_init__(self) -> None:
        """Ask for none of the keys."""
        self.security = []


@dataclass
class ListsRecords(Operation):
    """Documents an answer that comes as an array or as lines."""

    def __post_init__(self) -> None:
        """Describe the lines."""
        _answer_lines(self, "One record per line, oldest first")


def takes(body: Any, example: Any, *, answer: str = "", **others: str) -> type[Operation]:
    """Make the documentation of a call whose handler reads the bytes of its body itself.

    Args:
        body: type of the body as JSON: a Struct or a list of Structs.
        example: of the body.
        answer: what a line of the answer is, where the call also answers in lines.
        others: descriptions of further media types of the body, by the media type.
    """
    content: dict[str, Any] = {
        "application/json": {"schema": _schema(body), "examples": {"example": {"value": example}}}
    }
    content |= {kind: {"schema": {"description": description}} for kind, description in others.items()}

    @dataclass
    class Takes(Operation):
        def __post_init__(self) -> None:
            self.request_body = RequestBody(content=content, required=True)
            if answer:
                _answer_lines(self, answer)

    return Takes


def _answer_lines(operation: Operation, description: str) -> None:
    answer: Any = (operation.responses or {})["200"]
    answer.content[NDJSON] = OpenAPIMediaType(schema=Schema(description=description))


def _schema(of: Any) -> Any:
    """Return msgspec's JSON Schema of a type, with each part written where the schema refers to it."""
    [schema], parts = msgspec.json.schema_components([of], ref_template="{name}")

    def inline(part: Any) -> Any:
        if isinstance(part, list):
            return [inline(each) for each in part]
        if isinstance(part, dict):
            return inline(parts[part["$ref"]]) if "$ref" in part else {k: inline(v) for k, v in part.items()}
        return part

    return inline(schema)


_RECORD_ID: Final = "01900000-0000-7000-8000-000000000000"

TakesKick: Final = takes(Kick, EXAMPLE)
TakesKicks: Final = takes(
    Kicks, [EXAMPLE], answer="One prediction or problem document per line", **{NDJSON: "One kick per line"}
)
TakesOutcome: Final = takes(Outcome, {"success": True})
TakesOutcomes: Final = takes(Outcomes, [{"id": _RECORD_ID, "success": True}])


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """Describe refusals of a handler beyond the general ones, which `complete` adds."""
    return {
        status: ResponseSpec(
            Problem, description=_WORDS[status], media_type=MEDIA_TYPE, generate_examples=False
        )
        for status in statuses
    }


def answers(of: Any, description: str) -> ResponseSpec:
    """Describe an answer of a type that the framework can't see in its handler."""
    return ResponseSpec(of, description=description, generate_examples=False)


# A link to another call: name, path, method, and the parameters to fill in.
_Link = tuple[str, str, str, "Mapping[str, str]"]


def _to_record(record_id: str) -> list[_Link]:
    filled = {"record_id": record_id}
    return [
        ("read", _ONE, "get", filled),
        ("judge", f"{_ONE}/outcome", "put", filled),
        ("remove", _ONE, "delete", filled),
    ]


_LINKS: Final[dict[tuple[str, str, str], list[_Link]]] = {
    ("/api/v1/predict", "post", "200"): _to_record("$response.body#/id"),
    ("/api/v1/predict/batch", "post", "200"): _to_record("$response.body#/0/id"),
    (f"{_ONE}/outcome", "put", "204"): _to_record("$request.path.record_id"),
    (_PREDICTIONS, "get", "200"): [
        *_to_record("$response.body#/0/id"),
        ("older", _PREDICTIONS, "get", {"before": "$response.body#/0/id"}),
    ],
}


def complete(request: Request[Any, Any, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with the general refusals, the links between calls, and the path of the service.

    Args:
        request: for the document.
        document: of OpenAPI, as the framework makes it.
    """
    with_key = app_of(request).authenticator.guarded
    document = {**deepcopy(document), "servers": [{"url": request.scope.get("root_path") or "/"}]}
    _mend(document)
    paths = document["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            if "responses" not in operation:
                continue
            _complete(operation, guarded=with_key and operation.get("security") != [])
            for status, response in operation["responses"].items():
                if links := dict(_links(paths, (path, method, status))):
                    response["links"] = links
    return document


def _mend(part: Any) -> None:
    """Write pairs as two items of one kind, and leave out nulls of queries, which can't hold any."""
    if isinstance(part, dict):
        if kinds := part.pop("prefixItems", None):
            part |= {"items": kinds[0], "minItems": len(kinds), "maxItems": len(kinds)}
        if part.get("in") == "query":
            either = part["schema"].pop("oneOf", [{}])
            part["schema"] = {**either[0], **part["schema"]}
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _mend(each)


def _complete(operation: dict[str, Any], *, guarded: bool) -> None:
    responses = operation["responses"]
    responses.pop("400", None)  # the framework's own shape of errors, which is not ours
    for status in _general(operation, guarded=guarded):
        responses.setdefault(str(status), {"description": _WORDS[status], "content": _PROBLEM})
    for status in responses.keys() & {"429", "503"}:
        responses[status].setdefault("headers", _RETRY)


def _general(operation: Mapping[str, Any], *, guarded: bool) -> Iterator[int]:
    places = {parameter["in"] for parameter in operation.get("parameters", ())}
    yield 400
    yield 415
    if guarded:
        yield from (401, 403, 429)
    if "path" in places:
        yield 404
    if "query" in places or "requestBody" in operation:
        yield 422
    if "requestBody" in operation:
        yield 413


def _links(paths: Mapping[str, Any], origin: tuple[str, str, str]) -> Iterator[tuple[str, Any]]:
    for name, path, method, filled in _LINKS.get(origin, ()):
        yield name, {"operationId": paths[path][method]["operationId"], "parameters": dict(filled)}


def openapi_config(*, with_key: bool) -> OpenAPIConfig:
    """Describe the API.

    Args:
        with_key: whether clients need a key.
    """
    return OpenAPIConfig(
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
            ),
            _Json(),
        ],
    )


class _Swagger(SwaggerRenderPlugin):
    """Swagger UI, whose script in the page runs by its nonce."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        root = request.scope.get("root_path", "")
        page = super().render(request, complete(request, openapi_schema))
        page = page.replace(f"{ASSETS}/".encode(), f"{root}{ASSETS}/".encode())
        return with_nonce(page, nonce_of(request.scope))


class _Json(JsonRenderPlugin):
    """The document alone."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, complete(request, openapi_schema))


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
