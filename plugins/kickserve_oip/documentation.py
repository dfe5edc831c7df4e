"""Describes an inference request in the OpenAPI document: the handler reads the bytes itself."""

from __future__ import annotations

from typing import Any, Final

from kickserve.openapi import EXAMPLE, takes
from kickserve_oip.messages import InferenceRequest

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
TakesInference: Final = takes(
    InferenceRequest,
    _EXAMPLE,
    **{"application/octet-stream": "The same JSON, and the values of tensors behind it"},
)
