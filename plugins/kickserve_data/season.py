"""A season's kicks out of a file whose columns may be called anything, read by a process of its own.

What strangers send may be broken, huge or made to do harm: `read_apart` reads it in a process that has its
limits of time and memory, and leaves the event loop alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
from contextlib import suppress
from datetime import date, datetime
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from msgspec import Struct

from kickserve.errors import KickserveError
from kickserve.features import INDEX, NAMES
from kickserve_data import DataError
from kickserve_data.columns import KICKERS, OUTCOMES, match_columns
from kickserve_data.kicks import CellReader, RefusedRow
from kickserve_data.reader import open_kicks
from kickserve_data.simulate import EDGE_OF_MATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve_data.kicks import Row
    from kickserve_data.source import KickFile

OUTCOME: Final = OUTCOMES[0]
KICKER: Final = KICKERS[0]
REQUIRED: Final = (OUTCOME, "distance", "angle")
"""The columns without which there is nothing to compare."""
COLUMNS: Final = (
    *dict.fromkeys((KICKER, OUTCOME, "distance", "angle", "is_left_side", "date", "minute", *NAMES)),
)
"""The columns that a file may have, by the names of this project; `minute` stands for `time_norm` of 80."""
MOST_KICKS: Final = 100_000
"""Rows of a file."""
MOST_KICKERS: Final = 5_000
"""Labels in a file: more are no kickers."""
NO_DAY: Final = -(2**31)
"""The day of a kick without a date."""

_NEEDED: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_SECONDS: Final = 20  # of a processor that reading may take
_TOO_LONG: Final = f"takes longer than {_SECONDS} s to read: send a part of it"
_PATIENCE: Final = 60.0  # seconds for it on a busy machine
_MEMORY: Final = 512 << 20  # bytes of the process that reads; a spreadsheet of 100,000 rows takes 400
_BLOCK: Final = 8_192  # rows
_NO_TABLE: Final = "is no table: send CSV, a spreadsheet, Parquet or JSON"
_MOST_COLUMNS: Final = 500
_LONGEST_NAME: Final = 200
_EXAMPLES: Final = 3  # cells of each column that are shown
_LOOKED_AT: Final = 50  # rows among which these are
_EXAMPLE: Final = 24  # characters
_SHOWN: Final = 500  # refused rows that are named
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1f]")  # of pictures and the like
_MINUTES: Final = 80
_LATEST: Final = 130  # minutes: of a match with extra time
_MINUTE: Final = re.compile(r"\s*(\d{1,3}(?:[.,]\d+)?)(?:[^\d.,].*)?")  # 63', 40+2, 63:12
_DAY: Final = re.compile(r"\s*(\d{1,2})[./ -](\d{1,2})[./ -](\d{4}|\d{2})\b.*")
_WRITTEN: Final = ("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y")  # days with a month's name
_EPOCH: Final = date(1970, 1, 1).toordinal()
_EXCEL: Final = date(1899, 12, 30).toordinal() - _EPOCH  # whose days are counted from here
_SERIALS: Final = (20_000, 80_000)  # Excel's numbers of days from 1954 to 2119
_MONTHS: Final = 12
_CENTURY: Final = 100

_log = logging.getLogger(__name__)


class Season(Struct, kw_only=True, tag=True):
    """What a file holds.

    Attributes:
        header: the names of its columns.
        columns: the names of those that are used, by `COLUMNS`.
        guessed: those of `columns` whose name only looks like them.
        examples: the first cells of each column that hold something.
        missing: those of `REQUIRED` that were not found.
        refusals: rows that are no kick with an outcome, the first 500.
        refused: how many there are.
        labels: of the kickers; those in the file's order.
        matrix: float64 of shape (n, 11), in the order of `kickserve.features.NAMES`; without kicks where
            columns are missing or guessed. What the file has no column for is as `usual` has it.
        success: uint8 of shape (n,).
        kicker: int32 of shape (n,), a position in `labels`; -1 for an unnamed kicker.
        day: int32 of shape (n,), days since 1970, or `NO_DAY`; empty where the file has no dates.
        line: int32 of shape (n,).
    """

    header: list[str]
    columns: dict[str, str]
    guessed: list[str]
    examples: list[list[str]]
    missing: list[str]
    refusals: list[RefusedRow] = []
    refused: int = 0
    labels: list[str] = []
    matrix: bytes = b""
    success: bytes = b""
    kicker: bytes = b""
    day: bytes = b""
    line: bytes = b""


class _Asked(Struct):
    """What the process is asked for: a line of JSON before the file."""

    usual: list[float]
    columns: dict[str, str] | None = None


class _Failed(Struct, tag=True):
    """Why the file can't be read."""

    reason: str


