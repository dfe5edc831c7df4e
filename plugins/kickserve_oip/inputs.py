"""Reads inference requests: JSON, with the values binary behind it where a client wants that.

The binary extension is Triton's, `docs/protocol/extension_binary_data.md` in its repository: the header
`Inference-Header-Content-Length` says how long the JSON is; the values of the tensors follow it in order.
"""

from __future__ import annotations

import math
import re
import struct
from itertools import chain
from struct import Struct as Packing
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, Meta
from numpy.typing import NDArray

from kickserve.features import COUNT, INDEX, NAMES
from kickserve.plugins import MalformedBody, kicker_fault, out_of_range
from kickserve.schemas import BATCH_MAX, UNDECODABLE, FieldError, Flag, kicker_of
from kickserve_oip.messages import DATATYPES, BadInference, InferenceRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kickserve_oip.messages import RequestInput

    Sent = tuple[RequestInput, memoryview | None]  # a tensor, and its values where they came as bytes

LENGTH_HEADER: Final = "Inference-Header-Content-Length"
_SIZE: Final = "binary_data_size"
_LONGEST_NUMBER: Final = 12  # digits
_LONGEST_SHOWN: Final = 60
_LOOKED_AT: Final = 10_000  # bytes of a body that is no JSON
_MATRIX: Final = 2  # dimensions: rows and columns
# How often a request may contain these: a tensor has a few braces, a value one comma and perhaps a bracket.
_MOST: Final = {b"{": 1_000, b"[": BATCH_MAX * (COUNT + 1), b",": BATCH_MAX * (COUNT + 3)}

KICKER: Final = "kicker"
"""Name of the tensor of labels, which may be left out."""
_TEXTS: Final = "BYTES"
_LENGTH: Final = Packing("<I")  # of a text, in front of it

_decode = msgspec.json.Decoder(InferenceRequest).decode
_flat_texts = msgspec.json.Decoder(list[str | None]).decode
_nested_texts = msgspec.json.Decoder(list[list[str | None]]).decode


def read(body: bytes, length: str | None) -> tuple[InferenceRequest, Kicks]:
    """Read an inference request.

    Args:
        body: all of it.
        length: the header `Inference-Header-Content-Length`, if it was sent.

    Returns:
        The request; and its kicks.

    Raises:
        MalformedBody: it is no JSON.
        BadInference: it is JSON that is no inference request of 1 to 100,000 kicks. Values that no kick may
            have are named by tensor, row and column, the first 100 of them.
    """
    head, tail = _split(memoryview(body), length)
    request = _request(head, cut=length is not None)
    sent = _with_binary(request.inputs, tail)
    features = [each for each in sent if each[0].name != KICKER] if len(sent) > 1 else sent
    is_matrix = len(features) == 1 and features[0][0].name not in INDEX
    rows = _matrix(*features[0]) if is_matrix else _columns(features)
    if faults := out_of_range(rows):
        raise _refusal([tensor for tensor, _ in features], faults)
    names = [each for each in sent if each not in features]
    if len(names) > 1:
        raise _wrong(names[1][0], "it is there twice")
    return request, Kicks(rows, _labels(*names[0], len(rows)) if names else None)


class Kicks(NamedTuple):
    """The kicks of a request.

    Attributes:
        rows: shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.
        kickers: label of each kicker; None for an unnamed one, or where all are.
    """

    rows: NDArray[np.float64]
    kickers: list[str | None] | None


def _split(body: memoryview, length: str | None) -> tuple[memoryview, memoryview]:
    if length is None:
        return body, body[len(body) :]
    digits = length.strip()
    # isdecimal() alone takes other scripts' digits as well.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _LONGEST_NUMBER):
        raise BadInference(f"the header {LENGTH_HEADER} must be a number of bytes, not {length[:40]!r}")
    if int(digits) > len(body):
        raise BadInference(f"the header {LENGTH_HEADER} says {digits}, and the body has {len(body):,} bytes")
    return body[: int(digits)], body[int(digits) :]


def _request(head: memoryview, *, cut: bool) -> InferenceRequest:
    text = bytes(head).removeprefix(b"\xef\xbb\xbf")  # the byte order mark
    if any(text.count(mark) > most for mark, most in _MOST.items()):
        # Before it is decoded: 40 MB of empty lists would take nine seconds, and a GB.
        raise BadInference(
            f"the body holds far more than {BATCH_MAX:,} kicks have need of{_hint(head, cut=cut)}"
        )
    try:
        request = _decode(text)
    except msgspec.ValidationError as error:
        raise BadInference(f"the body is no inference request: {error}") from None
    except UNDECODABLE as error:
        raise MalformedBody(f"the body is no JSON: {error}{_hint(head, cut=cut)}") from None
    if not request.inputs:
        raise BadInference("inputs is empty: send the eleven features, or a matrix of them")
    return request


