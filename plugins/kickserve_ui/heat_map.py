"""The probability at every spot of the pitch: as a picture, as contours, along a line; and its colours."""

from __future__ import annotations

import base64
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np
from contourpy import LineType, contour_generator
from numpy.typing import NDArray

from kickserve.features import BY_NAME, INDEX
from kickserve_ui.page_state import DEPTH, WIDTH, Spot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kickserve.plugins import ServedModel
    from kickserve_ui.page_state import PageState

    _Lines = Sequence[NDArray[np.float64]]

# Colours of probabilities from 0 to 1: lightness rises with probability, so that every eye can order them.
STOPS: Final = ("#2c2a63", "#34518f", "#2b7b94", "#359f88", "#7cc06c", "#d9d65b")
GRADIENT: Final = f"linear-gradient(90deg, {', '.join(STOPS)})"
LEVELS: Final = (0.2, 0.4, 0.6, 0.8)
STEP: Final = 0.5  # metres between the spots of a map

_DISTANCE: Final = BY_NAME["distance"]
_X: Final = np.arange(0, WIDTH + STEP / 2, STEP)
_OUT: Final = np.arange(0, DEPTH + STEP / 2, STEP)
_ALL_X, _ALL_OUT = (each.ravel() for each in np.meshgrid(_X, _OUT))
_NEAREST: Final = 5.0  # metres from the goal line of the nearest conversion: a nearer one is charged down
_CACHED: Final = 32  # maps
_LABEL_ROOM: Final = 3.0  # metres from the goal line that a label needs


@dataclass(frozen=True)
class HeatMap:
    """The model's answers for the whole pitch; what browsers need of them is made once for all.

    Attributes:
        probability: shape (rows, columns): a row every half metre from the goal line, a column every half
            metre from the left touch line.
        out_of_domain: the same shape: where the model warns.
    """

    probability: NDArray[np.float64]
    out_of_domain: NDArray[np.bool_]

    @cached_property
    def picture(self) -> dict[str, Any]:
        """The map for the browser: a byte a spot, seven bits of probability and one for a warning."""
        levels = np.rint(self.probability * 127).astype(np.uint8) * 2 + self.out_of_domain.astype(np.uint8)
        rows, columns = levels.shape
        return {
            "rows": rows,
            "columns": columns,
            "step": STEP,
            "bytes": base64.b64encode(levels.tobytes()).decode(),
        }

    @cached_property
    def contours(self) -> list[Contour]:
        """The contours of `LEVELS`."""
        return list(map(self.contour, LEVELS))

    def contour(self, level: float) -> Contour:
        """Return the line on which the probability has a value, 0 to 1."""
        generator = contour_generator(_X, _OUT, self.probability, line_type=LineType.Separate)
        lines = cast("_Lines", generator.lines(level))
        longest = max(lines, key=len, default=None)
        label = None
        if longest is not None:
            # At the line's nearest point to the posts' middle: there lines lie furthest apart.
            label = longest[int(np.argmin(np.abs(longest[:, 0] - WIDTH / 2)))].round(1).tolist()
        if label is not None and label[1] < _LABEL_ROOM:
            label = None
        return Contour(level, "".join(map(_path, lines)), label)


class Contour(NamedTuple):
    """The line on which the probability has a value.

    Attributes:
        level: the value.
        path: SVG path, in metres.
        label: a spot for a label on the longest part of the line; None where there is no room.
    """

    level: float
    path: str
    label: list[float] | None


class TeeLine(NamedTuple):
    """The spots that the kicker of a conversion may choose from: the line through the try.

    Attributes:
        out: shape (n,), metres back from the goal line.
        probability: shape (n,).
        best: the spot with the highest probability, among those without a warning if there are any.
        best_probability: of that spot.
    """

    out: NDArray[np.float64]
    probability: NDArray[np.float64]
    best: Spot
    best_probability: float


class HeatMaps:
    """Makes maps, and caches the newest: a condition that is changed back takes no call of the model."""

    def __init__(self) -> None:
        self._cache: OrderedDict[tuple[Any, ...], HeatMap] = OrderedDict()

    async def get(self, served: ServedModel, state: PageState) -> HeatMap:
        """Return the map for the conditions of a state; nothing is recorded.

        Raises:
            PredictionFailed: the model failed.
        """
        card = served.model.card
        conditions = (state.minute, state.wind, state.rain, state.foot, state.venue, state.attempts)
        key = (card.name, card.revision, *conditions)
        found = self._cache.pop(key, None) or await _heat_map(served, state)
        self._cache[key] = found
        while len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return found


async def _heat_map(served: ServedModel, state: PageState) -> HeatMap:
    kicks = _kicks_at(_ALL_X, _ALL_OUT, state.row)
    shape = (len(_OUT), len(_X))
    probability = (await served.score(kicks))[:, 0]
    return HeatMap(probability.reshape(shape), served.model.out_of_domain(kicks).reshape(shape))


async def tee_line(served: ServedModel, state: PageState) -> TeeLine:
    """Ask the model for every spot on the line through the ball, parallel to the touch lines.

    Raises:
        PredictionFailed: the model failed.
    """
    out = _OUT[_OUT >= _NEAREST]
    x = state.spot.x
    kicks = _kicks_at(np.full(len(out), x), out, state.row)
    probability = (await served.score(kicks))[:, 0]
    known = ~served.model.out_of_domain(kicks)
    at = int(np.argmax(np.where(known, probability, -1.0) if known.any() else probability))
    return TeeLine(out, probability, Spot(x, float(out[at])), float(probability[at]))


def colour_of(probability: float) -> str:
    """Return the colour of a probability, 0 to 1, for CSS."""
    position = min(max(probability, 0.0), 1.0) * (len(STOPS) - 1)
    at = min(int(position), len(STOPS) - 2)
    low, high = (bytes.fromhex(stop[1:]) for stop in STOPS[at : at + 2])
    mixed = (round(a + (b - a) * (position - at)) for a, b in zip(low, high, strict=True))
    return f"#{bytes(mixed).hex()}"


def _kicks_at(
    x: NDArray[np.float64], out: NDArray[np.float64], row: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return kicks that differ in their spots alone.

    Args:
        x: shape (n,), metres from the left touch line.
        out: shape (n,), metres from the goal line.
        row: eleven numbers, in the order of `kickserve.features.NAMES`; its spot is replaced.

    Returns:
        Shape (n, 11); distances are clipped to the service's range.
    """
    kicks = np.repeat(row[np.newaxis, :], len(x), axis=0)
    aside = x - WIDTH / 2
    kicks[:, INDEX["distance"]] = np.clip(np.hypot(aside, out), _DISTANCE.low, _DISTANCE.high)
    kicks[:, INDEX["angle"]] = np.degrees(np.arctan2(np.abs(aside), out))
    kicks[:, INDEX["is_left_side"]] = aside < 0
    return kicks


def _path(line: NDArray[np.float64]) -> str:
    return "M" + "L".join(f"{x:.1f} {out:.1f}" for x, out in line.tolist())
