"""The one validation of a kick: strict and quick where it is right; where it is wrong, every fault is named.

msgspec decodes and checks at once, and stops at the first fault. Only a body that it refuses is read a second
time, field by field, so that an error can name every fault. The API, files and plugins validate here.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, get_args

import msgspec
import numpy as np

from kickserve.errors import InvalidInput, MalformedBody, RequestError
from kickserve.features import FEATURES, Feature, acceptable
from kickserve.schemas import (
    BATCH_MAX,
    KICKER_LONGEST,
    UNDECODABLE,
    FieldError,
    Kick,
    KickerName,
    Outcome,
    OutcomeOf,
    Source,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from numpy.typing import NDArray

T = TypeVar("T")

ERRORS_SHOWN: Final = 100
_LONGEST_VALUE: Final = 100
_EXPLAINED: Final = 64_000  # bytes; no kick is longer, and a second reading takes memory
_DIGITS: Final = 20
_PART: Final = 500_000  # bytes of a batch that are read in one turn of the event loop: 1 ms
_MARK: Final = b"\xef\xbb\xbf"  # the byte order mark of UTF-8, which a reader may pass over (RFC 8259)
_COMMA: Final = re.compile(rb"[ \t\r\n]*,")

_kick = msgspec.json.Decoder(Kick)
_outcome = msgspec.json.Decoder(Outcome)
_outcomes = msgspec.json.Decoder(list[OutcomeOf])
_kicks = msgspec.json.Decoder(list[Kick])
# A Struct for each field: msgspec prepares a Struct once, and any other type anew at each `convert`.
_FIELDS: Final = {
    field.name: msgspec.defstruct(field.name, [("value", field.type)])
    for field in msgspec.structs.fields(Kick)
}
_any = msgspec.json.Decoder(msgspec.Raw)
_rows = msgspec.json.Decoder(list[msgspec.Raw])


def read_kick(body: bytes) -> Kick:
    """Read one kick from JSON.

    Raises:
        MalformedBody: the body is no JSON.
        InvalidInput: the JSON is no kick; the error names every field at fault.
    """
    try:
        return _kick.decode(body)
    except UNDECODABLE as error:
        if body.startswith(_MARK):
            return read_kick(body[len(_MARK) :])
        _refuse(_explain(body, error))


def read_kicks(body: bytes, *, lines: bool = False) -> list[Kick]:
    """Read many kicks: a JSON array of at most 100,000, or NDJSON with one a line.

    Raises:
        MalformedBody: the body is no JSON; of NDJSON the error names the row.
        InvalidInput: a row is no kick; the error names rows and fields, the first 100 of them.
    """
    body = body.removeprefix(_MARK)
    try:
        kicks = _kick.decode_lines(body) if lines else _kicks.decode(body)
    except UNDECODABLE as error:
        if _is_crowded(body, lines=lines):
            _refuse(_in_short(body, "batch", error))
        _refuse(_explain_rows(body.splitlines() if lines else _split(body)))
    _check_count(len(kicks))
    return kicks


async def read_kicks_in_turns(chunks: AsyncIterator[bytes], *, lines: bool) -> AsyncIterator[list[Kick]]:
    """Read many kicks as `read_kicks` does, with the same errors, while they come.

    Args:
        chunks: of the body; what they raise is raised.
        lines: whether it is NDJSON.
    """
    count, body = 0, list[bytes]()
    async for part in _parts(chunks, body, lines=lines):
        try:
            kicks = _kick.decode_lines(part) if lines else _kicks.decode(part)
        except UNDECODABLE:
            kicks = []
        if not kicks:  # also after a comma at the end: the whole body is read again for its error
            body += [chunk async for chunk in chunks]
            yield (await asyncio.to_thread(read_kicks, b"".join(body), lines=lines))[count:]
            return
        count += len(kicks)
        yield kicks
        await asyncio.sleep(0)
    _check_count(count)


async def _parts(chunks: AsyncIterator[bytes], body: list[bytes], *, lines: bool) -> AsyncIterator[bytes]:
    """Cut a body into lines that are read together, or its array of kicks into shorter arrays.

    But in the label of a kicker, each `}` ends a kick. A body that is no array of kicks, or is cut within a
    label, has at least one part that is none, or is empty.

    Args:
        chunks: of the body.
        body: they are added to it.
        lines: whether it is NDJSON.
    """
    held: list[bytes] = []
    size, aim, opening = 0, _PART, b""
    async for chunk in chunks:
        held.append(chunk if body else chunk.removeprefix(_MARK))
        body.append(chunk)
        size += len(chunk)
        if size < aim:
            continue
        text, begin = b"".join(held), 0
        while cut := _find_cut(text, begin + _PART, lines=lines):
            end, following = cut
            yield text[begin:end] if lines else b"".join((opening, text[begin:end], b"]"))
            begin, opening = following, b"" if lines else b"["
        held, size = [text[begin:]], len(text) - begin
        aim = _PART if begin else 2 * size  # where nothing can be cut, it is not searched for each chunk
    yield opening + b"".join(held)


def _find_cut(text: bytes, start: int, *, lines: bool) -> tuple[int, int] | None:
    """Return where the first kick ends that does so from `start` on, and where the next one begins."""
    if lines:
        end = text.find(b"\n", start)
        return None if end < 0 else (end, end + 1)
    end = text.find(b"}", start) + 1
    comma = _COMMA.match(text, end) if end else None
    return comma and (end, comma.end())


def cut_lines(body: bytes) -> Iterator[bytes]:
    """Cut lines into parts, each of as many as are read in one turn of the event loop."""
    begin = len(_MARK) if body.startswith(_MARK) else 0
    while cut := _find_cut(body, begin + _PART, lines=True):
        yield body[begin : cut[0]]
        begin = cut[1]
    yield body[begin:]


def _check_count(count: int) -> None:
    if not 1 <= count <= BATCH_MAX:
        raise InvalidInput(f"a batch holds 1 to {BATCH_MAX:,} kicks; this one holds {count:,}")


def read_good_lines(text: bytes) -> list[Kick] | None:
    """Read kicks from lines of NDJSON; None where a line is no kick, or has white space around it."""
    try:
        kicks = _kick.decode_lines(text)
    except UNDECODABLE:
        return None
    # The decoder would also take two kicks on a line, or a kick over several lines.
    return kicks if len(kicks) == 1 + text.count(b"}\n{") == 1 + text.count(b"\n") else None


def kick_or_error(line: bytes) -> Kick | RequestError:
    """Read one kick from JSON, or return the error of `read_kick`."""
    try:
        return read_kick(line)
    except RequestError as error:
        return error


def out_of_range(rows: NDArray[np.float64]) -> list[FieldError]:
    """Find the values outside their feature's range, the first 100 of them, in an array of kicks.

    Args:
        rows: kicks, shape (n, 11), in the order of `kickserve.features.NAMES`.
    """
    found = np.argwhere(~acceptable(rows))[:ERRORS_SHOWN].tolist()
    return [_cell_fault(row, FEATURES[column], float(rows[row, column])) for row, column in found]


def _cell_fault(row: int, feature: Feature, value: float) -> FieldError:
    shown = value if math.isfinite(value) else str(value)  # JSON has no NaN
    return FieldError(field=feature.name, detail=f"must be {feature.wanted}", value=shown, row=row)


def read_outcome(body: bytes) -> Outcome:
    """Read the outcome of a kick: `{"success": true}`.

    Raises:
        MalformedBody: the body is no JSON.
        InvalidInput: the JSON is no outcome.
    """
    advice = 'send {"success": true} or {"success": false}; DELETE takes an outcome back'
    return _read(_outcome, body, advice)


def read_outcomes(body: bytes) -> list[OutcomeOf]:
    """Read the outcomes of many kicks: `[{"id": "…", "success": true}, …]`; raises as `read_outcome`."""
    outcomes = _read(_outcomes, body, 'send a list such as [{"id": "…", "success": true}]')
    if not 1 <= len(outcomes) <= BATCH_MAX:
        raise InvalidInput(f"1 to {BATCH_MAX:,} outcomes can be set at once, not {len(outcomes):,}")
    return outcomes


def _read(decoder: msgspec.json.Decoder[T], body: bytes, advice: str) -> T:
    try:
        return decoder.decode(body.removeprefix(_MARK))
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{advice}: {error}", [FieldError(field="body", detail=str(error))]) from None
    except UNDECODABLE as error:
        raise MalformedBody(f"the body is no JSON ({error}): {advice}") from None


def _refuse(faults: list[FieldError]) -> NoReturn:
    if not faults:  # the second reading found none: 400 rather than 500
        raise MalformedBody("the body is no JSON that can be read as a kick")
    first = faults[0]
    where = first.field if first.row is msgspec.UNSET else f"row {first.row}: {first.field}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    raise InvalidInput(f"{where} {first.detail}{more}", faults)


def _explain(body: bytes, error: Exception) -> list[FieldError]:
    """Find every fault in a body that the decoder refused."""
    if len(body) <= _EXPLAINED:
        return faults_of(_parse(body))
    if isinstance(error, msgspec.ValidationError):
        _check_form(body)
    return _in_short(body, "kick", error)


def _in_short(body: bytes, wanted: str, error: Exception) -> list[FieldError]:
    """Return the decoder's own message for a body that is too long to be read again field by field."""
    if isinstance(error, msgspec.ValidationError):
        detail = f"is no {wanted}, and {len(body):,} bytes long: {str(error)[:_LONGEST_VALUE]}"
        return [FieldError(field="body", detail=detail)]
    raise MalformedBody(f"the body is no JSON: {error}")


