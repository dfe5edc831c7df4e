"""Writes inference responses: the outputs that a request asks for, as JSON or binary behind it."""

from __future__ import annotations

import asyncio
import math
from itertools import chain
from struct import Struct as Packing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np
from litestar import Response

from kickserve.features import COUNT
from kickserve.plugins import numbers_of
from kickserve_oip.inputs import LENGTH_HEADER
from kickserve_oip.messages import BadInference, InferenceResponse, ResponseOutput

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve.plugins import Model, RecordBatch
    from kickserve.schemas import ModelCard, Prediction
    from kickserve_oip.messages import InferenceRequest, RequestOutput

    Columns = Mapping[str, NDArray[np.float64] | list[str]]

INTERVAL: Final = ("low", "high")
OUTPUTS: Final = {  # by name, the datatype; each of shape (n,)
    "prediction": "FP64",
    "confidence": "FP64",
    "low": "FP64",
    "high": "FP64",
    "id": "BYTES",
    "warnings": "BYTES",
}
_BINARY: Final = "application/octet-stream"
_NUMBER: Final = np.dtype("<f8")

_length = Packing("<I").pack
_encode = msgspec.json.Encoder().encode


class Wanted(NamedTuple):
    """An output to be answered.

    Attributes:
        name: of `OUTPUTS`.
        binary: whether its values come as bytes.
    """

    name: str
    binary: bool


def outputs_of(card: ModelCard) -> list[str]:
    """Name the outputs of a model: the ends of the interval only where it gives one."""
    return [name for name in OUTPUTS if card.interval is not None or name not in INTERVAL]


def wanted(request: InferenceRequest, card: ModelCard) -> list[Wanted]:
    """Return the outputs that a request asks for: all of them where it names none.

    Raises:
        BadInference: it asks for an output that this model doesn't give, for one twice, or by an extension
            that this server doesn't have.
    """
    there = outputs_of(card)
    binary = _flag(request.parameters, "binary_data_output", default=False)
    if not request.outputs:
        return [Wanted(name, binary) for name in there]
    names = [each.name for each in request.outputs]
    for each in request.outputs:
        _check(each, there)
    if twice := [name for name in there if names.count(name) > 1]:
        raise BadInference(f"outputs asks twice for {', '.join(twice)}")
    return [
        Wanted(each.name, _flag(each.parameters, "binary_data", default=binary)) for each in request.outputs
    ]


def _check(output: RequestOutput, there: Sequence[str]) -> None:
    if output.name not in there:
        why = "this model gives no interval" if output.name in INTERVAL else "there is no such output"
        raise BadInference(f"the output {output.name[:100]!r}: {why}; there are {', '.join(there)}")
    for name in ("classification", "shared_memory_region"):
        if name in (output.parameters or {}):
            raise BadInference(f"the output {output.name!r}: {name} is not among this server's extensions")


def _flag(parameters: Mapping[str, Any] | None, name: str, *, default: bool) -> bool:
    value = (parameters or {}).get(name, default)
    if not isinstance(value, bool):
        raise BadInference(f"the parameter {name} must be true or false, not {str(value)[:40]}")
    return value


def columns_of(prediction: Prediction) -> Columns:
    """Lay one answer out as columns."""
    low, high = prediction.interval or (math.nan, math.nan)
    return {
        "prediction": np.array([prediction.prediction]),
        "confidence": np.array([prediction.confidence]),
        "low": np.array([low]),
        "high": np.array([high]),
        "id": [prediction.id],
        "warnings": [_joined(prediction.warnings)],
    }


async def columns_of_batches(batches: Sequence[RecordBatch], model: Model, names: Collection[str]) -> Columns:
    """Lay many answers out as columns; texts, which cost the most, only where they are named."""
    numbers = numbers_of(batches)
    probability, low, high = numbers[:, COUNT : COUNT + 3].T
    columns = {"prediction": probability, "confidence": np.maximum(probability, 1 - probability)}
    columns |= {"low": low, "high": high}
    texts: dict[str, list[str]] = {name: [] for name in ("id", "warnings") if name in names}
    for batch in batches:
        if "id" in texts:
            texts["id"] += batch.ids.texts()
        if "warnings" in texts:
            texts["warnings"] += _warnings(model, numbers_of([batch])[:, :COUNT])
        await asyncio.sleep(0)
    return {**columns, **texts}


def _warnings(model: Model, rows: NDArray[np.float64]) -> list[str]:
    warnings = [""] * len(rows)
    for at in np.flatnonzero(model.out_of_domain(rows)).tolist():
        warnings[at] = _joined(model.warnings(rows[at].tolist()))
    return warnings


def _joined(warnings: Iterable[str]) -> str:
    return "; ".join(warnings)


def respond(
    request: InferenceRequest, card: ModelCard, outputs: Sequence[Wanted], columns: Columns
) -> Response[Any]:
    """Encode the response: JSON, and behind it the bytes of the outputs that come binary."""
    made = [_output(each, columns[each.name]) for each in outputs]
    head = _encode(
        InferenceResponse(
            model_name=card.name,
            model_version=card.revision,
            id=request.id,
            outputs=[output for output, _ in made],
        )
    )
    parts = [part for _, part in made if part is not None]
    if not parts:
        return Response(head, media_type="application/json")
    headers = {LENGTH_HEADER: str(len(head))}
    return Response(b"".join((head, *parts)), media_type=_BINARY, headers=headers)


def _output(asked: Wanted, values: NDArray[np.float64] | list[str]) -> tuple[ResponseOutput, bytes | None]:
    name, shape = asked.name, [len(values)]
    if not asked.binary:
        data: list[Any] = values if isinstance(values, list) else values.tolist()
        return ResponseOutput(name=name, datatype=OUTPUTS[name], shape=shape, data=data), None
    part = _texts(values) if isinstance(values, list) else values.astype(_NUMBER).tobytes()
    parameters = {"binary_data_size": len(part)}
    return ResponseOutput(name=name, datatype=OUTPUTS[name], shape=shape, parameters=parameters), part


def _texts(values: Sequence[str]) -> bytes:
    """Encode texts as the extension has them: each behind its length in four bytes."""
    encoded = [value.encode() for value in values]
    return b"".join(chain.from_iterable(zip(map(_length, map(len, encoded)), encoded, strict=True)))
