"""What the OpenAPI document says of answers: every refusal in one place, and which call leads to which.

The framework knows what a handler returns. What else a call may be answered with follows from what it takes
(`complete`), or its handler says so (`refusals`); all are problem documents.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.spec import OpenAPI

from kickserve.problems import MEDIA_TYPE
from kickserve.schemas import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_WORDS: Final = {
    400: "The request is no HTTP, or its body no JSON.",
    401: "The key is missing or wrong.",
    403: "The key is not good for this; the answer says what it would have to be good for.",
    404: "There is nothing of this name.",
    409: "It can't be done now; the answer says why.",
    413: "The body is larger than is read.",
    415: "The body is compressed: nothing is unpacked.",
    422: "The request does not say what it must; `errors` names the fields.",
    429: "The client asks too often, or sends wrong keys.",
    500: "The model could not answer.",
    503: "It can't be done now, and may be later.",
}
_SCHEMA: Final = {"$ref": "#/components/schemas/Problem"}
_RETRY: Final = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_PREDICTIONS: Final = "/api/v1/predictions"
_ONE: Final = f"{_PREDICTIONS}/{{record_id}}"

# From which call to which: name, path, method, and what to fill in.
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


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """Describe what a call may be refused with, beside what follows from what it takes: for its handler."""
    return {
        status: ResponseSpec(
            Problem, description=_WORDS[status], media_type=MEDIA_TYPE, generate_examples=False
        )
        for status in statuses
    }


def answers(of: Any, description: str) -> ResponseSpec:
    """Describe an answer of a type that the framework can't see in its handler."""
    return ResponseSpec(of, description=description, generate_examples=False)


def complete(document: dict[str, Any], *, with_key: bool) -> dict[str, Any]:
    """Add to a document what may be refused in general, and which call leads to which.

    Args:
        document: of OpenAPI, as the framework makes it; it is changed.
        with_key: whether calls need a key, but for those whose `security` says otherwise.
    """
    _mend(document)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "responses" in operation:
                _complete(operation, guarded=with_key and operation.get("security") != [])
                for status, response in operation["responses"].items():
                    links = dict(_links(document["paths"], (path, method, status)))
                    if links:
                        response["links"] = links
    return document


def _mend(part: Any) -> None:
    """Write pairs as what they are, two of a kind, and say nothing of nulls, which no query can hold."""
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
        content = {MEDIA_TYPE: {"schema": _SCHEMA}}
        responses.setdefault(str(status), {"description": _WORDS[status], "content": content})
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


class _Document(OpenAPI):
    with_key = False

    def to_schema(self) -> dict[str, Any]:
        return complete(super().to_schema(), with_key=self.with_key)


@dataclass
class CompleteConfig(OpenAPIConfig):
    """What the framework makes the document from, and `complete` completes.

    Attributes:
        with_key: as there.
    """

    with_key: bool = False

    def to_openapi_schema(self) -> OpenAPI:
        """Begin the document."""
        begun = super().to_openapi_schema()
        document = _Document(**{each.name: getattr(begun, each.name) for each in fields(begun)})
        document.with_key = self.with_key
        return document
