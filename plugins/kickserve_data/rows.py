"""Files that are read row by row: CSV, spreadsheets, JSON.

CSV goes through Python's own csv module: nothing need be installed, a row keeps its line number, and a broken
row spoils no other row.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import deque
from dataclasses import replace
from functools import lru_cache
from itertools import chain, islice
from operator import itemgetter
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from kickserve.errors import need_extra
from kickserve.schemas import UNDECODABLE
from kickserve_data import DataError
from kickserve_data.kicks import CellReader, Cells, Row
from kickserve_data.source import KickFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kickserve_data.columns import Wanted

_DELIMITERS: Final = ",;\t| "  # spaces may be around the others
_FOOTER: Final = re.compile(r"\(\d+ rows?\)\s*")  # of psql
_LOOKED_AT: Final = 100  # lines among which the header is, and rows that show whether it lacks a name
_HEADER: Final = 2  # names that a header of unknown columns has, by which it is known for one
_AROUND: Final = "\x1e, \r\n\t"  # objects of JSON: RFC 7464 has a record separator before each
_LAYOUTS: Final = 100  # of JSON objects that are remembered


def read_csv(wanted: Wanted, text: IO[str]) -> KickFile:
    """Read a table as text, whatever its delimiter and what goes before its header."""
    is_known = wanted.is_known()

    def fit(line: str, delimiter: str) -> int:
        return sum(map(is_known, line.split(delimiter)))

    # Titles, comments and Excel's `sep=;` may stand before the header, which names the most columns. Where no
    # name is known, the delimiter is the sign that is there most often; spaces are in names too.
    ahead = list(islice(text, _LOOKED_AT))
    fits = [
        (fit(line, delimiter), bool(line.strip()), -at, line.count(delimiter) * (delimiter != " "), -order)
        for at, line in enumerate(ahead)
        for order, delimiter in enumerate(_DELIMITERS)
    ]
    _, _, before, _, order = max(fits)
    delimiter, (header, *others) = _DELIMITERS[-order], ahead[-before:]
    header = header.lstrip("# ") if header.startswith("#") else header
    records = _records(chain([header], others, text), 1 - before, delimiter)
    return _table(wanted, records, delimiter)


def _table(wanted: Wanted, records: Iterator[Any], delimiter: str) -> KickFile:
    """Read a table whose first record is its header; each record has its line, or row."""
    _, first = next(records, (1, ()))
    if isinstance(first, str):
        raise DataError(f"{wanted.place} can't be read: its header {first}")
    header = [str(name) for name in first]
    ahead = list(islice(records, _LOOKED_AT))
    if _lacks_name(header, ahead):
        header = ["", *header]
    width = len(header)
    if wanted.columns:
        positions, kicker = wanted.positions(header), wanted.find_kicker(header)
        needed = 1 + max(at for at in positions[:-1] if at is not None)
    else:
        wanted, positions, kicker, needed = replace(wanted, columns=header), [*range(width), None], None, 1
    names = [None if at is None else header[at] for at in positions]
    pick = itemgetter(
        *(width if at is None else at for at in positions), *([] if kicker is None else [kicker])
    )

    def rows() -> Iterator[Row]:
        for line, cells in chain(ahead, records):
            if isinstance(cells, str):
                yield line, cells
            elif len(cells) == width and None not in names:
                yield line, pick(cells)
            elif len(cells) >= needed and not any(map(_filled, cells[width:])):
                # Spreadsheets leave empty cells at the end out, or write one too many.
                yield line, pick([*cells, *[""] * (width + 1 - len(cells))])
            else:
                count = f"{len(cells)} cell{'s' * (len(cells) != 1)}"
                yield line, f"has {count} where the header has {width}"

    named = None if kicker is None else header[kicker].strip()
    outcome = None if names[-1] is None else names[-1].strip()
    cells = CellReader(outcome, named, wanted.usual_at)
    words = {"\t": "tabs", " ": "spaces"}
    cells.took = [] if delimiter in {"", ","} else [words.get(delimiter, f"`{delimiter}`")]
    cells.took += wanted.took(names, named)
    return KickFile(wanted.place, rows(), cells, header=header)


def _lacks_name(header: Sequence[str], ahead: Sequence[Row]) -> bool:
    """Say whether rows have one more cell than the header, as R's write.table names them."""
    rows = [cells for _, cells in ahead if not isinstance(cells, str)]
    longer = [cells for cells in rows if len(cells) == len(header) + 1]
    return bool(rows) and len(longer) == len(rows) and any(_filled(cells[-1]) for cells in longer)