def _hint(head: memoryview, *, cut: bool) -> str:
    if cut:
        return f" (read up to its byte {len(head):,}, as the header {LENGTH_HEADER} says)"
    begins = bytes(head[:_LOOKED_AT])
    return f" (does the header {LENGTH_HEADER} say where it ends?)" if _SIZE.encode() in begins else ""


def _with_binary(inputs: Sequence[RequestInput], tail: memoryview) -> list[Sent]:
    """Give each tensor its part of the bytes that follow the JSON."""
    sent: list[Sent] = []
    at = 0
    for each in inputs:
        size = _binary_size(each)
        if size is not None and at + size > len(tail):
            raise _wrong(
                each, f"its {_SIZE} is {size}, and {len(tail) - at:,} bytes are left of those behind the JSON"
            )
        sent.append((each, None if size is None else tail[at : at + size]))
        at += size or 0
    if at != len(tail):
        raise BadInference(
            f"{len(tail):,} bytes follow the JSON, and those of the tensors are {at:,}: see their {_SIZE}"
        )
    return sent


def _binary_size(tensor: RequestInput) -> int | None:
    parameters = tensor.parameters or {}
    if "shared_memory_region" in parameters:
        raise _wrong(tensor, "shared memory is not among this server's extensions: send its values")
    size = parameters.get(_SIZE)
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise _wrong(tensor, f"its {_SIZE} must be a number of bytes, not {str(size)[:40]}")
    if tensor.data is not UNSET:
        raise _wrong(tensor, f"it has both data and {_SIZE}: leave one out")
    return size


def _matrix(tensor: RequestInput, binary: memoryview | None) -> NDArray[np.float64]:
    if len(tensor.shape) != _MATRIX or tensor.shape[1] != COUNT:
        raise _wrong(
            tensor,
            f"its shape {_shape(tensor)} must be [n, {COUNT}], a column for each of {', '.join(NAMES)};"
            " or send those as tensors of their own",
        )
    _check_count(tensor)
    return _values(tensor, binary).reshape(-1, COUNT)


def _columns(sent: Sequence[Sent]) -> NDArray[np.float64]:
    _check_names([tensor.name for tensor, _ in sent])
    first = sent[0][0]
    for tensor, _ in sent:
        if len(tensor.shape) != 1 and tensor.shape[1:] != [1]:
            raise _wrong(tensor, f"its shape {_shape(tensor)} must be [n] or [n, 1]")
        if tensor.shape[0] != first.shape[0]:
            raise _wrong(tensor, f"it holds {tensor.shape[0]:,} kicks, and {first.name!r} {first.shape[0]:,}")
    _check_count(first)
    rows = np.empty((first.shape[0], COUNT))
    for tensor, binary in sent:
        rows[:, INDEX[tensor.name]] = _values(tensor, binary)
    return rows


def _check_names(names: Sequence[str]) -> None:
    faults = {
        "missing": [name for name in NAMES if name not in names],
        "no feature of a kick": [name[:40] for name in names if name not in INDEX][:COUNT],
        "there twice": [name for name in NAMES if names.count(name) > 1],
    }
    reasons = "; ".join(f"{fault}: {', '.join(which)}" for fault, which in faults.items() if which)
    if reasons:
        raise BadInference(f"inputs must be the eleven features, or one matrix of another name: {reasons}")


def _check_count(tensor: RequestInput) -> None:
    if not 1 <= tensor.shape[0] <= BATCH_MAX:
        raise _wrong(tensor, f"a request holds 1 to {BATCH_MAX:,} kicks; this one holds {tensor.shape[0]:,}")


def _labels(tensor: RequestInput, binary: memoryview | None, count: int) -> list[str | None]:
    """Return the labels in the tensor of kickers; an empty text is an unnamed kicker, as is null."""
    if tensor.datatype != _TEXTS:
        raise _wrong(tensor, f"its datatype {tensor.datatype[:40]!r} must be {_TEXTS}: it holds labels")
    if tensor.shape not in ([count], [count, 1]):
        raise _wrong(tensor, f"its shape {_shape(tensor)} must be [{count}] or [{count}, 1]")
    texts = _texts_from_json(tensor) if binary is None else _texts_from_binary(tensor, binary)
    if len(texts) != count:
        raise _wrong(
            tensor, f"its shape {_shape(tensor)} means {count:,} values, and {len(texts):,} were sent"
        )
    labels = [text or None for text in texts]
    for row, label in enumerate(labels):
        if fault := kicker_fault(label):
            shown = f"{label!s:.{_LONGEST_SHOWN}}"
            field = FieldError(field=KICKER, detail=fault, value=shown, row=row)
            raise BadInference(f"the tensor {KICKER!r}, row {row}: {shown!r} {fault}", [field])
    return [*map(kicker_of, labels)]