def _check_form(body: bytes) -> None:
    """Raise MalformedBody for a body that stops being JSON behind the place where the decoder gave up."""
    try:
        _any.decode(body)
    except UNDECODABLE as error:
        raise MalformedBody(f"the body is no JSON: {error}") from None


def _is_crowded(body: bytes, *, lines: bool) -> bool:
    """Whether a body has more pieces than any batch: 40 MB of ones would take a GB, and two seconds."""
    if lines:  # each ends with two characters at most
        return body.count(b"\n") + body.count(b"\r") > 2 * BATCH_MAX
    return body.count(b",") > BATCH_MAX * (len(_FIELDS) + 1)


def _split(body: bytes) -> list[msgspec.Raw]:
    try:
        return _rows.decode(body)
    except msgspec.ValidationError:
        raise InvalidInput(
            "the body must be a JSON array of kicks",
            [FieldError(field="body", detail="must be a JSON array of kicks")],
        ) from None
    except UNDECODABLE as error:
        raise MalformedBody(f"the body is no JSON: {error}") from None


def _explain_rows(rows: Iterable[bytes | msgspec.Raw]) -> list[FieldError]:
    faults: list[FieldError] = []
    for number, row in enumerate(rows):
        if len(faults) >= ERRORS_SHOWN:
            break
        if bytes(row).strip():
            faults += _row_faults(number, bytes(row))
    return faults