def _filled(cell: Any) -> bool:
    return cell is not None and not (isinstance(cell, str) and not cell.strip())


def _records(text: Iterator[str], number: int, delimiter: str) -> Iterator[Row]:
    """Split CSV into rows; those without any content are left out.

    Args:
        text: line by line.
        number: of the first line.
        delimiter: between cells.

    Yields:
        Each row by the line on which it begins, with its cells as text, or the reason why it has none.
    """
    waiting: deque[str] = deque()  # lines to be read again
    nothing = delimiter + '"-+=:| \r\n'  # also of rules between the header and the rows

    def read_line() -> str:
        return waiting.popleft() if waiting else next(text, "")

    for line in iter(read_line, ""):
        cells: Sequence[str] | str
        lines = 1
        if '"' in line:
            cells, read = _quoted(line, read_line, delimiter)
            if isinstance(cells, str):  # an open quote spoils its own line, not all kicks after it
                waiting.extendleft(reversed(read[1:]))
            else:
                lines = len(read)
        else:
            # Much faster than csv.
            cells = line.split() if delimiter == " " else line.rstrip("\r\n").split(delimiter)
        if (line.strip(nothing) or lines > 1) and not (line[0] == "(" and _FOOTER.fullmatch(line)):
            yield number, cells
        number += lines


def _quoted(line: str, read_line: Callable[[], str], delimiter: str) -> tuple[list[str] | str, list[str]]:
    """Split a row with quotes, which may go on over lines.

    Returns:
        The cells, or the reason why there are none; and the lines that were read.
    """
    lines: list[str] = []

    def feed() -> Iterator[str]:
        more = line
        while more:
            lines.append(more)
            yield more
            more = read_line()

    try:
        return next(csv.reader(feed(), delimiter=delimiter, skipinitialspace=True, strict=True)), lines
    except csv.Error as error:
        return f"can't be read: {error}. Is a quote left open?", lines


def read_spreadsheet(wanted: Wanted, raw: Any) -> KickFile:
    """Read the first sheet that has the columns, from its header on."""
    need_extra("A spreadsheet", "excel", {"python_calamine": "python-calamine"})
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        return _table(
            wanted, iter(_sheet(wanted, CalamineWorkbook.from_filelike(io.BytesIO(raw.read())))), ""
        )
    except CalamineError as error:
        raise DataError(f"{wanted.place} is no spreadsheet that can be read: {error}") from error


def _sheet(wanted: Wanted, book: Any) -> list[tuple[int, list[Any]]]:
    """Return the filled rows from the header on; all of the last sheet, where none has the columns."""
    filled: list[tuple[int, list[Any]]] = []
    is_known = wanted.is_known()

    def is_header(names: list[str]) -> bool:
        return not wanted.missing(names) if wanted.columns else sum(map(is_known, names)) >= _HEADER

    for name in book.sheet_names:
        rows = enumerate(book.get_sheet_by_name(name).to_python(skip_empty_area=False), 1)
        filled = [(number, cells) for number, cells in rows if any(map(_filled, cells))]
        for at, (_, cells) in enumerate(filled[:_LOOKED_AT]):
            if is_header([*map(str, cells)]):
                return filled[at:]
    return filled


