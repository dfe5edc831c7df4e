"""Requests, responses and errors of `/v2`, as msgspec Structs named as in the protocol's specification.

github.com/kserve/open-inference-protocol, `specification/protocol/inference_rest.md`. Members that are not
known are passed over: the protocol lets servers and clients have more than it names. Clients may send null
for what they leave out; the server leaves it out.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from kickserve.plugins import InvalidInput, RequestError
from kickserve.schemas import Problem

PREFIX: Final = "/v2"

Parameters = dict[str, Any]
Size = Annotated[int, Meta(ge=0)]
DATATYPES: Final = (
    "FP64",
    "FP32",
    "BOOL",
    *(f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)),
)
_DATATYPE = Meta(extra_json_schema={"enum": [*DATATYPES, "BYTES"]})
_SHAPE = Meta(
    description="[n] or [n, 1] of a column, [n, 11] of a matrix",
    extra_json_schema={"minItems": 1, "maxItems": 2},
)
_INPUTS = Meta(
    description="The eleven features, or a matrix of them; and `kicker`, labels as BYTES, or without it",
    extra_json_schema={"minItems": 1},
)
_DATA = Meta(description="The values, flat in row-major order or nested", extra_json_schema={"type": "array"})


class BadInference(InvalidInput):
    """The request is no inference request, or not one of kicks; 400, as the protocol has it."""

    status = 400
    title = "Invalid inference request"


class ModelNotServed(RequestError):
    """No model of this name or version is served."""

    status = 404
    title = "Model not found"


class ServerMetadata(Struct, kw_only=True, frozen=True):
    """The server.

    Attributes:
        name: always `kickserve`.
        version: of kickserve.
        extensions: of the protocol that it speaks.
    """

    name: str
    version: str
    extensions: list[str]


class ServerLive(Struct, kw_only=True, frozen=True):
    """Whether the process can answer."""

    live: bool


class ServerReady(Struct, kw_only=True, frozen=True):
    """Whether predictions can be taken. The specification calls it `live` here too; other servers `ready`."""

    live: bool
    ready: bool


class ModelReady(Struct, kw_only=True, frozen=True):
    """Whether a model can be asked."""

    name: str
    ready: bool


class TensorMetadata(Struct, kw_only=True, frozen=True):
    """A tensor that a model takes or gives; -1 in its shape is any number of kicks."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Struct, kw_only=True, frozen=True):
    """A model.

    Attributes:
        name: as `/api/v1/model` has it.
        versions: the one that is served: its revision.
        platform: the kind of model.
        inputs: one column each; in this order they are the columns of a matrix.
        outputs: the tensors that a request may ask for.
    """

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class RequestInput(Struct, kw_only=True, frozen=True):
    """A tensor that is sent: its values are in `data`, or binary behind the JSON."""

    name: str
    shape: Annotated[list[Size], _SHAPE]
    datatype: Annotated[str, _DATATYPE]
    parameters: Parameters | None = None
    data: Annotated[msgspec.Raw | UnsetType, _DATA] = UNSET


class RequestOutput(Struct, kw_only=True, frozen=True):
    """A tensor that is asked for."""

    name: str
    parameters: Parameters | None = None


class InferenceRequest(Struct, kw_only=True, frozen=True):
    """Kicks to be predicted, as tensors."""

    inputs: Annotated[list[RequestInput], _INPUTS]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[RequestOutput] | None = None


class ProblemWithError(Problem, kw_only=True, frozen=True, omit_defaults=True):
    """An error, as the protocol has it and as RFC 9457 does.

    Attributes:
        error: the same as `detail`; the protocol itself knows no other member.
    """

    error: str


class ResponseOutput(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A tensor that is answered: its values are in `data`, or binary behind the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters | None = None
    data: list[float | str | None] | None = None


class InferenceResponse(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The predictions of a model, as tensors.

    Attributes:
        model_name: name of the model that answered.
        model_version: its exact revision.
        id: that of the request, if it had one.
        outputs: those asked for in their order, or all.
    """

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseOutput]
