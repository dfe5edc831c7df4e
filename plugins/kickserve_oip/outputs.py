"""What a model can be asked for under `/v2`, and what a request asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kickserve_oip.errors import BadInference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kickserve.schemas import ModelCard
    from kickserve_oip.messages import InferenceRequest, RequestOutput

INTERVAL: Final = ("low", "high")
OUTPUTS: Final = {  # by name, the datatype; each of shape (n,)
    "prediction": "FP64",
    "confidence": "FP64",
    "low": "FP64",
    "high": "FP64",
    "id": "BYTES",
    "warnings": "BYTES",
}


class Wanted(NamedTuple):
    """An output that is to be answered.

    Attributes:
        name: of `OUTPUTS`.
        binary: whether its values come as bytes.
    """

    name: str
    binary: bool


def outputs_of(card: ModelCard) -> list[str]:
    """Name what a model can be asked for: the ends of the interval only where it gives one."""
    return [name for name in OUTPUTS if card.interval is not None or name not in INTERVAL]


def wanted(request: InferenceRequest, card: ModelCard) -> list[Wanted]:
    """Say what a request asks for: all that there is, where it names nothing.

    Raises:
        BadInference: it asks for what this model doesn't give, for something twice, or in a way that is not
            known here.
    """
    there = outputs_of(card)
    binary = _flag(request.parameters or {}, "binary_data_output", default=False)
    if not request.outputs:
        return [Wanted(name, binary) for name in there]
    names = [each.name for each in request.outputs]
    for each in request.outputs:
        _check(each, there)
    if twice := [name for name in there if names.count(name) > 1]:
        raise BadInference(f"outputs asks twice for {', '.join(twice)}")
    return [
        Wanted(each.name, _flag(each.parameters or {}, "binary_data", default=binary))
        for each in request.outputs
    ]


def _check(output: RequestOutput, there: Sequence[str]) -> None:
    if output.name not in there:
        why = "this model gives no interval" if output.name in INTERVAL else "there is no such output"
        raise BadInference(f"the output {output.name[:100]!r}: {why}; there are {', '.join(there)}")
    for name in ("classification", "shared_memory_region"):
        if name in (output.parameters or {}):
            raise BadInference(f"the output {output.name!r}: {name} is not among this server's extensions")


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise BadInference(f"the parameter {name} must be true or false, not {str(value)[:40]}")
    return value
