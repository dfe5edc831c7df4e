"""Reads the values of a tensor, from JSON or from bytes, straight into an array."""

from __future__ import annotations

import math
import re
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, Meta

from kickserve.schemas import Flag
from kickserve_oip.errors import BadInference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kickserve_oip.messages import RequestInput


class _Datatype(NamedTuple):
    """How the values of a type are sent.

    Attributes:
        binary: as bytes.
        flat: as a JSON array.
        nested: as a JSON array of arrays.
        wanted: what they must be, in words.
    """

    binary: np.dtype[Any]
    flat: msgspec.json.Decoder[list[float]]
    nested: msgspec.json.Decoder[list[list[float]]]
    wanted: str


def _datatype(binary: str, element: Any, wanted: str) -> _Datatype:
    flat, nested = msgspec.json.Decoder(list[element]), msgspec.json.Decoder(list[list[element]])
    return _Datatype(np.dtype(binary), flat, nested, wanted)


def _integers(binary: str) -> _Datatype:
    limits = np.iinfo(binary)
    low, high = int(limits.min), int(limits.max)
    # msgspec knows no limit beyond 64 bits with a sign; larger ones are larger than any feature anyhow.
    meta = Meta(ge=low, le=high) if high <= np.iinfo("i8").max else Meta(ge=low)
    return _datatype(binary, Annotated[int, meta], f"whole numbers from {low} to {high}")


_DATATYPES: Final = {
    "FP64": _datatype("<f8", float, "numbers"),
    "FP32": _datatype("<f4", float, "numbers"),
    "BOOL": _datatype("u1", Flag, "true and false, or 1 and 0"),
    **{f"INT{bits}": _integers(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": _integers(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
}
_LONGEST_SHOWN: Final = 60
_NESTED: Final = re.compile(rb"\s*\[\s*\[").match


def values_of(tensor: RequestInput, binary: memoryview | None) -> NDArray[np.float64]:
    """Return the values of a tensor, flat, in row-major order.

    Args:
        tensor: what was sent; of its shape only the number of values is looked at.
        binary: its values as bytes, if they came so.

    Raises:
        BadInference: the datatype is none that a kick can have, or the values don't fit it or the shape.
    """
    datatype = _DATATYPES.get(tensor.datatype)
    if datatype is None:
        known = ", ".join(_DATATYPES)
        raise wrong(tensor, f"its datatype {tensor.datatype[:40]!r} is none of {known}")
    read = _from_json(tensor, datatype) if binary is None else _from_binary(tensor, datatype, binary)
    wanted = math.prod(tensor.shape)
    if len(read) != wanted:
        raise wrong(
            tensor, f"its shape {shape_of(tensor)} means {wanted:,} values, and {len(read):,} were sent"
        )
    return read


def shape_of(tensor: RequestInput) -> str:
    """Show a shape in an error, however long it is."""
    text = str(tensor.shape[:_LONGEST_SHOWN])
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def wrong(tensor: RequestInput, reason: str) -> BadInference:
    """Make the error for a tensor that can't be used: `reason` is a clause."""
    return BadInference(f"the tensor {tensor.name[:100]!r}: {reason}")


def _from_binary(tensor: RequestInput, datatype: _Datatype, binary: memoryview) -> NDArray[np.float64]:
    size, width = len(binary), datatype.binary.itemsize
    if size % width:
        raise wrong(tensor, f"{size:,} bytes are no whole number of {tensor.datatype} of {width} bytes each")
    with np.errstate(invalid="ignore"):  # some NaN; that they are no values of a kick is told later
        return np.frombuffer(binary, datatype.binary).astype(np.float64)


def _from_json(tensor: RequestInput, datatype: _Datatype) -> NDArray[np.float64]:
    if tensor.data is UNSET:
        raise wrong(tensor, "it has neither data nor, in its parameters, a binary_data_size")
    try:
        values = _decode(tensor, datatype)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        reason = str(error).replace("`$", "`data")
        raise wrong(tensor, f"its data must be {datatype.wanted} ({tensor.datatype}): {reason}") from None
    except OverflowError:
        raise wrong(tensor, f"its data must be {datatype.wanted} ({tensor.datatype})") from None
    # A value is what its datatype can hold of it: the same whether it comes as text or as bytes.
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(np.float64) if tensor.datatype == "FP32" else values


def _decode(tensor: RequestInput, datatype: _Datatype) -> NDArray[np.float64]:
    data: Any = tensor.data
    if not _NESTED(data):
        values = datatype.flat.decode(data)
        return np.fromiter(values, np.float64, len(values))
    if len(tensor.shape) < 2:  # noqa: PLR2004  a vector has nothing to nest
        raise wrong(tensor, f"its data is nested, and its shape {shape_of(tensor)} is not")
    rows = datatype.nested.decode(data)
    _check_nesting(tensor, rows)
    return np.fromiter(chain.from_iterable(rows), np.float64)


def _check_nesting(tensor: RequestInput, rows: Sequence[Sequence[float]]) -> None:
    count, width = tensor.shape[0], tensor.shape[1]
    if len(rows) != count:
        raise wrong(tensor, f"its shape {shape_of(tensor)} means {count:,} rows, and {len(rows):,} were sent")
    for at, row in enumerate(rows):
        if len(row) != width:
            raise wrong(
                tensor, f"row {at} holds {len(row):,} values, and its shape {shape_of(tensor)} says {width:,}"
            )
