"""Turns what the model said into the tensors that were asked for, as JSON or binary behind it."""

from __future__ import annotations

import asyncio
import math
from itertools import chain
from struct import Struct as Packing
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from litestar import Response

from kickserve.features import COUNT
from kickserve.record import numbers_of
from kickserve_oip.messages import InferenceResponse, ResponseOutput
from kickserve_oip.outputs import OUTPUTS
from kickserve_oip.reading import LENGTH_HEADER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve.model import Model
    from kickserve.record import RecordBatch
    from kickserve.schemas import ModelCard, Prediction
    from kickserve_oip.messages import InferenceRequest
    from kickserve_oip.outputs import Wanted

    Columns = Mapping[str, NDArray[np.float64] | list[str]]

_BINARY: Final = "application/octet-stream"
_NUMBER: Final = np.dtype("<f8")

_length = Packing("<I").pack
_encode = msgspec.json.Encoder().encode


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
    """Lay many answers out as columns; those that cost something only where they are named."""
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
    for at in np.flatnonzero(model.outside(rows)).tolist():
        warnings[at] = _joined(model.warnings(rows[at].tolist()))
    return warnings


def _joined(warnings: Iterable[str]) -> str:
    return "; ".join(warnings)


def respond(
    request: InferenceRequest, card: ModelCard, outputs: Sequence[Wanted], columns: Columns
) -> Response[Any]:
    """Encode the answer."""
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
