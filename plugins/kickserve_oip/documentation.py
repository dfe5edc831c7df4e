"""Describes an inference request in the OpenAPI document: the handler reads the bytes itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)

from kickserve.openapi import EXAMPLE

_EXAMPLE: Final[dict[str, Any]] = {
    "id": "1",
    "inputs": [
        {
            "name": "kicks",
            "shape": [1, len(EXAMPLE)],
            "datatype": "FP64",
            "data": [[float(value) for value in EXAMPLE.values()]],
        }
    ],
    "outputs": [{"name": "prediction"}, {"name": "id"}],
}


@dataclass
class TakesInference(Operation):
    """Documents a body that is an inference request."""

    def __post_init__(self) -> None:
        """Describe the body."""
        self.request_body = RequestBody(
            content={
                "application/json": OpenAPIMediaType(
                    schema=_REQUEST, examples={"example": Example(value=_EXAMPLE)}
                ),
                "application/octet-stream": OpenAPIMediaType(
                    schema=Schema(description="The same JSON, and the values of tensors behind it")
                ),
            },
            required=True,
        )


def _object(required: list[str], **properties: Schema) -> Schema:
    return Schema(type=OpenAPIType.OBJECT, properties={**properties}, required=required)


def _list(items: Schema) -> Schema:
    return Schema(type=OpenAPIType.ARRAY, items=items)


_TEXT: Final = Schema(type=OpenAPIType.STRING)
_PARAMETERS: Final = Schema(type=OpenAPIType.OBJECT)
_INPUT: Final = _object(
    ["name", "shape", "datatype"],
    name=_TEXT,
    shape=_list(Schema(type=OpenAPIType.INTEGER, minimum=0)),
    datatype=Schema(type=OpenAPIType.STRING, description="FP64, FP32, BOOL, INT8 to INT64, UINT8 to UINT64"),
    parameters=_PARAMETERS,
    data=Schema(type=OpenAPIType.ARRAY, description="The values, flat in row-major order or nested"),
)
_REQUEST: Final = _object(
    ["inputs"],
    id=_TEXT,
    parameters=_PARAMETERS,
    inputs=_list(_INPUT),
    outputs=_list(_object(["name"], name=_TEXT, parameters=_PARAMETERS)),
)