async def read_apart(
    content: bytes, usual: Sequence[float], columns: Mapping[str, str] | None = None
) -> Season:
    """Read a file in a process of its own; the arguments are those of `read_season`.

    Raises:
        DataError: the file can't be read, also within the limits of time and memory.
    """
    asked = _Asked([*usual], None if columns is None else {**columns})
    # Nothing secret goes along; and each thread takes memory.
    environment = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", __name__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment | {"OPENBLAS_NUM_THREADS": "1"},
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            answer, errors = await process.communicate(msgspec.json.encode(asked) + b"\n" + content)
    except TimeoutError:
        raise DataError(_TOO_LONG) from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode == -signal.SIGXCPU:
        raise DataError(_TOO_LONG)
    if not answer:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        _log.warning("reading a visitor's file ended with code %s: %s", process.returncode, last)
        raise DataError("takes too much memory to read: send a part of it, or save it as CSV")
    found = msgspec.msgpack.decode(answer, type=Season | _Failed)
    if isinstance(found, _Failed):
        raise DataError(found.reason)
    return found


def read_season(content: bytes, usual: Sequence[float], columns: Mapping[str, str] | None = None) -> Season:
    """Read a file of any kind that `open_kicks` reads.

    Args:
        content: of the file.
        usual: the eleven numbers of a kick where the file has no column for them.
        columns: names of its columns by `COLUMNS`; None to match them by their names: then kicks are read
            only if no name had to be guessed.

    Raises:
        DataError: the file can't be read, or is too large.
        MissingExtra: a package for this kind of file is not installed.
    """
    file = open_kicks(Path("-"), (), content=content)
    header = [name.strip() for name in file.header]
    longest = max(map(len, header), default=0)
    if not 0 < longest <= _LONGEST_NAME or len(header) > _MOST_COLUMNS:
        raise DataError(_NO_TABLE)
    found, guessed = match_columns(header) if columns is None else (_given(columns, header), set[str]())
    ahead = [*islice(file.rows, _LOOKED_AT)]
    season = Season(
        header=header,
        columns=found,
        guessed=[each for each in COLUMNS if each in guessed],
        examples=[_examples(ahead, at) for at in range(len(header))],
        missing=[each for each in REQUIRED if each not in found],
    )
    if any(map(_CONTROL.search, (*header, *chain(*season.examples)))):
        raise DataError(_NO_TABLE)
    if not season.missing and not season.guessed:
        _read_kicks(season, file, ahead, usual)
    return season


def _given(columns: Mapping[str, str], header: Sequence[str]) -> dict[str, str]:
    """Return the columns that a person has chosen, as far as there are any."""
    return {column: name for column, name in columns.items() if column in COLUMNS and name in header}


def _examples(rows: Sequence[Row], at: int) -> list[str]:
    cells = [row[at] for _, row in rows if not isinstance(row, str)]
    shown = [str(cell).strip()[:_EXAMPLE] for cell in cells if cell is not None]
    return [*dict.fromkeys(filter(None, shown))][:_EXAMPLES]


def _read_kicks(season: Season, file: KickFile, ahead: Sequence[Row], usual: Sequence[float]) -> None:
    """Read the kicks of an open file into a season."""
    places = {column: season.header.index(name) for column, name in season.columns.items()}
    pick, cells = _picker(places, usual), CellReader(season.columns[OUTCOME], season.columns.get(KICKER))
    labels: dict[str, int] = {}
    days: dict[int, Any] = {}  # the cells by their line
    parts: list[tuple[NDArray[Any], ...]] = []
    count = 0
    for rows in _blocks(ahead, file.rows):
        count += len(rows)
        if count > MOST_KICKS:
            raise DataError(f"has more than {MOST_KICKS:,} rows: send a part of it")
        if "date" in places:
            days |= {line: row[places["date"]] for line, row in rows if not isinstance(row, str)}
        block = cells.known(
            cells.block([(line, row if isinstance(row, str) else pick(row)) for line, row in rows])
        )
        kickers = block.kickers or [None] * len(block.lines)
        numbers = [-1 if each is None else labels.setdefault(each, len(labels)) for each in kickers]
        if len(labels) > MOST_KICKERS:
            raise DataError(f"has more than {MOST_KICKERS:,} kickers: is that their column?")
        season.refused += len(block.refusals)
        season.refusals += block.refusals[: _SHOWN - len(season.refusals)]
        parts.append((block.matrix, np.asarray(block.outcome), np.array(numbers), block.lines))
    matrix, success, kicker, lines = (np.concatenate(part) for part in zip(*parts, strict=True))
    _mark_the_edges(matrix, places)
    season.refusals.sort(key=lambda each: each.line)
    season.labels = [*labels]
    season.matrix = matrix.astype("<f8").tobytes()
    season.success = success.astype("u1").tobytes()
    season.kicker = kicker.astype("<i4").tobytes()
    season.line = lines.astype("<i4").tobytes()
    if days:
        season.day = np.array(_days([days[line] for line in lines.tolist()]), dtype="<i4").tobytes()