def _texts_from_json(tensor: RequestInput) -> list[str | None]:
    if tensor.data is UNSET:
        raise _wrong(tensor, f"it has neither data nor, in its parameters, a {_SIZE}")
    try:
        if _NESTED(tensor.data):
            return [text for [text] in _nested_texts(tensor.data)]
        return _flat_texts(tensor.data)
    except ValueError as error:  # also of msgspec
        reason = str(error).replace("`$", "`data")
        raise _wrong(tensor, f"its data must be texts ({_TEXTS}): {reason}") from None


def _texts_from_binary(tensor: RequestInput, binary: memoryview) -> list[str | None]:
    texts: list[str | None] = []
    at = 0
    try:
        while at < len(binary):
            [size] = _LENGTH.unpack_from(binary, at)
            at += _LENGTH.size + size
            if at > len(binary):
                raise ValueError(f"a text of {size:,} bytes begins where fewer are left")  # noqa: TRY301
            texts.append(bytes(binary[at - size : at]).decode())
    except (ValueError, struct.error) as error:
        reason = f"its bytes must be texts, each behind its length in four bytes: {error}"
        raise _wrong(tensor, reason) from None
    return texts


def _refusal(inputs: Sequence[RequestInput], faults: Sequence[FieldError]) -> BadInference:
    """Make the error that also names the place of the first fault, for clients that show nothing but text."""
    first = faults[0]
    if len(inputs) > 1:
        where = f"the tensor {first.field!r}, row {first.row}"
    else:
        column = f"column {INDEX[first.field]} ({first.field})"
        where = f"the tensor {inputs[0].name[:100]!r}, row {first.row}, {column}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return BadInference(f"{where}: {first.value} {first.detail}{more}", faults)


def _wrong(tensor: RequestInput, reason: str) -> BadInference:
    """Make the error for a tensor that can't be used: `reason` is a clause."""
    return BadInference(f"the tensor {tensor.name[:100]!r}: {reason}")


def _shape(tensor: RequestInput) -> str:
    """Show a shape in an error, however long it is."""
    text = str(tensor.shape[:_LONGEST_SHOWN])
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


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
_NESTED: Final = re.compile(rb"\s*\[\s*\[").match


def _values(tensor: RequestInput, binary: memoryview | None) -> NDArray[np.float64]:
    """Return the values of a tensor, flat, in row-major order; of its shape only their number counts."""
    datatype = _DATATYPES.get(tensor.datatype)
    if datatype is None:
        known = ", ".join(DATATYPES)
        raise _wrong(tensor, f"its datatype {tensor.datatype[:40]!r} is none of {known}")
    read = _from_json(tensor, datatype) if binary is None else _from_binary(tensor, datatype, binary)
    wanted = math.prod(tensor.shape)
    if len(read) != wanted:
        raise _wrong(
            tensor, f"its shape {_shape(tensor)} means {wanted:,} values, and {len(read):,} were sent"
        )
    return read


def _from_binary(tensor: RequestInput, datatype: _Datatype, binary: memoryview) -> NDArray[np.float64]:
    size, width = len(binary), datatype.binary.itemsize
    if size % width:
        raise _wrong(tensor, f"{size:,} bytes are no whole number of {tensor.datatype} of {width} bytes each")
    with np.errstate(invalid="ignore"):  # a NaN that signals; `out_of_range` refuses it
        return np.frombuffer(binary, datatype.binary).astype(np.float64)


def _from_json(tensor: RequestInput, datatype: _Datatype) -> NDArray[np.float64]:
    if tensor.data is UNSET:
        raise _wrong(tensor, f"it has neither data nor, in its parameters, a {_SIZE}")
    wanted = f"its data must be {datatype.wanted} ({tensor.datatype})"
    try:
        values = _numbers(tensor, datatype)
    except UNDECODABLE as error:
        raise _wrong(tensor, f"{wanted}: {str(error).replace('`$', '`data')}") from None
    except OverflowError:
        raise _wrong(tensor, wanted) from None
    # A value is what its datatype can hold of it: the same whether it comes as text or as bytes.
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(np.float64) if tensor.datatype == "FP32" else values


def _numbers(tensor: RequestInput, datatype: _Datatype) -> NDArray[np.float64]:
    data: Any = tensor.data
    if not _NESTED(data):
        return np.fromiter(datatype.flat.decode(data), np.float64)
    if len(tensor.shape) < _MATRIX:
        raise _wrong(tensor, f"its data is nested, and its shape {_shape(tensor)} is not")
    rows, (count, width) = datatype.nested.decode(data), tensor.shape[:_MATRIX]
    if len(rows) != count:
        raise _wrong(tensor, f"its shape {_shape(tensor)} means {count:,} rows, and {len(rows):,} were sent")
    for at, row in enumerate(rows):
        if len(row) != width:
            raise _wrong(
                tensor, f"row {at} holds {len(row):,} values, and its shape {_shape(tensor)} says {width:,}"
            )
    return np.fromiter(chain.from_iterable(rows), np.float64)