def read_json(wanted: Wanted, text: IO[str]) -> KickFile:
    """Read objects: one a line, or an array of them."""
    documents = _objects(wanted, text)
    ahead = [*islice(documents, _LOOKED_AT)]
    header = [*dict.fromkeys(key for _, row in ahead if isinstance(row, dict) for key in row)]
    wanted = wanted if wanted.columns else replace(wanted, columns=header)
    columns = (*wanted.columns, wanted.outcomes[0])
    cells = CellReader(wanted.outcomes[0], usual=wanted.usual_at)

    @lru_cache(_LAYOUTS)
    def keys_of(header: tuple[str, ...]) -> list[str]:
        found = [header[places[0]] if places else None for places in wanted.find(header)]
        at = wanted.find_kicker(header)
        kicker = None if at is None else header[at]
        cells.took = cells.took or wanted.took(found, kicker)
        cells.kicker = cells.kicker or kicker
        keys = [name or column for name, column in zip(found, columns, strict=True)]
        return [*keys, kicker or wanted.kickers[0]] if wanted.kickers else keys

    def pick(row: dict[str, Any] | str) -> Cells | str:
        return row if isinstance(row, str) else [*map(row.get, keys_of((*row,)))]

    found = ((number, pick(row)) for number, row in chain(ahead, documents))
    # Whether there is a column of kickers, the first objects say: each may have other names than the others.
    rows = chain([*islice(found, _LOOKED_AT)], found)
    return KickFile(wanted.place, rows, cells, header=header)


def _objects(wanted: Wanted, text: IO[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield objects of JSON with their line or number, or the reason why there is none."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode

    def read(line: str) -> dict[str, Any] | str:
        try:
            return decode(line)
        except UNDECODABLE as error:
            try:
                # Python's parser takes NaN, as pandas writes it. A comma may end a line, and RS begin it.
                return _object(json.loads(line.strip(_AROUND)))
            except (ValueError, RecursionError):
                return f"is no JSON object: {error}"

    for number, line in enumerate(text, 1):
        if number == 1 and (table := _json_table(wanted, line, text)) is not None:
            yield from ((at, _object(row)) for at, row in enumerate(table, 1))
        elif not line.isspace():
            yield number, read(line)


def _object(row: Any) -> dict[str, Any] | str:
    return row if isinstance(row, dict) else "is no JSON object"


def _json_table(wanted: Wanted, line: str, text: IO[str]) -> list[Any] | None:
    """Return the rows of what is no object a line: documents over many lines, or a table as pandas writes it.

    None for another first line.
    """
    if line.startswith("[") or line.strip() == "{":
        return [row for document in _documents(line + text.read()) for row in _rows_of(wanted, document)]
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return None if (rows := _rows_of(wanted, document)) == [document] else rows


def _documents(text: str) -> Iterator[Any]:
    """Read one document after the other, as jq writes them."""
    decode, text = json.JSONDecoder().raw_decode, text.strip(_AROUND)
    while text:
        document, end = decode(text)
        yield document
        text = text[end:].lstrip(_AROUND)


def _rows_of(wanted: Wanted, document: Any) -> list[Any]:
    """Return the rows of a document: by column, by key, below a name such as `data`; or itself."""
    if isinstance(document, list):
        return document
    if not isinstance(document, dict) or not document:
        return [document]
    columns = [*document.values()]
    names, data = document.get("columns"), document.get("data")
    if isinstance(names, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return [dict(zip(names, row, strict=False)) for row in data]
    by_column = any(wanted.find([*document])[:-1] if wanted.columns else map(wanted.is_known(), document))
    if all(isinstance(column, dict) for column in columns):
        return [{n: document[n].get(key) for n in document} for key in columns[0]] if by_column else columns
    if by_column and all(isinstance(column, list) and len(column) > 1 for column in columns):
        return [dict(zip(document, row, strict=False)) for row in zip(*columns, strict=False)]
    lists = [
        column for column in columns if isinstance(column, list) and column and isinstance(column[0], dict)
    ]
    return [document] if by_column or len(lists) != 1 else lists[0]
