"""The rows of the history as one piece of markup.

An element of NiceGUI for every cell and button took 100 ms of the event loop to make, and predictions waited.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from kickserve_ui.palette import colour_of
from kickserve_ui.scene import MINUTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kickserve.schemas import Record
    from kickserve_ui.words import Words

# What a click on a button within the table tells the server: the button's mark, and the id of its row.
ON_CLICK: Final = """(event) => {
  const button = event.target.closest("button[data-mark]");
  if (button) emit(button.dataset.mark, button.closest("tr").dataset.id);
}"""
MARKS: Final[Mapping[str, bool]] = {"scored": True, "missed": False}
DELETE: Final = "delete"
_HEADS: Final = ("when", "chance", "distance", "angle", "side", "minute", "wind", "outcome", "actions")


def table(words: Words, records: Sequence[Record], pitch: str, *, may_judge: bool, may_delete: bool) -> str:
    """Return the table.

    Args:
        words: to say it in.
        records: a row each.
        pitch: path of the page that shows a kick.
        may_judge: whether the visitor may say what came of a kick.
        may_delete: whether the visitor may delete a prediction.
    """
    heads = "".join(f"<th scope='col'>{escape(words(each))}</th>" for each in _HEADS)
    rows = []
    for record in records:
        cells = [*_cells(words, record), _marks(words, record, enabled=may_judge)]
        cells.append(_actions(words, record, pitch, may_delete=may_delete))
        rows.append(f"<tr data-id='{escape(record.id)}'>{''.join(f'<td>{each}</td>' for each in cells)}</tr>")
    return f"<table class='sheet'><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cells(words: Words, record: Record) -> list[str]:
    chance = "-"
    if record.prediction is not None:
        colour = colour_of(record.prediction)
        chance = f"<i class='swatch' style='background:{colour}'></i>{words.percent(record.prediction)}"
    return [
        words.moment(record.created_at),
        chance,
        words.number(record.distance, 1),
        words.number(record.angle, 1),
        escape(words("side_left" if record.is_left_side else "side_right")),
        escape(words("minute_value", value=words.number(record.time_norm * MINUTES))),
        escape(words("wind_value", value=words.number(record.wind_speed))),
    ]


def _marks(words: Words, record: Record, *, enabled: bool) -> str:
    state = "" if enabled else " disabled"
    marks = (
        _button(words, key, f" aria-pressed='{str(record.outcome is success).lower()}'{state}")
        for key, success in MARKS.items()
    )
    return f"<div class='marks'>{''.join(marks)}</div>"


def _actions(words: Words, record: Record, pitch: str, *, may_delete: bool) -> str:
    show = f"<a class='button' href='{pitch}?{escape(_query(record))}'>{escape(words('show'))}</a>"
    return f"<div class='marks'>{show}{_button(words, DELETE) if may_delete else ''}</div>"


def _button(words: Words, key: str, attributes: str = "") -> str:
    return f"<button class='button' data-mark='{key}'{attributes}>{escape(words(key))}</button>"


def _query(record: Record) -> str:
    return urlencode(
        {
            "distance": f"{record.distance:g}",
            "angle": f"{record.angle:g}",
            "side": "left" if record.is_left_side else "right",
            "minute": round(record.time_norm * MINUTES),
            "wind": round(record.wind_speed),
            "rain": round(record.precipitation_probability * 100),
            "foot": "left" if record.is_left_footed else "right",
            "venue": "away" if record.game_away else "home",
            "attempts": "yes" if record.has_previous_attempts else "no",
        }
    )