def _blocks(ahead: Sequence[Row], rows: Iterable[Row]) -> Iterable[Sequence[Row]]:
    yield ahead
    rows = iter(rows)
    while block := [*islice(rows, _BLOCK)]:
        yield block


def _picker(places: Mapping[str, int], usual: Sequence[float]) -> Callable[[Any], list[Any]]:
    """Return a function from all cells of a row to those that `CellReader` takes."""
    wanted = [places.get(name) for name in (*NAMES, OUTCOME)]
    fill = [*usual, None]
    kicker, minute = places.get(KICKER), None if "time_norm" in places else places.get("minute")

    def pick(row: Any) -> list[Any]:
        picked = [fill[at] if place is None else row[place] for at, place in enumerate(wanted)]
        if minute is not None:
            picked[INDEX["time_norm"]] = _time_of(row[minute])
        return picked if kicker is None else [*picked, row[kicker]]

    return pick


def _time_of(cell: Any) -> Any:
    """Return how far a match has gone at a minute; the cell itself, where it is none."""
    found = _MINUTE.fullmatch(str(cell))
    minute = float(found[1].replace(",", ".")) if found else _LATEST + 1
    return min(minute / _MINUTES, 1.0) if minute <= _LATEST else cell


def _mark_the_edges(matrix: NDArray[np.float64], places: Mapping[str, int]) -> None:
    """Say by the time which kicks are in the first and last minutes, where the file says only the time."""
    time = matrix[:, INDEX["time_norm"]]
    if {"time_norm", "minute"} & places.keys():
        for name, inside in (("is_start", time <= EDGE_OF_MATCH), ("is_endgame", time >= 1 - EDGE_OF_MATCH)):
            if name not in places:
                matrix[:, INDEX[name]] = inside


def _days(cells: Sequence[Any]) -> list[int]:
    """Return the days of cells that hold dates in any usual form; all of a file's have the same form."""
    spelt = [found for cell in cells if isinstance(cell, str) and (found := _DAY.fullmatch(cell))]
    day_first = any(int(each[1]) > _MONTHS for each in spelt) or not any(
        int(each[2]) > _MONTHS for each in spelt
    )
    return [_day(cell, day_first=day_first) for cell in cells]


def _day(cell: Any, *, day_first: bool) -> int:
    if isinstance(cell, date):  # a datetime is one
        return cell.toordinal() - _EPOCH
    text = "" if cell is None else str(cell).strip()
    with suppress(ValueError):
        return datetime.fromisoformat(text[:10].replace("/", "-")).toordinal() - _EPOCH
    if found := _DAY.fullmatch(text):
        first, second, year = map(int, found.groups())
        day, month = (first, second) if day_first else (second, first)
        with suppress(ValueError):
            return date(year if year >= _CENTURY else 2000 + year, month, day).toordinal() - _EPOCH
    with suppress(ValueError, OverflowError):
        low, high = _SERIALS
        if low <= (serial := float(text.replace(",", "."))) <= high:
            return _EXCEL + int(serial)
    for form in _WRITTEN:
        with suppress(ValueError):
            return datetime.strptime(text, form).toordinal() - _EPOCH  # noqa: DTZ007  a day has no zone
    return NO_DAY


def _main() -> None:
    """Answer a line of JSON and a file on standard input on standard output, within limits."""
    import resource

    with suppress(OSError, ValueError):  # what this machine does not know
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        Path("/proc/self/oom_score_adj").write_text("1000")  # ends before the service where memory is short
    asked = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Asked)
    answer: Season | _Failed
    try:
        answer = read_season(sys.stdin.buffer.read(), asked.usual, asked.columns)
    except KickserveError as error:
        answer = _Failed(str(error).removeprefix("- "))
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer))


if __name__ == "__main__":
    _main()