def _row_faults(number: int, row: bytes) -> Iterator[FieldError]:
    try:
        _kick.decode(row)
    except UNDECODABLE as error:
        try:
            faults = _explain(row, error)
        except MalformedBody as malformed:
            raise MalformedBody(f"row {number}: {malformed}") from None
        for fault in faults:
            yield FieldError(field=fault.field, detail=fault.detail, value=fault.value, row=number)


def _parse(body: bytes) -> Any:
    """Parse any JSON with Python's own parser, which says where a body stops being JSON."""
    if not body.strip():
        raise MalformedBody("the body is empty: send a JSON object with the eleven features")
    try:
        return json.loads(body.decode(), parse_constant=_no_constant, parse_int=_integer)
    except UnicodeDecodeError:
        raise MalformedBody("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise MalformedBody(f"the body is no JSON: {error}") from None
    except RecursionError:
        raise MalformedBody("the body is nested too deeply to be a kick") from None


def _no_constant(name: str) -> NoReturn:
    raise MalformedBody(f"the body is no JSON: {name} is no JSON number")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


def faults_of(value: Any) -> list[FieldError]:
    """Find everything that keeps a value of JSON from being a kick: an empty list where nothing does."""
    if not isinstance(value, dict):
        detail = f"must be a JSON object with the eleven features, not {_json_type(value)}"
        return [FieldError(field="body", detail=detail)]
    missing_or_wrong = (_fault(feature, value.get(feature.name, msgspec.UNSET)) for feature in FEATURES)
    labels = {
        "kicker": kicker_fault(value.get("kicker")),
        "source": _source_fault(value.get("source", "api")),
    }
    unknown = [name for name in value if name not in _FIELDS]
    return [
        *filter(None, missing_or_wrong),
        *(
            FieldError(field=name, detail=fault, value=_shown(value[name]))
            for name, fault in labels.items()
            if fault
        ),
        *(FieldError(field=_shown(name), detail="is no feature of a kick: leave it out") for name in unknown),
    ]


def _fault(feature: Feature, value: Any) -> FieldError | None:
    if value is msgspec.UNSET:
        return FieldError(field=feature.name, detail=f"is missing: must be {feature.wanted}")
    try:
        msgspec.convert({"value": value}, _FIELDS[feature.name])
    except (msgspec.ValidationError, UnicodeEncodeError):  # a lone surrogate is no text
        return FieldError(field=feature.name, detail=f"must be {feature.wanted}", value=_shown(value))
    return None


def kicker_fault(value: Any) -> str | None:
    """Return what keeps a value from being the label of a kicker, in words; None where nothing does."""
    if value is None:
        return None
    wanted = f"must be a text of 1 to {KICKER_LONGEST} characters"
    if not isinstance(value, str):
        detail = f"{wanted}, or null for an unnamed kicker, not {_json_type(value)}"
        return f'{detail}: write "{value}"' if type(value) is int else detail
    if not value.strip():
        return "must not be blank: leave it out, or send null, for an unnamed kicker"
    if len(value) > KICKER_LONGEST:
        return f"{wanted}, and has {len(value):,}"
    return None if _is(KickerName, value) else f"{wanted} without control characters, such as line breaks"


def _source_fault(value: Any) -> str | None:
    return None if _is(Source, value) else f"must be one of {', '.join(get_args(Source))}"


def _is(kind: Any, value: Any) -> bool:
    try:
        msgspec.json.encode(msgspec.convert(value, kind))
    except (msgspec.ValidationError, UnicodeEncodeError):  # a lone surrogate is no text
        return False
    return True


def _shown(value: Any) -> Any:
    """Return a sent value as an answer may show it: short, and representable in JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a number beyond the range of a float"
    if isinstance(value, str):
        text = value.encode(errors="replace").decode()  # a lone surrogate can be escaped in, but not sent
        return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"
    return _json_type(value) if isinstance(value, dict | list) else value


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
