"""Reads inference requests: JSON, with the values binary behind it where a client wants that.

The binary extension is Triton's, `docs/protocol/extension_binary_data.md` in its repository: the header
`Inference-Header-Content-Length` says how long the JSON is; the values of the tensors follow it in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from kickserve.errors import MalformedBody
from kickserve.features import COUNT, INDEX, NAMES
from kickserve.schemas import BATCH_MAX
from kickserve.validation import out_of_range
from kickserve_oip.errors import BadInference
from kickserve_oip.messages import InferenceRequest
from kickserve_oip.tensors import shape_of, values_of, wrong

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kickserve.schemas import FieldError
    from kickserve_oip.messages import RequestInput

    Sent = tuple[RequestInput, memoryview | None]  # a tensor, and its values where they came as bytes

LENGTH_HEADER: Final = "Inference-Header-Content-Length"
_SIZE: Final = "binary_data_size"
_LONGEST_NUMBER: Final = 12  # digits
_LOOKED_AT: Final = 10_000  # bytes of a body that is no JSON
# How often these may stand in a request: a tensor has a few braces, a value one comma and perhaps a bracket.
_MOST: Final = {b"{": 1_000, b"[": BATCH_MAX * (COUNT + 1), b",": BATCH_MAX * (COUNT + 1)}

_decode = msgspec.json.Decoder(InferenceRequest).decode


def read(body: bytes, length: str | None) -> tuple[InferenceRequest, NDArray[np.float64]]:
    """Read an inference request.

    Args:
        body: all of it.
        length: what the header `Inference-Header-Content-Length` says, if it was sent.

    Returns:
        The request; and its kicks, shape (n, 11), in the order of `kickserve.features.NAMES`, within their
        ranges.

    Raises:
        MalformedBody: it is no JSON.
        BadInference: it is JSON that is no inference request of 1 to 100,000 kicks. Values that no kick may
            have are named by tensor, row and column, the first 100 of them.
    """
    head, tail = _split(memoryview(body), length)
    request = _request(head, cut=length is not None)
    sent = _with_binary(request.inputs, tail)
    rows = _matrix(*sent[0]) if _is_matrix(request.inputs) else _columns(sent)
    if faults := out_of_range(rows):
        raise _refusal(request.inputs, faults)
    return request, rows


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
    text = bytes(head)
    if any(text.count(mark) > most for mark, most in _MOST.items()):
        # Before it is decoded: 40 MB of empty lists would take nine seconds, and a GB.
        raise BadInference(
            f"the body holds far more than {BATCH_MAX:,} kicks have need of{_hint(head, cut=cut)}"
        )
    try:
        request = _decode(head)
    except msgspec.ValidationError as error:
        raise BadInference(f"the body is no inference request: {error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
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
    """Give each tensor its part of what follows the JSON."""
    sent: list[Sent] = []
    at = 0
    for each in inputs:
        size = _binary_size(each)
        if size is not None and at + size > len(tail):
            raise wrong(
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
        raise wrong(tensor, "shared memory is not among this server's extensions: send its values")
    size = parameters.get(_SIZE)
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise wrong(tensor, f"its {_SIZE} must be a number of bytes, not {str(size)[:40]}")
    if tensor.data is not msgspec.UNSET:
        raise wrong(tensor, f"it has both data and {_SIZE}: leave one out")
    return size


def _is_matrix(inputs: Sequence[RequestInput]) -> bool:
    return len(inputs) == 1 and inputs[0].name not in INDEX


def _matrix(tensor: RequestInput, binary: memoryview | None) -> NDArray[np.float64]:
    if len(tensor.shape) != 2 or tensor.shape[1] != COUNT:  # noqa: PLR2004  rows and columns
        raise wrong(
            tensor,
            f"its shape {shape_of(tensor)} must be [n, {COUNT}], a column for each of {', '.join(NAMES)};"
            " or send those as tensors of their own",
        )
    _check_count(tensor)
    return values_of(tensor, binary).reshape(-1, COUNT)


def _columns(sent: Sequence[Sent]) -> NDArray[np.float64]:
    _check_names([tensor.name for tensor, _ in sent])
    first = sent[0][0]
    for tensor, _ in sent:
        if len(tensor.shape) != 1 and not (len(tensor.shape) == 2 and tensor.shape[1] == 1):  # noqa: PLR2004  as above
            raise wrong(tensor, f"its shape {shape_of(tensor)} must be [n] or [n, 1]")
        if tensor.shape[0] != first.shape[0]:
            raise wrong(tensor, f"it holds {tensor.shape[0]:,} kicks, and {first.name!r} {first.shape[0]:,}")
    _check_count(first)
    rows = np.empty((first.shape[0], COUNT))
    for tensor, binary in sent:
        rows[:, INDEX[tensor.name]] = values_of(tensor, binary)
    return rows


def _check_names(names: Sequence[str]) -> None:
    missing = [name for name in NAMES if name not in names]
    unknown = [name[:40] for name in names if name not in INDEX][:COUNT]  # enough to see what they are
    twice = [name for name in NAMES if names.count(name) > 1]
    said = (("missing", missing), ("no feature of a kick", unknown), ("there twice", twice))
    reasons = "; ".join(f"{what}: {', '.join(which)}" for what, which in said if which)
    if reasons:
        raise BadInference(f"inputs must be the eleven features, or one matrix of another name: {reasons}")


def _check_count(tensor: RequestInput) -> None:
    if not 1 <= tensor.shape[0] <= BATCH_MAX:
        raise wrong(tensor, f"a request holds 1 to {BATCH_MAX:,} kicks; this one holds {tensor.shape[0]:,}")


def _refusal(inputs: Sequence[RequestInput], faults: Sequence[FieldError]) -> BadInference:
    """Say of the first fault where it is, for clients that see nothing but the text."""
    first = faults[0]
    tensor, column = (
        (first.field, "") if len(inputs) > 1 else (inputs[0].name, f", column {INDEX[first.field]}")
    )
    named = f" ({first.field})" if column else ""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    where = f"the tensor {tensor[:100]!r}, row {first.row}{column}{named}"
    return BadInference(f"{where}: {_number(first.value)} {first.detail}{more}", faults)


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else repr(value)
